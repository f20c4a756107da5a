/* storage: how each tensor is stored under a config, room for it, and the way back to weights; see quantize.h. */
#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"
#include "model/network_shapes.h"
#include "model/quantize/quantize.h"

/* --- the choice -------------------------------------------------------------------------------------------------- */

static int bits_of_class(const struct config *config, enum tensor_class class) {
    int64_t bits = class == CLASS_MAMBA       ? config->quant_bits_mamba
                   : class == CLASS_ATTENTION ? config->quant_bits_attention
                   : class == CLASS_MLP       ? config->quant_bits_mlp
                                              : 0;
    return (int)(bits ? bits : config->quant_bits);
}

/* Every linear of a ternary model calculates with trits, however small it is. */
static bool is_trits(const struct config *config, const struct tensor *tensor) {
    return config->quant_method == METHOD_TERNARY && tensor->linear;
}

int quantize_bits(const struct config *config, const struct tensor *tensor) {
    if (tensor->role == ROLE_EMBEDDING) return config->quant_embedding == EMBEDDING_INT8 ? 8 : 0;
    if (config->quant_method == METHOD_NONE || tensor->count <= (size_t)config->train_quantise_above) return 0;
    if (is_trits(config, tensor)) return 0;
    return tensor->linear || tensor->role == ROLE_BIGRAM_TABLE ? bits_of_class(config, tensor->class) : 0;
}

static enum storage storage_of(const struct config *config, const struct tensor *tensor) {
    if (is_trits(config, tensor)) return STORED_TRITS;
    if (quantize_bits(config, tensor)) return STORED_INT;
    bool whole = tensor->class == CLASS_CONTROL && !(config->quant_protect & PROTECT_CONTROL);
    return whole ? STORED_F32 : STORED_F16;
}

struct config quantized_config(const struct config *config) {
    struct config decoded = *config;
    if (config->quant_method == METHOD_TERNARY) decoded.model_linear = LINEAR_FLOAT;
    return decoded;
}

/* --- parts ------------------------------------------------------------------------------------------------------- */

/* Adds rows up to `end`, to the part before them where they are stored alike. */
static void add_part(struct quantized_tensor *q, size_t end, enum storage storage, size_t group) {
    struct quantized_part *last = q->part_count ? &q->parts[q->part_count - 1] : NULL;
    size_t first = last ? last->first + last->rows : 0;
    if (end == first) return;
    if (last && last->storage == storage && last->group == group)
        last->rows = end - last->first;
    else
        q->parts[q->part_count++] =
            (struct quantized_part){.first = first, .rows = end - first, .storage = storage, .group = group};
}

/* in_proj's rows by what they make: z x | B | C | dt' a' lambda' | theta'. */
static void split_in_proj(struct quantized_tensor *q, const struct config *config, size_t group, size_t group_bc) {
    struct mamba_shape shape = mamba_shape_of(config, 1, 1);
    struct mamba_columns rows = mamba_columns(&shape);
    bool guarded = config->quant_protect & PROTECT_RECURRENCE_ROWS;
    enum storage storage = guarded ? STORED_F16 : STORED_INT;
    add_part(q, rows.b, STORED_INT, group);
    add_part(q, rows.c, storage, guarded ? 0 : group_bc);
    add_part(q, rows.dt, STORED_INT, group_bc);
    add_part(q, rows.theta, storage, guarded ? 0 : group);
    add_part(q, rows.width, STORED_INT, group);
}

static void split(struct quantized_tensor *q, const struct config *config) {
    const size_t group = (size_t)config->quant_group, elsewhere = config->quant_group_rows == GROUP_BC ? 0 : group;
    enum storage storage = storage_of(config, q->tensor);
    if (storage == STORED_INT && q->tensor->role == ROLE_MAMBA_IN_PROJ)
        split_in_proj(q, config, elsewhere, group);
    else
        add_part(q, q->tensor->shape[0], storage, storage == STORED_INT ? elsewhere : 0);
}

static bool allocate_part(struct quantized_part *part) {
    switch (part->storage) {
    case STORED_INT:
        part->integers = malloc(part->count);
        part->scales = calloc(part->scale_count, sizeof *part->scales);
        return part->integers && part->scales;
    case STORED_TRITS:
        return (part->trits = malloc((part->count + TRITS_PER_BYTE - 1) / TRITS_PER_BYTE));
    case STORED_F16:
        return (part->halves = calloc(part->count, sizeof *part->halves));
    case STORED_F32:
        return (part->floats = calloc(part->count, sizeof *part->floats));
    }
    return false;
}

