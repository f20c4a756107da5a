/* stages: does one claimed stage, from its parent's files to its own files and rows. */
#pragma once
#include "harness/store.h"

struct stage_watch {
    void *context;
    /* After every step or window; loss and rate are NAN where they mean nothing. true: stop as soon as possible. */
    bool (*report)(void *context, int64_t done, int64_t total, double loss, double tokens_per_second);
    void (*message)(void *context, const char *line);
};

struct stage_context {
    struct store *store;
    const struct worker *worker;
    const struct plan *plan;
    const struct plan_stage *stages; /* of the plan; the caller's copy */
    const struct dataset_list *datasets;
    const struct provenance *provenance;
    double checkpoint_seconds;
    struct stage_watch watch;
    bool *input_damaged; /* out: a file of an earlier stage is missing or not what that stage left */
};

/* Records that this build works on the claimed stage, in the transaction of the claim: no other build may see it as
 * nobody's. */
status stage_begin(const struct stage_context *context, int stage);

/* Does the stage, which was begun, and marks it done. STATUS_INTERRUPTED when the watch said stop: what was done is
 * kept. The caller releases the claim on failure. */
status stage_execute(const struct stage_context *context, int stage);

/* The stage that made the files which this one reads: a training or a quantisation; -1 for a training. */
int stage_source(const struct plan_stage *stages, int stage);
