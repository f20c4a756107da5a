/* tests: every test as a row; t and sign-flip p values, the least p that each test can give, and the seeds it takes. */
#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/stats/rows.h"
#include "kernels/random.h"

enum { EXACT_UP_TO = 20, MOST_SEEDS = 1000, SIGNINGS = 256 };

/* --- Student t ---------------------------------------------------------------------------------------------------- */

struct estimate paired_estimate(const double *d, size_t n) {
    if (n < 2) return (struct estimate){NAN, NAN, NAN};
    return (struct estimate){mean_of(d, n), sd_of(d, n) / sqrt((double)n), (double)(n - 1)};
}

/* Without any spread the degrees of freedom are those of equal variances. */
struct estimate welch_estimate(const double *x, size_t n, const double *y, size_t m) {
    if (n < 2 || m < 2) return (struct estimate){NAN, NAN, NAN};
    double sx = sd_of(x, n), sy = sd_of(y, m), vx = sx * sx / (double)n, vy = sy * sy / (double)m, v = vx + vy;
    double freedom = v > 0.0 ? v * v / (vx * vx / (double)(n - 1) + vy * vy / (double)(m - 1)) : (double)(n + m - 2);
    return (struct estimate){mean_of(x, n) - mean_of(y, m), sqrt(v), freedom};
}

/* Without spread, t is +-infinity, or 0 when the distance is 0 too. */
static double t_statistic(struct estimate e, double bound) {
    double distance = e.delta - bound;
    return distance == 0.0 ? 0.0 : distance / e.error;
}

double estimate_p(struct estimate e) {
    if (isnan(e.error)) return NAN;
    double t = fabs(t_statistic(e, 0.0));
    return isinf(t) ? 0.0 : 2.0 * gsl_cdf_tdist_Q(t, e.freedom);
}

double estimate_below(struct estimate e, double bound) {
    if (isnan(e.error)) return NAN;
    double t = t_statistic(e, bound);
    if (isinf(t)) return t < 0.0 ? 0.0 : 1.0;
    return gsl_cdf_tdist_P(t, e.freedom);
}

double estimate_above(struct estimate e, double bound) {
    if (isnan(e.error)) return NAN;
    double t = t_statistic(e, bound);
    if (isinf(t)) return t > 0.0 ? 0.0 : 1.0;
    return gsl_cdf_tdist_Q(t, e.freedom);
}

double estimate_equivalent(struct estimate e, double margin) {
    return isnan(e.error) ? (double)NAN : fmax(estimate_below(e, margin), estimate_above(e, -margin));
}

void estimate_interval(struct estimate e, double alpha, double *low, double *high) {
    *low = *high = NAN;
    if (isnan(e.error)) return;
    double half = -student_quantile(alpha / 2.0, e.freedom) * e.error;
    *low = e.delta - half;
    *high = e.delta + half;
}

double p_paired_t(const double *d, size_t n) { return estimate_p(paired_estimate(d, n)); }
double p_below(const double *d, size_t n, double bound) { return estimate_below(paired_estimate(d, n), bound); }
double p_above(const double *d, size_t n, double bound) { return estimate_above(paired_estimate(d, n), bound); }

double p_equivalent(const double *d, size_t n, double margin) {
    return estimate_equivalent(paired_estimate(d, n), margin);
}

void interval_t(const double *d, size_t n, double alpha, double *low, double *high) {
    estimate_interval(paired_estimate(d, n), alpha, low, high);
}

double p_welch(const double *x, size_t n, const double *y, size_t m) { return estimate_p(welch_estimate(x, n, y, m)); }

/* --- sign-flip ---------------------------------------------------------------------------------------------------- */

/* More for few pairs, which can be told apart best by p and cost least. */
static size_t resamples(size_t n) { return n <= MANY_SEEDS ? 99999 : 19999; }

/* How many of the 2^n signings of d, added to sum, reach the threshold in absolute value. */
static size_t signings_reaching(const double *d, size_t n, double sum, double threshold) {
    if (n == 0) return fabs(sum) >= threshold;
    return signings_reaching(d + 1, n - 1, sum + *d, threshold) + signings_reaching(d + 1, n - 1, sum - *d, threshold);
}

/* Sums of eight differences under each of their 256 signings, bit i of the signing for the sign of the i-th, so that a
 * resample adds n / 8 numbers. (n + 7) / 8 rows; caller frees. */
static double *signed_sums(const double *d, size_t n) {
    size_t rows = (n + 7) / 8;
    double *sums = calloc(rows * SIGNINGS, sizeof *sums);
    for (size_t row = 0; sums && row < rows; row++)
        for (size_t signing = 0; signing < SIGNINGS; signing++)
            for (size_t i = 8 * row; i < 8 * row + 8 && i < n; i++)
                sums[row * SIGNINGS + signing] += signing >> (i % 8) & 1 ? d[i] : -d[i];
    return sums;
}

