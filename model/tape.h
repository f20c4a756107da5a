/* tape: the memory of one lane: what forward keeps for backward, layer by layer. Private to the network.
 *
 * R = max_sequences*time rows, D the width. A smaller slice uses the front of each buffer.
 *
 *   training     | whole model | layer 0 | layer 1 | ... | gradients, shared by the layers |
 *   evaluation   | whole model | one layer, used by all | the outputs that skips still need |
 *
 * The layers are laid out once for each schedule, over the same memory, as only one of them runs at a time. */
#pragma once
#include "model/network.h"

/* The sizes that a slice has, or the largest slice. */
struct extent {
    size_t rows, dim, hidden, inner; /* R, D, the MLP's width, D_in */
    struct mamba_shape mamba;
    struct attention_shape attention;
    size_t mixed, projected; /* widest rows of the mixers in use: before the last projection, after the first */
};
struct extent extent_of(const struct network *net, size_t sequences, size_t time);

/* Bytes that the ops of forward, backward, decoding and the weights' views need in their lane. */
size_t network_scratch(const struct network *net, const struct extent *extent);

static inline size_t larger(size_t a, size_t b) { return a > b ? a : b; }

struct mamba_buffers {
    act *proj; /* (R, width) in_proj's rows */
    struct mamba_tape tape;
    act *y, *gated; /* (R, D_in) before and after the gate */
};

struct attention_buffers {
    act *q, *k, *v; /* raw: (R, heads*hd), (R, kv_heads*hd) twice */
    struct attention_tape tape;
    act *out; /* (R, heads*hd) */
};

struct layer_tape {
    const act *x, *skip; /* (R,D) what enters the layer; skip is NULL without one */
    act *u, *v;          /* (R,D) what the mixer and the MLP read */
    real *inv_u, *inv_v; /* (R) */
    act *fc, *activated; /* (R,hidden) before and after the activation */
    act *out;            /* (R,D) */
    act *skip_gradient;  /* (R,D) of out, from the layer that pops it; NULL when none does */
    union {
        struct mamba_buffers mamba;
        struct attention_buffers attention;
    };
};

/* Gradients that live only while one layer is walked back. */
struct layer_gradients {
    act *hidden;    /* (R,hidden) */
    act *mixed;     /* (R, D_in or heads*hd) of what the mixer's last projection reads */
    act *projected; /* (R,width) of in_proj's rows; q, k and v for attention */
    struct mamba_tape_gradients mamba;
};

/* Rows of logits in one product, on a device as many as its cache takes. */
enum { HEAD_ROWS = 256, HEAD_ROWS_OF_DEVICE = 8192 };

struct workspace {
    struct arena arena;
    struct lane lane;
    bool training;
    real *rope_cosine, *rope_sine; /* (time, rope_dims/2); NULL without RoPE */
    int32_t *buckets;              /* (R) */
    act *bigram;                   /* (R, bigram_dim) rows of the table */
    act *embedded;                 /* (R,D) before the smear */
    act *x0, *stream, *last;       /* (R,D) the first residual, the stream that no layer keeps, what the head reads */
    real *inv_x0, *inv_last;       /* (R) */
    size_t head_block;             /* rows of logits in one product */
    real *logits;                  /* (head_block, V) before the cap */
    act *dlogits;                  /* (head_block, V); NULL where logits serve */
    real *log_sum;                 /* (head_block) */
    struct layer_tape *layers[2];  /* of net->plain and net->repeated */

    act *dx, *dx0, *dinput; /* (R,D) gradients of the stream, x0, and what a branch or the head reads */
    act *dbigram;           /* (R, bigram_dim) */
    struct layer_gradients gradients;
};

/* Lays the workspace out; only counts while the arena's base is NULL. training and layers[] must be set. */
void workspace_lay_out(struct workspace *ws, const struct network *net, struct arena *arena);

static inline const struct schedule *schedule_of(const struct network *net, bool repeats_on) {
    return repeats_on ? &net->repeated : &net->plain;
}

static inline bool is_attention(const struct network *net, int physical) {
    return parameters_get(&net->parameters, physical, ROLE_ATTN_Q) != NULL;
}

/* Where a tensor stands in a buffer of weights or gradients; the tensor must exist. */
static inline size_t offset_of(const struct network *net, int layer, enum tensor_role role) {
    return parameters_get(&net->parameters, layer, role)->offset;
}

static inline bool uses_attention(const struct network *net) { return net->config.attention_layers.count > 0; }
static inline bool uses_mamba(const struct network *net) {
    return net->config.attention_layers.count < net->config.model_layers;
}

/* The MLP that a virtual layer uses: repeats may have one of their own. */
static inline enum tensor_role fc_role(const struct network *net, const struct virtual_layer *at) {
    return at->pass > 0 && net->config.recurrence_mlp == REPEAT_UNTIED ? ROLE_MLP_REPEAT_FC : ROLE_MLP_FC;
}
static inline enum tensor_role proj_role(const struct network *net, const struct virtual_layer *at) {
    return fc_role(net, at) == ROLE_MLP_FC ? ROLE_MLP_PROJ : ROLE_MLP_REPEAT_PROJ;
}

static inline struct mamba_weights mamba_weights_at(const struct network *net, const real *w, int layer) {
    return (struct mamba_weights){.dt_bias = w + offset_of(net, layer, ROLE_MAMBA_DT_BIAS),
                                  .b_bias = w + offset_of(net, layer, ROLE_MAMBA_B_BIAS),
                                  .c_bias = w + offset_of(net, layer, ROLE_MAMBA_C_BIAS),
                                  .b_norm = w + offset_of(net, layer, ROLE_MAMBA_B_NORM),
                                  .c_norm = w + offset_of(net, layer, ROLE_MAMBA_C_NORM),
                                  .d = w + offset_of(net, layer, ROLE_MAMBA_D)};
}

/* One call of network_forward or network_train, as its parts see it. */
struct walk {
    const struct network *net;
    const struct backend *ops;
    struct workspace *ws;
    struct lane *lane;
    const struct forward_request *request;
    const struct schedule *schedule;
    struct layer_tape *layers;
    const real *weights;
    real *gradients; /* NULL in forward */
    struct extent extent;
};

static inline const real *weight_of(const struct walk *walk, int layer, enum tensor_role role) {
    return walk->weights + offset_of(walk->net, layer, role);
}

/* Of a linear layer, or of the table that the head reads. */
static inline const act *acts_of(const struct walk *walk, const struct tensor *w) {
    return network_weight_acts(walk->net, walk->weights, w);
}

struct walk walk_begin(const struct network *net, struct workspace *ws, const struct forward_request *request);

/* All of the forward pass but the head. */
void walk_forward(const struct walk *walk);

/* What enters a layer, for residual_mix_norm_*. */
struct residual_inputs block_inputs(const struct walk *walk, const struct layer_tape *layer,
                                    const struct virtual_layer *at);

/* Logits before the cap of `count` rows from `first`. */
void head_logits(const struct walk *walk, real *logits, size_t first, size_t count);
