/* evaluation_state: the insides of an evaluation, shared by evaluation.c and test_time_training.c alone. */
#pragma once
#include "kernels/arena.h"
#include "model/evaluation.h"
#include "model/windows.h"

enum { LEARNERS = 8, LANES_OF_DEVICE = 8 };

/* What test-time training keeps beside the scoring; NULLs in the other modes. */
struct learner {
    int partial_count;          /* a power of two, by the options alone */
    real *gradients[LEARNERS];  /* partial sums, added as a binary tree */
    real *masters;              /* the weights that learn; the evaluator's effective ones are their image */
    real *first, *second;       /* AdamW's moments */
    struct muon_settings *step; /* of the update, in the backend's memory */
    struct adam_settings *adam; /* likewise; AdamW's */
    int32_t *finite;            /* (tensors) what add_tree says, which the loss tells too */
    int64_t updates;
};

struct evaluator {
    struct network net;
    const struct dataset *dataset;
    struct window_plan windows;
    size_t parcel_windows, parcel_count;
    size_t chunk_windows, chunk_parcels; /* parcels end where chunks end; without learning all is one chunk */
    struct workspace **workspaces;       /* one per lane */
    int lane_count;
    size_t first_parcel; /* of the round being run */
    int parcels;         /* of that round */
    uint64_t recording;  /* what a device records of a round */

    struct arena arena; /* of the backend's memory */
    real *masters;      /* the weights, where the caller's are not in the backend's memory; else NULL */
    real *effective;
    int32_t *ids; /* of a round's parcels, at least one for each lane: (2, parcel_windows, T) tokens and targets each */
    double *nll;  /* likewise, (parcel_windows, T) each */

    struct arena host;
    struct lane *lanes;
    int32_t *tokens; /* what ids get */
    double *scores;  /* what nll gives */
    struct learner learner;
};

struct parcel {
    size_t first, count; /* windows, all of one length */
};

struct parcel parcel_at(const struct evaluator *e, size_t index);

static inline size_t parcel_tokens(const struct evaluator *e) { return e->parcel_windows * e->windows.time; }

/* Puts a parcel's tokens and targets at place `place` of the host's. */
void parcel_fill(const struct evaluator *e, struct parcel parcel, int place);

/* The forward pass of a parcel whose tokens and losses stand at that place. */
struct forward_request parcel_request(const struct evaluator *e, struct parcel parcel, int place);

/* --- test-time training --- */

static inline bool learns(const struct evaluator *e) { return e->net.config.eval_mode == EVAL_TTT; }

void learner_lay_out(struct evaluator *e, struct arena *arena);
void learner_start(struct evaluator *e, const real *masters); /* in the backend's memory */

/* Updates the weights on the chunk, eval.ttt_epochs times; stop is asked before each. */
status learner_update(struct evaluator *e, size_t chunk, evaluation_progress progress, void *context);
