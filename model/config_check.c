/* config_check: the options of one config held against each other. */
#include <math.h>

#include "model/options.h"

/* Both figures of a division that leaves a rest. */
static status must_divide(const char *part, int64_t divisor, const char *whole, int64_t value) {
    if (value % divisor == 0) return NULL;
    return status_new(STATUS_USAGE, "%s = %lld does not divide %s = %lld", part, (long long)divisor, whole,
                      (long long)value);
}

static status check_layers(const char *key, const struct int_list *list, int64_t layers) {
    for (int i = 0; i < list->count; i++) {
        long long layer = list->values[i];
        if (layer >= layers)
            return status_new(STATUS_USAGE, "%s names layer %lld, but model.layers = %lld has layers 0 to %lld", key,
                              layer, (long long)layers, (long long)layers - 1);
        if (i && layer == list->values[i - 1]) return status_new(STATUS_USAGE, "%s names layer %lld twice", key, layer);
    }
    return NULL;
}

static status check_attention(const struct config *c) {
    TRY(must_divide("attention.heads", c->attention_heads, "model.dim", c->model_dim));
    TRY(must_divide("attention.kv_heads", c->attention_kv_heads, "attention.heads", c->attention_heads));
    long long rotated = c->attention_rope_dims, head_dim = c->model_dim / c->attention_heads;
    if (rotated % 2) return status_new(STATUS_USAGE, "attention.rope_dims = %lld is odd: RoPE rotates pairs", rotated);
    if (rotated > head_dim)
        return status_new(STATUS_USAGE,
                          "attention.rope_dims = %lld is above the head's %lld dimensions (model.dim = %lld over "
                          "attention.heads = %lld)",
                          rotated, head_dim, (long long)c->model_dim, (long long)c->attention_heads);
    return NULL;
}

static status check_mamba(const struct config *c) {
    int64_t inner = c->mamba_expand * c->model_dim;
    TRY(must_divide("mamba.head_dim", c->mamba_head_dim, "mamba.expand * model.dim", inner));
    TRY(must_divide("mamba.groups", c->mamba_groups, "Mamba's heads (mamba.expand * model.dim / mamba.head_dim)",
                    inner / c->mamba_head_dim));
    if (c->mamba_rotary_fraction > 0 && floor((double)c->mamba_state * c->mamba_rotary_fraction) < 2)
        return status_new(
            STATUS_USAGE,
            "mamba.rotary_fraction = %g of mamba.state = %lld leaves no pair to rotate; 0 turns the rotation off",
            c->mamba_rotary_fraction, (long long)c->mamba_state);
    return NULL;
}

static status check_schedule(const struct config *c) {
    TRY(check_layers("attention.layers", &c->attention_layers, c->model_layers));
    return check_layers("recurrence.layers", &c->recurrence_layers, c->model_layers);
}

static status check_training(const struct config *c) {
    int64_t unit = 8 * c->train_sequence;
    if (c->train_batch_tokens % unit == 0) return NULL;
    return status_new(
        STATUS_USAGE,
        "train.batch_tokens = %lld is not a multiple of %lld: 8 micro-shards of whole windows of train.sequence = %lld",
        (long long)c->train_batch_tokens, (long long)unit, (long long)c->train_sequence);
}

static status check_bits(const char *key, int64_t bits) {
    if (bits != 1) return NULL;
    return status_new(STATUS_USAGE, "%s = 1: expected 2 to 8, or 0 for quant.bits", key);
}

static status check_ternary(const struct config *c) {
    if (c->quant_method != METHOD_TERNARY) return NULL;
    if (c->model_linear != LINEAR_TERNARY)
        return status_new(STATUS_USAGE,
                          "quant.method = ternary stores what a ternary model calculates with; this one "
                          "has model.linear = float (set it to ternary, or choose another quant.strategy)");
    if (c->quant_protect & PROTECT_RECURRENCE_ROWS)
        return status_new(STATUS_USAGE, "quant.protect = recurrence-rows keeps rows from being rounded, but "
                                        "quant.method = ternary rounds none");
    return NULL;
}

static status check_quantisation(const struct config *c) {
    TRY(check_bits("quant.bits_mamba", c->quant_bits_mamba));
    TRY(check_bits("quant.bits_attention", c->quant_bits_attention));
    TRY(check_bits("quant.bits_mlp", c->quant_bits_mlp));
    long long group = c->quant_group;
    if (group != 0 && group != 32 && group != 64 && group != 128)
        return status_new(STATUS_USAGE, "quant.group = %lld: expected 0 (a whole row), 32, 64 or 128", group);
    if (group == 0 && c->quant_group_rows == GROUP_BC)
        return status_new(STATUS_USAGE, "quant.group_rows = bc says where groups are, but quant.group = 0 has none");
    return check_ternary(c);
}

static status check_evaluation(const struct config *c) {
    if (c->eval_mode == EVAL_TTT && c->eval_ttt_chunk % c->train_sequence != 0)
        return status_new(STATUS_USAGE,
                          "eval.ttt_chunk = %lld is not a multiple of train.sequence = %lld: a chunk is whole windows",
                          (long long)c->eval_ttt_chunk, (long long)c->train_sequence);
    if (c->eval_mode != EVAL_SLIDING || c->eval_stride <= c->train_sequence) return NULL;
    return status_new(STATUS_USAGE,
                      "eval.stride = %lld is above train.sequence = %lld: some tokens would never be scored",
                      (long long)c->eval_stride, (long long)c->train_sequence);
}

status config_check(const struct config *config) {
    TRY(check_schedule(config));
    if (config->attention_layers.count > 0) TRY(check_attention(config));
    if (config->attention_layers.count < config->model_layers) TRY(check_mamba(config));
    TRY(check_training(config));
    TRY(check_quantisation(config));
    return check_evaluation(config);
}
