/* decoder: the model one token at a time; see decoder.h. */
#include "model/decoder.h"

#include <stdlib.h>

#include "model/network_shapes.h"
#include "model/tape.h"

struct layer_state {
    act *out; /* (sequences, D): the stream, or kept for the skip that pops it */
    union {
        struct mamba_state mamba;
        struct {
            act *k, *v; /* (sequences, capacity, kv_heads, hd) */
        } cache;
    };
};

struct decoder {
    const struct network *net;
    struct arena arena;
    struct lane lane;
    size_t sequences, capacity;
    bool started;                  /* some token was decoded since the reset */
    struct extent extent;          /* of one token of each sequence */
    int32_t *length;               /* tokens that were decoded */
    int32_t *given;                /* (sequences) what decoder_step got */
    int32_t *ids, *buckets;        /* (sequences) the last tokens, 0 at the start, and their bigrams' buckets */
    real *rope_cosine, *rope_sine; /* (capacity, rope_dims/2) */
    act *bigram;                   /* (sequences, bigram_dim) */
    act *embedded, *smeared;       /* (2, sequences, D) of the token before, and of this one */
    real *gates;                   /* (sequences, D) the smear's gate, once for each sequence */
    act *x0, *stream, *u;          /* (sequences, D) */
    real *inv;                     /* (sequences) */
    act *fc, *activated, *projected, *mixed; /* the layers' own rows */
    real *logits;                            /* (sequences, V) */
    struct layer_state *layers[2];           /* of net->plain and net->repeated; NULL while counting */
};

static void lay_out_state(struct decoder *d, struct layer_state *layer, const struct virtual_layer *at, bool popped,
                          struct arena *arena) {
    const struct mamba_shape *m = &d->extent.mamba;
    const struct attention_shape *a = &d->extent.attention;
    size_t heads = d->sequences * m->heads, cache = d->sequences * d->capacity * a->kv_heads * a->head_dim;
    layer->out = popped ? arena_acts(arena, d->extent.rows * d->extent.dim) : d->stream;
    if (is_attention(d->net, at->physical)) {
        layer->cache.k = arena_acts(arena, cache);
        layer->cache.v = arena_acts(arena, cache);
        return;
    }
    layer->mamba.s = arena_reals(arena, heads * m->head_dim * m->state);
    layer->mamba.phase = arena_reals(arena, heads * m->angles);
    layer->mamba.b_before = arena_reals(arena, heads * m->state);
    layer->mamba.x_before = arena_reals(arena, heads * m->head_dim);
}

/* Both schedules share the memory, as in a workspace: a sequence is decoded under one of them. */
static void lay_out_states(struct decoder *d, struct arena *arena) {
    size_t start = arena->used, end = start;
    for (int repeats_on = 0; repeats_on < 2; repeats_on++) {
        const struct schedule *schedule = schedule_of(d->net, repeats_on);
        struct layer_state unused;
        arena->used = start;
        for (int i = 0; i < schedule->count; i++)
            lay_out_state(d, d->layers[0] ? &d->layers[repeats_on][i] : &unused, &schedule->layers[i],
                          schedule_is_popped(schedule, i), arena);
        end = larger(end, arena->used);
    }
    arena->used = end;
}

static void lay_out(struct decoder *d, struct arena *arena) {
    const struct config *config = &d->net->config;
    size_t rows = d->extent.rows, wide = rows * d->extent.dim;
    size_t angles = d->capacity * (size_t)config->attention_rope_dims / 2;
    d->rope_cosine = angles ? arena_reals(arena, angles) : NULL;
    d->rope_sine = angles ? arena_reals(arena, angles) : NULL;
    d->length = arena_take(arena, sizeof *d->length);
    d->given = arena_take(arena, rows * sizeof *d->given);
    d->ids = arena_take(arena, rows * sizeof *d->ids);
    d->buckets = arena_take(arena, rows * sizeof *d->buckets);
    d->bigram = arena_acts(arena, rows * (size_t)config->model_bigram_dim);
    d->embedded = arena_acts(arena, 2 * wide);
    d->smeared = arena_acts(arena, 2 * wide);
    d->gates = arena_reals(arena, wide);
    d->x0 = arena_acts(arena, wide);
    d->stream = arena_acts(arena, wide);
    d->u = arena_acts(arena, wide);
    d->inv = arena_reals(arena, rows);
    d->fc = arena_acts(arena, rows * d->extent.hidden);
    d->activated = arena_acts(arena, rows * d->extent.hidden);
    d->projected = arena_acts(arena, rows * d->extent.projected);
    d->mixed = arena_acts(arena, rows * d->extent.mixed);
    d->logits = arena_reals(arena, rows * (size_t)config->model_vocab_size);
    d->lane.scratch_bytes = network_scratch(d->net, &d->extent);
    d->lane.scratch = arena_take(arena, d->lane.scratch_bytes);
    lay_out_states(d, arena);
}

