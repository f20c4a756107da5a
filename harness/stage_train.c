/* stage_train: runs a trainer, stores its steps, keeps a checkpoint; see stage_train.h.
 *
 * Steps reach the database before the checkpoint that follows them, so that a resumed training finds the rows of all
 * steps before it, and replaces those after it. */
#include "harness/stage_train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/launch/ranks.h"
#include "harness/loss_rise.h"
#include "harness/weights.h"
#include "kernels/clock.h"
#include "model/trainer.h"

struct training {
    const struct stage_context *context;
    const struct plan_stage *stage;
    const struct config *config;
    struct trainer *trainer;
    char checkpoint[4096];
    struct step_record *pending; /* steps that the database does not have yet */
    size_t count, capacity;
    int64_t first;     /* step at which pending begins */
    double last_saved; /* monotonic seconds */
    bool told_rise;
};

/* --- starting and resuming ---------------------------------------------------------------------------------------- */

/* What all ranks are about to do. */
static status order(const struct training *t, enum order_kind kind) {
    return ranks_order(t->context->plan->comm, kind, (int)(t->stage - t->context->stages));
}

static status create(struct training *t) {
    const struct stage_context *c = t->context;
    trainer_destroy(t->trainer);
    t->trainer = NULL;
    TRY(order(t, ORDER_CREATE));
    return ranks_agree(c->plan->comm,
                       trainer_create_on(&t->trainer, c->plan->comm, t->config, c->plan->ops,
                                         datasets_find(c->datasets, t->config->data_name), (uint64_t)t->stage->seed));
}

static void tell(const struct training *t, const char *what, const char *so) {
    char line[1400];
    snprintf(line, sizeof line, "%s seed %lld: %s; %s", t->context->plan->suite->variants[t->stage->variant].name,
             (long long)t->stage->seed, what, so);
    if (t->context->watch.message) t->context->watch.message(t->context->watch.context, line);
}

static void tell_start(const struct training *t, const char *why) { tell(t, why, "the training starts again"); }

/* Steps of two builds, or of two kinds of processor, in one training would be a training of neither: the checkpoint
 * goes before the training is said to be this build's. */
static status hold_to_one_build(struct training *t) {
    const struct stage_context *c = t->context;
    struct provenance before;
    char what[600], line[700];
    TRY(store_stage_environment(c->store, t->stage->key, &before));
    bool other = provenance_differs(&before, c->provenance, true, what, sizeof what);
    if (other && access(t->checkpoint, F_OK) == 0) {
        snprintf(line, sizeof line, "its checkpoint comes from another build or machine: %s", what);
        tell_start(t, line);
    }
    if (other) unlink(t->checkpoint);
    return store_begin(c->store, t->stage->key, c->worker, c->provenance);
}

/* A checkpoint counts only when the database has every step before it. */
static status resume(struct training *t) {
    int64_t stored;
    if (access(t->checkpoint, F_OK) != 0) return NULL;
    TRY(order(t, ORDER_LOAD));
    status s = trainer_load(t->trainer, t->checkpoint, t->stage->key);
    if (s && status_kind(s) != STATUS_DATA) return s;
    if (s) {
        tell_start(t, status_text(s));
        status_free(s);
        return NULL;
    }
    TRY(store_count_steps(t->context->store, t->stage->key, trainer_steps_done(t->trainer), &stored));
    if (stored == trainer_steps_done(t->trainer)) return NULL;
    tell_start(t, "the database lacks steps that its checkpoint has");
    return create(t);
}

/* --- keeping what was done ---------------------------------------------------------------------------------------- */

static status append(struct training *t, const struct step_record *record) {
    if (t->count == t->capacity) {
        size_t capacity = t->capacity ? 2 * t->capacity : 256;
        struct step_record *grown = realloc(t->pending, capacity * sizeof *grown);
        if (!grown) return status_new(STATUS_SYSTEM, "no memory for the records of %zu steps", capacity);
        t->pending = grown;
        t->capacity = capacity;
    }
    t->pending[t->count++] = *record;
    return NULL;
}

static status save(struct training *t) {
    const struct stage_context *c = t->context;
    TRY(store_put_steps(c->store, t->stage->key, c->worker, t->first, t->pending, t->count));
    t->first += (int64_t)t->count;
    t->count = 0;
    TRY(order(t, ORDER_SAVE));
    TRY(trainer_save(t->trainer, t->checkpoint, t->stage->key));
    t->last_saved = clock_seconds();
    return NULL;
}

/* --- a loss that rises ------------------------------------------------------------------------------------------- */

/* What is to be said of a training that blew up, in text; NULL for others. */
static const char *rise_of(const struct training *t, char text[LOSS_RISE_TEXT]) {
    struct loss_rise rise;
    if (!losses_rose(trainer_losses(t->trainer), trainer_steps_done(t->trainer), &rise)) return NULL;
    loss_rise_text(&rise, text);
    return text;
}

/* With what can be done, the first time. */
static void tell_rise(struct training *t, const char *rise) {
    tell(t, rise,
         t->told_rise
             ? "every figure of it says so from now on"
             : "lower optim.muon_rate or optim.muon_momentum, or start below the full rates with a train.warmdown of "
               "more than train.steps");
    t->told_rise = true;
}

