/* sources: where the spread of the metric comes from; see sources.h. */
#include "harness/report/sources.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/stats/noise.h"

enum { MOST_NOISY_RUNS = 64 }; /* enough for a mean */

/* The evaluation that the metric reads; NULL when it reads none, or was not made in blocks. */
static const struct evaluation *scored(const struct analysis *a, int run) {
    const struct result_run *r = &a->results->runs[run];
    const struct result_evaluation *e = NULL;
    if (strcmp(a->results->metric, "bpb.raw") == 0) e = &r->raw;
    if (strcmp(a->results->metric, "bpb.averaged") == 0) e = &r->averaged;
    if (strcmp(a->results->metric, "bpb.artifact") == 0) e = &r->artifact;
    bool usable = e && run_done(r) && e->present && e->value.blocks[0].bytes > 0;
    return usable ? &e->value : NULL;
}

static double noise_of_run(const struct analysis *a, int run) {
    const struct evaluation *e = scored(a, run);
    double bits[EVALUATION_BLOCKS], bytes[EVALUATION_BLOCKS];
    if (!e) return NAN;
    for (int b = 0; b < EVALUATION_BLOCKS; b++) {
        bits[b] = e->blocks[b].nll / M_LN2;
        bytes[b] = (double)e->blocks[b].bytes;
    }
    return noise_of_ratio(bits, bytes, EVALUATION_BLOCKS, a->design.seed);
}

/* Adds sign times the bits of a run; false when it was scored on other text. */
static bool add_bits(const struct evaluation *e, double sign, double bits[], const double bytes[]) {
    for (int b = 0; b < EVALUATION_BLOCKS; b++) {
        if ((double)e->blocks[b].bytes != bytes[b]) return false;
        bits[b] += sign * e->blocks[b].nll / M_LN2;
    }
    return true;
}

double text_noise_of_difference(const struct analysis *a, int row) {
    double bits[EVALUATION_BLOCKS] = {0}, bytes[EVALUATION_BLOCKS];
    int variant = analysis_variant(a, row), pairs = 0;
    for (int s = 0; s < a->results->seed_count; s++) {
        int i = analysis_run(a, variant, s), k = analysis_run(a, a->baseline, s);
        const struct evaluation *v = i < 0 ? NULL : scored(a, i), *base = k < 0 ? NULL : scored(a, k);
        if (!v || !base) continue;
        for (int b = 0; !pairs && b < EVALUATION_BLOCKS; b++) bytes[b] = (double)v->blocks[b].bytes;
        if (!add_bits(v, 1.0, bits, bytes) || !add_bits(base, -1.0, bits, bytes)) return NAN;
        pairs++;
    }
    if (!pairs) return NAN;
    for (int b = 0; b < EVALUATION_BLOCKS; b++) bits[b] /= pairs;
    return noise_of_ratio(bits, bytes, EVALUATION_BLOCKS, a->design.seed);
}

/* --- the table of variants and seeds ------------------------------------------------------------------------------ */

static bool full_seed(const struct analysis *a, int seed) {
    for (int v = 0; v < a->results->variant_count; v++)
        if (!isfinite(analysis_metric(a, v, seed))) return false;
    return true;
}

/* Mean squares of the seeds' means and of what is left, over the seeds that all variants have. */
static void take_apart(const struct analysis *a, const int *seeds, int count, double *between, double *left) {
    int variants = a->results->variant_count;
    double grand = 0.0;
    *between = *left = 0.0;
    for (int s = 0; s < count; s++)
        for (int v = 0; v < variants; v++) grand += analysis_metric(a, v, seeds[s]) / (count * variants);
    for (int v = 0; v < variants; v++) {
        double of_variant = 0.0;
        for (int s = 0; s < count; s++) of_variant += analysis_metric(a, v, seeds[s]) / count;
        for (int s = 0; s < count; s++) {
            double of_seed = 0.0;
            for (int u = 0; u < variants; u++) of_seed += analysis_metric(a, u, seeds[s]) / variants;
            double rest = analysis_metric(a, v, seeds[s]) - of_variant - of_seed + grand;
            *left += rest * rest / ((count - 1.0) * (variants - 1.0));
            *between += (of_seed - grand) * (of_seed - grand) / (count - 1.0);
        }
    }
}

static double mean_noise(const struct analysis *a) {
    double sum = 0.0;
    int n = 0;
    for (int i = 0; i < a->results->run_count && n < MOST_NOISY_RUNS; i++) {
        double noise = noise_of_run(a, i);
        if (!isfinite(noise)) continue;
        sum += noise;
        n++;
    }
    return n ? sum / n : (double)NAN;
}

void variance_sources(const struct analysis *a, struct variance_sources *out) {
    int *seeds = calloc((size_t)a->results->seed_count + 1, sizeof *seeds), variants = a->results->variant_count;
    *out = (struct variance_sources){.variants = variants, .shared = NAN, .own = NAN, .text = mean_noise(a)};
    for (int s = 0; seeds && s < a->results->seed_count; s++)
        if (full_seed(a, s)) seeds[out->seeds++] = s;
    if (variants >= 2 && out->seeds >= 2) {
        double between, left;
        take_apart(a, seeds, out->seeds, &between, &left);
        out->own = sqrt(left);
        out->shared = sqrt(fmax(0.0, (between - left) / variants));
    }
    free(seeds);
}
