/* sequence_reference: the mixers in float64 by plain loops; see sequence_reference.h. */
#include "tests/kernels/sequence_reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 64 }; /* head_dim, state, angles in the tests are at most this */

static double sigmoid(double x) { return 1 / (1 + exp(-x)); }
static double softplus(double x) { return x > 30 ? x : log1p(exp(x)); }

static double inverse_rms(const real *x, size_t count, double epsilon) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)x[i] * (double)x[i];
    return 1 / sqrt(sum / (double)count + epsilon);
}

/* --- Mamba ------------------------------------------------------------------------------------------------------- */

/* One head of one sequence as it goes from token to token. */
struct head {
    double s[MOST][MOST], phase[MOST], b_before[MOST], x_before[MOST];
};

static void vector(double *to, const real *x, const real *norm, const real *bias, const double *phase, size_t state,
                   size_t angles) {
    double inv = inverse_rms(x, state, 1e-5);
    for (size_t n = 0; n < state; n++) to[n] = (double)x[n] * inv * (double)norm[n] + (double)bias[n];
    for (size_t j = 0; j < angles; j++) {
        double e = to[2 * j], o = to[2 * j + 1];
        to[2 * j] = e * cos(phase[j]) - o * sin(phase[j]);
        to[2 * j + 1] = e * sin(phase[j]) + o * cos(phase[j]);
    }
}

static void token(double *out, struct head *state, const real *row, const struct mamba_weights *w,
                  const struct mamba_shape *s, size_t h) {
    struct mamba_columns k = mamba_columns(s);
    size_t group = h / (s->heads / s->groups) * s->state, at = h * s->state, x = k.x + h * s->head_dim;
    double delta = softplus((double)row[k.dt + h] + (double)w->dt_bias[h]);
    double alpha = exp(fmin(-softplus((double)row[k.a + h]), -1e-4) * delta),
           lambda = sigmoid((double)row[k.lambda + h]);
    for (size_t j = 0; j < s->angles; j++) state->phase[j] += M_PI * tanh((double)row[k.theta + j]) * delta;
    double b[MOST], c[MOST];
    vector(b, row + k.b + group, w->b_norm, w->b_bias + at, state->phase, s->state, s->angles);
    vector(c, row + k.c + group, w->c_norm, w->c_bias + at, state->phase, s->state, s->angles);
    for (size_t p = 0; p < s->head_dim; p++) {
        double xp = (double)row[x + p], z = (double)row[k.z + h * s->head_dim + p], y = (double)w->d[h] * xp;
        for (size_t n = 0; n < s->state; n++) {
            state->s[p][n] = alpha * state->s[p][n] +
                             (1 - lambda) * delta * alpha * state->x_before[p] * state->b_before[n] +
                             lambda * delta * xp * b[n];
            y += state->s[p][n] * c[n];
        }
        out[p] = y * z * sigmoid(z);
        state->x_before[p] = xp;
    }
    memcpy(state->b_before, b, sizeof b);
}

void mamba_reference(double *out, const real *proj, const struct mamba_weights *weights,
                     const struct mamba_shape *shape) {
    struct head *state = malloc(sizeof *state);
    if (!state) abort();
    for (size_t b = 0; b < shape->batch; b++)
        for (size_t h = 0; h < shape->heads; h++) {
            memset(state, 0, sizeof *state);
            for (size_t t = 0; t < shape->time; t++) {
                size_t row = b * shape->time + t;
                token(out + (row * shape->heads + h) * shape->head_dim, state, proj + row * mamba_columns(shape).width,
                      weights, shape, h);
            }
        }
    free(state);
}

/* --- attention --------------------------------------------------------------------------------------------------- */

static void prepared(double *to, const real *x, double gain, size_t t, double base, const struct attention_shape *s) {
    size_t pairs = s->rope_dims / 2;
    double inv = inverse_rms(x, s->head_dim, 0x1p-23);
    for (size_t i = 0; i < s->head_dim; i++) to[i] = gain * (double)x[i] * inv;
    for (size_t i = 0; i < pairs; i++) {
        double angle = (double)t * pow(base, -2 * (double)i / (double)s->rope_dims), x1 = to[i], x2 = to[i + pairs];
        to[i] = x1 * cos(angle) + x2 * sin(angle);
        to[i + pairs] = x2 * cos(angle) - x1 * sin(angle);
    }
}

static double score(const double *query, const real *key, size_t t, double base, const struct attention_shape *s) {
    double k[MOST], sum = 0;
    prepared(k, key, 1, t, base, s);
    for (size_t i = 0; i < s->head_dim; i++) sum += query[i] * k[i];
    return sum / sqrt((double)s->head_dim);
}

void attention_reference(double *out, const real *q, const real *k, const real *v, const real *q_gain, double base,
                         const struct attention_shape *s) {
    size_t dim = s->head_dim, stride = s->kv_heads * dim;
    for (size_t at = 0; at < s->batch * s->time * s->heads; at++) {
        size_t h = at % s->heads, row = at / s->heads, t = row % s->time;
        size_t first = (row - t) * stride + h / (s->heads / s->kv_heads) * dim;
        double query[MOST], sum = 0, *to = out + at * dim;
        prepared(query, q + at * dim, (double)q_gain[h], t, base, s);
        memset(to, 0, dim * sizeof *to);
        for (size_t j = 0; j <= t; j++) {
            const real *value = v + first + j * stride;
            double weight = exp(score(query, k + first + j * stride, j, base, s));
            for (size_t i = 0; i < dim; i++) to[i] += weight * (double)value[i] * sigmoid((double)value[i]);
            sum += weight;
        }
        for (size_t i = 0; i < dim; i++) to[i] /= sum;
    }
}
