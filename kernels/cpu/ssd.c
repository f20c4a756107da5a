/* ssd: the Mamba-3 recurrence (arXiv 2603.15569) for whole sequences, chunk by chunk (SSD, arXiv 2405.21060).
 *
 * One head: x (T,P), B, C (T,N), y (T,P). With beta_t = delta_t - gamma_t the trapezoidal rule is
 *
 *     S_t = alpha_t (S_{t-1} + beta_t x_{t-1} B_{t-1}^T) + gamma_t x_t B_t^T,   alpha_t = exp(log_decay_t).
 *
 * Put the bracket's second term into the state of the token before: H_t = S_t + beta_{t+1} x_t B_t^T obeys
 *
 *     H_t = alpha_t H_{t-1} + kappa_t x_t B_t^T,   kappa_t = gamma_t + beta_{t+1}  (beta_T = 0),
 *     y_t = alpha_t H_{t-1} C_t + gamma_t x_t (B_t.C_t) + D x_t,
 *
 * a plain linear recurrence, so H (P,N) is what passes from chunk to chunk and what tape.states holds. Inside a
 * chunk of L tokens, with l_t = log_decay summed from the chunk's start to t, H' the state that enters, and
 *
 *     G = C B^T,   M_ts = exp(l_t - l_s) kappa_s G_ts (s < t),   M_tt = gamma_t G_tt + D,   M_ts = 0 (s > t):
 *
 *     y = M x + diag(exp l) C H'^T,     H'' = exp(l_L) H' + x^T diag(w) B,   w_s = exp(l_L - l_s) kappa_s.
 *
 * log_decay is never above 0, so every exponent is at most 0.
 *
 * Backward, chunks from last to first, with K = dL/dH'' carried (zero for the last chunk), and dM = dy x^T:
 *
 *     dx   = M^T dy + diag(w) B K^T          dG = dM o (M's factors of G)
 *     dB   = dG^T C + diag(w) x K            dC = dG B + diag(exp l) dy H'
 *     K'   = exp(l_L) K + dy^T diag(exp l) C (carried on)
 *     dD  += sum_t dM_tt,  dgamma_t = dM_tt G_tt + dkappa_t - dkappa_{t-1},  ddelta_t = dkappa_{t-1}
 *     dkappa_s = sum_{t>s} Z_ts + exp(l_L - l_s) u_s,   Z_ts = dM_ts G_ts exp(l_t - l_s),   u_s = (x K)_s . B_s
 *     dl_t = sum_{s<t} Z_ts kappa_s + exp(l_t) (dy H')_t . C_t - kappa_t dkappa_t
 *     dl_L also gets sum_s w_s u_s + exp(l_L) <H', K>;   dlog_decay_r = sum of dl_t over the chunk's t >= r.
 *
 * Sums run in BLAS order inside a chunk; chunks, heads and sequences one after another. */
#include <string.h>

#include "kernels/arena.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

/* What one chunk needs beside the tensors: L is at most the chunk length. */
struct buffers {
    real *mask, *dmask;        /* (L,L) G, then M; dM, then dG */
    real *b, *c;               /* (L,N) B, C with their weights; in backward also x K, dy H' */
    real *decay;               /* (L) l_t */
    real *rise, *fall, *kappa; /* (L) exp l_t, exp(l_L - l_t), kappa_t */
    real *dkappa, *dlog;       /* (L) */
    real *carry, *carried;     /* (P,N) K and K' */
};

/* One chunk of one head: where its rows start and how far apart they are. */
struct chunk {
    size_t length, head_dim, state; /* L, P, N */
    size_t x_stride, bc_stride, y_stride, heads;
    bool last; /* no token follows */
    const real *x, *b, *c;
    const real *delta, *log_decay, *gamma; /* one value every `heads` */
    real skip;                             /* D of the head */
    size_t row, head;                      /* of the first token */
};

static struct buffers layout(struct arena *arena, const struct mamba_shape *s) {
    size_t l = s->chunk < s->time ? s->chunk : s->time, n = s->state, pn = s->head_dim * n;
    return (struct buffers){
        .mask = arena_reals(arena, l * l),
        .dmask = arena_reals(arena, l * l),
        .b = arena_reals(arena, l * n),
        .c = arena_reals(arena, l * n),
        .decay = arena_reals(arena, l),
        .rise = arena_reals(arena, l),
        .fall = arena_reals(arena, l),
        .kappa = arena_reals(arena, l),
        .dkappa = arena_reals(arena, l),
        .dlog = arena_reals(arena, l),
        .carry = arena_reals(arena, pn),
        .carried = arena_reals(arena, pn),
    };
}

