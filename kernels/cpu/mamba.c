/* mamba: from in_proj's row of a token to what the Mamba-3 recurrence uses (arXiv 2603.15569), its backward
 * pass, and the recurrence itself for decoding one token.
 *
 * Columns of a row: B, C (G,N), dt', a', lambda' (H), theta' (A). Head h belongs to group g = h/(H/G).
 *
 *     B^ = B inv_b,  inv_b = 1/sqrt(mean(B^2) + 1e-5) per group;   b = R(phi) (B^ b_norm + b_bias[h]);   C alike
 *     delta = softplus(dt' + dt_bias);  a = min(-softplus(a'), -1e-4);  log_decay = a delta
 *     gamma = sigmoid(lambda') delta;   phi_t[h,j] = phi_{t-1}[h,j] + pi tanh(theta'_t[j]) delta_t[h]
 *
 * R turns the pairs (e, o) = (2j, 2j+1), j < A, into (e cos - o sin, e sin + o cos). phi is summed in float64 and
 * kept in [-pi, pi], because float32 would lose the angle over thousands of tokens.
 *
 * Backward. With (E, O) a rotated pair and (dE, dO) its gradient, de = dE cos + dO sin, do = dO cos - dE sin, and
 * dphi = dO E - dE O, summed over B and C. The steps of phi collect F_t = sum_{s>=t} dphi_s (float64), so rows run
 * from last to first:
 *
 *     ddelta[h] += sum_j pi tanh(theta'_j) F[h,j];   dtheta'_j = pi (1 - tanh^2(theta'_j)) sum_h delta[h] F[h,j]
 *     ddelta += a dlog_decay + sigmoid(lambda') dgamma;   ddt' = ddelta sigmoid(dt' + dt_bias)
 *     da' = -sigmoid(a') delta dlog_decay where the bound does not hold a, else 0;
 *     dlambda' = delta dgamma s (1 - s), s = sigmoid(lambda')
 *     g = sum of the group's heads of db;  db_norm += g B^;  dB = inv_b (u - B^ mean(u B^)), u = g b_norm.
 *
 * The weights' gradients are added row by row, from the last row of each sequence to the first. */
#include <string.h>

#include "kernels/arena.h"
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

#define LEAST_DECAY ((real)1e-4)
#define PI ((real)M_PI)

/* Where one token's values go; the members are those of struct mamba_tape. */
struct row {
    real *b, *c;                     /* (heads, state) */
    real *inv_b, *inv_c;             /* (groups) */
    real *delta, *log_decay, *gamma; /* (heads) */
    real *cosine, *sine;             /* (heads, angles) */
};

/* Scratch of prepare_row; phase is set by the caller: (heads, angles), in [-pi, pi], of the token before. */
struct prepare_scratch {
    double *phase;
    real *angle; /* (heads, angles) phase, rounded */
    real *rate;  /* (angles) pi tanh(theta') */
    real *unit;  /* (state) a group's normed B or C */
};

static struct prepare_scratch row_layout(struct arena *arena, const struct mamba_shape *s) {
    return (struct prepare_scratch){
        .phase = arena_take(arena, s->heads * s->angles * sizeof(double)),
        .angle = arena_reals(arena, s->heads * s->angles),
        .rate = arena_reals(arena, s->angles),
        .unit = arena_reals(arena, s->state),
    };
}

/* --- forward ----------------------------------------------------------------------------------------------------- */

static void prepare_rates(const struct row *to, const real *proj, const real *dt_bias,
                          const struct mamba_shape *shape) {
    struct mamba_columns k = mamba_columns(shape);
#pragma omp simd
    for (size_t h = 0; h < shape->heads; h++) {
        real delta = real_softplus(proj[k.dt + h] + dt_bias[h]), a = -real_softplus(proj[k.a + h]);
        to->delta[h] = delta;
        to->log_decay[h] = (a < -LEAST_DECAY ? a : -LEAST_DECAY) * delta;
        to->gamma[h] = real_sigmoid(proj[k.lambda + h]) * delta;
    }
}

