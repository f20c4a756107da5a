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
 * chunk of L tokens let l_t be log_decay summed from the chunk's start to t, H' the state that enters, H'' the one
 * that leaves, and (o the elementwise product, diag(v) X the rows of X scaled)
 *
 *     E_ts = exp(l_t - l_s) for s < t, else 0;   r_t = exp(l_t);   f_t = exp(l_L - l_t);   G = C B^T;
 *
 *     y   = (G o E) diag(kappa) x + diag(r) C H'^T + diag(gamma_t G_tt + D) x
 *     H'' = r_L H' + (diag(kappa) x)^T diag(f) B
 *
 * log_decay is never above 0, so no exponent that counts is.
 *
 * Backward, chunks from last to first, with K = dL/dH'' carried (zero for the last chunk) and m_t = dy_t.x_t:
 *
 *     F   = dy x^T o E
 *     V   = F^T C + diag(f) x K                    dB = diag(kappa) V + diag(gamma m) C
 *     U   = F diag(kappa) B + diag(r) dy H'        dC = U + diag(gamma m) B
 *     X   = (G o E)^T dy + diag(f) B K^T           dx = diag(kappa) X + diag(gamma_t G_tt + D) dy
 *     K'  = r_L K + (diag(r) dy)^T C               (carried on)
 *     dD += sum_t m_t;   dkappa_t = V_t.B_t;   ddelta_t = dkappa_{t-1};   dgamma_t = m_t G_tt + dkappa_t - dkappa_{t-1}
 *     dl_t = U_t.C_t - kappa_t dkappa_t;   dl_L also gets <H'', K>;   dlog_decay_t = sum of dl_s over s >= t.
 *
 * dl follows from each l_t scaling row t of C and 1/B, but for the diagonal. Sums run in BLAS order inside a chunk;
 * chunks, heads and sequences one after another. The operands are first copied side by side: rows that lie a power
 * of two apart in memory would evict each other from the cache. */
#include <string.h>

#include "kernels/arena.h"
#include "kernels/cpu/blas.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

/* What one chunk needs beside the tensors: L is at most the chunk length. */
struct buffers {
    real *e, *g, *f;                /* (L,L) E; G o E; F */
    real *decay, *r, *fall, *kappa; /* (L) l, r, f, kappa */
    real *g_diagonal, *m;           /* (L) G_tt; m */
    real *dkappa, *dlog;            /* (L) */
    real *b, *c, *n_out;            /* (L,N) B and C, scaled as the product at hand needs them; a result */
    real *x, *dy, *p_out;           /* (L,P) the same for x and dy */
    real *carry, *carried;          /* (P,N) K and K' */
};

/* One chunk of one head: its first token's rows, and how far apart rows are. */
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
    size_t l = s->chunk < s->time ? s->chunk : s->time, n = s->state, p = s->head_dim;
    return (struct buffers){
        .e = arena_reals(arena, l * l),
        .g = arena_reals(arena, l * l),
        .f = arena_reals(arena, l * l),
        .decay = arena_reals(arena, l),
        .r = arena_reals(arena, l),
        .fall = arena_reals(arena, l),
        .kappa = arena_reals(arena, l),
        .g_diagonal = arena_reals(arena, l),
        .m = arena_reals(arena, l),
        .dkappa = arena_reals(arena, l),
        .dlog = arena_reals(arena, l),
        .b = arena_reals(arena, l * n),
        .c = arena_reals(arena, l * n),
        .n_out = arena_reals(arena, l * n),
        .x = arena_reals(arena, l * p),
        .dy = arena_reals(arena, l * p),
        .p_out = arena_reals(arena, l * p),
        .carry = arena_reals(arena, p * n),
        .carried = arena_reals(arena, p * n),
    };
}

size_t cpu_ssd_scratch(const struct mamba_shape *shape) {
    struct arena count = {0};
    layout(&count, shape);
    return count.used;
}

