/* looks: spending functions, and the plan that they lead to; see looks.h. */
#include "harness/stats/looks.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <string.h>

#include "harness/stats/boundary.h"

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

static status check_looks(const size_t *n, int count) {
    if (count < 1 || count > MOST_LOOKS)
        return status_new(STATUS_USAGE, "looks: from 1 to %d are possible, not %d", MOST_LOOKS, count);
    for (int k = 0; k < count; k++)
        if (n[k] < 2 || (k && n[k] <= n[k - 1]))
            return status_new(STATUS_USAGE, "looks: numbers of seeds must ascend from 2 on; %zu does not", n[k]);
    return NULL;
}

status look_plan_make(enum spending spending, const size_t *n, int count, double alpha, struct look_plan *plan) {
    TRY(check_looks(n, count));
    *plan = (struct look_plan){.spending = spending, .alpha = alpha, .count = count};
    for (int k = 0; k < count; k++) {
        plan->n[k] = n[k];
        plan->spent[k] = alpha_spent(spending, (double)n[k] / (double)n[count - 1], alpha);
    }
    TRY(boundary_of_t(plan->n, plan->spent, count, plan->boundary));
    for (int k = 0; k < count; k++) plan->level[k] = 2.0 * gsl_cdf_tdist_Q(plan->boundary[k], (double)(n[k] - 1));
    return NULL;
}