static void prepare_angles(const struct row *to, const struct prepare_scratch *w, const real *theta,
                           const struct mamba_shape *shape) {
    size_t angles = shape->angles, count = shape->heads * angles;
#pragma omp simd
    for (size_t j = 0; j < angles; j++) w->rate[j] = PI * real_tanh(theta[j]);
    for (size_t h = 0; h < shape->heads; h++) {
        double *phase = w->phase + h * angles, delta = to->delta[h];
        real *angle = w->angle + h * angles;
#pragma omp simd
        for (size_t j = 0; j < angles; j++) {
            double next = phase[j] + w->rate[j] * delta;
            next -= 2 * M_PI * rint(next * (0.5 / M_PI));
            phase[j] = next;
            angle[j] = (real)next;
        }
    }
#pragma omp simd
    for (size_t i = 0; i < count; i++) to->cosine[i] = real_cos(w->angle[i]);
#pragma omp simd
    for (size_t i = 0; i < count; i++) to->sine[i] = real_sin(w->angle[i]);
}

/* The norm of one group: unit = x inv weight; returns inv. */
static real norm_group(real *unit, const real *x, const real *weight, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += x[i] * x[i];
    real inv = 1 / real_sqrt(sum / (real)count + (real)BC_NORM_EPSILON);
#pragma omp simd
    for (size_t i = 0; i < count; i++) unit[i] = x[i] * inv * weight[i];
    return inv;
}

static void rotate_pairs(real *restrict v, const real *restrict cosine, const real *restrict sine, size_t angles) {
#pragma omp simd
    for (size_t j = 0; j < angles; j++) {
        real e = v[2 * j], o = v[2 * j + 1];
        v[2 * j] = e * cosine[j] - o * sine[j];
        v[2 * j + 1] = e * sine[j] + o * cosine[j];
    }
}

/* B or C of all heads. */
static void prepare_vectors(real *to, real *inv, const struct row *row, const struct prepare_scratch *w, const real *x,
                            const real *norm, const real *bias, const struct mamba_shape *shape) {
    size_t state = shape->state, per_group = shape->heads / shape->groups, angles = shape->angles;
    for (size_t h = 0; h < shape->heads; h++) {
        size_t group = h / per_group;
        if (h % per_group == 0) inv[group] = norm_group(w->unit, x + group * state, norm, state);
        real *v = to + h * state;
#pragma omp simd
        for (size_t n = 0; n < state; n++) v[n] = w->unit[n] + bias[h * state + n];
        if (angles) rotate_pairs(v, row->cosine + h * angles, row->sine + h * angles, angles);
    }
}

/* Fills `to` from a row of in_proj and moves phase on to this token. */
static void prepare_row(const struct row *to, const struct prepare_scratch *scratch, const real *proj,
                        const struct mamba_weights *weights, const struct mamba_shape *shape) {
    struct mamba_columns k = mamba_columns(shape);
    prepare_rates(to, proj, weights->dt_bias, shape);
    if (shape->angles) prepare_angles(to, scratch, proj + k.theta, shape);
    prepare_vectors(to->b, to->inv_b, to, scratch, proj + k.b, weights->b_norm, weights->b_bias, shape);
    prepare_vectors(to->c, to->inv_c, to, scratch, proj + k.c, weights->c_norm, weights->c_bias, shape);
}

static struct row tape_row(const struct mamba_tape *tape, const struct mamba_shape *s, size_t row) {
    size_t heads = row * s->heads, pairs = s->angles ? heads * s->angles : 0;
    return (struct row){
        .b = tape->b + heads * s->state,
        .c = tape->c + heads * s->state,
        .inv_b = tape->inv_b + row * s->groups,
        .inv_c = tape->inv_c + row * s->groups,
        .delta = tape->delta + heads,
        .log_decay = tape->log_decay + heads,
        .gamma = tape->gamma + heads,
        .cosine = s->angles ? tape->cosine + pairs : NULL,
        .sine = s->angles ? tape->sine + pairs : NULL,
    };
}

