/* sources: where the spread of the metric comes from.
 *
 * Variants x seeds is a table with one value a cell; its two-way analysis of variance (Searle, Casella & McCulloch
 * 1992, ch. 4; variants fixed, seeds random) separates what a seed does to all variants alike, which pairing removes,
 * from what it does to each alone. The noise of the evaluated text comes from the 64 blocks (harness/stats/noise.h); it
 * is the same text for all runs, and therefore apart. */
#pragma once
#include "harness/report/analysis.h"

struct variance_sources {
    int variants, seeds; /* of the full part of the table; under two: the next two are NAN */
    double shared, own;  /* sd between seeds: common to the variants; of each variant alone */
    double text;         /* sd of one run's score over resampled text, mean of runs; NAN without blocks */
};
void variance_sources(const struct analysis *a, struct variance_sources *out);

/* sd of the mean difference of a row over resampled text, all its pairs scored on the same resample; NAN without blocks
 * or pairs, or where the runs were scored on different text. */
double text_noise_of_difference(const struct analysis *a, int row);
