/* gptq: what the factorisation and the rounding of GPTQ share: the scratch, and a product of tiles in float64. */
#pragma once
#include "kernels/cuda/device.cuh"

enum { SIDE = 64, TILE_ELEMENTS = SIDE * SIDE, DEPTH = 16, TILE_THREADS = 256, MICRO = 4, GPTQ_BLOCK = 128 };

/* Matrices of the Hessian's size are padded to whole tiles with the identity: size = n rounded up to SIDE. Row i of
 * the permuted weights is the weights' row i with its columns in `order`. */
struct gptq {
    size_t rows, cols, size;
    double *hessian;  /* (size, size), reversed; becomes its lower factor */
    double *inverse;  /* (size, size), of the factor */
    double *weights;  /* (rows, cols), permuted */
    double *errors;   /* (rows, GPTQ_BLOCK) */
    double *diagonal; /* (cols), of h; [cols] is what damping adds */
    uint32_t *order;  /* (cols): the original place of the i-th column */
    int *info;
    size_t bytes;
};

/* U, upper, with H^-1 = U^T U in the permuted order: the inverse factor, read backwards. */
__device__ static inline double upper_factor(const gptq &p, size_t i, size_t j) {
    return p.inverse[(p.cols - 1 - i) * p.size + (p.cols - 1 - j)];
}

/* Fills `inverse` from `h`; *info as gptq_quantize says. */
void gptq_factor(const gptq &p, const double *h, double damping);

/* sum += a b for one tile of SIDE x SIDE, of which each of the block's TILE_THREADS threads has MICRO x MICRO: rows
 * thread/16 + 16 i, columns thread%16 + 16 j. a(m, k) and b(k, n) give the elements, 0 outside. */
template <class Left, class Right>
__device__ static inline void multiply_tile(double (&sum)[MICRO][MICRO], size_t depth, const Left &a, const Right &b) {
    double *left = shared_memory<double>(), *right = left + SIDE * (DEPTH + 1);
    const unsigned row = threadIdx.x / 16, col = threadIdx.x % 16;
    for (size_t first = 0; first < depth; first += DEPTH) {
        for (unsigned e = threadIdx.x; e < SIDE * DEPTH; e += TILE_THREADS) {
            left[e / DEPTH * (DEPTH + 1) + e % DEPTH] = a(e / DEPTH, first + e % DEPTH);
            right[e] = b(first + e / SIDE, e % SIDE);
        }
        __syncthreads();
        for (unsigned k = 0; k < DEPTH; k++)
            for (unsigned i = 0; i < MICRO; i++)
                for (unsigned j = 0; j < MICRO; j++)
                    sum[i][j] += left[(row + 16 * i) * (DEPTH + 1) + k] * right[k * SIDE + col + 16 * j];
        __syncthreads();
    }
}

enum { TILE_BYTES = (SIDE * (DEPTH + 1) + SIDE * DEPTH) * sizeof(double) };

/* use(m, n, sum) for each of the thread's elements. */
template <class Use> __device__ static inline void each_of_tile(const double (&sum)[MICRO][MICRO], const Use &use) {
    for (unsigned i = 0; i < MICRO; i++)
        for (unsigned j = 0; j < MICRO; j++) use(threadIdx.x / 16 + 16 * i, threadIdx.x % 16 + 16 * j, sum[i][j]);
}