static struct buffers scratch_buffers(struct lane *lane, const struct mamba_shape *shape) {
    struct arena arena = {.base = lane->scratch, .size = lane->scratch_bytes};
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

/* --- what both directions use ------------------------------------------------------------------------------------ */

static real dot(const real *a, const real *b, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += a[i] * b[i];
    return sum;
}

/* to (rows, width), side by side, = diag(weight) from; a weight of NULL is 1. */
static void copy_rows(real *to, const real *from, size_t stride, const real *weight, size_t rows, size_t width) {
    for (size_t t = 0; t < rows; t++) {
        real w = weight ? weight[t] : 1;
#pragma omp simd
        for (size_t i = 0; i < width; i++) to[t * width + i] = w * from[t * stride + i];
    }
}

/* l, r, f and kappa of a chunk. */
static void chunk_weights(const struct chunk *k, const struct buffers *w) {
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
        w->r[t] = real_exp(w->decay[t]);
        w->fall[t] = real_exp(sum - w->decay[t]);
    }
}

/* E. The loop over s runs past the diagonal to a whole number of vectors; what it gives there, even if it overflows, is
 * dropped. */
static void decay_matrix(const struct buffers *w, int length) {
    enum { VECTOR = 16 };
    for (int t = 0; t < length; t++) {
        int end = (t + VECTOR) / VECTOR * VECTOR;
        if (end > length) end = length;
        real *row = w->e + t * length, now = w->decay[t];
#pragma omp simd
        for (int s = 0; s < end; s++) {
            real e = real_exp(now - w->decay[s]);
            row[s] = s < t ? e : 0;
        }
        memset(row + end, 0, (size_t)(length - end) * sizeof(real));
    }
}

/* a = a o E, which has no diagonal: that is kept apart. */
static void apply_decay(const struct buffers *w, real *a, real *diagonal, size_t length) {
    for (size_t t = 0; t < length; t++) diagonal[t] = a[t * length + t];
#pragma omp simd
    for (size_t i = 0; i < length * length; i++) a[i] *= w->e[i];
}

/* The chunk's weights, G o E and G's diagonal; leaves B and C in the buffers. */
static void chunk_start(const struct chunk *k, const struct buffers *w) {
    size_t length = k->length, n = k->state;
    chunk_weights(k, w);
    decay_matrix(w, (int)length);
    copy_rows(w->b, k->b, k->bc_stride, NULL, length, n);
    copy_rows(w->c, k->c, k->bc_stride, NULL, length, n);
    gemm_nt(length, length, n, 1, w->c, n, w->b, n, 0, w->g, length);
    apply_decay(w, w->g, w->g_diagonal, length);
}

/* to, rows `stride` apart, = diag(weight) from + diag(gamma diagonal + skip) with; weight NULL is 1. */
static void write_rows(const struct chunk *k, real *to, size_t stride, const real *from, size_t width,
                       const real *weight, const real *diagonal, real skip, const real *with, size_t with_stride) {
    for (size_t t = 0; t < k->length; t++) {
        real w = weight ? weight[t] : 1, v = k->gamma[t * k->heads] * diagonal[t] + skip;
#pragma omp simd
        for (size_t i = 0; i < width; i++) to[t * stride + i] = w * from[t * width + i] + v * with[t * with_stride + i];
    }
}

static void scale_state(real *to, const real *from, real factor, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) to[i] = factor * from[i];
}

/* --- forward ----------------------------------------------------------------------------------------------------- */

static void chunk_forward(const struct chunk *k, const struct buffers *w, real *y, const real *state, real *next) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    chunk_start(k, w);
    copy_rows(w->x, k->x, k->x_stride, w->kappa, length, p);
    copy_rows(w->c, w->c, n, w->r, length, n);
    gemm_nn(length, p, length, 1, w->g, length, w->x, p, 0, w->p_out, p);
    gemm_nt(length, p, n, 1, w->c, n, state, n, 1, w->p_out, p);
    write_rows(k, y, k->y_stride, w->p_out, p, NULL, w->g_diagonal, k->skip, k->x, k->x_stride);
    if (!next) return;
    copy_rows(w->b, w->b, n, w->fall, length, n);
    scale_state(next, state, w->r[length - 1], p * n);
    gemm_tn(p, n, length, 1, w->x, p, w->b, n, 1, next, n);
}