static struct decoder decoder_of(const struct network *net, size_t sequences, size_t capacity) {
    return (struct decoder){
        .net = net, .sequences = sequences, .capacity = capacity, .extent = extent_of(net, sequences, 1)};
}

size_t decoder_bytes(const struct network *net, size_t sequences, size_t capacity) {
    struct decoder d = decoder_of(net, sequences, capacity);
    struct arena counter = {.ops = net->ops};
    lay_out(&d, &counter);
    return counter.used;
}

status decoder_create(struct decoder **out, const struct network *net, size_t sequences, size_t capacity,
                      int lane_index) {
    size_t plain = (size_t)net->plain.count, repeated = (size_t)net->repeated.count;
    struct decoder *d = malloc(sizeof *d);
    struct layer_state *layers = calloc(plain + repeated, sizeof *layers);
    if (!d || !layers) {
        free(d);
        free(layers);
        return status_new(STATUS_SYSTEM, "no memory for a decoder of %zu layers", repeated);
    }
    *d = decoder_of(net, sequences, capacity);
    d->layers[0] = layers;
    d->layers[1] = layers + plain;
    status s = arena_create_for(&d->arena, net->ops, decoder_bytes(net, sequences, capacity), "the decoder");
    if (s) {
        decoder_destroy(d);
        return s;
    }
    lay_out(d, &d->arena);
    d->lane.index = lane_index;
    if (d->rope_cosine)
        net->ops->rope_table(&d->lane, d->rope_cosine, d->rope_sine, capacity, (size_t)net->config.attention_rope_dims,
                             net->config.attention_rope_base);
    *out = d;
    return NULL;
}

void decoder_destroy(struct decoder *decoder) {
    if (!decoder) return;
    arena_destroy(&decoder->arena);
    free(decoder->layers[0]);
    free(decoder);
}

static void clear(struct decoder *d, void *x, size_t bytes) { d->net->ops->clear(&d->lane, x, bytes); }

static void clear_mamba(struct decoder *d, struct mamba_state *state) {
    const struct mamba_shape *m = &d->extent.mamba;
    size_t heads = d->sequences * m->heads;
    clear(d, state->s, heads * m->head_dim * m->state * sizeof(real));
    clear(d, state->phase, heads * m->angles * sizeof(real));
    clear(d, state->b_before, heads * m->state * sizeof(real));
    clear(d, state->x_before, heads * m->head_dim * sizeof(real));
}

/* A cache holds nothing before position 0, so it needs no clearing. */
void decoder_reset(struct decoder *d) {
    d->started = false;
    clear(d, d->length, sizeof *d->length);
    clear(d, d->ids, d->sequences * sizeof *d->ids);
    clear(d, d->embedded, 2 * d->sequences * d->extent.dim * d->net->ops->act_bytes);
    for (int repeats_on = 0; repeats_on < 2; repeats_on++) {
        const struct schedule *schedule = schedule_of(d->net, repeats_on);
        for (int i = 0; i < schedule->count; i++)
            if (!is_attention(d->net, schedule->layers[i].physical)) clear_mamba(d, &d->layers[repeats_on][i].mamba);
    }
}

/* The decoding of one token of each sequence, as its parts see it. */
struct step {
    struct decoder *d;
    const struct backend *ops;
    const real *weights;
    struct layer_state *layers;
};

static const real *weight(const struct step *step, int layer, enum tensor_role role) {
    return step->weights + offset_of(step->d->net, layer, role);
}

