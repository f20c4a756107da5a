/* simulated: suites whose figures are drawn from a declared distribution (run.backend: simulated), to test designs and
 * this program by the thousand. They need no data, and go the way of all runs: plan, stages, store, comparison.
 *
 * The draws are in kernels/simulated; what tells the draws of two variants apart is every option that is not at its
 * default. Wherever results are shown, simulated_note marks them. */
#pragma once
#include "harness/runner.h"

/* What a stage takes, about: rows in a database. */
#define SIMULATED_STAGE_SECONDS 1e-4

bool suite_simulated(const struct suite *suite);

/* STATUS_USAGE when some variants are simulated and others are not. */
status simulated_check(const struct suite *suite);

/* A dataset of that name without tokens, of the vocabulary that the suite asks for. */
void simulated_dataset(struct dataset *dataset, const struct suite *suite, const char *name);

/* "simulated: ..." for results that were drawn, NULL for those that were measured. */
const char *simulated_note(const struct results *results);

struct simulation {
    struct store *store;
    const struct worker *worker;
    const struct plan *plan;
    struct plan_stage *stages; /* of the plan; their states change */
    const struct provenance *provenance;
    const struct runner_callbacks *callbacks;
    int index;       /* of the worker */
    int *stages_run; /* counted up */
};

/* Does every stage of the plan that is not done, many runs in one transaction. */
status simulated_work(const struct simulation *simulation);