void cpu_ssd_forward(struct lane *lane, real *y, struct mamba_tape *tape, const real *proj,
                     const struct mamba_weights *weights, const struct mamba_shape *shape) {
    struct buffers w = scratch_buffers(lane, shape);
    size_t chunks = mamba_chunks(shape);
    for (size_t batch = 0; batch < shape->batch; batch++)
        for (size_t head = 0; head < shape->heads; head++) {
            memset(state_at(tape, shape, batch, head, 0), 0, shape->head_dim * shape->state * sizeof(real));
            for (size_t i = 0; i < chunks; i++) {
                struct chunk k = chunk_at(shape, tape, proj, weights->d, batch, head, i);
                real *next = i + 1 < chunks ? state_at(tape, shape, batch, head, i + 1) : NULL;
                chunk_forward(&k, &w, y + k.row * k.y_stride + head * shape->head_dim,
                              state_at(tape, shape, batch, head, i), next);
            }
        }
}

void cpu_ssd_silu_gate_forward(struct lane *lane, real *gated, real *y, struct mamba_tape *tape, const real *proj,
                               const struct mamba_weights *weights, const struct mamba_shape *shape) {
    struct mamba_columns k = mamba_columns(shape);
    cpu_ssd_forward(lane, y, tape, proj, weights, shape);
    cpu_silu_gate_forward(lane, gated, y, proj + k.z, k.width, shape->batch * shape->time,
                          shape->heads * shape->head_dim);
}

/* --- backward ---------------------------------------------------------------------------------------------------- */

/* X and dx. Leaves x and dy in their buffers, and spends B's. */
static void backward_x(const struct chunk *k, const struct buffers *w, real *dx) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    copy_rows(w->b, w->b, n, w->fall, length, n);
    gemm_tn(length, p, length, 1, w->g, length, w->dy, p, 0, w->p_out, p);
    gemm_nt(length, p, n, 1, w->b, n, w->carry, n, 1, w->p_out, p);
    write_rows(k, dx, k->x_stride, w->p_out, p, w->kappa, w->g_diagonal, k->skip, w->dy, p);
}

/* V, dB, dkappa and their part of dl. Needs C in its buffer, and spends x's. */
static void backward_b(const struct chunk *k, const struct buffers *w, real *db) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    copy_rows(w->x, w->x, p, w->fall, length, p);
    gemm_tn(length, n, length, 1, w->f, length, w->c, n, 0, w->n_out, n);
    gemm_nn(length, n, p, 1, w->x, p, w->carry, n, 1, w->n_out, n);
    for (size_t t = 0; t < length; t++) {
        w->dkappa[t] = dot(w->n_out + t * n, k->b + t * k->bc_stride, n);
        w->dlog[t] = -w->kappa[t] * w->dkappa[t];
    }
    write_rows(k, db, k->bc_stride, w->n_out, n, w->kappa, w->m, 0, w->c, n);
}

/* U, dC and their part of dl. Leaves diag(r) dy in dy's buffer. */
static void backward_c(const struct chunk *k, const struct buffers *w, real *dc, const real *state) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    copy_rows(w->b, k->b, k->bc_stride, w->kappa, length, n);
    copy_rows(w->dy, w->dy, p, w->r, length, p);
    gemm_nn(length, n, length, 1, w->f, length, w->b, n, 0, w->n_out, n);
    gemm_nn(length, n, p, 1, w->dy, p, state, n, 1, w->n_out, n);
    for (size_t t = 0; t < length; t++) w->dlog[t] += dot(w->n_out + t * n, w->c + t * n, n);
    write_rows(k, dc, k->bc_stride, w->n_out, n, NULL, w->m, 0, k->b, k->bc_stride);
}

