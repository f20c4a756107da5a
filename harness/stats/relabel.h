/* relabel: an A/A test: labels that mean nothing are given to values of one kind, and it is counted how often a test
 * calls them different (Kohavi et al. 2009, doi 10.1007/s10618-008-0114-1, on A/A tests of experiments).
 *
 * Each relabelling draws 2m of the values without replacement and pairs them at random, as if m seeds had been run
 * under two variants. Nothing differs, so that a test at alpha may reject in a share alpha of relabellings. The rate is
 * that of these values: with few of them it is coarse, and where it lies above alpha the test's assumptions (values
 * that can be exchanged; for t, differences about normal) are doubtful for them. */
#pragma once
#include "harness/stats/stats.h"

/* Up to so many pairs all signings are enumerated, in each relabelling. */
enum { RELABEL_LEAST = 4, RELABEL_MOST_PAIRS = 12 };

struct relabelling {
    size_t values, pairs, count; /* count: of relabellings */
    double rate[TEST_KINDS];     /* share of them with p < alpha */
    double three_errors;         /* three standard errors of a rate that is alpha, over the pairings that differ */
};

/* pairs 0: as many as the values give, at most RELABEL_MOST_PAIRS; wanted: of each test, NULL for all; the rate of
 * others is 0. STATUS_DATA under RELABEL_LEAST values. */
status relabel(const double *values, size_t count, size_t pairs, size_t relabellings, double alpha, uint64_t seed,
               const bool *wanted, struct relabelling *out);

/* What a rate says of a test of level alpha, in words. Where three standard errors exceed alpha, a rate that is not far
 * above it says nothing. */
const char *relabel_verdict(const struct relabelling *r, enum test_kind test, double alpha);
