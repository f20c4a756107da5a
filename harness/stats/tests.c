/* tests: p values of paired differences, the least p that each test can give, and the seeds that takes. */
#include <gsl/gsl_cdf.h>
#include <math.h>
#include <string.h>

#include "harness/stats/rows.h"
#include "kernels/random.h"

enum { EXACT_UP_TO = 20, RESAMPLES = 99999, MOST_SEEDS = 1000 };

/* Without spread, t is +-infinity, or 0 when the mean is 0 too. */
static double t_statistic(const double *d, size_t n, double bound) {
    double distance = mean_of(d, n) - bound, error = sd_of(d, n) / sqrt((double)n);
    return distance == 0.0 ? 0.0 : distance / error;
}

double p_paired_t(const double *d, size_t n) {
    if (n < 2) return NAN;
    double t = fabs(t_statistic(d, n, 0.0));
    return isinf(t) ? 0.0 : 2.0 * gsl_cdf_tdist_Q(t, (double)(n - 1));
}

double p_below(const double *d, size_t n, double bound) {
    if (n < 2) return NAN;
    double t = t_statistic(d, n, bound);
    if (isinf(t)) return t < 0.0 ? 0.0 : 1.0;
    return gsl_cdf_tdist_P(t, (double)(n - 1));
}

double p_above(const double *d, size_t n, double bound) {
    if (n < 2) return NAN;
    double t = t_statistic(d, n, bound);
    if (isinf(t)) return t > 0.0 ? 0.0 : 1.0;
    return gsl_cdf_tdist_Q(t, (double)(n - 1));
}

double p_equivalent(const double *d, size_t n, double margin) {
    if (n < 2) return NAN;
    return fmax(p_below(d, n, margin), p_above(d, n, -margin));
}

/* How many of the 2^n signings of d, added to sum, reach the threshold in absolute value. */
static size_t signings_reaching(const double *d, size_t n, double sum, double threshold) {
    if (n == 0) return fabs(sum) >= threshold;
    return signings_reaching(d + 1, n - 1, sum + *d, threshold) + signings_reaching(d + 1, n - 1, sum - *d, threshold);
}

static double resampled_sum(const double *d, size_t n, struct random_stream stream, uint64_t resample) {
    double sum = 0.0;
    uint64_t words = (n + 63) / 64, bits = 0;
    for (size_t i = 0; i < n; i++) {
        if (i % 64 == 0) bits = random_bits(stream, resample * words + i / 64);
        sum += bits >> (i % 64) & 1 ? d[i] : -d[i];
    }
    return sum;
}

double p_sign_flip(const double *d, size_t n, uint64_t seed) {
    if (n < 2) return NAN;
    double sum = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) sum += d[i], size += fabs(d[i]);
    double threshold = fabs(sum) - 1e-12 * size; /* sums that are equal but for rounding count as reached */
    if (n <= EXACT_UP_TO) return ldexp((double)signings_reaching(d, n, 0.0, threshold), -(int)n);
    struct random_stream stream = random_stream(seed, "stats.sign-flip");
    size_t reached = 0;
    for (uint64_t m = 0; m < RESAMPLES; m++) reached += fabs(resampled_sum(d, n, stream, m)) >= threshold;
    return (double)(reached + 1) / (RESAMPLES + 1);
}

static double paired_t_row(const struct test_data *data) { return p_paired_t(data->differences, data->pairs); }

static double sign_flip_row(const struct test_data *data) {
    return p_sign_flip(data->differences, data->pairs, data->seed);
}

static double paired_t_attainable(size_t n) { return n < 2 ? 1.0 : 0.0; }

static double sign_flip_attainable(size_t n) {
    if (n < 2) return 1.0;
    return n <= EXACT_UP_TO ? ldexp(2.0, -(int)n) : 1.0 / (RESAMPLES + 1);
}

const struct test_row test_rows[TEST_KINDS] = {
    [TEST_PAIRED_T] = {"paired-t", paired_t_row, paired_t_attainable},
    [TEST_SIGN_FLIP] = {"sign-flip", sign_flip_row, sign_flip_attainable},
};

const char *test_name(enum test_kind kind) { return test_rows[kind].name; }

bool test_find(const char *name, enum test_kind *kind) {
    for (int k = 0; k < TEST_KINDS; k++)
        if (strcmp(test_rows[k].name, name) == 0) return *kind = (enum test_kind)k, true;
    return false;
}

double attainable_p(enum test_kind test, size_t n) { return test_rows[test].attainable(n); }

/* Holm rejects first at alpha / family; Benjamini-Hochberg at alpha when all reach their least p together. */
size_t needed_seeds(enum test_kind test, enum correction correction, double alpha, size_t family) {
    double factor = correction == CORRECT_HOLM && family > 1 ? (double)family : 1.0;
    for (size_t n = 2; n <= MOST_SEEDS; n++)
        if (attainable_p(test, n) * factor < alpha) return n;
    return 0;
}
