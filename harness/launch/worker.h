/* worker: walks a plan's runs in their order and does every stage that nobody has done or is doing. */
#pragma once
#include <stdatomic.h>

#include "harness/runner.h"
#include "harness/stages.h"

struct work {
    const struct runner_request *request;
    const struct dataset_list *datasets;
    struct runner_callbacks callbacks;
    int index, jobs;  /* this worker, of so many */
    int *stages_run;  /* counted up for each stage that this worker ends */
    atomic_int *turn; /* shared: the index of the worker that may claim its first stage; NULL for one worker alone */
};

/* Until nothing is left, or a stop. Failed stages are marked and passed over; a failure of the machine ends the work.
 */
status worker_run(const struct work *work);

/* The same by several processes, each with its share of the cores; their progress comes back to this one. */
status workers_run(const struct runner_request *request, const struct dataset_list *datasets, int *stages_run);
