/* runner: does what a plan asks for and the store does not have yet.
 *
 * Runs are interleaved (every variant once for a seed, then the next seed). A stage that is done is never done again; a
 * training resumes from its checkpoint. A run that fails or diverges is marked and the suite goes on. */
#pragma once
#include "harness/store.h"

/* Where things stand, for a progress line. Sent after every step, at most ten times a second, and when a stage ends. */
struct runner_progress {
    int run, run_count; /* from 1 */
    char variant[NAME_CAPACITY];
    int64_t seed;
    enum run_part part;
    int64_t done, total;      /* steps of a training, windows of an evaluation, thousandths of a quantisation */
    double loss;              /* of the last step; NAN elsewhere */
    double tokens_per_second; /* NAN where it means nothing */
    double run_seconds_left, suite_seconds_left;
    bool stage_ended;
    int worker; /* 0 .. jobs-1 */
};

struct runner_callbacks {
    void *context;
    void (*progress)(void *context, const struct runner_progress *progress); /* or NULL */
    void (*message)(void *context, const char *line); /* or NULL: a run failed, a dead worker's stage is taken over */
    bool (*stop)(void *context);                      /* or NULL; true: finish the step, save, and return */
};

struct runner_request {
    const char *database;      /* each worker opens it by itself */
    const struct plan *plan;   /* its datasets are open */
    const struct plan *whole;  /* of which plan is a part: what is declared and looked at; NULL: it is all */
    int jobs;                  /* workers, each a process with its share of the cores; 1: this process */
    double checkpoint_seconds; /* 0: the default, RUNNER_CHECKPOINT_SECONDS */
    bool mix_builds;           /* go on although another build made some of its stages */
    bool retry_failed;         /* try runs again that failed before */
    struct runner_callbacks callbacks;
};

#define RUNNER_CHECKPOINT_SECONDS 30.0

struct runner_summary {
    int runs, done, failed;
    int stages_run, stages_reused; /* by this call; done before it */
    double seconds;
};

/* The plan that a request's is a part of, or its own. */
const struct plan *runner_whole(const struct runner_request *request);

/* Declares the suite (store_declare), then works until nothing is left. STATUS_INTERRUPTED when stopped, with a message
 * that says how to go on; failed runs alone are no failure of the call. */
status runner_run(const struct runner_request *request, struct runner_summary *summary);

struct reproduction {
    int64_t steps;            /* compared */
    int64_t first_different;  /* step; -1: none */
    double stored_loss, loss; /* there */
    bool weights_equal, trace_equal;
    char weights_sha256[65], stored_weights_sha256[65], trace_sha256[65], stored_trace_sha256[65];
};

/* Trains a finished run again, in memory, and compares every loss and the weights with what is stored. Stops at the
 * first step that differs. STATUS_DIFFERS with one line when something does; result is filled then, too. Refused
 * (STATUS_USAGE) for runs stopped by the clock (train.seconds), of another NUMERICS_REVISION, dataset or backend. */
status runner_reproduce(struct store *store, int64_t run, const char *data_root, const struct backend *ops,
                        const struct runner_callbacks *callbacks, struct reproduction *result);
