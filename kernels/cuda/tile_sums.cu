/* tile_sums: see tile_sums.cuh. Each part is read once: the published preset's 9 MB a call take 2 us. */
#include "kernels/cuda/tile_sums.cuh"

/* A block has eight neighbouring columns of a vector: what one access brings; and every 64th part of them a thread,
 * AHEAD at a time. Blocks are small enough for all of a call's to be on the device at once. */
static constexpr unsigned SUM_COLUMNS = 8, SUM_THREADS = 512, SUM_ROWS = SUM_THREADS / SUM_COLUMNS, AHEAD = 16;
static constexpr unsigned SUM_WARPS = SUM_THREADS / WARP;

__host__ __device__ static inline unsigned sum_blocks(const tile_sums &s) {
    return (unsigned)ceil_div(s.columns, SUM_COLUMNS);
}

/* Over the lanes that have the same column. */
__device__ static inline float column_sum(float x) {
#pragma unroll
    for (int offset = SUM_COLUMNS; offset < WARP; offset *= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
    return x;
}

/* Of a column, the parts that a thread has; those behind the last count as 0. */
__device__ static inline float thread_sum(const float *parts, size_t width, unsigned tiles) {
    float sum = 0, part[AHEAD];
    for (unsigned first = threadIdx.x / SUM_COLUMNS; first < tiles; first += AHEAD * SUM_ROWS) {
#pragma unroll
        for (unsigned i = 0; i < AHEAD; i++) {
            unsigned tile = first + i * SUM_ROWS;
            part[i] = tile < tiles ? parts[tile * width] : 0;
        }
#pragma unroll
        for (unsigned i = 0; i < AHEAD; i++) sum += part[i];
    }
    return sum;
}

/* Grid: the blocks of all vectors. */
__global__ void __launch_bounds__(SUM_THREADS) sum_tiles(all_tile_sums all, unsigned tiles) {
    float *room = shared_memory<float>(); /* (warps, columns) */
    unsigned block = blockIdx.x, which = 0, lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    for (; block >= sum_blocks(all.sums[which]); which++) block -= sum_blocks(all.sums[which]);
    const tile_sums &s = all.sums[which];
    size_t column = block * SUM_COLUMNS + threadIdx.x % SUM_COLUMNS;
    float sum = 0;
    if (column < s.columns)
        for (size_t copy = 0; copy < s.copies; copy++)
            sum += thread_sum(s.parts + copy * s.stride + column, s.width, tiles);
    sum = column_sum(sum);
    if (lane < SUM_COLUMNS) room[warp * SUM_COLUMNS + lane] = sum;
    __syncthreads();
    if (warp > 0) return;
    sum = 0;
#pragma unroll
    for (unsigned i = 0; i < SUM_WARPS * SUM_COLUMNS; i += WARP) sum += room[i + lane];
    sum = column_sum(sum);
    if (lane < SUM_COLUMNS && column < s.columns) s.to[column] += sum;
}

void add_tile_sums(const all_tile_sums &all, size_t tiles) {
    unsigned blocks = 0;
    for (const tile_sums &s : all.sums) blocks += sum_blocks(s);
    LAUNCH(sum_tiles, blocks, SUM_THREADS, SUM_WARPS * SUM_COLUMNS * sizeof(float), all, (unsigned)tiles);
}
