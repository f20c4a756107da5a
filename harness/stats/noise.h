/* noise: how much a score depends on which text was evaluated, apart from the seeds. Cluster bootstrap (Davison &
 * Hinkley 1997, ch. 2.4 and 3.8): whole blocks of contiguous text are drawn with replacement, because neighbouring
 * tokens are not independent. Assumes that the blocks are exchangeable: no trend along the text. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Standard deviation of sum(top) / sum(bottom) over 2,000 seeded resamples of the clusters; NAN when there are fewer
 * than two. BPB: top = nll / ln 2, bottom = bytes. The noise of a difference: top = the difference of the nats. */
double noise_of_ratio(const double *top, const double *bottom, size_t clusters, uint64_t seed);
