/* moments: mean, spread, interval and effect size of one sample. */
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_randist.h>
#include <gsl/gsl_sf_gamma.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/stats/rows.h"

double mean_of(const double *values, size_t n) {
    double sum = 0.0, rest = 0.0;
    for (size_t i = 0; i < n; i++) sum += values[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) rest += values[i] - mean; /* what rounding lost */
    return mean + rest / (double)n;
}

double sd_of(const double *values, size_t n) {
    if (n < 2) return NAN;
    double mean = mean_of(values, n), squares = 0.0;
    for (size_t i = 0; i < n; i++) squares += (values[i] - mean) * (values[i] - mean);
    return sqrt(squares / (double)(n - 1));
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

struct summary summarise(const double *values, size_t n) {
    struct summary s = {.mean = NAN, .sd = NAN, .median = NAN, .min = NAN, .max = NAN};
    double *sorted = malloc((n + 1) * sizeof *sorted);
    if (!sorted) return s;
    for (size_t i = 0; i < n; i++)
        if (isfinite(values[i])) sorted[s.n++] = values[i];
    s.failed = n - s.n;
    if (s.n) {
        qsort(sorted, s.n, sizeof *sorted, by_value);
        s.mean = mean_of(sorted, s.n);
        s.sd = sd_of(sorted, s.n);
        s.median = 0.5 * (sorted[(s.n - 1) / 2] + sorted[s.n / 2]);
        s.min = sorted[0];
        s.max = sorted[s.n - 1];
    }
    free(sorted);
    return s;
}

/* GSL's quantile starts from a series; two Newton steps on its tail function bring it to the last digits. */
double student_quantile(double probability, double freedom) {
    if (probability == 0.5) return 0.0;
    bool upper = probability > 0.5;
    double tail = upper ? 1.0 - probability : probability;
    double x = gsl_cdf_tdist_Qinv(tail, freedom);
    for (int i = 0; i < 2; i++) x += (gsl_cdf_tdist_Q(x, freedom) - tail) / gsl_ran_tdist_pdf(x, freedom);
    return upper ? x : -x;
}

/* The exact factor J of Hedges 1981; it does not exist for one degree of freedom. */
static double small_sample_factor(double freedom) {
    return exp(gsl_sf_lngamma(freedom / 2.0) - gsl_sf_lngamma((freedom - 1.0) / 2.0)) * sqrt(2.0 / freedom);
}

double hedges_gz(const double *d, size_t n) {
    if (n < 3) return NAN;
    double sd = sd_of(d, n);
    return sd > 0.0 ? small_sample_factor((double)(n - 1)) * mean_of(d, n) / sd : (double)NAN;
}

double hedges_g(const double *x, size_t n, const double *y, size_t m) {
    if (n < 2 || m < 2) return NAN;
    double sx = sd_of(x, n), sy = sd_of(y, m), freedom = (double)(n + m - 2);
    double pooled = sqrt(((double)(n - 1) * sx * sx + (double)(m - 1) * sy * sy) / freedom);
    return pooled > 0.0 ? small_sample_factor(freedom) * (mean_of(x, n) - mean_of(y, m)) / pooled : (double)NAN;
}
