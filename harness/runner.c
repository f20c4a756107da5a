/* runner: declares a suite, sets workers to it, and counts what came of it; see runner.h. */
#include "harness/runner.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/launch/worker.h"
#include "harness/sequential.h"
#include "harness/simulated.h"
#include "harness/stage_train.h"
#include "kernels/clock.h"

/* --- before and after --------------------------------------------------------------------------------------------- */

/* A copy of the plan with states of its own. */
static status view_of(const struct plan *plan, struct plan *view) {
    *view = *plan;
    view->stages = malloc((size_t)plan->stage_count * sizeof *view->stages + 1);
    if (!view->stages) return status_new(STATUS_SYSTEM, "out of memory");
    memcpy(view->stages, plan->stages, (size_t)plan->stage_count * sizeof *view->stages);
    return NULL;
}

const struct plan *runner_whole(const struct runner_request *request) {
    return request->whole ? request->whole : request->plan;
}

static int count_done(const struct plan *view) {
    int done = 0;
    for (int i = 0; i < view->stage_count; i++) done += view->stages[i].state == STAGE_DONE;
    return done;
}

/* Times of day say when something was done; nothing is decided by them but whether a worker of another host is alive.
 */
static status look_at_clock(const struct runner_request *request, struct store *store) {
    const struct runner_callbacks *c = &request->callbacks;
    char line[256];
    double age;
    TRY(store_age(store, &age));
    if (!(age < -STORE_STALE_SECONDS) || !c->message) return NULL;
    snprintf(line, sizeof line,
             "this machine's clock stands %.0f s before the last entry of the database: one of them was set otherwise; "
             "durations do not depend on it, times of day do",
             -age);
    c->message(c->context, line);
    return NULL;
}

/* Drawn figures are any build's, and where nothing is left to do nothing is mixed. */
static status check_build(const struct runner_request *request, struct store *store) {
    struct provenance now;
    const struct suite *suite = request->plan->suite;
    bool complete = count_done(request->plan) == request->plan->stage_count;
    if (request->mix_builds || complete || suite_simulated(suite)) return NULL;
    provenance_collect(&now, request->plan->ops);
    return store_check_build(store, suite->name, suite->scale, &now);
}

static status declare_once(const struct runner_request *request, const struct dataset_list *datasets,
                           struct store *store) {
    TRY(store_batch_begin(store));
    status s = store_declare(store, runner_whole(request), datasets);
    if (!s) s = check_build(request, store);
    return store_batch_end(store, s);
}

static status declare(const struct runner_request *request, const struct dataset_list *datasets, struct store *store,
                      struct plan *view, struct runner_summary *summary) {
    TRY(declare_once(request, datasets, store));
    TRY(look_at_clock(request, store));
    for (int i = 0; request->retry_failed && i < view->stage_count; i++) TRY(store_retry(store, view->stages[i].key));
    TRY(plan_refresh(view, store));
    summary->stages_reused = count_done(view);
    return NULL;
}

static void count_runs(const struct plan *view, struct runner_summary *summary) {
    summary->runs = view->run_count;
    for (int r = 0; r < view->run_count; r++) {
        int done = 0;
        bool failed = false;
        for (int part = 0; part < PART_COUNT; part++) {
            enum stage_state state = view->stages[view->runs[r].stages[part]].state;
            done += state == STAGE_DONE;
            failed |= state == STAGE_FAILED;
        }
        summary->done += done == PART_COUNT;
        summary->failed += failed;
    }
}

static status count_after(const struct runner_request *request, struct plan *view, struct runner_summary *summary) {
    struct store *store;
    TRY(store_open(&store, request->database, STORE_READ));
    status s = plan_refresh(view, store);
    store_close(store);
    if (!s) count_runs(view, summary);
    return s;
}

/* --- the work ----------------------------------------------------------------------------------------------------- */

/* What work needs beside its request. */
struct doing {
    const struct dataset_list *datasets;
    int *stages_run;
};

static status do_work(const struct runner_request *request, void *context) {
    const struct doing *doing = context;
    if (request->jobs > 1 && !suite_simulated(request->plan->suite))
        return workers_run(request, doing->datasets, doing->stages_run);
    const struct work work = {.request = request,
                              .datasets = doing->datasets,
                              .callbacks = request->callbacks,
                              .jobs = 1,
                              .stages_run = doing->stages_run};
    return worker_run(&work);
}

/* The database is closed while workers are started: no connection may cross a fork. */
static status run(const struct runner_request *request, struct plan *view, struct runner_summary *summary) {
    struct store *store;
    TRY(store_open(&store, request->database, STORE_WRITE));
    const struct dataset_list *datasets = request->plan->datasets;
    status s = declare(request, datasets, store, view, summary);
    store_close(store);
    TRY(s);
    struct doing doing = {datasets, &summary->stages_run};
    s = sequential_run(request, do_work, &doing);
    status counted = count_after(request, view, summary);
    if (!s) return counted;
    status_free(counted);
    if (status_kind(s) != STATUS_INTERRUPTED) return s;
    status_free(s);
    return status_new(STATUS_INTERRUPTED,
                      "stopped: %d of %d runs are done, what was begun is kept; the same hinge run goes on from here",
                      summary->done, summary->runs);
}

status runner_run(const struct runner_request *request, struct runner_summary *summary) {
    struct plan view;
    double start = clock_seconds();
    *summary = (struct runner_summary){0};
    TRY(view_of(request->plan, &view));
    status s = run(request, &view, summary);
    free(view.stages);
    summary->seconds = clock_seconds() - start;
    return s;
}