size_t ssd_scratch(const struct mamba_shape *shape) {
    struct arena count = {0};
    layout(&count, shape);
    return count.used;
}

static struct buffers scratch_buffers(struct lane *lane, const struct mamba_shape *shape) {
    struct arena arena = {lane->scratch, lane->scratch_bytes, 0};
    return layout(&arena, shape);
}

static struct chunk chunk_at(const struct mamba_shape *s, const struct mamba_tape *tape, const real *proj,
                             const real *d, size_t batch, size_t head, size_t index) {
    struct mamba_columns columns = mamba_columns(s);
    size_t start = index * s->chunk, left = s->time - start;
    size_t row = batch * s->time + start, at = row * s->heads + head;
    return (struct chunk){
        .length = left < s->chunk ? left : s->chunk,
        .head_dim = s->head_dim,
        .state = s->state,
        .x_stride = columns.width,
        .bc_stride = s->heads * s->state,
        .y_stride = s->heads * s->head_dim,
        .heads = s->heads,
        .last = left <= s->chunk,
        .x = proj + row * columns.width + columns.x + head * s->head_dim,
        .b = tape->b + at * s->state,
        .c = tape->c + at * s->state,
        .delta = tape->delta + at,
        .log_decay = tape->log_decay + at,
        .gamma = tape->gamma + at,
        .skip = d[head],
        .row = row,
        .head = head,
    };
}

static real *state_at(const struct mamba_tape *tape, const struct mamba_shape *s, size_t batch, size_t head,
                      size_t index) {
    return tape->states + ((batch * s->heads + head) * mamba_chunks(s) + index) * s->head_dim * s->state;
}

/* kappa and the decays of a chunk. */
static void chunk_weights(const struct chunk *k, struct buffers *w) {
    size_t length = k->length, heads = k->heads;
    real sum = 0;
    for (size_t t = 0; t < length; t++) {
        size_t next = (t + 1) * heads;
        bool follows = t + 1 < length || !k->last;
        w->decay[t] = sum += k->log_decay[t * heads];
        w->kappa[t] = k->gamma[t * heads] + (follows ? k->delta[next] - k->gamma[next] : 0);
    }
#pragma omp simd
    for (size_t t = 0; t < length; t++) {
        w->rise[t] = real_exp(w->decay[t]);
        w->fall[t] = real_exp(sum - w->decay[t]);
    }
}

/* to (L,N) = diag(weight) from */
static void scale_rows(const struct chunk *k, real *to, const real *from, const real *weight, const real *weight2) {
    for (size_t t = 0; t < k->length; t++) {
        real w = weight[t] * (weight2 ? weight2[t] : 1);
#pragma omp simd
        for (size_t n = 0; n < k->state; n++) to[t * k->state + n] = w * from[t * k->bc_stride + n];
    }
}

/* G becomes M. Past the diagonal the exponent would be positive; there it is cut to 0 and the product dropped. */
static void mask_forward(const struct chunk *k, const struct buffers *w) {
    int length = (int)k->length;
    for (int t = 0; t < length; t++) {
        real *m = w->mask + t * length, now = w->decay[t], diagonal = m[t] * k->gamma[t * k->heads] + k->skip;
#pragma omp simd
        for (int s = 0; s < length; s++) {
            real exponent = now - w->decay[s];
            real e = real_exp(exponent < 0 ? exponent : 0);
            m[s] = s < t ? m[s] * e * w->kappa[s] : 0;
        }
        m[t] = diagonal;
    }
}

static void chunk_forward(const struct chunk *k, struct buffers *w, real *y, const real *state, real *next) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    chunk_weights(k, w);
    gemm_nt(length, length, n, 1, k->c, k->bc_stride, k->b, k->bc_stride, 0, w->mask, length);
    mask_forward(k, w);
    gemm_nn(length, p, length, 1, w->mask, length, k->x, k->x_stride, 0, y, k->y_stride);
    scale_rows(k, w->c, k->c, w->rise, NULL);
    gemm_nt(length, p, n, 1, w->c, n, state, n, 1, y, k->y_stride);
    if (!next) return;
    real whole = w->rise[length - 1];
