/* mamba_prepare: what its two directions share. Both work on tiles of 32 tokens of a sequence, a lane a token, and on
 * the scan's chunks for the phases; the layouts are those of ssd_head.cuh. */
#pragma once
#include "kernels/cuda/mamba.cuh"

static constexpr int PREPARE_THREADS = 128, PREPARE_WARPS = PREPARE_THREADS / WARP;
/* Chunks that a walk over time has on their way before it uses the first. */
static constexpr size_t CHUNKS_AT_ONCE = 16;

struct prepare_tensors {
    mamba_shape s;
    struct mamba_columns k;
    mamba_tape tape;
    mamba_weights weights;
    const bf16 *proj;
};

/* A tile of one sequence. */
struct token_tile {
    size_t batch, start, row; /* of the first token: its time, its row */
    int tokens;
};
__host__ __device__ static inline size_t token_tiles(const mamba_shape &s) { return ceil_div(s.time, WARP); }
__device__ static inline token_tile tile_of(const mamba_shape &s, size_t index) {
    size_t tiles = token_tiles(s), batch = index / tiles, start = index % tiles * WARP, left = s.time - start;
    return {batch, start, batch * s.time + start, (int)(left < WARP ? left : (size_t)WARP)};
}

/* The columns dt', a', lambda', theta' of a tile's rows: in shared memory when there is room, else where they are. A
 * row there is two elements longer or one, so that it has an odd number of words. */
static constexpr size_t STAGED_MOST = 512;
__host__ __device__ static inline size_t step_columns(const struct mamba_columns &k) { return k.width - k.dt; }
__host__ __device__ static inline size_t staged_pitch(size_t columns) {
    return (columns + 1) / 2 % 2 ? (columns + 1) / 2 * 2 : columns / 2 * 2 + 2;
}
static inline size_t staged_bytes(const struct mamba_columns &k) {
    size_t columns = step_columns(k);
    return columns <= STAGED_MOST ? WARP * staged_pitch(columns) * sizeof(bf16) : 0;
}

template <typename Element> struct column_tile {
    Element *rows; /* of the first token, from the column dt' on */
    size_t pitch;
};

__device__ static inline column_tile<const bf16> stage_columns(bf16 *room, const bf16 *rows,
                                                               const struct mamba_columns &k, int tokens) {
    size_t columns = step_columns(k), pitch = staged_pitch(columns);
    if (columns > STAGED_MOST) return {rows + k.dt, k.width};
    if ((reinterpret_cast<size_t>(rows + k.dt) % 16 | k.width % 8 | columns % 8) == 0) {
        unsigned pieces = (unsigned)columns / 8;
        for (unsigned i = threadIdx.x; i < (unsigned)tokens * pieces; i += PREPARE_THREADS) {
            unsigned t = i / pieces, column = i % pieces * 8;
            uint4 eight = *reinterpret_cast<const uint4 *>(rows + t * k.width + k.dt + column);
            uint32_t *to = reinterpret_cast<uint32_t *>(room + t * pitch + column);
            to[0] = eight.x, to[1] = eight.y, to[2] = eight.z, to[3] = eight.w;
        }
        return {room, pitch};
    }
    for (unsigned i = threadIdx.x; i < (unsigned)tokens * (unsigned)columns; i += PREPARE_THREADS) {
        unsigned t = i / (unsigned)columns, column = i % (unsigned)columns;
        room[t * pitch + column] = rows[t * k.width + k.dt + column];
    }
    return {room, pitch};
}
