/* relabel: an A/A test; see relabel.h. */
#include "harness/stats/relabel.h"

#include <math.h>
#include <stdlib.h>

#include "kernels/random.h"

/* The first 2m places of order become a random choice of all. */
static void shuffle(struct random_stream stream, size_t relabelling, size_t *order, size_t count, size_t chosen) {
    for (size_t i = 0; i < chosen; i++) {
        size_t k = i + random_below(stream, relabelling * 2 * RELABEL_MOST_PAIRS + i, count - i), kept = order[i];
        order[i] = order[k];
        order[k] = kept;
    }
}

static double p_of(enum test_kind test, const double *x, const double *y, const double *d, size_t n, uint64_t seed) {
    switch (test) {
    case TEST_PAIRED_T:
        return p_paired_t(d, n);
    case TEST_SIGN_FLIP:
        return p_sign_flip(d, n, seed);
    case TEST_WILCOXON:
        return p_wilcoxon(d, n);
    case TEST_WELCH:
        return p_welch(x, n, y, n);
    default:
        return p_mann_whitney(x, n, y, n);
    }
}

static void relabel_once(const double *values, const size_t *order, double alpha, uint64_t seed, const bool *wanted,
                         struct relabelling *out) {
    double x[RELABEL_MOST_PAIRS], y[RELABEL_MOST_PAIRS], d[RELABEL_MOST_PAIRS];
    for (size_t i = 0; i < out->pairs; i++) {
        x[i] = values[order[2 * i]];
        y[i] = values[order[2 * i + 1]];
        d[i] = x[i] - y[i];
    }
    for (int test = 0; test < TEST_KINDS; test++)
        if (!wanted || wanted[test]) out->rate[test] += p_of((enum test_kind)test, x, y, d, out->pairs, seed) < alpha;
}

/* Ways to make pairs of the values, but for the order of the pairs and the sign of their differences. */
static double pairings(size_t values, size_t pairs) {
    double ways = 1.0;
    for (size_t i = 0; i < pairs; i++)
        ways *= (double)(values - 2 * i) * (double)(values - 2 * i - 1) / (2.0 * (double)(i + 1));
    return ways;
}

status relabel(const double *values, size_t count, size_t pairs, size_t relabellings, double alpha, uint64_t seed,
               const bool *wanted, struct relabelling *out) {
    size_t most = count / 2 < RELABEL_MOST_PAIRS ? count / 2 : RELABEL_MOST_PAIRS;
    *out = (struct relabelling){.values = count, .pairs = pairs && pairs < most ? pairs : most, .count = relabellings};
    if (count < RELABEL_LEAST)
        return status_new(STATUS_DATA, "an A/A test takes at least %d values, there are %zu", RELABEL_LEAST, count);
    size_t *order = calloc(count, sizeof *order);
    if (!order) return status_new(STATUS_SYSTEM, "out of memory for %zu values", count);
    struct random_stream stream = random_stream(seed, "stats.relabel");
    for (size_t i = 0; i < count; i++) order[i] = i;
    for (size_t k = 0; k < relabellings; k++) {
        shuffle(stream, k, order, count, 2 * out->pairs);
        relabel_once(values, order, alpha, seed, wanted, out);
    }
    free(order);
    for (int test = 0; test < TEST_KINDS; test++) out->rate[test] /= (double)relabellings;
    out->three_errors = 3.0 * sqrt(alpha * (1.0 - alpha) / fmin((double)relabellings, pairings(count, out->pairs)));
    return NULL;
}

const char *relabel_verdict(const struct relabelling *r, enum test_kind test, double alpha) {
    if (attainable_p(test, r->pairs) >= alpha) return "cannot reject with so few pairs";
    if (r->rate[test] > alpha + r->three_errors) return "above alpha: doubt its assumptions here";
    return r->three_errors > alpha ? "too few runs to tell" : "as promised";
}
