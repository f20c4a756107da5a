/* embedding: token and bigram lookups, and smear, the gated mix of a token with the one before it.
 *
 *   smear    y_t = g x_t + (1-g) x_{t-1}, g = sigmoid(gate), x_{-1} = 0
 *   backward x_t reaches y_t with weight g and y_{t+1} with 1-g; dg/dgate = g (1-g)
 *
 * x, y (B,T,D), gate (D). Columns are handled in blocks, so that g is computed once a block and kept in cache. */
#include <string.h>

#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

enum { COLUMN_BLOCK = 512 };

size_t cpu_embedding_scratch(size_t rows, size_t dim, size_t entries) {
    (void)rows, (void)dim, (void)entries;
    return 0;
}

void cpu_embedding_forward(struct lane *lane, real *x, const int32_t *ids, const real *table, size_t rows, size_t dim) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) memcpy(x + r * dim, table + (size_t)ids[r] * dim, dim * sizeof *x);
}

void cpu_embedding_backward(struct lane *lane, real *dtable, const int32_t *ids, const real *dx, size_t rows,
                            size_t dim, size_t entries) {
    (void)lane, (void)entries;
    for (size_t r = 0; r < rows; r++) {
        real *to = dtable + (size_t)ids[r] * dim;
        const real *from = dx + r * dim;
#pragma omp simd
        for (size_t i = 0; i < dim; i++) to[i] += from[i];
    }
}

void cpu_bigram_ids(struct lane *lane, int32_t *buckets, const int32_t *ids, size_t batch, size_t time,
                    size_t bucket_count) {
    (void)lane;
    for (size_t b = 0; b < batch; b++) {
        int32_t before = 0;
        for (size_t t = 0; t < time; t++) {
            int32_t id = ids[b * time + t];
            buckets[b * time + t] = bigram_bucket(before, id, bucket_count);
            before = id;
        }
    }
}

static size_t block_width(size_t start, size_t dim) { return dim - start < COLUMN_BLOCK ? dim - start : COLUMN_BLOCK; }

static void sigmoid_block(real *g, const real *gate, size_t width) {
#pragma omp simd
    for (size_t i = 0; i < width; i++) g[i] = real_sigmoid(gate[i]);
}

/* One sequence, the columns of one block: pointers are to the first of them. */
static void smear_block(real *y, const real *x, const real *g, size_t time, size_t dim, size_t width) {
#pragma omp simd
    for (size_t i = 0; i < width; i++) y[i] = g[i] * x[i];
    for (size_t t = 1; t < time; t++) {
        const real *now = x + t * dim, *before = now - dim;
        real *out = y + t * dim;
#pragma omp simd
        for (size_t i = 0; i < width; i++) out[i] = g[i] * now[i] + (1 - g[i]) * before[i];
    }
}

void cpu_smear_forward(struct lane *lane, real *y, const real *x, const real *gate, size_t batch, size_t time,
                       size_t dim) {
    (void)lane;
    if (!time) return;
    for (size_t start = 0; start < dim; start += COLUMN_BLOCK) {
        real g[COLUMN_BLOCK];
        size_t width = block_width(start, dim);
        sigmoid_block(g, gate + start, width);
        for (size_t b = 0; b < batch; b++) {
            size_t at = b * time * dim + start;
            smear_block(y + at, x + at, g, time, dim, width);
        }
    }
}

static void smear_block_backward(real *dx, real *sum, const real *dy, const real *x, const real *g, size_t time,
                                 size_t dim, size_t width) {
#pragma omp simd
    for (size_t i = 0; i < width; i++) sum[i] += dy[i] * x[i];
    for (size_t t = 1; t < time; t++) {
        const real *now = x + t * dim, *before = now - dim, *dnow = dy + t * dim, *dbefore = dnow - dim;
        real *out = dx + (t - 1) * dim;
#pragma omp simd
        for (size_t i = 0; i < width; i++) {
            sum[i] += dnow[i] * (now[i] - before[i]);
            out[i] = g[i] * dbefore[i] + (1 - g[i]) * dnow[i];
        }
    }
    size_t last = (time - 1) * dim;
#pragma omp simd
    for (size_t i = 0; i < width; i++) dx[last + i] = g[i] * dy[last + i];
}

void cpu_smear_backward(struct lane *lane, real *dx, real *dgate, const real *dy, const real *x, const real *gate,
                        size_t batch, size_t time, size_t dim) {
    (void)lane;
    if (!time) return;
    for (size_t start = 0; start < dim; start += COLUMN_BLOCK) {
        real g[COLUMN_BLOCK], sum[COLUMN_BLOCK] = {0};
        size_t width = block_width(start, dim);
        sigmoid_block(g, gate + start, width);
        for (size_t b = 0; b < batch; b++) {
            size_t at = b * time * dim + start;
            smear_block_backward(dx + at, sum, dy + at, x + at, g, time, dim, width);
        }
#pragma omp simd
        for (size_t i = 0; i < width; i++) dgate[start + i] += g[i] * (1 - g[i]) * sum[i];
    }
}
