/* forward: the model's forward pass over one slice; the mathematics is in kernels/ops.def. */
#include "model/tape.h"

struct walk walk_begin(const struct network *net, struct workspace *ws, const struct forward_request *request) {
    return (struct walk){.net = net,
                         .ops = net->ops,
                         .ws = ws,
                         .lane = &ws->lane,
                         .request = request,
                         .schedule = schedule_of(net, request->repeats_on),
                         .layers = ws->layers[request->repeats_on],
                         .weights = request->weights,
                         .extent = extent_of(net, request->sequences, request->time)};
}

/* The linear layer that is about to read x. */
static const struct tensor *linear_at(const struct walk *walk, const act *x, int layer, enum tensor_role role) {
    const struct tensor *w = parameters_get(&walk->net->parameters, layer, role);
    const struct forward_request *request = walk->request;
    if (request->tap)
        request->tap(request->tap_context, (int)(w - walk->net->parameters.tensors), x, walk->extent.rows, w->shape[1]);
    return w;
}

static void linear(const struct walk *walk, act *y, const act *x, int layer, enum tensor_role role) {
    const struct tensor *w = linear_at(walk, x, layer, role);
    walk->ops->linear_forward(walk->lane, y, x, acts_of(walk, w), walk->extent.rows, w->shape[0], w->shape[1]);
}

/* y = before + x w^T; the weights that end a branch of a block have its scale. */
static void linear_add(const struct walk *walk, act *y, const act *before, const act *x, int layer,
                       enum tensor_role role) {
    const struct tensor *w = linear_at(walk, x, layer, role);
    walk->ops->linear_add_forward(walk->lane, y, before, x, acts_of(walk, w), walk->extent.rows, w->shape[0],
                                  w->shape[1]);
}

static void embed(const struct walk *walk) {
    const struct backend *ops = walk->ops;
    const struct forward_request *request = walk->request;
    const struct config *config = &walk->net->config;
    struct workspace *ws = walk->ws;
    size_t rows = walk->extent.rows, dim = walk->extent.dim;
    const act *embedded = ws->embedded;
    ops->embedding_forward(walk->lane, ws->embedded, request->ids, weight_of(walk, -1, ROLE_EMBEDDING), rows, dim);
    if (config->model_bigram_buckets) {
        ops->bigram_ids(walk->lane, ws->buckets, request->ids, request->sequences, request->time,
                        (size_t)config->model_bigram_buckets);
        ops->embedding_forward(walk->lane, ws->bigram, ws->buckets, weight_of(walk, -1, ROLE_BIGRAM_TABLE), rows,
                               (size_t)config->model_bigram_dim);
        linear_add(walk, ws->embedded, ws->embedded, ws->bigram, -1, ROLE_BIGRAM_PROJ);
    }
    if (config->model_smear) {
        ops->smear_forward(walk->lane, ws->stream, ws->embedded, weight_of(walk, -1, ROLE_SMEAR_GATE),
                           request->sequences, request->time, dim);
        embedded = ws->stream;
    }
    ops->rms_norm_forward(walk->lane, ws->x0, ws->inv_x0, embedded, rows, dim);
}

static void mamba(const struct walk *walk, struct layer_tape *layer, int physical) {
    const struct backend *ops = walk->ops;
    const struct mamba_shape *shape = &walk->extent.mamba;
    struct mamba_buffers *m = &layer->mamba;
    struct mamba_weights weights = mamba_weights_at(walk->net, walk->weights, physical);
    linear(walk, m->proj, layer->u, physical, ROLE_MAMBA_IN_PROJ);
    ops->mamba_prepare_forward(walk->lane, &m->tape, m->proj, &weights, shape);
    ops->ssd_silu_gate_forward(walk->lane, m->gated, m->y, &m->tape, m->proj, &weights, shape);
    linear_add(walk, layer->out, layer->out, m->gated, physical, ROLE_MAMBA_OUT_PROJ);
}

