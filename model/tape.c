/* tape: lays out a lane's workspace; see tape.h. */
#include "model/tape.h"

#include "model/network_shapes.h"

static size_t head_block_rows(const struct network *net, size_t rows) {
    size_t most = net->ops->device_memory ? HEAD_ROWS_OF_DEVICE : HEAD_ROWS;
    return rows < most ? rows : most;
}

/* A mixer that the model does not use needs no room, and its options may not fit together. */
static void measure_mixers(struct extent *e, const struct network *net) {
    const struct attention_shape *a = &e->attention;
    if (uses_attention(net)) {
        e->mixed = a->heads * a->head_dim;
        e->projected = e->mixed + 2 * a->kv_heads * a->head_dim;
    }
    if (uses_mamba(net)) {
        e->mixed = larger(e->mixed, e->inner);
        e->projected = larger(e->projected, mamba_columns(&e->mamba).width);
    }
}

struct extent extent_of(const struct network *net, size_t sequences, size_t time) {
    const struct config *config = &net->config;
    struct extent e = {.rows = sequences * time,
                       .dim = (size_t)config->model_dim,
                       .hidden = (size_t)(config->model_mlp_mult * config->model_dim),
                       .mamba = mamba_shape_of(config, sequences, time),
                       .attention = attention_shape_of(config, sequences, time)};
    e.inner = e.mamba.heads * e.mamba.head_dim;
    if (e.mamba.chunk > net->ops->chunk_most) e.mamba.chunk = net->ops->chunk_most;
    measure_mixers(&e, net);
    return e;
}

static size_t mixers_scratch(const struct network *net, const struct extent *e) {
    size_t bytes = uses_attention(net) ? net->ops->attention_scratch(&e->attention) : 0;
    if (!uses_mamba(net)) return bytes;
    bytes = larger(bytes, net->ops->ssd_scratch(&e->mamba));
    return larger(bytes, net->ops->mamba_prepare_scratch(&e->mamba));
}

static size_t embeddings_scratch(const struct network *net, const struct extent *e) {
    const struct config *c = &net->config;
    return larger(net->ops->embedding_scratch(e->rows, e->dim, (size_t)c->model_vocab_size),
                  net->ops->embedding_scratch(e->rows, (size_t)c->model_bigram_dim, (size_t)c->model_bigram_buckets));
}

size_t network_scratch(const struct network *net, const struct extent *e) {
    const struct backend *ops = net->ops;
    size_t vocab = (size_t)net->config.model_vocab_size, block = head_block_rows(net, e->rows);
    size_t widest = larger(larger(e->dim, e->hidden), e->inner);
    if (net->config.model_bigram_buckets) widest = larger(widest, (size_t)net->config.model_bigram_dim);
    size_t bytes = larger(mixers_scratch(net, e), embeddings_scratch(net, e));
    bytes = larger(bytes, ops->rows_scratch(e->rows, widest));
    bytes = larger(bytes, larger(ops->rows_scratch(block, vocab), ops->linear_scratch(block, vocab, e->dim)));
    for (int i = 0; i < net->parameters.count; i++) {
        const struct tensor *t = &net->parameters.tensors[i];
        if (t->linear) bytes = larger(bytes, ops->linear_scratch(e->rows, t->shape[0], t->shape[1]));
    }
    return larger(bytes, network_view_scratch(net));
}

/* The heads' B and C, or what the scan makes them from. */
static void lay_out_vectors(struct mamba_tape *tape, bool made_by_scan, const struct extent *e, struct arena *arena) {
    const struct mamba_shape *s = &e->mamba;
    size_t per_head = e->rows * s->heads;
    if (made_by_scan) {
        tape->rate = arena_reals(arena, e->rows * s->angles);
        tape->phase = arena_reals(arena, s->batch * s->heads * mamba_chunks(s) * s->angles);
        return;
    }
    tape->b = arena_acts(arena, per_head * s->state);
    tape->c = arena_acts(arena, per_head * s->state);
    tape->cosine = s->angles ? arena_acts(arena, per_head * s->angles) : NULL;
    tape->sine = s->angles ? arena_acts(arena, per_head * s->angles) : NULL;
}

