/* attention: causal softmax attention with grouped queries, a block of queries at a time.
 *
 * Query head h reads kv head h/(heads/kv_heads). For a block Q (b,hd) of queries that ends before token e, with the
 * keys K and values V (e,hd) up to there:
 *
 *     S = Q K^T / sqrt(hd)  (b,e);   P_ij = exp(S_ij - log_sum_i) for keys j at most the query's token, else 0
 *     out = P V
 *
 * so the largest matrix is (64,T), never (T,T). Backward recomputes P from log_sum, the log of the denominator:
 *
 *     dV += P^T dO;  dP = dO V^T;  dS = P o (dP - rowsum(dO o out)) / sqrt(hd);  dQ = dS K;  dK += dS^T Q
 *
 * Sums run in BLAS order; blocks in order, and heads of a group in order for dK and dV. Decoding goes over the cache
 * in blocks of keys, with the running maximum m and sum of exp(S - m). */
#include <string.h>

#include "kernels/arena.h"
#include "kernels/cpu/attention_prepare.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/vector_math.h"

enum { BLOCK = 64 };

struct buffers {
    real *scores, *dscores; /* (BLOCK, time) */
    real *query;            /* decoding: (heads, head_dim) */
    real *key_scores;       /* decoding: (BLOCK) */
};

static struct buffers layout(struct arena *arena, const struct attention_shape *s) {
    size_t queries = s->time < BLOCK ? s->time : BLOCK;
    return (struct buffers){
        .scores = arena_reals(arena, queries * s->time),
        .dscores = arena_reals(arena, queries * s->time),
        .query = arena_reals(arena, s->heads * s->head_dim),
        .key_scores = arena_reals(arena, BLOCK),
    };
}

size_t cpu_attention_scratch(const struct attention_shape *shape) {
    struct arena count = {0};
    layout(&count, shape);
    return count.used;
}

static struct buffers scratch_buffers(struct lane *lane, const struct attention_shape *shape) {
    struct arena arena = {.base = lane->scratch, .size = lane->scratch_bytes};
    return layout(&arena, shape);
}

/* One block of queries of one head. */
struct block {
    size_t first, queries, keys, dim; /* token of the first query; keys = first + queries */
    size_t q_stride, kv_stride;
    size_t q_at, kv_at, log_at; /* offsets of the block's q, of the head's first k, of the block's log_sum */
    real scale;                 /* 1/sqrt(hd) */
};

static struct block block_at(const struct attention_shape *s, size_t batch, size_t head, size_t first) {
    size_t left = s->time - first, queries = left < BLOCK ? left : BLOCK;
    size_t kv_head = head / (s->heads / s->kv_heads);
    return (struct block){
        .first = first,
        .queries = queries,
        .keys = first + queries,
        .dim = s->head_dim,
        .q_stride = s->heads * s->head_dim,
        .kv_stride = s->kv_heads * s->head_dim,
        .q_at = ((batch * s->time + first) * s->heads + head) * s->head_dim,
        .kv_at = (batch * s->time * s->kv_heads + kv_head) * s->head_dim,
        .log_at = (batch * s->heads + head) * s->time + first,
        .scale = 1 / real_sqrt((real)s->head_dim),
    };
}

static void block_scores(const struct block *b, real *scores, const struct attention_tape *tape) {
    gemm_nt(b->queries, b->keys, b->dim, b->scale, tape->q + b->q_at, b->q_stride, tape->k + b->kv_at, b->kv_stride, 0,
            scores, b->keys);
}

/* --- forward ----------------------------------------------------------------------------------------------------- */

static real largest(const real *x, size_t count) {
    real most = x[0];
#pragma omp simd reduction(max : most)
    for (size_t i = 0; i < count; i++) most = x[i] > most ? x[i] : most;
    return most;
}

/* x = exp(x - shift); returns the sum. */
static real exp_shifted(real *x, real shift, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += x[i] = real_exp(x[i] - shift);
    return sum;
}

static void scale_by(real *x, real factor, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) x[i] *= factor;
}

/* Softmax of each row over the keys that its query sees, and the log of its denominator. */
static void block_softmax(const struct block *b, real *scores, real *log_sum) {
    for (size_t i = 0; i < b->queries; i++) {
        real *row = scores + i * b->keys;
        size_t seen = b->first + i + 1;
        real most = largest(row, seen), sum = exp_shifted(row, most, seen);
        scale_by(row, 1 / sum, seen);
        memset(row + seen, 0, (b->keys - seen) * sizeof(real));
        log_sum[i] = most + real_log(sum);
    }
}

void cpu_attention_forward(struct lane *lane, real *out, struct attention_tape *tape,
                           const struct attention_shape *shape) {
    struct buffers w = scratch_buffers(lane, shape);
    for (size_t batch = 0; batch < shape->batch; batch++)
        for (size_t head = 0; head < shape->heads; head++)
            for (size_t first = 0; first < shape->time; first += BLOCK) {
                struct block b = block_at(shape, batch, head, first);
                block_scores(&b, w.scores, tape);
                block_softmax(&b, w.scores, tape->log_sum + b.log_at);
                gemm_nn(b.queries, b.dim, b.keys, 1, w.scores, b.keys, tape->v + b.kv_at, b.kv_stride, 0, out + b.q_at,
                        b.q_stride);
            }
}

/* --- backward ---------------------------------------------------------------------------------------------------- */

