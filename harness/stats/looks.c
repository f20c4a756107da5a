/* looks: spending functions, and boundaries of the t statistic by simulation; see looks.h. */
#include "harness/stats/looks.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/stats/stats.h"
#include "kernels/random.h"

enum { PATHS = 1 << 18, FEWEST_CROSSINGS = 200 };

static double spend_obrien_fleming(double fraction, double alpha) {
    double z = gsl_cdf_ugaussian_Qinv(alpha / 4.0);
    return 4.0 * gsl_cdf_ugaussian_Q(z / sqrt(fraction));
}

static double spend_pocock(double fraction, double alpha) { return alpha * log1p((M_E - 1.0) * fraction); }

static const struct {
    const char *name;
    double (*spent)(double fraction, double alpha);
} rows[SPENDING_KINDS] = {
    [SPEND_OBRIEN_FLEMING] = {"obrien-fleming", spend_obrien_fleming},
    [SPEND_POCOCK] = {"pocock", spend_pocock},
};

const char *spending_name(enum spending spending) { return rows[spending].name; }

bool spending_find(const char *name, enum spending *spending) {
    for (int k = 0; k < SPENDING_KINDS; k++)
        if (strcmp(rows[k].name, name) == 0) return *spending = (enum spending)k, true;
    return false;
}

double alpha_spent(enum spending spending, double fraction, double alpha) {
    if (!(fraction > 0.0)) return 0.0;
    return fraction >= 1.0 ? alpha : rows[spending].spent(fraction, alpha);
}

/* --- simulation --------------------------------------------------------------------------------------------------- */

/* |t| at every look of one path of normal differences without effect. */
static void simulate_path(const struct look_plan *plan, struct random_stream stream, size_t path, double *statistics) {
    size_t most = plan->n[plan->count - 1];
    double mean = 0.0, squares = 0.0;
    int look = 0;
    for (size_t i = 0; i < most; i++) { /* Welford */
        double x = random_normal(stream, path * most + i), step = x - mean;
        mean += step / (double)(i + 1);
        squares += step * (x - mean);
        if (i + 1 != plan->n[look]) continue;
        double n = (double)(i + 1);
        statistics[look++] = fabs(mean) / sqrt(squares / ((n - 1.0) * n));
    }
}

static int descending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

/* The paths that have crossed no boundary so far, and how many have. */
struct simulation {
    double *statistics; /* (PATHS, looks); one that has crossed is marked by NAN at its first look */
    double *alive;      /* (PATHS), scratch */
    size_t crossed;
};

static size_t collect_alive(const struct simulation *s, int looks, int look) {
    size_t n = 0;
    for (size_t path = 0; path < PATHS; path++)
        if (!isnan(s->statistics[path * (size_t)looks])) s->alive[n++] = s->statistics[path * (size_t)looks + look];
    return n;
}

static void cross(struct simulation *s, int looks, int look, double boundary) {
    for (size_t path = 0; path < PATHS; path++) {
        double *at = s->statistics + path * (size_t)looks;
        if (isnan(*at) || at[look] < boundary) continue;
        *at = NAN;
        s->crossed++;
    }
}

static double level_of(double boundary, size_t n) { return 2.0 * gsl_cdf_tdist_Q(boundary, (double)(n - 1)); }

/* So many of the living paths must cross that the spent share of all has. */
static void find_boundary(struct look_plan *plan, struct simulation *s, int look) {
    double before = look ? plan->spent[look - 1] : 0.0, target = plan->spent[look] * PATHS - (double)s->crossed;
    plan->level[look] = plan->spent[look] - before;
    plan->boundary[look] = -student_quantile(plan->level[look] / 2.0, (double)(plan->n[look] - 1));
    if (look && target >= FEWEST_CROSSINGS) {
        size_t alive = collect_alive(s, plan->count, look), last = (size_t)target;
        qsort(s->alive, alive, sizeof *s->alive, descending);
        plan->boundary[look] = 0.5 * (s->alive[last - 1] + s->alive[last]);
        plan->level[look] = level_of(plan->boundary[look], plan->n[look]);
    }
    cross(s, plan->count, look, plan->boundary[look]);
}

static status find_boundaries(struct look_plan *plan, uint64_t seed) {
    size_t looks = (size_t)plan->count;
    struct simulation s = {calloc(PATHS * looks, sizeof(double)), calloc(PATHS, sizeof(double)), 0};
    struct random_stream stream = random_stream(seed, "stats.looks");
    status failure = NULL;
    if (s.statistics && s.alive) {
#pragma omp parallel for schedule(static)
        for (size_t path = 0; path < PATHS; path++) simulate_path(plan, stream, path, s.statistics + path * looks);
        for (int k = 0; k < plan->count; k++) find_boundary(plan, &s, k);
    } else {
        failure = status_new(STATUS_SYSTEM, "out of memory for the boundaries of %d looks", plan->count);
    }
    free(s.statistics);
    free(s.alive);
    return failure;
}

static status check_looks(const size_t *n, int count) {
    if (count < 1 || count > MOST_LOOKS)
        return status_new(STATUS_USAGE, "looks: from 1 to %d are possible, not %d", MOST_LOOKS, count);
    for (int k = 0; k < count; k++)
        if (n[k] < 2 || (k && n[k] <= n[k - 1]))
            return status_new(STATUS_USAGE, "looks: numbers of seeds must ascend from 2 on; %zu does not", n[k]);
    return NULL;
}

status look_plan_make(enum spending spending, const size_t *n, int count, double alpha, uint64_t seed,
                      struct look_plan *plan) {
    TRY(check_looks(n, count));
    *plan = (struct look_plan){.spending = spending, .alpha = alpha, .count = count};
    for (int k = 0; k < count; k++) {
        plan->n[k] = n[k];
        plan->spent[k] = alpha_spent(spending, (double)n[k] / (double)n[count - 1], alpha);
    }
    return find_boundaries(plan, seed);
}
