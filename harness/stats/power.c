/* power: what a paired t test can find with n seeds, from the noncentral t distribution. */
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_integration.h>
#include <gsl/gsl_randist.h>
#include <math.h>

#include "harness/stats/stats.h"

enum { MOST_SEEDS = 10000, BISECTIONS = 60, PANELS = 8, NODES = 64 };

struct noncentral {
    double critical, shift, freedom;
};

/* Density at x of z + shift, times the chance that the sd of the sample is small enough for |x| to be rejected. */
static double rejection_density(double x, void *context) {
    const struct noncentral *c = context;
    double ratio = x / c->critical;
    return gsl_ran_ugaussian_pdf(x - c->shift) * gsl_cdf_chisq_P(c->freedom * ratio * ratio, c->freedom);
}

/* Rejections with x > 0. The normal density is nothing beyond 9; fixed Gauss-Legendre nodes give the same bits on
 * every call. */
static double rejections_above(const struct noncentral *c, const gsl_integration_glfixed_table *nodes) {
    gsl_function f = {rejection_density, (void *)c};
    double low = fmax(0.0, c->shift - 9.0), width = fmax(0.0, c->shift + 9.0 - low), sum = 0.0;
    for (int panel = 0; panel < PANELS; panel++)
        sum += gsl_integration_glfixed(&f, low + width * panel / PANELS, low + width * (panel + 1) / PANELS, nodes);
    return sum;
}

double power_paired_t(double effect, size_t n, double alpha) {
    if (n < 2) return 0.0;
    double freedom = (double)(n - 1), shift = fabs(effect) * sqrt((double)n);
    gsl_integration_glfixed_table *nodes = gsl_integration_glfixed_table_alloc(NODES);
    if (!nodes) return NAN;
    struct noncentral above = {-student_quantile(alpha / 2.0, freedom), shift, freedom}, below = above;
    below.shift = -shift;
    double power = rejections_above(&above, nodes) + rejections_above(&below, nodes);
    gsl_integration_glfixed_table_free(nodes);
    return fmin(power, 1.0);
}

size_t seeds_for_power(double effect, double power, double alpha) {
    size_t low = 1, high = 2; /* power at low is below, at high reached */
    while (power_paired_t(effect, high, alpha) < power) {
        if (high >= MOST_SEEDS) return 0;
        low = high, high *= 2;
    }
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (power_paired_t(effect, middle, alpha) < power)
            low = middle;
        else
            high = middle;
    }
    return high <= MOST_SEEDS ? high : 0;
}

double detectable_effect(size_t n, double power, double alpha) {
    if (n < 2) return NAN;
    double low = 0.0, high = 1.0;
    while (power_paired_t(high, n, alpha) < power) high *= 2.0;
    for (int i = 0; i < BISECTIONS; i++) {
        double middle = 0.5 * (low + high);
        if (power_paired_t(middle, n, alpha) < power)
            low = middle;
        else
            high = middle;
    }
    return high;
}
