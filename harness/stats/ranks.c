/* ranks: Wilcoxon's signed-rank and the Mann-Whitney test, exact given the ranks, ties included.
 *
 * Ranks are doubled, so that a mean rank of tied values is a whole number; the distribution of a sum of ranks then
 * follows by adding one value after the other to a table of probabilities. */
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_sf_gamma.h>
#include <math.h>
#include <stdlib.h>

#include "harness/stats/rows.h"

enum { EXACT_PAIRS = 200, EXACT_VALUES = 100 };

struct ranked {
    double value;
    size_t rank2; /* doubled, mean over its ties */
    bool marked;  /* a positive difference; a value of the variant */
};

static int by_ranked_value(const void *a, const void *b) {
    double x = ((const struct ranked *)a)->value, y = ((const struct ranked *)b)->value;
    return (x > y) - (x < y);
}

/* Sorts and ranks; values that differ by no more than the rounding are tied. Returns the sum of t^3 - t over the
 * groups of t tied values. */
static double rank_all(struct ranked *r, size_t n, double rounding) {
    double ties = 0.0;
    qsort(r, n, sizeof *r, by_ranked_value);
    for (size_t i = 0, end; i < n; i = end) {
        for (end = i + 1; end < n && (r[end].value == r[i].value || r[end].value - r[i].value <= rounding);) end++;
        for (size_t k = i; k < end; k++) r[k].rank2 = i + 1 + end;
        double t = (double)(end - i);
        ties += t * t * t - t;
    }
    return ties;
}

static size_t marked_sum(const struct ranked *r, size_t n) {
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += r[i].marked ? r[i].rank2 : 0;
    return sum;
}

/* Twice the smaller tail of a distribution on 0..most, at most 1. */
static double two_tails(const double *chance, size_t most, size_t observed) {
    double below = 0.0, above = 0.0;
    for (size_t s = 0; s <= most; s++) {
        if (s <= observed) below += chance[s];
        if (s >= observed) above += chance[s];
    }
    return fmin(1.0, 2.0 * fmin(below, above));
}

static double two_normal_tails(double distance, double variance) {
    double z = fmax(0.0, fabs(distance) - 0.5) / sqrt(variance); /* continuity: ranks are whole numbers */
    return variance > 0.0 ? fmin(1.0, 2.0 * gsl_cdf_ugaussian_Q(z)) : 1.0;
}

/* --- pairs -------------------------------------------------------------------------------------------------------- */

static double signed_ranks_exact(const struct ranked *r, size_t n) {
    size_t most = n * (n + 1), reached = 0;
    double *chance = calloc(most + 1, sizeof *chance), p = NAN;
    if (!chance) return p;
    chance[0] = 1.0;
    for (size_t i = 0; i < n; i++) {
        reached += r[i].rank2;
        for (size_t s = reached + 1; s-- > 0;)
            chance[s] = 0.5 * (chance[s] + (s >= r[i].rank2 ? chance[s - r[i].rank2] : 0.0));
    }
    p = two_tails(chance, most, marked_sum(r, n));
    free(chance);
    return p;
}

static int side_of(double distance) { return (distance > 0.0) - (distance < 0.0); }

struct test_result wilcoxon(const double *d, size_t n) {
    struct ranked *r = n < 2 ? NULL : calloc(n, sizeof *r);
    if (!r) return (struct test_result){NAN, 0};
    size_t kept = 0;
    double rounding = 0.0;
    for (size_t i = 0; i < n; i++)
        if (isfinite(d[i])) rounding = fmax(rounding, 1e-12 * fabs(d[i]));
    for (size_t i = 0; i < n; i++)
        if (fabs(d[i]) > rounding) r[kept++] = (struct ranked){.value = fabs(d[i]), .marked = d[i] > 0.0};
    double ties = rank_all(r, kept, rounding), k = (double)kept, p = 1.0;
    double distance = (double)marked_sum(r, kept) / 2.0 - k * (k + 1.0) / 4.0;
    if (kept && kept <= EXACT_PAIRS)
        p = signed_ranks_exact(r, kept);
    else if (kept)
        p = two_normal_tails(distance, k * (k + 1.0) * (2.0 * k + 1.0) / 24.0 - ties / 48.0);
    free(r);
    return (struct test_result){p, side_of(distance)};
}

double p_wilcoxon(const double *d, size_t n) { return wilcoxon(d, n).p; }

double least_p_wilcoxon(size_t pairs, size_t unused) {
    (void)unused;
    return pairs < 2 ? 1.0 : ldexp(2.0, -(int)pairs);
}

/* --- two samples -------------------------------------------------------------------------------------------------- */

/* Row c: the distribution of the rank sum of c values drawn from those seen so far. */
static double rank_sum_exact(const struct ranked *r, size_t total, size_t n) {
    size_t most = total * (total + 1), width = most + 1, reached = 0;
    double *ways = calloc((n + 1) * width, sizeof *ways), p = NAN;
    if (!ways) return p;
    ways[0] = 1.0;
    for (size_t i = 0; i < total; i++) {
        reached += r[i].rank2;
        for (size_t c = i + 1 < n ? i + 1 : n; c > 0; c--) {
            double take = (double)c / (double)(i + 1); /* that value i is among them */
            double *row = ways + c * width, *before = row - width;
            for (size_t s = reached + 1; s-- > 0;)
                row[s] = (1.0 - take) * row[s] + (s >= r[i].rank2 ? take * before[s - r[i].rank2] : 0.0);
        }
    }
    p = two_tails(ways + n * width, most, marked_sum(r, total));
    free(ways);
    return p;
}

struct test_result mann_whitney(const double *x, size_t n, const double *y, size_t m) {
    size_t total = n + m;
    struct ranked *r = n < 2 || m < 2 ? NULL : calloc(total, sizeof *r);
    if (!r) return (struct test_result){NAN, 0};
    for (size_t i = 0; i < total; i++) r[i] = (struct ranked){.value = i < n ? x[i] : y[i - n], .marked = i < n};
    double ties = rank_all(r, total, 0.0), all = (double)total, nm = (double)n * (double)m, p;
    double distance = (double)marked_sum(r, total) / 2.0 - (double)n * (all + 1.0) / 2.0;
    if (total <= EXACT_VALUES)
        p = rank_sum_exact(r, total, n);
    else
        p = two_normal_tails(distance, nm / 12.0 * (all + 1.0 - ties / (all * (all - 1.0))));
    free(r);
    return (struct test_result){p, side_of(distance)};
}

double p_mann_whitney(const double *x, size_t n, const double *y, size_t m) { return mann_whitney(x, n, y, m).p; }

double least_p_mann_whitney(size_t n, size_t m) {
    if (n < 2 || m < 2) return 1.0;
    return fmin(1.0, 2.0 * exp(-gsl_sf_lnchoose((unsigned)(n + m), (unsigned)n)));
}

double share_above(const double *x, size_t n, const double *y, size_t m) {
    double above = 0.0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < m; k++) above += x[i] > y[k] ? 1.0 : x[i] == y[k] ? 0.5 : 0.0;
    return above / ((double)n * (double)m);
}
