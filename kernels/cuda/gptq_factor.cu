/* gptq_factor: the damped Hessian, permuted and reversed, its Cholesky factor and that factor's inverse, in float64;
 * kernels/cpu/gptq.c says why this gives U.
 *
 *   for each panel k of SIDE columns:  L_kk = cholesky(A_kk), B_kk = L_kk^-1;  L_ik = A_ik B_kk^T;
 *                                      A_ij -= L_ik L_jk^T for i >= j > k
 *   for each row i of tiles:           B_ik = -B_ii sum_{k <= j < i} L_ij B_jk
 *
 * 1536 columns: 2.4 GFLOP; one block's work on 24 panels, one after the other, is the longest part: some 0.5 ms. */
#include "kernels/cuda/gptq.cuh"

enum { COLUMN_THREADS = 256, DIAGONAL_THREADS = 1024, FACTOR_PITCH = SIDE + 1 };

/* One block: the diagonal, and what damping adds to it. */
static __global__ void __launch_bounds__(DIAGONAL_THREADS) diagonal_kernel(gptq p, const double *h, double damping) {
    double *room = shared_memory<double>(), sum = 0;
    for (size_t i = threadIdx.x; i < p.cols; i += DIAGONAL_THREADS) {
        p.diagonal[i] = h[i * p.cols + i];
        sum += p.diagonal[i];
    }
    room[threadIdx.x] = sum;
    __syncthreads();
    for (unsigned half = DIAGONAL_THREADS / 2; half > 0; half /= 2) {
        if (threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x != 0) return;
    p.diagonal[p.cols] = damping * room[0] / (double)p.cols;
    *p.info = 0;
}

/* Not a number counts as least, so that every column has a place. */
__device__ static inline double rank_key(double x) { return x == x ? x : -INFINITY; }

static __global__ void __launch_bounds__(COLUMN_THREADS) order_kernel(gptq p) {
    size_t i = blockIdx.x * (size_t)COLUMN_THREADS + threadIdx.x, rank = 0;
    if (i >= p.cols) return;
    const double mine = rank_key(p.diagonal[i]);
    for (size_t j = 0; j < p.cols; j++) {
        double other = rank_key(p.diagonal[j]);
        rank += other > mine || (other == mine && j < i);
    }
    p.order[rank] = (uint32_t)i;
}

static __global__ void __launch_bounds__(COLUMN_THREADS) gather_kernel(gptq p, const double *h) {
    size_t i = blockIdx.y, j = blockIdx.x * (size_t)COLUMN_THREADS + threadIdx.x, n = p.cols;
    if (j >= p.size) return;
    double value = i == j ? 1 : 0;
    if (i < n && j < n && j <= i) {
        size_t row = p.order[n - 1 - i], col = p.order[n - 1 - j];
        double found = row < col ? h[row * n + col] : h[col * n + row];
        value = i != j ? found : found == 0 ? 1 : found + p.diagonal[n];
    }
    p.hessian[i * p.size + j] = value;
    p.inverse[i * p.size + j] = 0;
}

/* The lower factor of a tile in shared memory, in place. */
__device__ static inline void factor_tile(double *a, size_t first, int *info) {
    for (unsigned k = 0; k < SIDE; k++) {
        double pivot = a[k * FACTOR_PITCH + k], root = sqrt(pivot);
        __syncthreads();
        if (threadIdx.x == 0 && *info == 0 && !(pivot > 0 && pivot < INFINITY)) *info = (int)(first + k + 1);
        if (threadIdx.x >= k && threadIdx.x < SIDE)
            a[threadIdx.x * FACTOR_PITCH + k] = threadIdx.x == k ? root : a[threadIdx.x * FACTOR_PITCH + k] / root;
        __syncthreads();
        for (unsigned e = threadIdx.x; e < TILE_ELEMENTS; e += TILE_THREADS) {
            unsigned i = e / SIDE, j = e % SIDE;
            if (j > k && j <= i) a[i * FACTOR_PITCH + j] -= a[i * FACTOR_PITCH + k] * a[j * FACTOR_PITCH + k];
        }
        __syncthreads();
    }
}

/* One block: the factor of panel k's tile on the diagonal, and its inverse, a column a thread. */
static __global__ void __launch_bounds__(TILE_THREADS) factor_kernel(gptq p, size_t k) {
    double *a = shared_memory<double>(), *x = a + (size_t)SIDE * FACTOR_PITCH;
    const size_t at = k * SIDE * (p.size + 1), col = threadIdx.x;
    for (unsigned e = threadIdx.x; e < TILE_ELEMENTS; e += TILE_THREADS)
        a[e / SIDE * FACTOR_PITCH + e % SIDE] = p.hessian[at + e / SIDE * p.size + e % SIDE];
    __syncthreads();
    factor_tile(a, k * SIDE, p.info);
    if (col < SIDE)
        for (size_t i = 0; i < SIDE; i++) {
            double sum = i == col ? 1 : 0;
            for (size_t j = col; j < i; j++) sum -= a[i * FACTOR_PITCH + j] * x[j * FACTOR_PITCH + col];
            x[i * FACTOR_PITCH + col] = i < col ? 0 : sum / a[i * FACTOR_PITCH + i];
        }
    __syncthreads();
    for (unsigned e = threadIdx.x; e < TILE_ELEMENTS; e += TILE_THREADS)
        p.inverse[at + e / SIDE * p.size + e % SIDE] = x[e / SIDE * FACTOR_PITCH + e % SIDE];
}

/* L_ik = A_ik B_kk^T for the tiles i below panel k's. */
static __global__ void __launch_bounds__(TILE_THREADS) solve_kernel(gptq p, size_t k) {
    double *a = p.hessian + (k + 1 + blockIdx.x) * SIDE * p.size + k * SIDE;
    const double *b = p.inverse + k * SIDE * (p.size + 1);
    const size_t pitch = p.size;
    double sum[MICRO][MICRO] = {};
    multiply_tile(
        sum, SIDE, [=](size_t m, size_t d) { return a[m * pitch + d]; },
        [=](size_t d, size_t n) { return b[n * pitch + d]; });
    each_of_tile(sum, [=](size_t m, size_t n, double x) { a[m * pitch + n] = x; });
}

/* A_ij -= L_ik L_jk^T for the tiles behind panel k. */
static __global__ void __launch_bounds__(TILE_THREADS) update_kernel(gptq p, size_t k) {
    if (blockIdx.x > blockIdx.y) return;
    const size_t i = k + 1 + blockIdx.y, j = k + 1 + blockIdx.x, pitch = p.size;
    const double *left = p.hessian + i * SIDE * pitch + k * SIDE, *right = p.hessian + j * SIDE * pitch + k * SIDE;
    double *to = p.hessian + i * SIDE * pitch + j * SIDE, sum[MICRO][MICRO] = {};
    multiply_tile(
        sum, SIDE, [=](size_t m, size_t d) { return left[m * pitch + d]; },
        [=](size_t d, size_t n) { return right[n * pitch + d]; });
    each_of_tile(sum, [=](size_t m, size_t n, double x) { to[m * pitch + n] -= x; });
}

/* B_ik for the row i of tiles, a block for each k < i; rows before it are done. */
static __global__ void __launch_bounds__(TILE_THREADS) inverse_row_kernel(gptq p, size_t i) {
    const size_t k = blockIdx.x, pitch = p.size;
    const double *factor = p.hessian + i * SIDE * pitch + k * SIDE, *above = p.inverse + k * SIDE * (pitch + 1);
    const double *on_diagonal = p.inverse + i * SIDE * (pitch + 1);
    double *to = p.inverse + i * SIDE * pitch + k * SIDE, sum[MICRO][MICRO] = {}, done[MICRO][MICRO] = {};
    multiply_tile(
        sum, (i - k) * SIDE, [=](size_t m, size_t d) { return factor[m * pitch + d]; },
        [=](size_t d, size_t n) { return above[d * pitch + n]; });
    each_of_tile(sum, [=](size_t m, size_t n, double x) { to[m * pitch + n] = x; });
    __syncthreads();
    multiply_tile(
        done, SIDE, [=](size_t m, size_t d) { return on_diagonal[m * pitch + d]; },
        [=](size_t d, size_t n) { return to[d * pitch + n]; });
    each_of_tile(done, [=](size_t m, size_t n, double x) { to[m * pitch + n] = -x; });
}

void gptq_factor(const gptq &p, const double *h, double damping) {
    const unsigned columns = (unsigned)ceil_div(p.size, COLUMN_THREADS), tiles = (unsigned)(p.size / SIDE);
    LAUNCH(diagonal_kernel, 1, DIAGONAL_THREADS, DIAGONAL_THREADS * sizeof(double), p, h, damping);
    LAUNCH(order_kernel, columns, COLUMN_THREADS, 0, p);
    LAUNCH(gather_kernel, dim3(columns, (unsigned)p.size), COLUMN_THREADS, 0, p, h);
    for (unsigned k = 0; k < tiles; k++) {
        const unsigned behind = tiles - k - 1;
        LAUNCH(factor_kernel, 1, TILE_THREADS, (size_t)2 * SIDE * FACTOR_PITCH * sizeof(double), p, k);
        LAUNCH(solve_kernel, behind, TILE_THREADS, TILE_BYTES, p, k);
        LAUNCH(update_kernel, dim3(behind, behind), TILE_THREADS, TILE_BYTES, p, k);
    }
    for (unsigned i = 1; i < tiles; i++) LAUNCH(inverse_row_kernel, i, TILE_THREADS, TILE_BYTES, p, i);
}
