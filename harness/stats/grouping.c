/* grouping: observations by variant and seed, and what of them each kind of test uses; see grouping.h. */
#include "harness/stats/grouping.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- by variant and seed ------------------------------------------------------------------------------------------ */

void grouping_free(struct grouping *g) {
    free(g->series);
    free(g->entries);
    *g = (struct grouping){0};
}

static struct series *series_of(struct grouping *g, const char *variant) {
    for (int v = 0; v < g->count; v++)
        if (strcmp(g->series[v].variant, variant) == 0) return &g->series[v];
    return NULL;
}

static int by_seed(const void *a, const void *b) {
    const struct observation *x = ((const struct entry *)a)->observation, *y = ((const struct entry *)b)->observation;
    return (x->seed > y->seed) - (x->seed < y->seed);
}

static status check_series(const struct series *s) {
    for (size_t i = 1; i < s->count; i++)
        if (s->entries[i].observation->seed == s->entries[i - 1].observation->seed)
            return status_new(STATUS_USAGE,
                              "variant '%s', seed %" PRId64 " occurs twice; one value per seed is expected", s->variant,
                              s->entries[i].observation->seed);
    return NULL;
}

static status check_baseline(const struct design *design, const struct series *baseline) {
    if (!baseline->count)
        return status_new(STATUS_USAGE, "no value has the baseline '%s'; name one of the variants", design->baseline);
    if (baseline->count < 2)
        return status_new(STATUS_USAGE, "the baseline '%s' has 1 seed; %s needs at least 2", design->baseline,
                          test_name(design->test));
    return NULL;
}

static void count_series(struct grouping *g, const struct observation *observations, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const struct observation *o = &observations[i];
        struct series *s = series_of(g, o->variant);
        if (!s) *(s = &g->series[g->count++]) = (struct series){.variant = o->variant};
        if (!s->family) s->family = o->family ? o->family : "", s->late = true;
        s->late &= o->late;
        s->count += !o->absent;
    }
}

static void fill_series(struct grouping *g, const struct observation *observations, size_t count) {
    struct entry *next = g->entries;
    for (int v = 0; v < g->count; v++) {
        g->series[v].entries = next;
        next += g->series[v].count;
        g->series[v].count = 0;
    }
    for (size_t i = 0; i < count; i++) {
        struct series *s = series_of(g, observations[i].variant);
        if (!observations[i].absent) s->entries[s->count++].observation = &observations[i];
    }
}

static size_t place_of(int64_t *seeds, size_t *count, int64_t seed) {
    for (size_t i = 0; i < *count; i++)
        if (seeds[i] == seed) return i;
    seeds[*count] = seed;
    return (*count)++;
}

/* Only looks ask for the order of the seeds. */
static status place_seeds(struct grouping *g, const struct observation *observations, size_t count) {
    int64_t *seeds = calloc(count + 1, sizeof *seeds);
    size_t known = 0;
    if (!seeds) return status_new(STATUS_SYSTEM, "out of memory for %zu observations", count);
    for (size_t i = 0; i < count; i++)
        if (!observations[i].absent) place_of(seeds, &known, observations[i].seed);
    for (struct entry *e = g->entries; e->observation; e++) e->place = place_of(seeds, &known, e->observation->seed);
    free(seeds);
    return NULL;
}

status group_observations(const struct design *design, const struct observation *observations, size_t count,
                          struct grouping *g) {
    *g = (struct grouping){.series = calloc(count + 1, sizeof *g->series),
                           .entries = calloc(count + 1, sizeof *g->entries)};
    if (!g->series || !g->entries) return status_new(STATUS_SYSTEM, "out of memory for %zu observations", count);
    g->series[g->count++] = (struct series){.variant = design->baseline};
    count_series(g, observations, count);
    fill_series(g, observations, count);
    if (design->looks) TRY(place_seeds(g, observations, count));
    for (int v = 0; v < g->count; v++) {
        qsort(g->series[v].entries, g->series[v].count, sizeof *g->series[v].entries, by_seed);
        TRY(check_series(&g->series[v]));
    }
    return check_baseline(design, &g->series[0]);
}

/* --- what a comparison rests on ----------------------------------------------------------------------------------- */

static bool failed(const struct observation *o) { return o->failed || !isfinite(o->value); }

/* Where the arrays of a pair are filled. */
struct filler {
    double worst; /* the infinity that is worst */
    size_t first;
    double *differences, *ranked_differences, *paired_variant, *paired_baseline;
};