/* Two sums do not wait for each other. */
static double resampled_sum(const double *sums, size_t rows, struct random_stream stream, uint64_t resample) {
    double even = 0.0, odd = 0.0;
    uint64_t word = resample * ((rows + 7) / 8);
    for (size_t row = 0; row < rows; word++) {
        uint64_t bits = random_bits(stream, word);
        for (size_t end = row + 8 < rows ? row + 8 : rows; row < end; row++, bits >>= 8) {
            double sum = sums[row * SIGNINGS + (bits & (SIGNINGS - 1))];
            row % 2 ? (odd += sum) : (even += sum);
        }
    }
    return even + odd;
}

static double p_resampled(const double *d, size_t n, double threshold, uint64_t seed) {
    struct random_stream stream = random_stream(seed, "stats.sign-flip");
    size_t reached = 0, rows = (n + 7) / 8;
    double *sums = signed_sums(d, n);
    if (!sums) return NAN;
    for (uint64_t m = 0; m < resamples(n); m++) reached += fabs(resampled_sum(sums, rows, stream, m)) >= threshold;
    free(sums);
    return (double)(reached + 1) / (double)(resamples(n) + 1);
}

double p_sign_flip(const double *d, size_t n, uint64_t seed) {
    if (n < 2) return NAN;
    double sum = 0.0, size = 0.0;
    for (size_t i = 0; i < n; i++) sum += d[i], size += fabs(d[i]);
    double threshold = fabs(sum) - 1e-12 * size; /* sums that are equal but for rounding count as reached */
    if (n <= EXACT_UP_TO) return ldexp((double)signings_reaching(d, n, 0.0, threshold), -(int)n);
    return p_resampled(d, n, threshold, seed);
}

/* --- the rows ----------------------------------------------------------------------------------------------------- */

static int sign_of(double x) { return (x > 0.0) - (x < 0.0); }

static struct test_result run_paired_t(const struct test_data *t) {
    struct estimate e = paired_estimate(t->differences, t->pairs);
    return (struct test_result){estimate_p(e), sign_of(e.delta)};
}

static struct test_result run_sign_flip(const struct test_data *t) {
    double p = p_sign_flip(t->differences, t->pairs, t->seed);
    return (struct test_result){p, t->pairs < 2 ? 0 : sign_of(mean_of(t->differences, t->pairs))};
}

static struct test_result run_wilcoxon(const struct test_data *t) {
    return wilcoxon(t->ranked_differences, t->ranked_pairs);
}

static struct test_result run_welch(const struct test_data *t) {
    struct estimate e = welch_estimate(t->variant, t->n, t->baseline, t->m);
    return (struct test_result){estimate_p(e), sign_of(e.delta)};
}

static struct test_result run_mann_whitney(const struct test_data *t) {
    return mann_whitney(t->ranked_variant, t->ranked_n, t->ranked_baseline, t->ranked_m);
}

static double least_p_t(size_t n, size_t m) { return n < 2 || m < 2 ? 1.0 : 0.0; }

static double least_p_sign_flip(size_t n, size_t unused) {
    (void)unused;
    if (n < 2) return 1.0;
    return n <= EXACT_UP_TO ? ldexp(2.0, -(int)n) : 1.0 / (double)(resamples(n) + 1);
}

const struct test_row test_rows[TEST_KINDS] = {
    [TEST_PAIRED_T] = {"paired-t", true, false, TEST_WELCH, run_paired_t, least_p_t},
    [TEST_SIGN_FLIP] = {"sign-flip", true, false, TEST_MANN_WHITNEY, run_sign_flip, least_p_sign_flip},
    [TEST_WILCOXON] = {"wilcoxon", true, true, TEST_MANN_WHITNEY, run_wilcoxon, least_p_wilcoxon},
    [TEST_WELCH] = {"welch", false, false, TEST_WELCH, run_welch, least_p_t},
    [TEST_MANN_WHITNEY] = {"mann-whitney", false, true, TEST_MANN_WHITNEY, run_mann_whitney, least_p_mann_whitney},
};

const char *test_name(enum test_kind kind) { return test_rows[kind].name; }
bool test_pairs(enum test_kind kind) { return test_rows[kind].pairs; }
bool test_ranks(enum test_kind kind) { return test_rows[kind].ranks; }

bool test_find(const char *name, enum test_kind *kind) {
    for (int k = 0; k < TEST_KINDS; k++)
        if (strcmp(test_rows[k].name, name) == 0) return *kind = (enum test_kind)k, true;
    return false;
}

double attainable_p(enum test_kind test, size_t n) { return test_rows[test].attainable(n, n); }

/* Holm rejects first at alpha / family; Benjamini-Hochberg at alpha when all reach their least p together. */
size_t needed_seeds(enum test_kind test, enum correction correction, double alpha, size_t family) {
    double factor = correction == CORRECT_HOLM && family > 1 ? (double)family : 1.0;
    for (size_t n = 2; n <= MOST_SEEDS; n++)
        if (attainable_p(test, n) * factor < alpha) return n;
    return 0;
}