#pragma omp simd
    for (size_t i = 0; i < p * n; i++) next[i] = whole * state[i];
    scale_rows(k, w->b, k->b, w->fall, w->kappa);
    gemm_tn(p, n, length, 1, k->x, k->x_stride, w->b, n, 1, next, n);
}

void cpu_ssd_forward(struct lane *lane, real *y, struct mamba_tape *tape, const real *proj, const real *d,
                     const struct mamba_shape *shape) {
    struct buffers w = scratch_buffers(lane, shape);
    size_t chunks = mamba_chunks(shape);
    for (size_t batch = 0; batch < shape->batch; batch++)
        for (size_t head = 0; head < shape->heads; head++) {
            memset(state_at(tape, shape, batch, head, 0), 0, shape->head_dim * shape->state * sizeof(real));
            for (size_t i = 0; i < chunks; i++) {
                struct chunk k = chunk_at(shape, tape, proj, d, batch, head, i);
                real *next = i + 1 < chunks ? state_at(tape, shape, batch, head, i + 1) : NULL;
                chunk_forward(&k, &w, y + k.row * k.y_stride + head * shape->head_dim,
                              state_at(tape, shape, batch, head, i), next);
            }
        }
}

/* G and dM become M and dG; gives dlog's and dkappa's parts from inside the chunk, dgamma's diagonal part and dD. */
static real mask_backward(const struct chunk *k, const struct buffers *w, real *dgamma) {
    int length = (int)k->length;
    real dskip = 0;
    memset(w->dkappa, 0, k->length * sizeof(real));
    for (int t = 0; t < length; t++) {
        real *m = w->mask + t * length, *dm = w->dmask + t * length, now = w->decay[t], row = 0;
        real gamma = k->gamma[t * k->heads], product = m[t], dproduct = dm[t];
#pragma omp simd reduction(+ : row)
        for (int s = 0; s < length; s++) {
            real exponent = now - w->decay[s];
            real e = s < t ? real_exp(exponent < 0 ? exponent : 0) : 0;
            real z = dm[s] * m[s] * e, weight = e * w->kappa[s];
            w->dkappa[s] += z;
            row += z * w->kappa[s];
            m[s] *= weight;
            dm[s] *= weight;
        }
        w->dlog[t] = row;
        m[t] = product * gamma + k->skip;
        dm[t] = dproduct * gamma;
        dgamma[t * k->heads] = dproduct * product;
        dskip += dproduct;
    }
    return dskip;
}

static real dot(const real *a, const real *b, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* to (L,N) += diag(weight weight2) from (L,N, tight) */
static void add_scaled_rows(const struct chunk *k, real *to, const real *from, const real *weight,
                            const real *weight2) {
    for (size_t t = 0; t < k->length; t++) {
        real w = weight[t] * (weight2 ? weight2[t] : 1);
#pragma omp simd
        for (size_t n = 0; n < k->state; n++) to[t * k->bc_stride + n] += w * from[t * k->state + n];
    }
}

/* dC, and the part of dl that y has through the state that enters: dC = dG B + diag(exp l) dy H'. */
static void chunk_backward_c(const struct chunk *k, struct buffers *w, real *dc, const real *dy, const real *state) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    gemm_nn(length, n, length, 1, w->dmask, length, k->b, k->bc_stride, 0, dc, k->bc_stride);
    gemm_nn(length, n, p, 1, dy, k->y_stride, state, n, 0, w->c, n);
    add_scaled_rows(k, dc, w->c, w->rise, NULL);
    for (size_t t = 0; t < length; t++) w->dlog[t] += w->rise[t] * dot(w->c + t * n, k->c + t * k->bc_stride, n);
}

