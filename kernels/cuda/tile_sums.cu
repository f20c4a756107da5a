/* tile_sums: see tile_sums.cuh. Each part is read once: the published preset's 9 MB a call take 2 us. */
#include "kernels/cuda/tile_sums.cuh"

/* Grid: columns / 32, the vectors. A block has WARP columns, each of its warps every 32nd tile. */
__global__ void __launch_bounds__(WARP *WARP) sum_tiles(all_tile_sums all, size_t tiles) {
    float *room = shared_memory<float>(); /* (warps, lanes) */
    const tile_sums &s = all.sums[blockIdx.y];
    size_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, column = blockIdx.x * (size_t)WARP + lane;
    float sum = 0;
    if (column < s.columns)
        for (size_t copy = 0; copy < s.copies; copy++)
#pragma unroll 8
            for (size_t tile = warp; tile < tiles; tile += WARP)
                sum += s.parts[tile * s.width + copy * s.stride + column];
    room[warp * WARP + lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= s.columns) return;
    for (size_t i = 1; i < WARP; i++) sum += room[i * WARP + lane];
    s.to[column] += sum;
}

void add_tile_sums(const all_tile_sums &all, size_t tiles) {
    size_t most = 0;
    for (const tile_sums &s : all.sums) most = s.columns > most ? s.columns : most;
    dim3 grid((unsigned)ceil_div(most, WARP), sizeof all.sums / sizeof *all.sums);
    LAUNCH(sum_tiles, grid, WARP * WARP, WARP * WARP * sizeof(float), all, tiles);
}
