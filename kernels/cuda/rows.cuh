/* rows: a warp has one row at a time; each lane keeps packs of ACTS neighbouring columns of it in registers. */
#pragma once
#include "kernels/cuda/vectors.cuh"

enum { NORM_WARPS = 8, NORM_THREADS = NORM_WARPS * WARP };

/* The row of this warp. */
__device__ static inline size_t warp_row() { return blockIdx.x * (size_t)NORM_WARPS + threadIdx.x / WARP; }
/* The first column of the lane's v-th pack of N. */
template <int N> __device__ static inline size_t column_of(int v) {
    return (v * WARP + threadIdx.x % WARP) * (size_t)N;
}

/* How many packs a lane keeps of a row; 0 when it cannot. */
static inline int packs_of(size_t dim, bool vectors) {
    if (!vectors || dim % ACTS != 0) return 0;
    size_t packs = ceil_div(dim, (size_t)ACTS * WARP);
    return packs <= 2 ? (int)packs : packs <= 4 ? 4 : packs <= 8 ? 8 : 0;
}
