/* parameters_initialise: the initial value of every tensor, each from its own random stream.
 *
 * Tensors are drawn side by side. A tensor's values depend on (seed, its name) alone; LAPACK runs inside a thread of
 * the team, where OpenBLAS keeps to one thread, so the bits do not depend on the number of threads. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/random.h"
#include "model/parameters.h"

void dgeqrf_(const int *m, const int *n, double *a, const int *lda, double *tau, double *work, const int *lwork,
             int *info);
void dorgqr_(const int *m, const int *n, const int *k, double *a, const int *lda, const double *tau, double *work,
             const int *lwork, int *info);

enum { QR_BLOCK = 64 };

/* Q of a normal (high, low) matrix in columns, each with the sign that makes R's diagonal positive. */
static void orthonormal_columns(double *q, int high, int low, double *tau, double *work) {
    int size = low * QR_BLOCK, info;
    dgeqrf_(&high, &low, q, &high, tau, work, &size, &info);
    double *sign = work + size;
    for (size_t j = 0; j < (size_t)low; j++) sign[j] = q[j * (size_t)high + j] < 0 ? -1.0 : 1.0;
    dorgqr_(&high, &low, &low, q, &high, tau, work, &size, &info);
    for (size_t j = 0; j < (size_t)low; j++)
        for (size_t i = 0; i < (size_t)high; i++) q[j * (size_t)high + i] *= sign[j];
}

/* Columns of LAPACK's Q are the rows of a wide matrix and the columns of a tall one. */
static status orthogonal(real *w, const struct tensor *tensor, struct random_stream stream) {
    size_t rows = tensor->shape[0], cols = tensor->shape[1];
    size_t high = rows > cols ? rows : cols, low = rows > cols ? cols : rows;
    double *q = malloc((high * low + low * (QR_BLOCK + 2)) * sizeof *q);
    if (!q) return status_new(STATUS_SYSTEM, "no memory to draw %s", tensor->name);
    for (size_t i = 0; i < high * low; i++) q[i] = random_normal(stream, i);
    double *tau = q + high * low;
    orthonormal_columns(q, (int)high, (int)low, tau, tau + low);
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < cols; c++) w[r * cols + c] = (real)(rows > cols ? q[c * high + r] : q[r * high + c]);
    free(q);
    return NULL;
}

static void dt_bias(real *w, size_t count, struct random_stream stream) {
    const double low = log(0.001), high = log(0.1);
    for (size_t i = 0; i < count; i++) {
        double delta = exp(low + (high - low) * random_uniform(stream, i));
        w[i] = (real)(delta + log(-expm1(-delta)));
    }
}

static status initialise(real *w, const struct tensor *tensor, uint64_t seed) {
    char consumer[sizeof tensor->name + 8];
    snprintf(consumer, sizeof consumer, "init %s", tensor->name);
    struct random_stream stream = random_stream(seed, consumer);
    size_t count = tensor->count;
    switch (tensor->init) {
    case INIT_ORTHOGONAL:
        return orthogonal(w, tensor, stream);
    case INIT_DT_BIAS:
        dt_bias(w, count, stream);
        break;
    case INIT_NORMAL:
        for (size_t i = 0; i < count; i++) w[i] = (real)(tensor->init_value * random_normal(stream, i));
        break;
    case INIT_ONE:
        for (size_t i = 0; i < count; i++) w[i] = 1;
        break;
    case INIT_CONSTANT:
        for (size_t i = 0; i < count; i++) w[i] = (real)tensor->init_value;
        break;
    case INIT_RESID_MIX:
        for (size_t i = 0; i < count; i++) w[i] = i < tensor->shape[1];
        break;
    case INIT_ZERO:
        memset(w, 0, count * sizeof *w);
        break;
    }
    return NULL;
}

status parameters_initialise(const struct parameters *p, real *weights, uint64_t seed) {
    status failure = NULL;
    int threads = backend_find("cpu")->lane_count();
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
    for (int i = 0; i < p->count; i++) {
        status s = initialise(weights + p->tensors[i].offset, &p->tensors[i], seed);
#pragma omp critical(parameters_initialise_failure)
        if (s && failure)
            status_free(s);
        else if (s)
            failure = s;
    }
    return failure;
}
