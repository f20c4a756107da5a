/* reproduce: trains a stored run again, in memory, and compares it step by step; see runner_reproduce. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/runner.h"
#include "harness/stage_train.h"
#include "harness/weights.h"
#include "kernels/clock.h"

struct reproducing {
    const struct results *run; /* of the one run */
    const struct backend *ops;
    struct config config;
    const struct runner_callbacks *callbacks;
    struct reproduction *result;
    double started;
};

static const struct result_run *stored(const struct reproducing *r) { return &r->run->runs[0]; }

/* --- what cannot be compared -------------------------------------------------------------------------------------- */

static status check_comparable(const struct reproducing *r, const struct dataset *dataset,
                               const struct run_details *d) {
    const struct result_run *run = stored(r);
    long long id = (long long)run->id;
    char text[32];
    if (!*run->weights_sha256)
        return status_new(STATUS_USAGE, "run %lld: its training is not done (%s)", id, run->status);
    if (r->config.train_seconds > 0)
        return status_new(STATUS_USAGE, "run %lld: was stopped by the clock (train.seconds), which no run repeats", id);
    if (strcmp(dataset->sha256, r->run->dataset_sha256) != 0)
        return status_new(STATUS_USAGE, "run %lld: dataset %s has the hash %.12s, the run had %.12s", id, dataset->name,
                          dataset->sha256, r->run->dataset_sha256);
    snprintf(text, sizeof text, "%d", NUMERICS_REVISION);
    const struct {
        const char *name, *now;
    } held[] = {
        {"numerics", text}, {"backend", r->ops->name}, {"precision", sizeof(real) == 4 ? "float32" : "float64"}};
    for (size_t h = 0; h < sizeof held / sizeof *held; h++)
        for (int i = 0; i < d->provenance_count; i++)
            if (strcmp(d->provenance[i].name, held[h].name) == 0 && strcmp(d->provenance[i].value, held[h].now) != 0)
                return status_new(STATUS_USAGE, "run %lld: was made with %s %s, this program has %s", id, held[h].name,
                                  d->provenance[i].value, held[h].now);
    return NULL;
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static bool report(const struct reproducing *r, const struct step_record *record) {
    const struct runner_callbacks *c = r->callbacks;
    int64_t done = record->step + 1, total = stored(r)->steps;
    double left = (clock_seconds() - r->started) * (double)(total - done) / (double)done;
    struct runner_progress progress = {.run = 1,
                                       .run_count = 1,
                                       .seed = stored(r)->seed,
                                       .part = PART_TRAIN,
                                       .done = done,
                                       .total = total,
                                       .loss = record->loss,
                                       .tokens_per_second = 1000 * (double)record->tokens / record->milliseconds,
                                       .run_seconds_left = left,
                                       .suite_seconds_left = left};
    snprintf(progress.variant, sizeof progress.variant, "%s", r->run->variants[stored(r)->variant].name);
    if (c && c->progress) c->progress(c->context, &progress);
    return c && c->stop && c->stop(c->context);
}

static status compare_steps(struct reproducing *r, struct trainer *trainer) {
    const struct result_run *run = stored(r);
    struct step_record record;
    while (!trainer_finished(trainer)) {
        TRY(trainer_step(trainer, &record));
        size_t i = (size_t)record.step;
        r->result->steps = record.step + 1;
        r->result->loss = record.loss;
        r->result->stored_loss = i < run->step_count ? run->trace[i].loss : (double)NAN;
        if (r->result->stored_loss != record.loss) {
            r->result->first_different = record.step;
            return status_new(STATUS_DIFFERS, "run %lld: step %lld gives the loss %.17g, stored is %.17g",
                              (long long)run->id, (long long)record.step, record.loss, r->result->stored_loss);
        }
        if (report(r, &record))
            return status_new(STATUS_INTERRUPTED, "stopped after step %lld, equal so far", (long long)record.step);
    }
    return NULL;
}

static status hash_weights(const struct trainer *trainer, char sha256[65]) {
    const struct parameters *parameters = &trainer_network(trainer)->parameters;
    real *weights = weights_allocate(parameters);
    if (!weights) return status_new(STATUS_SYSTEM, "no memory for %zu parameters", parameters->elements);
    trainer_copy_out(trainer, trainer_weights(trainer), weights);
    parameters_sha256(parameters, weights, sha256);
    free(weights);
    return NULL;
}

static status compare_hashes(struct reproducing *r, struct trainer *trainer) {
    const struct result_run *run = stored(r);
    struct reproduction *result = r->result;
    trainer_trace_sha256(trainer, result->trace_sha256);
    TRY(hash_weights(trainer, result->weights_sha256));
    result->trace_equal = strcmp(result->trace_sha256, run->trace_sha256) == 0;
    result->weights_equal = strcmp(result->weights_sha256, run->weights_sha256) == 0;
    if (result->steps != run->steps)
        return status_new(STATUS_DIFFERS, "run %lld: %lld steps, stored are %lld", (long long)run->id,
                          (long long)result->steps, (long long)run->steps);
    if (result->trace_equal && result->weights_equal) return NULL;
    return status_new(STATUS_DIFFERS, "run %lld: every loss is equal, but the %s have the hash %.12s, stored is %.12s",
                      (long long)run->id, result->weights_equal ? "losses" : "weights",
                      result->weights_equal ? result->trace_sha256 : result->weights_sha256,
                      result->weights_equal ? run->trace_sha256 : run->weights_sha256);
}

static status train_again(struct reproducing *r, const struct dataset *dataset) {
    struct trainer *trainer = NULL;
    r->started = clock_seconds();
    status s = trainer_create(&trainer, &r->config, r->ops, dataset, (uint64_t)stored(r)->seed);
    if (!s) s = compare_steps(r, trainer);
    if (!s) s = compare_hashes(r, trainer);
    trainer_destroy(trainer);
    return s;
}

/* --- entry -------------------------------------------------------------------------------------------------------- */

static status reproduce(struct reproducing *r, const struct run_details *details, const char *data_root) {
    struct dataset dataset;
    if (r->config.run_backend == BACKEND_SIMULATED)
        return status_new(STATUS_USAGE, "run %lld is simulated: there is no training to make again",
                          (long long)stored(r)->id);
    TRY(dataset_open(&dataset, data_root, r->config.data_name));
    status s = check_comparable(r, &dataset, details);
    if (!s) s = r->ops->open();
    if (!s) s = train_again(r, &dataset);
    dataset_close(&dataset);
    return s;
}

status runner_reproduce(struct store *store, int64_t run, const char *data_root, const struct backend *ops,
                        const struct runner_callbacks *callbacks, struct reproduction *result) {
    struct results results;
    struct run_details details;
    struct reproducing r = {.run = &results, .ops = ops, .callbacks = callbacks, .result = result};
    *result = (struct reproduction){.first_different = -1, .loss = NAN, .stored_loss = NAN};
    TRY(store_run_config(store, run, &r.config));
    TRY(store_load_run(store, run, &results));
    memcpy(result->stored_weights_sha256, results.runs[0].weights_sha256, sizeof result->stored_weights_sha256);
    memcpy(result->stored_trace_sha256, results.runs[0].trace_sha256, sizeof result->stored_trace_sha256);
    status s = store_run_details(store, run, &details);
    if (!s) s = reproduce(&r, &details, data_root);
    run_details_free(&details);
    results_free(&results);
    return s;
}