static void linear(const struct step *step, act *y, const act *x, int layer, enum tensor_role role) {
    const struct tensor *w = parameters_get(&step->d->net->parameters, layer, role);
    step->ops->linear_forward(&step->d->lane, y, x, network_weight_acts(step->d->net, step->weights, w),
                              step->d->sequences, w->shape[0], w->shape[1]);
}

/* y = stream + x w^T; the weights that end a branch of a block have its scale. */
static void linear_add(const struct step *step, act *y, const act *x, int layer, enum tensor_role role) {
    struct decoder *d = step->d;
    const struct tensor *w = parameters_get(&d->net->parameters, layer, role);
    step->ops->linear_add_forward(&d->lane, y, d->stream, x, network_weight_acts(d->net, step->weights, w),
                                  d->sequences, w->shape[0], w->shape[1]);
}

static void add_bigram(const struct step *step) {
    struct decoder *d = step->d;
    step->ops->embedding_forward(&d->lane, d->bigram, d->buckets, weight(step, -1, ROLE_BIGRAM_TABLE), d->sequences,
                                 (size_t)d->net->config.model_bigram_dim);
    linear_add(step, d->stream, d->bigram, -1, ROLE_BIGRAM_PROJ);
}

static void spread_gates(const struct step *step) {
    struct decoder *d = step->d;
    const real *gate = weight(step, -1, ROLE_SMEAR_GATE);
    for (size_t s = 0, dim = d->extent.dim; s < d->sequences; s++)
        step->ops->copy(&d->lane, d->gates + s * dim, gate, dim * sizeof *gate);
}

/* As two tokens of one sequence that is as wide as all sequences together: so one copy serves all of them. */
static void smear(const struct step *step) {
    struct decoder *d = step->d;
    const struct backend *ops = step->ops;
    size_t dim = d->extent.dim, wide = d->sequences * dim, bytes = wide * ops->act_bytes;
    act *now = act_at(ops, d->embedded, wide);
    ops->copy(&d->lane, d->embedded, now, bytes);
    ops->copy(&d->lane, now, d->stream, bytes);
    ops->smear_forward(&d->lane, d->smeared, d->embedded, d->gates, 1, 2, wide);
    ops->copy(&d->lane, d->stream, act_at(ops, d->smeared, wide), bytes);
}

static void embed(const struct step *step) {
    struct decoder *d = step->d;
    size_t rows = d->sequences, dim = d->extent.dim;
    step->ops->embedding_forward(&d->lane, d->stream, d->ids, weight(step, -1, ROLE_EMBEDDING), rows, dim);
    if (d->net->config.model_bigram_buckets) add_bigram(step);
    if (d->net->config.model_smear) smear(step);
    step->ops->rms_norm_forward(&d->lane, d->x0, d->inv, d->stream, rows, dim);
}

static void mamba(const struct step *step, struct layer_state *layer, int physical) {
    struct decoder *d = step->d;
    struct mamba_weights weights = mamba_weights_at(d->net, step->weights, physical);
    linear(step, d->projected, d->u, physical, ROLE_MAMBA_IN_PROJ);
    step->ops->mamba_decode(&d->lane, d->mixed, &layer->mamba, d->projected, &weights, &d->extent.mamba);
    linear_add(step, d->stream, d->mixed, physical, ROLE_MAMBA_OUT_PROJ);
}

static void attention(const struct step *step, struct layer_state *layer, int physical) {
    struct decoder *d = step->d;
    const struct attention_shape *shape = &d->extent.attention;
    act *q = d->projected, *k = act_at(step->ops, q, d->sequences * shape->heads * shape->head_dim);
    act *v = act_at(step->ops, k, d->sequences * shape->kv_heads * shape->head_dim);
    linear(step, q, d->u, physical, ROLE_ATTN_Q);
    linear(step, k, d->u, physical, ROLE_ATTN_K);
    linear(step, v, d->u, physical, ROLE_ATTN_V);
    step->ops->attention_decode(&d->lane, d->mixed, layer->cache.k, layer->cache.v, q, k, v,
                                weight(step, physical, ROLE_ATTN_Q_GAIN), d->rope_cosine, d->rope_sine, d->length,
                                d->capacity, shape);
    linear_add(step, d->stream, d->mixed, physical, ROLE_ATTN_PROJ);
}

