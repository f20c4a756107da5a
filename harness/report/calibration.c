/* calibration: how often a difference is called where there is none; see calibration.h. */
#include "harness/report/calibration.h"

#include <math.h>
#include <stdlib.h>

static size_t finished_values(const struct analysis *a, int variant, double *values) {
    size_t n = 0;
    for (int s = 0; s < a->results->seed_count; s++) {
        values[n] = analysis_metric(a, variant, s);
        n += isfinite(values[n]) ? 1 : 0;
    }
    return n;
}

static status relabel_rows(struct analysis *a, double *values) {
    bool wanted[TEST_KINDS] = {[TEST_PAIRED_T] = true, [TEST_SIGN_FLIP] = true};
    wanted[a->design.test] = true;
    for (int r = 0; r < a->table.count && r < CALIBRATED_VARIANTS; r++) {
        size_t n = finished_values(a, analysis_variant(a, r), values);
        if (n < RELABEL_LEAST) continue;
        TRY(relabel(values, n, 0, CALIBRATION_RELABELLINGS, a->design.alpha, a->design.seed, wanted,
                    &a->calibrations[r]));
    }
    return NULL;
}

status calibrations_make(struct analysis *a) {
    double *values = calloc((size_t)a->results->seed_count + 1, sizeof *values);
    a->calibrations = calloc((size_t)a->table.count + 1, sizeof *a->calibrations);
    status failure = values && a->calibrations ? relabel_rows(a, values) : status_new(STATUS_SYSTEM, "out of memory");
    free(values);
    return failure;
}