/* Once, so that nobody waits for hours for a model that is none. */
static void watch_rise(struct training *t) {
    char rise[LOSS_RISE_TEXT], line[LOSS_RISE_TEXT + 64];
    if (t->told_rise || !rise_of(t, rise)) return;
    snprintf(line, sizeof line, "after step %lld of %lld %s", (long long)trainer_steps_done(t->trainer),
             (long long)t->config->train_steps, rise);
    tell_rise(t, line);
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static double rate_of(const struct step_record *record) {
    return record->milliseconds > 0 ? 1000 * (double)record->tokens / record->milliseconds : (double)NAN;
}

static status stopped(struct training *t) {
    TRY(save(t));
    return status_new(STATUS_INTERRUPTED, "training stopped after step %lld of %lld",
                      (long long)trainer_steps_done(t->trainer), (long long)t->config->train_steps);
}

static status step(struct training *t, bool *stop) {
    const struct stage_watch *watch = &t->context->watch;
    struct step_record record;
    TRY(order(t, ORDER_STEP));
    status s = trainer_step(t->trainer, &record);
    if (s) {
        status_free(save(t)); /* the last good step; what stopped the training is the message that counts */
        return s;
    }
    TRY(append(t, &record));
    *stop = watch->report(watch->context, trainer_steps_done(t->trainer), t->config->train_steps, record.loss,
                          rate_of(&record));
    if (*stop || clock_seconds() - t->last_saved < t->context->checkpoint_seconds) return NULL;
    watch_rise(t);
    return save(t);
}

static status run_steps(struct training *t) {
    bool stop = false;
    while (!trainer_finished(t->trainer)) {
        TRY(step(t, &stop));
        if (stop) return stopped(t);
    }
    return save(t);
}

/* --- the end ------------------------------------------------------------------------------------------------------ */

static status save_copy(const struct training *t, const char *name, const real *weights, char sha256[65]) {
    char path[4096];
    const struct parameters *parameters = &trainer_network(t->trainer)->parameters;
    parameters_sha256(parameters, weights, sha256);
    TRY(store_file(t->context->store, t->stage->key, name, true, path));
    return weights_save(path, parameters, weights, t->stage->key);
}

/* Weights in the backend's memory. */
static status save_weights(const struct training *t, const char *name, const real *weights, char sha256[65]) {
    if (!t->context->plan->ops->device_memory) return save_copy(t, name, weights, sha256);
    const struct parameters *parameters = &trainer_network(t->trainer)->parameters;
    real *copy = weights_allocate(parameters);
    if (!copy) return status_new(STATUS_SYSTEM, "no memory for %zu parameters", parameters->elements);
    trainer_copy_out(t->trainer, weights, copy);
    status s = save_copy(t, name, copy, sha256);
    free(copy);
    return s;
}

static status finish(struct training *t) {
    const struct stage_context *c = t->context;
    char rise[LOSS_RISE_TEXT];
    int64_t steps = trainer_steps_done(t->trainer), tokens;
    struct stage_result result = {.work = t->stage->work,
                                  .parameter_count = (int64_t)trainer_network(t->trainer)->parameters.elements,
                                  .steps = steps,
                                  .final_loss = steps ? trainer_losses(t->trainer)[steps - 1] : (double)NAN,
                                  .quantise_seconds = NAN,
                                  .calibration_seconds = NAN,
                                  .provenance = c->provenance};
    TRY(save_weights(t, "weights.safetensors", trainer_weights(t->trainer), result.weights_sha256));
    TRY(save_weights(t, "averaged.safetensors", trainer_averaged(t->trainer), result.averaged_sha256));
    trainer_trace_sha256(t->trainer, result.trace_sha256);
    TRY(store_step_totals(c->store, t->stage->key, &result.seconds, &tokens));
    result.tokens_per_second = (double)tokens / result.seconds;
    result.notes = rise_of(t, rise);
    TRY(store_finish(c->store, t->stage->key, c->worker, &result));
    if (result.notes) tell_rise(t, rise);
    unlink(t->checkpoint);
    return NULL;
}

static status run(struct training *t) {
    TRY(store_file(t->context->store, t->stage->key, "checkpoint", true, t->checkpoint));
    TRY(create(t));
    TRY(resume(t));
    t->first = trainer_steps_done(t->trainer);
    t->last_saved = clock_seconds();
    TRY(run_steps(t));
    return finish(t);
}

static struct training training_of(const struct stage_context *context, int index) {
    const struct plan_stage *stage = &context->stages[index];
    return (struct training){
        .context = context, .stage = stage, .config = &context->plan->suite->variants[stage->variant].config};
}

status stage_train_begin(const struct stage_context *context, int index) {
    struct training t = training_of(context, index);
    TRY(store_file(context->store, t.stage->key, "checkpoint", false, t.checkpoint));
    return hold_to_one_build(&t);
}

status stage_train(const struct stage_context *context, int index) {
    struct training t = training_of(context, index);
    status s = run(&t);
    if (t.trainer) status_free(order(&t, ORDER_DESTROY));
    trainer_destroy(t.trainer);
    free(t.pending);
    return s;
}
