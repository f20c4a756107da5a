/* sequential: batches of seeds and the looks between them; see sequential.h. */
#include "harness/sequential.h"

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

static status work_batch(const struct runner_request *request, size_t seeds, const bool *open,
                         status (*work)(const struct runner_request *, void *), void *context) {
    struct plan batch = *request->plan;
    struct runner_request part = *request;
    batch.runs = calloc((size_t)batch.run_count + 1, sizeof *batch.runs);
    if (!batch.runs) return status_new(STATUS_SYSTEM, "out of memory for %d runs", batch.run_count);
    batch.run_count = 0;
    for (int i = 0; i < request->plan->run_count; i++)
        if (in_batch(request->plan->suite, &request->plan->runs[i], seeds, open))
            batch.runs[batch.run_count++] = request->plan->runs[i];
    part.plan = &batch;
    status failure = work(&part, context);
    free(batch.runs);
    return failure;
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

static status look_at_store(const struct runner_request *request, struct open_variants *v) {
    const struct suite *suite = request->plan->suite;
    struct results results = {0};
    struct store *store;
    TRY(store_open(&store, request->database, STORE_READ));
    status failure = store_load_results_at(store, suite->name, suite->scale, RESULTS_FIGURES, &results);
    store_close(store);
    if (!failure) failure = look(suite, &results, v);
    results_free(&results);
    return failure;
}

static status run_batches(const struct runner_request *request, struct open_variants *v,
                          status (*work)(const struct runner_request *, void *), void *context) {
    const struct looks *looks = &request->plan->suite->looks;
    for (int k = 0; k < looks->count && v->count; k++) {
        TRY(work_batch(request, looks->n[k], v->open, work, context));
        if (k + 1 < looks->count) TRY(look_at_store(request, v));
    }
    return NULL;
}

status sequential_run(const struct runner_request *request,
                      status (*work)(const struct runner_request *request, void *context), void *context) {
    const struct suite *suite = request->plan->suite;
    if (!suite->looks.count) return work(request, context);
    struct open_variants v = {calloc((size_t)suite->variant_count + 1, sizeof *v.open), suite->variant_count - 1};
    if (!v.open) return status_new(STATUS_SYSTEM, "out of memory for %d variants", suite->variant_count);
    memset(v.open, true, (size_t)suite->variant_count);
    status failure = run_batches(request, &v, work, context);
    free(v.open);
    return failure;
}
