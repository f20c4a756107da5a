/* power: what a t test can find with n seeds, from the noncentral t distribution. */
#include <gsl/gsl_cdf.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_integration.h>
#include <gsl/gsl_randist.h>
#include <gsl/gsl_roots.h>
#include <math.h>

#include "harness/stats/stats.h"

enum { MOST_SEEDS = 10000, MOST_ITERATIONS = 60, PANELS = 8, NODES = 64 };

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

double power_t(double shift, double freedom, double alpha) {
    if (!(freedom > 0.0)) return 0.0;
    gsl_integration_glfixed_table *nodes = gsl_integration_glfixed_table_alloc(NODES);
    if (!nodes) return NAN;
    struct noncentral above = {-student_quantile(alpha / 2.0, freedom), fabs(shift), freedom}, below = above;
    below.shift = -above.shift;
    double power = rejections_above(&above, nodes) + rejections_above(&below, nodes);
    gsl_integration_glfixed_table_free(nodes);
    return fmin(power, 1.0);
}

struct asked_power {
    double power, freedom, alpha;
};

static double power_missing(double shift, void *context) {
    const struct asked_power *a = context;
    return power_t(shift, a->freedom, a->alpha) - a->power;
}

/* Brent's method: a power costs a thousand values of a distribution. low is below the root, high above. */
static double find_shift(gsl_function *f, double low, double high) {
    gsl_root_fsolver *solver = gsl_root_fsolver_alloc(gsl_root_fsolver_brent);
    if (!solver) return NAN;
    gsl_root_fsolver_set(solver, f, low, high);
    for (int i = 0; i < MOST_ITERATIONS; i++) {
        gsl_root_fsolver_iterate(solver);
        low = gsl_root_fsolver_x_lower(solver), high = gsl_root_fsolver_x_upper(solver);
        if (gsl_root_test_interval(low, high, 0.0, 1e-13) == GSL_SUCCESS) break;
    }
    double root = gsl_root_fsolver_root(solver);
    gsl_root_fsolver_free(solver);
    return root;
}

double detectable_shift(double power, double freedom, double alpha) {
    if (!(freedom > 0.0)) return NAN;
    struct asked_power asked = {power, freedom, alpha};
    gsl_function f = {power_missing, &asked};
    double low = 0.0, high = 1.0;
    if (power_missing(low, &asked) >= 0.0) return 0.0;
    while (power_missing(high, &asked) <= 0.0) low = high, high *= 2.0;
    return find_shift(&f, low, high);
}

double power_paired_t(double effect, size_t n, double alpha) {
    return n < 2 ? 0.0 : power_t(effect * sqrt((double)n), (double)(n - 1), alpha);
}

double detectable_effect(size_t n, double power, double alpha) {
    return n < 2 ? (double)NAN : detectable_shift(power, (double)(n - 1), alpha) / sqrt((double)n);
}

/* What the power depends on at n seeds: of pairs, or in each of two samples. */
struct design_power {
    double effect;            /* difference over the sd of the differences */
    double sd_x, sd_y, delta; /* two samples when delta is not 0 */
    double alpha;
};

static double power_at(const struct design_power *d, size_t n) {
    if (d->delta == 0.0) return power_paired_t(d->effect, n, d->alpha);
    double x = d->sd_x * d->sd_x, y = d->sd_y * d->sd_y,
           freedom = (double)(n - 1) * (x + y) * (x + y) / (x * x + y * y);
    return power_t(d->delta / sqrt((x + y) / (double)n), freedom, d->alpha);
}

static size_t fewest_seeds(const struct design_power *d, double power) {
    size_t low = 1, high = 2; /* power at low is below, at high reached */
    while (power_at(d, high) < power) {
        if (high >= MOST_SEEDS) return 0;
        low = high, high *= 2;
    }
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (power_at(d, middle) < power)
            low = middle;
        else
            high = middle;
    }
    return high <= MOST_SEEDS ? high : 0;
}

size_t seeds_for_power(double effect, double power, double alpha) {
    struct design_power d = {.effect = effect, .alpha = alpha};
    return fewest_seeds(&d, power);
}

size_t seeds_for_power_welch(double difference, double sd_x, double sd_y, double power, double alpha) {
    struct design_power d = {.delta = difference, .sd_x = sd_x, .sd_y = sd_y, .alpha = alpha};
    return sd_x > 0.0 || sd_y > 0.0 ? fewest_seeds(&d, power) : 2;
}