/* Scores become P. */
static void block_probabilities(const struct block *b, real *scores, const real *log_sum) {
    for (size_t i = 0; i < b->queries; i++) {
        size_t seen = b->first + i + 1;
        exp_shifted(scores + i * b->keys, log_sum[i], seen);
        memset(scores + i * b->keys + seen, 0, (b->keys - seen) * sizeof(real));
    }
}

/* dP becomes dS. */
static void block_softmax_backward(const struct block *b, real *dscores, const real *p, const real *dout,
                                   const real *out) {
    for (size_t i = 0; i < b->queries; i++, dout += b->q_stride, out += b->q_stride) {
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t n = 0; n < b->dim; n++) sum += dout[n] * out[n];
#pragma omp simd
        for (size_t j = i * b->keys; j < (i + 1) * b->keys; j++) dscores[j] = p[j] * (dscores[j] - sum) * b->scale;
    }
}

static void block_backward(const struct block *b, const struct buffers *w, real *dq, real *dk, real *dv,
                           const real *dout, const real *out, const struct attention_tape *tape) {
    const real *q = tape->q + b->q_at, *k = tape->k + b->kv_at, *v = tape->v + b->kv_at;
    block_scores(b, w->scores, tape);
    block_probabilities(b, w->scores, tape->log_sum + b->log_at);
    gemm_tn(b->keys, b->dim, b->queries, 1, w->scores, b->keys, dout, b->q_stride, 1, dv, b->kv_stride);
    gemm_nt(b->queries, b->keys, b->dim, 1, dout, b->q_stride, v, b->kv_stride, 0, w->dscores, b->keys);
    block_softmax_backward(b, w->dscores, w->scores, dout, out);
    gemm_nn(b->queries, b->dim, b->keys, 1, w->dscores, b->keys, k, b->kv_stride, 0, dq, b->q_stride);
    gemm_tn(b->keys, b->dim, b->queries, 1, w->dscores, b->keys, q, b->q_stride, 1, dk, b->kv_stride);
}

void cpu_attention_backward(struct lane *lane, real *dq, real *dk, real *dv, const real *dout, const real *out,
                            const struct attention_tape *tape, const struct attention_shape *shape) {
    struct buffers w = scratch_buffers(lane, shape);
    size_t values = shape->batch * shape->time * shape->kv_heads * shape->head_dim;
    memset(dk, 0, values * sizeof(real));
    memset(dv, 0, values * sizeof(real));
    for (size_t batch = 0; batch < shape->batch; batch++)
        for (size_t head = 0; head < shape->heads; head++)
            for (size_t first = 0; first < shape->time; first += BLOCK) {
                struct block b = block_at(shape, batch, head, first);
                block_backward(&b, &w, dq + b.q_at, dk + b.kv_at, dv + b.kv_at, dout + b.q_at, out + b.q_at, tape);
            }
}

/* --- decoding ---------------------------------------------------------------------------------------------------- */

struct running {
    real most, sum; /* of the scores so far: maximum, and sum of exp(score - most) */
};

/* Takes `keys` more keys into out = sum exp(score - most) v. */
static void decode_block(struct running *state, real *out, real *scores, const real *q, const real *k, const real *v,
                         size_t keys, size_t stride, size_t dim) {
    BLAS(gemv)
    (CblasRowMajor, CblasNoTrans, (int)keys, (int)dim, 1 / real_sqrt((real)dim), k, (int)stride, q, 1, 0, scores, 1);
    real most = largest(scores, keys);
    if (most < state->most) most = state->most;
    real fade = real_exp(state->most - most);
    state->sum = state->sum * fade + exp_shifted(scores, most, keys);
    state->most = most;
    BLAS(gemv)(CblasRowMajor, CblasTrans, (int)keys, (int)dim, 1, v, (int)stride, scores, 1, fade, out, 1);
}

static void decode_head(real *out, real *scores, const real *q, const real *k, const real *v, size_t keys,
                        size_t stride, size_t dim) {
    struct running state = {-INFINITY, 0};
    memset(out, 0, dim * sizeof(real));
    for (size_t first = 0; first < keys; first += BLOCK) {
        size_t left = keys - first;
        decode_block(&state, out, scores, q, k + first * stride, v + first * stride, left < BLOCK ? left : BLOCK,
                     stride, dim);
    }
    scale_by(out, 1 / state.sum, dim);
}

void cpu_attention_decode(struct lane *lane, real *out, real *k_cache, real *v_cache, const real *q, const real *k,
                          const real *v, const real *q_gain, const real *cosine, const real *sine,
                          const int32_t *length, size_t capacity, const struct attention_shape *shape) {
    struct buffers w = scratch_buffers(lane, shape);
    size_t dim = shape->head_dim, rope = shape->rope_dims, width = shape->kv_heads * dim;
    size_t position = (size_t)*length - 1;
    const real *c = cosine + position * (rope / 2), *s = sine + position * (rope / 2);
    for (size_t batch = 0; batch < shape->batch; batch++) {
        real *keys = k_cache + batch * capacity * width, *values = v_cache + batch * capacity * width;
        for (size_t h = 0; h < shape->kv_heads; h++)
            attention_prepare_head(keys + position * width + h * dim, k + batch * width + h * dim, 1, c, s, dim, rope);
        attention_prepare_values(values + position * width, v + batch * width, width);
        for (size_t h = 0; h < shape->heads; h++) {
            size_t at = (batch * shape->heads + h) * dim, kv = h / (shape->heads / shape->kv_heads) * dim;
            attention_prepare_head(w.query + h * dim, q + at, q_gain[h], c, s, dim, rope);
            decode_head(out + at, w.key_scores, w.query + h * dim, keys + kv, values + kv, position + 1, width, dim);
        }
    }
}
