/* ranks: what the ranks of one training tell one another beside the gradient's tree. Calls of all ranks together; with
 * one rank they cost nothing. */
#pragma once
#include "model/trainer_state.h"

/* Each tensor's weights from the rank that updated them. */
status ranks_share_weights(struct trainer *trainer);

/* All moments in the host's memory, as one rank alone would have them: first (parameters.total) and second
 * (optimizer.second_whole_total), malloc'ed, for the caller to free. */
status ranks_gather_moments(const struct trainer *trainer, real **first, real **second);

/* The way back: this rank's own moments from all of them. */
void ranks_keep_moments(struct trainer *trainer, const real *first, const real *second);

/* The content of rank 0's file on every rank: data is malloc'ed; `read` is what reading it on rank 0 said. */
status ranks_share_file(struct trainer *trainer, status read, unsigned char **data, size_t *size);