/* dB, dkappa and the parts of dl that the state which leaves has: dB = dG^T C + diag(w) x K. */
static void chunk_backward_b(const struct chunk *k, struct buffers *w, real *db, const real *state) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    real leaving = w->rise[length - 1] * dot(state, w->carry, p * n);
    gemm_tn(length, n, length, 1, w->dmask, length, k->c, k->bc_stride, 0, db, k->bc_stride);
    gemm_nn(length, n, p, 1, k->x, k->x_stride, w->carry, n, 0, w->b, n);
    add_scaled_rows(k, db, w->b, w->fall, w->kappa);
    for (size_t t = 0; t < length; t++) {
        real u = w->fall[t] * dot(w->b + t * n, k->b + t * k->bc_stride, n);
        w->dkappa[t] += u;
        leaving += w->kappa[t] * u;
        w->dlog[t] -= w->kappa[t] * w->dkappa[t];
    }
    w->dlog[length - 1] += leaving;
}

/* dx = M^T dy + diag(w) B K^T, and K' for the chunk before. */
static void chunk_backward_x(const struct chunk *k, struct buffers *w, real *dx, const real *dy) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    gemm_tn(length, p, length, 1, w->mask, length, dy, k->y_stride, 0, dx, k->x_stride);
    scale_rows(k, w->b, k->b, w->fall, w->kappa);
    gemm_nt(length, p, n, 1, w->b, n, w->carry, n, 1, dx, k->x_stride);
    scale_rows(k, w->c, k->c, w->rise, NULL);
    real whole = w->rise[length - 1];
#pragma omp simd
    for (size_t i = 0; i < p * n; i++) w->carried[i] = whole * w->carry[i];
    gemm_tn(p, n, length, 1, dy, k->y_stride, w->c, n, 1, w->carried, n);
    real *swap = w->carry;
    w->carry = w->carried;
    w->carried = swap;
}

/* From dkappa and dl to delta, log_decay and gamma. kappa_t reaches token t+1, which may be in the chunk after:
 * that chunk was finished before this one, so its first ddelta and dgamma are completed here. */
static void chunk_backward_steps(const struct chunk *k, const struct buffers *w, real *ddelta, real *dlog_decay,
                                 real *dgamma) {
    size_t heads = k->heads;
    real sum = 0;
    for (size_t t = k->length; t-- > 0;) {
        dlog_decay[t * heads] = sum += w->dlog[t];
        dgamma[t * heads] += w->dkappa[t];
        if (t + 1 == k->length && k->last) continue;
        ddelta[(t + 1) * heads] = w->dkappa[t];
        dgamma[(t + 1) * heads] -= w->dkappa[t];
    }
}

static real chunk_backward(const struct chunk *k, struct buffers *w, real *dx, const struct mamba_tape_gradients *to,
                           const real *dy, const real *state) {
    size_t length = k->length, at = k->row * k->heads + k->head;
    chunk_weights(k, w);
    gemm_nt(length, length, k->state, 1, k->c, k->bc_stride, k->b, k->bc_stride, 0, w->mask, length);
    gemm_nt(length, length, k->head_dim, 1, dy, k->y_stride, k->x, k->x_stride, 0, w->dmask, length);
    real dskip = mask_backward(k, w, to->gamma + at);
    chunk_backward_c(k, w, to->c + at * k->state, dy, state);
    chunk_backward_b(k, w, to->b + at * k->state, state);
    chunk_backward_x(k, w, dx, dy);
    chunk_backward_steps(k, w, to->delta + at, to->log_decay + at, to->gamma + at);
    return dskip;
}

void cpu_ssd_backward(struct lane *lane, real *dproj, const struct mamba_tape_gradients *dtape, real *dd,
                      const real *dy, const struct mamba_tape *tape, const real *proj, const real *d,
                      const struct mamba_shape *shape) {
    struct buffers w = scratch_buffers(lane, shape);
    size_t columns = mamba_columns(shape).x;
    for (size_t batch = 0; batch < shape->batch; batch++)
        for (size_t head = 0; head < shape->heads; head++) {
            memset(w.carry, 0, shape->head_dim * shape->state * sizeof(real));
            for (size_t i = mamba_chunks(shape); i-- > 0;) {
                struct chunk k = chunk_at(shape, tape, proj, d, batch, head, i);
                size_t column = head * shape->head_dim;
                dd[head] += chunk_backward(&k, &w, dproj + k.row * k.x_stride + columns + column, dtape,
                                           dy + k.row * k.y_stride + column, state_at(tape, shape, batch, head, i));
            }
            dtape->delta[batch * shape->time * shape->heads + head] = 0;
        }
}
