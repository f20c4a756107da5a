/* backward: the model's forward and backward pass over one slice, the latter from the last op to the first.
 *
 * dx is the gradient of the residual stream. A branch reads the stream through a norm and adds to it, so dx is also
 * that of what the branch adds, and the branch's own gradient is added to it. The gradients of the weights that end a
 * branch are those of diag(scale) w, until network_master_gradients parts them. */
#include "model/tape.h"

static real *gradient(const struct walk *walk, int layer, enum tensor_role role) {
    return walk->gradients + offset_of(walk->net, layer, role);
}

/* dw += dy^T x. */
static const struct tensor *linear_weight(const struct walk *walk, const act *dy, const act *x, int layer,
                                          enum tensor_role role) {
    const struct tensor *w = parameters_get(&walk->net->parameters, layer, role);
    walk->ops->linear_backward_weight(walk->lane, walk->gradients + w->offset, dy, x, walk->extent.rows, w->shape[0],
                                      w->shape[1]);
    return w;
}

/* The same, and dx from dy: written, or added to it. */
static void linear(const struct walk *walk, act *dx, bool accumulate, const act *dy, const act *x, int layer,
                   enum tensor_role role) {
    const struct tensor *w = linear_weight(walk, dy, x, layer, role);
    walk->ops->linear_backward_input(walk->lane, dx, dy, acts_of(walk, w), walk->extent.rows, w->shape[0], w->shape[1],
                                     accumulate);
}

/* Loss and gradients of the logits, block by block; dinput becomes the gradient of what the head reads. */
static void head(const struct walk *walk, double scale) {
    const struct backend *ops = walk->ops;
    struct workspace *ws = walk->ws;
    const struct forward_request *request = walk->request;
    size_t rows = walk->extent.rows, dim = walk->extent.dim, vocab = (size_t)walk->net->config.model_vocab_size;
    const struct tensor *table = parameters_get(&walk->net->parameters, -1, ROLE_EMBEDDING);
    double cap = walk->net->config.model_softcap;
    for (size_t first = 0; first < rows; first += ws->head_block) {
        size_t count = rows - first < ws->head_block ? rows - first : ws->head_block;
        act *dlogits = ws->dlogits ? ws->dlogits : (act *)ws->logits;
        head_logits(walk, ws->logits, first, count);
        ops->cross_entropy_forward(walk->lane, request->nll + first, ws->log_sum, ws->logits, request->targets + first,
                                   count, vocab, cap, 1);
        ops->cross_entropy_backward(walk->lane, dlogits, ws->logits, ws->log_sum, request->targets + first, scale,
                                    count, vocab, cap);
        ops->linear_backward_weight(walk->lane, walk->gradients + table->offset, dlogits,
                                    act_at(ops, ws->last, first * dim), count, vocab, dim);
        ops->linear_backward_input(walk->lane, act_at(ops, ws->dinput, first * dim), dlogits, acts_of(walk, table),
                                   count, vocab, dim, false);
    }
    ops->rms_norm_backward(walk->lane, ws->dx, ws->dinput, ws->last, ws->inv_last, rows, dim, false);
}

static void mlp(const struct walk *walk, struct layer_tape *layer, const struct virtual_layer *at) {
    struct workspace *ws = walk->ws;
    act *dhidden = ws->gradients.hidden;
    const struct tensor *proj = linear_weight(walk, ws->dx, layer->activated, at->physical, proj_role(walk->net, at));
    walk->ops->linear_leaky_relu_squared_backward(walk->lane, dhidden, ws->dx, acts_of(walk, proj), layer->fc,
                                                  walk->extent.rows, proj->shape[0], proj->shape[1]);
    linear(walk, ws->dinput, false, dhidden, layer->v, at->physical, fc_role(walk->net, at));
}