void cpu_mamba_prepare_forward(struct lane *lane, struct mamba_tape *tape, const real *proj,
                               const struct mamba_weights *weights, const struct mamba_shape *shape) {
    struct arena arena = {.base = lane->scratch, .size = lane->scratch_bytes};
    struct prepare_scratch scratch = row_layout(&arena, shape);
    size_t width = mamba_columns(shape).width;
    for (size_t batch = 0; batch < shape->batch; batch++) {
        if (shape->angles) memset(scratch.phase, 0, shape->heads * shape->angles * sizeof(double));
        for (size_t t = 0; t < shape->time; t++) {
            size_t row = batch * shape->time + t;
            struct row to = tape_row(tape, shape, row);
            prepare_row(&to, &scratch, proj + row * width, weights, shape);
        }
    }
}

/* --- backward ---------------------------------------------------------------------------------------------------- */

struct backward_scratch {
    double *phase;       /* (heads, angles) F */
    real *rate, *dtheta; /* (angles) */
    real *ddelta;        /* (heads) */
    real *vector;        /* (state) gradient of one head's vector before rotation */
    real *group;         /* (state) the same, summed over a group */
};

static struct backward_scratch backward_layout(struct arena *arena, const struct mamba_shape *s) {
    return (struct backward_scratch){
        .phase = arena_take(arena, s->heads * s->angles * sizeof(double)),
        .rate = arena_reals(arena, s->angles),
        .dtheta = arena_reals(arena, s->angles),
        .ddelta = arena_reals(arena, s->heads),
        .vector = arena_reals(arena, s->state),
        .group = arena_reals(arena, s->state),
    };
}

/* Undoes the rotation of v's gradient and adds dphi = dO E - dE O to F. */
static void rotate_pairs_backward(real *restrict dv, double *restrict phase, const real *restrict gradient,
                                  const real *restrict v, const real *restrict cosine, const real *restrict sine,
                                  size_t angles) {
#pragma omp simd
    for (size_t j = 0; j < angles; j++) {
        real de = gradient[2 * j], dodd = gradient[2 * j + 1];
        dv[2 * j] = de * cosine[j] + dodd * sine[j];
        dv[2 * j + 1] = dodd * cosine[j] - de * sine[j];
        phase[j] += dodd * v[2 * j] - de * v[2 * j + 1];
    }
}

/* dx = inv (u - x^ mean(u x^)), u = g weight; dweight += g x^ */
static void norm_group_backward(real *dx, real *dweight, const real *g, const real *x, real inv, const real *weight,
                                size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += g[i] * weight[i] * x[i];
    real mean = sum * inv / (real)count;
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        real unit = x[i] * inv;
        dweight[i] += g[i] * unit;
        dx[i] = inv * (g[i] * weight[i] - unit * mean);
    }
}

/* One of B and C: its tensors on the tape, its columns and its weights. */
struct vector_backward {
    const real *gradient, *rotated; /* (heads, state) of the row */
    const real *x, *inv, *norm;
    real *dx, *dnorm, *dbias;
};

static void vectors_backward(const struct vector_backward *v, const struct backward_scratch *w, const struct row *row,
                             const struct mamba_shape *shape) {
    size_t state = shape->state, per_group = shape->heads / shape->groups, angles = shape->angles;
    for (size_t h = 0; h < shape->heads; h++) {
        size_t group = h / per_group, at = h * state;
        memcpy(w->vector, v->gradient + at, state * sizeof(real));
        if (angles)
            rotate_pairs_backward(w->vector, w->phase + h * angles, v->gradient + at, v->rotated + at,
                                  row->cosine + h * angles, row->sine + h * angles, angles);
        if (h % per_group == 0) memset(w->group, 0, state * sizeof(real));
#pragma omp simd
        for (size_t n = 0; n < state; n++) {
            w->group[n] += w->vector[n];
            v->dbias[at + n] += w->vector[n];
        }
        if (h % per_group == per_group - 1)
            norm_group_backward(v->dx + group * state, v->dnorm, w->group, v->x + group * state, v->inv[group], v->norm,
                                state);
    }
}

