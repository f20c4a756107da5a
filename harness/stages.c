/* stages: average, quantise and evaluate; see stages.h. Training is in stage_train.c. */
#include "harness/stages.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/stage_train.h"
#include "harness/weights.h"
#include "kernels/clock.h"
#include "model/files.h"
#include "model/quantize/quantize.h"

static const struct config *config_of(const struct stage_context *c, const struct plan_stage *stage) {
    return &c->plan->suite->variants[stage->variant].config;
}

static const struct dataset *dataset_of(const struct stage_context *c, const struct plan_stage *stage) {
    return datasets_find(c->datasets, config_of(c, stage)->data_name);
}

int stage_source(const struct plan_stage *stages, int stage) {
    int source = stages[stage].parent;
    while (source >= 0 && stages[source].kind == STAGE_AVERAGE) source = stages[source].parent;
    return source;
}

/* Notes that what an earlier stage left is not there or not as it was left. A machine that refuses memory or a file
 * handle says nothing about the file: the work behind it is not thrown away for that. */
static status damaged_input(const struct stage_context *c, const char *path, status s) {
    if (s) *c->input_damaged = status_kind(s) == STATUS_DATA || (access(path, F_OK) != 0 && errno == ENOENT);
    return s;
}

/* --- weights of earlier stages ------------------------------------------------------------------------------------ */

/* The weights that a stage left: raw ones of a training, averaged ones of an averaging, which the training wrote. */
struct weights_source {
    const char *key; /* of the training */
    char path[4096], sha256[65];
};

static status weights_source(const struct stage_context *c, int source, struct weights_source *out) {
    const struct plan_stage *stage = &c->stages[source];
    bool raw = stage->kind == STAGE_TRAIN;
    char averaged[65];
    TRY(store_weights_sha256(c->store, stage->key, out->sha256, averaged));
    out->key = raw ? stage->key : c->stages[stage->parent].key;
    return store_file(c->store, out->key, raw ? "weights.safetensors" : "averaged.safetensors", false, out->path);
}

static status load_into(const struct stage_context *c, int source, const struct parameters *parameters,
                        real **weights) {
    struct weights_source from;
    TRY(weights_source(c, source, &from));
    *weights = weights_allocate(parameters);
    if (!*weights)
        return status_new(STATUS_SYSTEM, "%s: no memory for %zu parameters", from.path, parameters->elements);
    status s = damaged_input(c, from.path, weights_load(from.path, parameters, from.key, from.sha256, *weights));
    if (!s) return NULL;
    free(*weights);
    *weights = NULL;
    return s;
}

/* --- average ------------------------------------------------------------------------------------------------------ */

/* The averaged weights were written by the training: this stage checks them and names them. */
static status check_averaged(const struct stage_context *c, const struct plan_stage *stage,
                             const struct parameters *parameters, struct stage_result *result) {
    char path[4096], raw[65];
    const char *parent = c->stages[stage->parent].key;
    TRY(store_weights_sha256(c->store, parent, raw, result->weights_sha256));
    TRY(store_file(c->store, parent, "averaged.safetensors", false, path));
    real *weights = weights_allocate(parameters);
    if (!weights) return status_new(STATUS_SYSTEM, "%s: no memory for %zu parameters", path, parameters->elements);
    status s = damaged_input(c, path, weights_load(path, parameters, parent, result->weights_sha256, weights));
    free(weights);
    result->parameter_count = (int64_t)parameters->elements;
    return s;
}

/* A training that was killed between its last commit and the removal of its checkpoint leaves it here. */
static status remove_checkpoint(const struct stage_context *c, const struct plan_stage *stage) {
    char path[4096];
    TRY(store_file(c->store, c->stages[stage->parent].key, "checkpoint", false, path));
    unlink(path);
    return NULL;
}

static status average(const struct stage_context *c, const struct plan_stage *stage, struct stage_result *result) {
    struct parameters parameters;
    TRY(remove_checkpoint(c, stage));
    TRY(parameters_create(&parameters, config_of(c, stage)));
    status s = check_averaged(c, stage, &parameters, result);
    parameters_destroy(&parameters);
    return s;
}

/* --- quantise ----------------------------------------------------------------------------------------------------- */

static bool quantise_report(void *context, const char *what, double fraction) {
    const struct stage_context *c = context;
    (void)what;
    return c->watch.report(c->watch.context, (int64_t)(1000 * fraction), 1000, NAN, NAN);
}