static status make_parts(struct quantized_tensor *q, const struct config *config) {
    const size_t cols = q->tensor->shape[1];
    split(q, config);
    for (struct quantized_part *part = q->parts; part < q->parts + q->part_count; part++) {
        size_t width = part->group ? part->group : cols;
        part->count = part->rows * cols;
        if (part->storage == STORED_INT) {
            part->bits = quantize_bits(config, q->tensor);
            part->scale_count = part->rows * ((cols + width - 1) / width);
        }
        part->shape[0] = (int32_t)part->rows;
        part->shape[1] = (int32_t)cols;
        if (!allocate_part(part)) return status_new(STATUS_SYSTEM, "%s: out of memory", q->tensor->name);
    }
    return NULL;
}

status quantized_model_allocate(struct quantized_model *model, const struct network *net) {
    *model = (struct quantized_model){.network = net, .count = net->parameters.count};
    model->tensors = calloc((size_t)model->count, sizeof *model->tensors);
    if (!model->tensors) return status_new(STATUS_SYSTEM, "quantised model: out of memory");
    for (int i = 0; i < model->count; i++) {
        model->tensors[i].tensor = &net->parameters.tensors[i];
        status s = make_parts(&model->tensors[i], &net->config);
        if (s) {
            quantized_model_free(model);
            return s;
        }
    }
    return NULL;
}

static void free_part(struct quantized_part *part) {
    free(part->integers);
    free(part->scales);
    free(part->halves);
    free(part->floats);
    free(part->trits);
}

void quantized_model_free(struct quantized_model *model) {
    for (int i = 0; model->tensors && i < model->count; i++)
        for (int p = 0; p < model->tensors[i].part_count; p++) free_part(&model->tensors[i].parts[p]);
    free(model->tensors);
    *model = (struct quantized_model){0};
}

static size_t part_bytes(const struct quantized_part *part) {
    switch (part->storage) {
    case STORED_INT:
        return part->count + part->scale_count * sizeof *part->scales;
    case STORED_TRITS:
        return (part->count + TRITS_PER_BYTE - 1) / TRITS_PER_BYTE;
    case STORED_F16:
        return part->count * sizeof *part->halves;
    case STORED_F32:
        return part->count * sizeof *part->floats;
    }
    return 0;
}

size_t quantized_model_bytes(const struct quantized_model *model) {
    size_t bytes = 0;
    for (int i = 0; i < model->count; i++)
        for (int p = 0; p < model->tensors[i].part_count; p++) bytes += part_bytes(&model->tensors[i].parts[p]);
    return bytes;
}

/* --- reading back ------------------------------------------------------------------------------------------------ */

static void decode_integers(const struct quantized_part *part, size_t cols, real *weights) {
    size_t width = part->group ? part->group : cols, scale = 0;
    for (size_t r = 0; r < part->rows; r++)
        for (size_t start = 0; start < cols; start += width, scale++) {
            const real s = half_to_real(part->scales[scale]);
            for (size_t c = start; c < cols && c < start + width; c++)
                weights[r * cols + c] = (real)part->integers[r * cols + c] * s;
        }
}

static void decode_trits(const struct quantized_part *part, real *weights) {
    for (size_t start = 0; start < part->count; start += TRITS_PER_BYTE) {
        int digits = part->trits[start / TRITS_PER_BYTE];
        for (size_t i = start; i < start + TRITS_PER_BYTE && i < part->count; i++, digits /= 3)
            weights[i] = (real)(digits % 3 - 1) * (real)part->trit_scale;
    }
}

static void decode_part(const struct quantized_part *part, size_t cols, real *weights) {
    if (part->storage == STORED_INT) decode_integers(part, cols, weights);
    if (part->storage == STORED_TRITS) decode_trits(part, weights);
    for (size_t i = 0; part->storage == STORED_F16 && i < part->count; i++) weights[i] = half_to_real(part->halves[i]);
    for (size_t i = 0; part->storage == STORED_F32 && i < part->count; i++) weights[i] = (real)part->floats[i];
}

void quantized_model_decode(const struct quantized_model *model, real *weights) {
    memset(weights, 0, model->network->parameters.total * sizeof *weights);
    for (int i = 0; i < model->count; i++) {
        const struct quantized_tensor *q = &model->tensors[i];
        size_t cols = q->tensor->shape[1];
        for (int p = 0; p < q->part_count; p++)
            decode_part(&q->parts[p], cols, weights + q->tensor->offset + q->parts[p].first * cols);
    }
}
