/* plan: what a suite asks for, as runs (variant x seed), and the stages that they are made of.
 *
 *   train --- average --+-- evaluate averaged
 *     |                 +-- quantise --- evaluate artifact
 *     +-- evaluate raw
 *
 * A stage's key is a SHA-256 over everything that can change its result: kind, options of its own and of earlier
 * stages, dataset, seed, NUMERICS_REVISION, backend and precision, the parent's key. Runs with equal keys share the
 * stage, in any suite: nine strategies over five seeds train five models. */
#pragma once
#include "harness/memory.h"
#include "harness/suite.h"
#include "kernels/kernels.h"

/* Raised whenever a change of the code changes the numbers of a run: old results are then never taken for new. 2: the
 * scan's phases and split sums of products on a device; chunks of test-time training beside a kept tail. 3: the order
 * in which a device sums the norm that optim.clip compares. 4: rounding in a device's scan. 5: rounding in a
 * device's attention and scan, and in products with an epilogue. 6: a branch's scale is in the weights that end it;
 * rounding in a device's attention and scan, and in what prepares it. 7: rounding in a device's scan, attention and
 * sums of gradients. */
#define NUMERICS_REVISION 7

/* The parts of a run, in the order in which they are done. */
enum run_part { PART_TRAIN, PART_RAW, PART_AVERAGE, PART_AVERAGED, PART_QUANTISE, PART_ARTIFACT, PART_COUNT };
const char *run_part_name(enum run_part part); /* "train", "evaluate raw", "average", ... */
enum stage_kind run_part_kind(enum run_part part);

enum stage_state { STAGE_PENDING, STAGE_RUNNING, STAGE_DONE, STAGE_FAILED, STAGE_INTERRUPTED, STAGE_STATES };
const char *stage_state_name(enum stage_state state); /* "pending", ... as stored */
bool stage_state_find(const char *name, enum stage_state *state);

struct plan_stage {
    enum stage_kind kind;
    enum run_part part;
    char key[65];
    int parent;  /* index of the stage that it starts from; -1 for training */
    int variant; /* the first variant that asks for it: its config describes the stage */
    int64_t seed;
    int uses;               /* runs that share it */
    enum stage_state state; /* as the store had it at plan_refresh; STAGE_PENDING before */
    double seconds;         /* of a job; estimated or, when done, measured; NAN before plan_estimate */
    double work;            /* counted floating-point operations; NAN before plan_estimate */
    bool measured;          /* seconds come from stored rates, not from counted operations */
};

struct plan_run {
    int variant;
    int64_t seed;
    int stages[PART_COUNT];
    char key[65]; /* of all its stages */
};

/* The datasets that a suite's variants name, opened; each once. */
struct dataset_list {
    int count;
    struct dataset *rows;
};
status datasets_open(struct dataset_list *list, const struct suite *suite, const char *root);
void datasets_close(struct dataset_list *list);
const struct dataset *datasets_find(const struct dataset_list *list, const char *name); /* NULL when absent */

struct comm;

struct plan {
    const struct suite *suite;           /* borrowed */
    const struct dataset_list *datasets; /* borrowed */
    const struct backend *ops;           /* borrowed */
    struct comm *comm;                   /* borrowed; NULL: this process alone (ranks.h) */
    int run_count;
    struct plan_run *runs; /* block by block: every variant once for a seed, then the next seed */
    int stage_count;
    struct plan_stage *stages; /* each once, a parent before its children */
    struct rates_now *rates;   /* of this machine, timed by the first plan_estimate that needs them; NULL before */
    int part, parts;           /* which of how many parts of a suite, from 1 (plan_part); 0: the whole */
};

/* Suite, datasets and backend stay the caller's and must outlive the plan; of the datasets only names, hashes and sizes
 * are read. STATUS_USAGE when a vocabulary does not fit. */
status plan_create(struct plan *plan, const struct suite *suite, const struct dataset_list *datasets,
                   const struct backend *ops);
void plan_free(struct plan *plan);

/* Trainings of a plan, each counted once: a suite falls into so many parts at most. */
int plan_trainings(const struct plan *plan);

/* For each stage its part, from 1, when a plan falls into so many: the n-th training, in the plan's order, goes to part
 * n modulo their number, and all that follows from it with it, so that no two parts have a stage in common. */
void plan_number_parts(const struct plan *plan, int of, int *parts_of);

/* One of so many parts of a plan. STATUS_USAGE when it would be empty. plan_free frees it. */
status plan_part(const struct plan *whole, int part, int of, struct plan *out);

/* The declaration's canonical text: everything that was decided before the first run. Caller frees. */
char *plan_declaration(const struct plan *plan, const struct dataset_list *datasets);

struct store;

/* Reads the state and measured seconds of every stage from the store. */
status plan_refresh(struct plan *plan, struct store *store);

int plan_runs_done(const struct plan *plan); /* all of whose stages the last plan_refresh found done */

struct plan_estimate {
    int runs, runs_done;
    int stages[STAGE_KINDS], done[STAGE_KINDS]; /* by kind, each shared stage counted once */
    int jobs;                                   /* at a time */
    double seconds_total, seconds_left;         /* until the last of the jobs has ended */
    double seconds_timing;                      /* of these, for timing every phase first; 0 when not needed */
    bool measured;                              /* every stage left is estimated from stored rates of like stages */
    double gflops;                              /* rate of products measured on this machine now; NAN when not needed */
    double efficiency;        /* share of it that a slice of the baseline's training reached; NAN when not needed */
    size_t slice_tokens;      /* of that slice, on each lane */
    struct memory_use memory; /* of a job; stages: the largest of any variant */
    int family;               /* comparisons that the correction covers, in the largest family */
    double attainable_p;      /* smallest p that the test can give at this many seeds */
    size_t needed_seeds;      /* seeds for the first rejection after correction in the best case; 0: never */
    bool can_be_significant;
};

/* Fills stages[].seconds, each that of a job with its share of the machine, and the totals. store may be NULL (nothing
 * done, no stored rates). Only when some stage has no stored like, a short slice of every phase of the baseline's model
 * is run and timed (measure.h), once for a plan. Jobs share the cores of a CPU, or are spread over `devices`. */
status plan_estimate(struct plan *plan, struct store *store, int jobs, int devices, struct plan_estimate *estimate);

/* What a job comes to hold at the most, its process aside; of a suite that trains. */
status plan_memory(const struct plan *plan, struct memory_use *out);
