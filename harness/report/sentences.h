/* sentences: what a comparison says, in words that claim no more than its interval. Plain UTF-8. */
#pragma once
#include "harness/report/text.h"
#include "harness/stats/stats.h"

struct wording {
    const struct design *design;
    const char *unit; /* "bits per byte"; "" for none */
    int decimals;     /* of values and differences */
};

/* Decimals that show two digits of the smallest spread in the table. */
int wording_decimals(const struct comparison_table *table);

/* One to four sentences: the verdict with its figures, then failures and lateness where there are any. */
void sentence_verdict(struct text *t, const struct wording *wording, const struct comparison *row);
