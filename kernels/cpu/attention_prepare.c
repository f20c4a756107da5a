/* attention_prepare: raw q, k, v to what attention uses, and back; the table of RoPE's angles.
 *
 * Per row and head, hd = head_dim, r = rope_dims, pairs (i, i + r/2), i < r/2, angle = t base^(-2i/r):
 *
 *     x^ = x inv, inv = 1/sqrt(mean(x^2) + RMS_EPSILON);   R x^: (x1 cos + x2 sin, x2 cos - x1 sin), the rest stays
 *     q = q_gain[head] R q^;   k = R k^;   v = silu(v)
 *
 * Backward: R is a rotation, so R^T takes gradients and values back, and means of products are the same on both
 * sides. With g the gradient of the tape's q, that is of gain R q^:
 *
 *     dx = inv (gain R^T g - x^ mean(g q)),   x^ = R^T q / gain,   dgain += sum(g q) / gain     (k: gain 1)
 *
 * The tape does not hold R q^ itself, so a gain of exactly 0 receives no gradient. Rows in order. */
#include "kernels/cpu/attention_prepare.h"

#include "kernels/cpu/vector_math.h"

void cpu_rope_table(struct lane *lane, real *cosine, real *sine, size_t time, size_t rope_dims, double base) {
    (void)lane;
    size_t pairs = rope_dims / 2;
    for (size_t i = 0; i < pairs; i++) {
        double step = pow(base, -2.0 * (double)i / (double)rope_dims);
        for (size_t t = 0; t < time; t++) {
            cosine[t * pairs + i] = (real)cos((double)t * step);
            sine[t * pairs + i] = (real)sin((double)t * step);
        }
    }
}

/* --- forward ----------------------------------------------------------------------------------------------------- */

static real inverse_rms(const real *x, size_t count) {
    real sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += x[i] * x[i];
    return 1 / real_sqrt(sum / (real)count + (real)RMS_EPSILON);
}

real attention_prepare_head(real *to, const real *x, real gain, const real *cosine, const real *sine, size_t head_dim,
                            size_t rope_dims) {
    size_t pairs = rope_dims / 2;
    real inv = inverse_rms(x, head_dim), scale = gain * inv;
#pragma omp simd
    for (size_t i = 0; i < pairs; i++) {
        real x1 = x[i] * scale, x2 = x[i + pairs] * scale;
        to[i] = x1 * cosine[i] + x2 * sine[i];
        to[i + pairs] = x2 * cosine[i] - x1 * sine[i];
    }
#pragma omp simd
    for (size_t i = rope_dims; i < head_dim; i++) to[i] = x[i] * scale;
    return inv;
}

void attention_prepare_values(real *to, const real *v, size_t count) {
#pragma omp simd
    for (size_t i = 0; i < count; i++) to[i] = real_silu(v[i]);
}

void cpu_attention_prepare_forward(struct lane *lane, struct attention_tape *tape, const real *q, const real *k,
                                   const real *v, const real *q_gain, const real *cosine, const real *sine,
                                   const struct attention_shape *shape) {
    (void)lane;
    size_t dim = shape->head_dim, rope = shape->rope_dims;
    for (size_t row = 0; row < shape->batch * shape->time; row++) {
        size_t angle = row % shape->time * (rope / 2);
        for (size_t h = 0; h < shape->heads; h++) {
            size_t at = row * shape->heads + h;
            tape->inv_q[at] = attention_prepare_head(tape->q + at * dim, q + at * dim, q_gain[h], cosine + angle,
                                                     sine + angle, dim, rope);
        }
        for (size_t h = 0; h < shape->kv_heads; h++) {
            size_t at = row * shape->kv_heads + h;
            tape->inv_k[at] =
                attention_prepare_head(tape->k + at * dim, k + at * dim, 1, cosine + angle, sine + angle, dim, rope);
        }
    }
    attention_prepare_values(tape->v, v, shape->batch * shape->time * shape->kv_heads * dim);
}

/* --- backward ---------------------------------------------------------------------------------------------------- */

/* In place: g becomes dx; returns the gradient of the gain. x is what attention_prepare_head wrote. */
static real prepare_head_backward(real *g, const real *x, real inv, real gain, const real *cosine, const real *sine,
                                  size_t head_dim, size_t rope_dims) {
    size_t pairs = rope_dims / 2;
    real sum = 0, undo = gain != 0 ? 1 / gain : 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < head_dim; i++) sum += g[i] * x[i];
    real mean = sum / (real)head_dim * undo;
#pragma omp simd
    for (size_t i = 0; i < head_dim; i++) g[i] = inv * (gain * g[i] - x[i] * mean);
#pragma omp simd
    for (size_t i = 0; i < pairs; i++) {
        real g1 = g[i], g2 = g[i + pairs];
        g[i] = g1 * cosine[i] - g2 * sine[i];
        g[i + pairs] = g1 * sine[i] + g2 * cosine[i];
    }
    return sum * undo;
}

void cpu_attention_prepare_backward(struct lane *lane, real *dq, real *dk, real *dv, real *dq_gain,
                                    const struct attention_tape *tape, const real *v, const real *q_gain,
                                    const real *cosine, const real *sine, const struct attention_shape *shape) {
    (void)lane;
    size_t dim = shape->head_dim, rope = shape->rope_dims, values = shape->kv_heads * dim;
    for (size_t row = 0; row < shape->batch * shape->time; row++) {
        const real *c = cosine + row % shape->time * (rope / 2), *s = sine + row % shape->time * (rope / 2);
        for (size_t h = 0; h < shape->heads; h++) {
            size_t at = row * shape->heads + h;
            dq_gain[h] +=
                prepare_head_backward(dq + at * dim, tape->q + at * dim, tape->inv_q[at], q_gain[h], c, s, dim, rope);
        }
        for (size_t h = 0; h < shape->kv_heads; h++) {
            size_t at = row * shape->kv_heads + h;
            prepare_head_backward(dk + at * dim, tape->k + at * dim, tape->inv_k[at], 1, c, s, dim, rope);
        }
#pragma omp simd
        for (size_t i = row * values; i < (row + 1) * values; i++) dv[i] *= real_silu_slope(v[i]);
    }
}