static void attention(const struct walk *walk, struct layer_tape *layer, int physical) {
    const struct backend *ops = walk->ops;
    const struct attention_shape *shape = &walk->extent.attention;
    struct attention_buffers *a = &layer->attention;
    linear(walk, a->q, layer->u, physical, ROLE_ATTN_Q);
    linear(walk, a->k, layer->u, physical, ROLE_ATTN_K);
    linear(walk, a->v, layer->u, physical, ROLE_ATTN_V);
    ops->attention_prepare_forward(walk->lane, &a->tape, a->q, a->k, a->v, weight_of(walk, physical, ROLE_ATTN_Q_GAIN),
                                   walk->ws->rope_cosine, walk->ws->rope_sine, shape);
    ops->attention_forward(walk->lane, a->out, &a->tape, shape);
    linear_add(walk, layer->out, layer->out, a->out, physical, ROLE_ATTN_PROJ);
}

static void mlp(const struct walk *walk, struct layer_tape *layer, const struct virtual_layer *at) {
    const struct tensor *fc = linear_at(walk, layer->v, at->physical, fc_role(walk->net, at));
    walk->ops->linear_leaky_relu_squared_forward(walk->lane, layer->fc, layer->activated, layer->v, acts_of(walk, fc),
                                                 walk->extent.rows, fc->shape[0], fc->shape[1]);
    linear_add(walk, layer->out, layer->out, layer->activated, at->physical, proj_role(walk->net, at));
}

struct residual_inputs block_inputs(const struct walk *walk, const struct layer_tape *layer,
                                    const struct virtual_layer *at) {
    struct residual_inputs in = {
        .x = layer->x, .skip = layer->skip, .x0 = walk->ws->x0, .mix = weight_of(walk, at->physical, ROLE_RESID_MIX)};
    if (in.skip) in.skip_scale = weight_of(walk, -1, ROLE_SKIP_WEIGHTS) + (size_t)at->skip_row * walk->extent.dim;
    return in;
}

/* Within a block the stream is where it leaves it, so that what is added to it is added in place. */
static void block(const struct walk *walk, struct layer_tape *layer, const struct virtual_layer *at) {
    const struct backend *ops = walk->ops;
    struct lane *lane = walk->lane;
    size_t rows = walk->extent.rows, dim = walk->extent.dim;
    struct residual_inputs in = block_inputs(walk, layer, at);
    ops->residual_mix_norm_forward(lane, layer->out, layer->u, layer->inv_u, &in, rows, dim);
    if (is_attention(walk->net, at->physical))
        attention(walk, layer, at->physical);
    else
        mamba(walk, layer, at->physical);
    ops->rms_norm_forward(lane, layer->v, layer->inv_v, layer->out, rows, dim);
    mlp(walk, layer, at);
}

void head_logits(const struct walk *walk, real *logits, size_t first, size_t count) {
    const struct extent *e = &walk->extent;
    walk->ops->head_forward(walk->lane, logits, act_at(walk->ops, walk->ws->last, first * e->dim),
                            acts_of(walk, parameters_get(&walk->net->parameters, -1, ROLE_EMBEDDING)), count,
                            (size_t)walk->net->config.model_vocab_size, e->dim);
}

static void head(const struct walk *walk) {
    const struct forward_request *request = walk->request;
    struct workspace *ws = walk->ws;
    size_t rows = walk->extent.rows, vocab = (size_t)walk->net->config.model_vocab_size;
    double cap = walk->net->config.model_softcap;
    for (size_t first = 0; first < rows; first += ws->head_block) {
        size_t count = rows - first < ws->head_block ? rows - first : ws->head_block;
        real *logits = request->logits ? request->logits + first * vocab : ws->logits;
        head_logits(walk, logits, first, count);
        if (request->targets)
            walk->ops->cross_entropy_forward(walk->lane, request->nll + first, ws->log_sum, logits,
                                             request->targets + first, count, vocab, cap, request->temperature);
        if (request->logits) walk->ops->softcap(walk->lane, logits, logits, count * vocab, cap);
    }
}

void walk_forward(const struct walk *walk) {
    struct workspace *ws = walk->ws;
    int count = walk->schedule->count;
    embed(walk);
    for (int i = 0; i < count; i++) block(walk, &walk->layers[i], &walk->schedule->layers[i]);
    walk->ops->rms_norm_forward(walk->lane, ws->last, ws->inv_last, walk->layers[count - 1].out, walk->extent.rows,
                                walk->extent.dim);
}

void network_forward(const struct network *net, struct workspace *ws, const struct forward_request *request) {
    struct walk walk = walk_begin(net, ws, request);
    walk_forward(&walk);
    if (request->targets || request->logits) head(&walk);
}
