/* sequential: batches of seeds and the looks between them; see sequential.h. */
#include "harness/sequential.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Which variants still get seeds. */
struct open_variants {
    bool *open; /* [variant_count] */
    int count;  /* but for the baseline */
};

static bool in_batch(const struct suite *suite, const struct plan_run *run, size_t seeds, const bool *open) {
    for (size_t s = 0; s < seeds && s < (size_t)suite->seed_count; s++)
        if (suite->seeds[s] == run->seed) return open[run->variant];
    return false;
}

static void close_decided(const struct suite *suite, const struct comparison_table *table, struct open_variants *v) {
    for (int r = 1; r < table->count; r++) {
        int variant = suite_variant_find(suite, table->rows[r].variant);
        if (variant < 0 || table->rows[r].stopped < 0 || !v->open[variant]) continue;
        v->open[variant] = false;
        v->count--;
    }
}

static status look(const struct suite *suite, const struct results *results, struct open_variants *v) {
    struct observation *observations;
    struct comparison_table table;
    struct design design = results->design;
    size_t count;
    design.higher_is_better = metric_find(results->metric)->higher_is_better;
    TRY(results_observations(results, results->metric, &observations, &count));
    status failure = compare_variants(&design, observations, count, &table);
    if (!failure) {
        close_decided(suite, &table, v);
        comparison_table_free(&table);
    }
    free(observations);
    return failure;
}

static status look_at_store(const char *database, const struct suite *suite, struct open_variants *v) {
    struct results results = {0};
    struct store *store;
    TRY(store_open(&store, database, STORE_READ));
    status failure = store_load_results_at(store, suite->name, suite->scale, RESULTS_FIGURES, &results);
    store_close(store);
    if (!failure) failure = look(suite, &results, v);
    results_free(&results);
    return failure;
}

/* --- what is to be done now --------------------------------------------------------------------------------------- */

static bool has_ended(const struct plan *plan, const struct plan_run *run) {
    int done = 0;
    for (int part = 0; part < PART_COUNT; part++) {
        enum stage_state state = plan->stages[run->stages[part]].state;
        if (state == STAGE_FAILED) return true;
        done += state == STAGE_DONE;
    }
    return done == PART_COUNT;
}

/* Returns how many. */
static int mark_needed(const struct plan *plan, size_t seeds, const bool *open, bool *needed) {
    int count = 0;
    for (int i = 0; i < plan->run_count; i++) {
        const struct plan_run *run = &plan->runs[i];
        needed[i] = in_batch(plan->suite, run, seeds, open) && !has_ended(plan, run);
        count += needed[i];
    }
    return count;
}

/* The plan has the states of the database. */
static status find_batch(const char *database, const struct plan *plan, struct open_variants *v, bool *needed) {
    const struct looks *looks = &plan->suite->looks;
    if (!looks->count) mark_needed(plan, (size_t)plan->suite->seed_count, v->open, needed);
    for (int k = 0; k < looks->count && v->count; k++) {
        if (mark_needed(plan, looks->n[k], v->open, needed) || k + 1 == looks->count) return NULL;
        TRY(look_at_store(database, plan->suite, v));
    }
    return NULL;
}

static status refresh(const char *database, struct plan *plan) {
    struct store *store;
    TRY(store_open(&store, database, STORE_READ));
    status s = plan_refresh(plan, store);
    store_close(store);
    return s;
}

static status find_needed(const char *database, struct plan *view, struct open_variants *v, bool *needed) {
    memset(v->open, true, (size_t)view->suite->variant_count);
    memset(needed, false, (size_t)view->run_count);
    if (database) TRY(refresh(database, view));
    return find_batch(database, view, v, needed);
}

status sequential_needed(const char *database, const struct plan *plan, bool *needed) {
    const int variants = plan->suite->variant_count;
    struct plan view = *plan;
    struct open_variants v = {calloc((size_t)variants + 1, sizeof *v.open), variants - 1};
    view.stages = malloc((size_t)plan->stage_count * sizeof *view.stages + 1);
    status s = v.open && view.stages ? NULL : status_new(STATUS_SYSTEM, "out of memory");
    if (!s) memcpy(view.stages, plan->stages, (size_t)plan->stage_count * sizeof *view.stages);
    if (!s) s = find_needed(database, &view, &v, needed);
    free(view.stages);
    free(v.open);
    return s;
}

/* --- doing it ----------------------------------------------------------------------------------------------------- */

/* The runs of the request's plan among those that the whole needs; a part has them in the order of the whole. */
static void cut(const struct plan *whole, const bool *needed, const struct plan *plan, struct plan *batch) {
    int next = 0;
    batch->run_count = 0;
    for (int i = 0; i < whole->run_count && next < plan->run_count; i++) {
        const struct plan_run *run = &plan->runs[next];
        if (run->variant != whole->runs[i].variant || run->seed != whole->runs[i].seed) continue;
        if (needed[i]) batch->runs[batch->run_count++] = *run;
        next++;
    }
}

static int count_true(const bool *values, int count) {
    int sum = 0;
    for (int i = 0; i < count; i++) sum += values[i];
    return sum;
}

static void tell_wait(const struct runner_request *request, int runs) {
    const struct runner_callbacks *c = &request->callbacks;
    char line[256];
    snprintf(line, sizeof line,
             "the next look waits for %d run%s of other parts: merge all parts into one database, that into this one, "
             "and repeat",
             runs, runs == 1 ? "" : "s");
    if (runs && c->message) c->message(c->context, line);
}

/* A batch's work ends its runs, so that there are as many rounds as looks, and one that finds nothing left. */
static status run_batches(const struct runner_request *request, bool *needed, struct plan *batch,
                          status (*work)(const struct runner_request *, void *), void *context) {
    const struct plan *whole = runner_whole(request);
    struct runner_request part = *request;
    part.plan = batch;
    for (int k = 0; k <= whole->suite->looks.count; k++) {
        TRY(sequential_needed(request->database, whole, needed));
        cut(whole, needed, request->plan, batch);
        if (!batch->run_count) break;
        TRY(work(&part, context));
    }
    if (!batch->run_count) tell_wait(request, count_true(needed, whole->run_count));
    return NULL;
}

status sequential_run(const struct runner_request *request,
                      status (*work)(const struct runner_request *request, void *context), void *context) {
    const struct plan *plan = request->plan;
    struct plan batch = *plan;
    if (!plan->suite->looks.count) return work(request, context);
    bool *needed = calloc((size_t)runner_whole(request)->run_count + 1, sizeof *needed);
    batch.runs = calloc((size_t)plan->run_count + 1, sizeof *batch.runs);
    status s = needed && batch.runs ? run_batches(request, needed, &batch, work, context)
                                    : status_new(STATUS_SYSTEM, "out of memory for %d runs", plan->run_count);
    free(batch.runs);
    free(needed);
    return s;
}
