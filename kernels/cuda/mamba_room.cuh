/* mamba_room: what mamba_prepare keeps in its lane's scratch, and the tiles of time that it works by. */
#pragma once
#include "kernels/cuda/mamba.cuh"

static constexpr size_t MAMBA_TILE = WARP;

__host__ __device__ static inline size_t mamba_tiles(const mamba_shape &s) { return ceil_div(s.time, MAMBA_TILE); }

/* R = batch x time; T = batch x tiles. */
struct prepare_room {
    double *sums;   /* (T, heads, angles) sums of a tile, then of all tiles before or behind it */
    float *unit;    /* forward: (2, R, groups, state) normed B and C */
    float *ddelta;  /* backward: (R, heads) the phase's part, inside the tile */
    float *dtheta;  /* (groups, R, angles) the sum over the group's heads of delta F, inside the tile */
    float *partial; /* (T, 2 heads state + heads + 2 groups state) each tile's part of db_bias, dc_bias, ddt_bias,
                       db_norm and dc_norm */
    size_t bytes;
};

__host__ __device__ static inline size_t partial_width(const mamba_shape &s) {
    return s.heads * (2 * s.state + 1) + 2 * s.groups * s.state;
}

static inline struct prepare_room prepare_room(void *scratch, const struct mamba_shape *shape) {
    const mamba_shape &s = *shape;
    size_t rows = s.batch * s.time, tiles = s.batch * mamba_tiles(s), used = 0;
    auto take = [&](size_t bytes) {
        char *at = (char *)scratch + used;
        used += (bytes + 255) / 256 * 256;
        return at;
    };
    struct prepare_room room;
    room.sums = (double *)take(tiles * s.heads * s.angles * sizeof(double));
    size_t shared = used; /* forward and backward use what follows in turn */
    room.unit = (float *)take(2 * rows * s.groups * s.state * sizeof(float));
    size_t forward = used;
    used = shared;
    room.ddelta = (float *)take(rows * s.heads * sizeof(float));
    room.dtheta = (float *)take(s.groups * rows * s.angles * sizeof(float));
    room.partial = (float *)take(tiles * partial_width(s) * sizeof(float));
    room.bytes = used > forward ? used : forward;
    return room;
}

static constexpr int SCAN_THREADS = 128;

/* In place: what each tile sums becomes the sum of all tiles before it, or (LATER) behind it; wrapped when phases. */
template <bool LATER>
static __global__ void __launch_bounds__(SCAN_THREADS)
    scan_tiles(double *sums, size_t batch, size_t tiles, size_t pairs) {
    size_t i = (size_t)blockIdx.x * SCAN_THREADS + threadIdx.x;
    if (i >= batch * pairs) return;
    double sum = 0, *at = sums + i / pairs * tiles * pairs + i % pairs;
#pragma unroll 8
    for (size_t step = 0; step < tiles; step++) {
        size_t tile = LATER ? tiles - 1 - step : step;
        double own = at[tile * pairs];
        at[tile * pairs] = sum;
        sum = LATER ? sum + own : wrap_turns(sum + own);
    }
}

template <bool LATER> static void launch_scan(double *sums, const mamba_shape &s) {
    size_t pairs = s.heads * s.angles;
    LAUNCH((scan_tiles<LATER>), (unsigned)ceil_div(s.batch * pairs, SCAN_THREADS), SCAN_THREADS, 0, sums, s.batch,
           mamba_tiles(s), pairs);
}