static void lay_out_mamba(struct mamba_buffers *m, bool made_by_scan, const struct extent *e, struct arena *arena) {
    const struct mamba_shape *s = &e->mamba;
    size_t per_head = e->rows * s->heads;
    m->proj = arena_acts(arena, e->rows * mamba_columns(s).width);
    lay_out_vectors(&m->tape, made_by_scan, e, arena);
    m->tape.inv_b = arena_reals(arena, e->rows * s->groups);
    m->tape.inv_c = arena_reals(arena, e->rows * s->groups);
    m->tape.delta = arena_reals(arena, per_head);
    m->tape.log_decay = arena_reals(arena, per_head);
    m->tape.gamma = arena_reals(arena, per_head);
    m->tape.states = arena_acts(arena, s->batch * s->heads * mamba_chunks(s) * s->head_dim * s->state);
    m->y = arena_acts(arena, e->rows * e->inner);
    m->gated = arena_acts(arena, e->rows * e->inner);
}

static void lay_out_attention(struct attention_buffers *a, const struct extent *e, struct arena *arena) {
    const struct attention_shape *s = &e->attention;
    size_t q = e->rows * s->heads * s->head_dim, kv = e->rows * s->kv_heads * s->head_dim;
    a->q = arena_acts(arena, q);
    a->k = arena_acts(arena, kv);
    a->v = arena_acts(arena, kv);
    a->tape.q = arena_acts(arena, q);
    a->tape.k = arena_acts(arena, kv);
    a->tape.v = arena_acts(arena, kv);
    a->tape.inv_q = arena_reals(arena, e->rows * s->heads);
    a->tape.inv_k = arena_reals(arena, e->rows * s->kv_heads);
    a->tape.log_sum = arena_reals(arena, e->rows * s->heads);
    a->out = arena_acts(arena, q);
}

static void lay_out_layer(struct layer_tape *layer, const struct network *net, int physical, const struct extent *e,
                          struct arena *arena) {
    size_t wide = e->rows * e->dim;
    layer->u = arena_acts(arena, wide);
    layer->inv_u = arena_reals(arena, e->rows);
    if (is_attention(net, physical))
        lay_out_attention(&layer->attention, e, arena);
    else
        lay_out_mamba(&layer->mamba, net->ops->scan_makes_vectors, e, arena);
    layer->v = arena_acts(arena, wide);
    layer->inv_v = arena_reals(arena, e->rows);
    layer->fc = arena_acts(arena, e->rows * e->hidden);
    layer->activated = arena_acts(arena, e->rows * e->hidden);
}

/* The residual stream through the layers: training keeps every stage of it, evaluation only what a skip needs. */
static void lay_out_stream(struct workspace *ws, const struct schedule *schedule, struct layer_tape *layers,
                           const struct extent *e, struct arena *arena) {
    size_t wide = e->rows * e->dim;
    const act *before = ws->x0;
    for (int i = 0; i < schedule->count; i++) {
        int source = schedule->layers[i].skip_source;
        bool popped = schedule_is_popped(schedule, i);
        struct layer_tape *layer = &layers[i];
        layer->x = before;
        layer->skip = source < 0 ? NULL : layers[source].out;
        layer->out = ws->training || popped ? arena_acts(arena, wide) : ws->stream;
        layer->skip_gradient = ws->training && popped ? arena_acts(arena, wide) : NULL;
        before = layer->out;
    }
}

static void lay_out_layers(struct workspace *ws, const struct network *net, bool repeats_on, const struct extent *e,
                           struct arena *arena) {
    const struct schedule *schedule = schedule_of(net, repeats_on);
    struct layer_tape *layers = ws->layers[repeats_on];
    lay_out_stream(ws, schedule, layers, e, arena);
    size_t start = arena->used, end = start;
    for (int i = 0; i < schedule->count; i++) {
        if (!ws->training) arena->used = start;
        lay_out_layer(&layers[i], net, schedule->layers[i].physical, e, arena);
        if (arena->used > end) end = arena->used;
    }
    arena->used = end;
}

