/* caveats: what must be read with every figure of a suite: what came late, failed, blew up, is gone, was looked at too
 * early, or was to be changed after it was declared. */
#pragma once
#include "harness/report/text.h"
#include "harness/results.h"

struct caveats {
    int late_seeds, late_variants, failed, blown_up, deleted, peeks, refusals;
};
void caveats_count(const struct results *results, struct caveats *out);

/* "1 late seed, 2 failed runs, 1 peek (compare at 6 of 20 runs)"; nothing when there is nothing to say. */
void caveats_line(const struct results *results, struct text *t);

/* How many runs of each variant blew up, and what that means; nothing when none did. */
void caveats_blown_up(const struct results *results, struct text *t);

/* All caveats in whole sentences, for the methods. */
void caveats_sentences(const struct results *results, struct text *t);
