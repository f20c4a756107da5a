/* looks: peeking that is declared. A comparison may be tested after some of its seeds and stop when it is decided,
 * because the error rate alpha is spent over the looks (Lan & DeMets 1983) instead of anew at each.
 *
 * Each side of the two-sided test spends alpha / 2 by one of
 *   obrien-fleming   2 - 2 Phi(z / sqrt(t)), z the upper alpha / 4 point: hardly anything early
 *   pocock           alpha / 2 ln(1 + (e - 1) t): about the same at each look
 * where t = n / most. Assumes that the differences by seed are roughly normal and that the seeds are used in their
 * declared order. The boundaries hold for the t statistic with its few degrees of freedom, not for the normal limit,
 * and are computed, not simulated (boundary.h). */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/status.h"

enum { MOST_LOOKS = 16 };
enum spending { SPEND_OBRIEN_FLEMING, SPEND_POCOCK, SPENDING_KINDS };
const char *spending_name(enum spending spending); /* "obrien-fleming", "pocock" */
bool spending_find(const char *name, enum spending *spending);

/* Looks as they are declared. */
struct looks {
    enum spending spending;
    int count;            /* 0: none */
    size_t n[MOST_LOOKS]; /* seeds, ascending */
};

struct look_plan {
    enum spending spending;
    double alpha; /* of one comparison: two-sided, over all looks; for m comparisons the caller divides by m */
    int count;
    size_t n[MOST_LOOKS];        /* seeds, ascending, from 2 on */
    double spent[MOST_LOOKS];    /* of alpha, up to and with this look */
    double level[MOST_LOOKS];    /* two-sided p at which this look rejects */
    double boundary[MOST_LOOKS]; /* the same as |t| with n - 1 degrees of freedom */
};

/* Share of alpha spent when this fraction of the seeds is there; both sides. */
double alpha_spent(enum spending spending, double fraction, double alpha);

/* STATUS_USAGE when n does not ascend from 2 on or there are too many looks. */
status look_plan_make(enum spending spending, const size_t *n, int count, double alpha, struct look_plan *plan);