static struct mamba_gradients mamba_gradients_at(const struct walk *walk, int layer) {
    return (struct mamba_gradients){.dt_bias = gradient(walk, layer, ROLE_MAMBA_DT_BIAS),
                                    .b_bias = gradient(walk, layer, ROLE_MAMBA_B_BIAS),
                                    .c_bias = gradient(walk, layer, ROLE_MAMBA_C_BIAS),
                                    .b_norm = gradient(walk, layer, ROLE_MAMBA_B_NORM),
                                    .c_norm = gradient(walk, layer, ROLE_MAMBA_C_NORM),
                                    .d = gradient(walk, layer, ROLE_MAMBA_D)};
}

static void mamba(const struct walk *walk, struct layer_tape *layer, int physical) {
    const struct backend *ops = walk->ops;
    struct workspace *ws = walk->ws;
    const struct mamba_shape *shape = &walk->extent.mamba;
    struct mamba_buffers *m = &layer->mamba;
    struct mamba_weights weights = mamba_weights_at(walk->net, walk->weights, physical);
    struct mamba_gradients gradients = mamba_gradients_at(walk, physical);
    struct mamba_columns columns = mamba_columns(shape);
    act *dy = ws->gradients.mixed, *dproj = ws->gradients.projected;
    const struct tensor *out = linear_weight(walk, ws->dx, m->gated, physical, ROLE_MAMBA_OUT_PROJ);
    ops->linear_silu_gate_backward(walk->lane, dy, act_at(ops, dproj, columns.z), ws->dx, acts_of(walk, out), m->y,
                                   act_at(ops, m->proj, columns.z), columns.width, walk->extent.rows, out->shape[0],
                                   out->shape[1]);
    ops->ssd_backward(walk->lane, dproj, &gradients, &ws->gradients.mamba, dy, &m->tape, m->proj, &weights, shape);
    ops->mamba_prepare_backward(walk->lane, dproj, &gradients, &ws->gradients.mamba, &m->tape, m->proj, &weights,
                                shape);
    linear(walk, ws->dinput, false, dproj, layer->u, physical, ROLE_MAMBA_IN_PROJ);
}

static void tap_gain(const struct walk *walk, const struct attention_buffers *a, const act *dq, int physical) {
    const struct forward_request *request = walk->request;
    const struct tensor *gain = parameters_get(&walk->net->parameters, physical, ROLE_ATTN_Q_GAIN);
    if (request->gain_tap)
        request->gain_tap(request->tap_context, (int)(gain - walk->net->parameters.tensors), a->tape.q, dq,
                          &walk->extent.attention);
}

static void attention(const struct walk *walk, struct layer_tape *layer, int physical) {
    const struct backend *ops = walk->ops;
    struct workspace *ws = walk->ws;
    const struct attention_shape *shape = &walk->extent.attention;
    struct attention_buffers *a = &layer->attention;
    size_t rows = walk->extent.rows;
    act *dout = ws->gradients.mixed, *dq = ws->gradients.projected;
    act *dk = act_at(ops, dq, rows * shape->heads * shape->head_dim);
    act *dv = act_at(ops, dk, rows * shape->kv_heads * shape->head_dim);
    linear(walk, dout, false, ws->dx, a->out, physical, ROLE_ATTN_PROJ);
    ops->attention_backward(walk->lane, dq, dk, dv, dout, a->out, &a->tape, shape);
    tap_gain(walk, a, dq, physical);
    ops->attention_prepare_backward(walk->lane, dq, dk, dv, gradient(walk, physical, ROLE_ATTN_Q_GAIN), &a->tape, a->v,
                                    weight_of(walk, physical, ROLE_ATTN_Q_GAIN), ws->rope_cosine, ws->rope_sine, shape);
    linear(walk, ws->dinput, false, dq, layer->u, physical, ROLE_ATTN_Q);
    linear(walk, ws->dinput, true, dk, layer->u, physical, ROLE_ATTN_K);
    linear(walk, ws->dinput, true, dv, layer->u, physical, ROLE_ATTN_V);
}

