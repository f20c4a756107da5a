/* golden: runs a file's tokens with its parameters and holds logits, loss and gradients against it; see golden.h. */
#include "model/golden.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/bfloat16.h"
#include "model/safetensors.h"

enum { SMALL_TENSOR = 1000 }; /* elements */

/* What the model calculates with and gives. */
struct values {
    int32_t *ids, *targets;
    double *nll;
    real *master, *effective, *gradients, *logits;
};

/* Everything one verification holds; golden_end frees it. */
struct golden {
    struct safetensors file;
    struct network net;
    struct workspace *ws;
    size_t sequences, time, rows, vocab;
    int32_t *ids, *targets; /* on the host, like the rest of these */
    double *nll;
    real *master, *gradients, *logits;
    double *parts;      /* of each tensor that is held by them: the sum of their squares; else 0 */
    status failed;      /* while they were fetched */
    struct arena arena; /* of the backend's memory */
    struct values at;   /* in it */
};

static void golden_end(struct golden *g) {
    void *owned[] = {g->ids, g->targets, g->nll, g->master, g->gradients, g->logits, g->parts};
    arena_destroy(&g->arena);
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    workspace_destroy(g->ws);
    network_destroy(&g->net);
    safetensors_free(&g->file);
    status_free(g->failed);
}

