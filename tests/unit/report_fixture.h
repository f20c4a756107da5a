/* report_fixture: a suite's results made up for tests: invented numbers, named as such wherever they are printed. */
#pragma once
#include "harness/results.h"

struct fixture_names {
    const char *suite, *question;
    int variant_count;
    const char *const *variants;
};

extern const struct fixture_names plain_names; /* four variants with plain names */

/* Every run done, `seeds` seeds. Freed with results_free. */
void fixture_results(struct results *results, const struct fixture_names *names, int seeds);

/* The run of a variant (by index) and a seed (by index). */
struct result_run *fixture_run(struct results *results, int variant, int seed);