/* F of this row is complete: gives dtheta' and sets ddelta to the phase's part. */
static void angles_backward(real *dtheta, const struct backward_scratch *w, const real *theta, const real *delta,
                            const struct mamba_shape *shape) {
    size_t angles = shape->angles;
    memset(w->ddelta, 0, shape->heads * sizeof(real));
    if (!angles) return;
    memset(w->dtheta, 0, angles * sizeof(real));
#pragma omp simd
    for (size_t j = 0; j < angles; j++) w->rate[j] = real_tanh(theta[j]);
    for (size_t h = 0; h < shape->heads; h++) {
        const double *phase = w->phase + h * angles;
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t j = 0; j < angles; j++) {
            real f = (real)phase[j];
            sum += w->rate[j] * f;
            w->dtheta[j] += delta[h] * f;
        }
        w->ddelta[h] = PI * sum;
    }
#pragma omp simd
    for (size_t j = 0; j < angles; j++) dtheta[j] = PI * (1 - w->rate[j] * w->rate[j]) * w->dtheta[j];
}

static void rates_backward(real *dproj, real *ddt_bias, const struct backward_scratch *w, const real *ddelta,
                           const real *dlog_decay, const real *dgamma, const real *proj, const real *dt_bias,
                           const real *delta, const struct mamba_shape *shape) {
    struct mamba_columns k = mamba_columns(shape);
#pragma omp simd
    for (size_t h = 0; h < shape->heads; h++) {
        real raw = proj[k.a + h], a = -real_softplus(raw), mix = real_sigmoid(proj[k.lambda + h]);
        bool bound = a >= -LEAST_DECAY;
        real sum = w->ddelta[h] + ddelta[h] + dlog_decay[h] * (bound ? -LEAST_DECAY : a) + dgamma[h] * mix;
        real ddt = sum * real_sigmoid(proj[k.dt + h] + dt_bias[h]);
        real slope = real_sigmoid(raw);
        dproj[k.dt + h] = ddt;
        ddt_bias[h] += ddt;
        dproj[k.a + h] = bound ? 0 : -slope * delta[h] * dlog_decay[h];
        dproj[k.lambda + h] = dgamma[h] * delta[h] * mix * (1 - mix);
    }
}

static void row_backward(real *dproj, const struct mamba_gradients *to, const struct mamba_tape_gradients *dtape,
                         const struct row *row, const struct backward_scratch *w, const real *proj,
                         const struct mamba_weights *weights, const struct mamba_shape *shape, size_t index) {
    struct mamba_columns k = mamba_columns(shape);
    size_t heads = index * shape->heads, vectors = heads * shape->state;
    const struct vector_backward b = {.gradient = dtape->b + vectors,
                                      .rotated = row->b,
                                      .x = proj + k.b,
                                      .inv = row->inv_b,
                                      .norm = weights->b_norm,
                                      .dx = dproj + k.b,
                                      .dnorm = to->b_norm,
                                      .dbias = to->b_bias};
    const struct vector_backward c = {.gradient = dtape->c + vectors,
                                      .rotated = row->c,
                                      .x = proj + k.c,
                                      .inv = row->inv_c,
                                      .norm = weights->c_norm,
                                      .dx = dproj + k.c,
                                      .dnorm = to->c_norm,
                                      .dbias = to->c_bias};
    vectors_backward(&b, w, row, shape);
    vectors_backward(&c, w, row, shape);
    angles_backward(dproj + k.theta, w, proj + k.theta, row->delta, shape);
    rates_backward(dproj, to->dt_bias, w, dtape->delta + heads, dtape->log_decay + heads, dtape->gamma + heads, proj,
                   weights->dt_bias, row->delta, shape);
}

void cpu_mamba_prepare_backward(struct lane *lane, real *dproj, const struct mamba_gradients *gradients,
                                const struct mamba_tape_gradients *dtape, const struct mamba_tape *tape,
                                const real *proj, const struct mamba_weights *weights,
                                const struct mamba_shape *shape) {
    struct arena arena = {.base = lane->scratch, .size = lane->scratch_bytes};
    struct backward_scratch scratch = backward_layout(&arena, shape);
    size_t width = mamba_columns(shape).width;
    for (size_t batch = 0; batch < shape->batch; batch++) {
        if (shape->angles) memset(scratch.phase, 0, shape->heads * shape->angles * sizeof(double));
        for (size_t t = shape->time; t-- > 0;) {
            size_t index = batch * shape->time + t;
            struct row row = tape_row(tape, shape, index);
            row_backward(dproj + index * width, gradients, dtape, &row, &scratch, proj + index * width, weights, shape,
                         index);
        }
    }
}

