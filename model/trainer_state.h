/* trainer_state: the insides of struct trainer, shared by trainer.c and checkpoint.c alone.
 *
 * One arena, in this order:
 *   weights | first moments | second moments | average | effective | 8 gradients | lanes and their scratch | batch |
 * losses */
#pragma once
#include "kernels/arena.h"
#include "model/averages.h"
#include "model/optimizer.h"
#include "model/trainer.h"

struct trainer {
    struct config config;
    const struct backend *ops;
    const struct dataset *dataset; /* borrowed */
    struct network net;
    struct optimizer optimizer;
    struct batch_plan plan;
    size_t slice_sequences, shard_sequences;
    int lane_count, workspace_count;
    struct workspace *workspaces[MICRO_SHARDS]; /* [lane index] */

    struct arena arena;
    real *weights, *first, *second;
    struct average average;
    real *effective; /* NULL when the forward pass always reads the weights themselves */
    real *gradients[MICRO_SHARDS];
    bool *block_finite; /* (blocks of the gradient tree) */
    struct lane *lanes;
    int32_t *ids, *targets;    /* (batch tokens) */
    double *nll[MICRO_SHARDS]; /* [lane index] (slice tokens) */

    /* What a checkpoint holds beside the buffers. */
    int64_t steps_done;
    double seconds; /* spent in steps, for train.seconds */
    double *losses; /* (loss_capacity) */
    size_t loss_capacity;
};