/* The gradient of what entered the block: a later block's skip may have found some of it. The last of all blocks begins
 * dx0, and the first, which the pass backwards comes to last, ends it. */
static struct residual_sums entry_sums(const struct walk *walk, int position, int skip_source) {
    struct residual_sums sums = {.begins = position == walk->schedule->count - 1, .ends = position == 0};
    if (position > 0 && skip_source != position - 1) sums.more = walk->layers[position - 1].skip_gradient;
    return sums;
}

static void block_entry(const struct walk *walk, int position) {
    struct workspace *ws = walk->ws;
    const struct virtual_layer *at = &walk->schedule->layers[position];
    struct layer_tape *layer = &walk->layers[position];
    struct residual_sums sums = entry_sums(walk, position, at->skip_source);
    struct residual_inputs in = block_inputs(walk, layer, at);
    act *dskip = NULL;
    real *dskip_scale = NULL;
    if (in.skip) {
        dskip = walk->layers[at->skip_source].skip_gradient;
        dskip_scale = gradient(walk, -1, ROLE_SKIP_WEIGHTS) + (size_t)at->skip_row * walk->extent.dim;
    }
    walk->ops->residual_mix_norm_backward(walk->lane, ws->dx, ws->dx0, dskip,
                                          gradient(walk, at->physical, ROLE_RESID_MIX), dskip_scale, ws->dinput,
                                          layer->u, layer->inv_u, &in, &sums, walk->extent.rows, walk->extent.dim);
}

static void block(const struct walk *walk, int position) {
    const struct backend *ops = walk->ops;
    struct workspace *ws = walk->ws;
    const struct virtual_layer *at = &walk->schedule->layers[position];
    struct layer_tape *layer = &walk->layers[position];
    size_t rows = walk->extent.rows, dim = walk->extent.dim;
    mlp(walk, layer, at);
    ops->rms_norm_backward(walk->lane, ws->dx, ws->dinput, layer->v, layer->inv_v, rows, dim, true);
    if (is_attention(walk->net, at->physical))
        attention(walk, layer, at->physical);
    else
        mamba(walk, layer, at->physical);
    block_entry(walk, position);
}

/* dx0 holds the whole gradient of x0. */
static void embed(const struct walk *walk) {
    const struct backend *ops = walk->ops;
    const struct forward_request *request = walk->request;
    const struct config *config = &walk->net->config;
    struct workspace *ws = walk->ws;
    size_t rows = walk->extent.rows, dim = walk->extent.dim;
    act *dembedded = ws->dx;
    ops->rms_norm_backward(walk->lane, ws->dx, ws->dx0, ws->x0, ws->inv_x0, rows, dim, false);
    if (config->model_smear) {
        dembedded = ws->dinput;
        ops->smear_backward(walk->lane, dembedded, gradient(walk, -1, ROLE_SMEAR_GATE), ws->dx, ws->embedded,
                            weight_of(walk, -1, ROLE_SMEAR_GATE), request->sequences, request->time, dim);
    }
    if (config->model_bigram_buckets) {
        act *dbigram = ws->dbigram;
        linear(walk, dbigram, false, dembedded, ws->bigram, -1, ROLE_BIGRAM_PROJ);
        ops->embedding_backward(walk->lane, gradient(walk, -1, ROLE_BIGRAM_TABLE), ws->buckets, dbigram, rows,
                                (size_t)config->model_bigram_dim, (size_t)config->model_bigram_buckets);
    }
    ops->embedding_backward(walk->lane, gradient(walk, -1, ROLE_EMBEDDING), request->ids, dembedded, rows, dim,
                            (size_t)config->model_vocab_size);
}

void network_train(const struct network *net, struct workspace *ws, const struct forward_request *request,
                   real *gradients, double scale) {
    struct walk walk = walk_begin(net, ws, request);
    walk.gradients = gradients;
    walk_forward(&walk);
    head(&walk, scale);
    for (int i = walk.schedule->count - 1; i >= 0; i--) block(&walk, i);
    embed(&walk);
}
