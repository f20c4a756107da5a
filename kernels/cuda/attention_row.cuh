/* attention_row: one query against many keys, without tensor cores: for decoding, and for heads too wide for tiles.
 *
 * A block of ROW_WARPS warps has one row x, as float in shared memory. A warp takes every ROW_WARPS-th chunk of 32 rows
 * of the other side: first a thread a row for the products with x, then a thread an element for the weighted sum of the
 * rows. Any number of elements; sums of warps are added in the order of the warps. */
#pragma once
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/vectors.cuh"

enum { ROW_WARPS = 8, ROW_THREADS = ROW_WARPS * WARP };

/* x = row, `factor` times. The block calls this together, and __syncthreads before it reads x. */
__device__ static inline void read_row(float *x, const bf16 *row, int dim, float factor) {
    for (int i = (int)threadIdx.x; i < dim; i += ROW_THREADS) x[i] = to_float(row[i]) * factor;
}

template <int N> __device__ static inline float row_dot(const float *x, const bf16 *row, int dim) {
    float sum = 0;
    for (int i = 0; i < dim; i += N) {
        pack<N> p = load<N>(row + i);
        for (int j = 0; j < N; j++) sum += x[i + j] * p.at[j];
    }
    return sum;
}
__device__ static inline float row_dot(const float *x, const bf16 *row, int dim, bool vectors) {
    return vectors ? row_dot<ACTS>(x, row, dim) : row_dot<1>(x, row, dim);
}

/* sums = fade sums + the weighted sum of `count` rows; `weights` are the warp's, and written by it just before. */
__device__ static inline void add_rows(float *sums, float fade, const float *weights, const bf16 *rows, size_t stride,
                                       int count, int dim) {
    __syncwarp();
    for (int i = (int)threadIdx.x % WARP; i < dim; i += WARP) {
        float sum = sums[i] * fade;
#pragma unroll 8
        for (int j = 0; j < count; j++) sum += weights[j] * to_float(rows[j * stride + i]);
        sums[i] = sum;
    }
    __syncwarp();
}

/* Floats of shared memory that attend_row needs. */
static inline size_t attend_row_floats(size_t dim) { return (1 + ROW_WARPS) * dim + ROW_WARPS * (WARP + 2); }

/* out (dim) = softmax(c q k^T) v over `count` keys, `stride` elements apart, c = 1/sqrt(dim); returns the log of the
 * denominator. */
__device__ static inline float attend_row(bf16 *out, const bf16 *q, const bf16 *k, const bf16 *v, size_t stride,
                                          int count, int dim, bool vectors) {
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float *x = shared_memory<float>(), *all_sums = x + dim, *sums = all_sums + warp * dim;
    float *weights = all_sums + ROW_WARPS * dim + warp * WARP;
    float *all_most = all_sums + ROW_WARPS * dim + ROW_THREADS, *all_total = all_most + ROW_WARPS;
    read_row(x, q, dim, LOG2_E / sqrtf((float)dim));
    for (int i = lane; i < dim; i += WARP) sums[i] = 0;
    __syncthreads();

    float most = -INFINITY, total = 0; /* the warp's: of scores in base 2, and of 2^(score - most) */
    for (int first = warp * WARP; first < count; first += ROW_THREADS) {
        bool seen = first + lane < count;
        float score = seen ? row_dot(x, k + (first + lane) * stride, dim, vectors) : -INFINITY;
        float top = fmaxf(most, warp_max(score)), fade = fast_exp2(most - top), weight = fast_exp2(score - top);
        total = total * fade + warp_sum(weight);
        most = top;
        weights[lane] = weight;
        add_rows(sums, fade, weights, v + first * stride, stride, min(WARP, count - first), dim);
    }
    if (lane == 0) all_most[warp] = most, all_total[warp] = total;
    __syncthreads();

    float top = -INFINITY, denominator = 0;
    for (int i = 0; i < ROW_WARPS; i++) top = fmaxf(top, all_most[i]);
    for (int i = 0; i < ROW_WARPS; i++) denominator += all_total[i] * fast_exp2(all_most[i] - top);
    for (int i = (int)threadIdx.x; i < dim; i += ROW_THREADS) {
        float sum = 0;
        for (int j = 0; j < ROW_WARPS; j++) sum += all_sums[j * dim + i] * fast_exp2(all_most[j] - top);
        out[i] = to_bf16(sum / denominator);
    }
    return (top + log2f(denominator)) / LOG2_E;
}
