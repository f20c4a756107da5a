/* caveats: what must be read with every figure of a suite: what came late, failed, is gone, was looked at too early, or
 * was to be changed after it was declared. */
#pragma once
#include "harness/report/text.h"
#include "harness/results.h"

struct caveats {
    int late_seeds, late_variants, failed, deleted, peeks, refusals;
};
void caveats_count(const struct results *results, struct caveats *out);

/* "1 late seed, 2 failed runs, 1 peek (compare at 6 of 20 runs)"; nothing when there is nothing to say. */
void caveats_line(const struct results *results, struct text *t);

/* The same in whole sentences, for the methods. */
void caveats_sentences(const struct results *results, struct text *t);
