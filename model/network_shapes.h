/* network_shapes: the shapes that follow from a config, in one place for parameters, network and decoder. */
#pragma once
#include <math.h>

#include "kernels/kernels.h"
#include "model/options.h"

static inline bool list_has(const struct int_list *list, int layer) {
    for (int i = 0; i < list->count; i++)
        if (list->values[i] == layer) return true;
    return false;
}

static inline struct attention_shape attention_shape_of(const struct config *config, size_t batch, size_t time) {
    return (struct attention_shape){.batch = batch,
                                    .time = time,
                                    .heads = (size_t)config->attention_heads,
                                    .kv_heads = (size_t)config->attention_kv_heads,
                                    .head_dim = (size_t)(config->model_dim / config->attention_heads),
                                    .rope_dims = (size_t)config->attention_rope_dims};
}

static inline struct mamba_shape mamba_shape_of(const struct config *config, size_t batch, size_t time) {
    return (struct mamba_shape){.batch = batch,
                                .time = time,
                                .heads = (size_t)(config->mamba_expand * config->model_dim / config->mamba_head_dim),
                                .head_dim = (size_t)config->mamba_head_dim,
                                .state = (size_t)config->mamba_state,
                                .groups = (size_t)config->mamba_groups,
                                .angles =
                                    (size_t)floor((double)config->mamba_state * config->mamba_rotary_fraction) / 2,
                                .chunk = (size_t)config->mamba_chunk};
}

/* Tokens of a slice where train.slice_tokens leaves it open (0): what suits a CPU's caches, or on a device, which wants
 * much at once, a whole micro-shard. It decides the order of sums, so it follows from the options alone. */
static inline int64_t slice_tokens_of(const struct config *config, bool on_device) {
    enum { CPU_TOKENS = 1024, SHARDS = 8 };
    if (config->train_slice_tokens) return config->train_slice_tokens;
    return on_device ? config->train_batch_tokens / SHARDS : CPU_TOKENS;
}
