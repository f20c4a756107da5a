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

/* --- pairs of runs ------------------------------------------------------------------------------------------------ */

/* A mean of half squared differences. */
struct half_squares {
    double sum;
    size_t count;
};

static void add_pair(struct half_squares *h, double difference) {
    h->sum += 0.5 * difference * difference;
    h->count++;
}

static double mean_square(const struct half_squares *h) { return h->count ? h->sum / (double)h->count : (double)NAN; }

/* The finished values of one variant, seed by seed, with the number of their node. */
struct column {
    double *values; /* (seeds); NAN where there is none */
    int *nodes;
};

struct table {
    int variants, seeds, nodes;
    struct column *columns; /* (variants) */
    double *values;
    int *numbers;
    const char **names; /* of the nodes */
};

static int number_of_node(struct table *t, const char *name) {
    for (int i = 0; i < t->nodes; i++)
        if (strcmp(t->names[i], name) == 0) return i;
    t->names[t->nodes] = name;
    return t->nodes++;
}

static void fill_table(const struct analysis *a, struct table *t) {
    for (int v = 0; v < t->variants; v++) {
        t->columns[v] = (struct column){t->values + (size_t)v * t->seeds, t->numbers + (size_t)v * t->seeds};
        for (int s = 0; s < t->seeds; s++) {
            int run = analysis_run(a, v, s);
            t->columns[v].values[s] = analysis_metric(a, v, s);
            if (run >= 0 && isfinite(t->columns[v].values[s]))
                t->columns[v].nodes[s] = number_of_node(t, a->results->runs[run].node);
        }
    }
}

static void table_free(struct table *t) {
    free(t->columns);
    free(t->values);
    free(t->numbers);
    free(t->names);
}

static bool table_make(const struct analysis *a, struct table *t) {
    *t = (struct table){.variants = a->results->variant_count, .seeds = a->results->seed_count};
    size_t cells = (size_t)t->variants * (size_t)t->seeds + 1;
    t->columns = calloc((size_t)t->variants + 1, sizeof *t->columns);
    t->values = calloc(cells, sizeof *t->values);
    t->numbers = calloc(cells, sizeof *t->numbers);
    t->names = calloc(cells, sizeof *t->names);
    bool made = t->columns && t->values && t->numbers && t->names;
    if (made) fill_table(a, t);
    return made;
}

static void compare_seeds(const struct column *c, int seeds, struct half_squares *same, struct half_squares *other) {
    for (int s = 0; s < seeds; s++)
        for (int u = 0; u < s; u++)
            if (isfinite(c->values[s]) && isfinite(c->values[u]))
                add_pair(c->nodes[s] == c->nodes[u] ? same : other, c->values[s] - c->values[u]);
}

/* The variance of a difference is twice that of one of its runs. */
static void compare_variants_by_seed(const struct column *x, const struct column *y, int seeds,
                                     struct half_squares *own) {
    const double scale = sqrt(0.5);
    double sum = 0.0, squares = 0.0;
    size_t n = 0;
    for (int s = 0; s < seeds; s++) {
        double d = scale * (x->values[s] - y->values[s]);
        if (!isfinite(d) || x->nodes[s] != y->nodes[s]) continue;
        double step = d - (n ? sum / (double)n : 0.0);
        sum += d;
        n++;
        squares += step * (d - sum / (double)n);
    }
    if (n < 2) return; /* over all pairs of n they add up to n / 2 times the squares around their mean */
    own->sum += 0.5 * (double)n * squares;
    own->count += n * (n - 1) / 2;
}

static double between_variants(const struct table *t, double own) {
    double sum = 0.0, squares = 0.0, inverse = 0.0;
    int count = 0;
    for (int v = 0; v < t->variants; v++) {
        struct summary s = summarise(t->columns[v].values, (size_t)t->seeds);
        if (!s.n) continue;
        sum += s.mean;
        squares += s.mean * s.mean;
        inverse += 1.0 / (double)s.n;
        count++;
    }
    if (count < 2) return NAN;
    double variance = (squares - sum * sum / count) / (count - 1.0);
    return sqrt(fmax(0.0, variance - own * inverse / count));
}

static void take_apart(const struct table *t, struct variance_sources *out) {
    struct half_squares same = {0}, other = {0}, own = {0};
    for (int v = 0; v < t->variants; v++) {
        compare_seeds(&t->columns[v], t->seeds, &same, &other);
        for (int u = 0; u < v; u++) compare_variants_by_seed(&t->columns[v], &t->columns[u], t->seeds, &own);
    }
    double alone = mean_square(&own), on_one = mean_square(&same), on_two = mean_square(&other);
    out->nodes = t->nodes;
    out->node_in_shared = !same.count && other.count;
    out->own = sqrt(alone);
    out->shared = sqrt(fmax(0.0, (out->node_in_shared ? on_two : on_one) - alone));
    if (isnan(alone)) out->shared = NAN;
    out->node = same.count && other.count ? sqrt(fmax(0.0, on_two - on_one)) : (double)NAN;
    out->variant = between_variants(t, alone);
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
    struct table table;
    *out = (struct variance_sources){.variant = NAN, .own = NAN, .shared = NAN, .node = NAN, .text = mean_noise(a)};
    out->replicate = a->results->replicates && !a->results->replicates_differing ? 0.0 : (double)NAN;
    for (int v = 0; v < a->results->variant_count; v++) out->variants += a->variants[v].done > 0;
    for (int s = 0; s < a->results->seed_count; s++) {
        bool any = false;
        for (int v = 0; v < a->results->variant_count; v++) any |= isfinite(analysis_metric(a, v, s));
        out->seeds += any;
    }
    if (table_make(a, &table)) take_apart(&table, out);
    table_free(&table);
}