/* K' for the chunk before, from diag(r) dy and C in their buffers. */
static void backward_carry(const struct chunk *k, struct buffers *w) {
    size_t length = k->length, p = k->head_dim, n = k->state;
    scale_state(w->carried, w->carry, w->r[length - 1], p * n);
    gemm_tn(p, n, length, 1, w->dy, p, w->c, n, 1, w->carried, n);
    real *swap = w->carry;
    w->carry = w->carried;
    w->carried = swap;
}

/* From m, dkappa and dl to delta, log_decay and gamma. kappa_t reaches token t+1, which may be in the chunk after:
 * that chunk was finished before this one, so its first ddelta and dgamma are completed here. */
static void backward_steps(const struct chunk *k, const struct buffers *w, real *ddelta, real *dlog_decay,
                           real *dgamma) {
    size_t heads = k->heads;
    real sum = 0;
    for (size_t t = k->length; t-- > 0;) {
        dlog_decay[t * heads] = sum += w->dlog[t];
        dgamma[t * heads] = w->m[t] * w->g_diagonal[t] + w->dkappa[t];
        if (t + 1 == k->length && k->last) continue;
        ddelta[(t + 1) * heads] = w->dkappa[t];
        dgamma[(t + 1) * heads] -= w->dkappa[t];
    }
}

/* Returns the chunk's part of dD. next: H'', or NULL in the last chunk. */
static real chunk_backward(const struct chunk *k, struct buffers *w, real *dx, const struct mamba_tape_gradients *to,
                           const real *dy, const real *state, const real *next) {
    size_t length = k->length, p = k->head_dim, n = k->state, at = k->row * k->heads + k->head;
    chunk_start(k, w);
    copy_rows(w->x, k->x, k->x_stride, NULL, length, p);
    copy_rows(w->dy, dy, k->y_stride, NULL, length, p);
    gemm_nt(length, length, p, 1, w->dy, p, w->x, p, 0, w->f, length);
    apply_decay(w, w->f, w->m, length);
    backward_x(k, w, dx);
    backward_b(k, w, to->b + at * n);
    backward_c(k, w, to->c + at * n, state);
    if (next) w->dlog[length - 1] += dot(next, w->carry, p * n);
    backward_carry(k, w);
    backward_steps(k, w, to->delta + at, to->log_decay + at, to->gamma + at);
    real sum = 0;
    for (size_t t = 0; t < length; t++) sum += w->m[t];
    return sum;
}

void cpu_ssd_backward(struct lane *lane, real *dproj, const struct mamba_gradients *gradients,
                      const struct mamba_tape_gradients *dtape, const real *dy, const struct mamba_tape *tape,
                      const real *proj, const struct mamba_weights *weights, const struct mamba_shape *shape) {
    struct buffers w = scratch_buffers(lane, shape);
    size_t first = mamba_columns(shape).x, chunks = mamba_chunks(shape);
    for (size_t batch = 0; batch < shape->batch; batch++)
        for (size_t head = 0; head < shape->heads; head++) {
            memset(w.carry, 0, shape->head_dim * shape->state * sizeof(real));
            for (size_t i = chunks; i-- > 0;) {
                struct chunk k = chunk_at(shape, tape, proj, weights->d, batch, head, i);
                const real *next = i + 1 < chunks ? state_at(tape, shape, batch, head, i + 1) : NULL;
                size_t column = head * shape->head_dim;
                gradients->d[head] +=
                    chunk_backward(&k, &w, dproj + k.row * k.x_stride + first + column, dtape,
                                   dy + k.row * k.y_stride + column, state_at(tape, shape, batch, head, i), next);
            }
            dtape->delta[batch * shape->time * shape->heads + head] = 0;
        }
}