static void mlp(const struct step *step, struct layer_state *layer, const struct virtual_layer *at) {
    struct decoder *d = step->d;
    linear(step, d->fc, d->u, at->physical, fc_role(d->net, at));
    step->ops->leaky_relu_squared_forward(&d->lane, d->activated, d->fc, d->sequences * d->extent.hidden);
    linear_add(step, layer->out, d->activated, at->physical, proj_role(d->net, at));
}

/* x is where the layer's input stands: the stream, x0 or an output that was kept. */
static void block(const struct step *step, struct layer_state *layer, const struct virtual_layer *at, const act *x) {
    struct decoder *d = step->d;
    const struct backend *ops = step->ops;
    size_t rows = d->sequences, dim = d->extent.dim;
    if (at->skip_source >= 0) {
        const real *scale = weight(step, -1, ROLE_SKIP_WEIGHTS) + (size_t)at->skip_row * dim;
        ops->scaled_add_forward(&d->lane, d->stream, x, scale, step->layers[at->skip_source].out, rows, dim);
        x = d->stream;
    }
    ops->residual_mix_forward(&d->lane, d->stream, x, d->x0, weight(step, at->physical, ROLE_RESID_MIX), rows, dim);
    ops->rms_norm_forward(&d->lane, d->u, d->inv, d->stream, rows, dim);
    if (is_attention(d->net, at->physical))
        attention(step, layer, at->physical);
    else
        mamba(step, layer, at->physical);
    ops->rms_norm_forward(&d->lane, d->u, d->inv, d->stream, rows, dim);
    mlp(step, layer, at);
}

/* Of the tokens in d->ids. */
static void make_logits(const struct step *step, const struct schedule *schedule) {
    struct decoder *d = step->d;
    size_t vocab = (size_t)d->net->config.model_vocab_size;
    embed(step);
    const act *x = d->x0;
    for (int i = 0; i < schedule->count; i++) {
        block(step, &step->layers[i], &schedule->layers[i], x);
        x = step->layers[i].out;
    }
    step->ops->rms_norm_forward(&d->lane, d->u, d->inv, x, d->sequences, d->extent.dim);
    const struct tensor *table = parameters_get(&d->net->parameters, -1, ROLE_EMBEDDING);
    step->ops->head_forward(&d->lane, d->logits, d->u, network_weight_acts(d->net, step->weights, table), d->sequences,
                            vocab, d->extent.dim);
    step->ops->softcap(&d->lane, d->logits, d->logits, d->sequences * vocab, d->net->config.model_softcap);
}

void decoder_read(struct decoder *d, const real *weights, bool repeats_on, const int32_t *tokens, size_t rows) {
    struct step step = {.d = d, .ops = d->net->ops, .weights = weights, .layers = d->layers[repeats_on]};
    if (!d->started && d->net->config.model_smear) spread_gates(&step);
    d->started = true;
    step.ops->next_tokens(&d->lane, d->length, d->ids, d->buckets, tokens, rows, d->sequences,
                          (size_t)d->net->config.model_bigram_buckets);
    make_logits(&step, schedule_of(d->net, repeats_on));
}

void decoder_draw(struct decoder *d, int32_t *tokens, const double *uniforms, size_t rows, double temperature) {
    d->net->ops->draw_tokens(&d->lane, tokens, d->logits, uniforms, d->length, rows, d->sequences,
                             (size_t)d->net->config.model_vocab_size, temperature);
}

void decoder_step(struct decoder *d, const real *weights, bool repeats_on, const int32_t *ids, real *logits) {
    const struct backend *ops = d->net->ops;
    ops->upload(&d->lane, d->given, ids, d->sequences * sizeof *ids);
    decoder_read(d, weights, repeats_on, d->given, 1);
    ops->download(&d->lane, logits, d->logits, d->sequences * (size_t)d->net->config.model_vocab_size * sizeof *logits);
}

struct lane *decoder_lane(struct decoder *decoder) {
    return &decoder->lane;
}