static bool in_look(const struct entry *e, size_t first) { return !first || e->place < first; }

/* What a pair with a failed seed counts as where ranks are compared. */
static double ranked_difference(const struct observation *v, const struct observation *b, double worst) {
    if (failed(v) && failed(b)) return 0.0;
    return failed(v) ? worst : failed(b) ? -worst : v->value - b->value;
}

static void add_pair(const struct observation *v, const struct observation *b, const struct filler *f,
                     struct sample_pair *out) {
    struct test_data *data = &out->data;
    f->ranked_differences[data->ranked_pairs++] = ranked_difference(v, b, f->worst);
    out->shared++;
    if (failed(v) || failed(b) || !isfinite(v->value - b->value)) return;
    f->paired_variant[data->pairs] = v->value;
    f->paired_baseline[data->pairs] = b->value;
    f->differences[data->pairs++] = v->value - b->value;
    out->late |= v->late || b->late;
}

/* A run that failed is worse than any time, wherever it ran. */
static bool comparable(const struct observation *v, const struct observation *b) {
    return !v->machine || !b->machine || failed(v) || failed(b) || strcmp(v->machine, b->machine) == 0;
}

static void add_pairs(const struct series *variant, const struct series *baseline, const struct filler *f,
                      struct sample_pair *out) {
    for (size_t i = 0, j = 0; i < variant->count && j < baseline->count;) {
        const struct entry *v = &variant->entries[i], *b = &baseline->entries[j];
        int64_t x = v->observation->seed, y = b->observation->seed;
        if (x == y && in_look(v, f->first)) {
            if (comparable(v->observation, b->observation))
                add_pair(v->observation, b->observation, f, out);
            else
                out->two_machines++;
        }
        i += x <= y;
        j += y <= x;
    }
}

/* Also without pairs, times are compared only where one machine took both of a seed. */
static bool in_block(const struct observation *o, const struct series *other) {
    if (!o->machine) return true;
    for (size_t i = 0; i < other->count; i++)
        if (other->entries[i].observation->seed == o->seed) return comparable(o, other->entries[i].observation);
    return false;
}

/* The values of a series: the finite ones, and all with failed ones as the worst. */
static void add_sample(const struct series *s, const struct series *other, const struct filler *f, double *finite,
                       size_t *n, double *ranked, size_t *ranked_n) {
    for (size_t i = 0; i < s->count; i++) {
        const struct observation *o = s->entries[i].observation;
        if (!in_look(&s->entries[i], f->first) || !in_block(o, other)) continue;
        ranked[(*ranked_n)++] = failed(o) ? f->worst : o->value;
        if (!failed(o)) finite[(*n)++] = o->value;
    }
}

static bool any_late(const struct series *s) {
    for (size_t i = 0; i < s->count; i++)
        if (s->entries[i].observation->late) return true;
    return false;
}

status sample_pair_make(const struct series *variant, const struct series *baseline, const struct design *design,
                        size_t first, struct sample_pair *out) {
    size_t n = variant->count, m = baseline->count, most = n < m ? n : m;
    double *next = calloc(4 * most + 2 * (n + m) + 1, sizeof *next);
    *out = (struct sample_pair){.memory = next, .data.seed = design->seed};
    if (!next) return status_new(STATUS_SYSTEM, "out of memory for %zu values", n + m);
    struct filler f = {
        design->higher_is_better ? -INFINITY : INFINITY, first, next, next + most, next + 2 * most, next + 3 * most};
    double *x = next + 4 * most, *ranked_x = x + n, *y = ranked_x + n, *ranked_y = y + m;
    struct test_data *data = &out->data;
    add_pairs(variant, baseline, &f, out);
    add_sample(variant, baseline, &f, x, &data->n, ranked_x, &data->ranked_n);
    add_sample(baseline, variant, &f, y, &data->m, ranked_y, &data->ranked_m);
    data->differences = f.differences, data->ranked_differences = f.ranked_differences;
    data->variant = x, data->ranked_variant = ranked_x, data->baseline = y, data->ranked_baseline = ranked_y;
    out->paired_variant = f.paired_variant, out->paired_baseline = f.paired_baseline;
    out->late_sample = any_late(variant) || any_late(baseline);
    return NULL;
}

void sample_pair_free(struct sample_pair *pair) {
    free(pair->memory);
    *pair = (struct sample_pair){0};
}