static void lay_out_whole(struct workspace *ws, const struct network *net, const struct extent *e,
                          struct arena *arena) {
    size_t wide = e->rows * e->dim, vocab = (size_t)net->config.model_vocab_size;
    size_t angles = net->time * (size_t)net->config.attention_rope_dims / 2;
    ws->rope_cosine = angles ? arena_reals(arena, angles) : NULL;
    ws->rope_sine = angles ? arena_reals(arena, angles) : NULL;
    if (net->config.model_bigram_buckets) {
        ws->buckets = arena_take(arena, e->rows * sizeof *ws->buckets);
        ws->bigram = arena_acts(arena, e->rows * (size_t)net->config.model_bigram_dim);
    }
    ws->embedded = arena_acts(arena, wide);
    ws->x0 = arena_acts(arena, wide);
    ws->inv_x0 = arena_reals(arena, e->rows);
    ws->stream = arena_acts(arena, wide);
    ws->last = arena_acts(arena, wide);
    ws->inv_last = arena_reals(arena, e->rows);
    ws->head_block = head_block_rows(net, e->rows);
    ws->logits = arena_reals(arena, ws->head_block * vocab);
    bool own = ws->training && net->ops->act_bytes != sizeof(real);
    ws->dlogits = own ? arena_acts(arena, ws->head_block * vocab) : NULL;
    ws->log_sum = arena_reals(arena, ws->head_block);
}

static void lay_out_vector_gradients(struct mamba_tape_gradients *g, bool made_by_scan, const struct extent *e,
                                     struct arena *arena) {
    const struct mamba_shape *s = &e->mamba;
    if (made_by_scan) {
        g->theta = arena_reals(arena, s->groups * e->rows * s->angles);
        g->phase = arena_reals(arena, s->batch * s->heads * mamba_chunks(s) * s->angles);
        return;
    }
    g->b = arena_acts(arena, e->rows * s->heads * s->state);
    g->c = arena_acts(arena, e->rows * s->heads * s->state);
}

static void lay_out_gradients(struct workspace *ws, const struct network *net, const struct extent *e,
                              struct arena *arena) {
    size_t wide = e->rows * e->dim, per_head = e->rows * e->mamba.heads;
    struct layer_gradients *g = &ws->gradients;
    ws->dx = arena_acts(arena, wide);
    ws->dx0 = arena_acts(arena, wide);
    ws->dinput = arena_acts(arena, wide);
    if (net->config.model_bigram_buckets)
        ws->dbigram = arena_acts(arena, e->rows * (size_t)net->config.model_bigram_dim);
    g->hidden = arena_acts(arena, e->rows * e->hidden);
    g->mixed = arena_acts(arena, e->rows * e->mixed);
    g->projected = arena_acts(arena, e->rows * e->projected);
    if (uses_mamba(net)) {
        lay_out_vector_gradients(&g->mamba, net->ops->scan_makes_vectors, e, arena);
        g->mamba.delta = arena_reals(arena, per_head);
        g->mamba.log_decay = arena_reals(arena, per_head);
        g->mamba.gamma = arena_reals(arena, per_head);
    }
}

void workspace_lay_out(struct workspace *ws, const struct network *net, struct arena *arena) {
    struct extent e = extent_of(net, net->max_sequences, net->time);
    ws->lane.scratch_bytes = network_scratch(net, &e);
    ws->lane.scratch = arena_take(arena, ws->lane.scratch_bytes);
    lay_out_whole(ws, net, &e, arena);
    if (ws->training) lay_out_gradients(ws, net, &e, arena);
    size_t start = arena->used, end = start;
    for (int repeats_on = 0; repeats_on < 2; repeats_on++) {
        arena->used = start;
        lay_out_layers(ws, net, repeats_on, &e, arena);
        end = larger(end, arena->used);
    }
    arena->used = end;
}
