/* rows: the tables behind stats.h. A test or a correction is one row; all else finds it by its place. */
#pragma once
#include "harness/stats/stats.h"

/* What a comparison rests on, in the forms that the tests need. */
struct test_data {
    size_t pairs, ranked_pairs; /* ranked: with failed seeds as infinite differences, both failed as 0 */
    const double *differences, *ranked_differences;
    size_t n, m, ranked_n, ranked_m; /* of the variant and the baseline; ranked: failed seeds as the worst infinity */
    const double *variant, *baseline, *ranked_variant, *ranked_baseline;
    uint64_t seed;
};

struct test_result {
    double p;
    int direction; /* -1: the variant is lower, +1: higher */
};

struct test_row {
    const char *name;
    bool pairs, ranks;
    enum test_kind unpaired; /* what stands in when no seed is shared; itself when it does not pair */
    struct test_result (*run)(const struct test_data *data);
    double (*attainable)(size_t n, size_t m); /* the least p at n pairs, or with samples of n and m */
};
extern const struct test_row test_rows[TEST_KINDS];

struct correction_row {
    const char *name;
    void (*adjust)(double *sorted, size_t n); /* ascending p, adjusted in place */
};
extern const struct correction_row correction_rows[CORRECTION_KINDS];

/* An estimated difference that is tested by Student t. */
struct estimate {
    double delta, error, freedom; /* error NAN when there are too few values */
};
struct estimate paired_estimate(const double *d, size_t n);
struct estimate welch_estimate(const double *x, size_t n, const double *y, size_t m);
double estimate_p(struct estimate e); /* two-sided against 0 */
double estimate_below(struct estimate e, double bound);
double estimate_above(struct estimate e, double bound);
double estimate_equivalent(struct estimate e, double margin); /* TOST */
void estimate_interval(struct estimate e, double alpha, double *low, double *high);

struct test_result wilcoxon(const double *d, size_t n);
struct test_result mann_whitney(const double *x, size_t n, const double *y, size_t m);
double least_p_wilcoxon(size_t pairs, size_t unused);
double least_p_mann_whitney(size_t n, size_t m);
double share_above(const double *x, size_t n, const double *y, size_t m); /* of the n m combinations; ties half */

double mean_of(const double *values, size_t n);
double sd_of(const double *values, size_t n); /* n - 1 below; NAN when n < 2 */