/* --- decoding ---------------------------------------------------------------------------------------------------- */

/* S = alpha (S + beta x_before B_before^T) + gamma x B^T; out = (S C + D x) silu(z); beta = delta - gamma. */

struct decode_scratch {
    struct prepare_scratch row;
    struct row now;
};

static struct decode_scratch decode_layout(struct arena *arena, const struct mamba_shape *s) {
    size_t vector = s->heads * s->state, pairs = s->heads * s->angles;
    return (struct decode_scratch){
        .row = row_layout(arena, s),
        .now = {.b = arena_reals(arena, vector),
                .c = arena_reals(arena, vector),
                .inv_b = arena_reals(arena, s->groups),
                .inv_c = arena_reals(arena, s->groups),
                .delta = arena_reals(arena, s->heads),
                .log_decay = arena_reals(arena, s->heads),
                .gamma = arena_reals(arena, s->heads),
                .cosine = arena_reals(arena, pairs),
                .sine = arena_reals(arena, pairs)},
    };
}

size_t cpu_mamba_prepare_scratch(const struct mamba_shape *shape) {
    struct arena backward = {0}, decode = {0};
    backward_layout(&backward, shape);
    decode_layout(&decode, shape);
    return backward.used > decode.used ? backward.used : decode.used;
}

/* One head's token. The new x and B are kept for the next one. */
static void decode_head(real *out, real *s, real *x_before, real *b_before, const struct row *row, size_t head,
                        const real *x, const real *z, real skip, const struct mamba_shape *shape) {
    size_t state = shape->state;
    const real *b = row->b + head * state, *c = row->c + head * state;
    real alpha = real_exp(row->log_decay[head]), gamma = row->gamma[head];
    real before = alpha * (row->delta[head] - gamma);
    for (size_t p = 0; p < shape->head_dim; p++, s += state) {
        real x_now = gamma * x[p], x_then = before * x_before[p], sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t n = 0; n < state; n++) {
            s[n] = alpha * s[n] + x_then * b_before[n] + x_now * b[n];
            sum += s[n] * c[n];
        }
        out[p] = (sum + skip * x[p]) * real_silu(z[p]);
    }
    memcpy(x_before, x, shape->head_dim * sizeof(real));
    memcpy(b_before, b, state * sizeof(real));
}

static void move_phase(const struct decode_scratch *w, real *phase, const real *proj,
                       const struct mamba_weights *weights, const struct mamba_shape *shape) {
    size_t count = shape->heads * shape->angles;
    for (size_t i = 0; i < count; i++) w->row.phase[i] = phase[i];
    prepare_row(&w->now, &w->row, proj, weights, shape);
    for (size_t i = 0; i < count; i++) phase[i] = (real)w->row.phase[i];
}

void cpu_mamba_decode(struct lane *lane, real *out, struct mamba_state *state, const real *proj,
                      const struct mamba_weights *weights, const struct mamba_shape *shape) {
    struct arena arena = {.base = lane->scratch, .size = lane->scratch_bytes};
    struct decode_scratch w = decode_layout(&arena, shape);
    struct mamba_columns k = mamba_columns(shape);
    size_t head_dim = shape->head_dim;
    for (size_t batch = 0; batch < shape->batch; batch++) {
        const real *row = proj + batch * k.width;
        size_t first = batch * shape->heads;
        move_phase(&w, shape->angles ? state->phase + first * shape->angles : NULL, row, weights, shape);
        for (size_t h = 0; h < shape->heads; h++)
            decode_head(out + (first + h) * head_dim, state->s + (first + h) * head_dim * shape->state,
                        state->x_before + (first + h) * head_dim, state->b_before + (first + h) * shape->state, &w.now,
                        h, row + k.x + h * head_dim, row + k.z + h * head_dim, weights->d[h], shape);
    }
}