static status write_artifact(const struct stage_context *c, const struct plan_stage *stage,
                             const struct quantized_model *model, struct stage_result *result,
                             struct artifact_sizes *sizes) {
    char path[4096];
    TRY(store_file(c->store, stage->key, "artifact.xz", true, path));
    TRY(artifact_write(model, path, sizes));
    result->sizes = sizes;
    result->notes = model->notes;
    result->quantise_seconds = model->quantise_seconds;
    result->calibration_seconds = model->calibration_seconds;
    result->parameter_count = (int64_t)model->network->parameters.elements;
    return NULL;
}

/* The stage's own claim ends here, because the result points into the model. */
static status quantise_network(const struct stage_context *c, const struct plan_stage *stage, const struct network *net,
                               double start) {
    struct quantized_model model = {0};
    struct artifact_sizes sizes;
    struct stage_result result = {.provenance = c->provenance, .work = stage->work};
    real *weights;
    TRY(load_into(c, stage->parent, &net->parameters, &weights));
    status s =
        quantize_model(net, weights, dataset_of(c, stage), (uint64_t)stage->seed, quantise_report, (void *)c, &model);
    free(weights);
    TRY(s);
    s = write_artifact(c, stage, &model, &result, &sizes);
    result.seconds = clock_seconds() - start;
    if (!s) s = store_finish(c->store, stage->key, c->worker, &result);
    quantized_model_free(&model);
    return s;
}

static status quantise(const struct stage_context *c, const struct plan_stage *stage, double start) {
    struct network net;
    const struct config *config = config_of(c, stage);
    TRY(network_create(&net, config, c->plan->ops, 1, (size_t)config->train_sequence));
    status s = quantise_network(c, stage, &net, start);
    network_destroy(&net);
    return s;
}

/* --- evaluate ----------------------------------------------------------------------------------------------------- */

static bool evaluation_report(void *context, size_t done, size_t total) {
    const struct stage_context *c = context;
    return c->watch.report(c->watch.context, (int64_t)done, (int64_t)total, NAN, NAN);
}

static status load_artifact(const struct stage_context *c, int source, real **weights) {
    char path[4096];
    struct network net;
    TRY(store_file(c->store, c->stages[source].key, "artifact.xz", false, path));
    TRY(damaged_input(c, path, store_check_artifact(c->store, c->stages[source].key, path)));
    TRY(artifact_read(path, c->plan->ops, &net, weights));
    network_destroy(&net);
    return NULL;
}

static status load_trained(const struct stage_context *c, const struct plan_stage *stage, real **weights) {
    struct parameters parameters;
    TRY(parameters_create(&parameters, config_of(c, stage)));
    status s = load_into(c, stage->parent, &parameters, weights);
    parameters_destroy(&parameters);
    return s;
}

static status evaluate_stage(const struct stage_context *c, const struct plan_stage *stage,
                             struct evaluation *evaluation) {
    real *weights = NULL;
    if (c->stages[stage->parent].kind == STAGE_QUANTISE)
        TRY(load_artifact(c, stage->parent, &weights));
    else
        TRY(load_trained(c, stage, &weights));
    struct config config = *config_of(c, stage);
    if (c->stages[stage->parent].kind == STAGE_QUANTISE) config = quantized_config(&config);
    status s = evaluate(&config, c->plan->ops, weights, dataset_of(c, stage), evaluation_report, (void *)c, evaluation);
    free(weights);
    return s;
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

static status finish(const struct stage_context *c, const struct plan_stage *stage, struct stage_result *result,
                     double start) {
    result->seconds = clock_seconds() - start;
    result->work = stage->work;
    result->provenance = c->provenance;
    return store_finish(c->store, stage->key, c->worker, result);
}

status stage_begin(const struct stage_context *c, int index) {
    if (c->stages[index].kind == STAGE_TRAIN) return stage_train_begin(c, index);
    return store_begin(c->store, c->stages[index].key, c->worker, c->provenance);
}

status stage_execute(const struct stage_context *c, int index) {
    const struct plan_stage *stage = &c->stages[index];
    struct stage_result result = {
        .final_loss = NAN, .tokens_per_second = NAN, .quantise_seconds = NAN, .calibration_seconds = NAN};
    struct evaluation evaluation;
    double start = clock_seconds();
    switch (stage->kind) {
    case STAGE_TRAIN:
        return stage_train(c, index);
    case STAGE_QUANTISE:
        return quantise(c, stage, start);
    case STAGE_AVERAGE:
        TRY(average(c, stage, &result));
        break;
    default:
        TRY(evaluate_stage(c, stage, &evaluation));
        result.evaluation = &evaluation;
    }
    return finish(c, stage, &result, start);
}
