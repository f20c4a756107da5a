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

/* How far a suite has come. */
struct sequence {
    struct plan view; /* with the states of the database */
    struct open_variants v;
    int batch;    /* those before are complete, and were looked at */
    bool *needed; /* runs of the plan that are to be done now */
};

static status find_batch(struct sequence *q, const char *database) {
    const struct suite *suite = q->view.suite;
    const struct looks *looks = &suite->looks;
    if (!looks->count) mark_needed(&q->view, (size_t)suite->seed_count, q->v.open, q->needed);
    for (; q->batch < looks->count && q->v.count; q->batch++) {
        if (mark_needed(&q->view, looks->n[q->batch], q->v.open, q->needed) || q->batch + 1 == looks->count)
            return NULL;
        TRY(look_at_store(database, suite, &q->v));
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

static status find_needed(struct sequence *q, const char *database) {
    memset(q->needed, false, (size_t)q->view.run_count);
    if (database) TRY(refresh(database, &q->view));
    return find_batch(q, database);
}

static void sequence_close(struct sequence *q) {
    free(q->view.stages);
    free(q->v.open);
    free(q->needed);
}

static status sequence_open(struct sequence *q, const struct plan *plan) {
    const int variants = plan->suite->variant_count;
    *q = (struct sequence){.view = *plan,
                           .v = {malloc((size_t)variants + 1), variants - 1},
                           .needed = calloc((size_t)plan->run_count + 1, sizeof *q->needed)};
    q->view.stages = malloc((size_t)plan->stage_count * sizeof *q->view.stages + 1);
    if (!q->v.open || !q->needed || !q->view.stages) {
        sequence_close(q);
        return status_new(STATUS_SYSTEM, "out of memory for %d runs", plan->run_count);
    }
    memset(q->v.open, true, (size_t)variants);
    memcpy(q->view.stages, plan->stages, (size_t)plan->stage_count * sizeof *q->view.stages);
    return NULL;
}

status sequential_needed(const char *database, const struct plan *plan, bool *needed) {
    struct sequence q;
    TRY(sequence_open(&q, plan));
    status s = find_needed(&q, database);
    memcpy(needed, q.needed, (size_t)plan->run_count * sizeof *needed);
    sequence_close(&q);
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
static status run_batches(const struct runner_request *request, struct sequence *q, struct plan *batch,
                          status (*work)(const struct runner_request *, void *), void *context) {
    struct runner_request part = *request;
    part.plan = batch;
    for (int k = 0; k <= q->view.suite->looks.count; k++) {
        TRY(find_needed(q, request->database));
        cut(&q->view, q->needed, request->plan, batch);
        if (!batch->run_count) break;
        TRY(work(&part, context));
    }
    if (!batch->run_count) tell_wait(request, count_true(q->needed, q->view.run_count));
    return NULL;
}

status sequential_run(const struct runner_request *request,
                      status (*work)(const struct runner_request *request, void *context), void *context) {
    struct sequence q;
    struct plan batch = *request->plan;
    if (!batch.suite->looks.count) return work(request, context);
    TRY(sequence_open(&q, runner_whole(request)));
    batch.runs = calloc((size_t)batch.run_count + 1, sizeof *batch.runs);
    status s = batch.runs ? run_batches(request, &q, &batch, work, context)
                          : status_new(STATUS_SYSTEM, "out of memory for %d runs", request->plan->run_count);
    free(batch.runs);
    sequence_close(&q);
    return s;
}
