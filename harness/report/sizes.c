/* sizes: the table of artifact sizes; see sizes.h. */
#include "harness/report/sizes.h"

#include <math.h>
#include <stdlib.h>

#include "harness/report/grid.h"
#include "model/artifact.h"

static double bytes_at(const struct analysis *a, int variant, int seed) {
    int at = analysis_run(a, variant, seed);
    if (at < 0 || !run_done(&a->results->runs[at]) || !a->results->runs[at].sizes.bytes) return NAN;
    return (double)a->results->runs[at].sizes.bytes;
}

/* Minus the baseline's under the same seed; `values` has room for one a seed. */
static struct shift larger_than_baseline(const struct analysis *a, int variant, double *values) {
    struct shift shift;
    size_t n = 0;
    for (int s = 0; variant != a->baseline && s < a->results->seed_count; s++) {
        double difference = bytes_at(a, variant, s) - bytes_at(a, a->baseline, s);
        if (isfinite(difference)) values[n++] = difference;
    }
    shift.summary = summarise(values, n);
    interval_t(values, n, a->design.alpha, &shift.low, &shift.high);
    return shift;
}

static void size_row(const struct analysis *a, struct grid *g, int variant, double *values) {
    const struct variant_figures *f = &a->variants[variant];
    struct shift larger = larger_than_baseline(a, variant, values);
    grid_name(g, a->results->variants[variant].name);
    grid_integer(g, f->bytes.mean);
    grid_interval(g, f->bytes.min, f->bytes.max, 0);
    grid_integer(g, larger.summary.mean);
    grid_interval(g, larger.low, larger.high, 0);
    grid_integer(g, f->bytes.n ? ARTIFACT_CAP_BYTES - f->bytes.max : (double)NAN);
}

status sizes_write(const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant"},
        {"file", "r", "artifact_bytes"},
        {"least to most", "r", "artifact_bytes_min,artifact_bytes_max"},
        {"larger", "r", "larger"},
        {"interval", "r", "larger_low,larger_high"},
        {"left of the cap", "r", "left_of_cap"},
    };
    double *values = calloc((size_t)a->results->seed_count + 1, sizeof *values);
    struct grid g;
    if (!values) return status_new(STATUS_SYSTEM, "out of memory for %d seeds", a->results->seed_count);
    grid_start(&g, columns, sizeof columns / sizeof *columns, false, a->caveats);
    for (int v = 0; v < a->results->variant_count; v++) size_row(a, &g, v, values);
    free(values);
    return grid_write(&g, folder, "sizes");
}