/* Some element of a stored tensor; the data need not be aligned. */
static double stored_value(const struct stored_tensor *tensor, size_t i) {
    const unsigned char *at = (const unsigned char *)tensor->data + i * tensor_type_size(tensor->type);
    if (tensor->type == TYPE_F64) {
        double value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    if (tensor->type == TYPE_F32) {
        float value;
        memcpy(&value, at, sizeof value);
        return (double)value;
    }
    int32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* A tensor that must be there, with that many elements and a type of the given kind. */
static status fetch(const struct golden *g, const char *name, size_t count, bool integers,
                    const struct stored_tensor **out) {
    const struct stored_tensor *tensor = safetensors_find(&g->file, name);
    if (!tensor) return status_new(STATUS_DATA, "tensor \"%s\" is missing", name);
    bool right = integers ? tensor->type == TYPE_I32 : tensor->type == TYPE_F32 || tensor->type == TYPE_F64;
    if (!right)
        return status_new(STATUS_DATA, "tensor \"%s\" must be of type %s", name, integers ? "I32" : "F32 or F64");
    if (count && tensor->count != count)
        return status_new(STATUS_DATA, "tensor \"%s\" has %zu elements, but the model has %zu", name, tensor->count,
                          count);
    *out = tensor;
    return NULL;
}

/* The metadata's options. A file without recurrence may say so by 0 repeats, which is no value of the option. */
static status read_config(const struct safetensors *file, struct config *config) {
    config_defaults(config);
    for (int i = 0; i < file->metadata_count; i++) {
        const char *key = file->metadata[i].key, *value = file->metadata[i].value;
        bool described = strcmp(key, "case") == 0 || strcmp(key, "schedule") == 0;
        bool no_repeats = strcmp(key, "recurrence.repeats") == 0 && strcmp(value, "0") == 0;
        if (!described && !no_repeats) TRY(config_set(config, key, value));
    }
    return NULL;
}

static status check_schedule(const struct golden *g) {
    const char *expected = safetensors_metadata(&g->file, "schedule");
    if (!expected) return NULL;
    char ours[SCHEDULE_CAPACITY * 4] = "";
    size_t used = 0;
    for (int i = 0; i < g->net.repeated.count; i++)
        used +=
            (size_t)snprintf(ours + used, sizeof ours - used, "%s%d", i ? "," : "", g->net.repeated.layers[i].physical);
    if (strcmp(ours, expected) == 0) return NULL;
    return status_new(STATUS_DIFFERS, "the schedule is %s, but the file says %s", ours, expected);
}

static status read_tokens(struct golden *g, const char *name, int32_t **out) {
    const struct stored_tensor *tensor = NULL;
    TRY(fetch(g, name, g->rows, true, &tensor));
    *out = malloc(g->rows * sizeof **out);
    if (!*out) return status_new(STATUS_SYSTEM, "no memory for %zu tokens", g->rows);
    memcpy(*out, tensor->data, g->rows * sizeof **out);
    for (size_t i = 0; i < g->rows; i++)
        if ((*out)[i] < 0 || (size_t)(*out)[i] >= g->vocab)
            return status_new(STATUS_DATA, "%s[%zu] is %d, but model.vocab_size is %zu", name, i, (*out)[i], g->vocab);
    return NULL;
}

static status read_shape(struct golden *g) {
    const struct stored_tensor *ids = NULL;
    TRY(fetch(g, "input_ids", 0, true, &ids));
    if (ids->dims != 2 || ids->count == 0)
        return status_new(STATUS_DATA, "tensor \"input_ids\" must be (sequences, time) and not empty");
    g->sequences = ids->shape[0], g->time = ids->shape[1], g->rows = ids->count;
    return NULL;
}

static status read_parameters(struct golden *g) {
    const struct parameters *p = &g->net.parameters;
    for (int i = 0; i < p->count; i++) {
        char name[96];
        const struct stored_tensor *tensor = NULL;
        snprintf(name, sizeof name, "param.%s", p->tensors[i].name);
        TRY(fetch(g, name, p->tensors[i].count, false, &tensor));
        for (size_t j = 0; j < tensor->count; j++) g->master[p->tensors[i].offset + j] = (real)stored_value(tensor, j);
    }
    for (int i = 0; i < g->file.count; i++) {
        const char *name = g->file.tensors[i].name;
        if (strncmp(name, "param.", 6) == 0 && parameters_find(p, name + 6) < 0)
            return status_new(STATUS_DATA, "tensor \"%s\" is not one of this model's", name);
    }
    return NULL;
}

static void lay_out(struct golden *g, struct arena *arena) {
    size_t total = g->net.parameters.total;
    g->at = (struct values){.ids = arena_take(arena, g->rows * sizeof *g->ids),
                            .targets = arena_take(arena, g->rows * sizeof *g->targets),
                            .nll = arena_take(arena, g->rows * sizeof *g->nll),
                            .master = arena_reals(arena, total),
                            .effective = arena_reals(arena, network_weight_reals(&g->net)),
                            .gradients = arena_reals(arena, total),
                            .logits = arena_reals(arena, g->rows * g->vocab)};
}

static status allocate(struct golden *g) {
    size_t total = g->net.parameters.total;
    struct arena counting = {.ops = g->net.ops};
    g->master = calloc(total, sizeof *g->master);
    g->gradients = calloc(total, sizeof *g->gradients);
    g->logits = malloc(g->rows * g->vocab * sizeof *g->logits);
    g->nll = malloc(g->rows * sizeof *g->nll);
    g->parts = calloc((size_t)g->net.parameters.count, sizeof *g->parts);
    if (!g->master || !g->gradients || !g->logits || !g->nll || !g->parts)
        return status_new(STATUS_SYSTEM, "no memory for a model of %zu parameters", g->net.parameters.elements);
    lay_out(g, &counting);
    TRY(arena_create_for(&g->arena, g->net.ops, counting.used, "the golden model"));
    lay_out(g, &g->arena);
    return workspace_create(&g->ws, &g->net, true, 0);
}

static status load(struct golden *g, const struct backend *ops) {
    struct config config;
    TRY(read_config(&g->file, &config));
    TRY(read_shape(g));
    config.train_sequence = g->time < 2 ? 2 : (int64_t)g->time;
    config.train_batch_tokens = 8 * config.train_sequence;
    TRY(config_check(&config));
    TRY(network_create(&g->net, &config, ops, g->sequences, g->time));
    g->vocab = (size_t)config.model_vocab_size;
    TRY(check_schedule(g));
    TRY(read_tokens(g, "input_ids", &g->ids));
    TRY(read_tokens(g, "target_ids", &g->targets));
    TRY(allocate(g));
    return read_parameters(g);
}

static void upload_inputs(const struct golden *g, struct lane *lane) {
    const struct backend *ops = g->net.ops;
    ops->upload(lane, g->at.ids, g->ids, g->rows * sizeof *g->ids);
    ops->upload(lane, g->at.targets, g->targets, g->rows * sizeof *g->targets);
    ops->upload(lane, g->at.master, g->master, g->net.parameters.total * sizeof *g->master);
}

static void download_outputs(const struct golden *g, struct lane *lane) {
    const struct backend *ops = g->net.ops;
    ops->download(lane, g->nll, g->at.nll, g->rows * sizeof *g->nll);
    ops->download(lane, g->logits, g->at.logits, g->rows * g->vocab * sizeof *g->logits);
    ops->download(lane, g->gradients, g->at.gradients, g->net.parameters.total * sizeof *g->gradients);
}

static bool is_narrow(const struct backend *ops) { return ops->act_bytes < sizeof(float); }

static status download_acts(struct golden *g, uint16_t *to, const act *from, size_t count) {
    if (!to) return status_new(STATUS_SYSTEM, "no memory for %zu activations", count);
    g->net.ops->download(workspace_lane(g->ws), to, from, count * sizeof *to);
    return g->net.ops->finish(workspace_lane(g->ws));
}

/* A copy on the host of bf16 that are on the device; NULL, with the reason in g->failed, where there is none. */
static uint16_t *copy_acts(struct golden *g, const act *from, size_t count) {
    if (g->failed) return NULL;
    uint16_t *to = malloc(count * sizeof *to);
    g->failed = download_acts(g, to, from, count);
    if (!g->failed) return to;
    free(to);
    return NULL;
}

static double dot(const uint16_t *x, const uint16_t *y, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)float_of_bfloat16(x[i]) * (double)float_of_bfloat16(y[i]);
    return sum;
}

/* The gradient of a head's gain is the sum over its rows of dq q / gain. */
static void take_gain_parts(void *context, int tensor_index, const act *q, const act *dq,
                            const struct attention_shape *shape) {
    struct golden *g = context;
    const real *gain = g->master + g->net.parameters.tensors[tensor_index].offset;
    size_t heads = shape->batch * shape->time * shape->heads, dim = shape->head_dim;
    uint16_t *host_q = copy_acts(g, q, heads * dim), *host_dq = copy_acts(g, dq, heads * dim);
    for (size_t i = 0; !g->failed && i < heads; i++) {
        double part = dot(host_q + i * dim, host_dq + i * dim, dim) / (double)gain[i % shape->heads];
        g->parts[tensor_index] += part * part;
    }
    free(host_q);
    free(host_dq);
}

static status run_model(struct golden *g) {
    struct lane *lane = workspace_lane(g->ws);
    struct forward_request request = {.weights = g->at.effective,
                                      .ids = g->at.ids,
                                      .targets = g->at.targets,
                                      .sequences = g->sequences,
                                      .time = g->time,
                                      .repeats_on = true,
                                      .temperature = 1.0,
                                      .nll = g->at.nll,
                                      .logits = g->at.logits,
                                      .gain_tap = is_narrow(g->net.ops) ? take_gain_parts : NULL,
                                      .tap_context = g};
    upload_inputs(g, lane);
    network_effective(&g->net, lane, 1, g->at.effective, g->at.master, VIEW_MASTER);
    network_forward(&g->net, g->ws, &request);
    request.logits = NULL;
    network_train(&g->net, g->ws, &request, g->at.gradients, 1.0 / (double)g->rows);
    network_master_gradients(&g->net, lane, 1, g->at.gradients, g->at.master, g->at.effective);
    download_outputs(g, lane);
    status s = g->net.ops->finish(lane);
    if (!s) s = g->failed, g->failed = NULL;
    return s;
}

static double norm_of(const struct stored_tensor *tensor) {
    double sum = 0;
    for (size_t i = 0; i < tensor->count; i++) sum += stored_value(tensor, i) * stored_value(tensor, i);
    return sqrt(sum);
}

/* |ours - expected| / |expected|; against zeros the norm of ours. */
static double relative_error(const real *ours, const struct stored_tensor *expected) {
    double sum = 0, norm = norm_of(expected);
    for (size_t i = 0; i < expected->count; i++) {
        double d = (double)ours[i] - stored_value(expected, i);
        sum += d * d;
    }
    return norm > 0 ? sqrt(sum) / norm : sqrt(sum);
}

/* parts: the sum of the squares of what the gradient is a sum of, where it is held by them; else 0. */
static double tolerance_of(const struct golden_result *result, const struct stored_tensor *expected, double parts) {
    double norm = norm_of(expected);
    if (parts > 0 && norm > 0) return result->tensor_tolerance * fmax(1, sqrt(parts) / norm);
    return expected->count < SMALL_TENSOR ? result->small_tensor_tolerance : result->tensor_tolerance;
}

static status compare_tensor(const struct golden *g, struct golden_result *result, const char *label, const char *name,
                             const real *ours, size_t count, double parts) {
    const struct stored_tensor *expected = NULL;
    TRY(fetch(g, name, count, false, &expected));
    struct golden_row *row = &result->rows[result->count++];
    snprintf(row->name, sizeof row->name, "%s", label);
    row->error = relative_error(ours, expected);
    row->tolerance = tolerance_of(result, expected, parts);
    if (!(row->error <= row->tolerance)) result->passed = false;
    return NULL;
}

static status compare_loss(const struct golden *g, struct golden_result *result) {
    const struct stored_tensor *expected = NULL;
    TRY(fetch(g, "loss", 1, false, &expected));
    result->expected_loss = stored_value(expected, 0);
    double sum = 0;
    for (size_t i = 0; i < g->rows; i++) sum += g->nll[i];
    result->loss = sum / (double)g->rows;
    double error = fabs(result->loss - result->expected_loss);
    result->passed = error <= result->loss_tolerance * fabs(result->expected_loss);
    return NULL;
}

static status compare(const struct golden *g, struct golden_result *result) {
    const struct parameters *p = &g->net.parameters;
    result->rows = calloc((size_t)p->count + 1, sizeof *result->rows);
    if (!result->rows) return status_new(STATUS_SYSTEM, "no memory for %d comparisons", p->count + 1);
    TRY(compare_loss(g, result));
    TRY(compare_tensor(g, result, "logits", "logits", g->logits, g->rows * g->vocab, 0));
    for (int i = 0; i < p->count; i++) {
        const struct tensor *tensor = &p->tensors[i];
        char name[96];
        snprintf(name, sizeof name, "grad.%s", tensor->name);
        TRY(compare_tensor(g, result, tensor->name, name, g->gradients + tensor->offset, tensor->count, g->parts[i]));
    }
    return NULL;
}

status golden_verify(const char *path, const struct backend *ops, struct golden_result *result) {
    bool wide = sizeof(real) == sizeof(double), narrow = is_narrow(ops);
    *result = (struct golden_result){.loss_tolerance = narrow ? 5e-3
                                                       : wide ? 1e-6
                                                              : 1e-5,
                                     .tensor_tolerance = narrow ? 8e-2
                                                         : wide ? 1e-6
                                                                : 1e-3};
    result->small_tensor_tolerance = narrow ? 0.25 : result->tensor_tolerance;
    struct golden g = {0};
    TRY(safetensors_read(&g.file, path)); /* its messages name the file */
    status s = load(&g, ops);
    if (!s) {
        s = run_model(&g);
        if (!s) s = compare(&g, result);
    }
    golden_end(&g);
    if (!s) return NULL;
    golden_result_free(result);
    return status_context(s, "%s", path);
}

void golden_result_free(struct golden_result *result) {
    free(result->rows);
    *result = (struct golden_result){0};
}
