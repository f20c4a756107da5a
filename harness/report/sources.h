/* sources: where the spread of the metric comes from.
 *
 * Variance components by the method of symmetric sums (Koch 1967): halves of squared differences of pairs of runs,
 * sorted by what the two have in common. In the complete table of one node they are those of the two-way analysis of
 * variance (Searle, Casella & McCulloch 1992, ch. 4; variants fixed, seeds and nodes random), and they need no complete
 * table: own      of two variants' differences by seed, both runs of a seed on one node shared   of two seeds of a
 * variant on one node, less own: what pairing removes node     of two seeds of a variant on two nodes, less those on
 * one node Assumes that seeds were given to nodes without regard to their effect. The noise of the evaluated text comes
 * from the 64 blocks (harness/stats/noise.h); it is the same text for all runs, and therefore apart. */
#pragma once
#include "harness/report/analysis.h"

struct variance_sources {
    int variants, seeds, nodes; /* with finished runs */
    double variant;             /* sd of the variants' means beyond what own explains; their effects among it */
    double own;                 /* of a seed in one variant alone */
    double shared;              /* of a seed, common to the variants */
    double node;                /* NAN with one node, or where no two seeds of a variant share one */
    bool node_in_shared;        /* no two seeds share a node: shared holds the node's part */
    double text;                /* sd of one run's score over resampled text, mean of runs; NAN without blocks */
    double replicate;           /* of the same seed again: 0 where no bit differs; NAN without a training made again, or
                                   where one differs, as the store keeps no scores of it */
};
void variance_sources(const struct analysis *a, struct variance_sources *out);

/* sd of the mean difference of a row over resampled text, all its pairs scored on the same resample; NAN without blocks
 * or pairs, or where the runs were scored on different text. */
double text_noise_of_difference(const struct analysis *a, int row);
