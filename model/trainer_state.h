/* trainer_state: the insides of struct trainer, shared by trainer.c, trainer_gradients.c, checkpoint.c and ranks.c
 * alone.
 *
 * One arena of the backend's memory, in this order:
 *   weights | first moments | second moments | average | effective | 8 gradients | scratch of the lanes | batch |
 * verdict | settings of the update
 * and one of the host's: lanes | batch | verdict | losses */
#pragma once
#include "kernels/arena.h"
#include "kernels/comm/comm.h"
#include "model/averages.h"
#include "model/optimizer.h"
#include "model/trainer.h"

/* What a step is judged by before the weights are touched; one piece of memory, read once a step. A rank has those of
 * its own micro-shards. */
struct verdict {
    double *loss;    /* (MICRO_SHARDS) sums of nats */
    int32_t *finite; /* (blocks of the gradient tree) */
};

struct trainer {
    struct config config;
    const struct backend *ops;
    const struct dataset *dataset; /* borrowed */
    struct network net;
    struct optimizer optimizer;
    struct batch_plan plan;
    struct comm alone, *comm;     /* comm is borrowed, or &alone */
    int first_shard, shard_count; /* of the 8, those of this rank */
    uint64_t number; /* of this trainer among those of the process: what a device recorded is not another's */
    size_t slice_sequences, shard_sequences;
    size_t tree_block; /* elements of the gradient that one piece of work adds up */
    int lane_count, workspace_count;
    struct workspace *workspaces[MICRO_SHARDS]; /* [lane index] */

    struct arena arena;
    real *weights, *first, *second;
    struct average average;
    real *effective;               /* NULL when the forward pass always reads the weights themselves */
    real *gradients[MICRO_SHARDS]; /* (shard_count, at least 2) of this rank's micro-shards */
    int32_t *ids, *targets;        /* (batch tokens) one after the other */
    double *nll[MICRO_SHARDS];     /* [lane index] (slice tokens) */
    struct verdict verdict;
    struct update_settings *settings;

    struct arena host;
    struct lane *lanes;        /* (lane_count) */
    int32_t *batch;            /* (2, batch tokens) what ids and targets get */
    int64_t batch_step;        /* whose tokens they are; -1: nothing yet */
    struct verdict downloaded; /* the verdict */

    /* What a checkpoint holds beside the buffers. */
    int64_t steps_done;
    double seconds; /* spent in steps, for train.seconds */
    double *losses; /* (loss_capacity) */
    size_t loss_capacity;
};

/* The parts of a step that a device records, each for itself: between them the host waits for other ranks, and judges
 * what came out before the weights change. */
enum recorded_part { RECORDED_PASS, RECORDED_FINISH, RECORDED_UPDATE };

/* For replay; a pass is recorded anew when repeats or QAT begin. */
static inline uint64_t recorded_key(const struct trainer *t, enum recorded_part part, bool repeats_on, bool qat) {
    return t->number << 4 | (uint64_t)part << 2 | (uint64_t)repeats_on << 1 | (uint64_t)qat;
}

static inline size_t batch_tokens(const struct trainer *t) { return (size_t)t->config.train_batch_tokens; }

static inline size_t slice_tokens(const struct trainer *t) {
    return t->slice_sequences * (size_t)t->config.train_sequence;
}

static inline int tree_blocks(const struct trainer *t) {
    return (int)((t->net.parameters.total + t->tree_block - 1) / t->tree_block);
}

static inline size_t verdict_bytes(const struct trainer *t) {
    return MICRO_SHARDS * sizeof(double) + (size_t)tree_blocks(t) * sizeof(int32_t);
}

static inline bool qat_ever(const struct config *config) { return config->train_qat_below > 0; }

/* Leaves the gradients of the master weights, of the whole batch, in gradients[0], and gives the step's loss. An error
 * when either is not finite; the weights are not touched. */
status trainer_gradients(struct trainer *trainer, bool repeats_on, bool qat, double *loss);
