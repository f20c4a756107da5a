/* columns: kernels whose threads keep their columns and walk down the rows, so that a column's parameters stay in
 * registers, and so do its sums over rows.
 *
 * A warp has 32 N neighbouring columns. Rows are cut into groups, whose number depends on the shape alone; a block
 * has one group, and each of its warps every eighth row, or as many neighbours. Sums over rows: each warp's are added
 * within the block into one partial sum per group, in scratch, and those are added in order by tile_sums.
 *
 * Work has: enum { SUMS }; template <int N> struct columns, with a member pack<N> sum[SUMS] where SUMS > 0;
 *   begin(columns<N> &, c)          reads what belongs to columns c..c+N-1
 *   row(columns<N> &, r, c)         treats them in row r; or
 *   run(columns<N> &, r, end, c)    in the rows r..end-1, where rows read their neighbours */
#pragma once
#include "kernels/cuda/tile_sums.cuh"
#include "kernels/cuda/vectors.cuh"

enum {
    COLUMN_WARPS = 8,
    COLUMN_THREADS = COLUMN_WARPS * WARP,
    MOST_GROUPS = 1024,
    LEAST_GROUP_ROWS = 4 * COLUMN_WARPS,
    MOST_SUMS = 3
};

static inline size_t row_groups(size_t rows) {
    size_t groups = ceil_div(rows, LEAST_GROUP_ROWS);
    return groups < MOST_GROUPS ? groups : (size_t)MOST_GROUPS;
}

/* Bytes of scratch for the partial sums of any Work. */
static inline size_t column_sums_bytes(size_t rows, size_t dim) {
    return row_groups(rows) * MOST_SUMS * dim * sizeof(float);
}

/* partial[group][s][c] = the sum of what the block's warps have; a column's warps are added in order. */
template <int N, int SUMS>
__device__ static inline void store_block_sums(float *partial, const pack<N> (&sum)[SUMS], size_t dim) {
    enum { WIDTH = WARP * N };
    float *room = shared_memory<float>(); /* COLUMN_WARPS x WIDTH */
    size_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    for (int s = 0; s < SUMS; s++) {
        __syncthreads();
        for (int i = 0; i < N; i++) room[warp * WIDTH + lane * N + i] = sum[s].at[i];
        __syncthreads();
        for (size_t i = threadIdx.x; i < WIDTH; i += COLUMN_THREADS) {
            size_t c = blockIdx.x * (size_t)WIDTH + i;
            float total = 0;
            for (int w = 0; w < COLUMN_WARPS; w++) total += room[w * WIDTH + i];
            if (c < dim) partial[(blockIdx.y * (size_t)SUMS + s) * dim + c] = total;
        }
    }
}

template <int N, class Work>
static __global__ void __launch_bounds__(COLUMN_THREADS, 2)
    columns_kernel(Work work, float *partial, size_t rows, size_t dim, size_t group_rows) {
    size_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, c = (blockIdx.x * (size_t)WARP + lane) * N;
    size_t first = blockIdx.y * group_rows, end = first + group_rows < rows ? first + group_rows : rows;
    typename Work::template columns<N> mine = {};
    if (c < dim) {
        work.begin(mine, c);
        if constexpr (requires { work.run(mine, first, end, c); }) {
            size_t run = ceil_div(group_rows, COLUMN_WARPS), start = first + warp * run;
            work.run(mine, start, start + run < end ? start + run : end, c);
        } else {
            for (size_t r = first + warp; r < end; r += COLUMN_WARPS) work.row(mine, r, c);
        }
    }
    if constexpr (Work::SUMS > 0) store_block_sums(partial, mine.sum, dim);
}

template <int N, class Work>
static void launch_columns(const char *name, const Work &work, float *partial, size_t rows, size_t dim) {
    size_t groups = row_groups(rows), group_rows = groups ? ceil_div(rows, groups) : 0;
    dim3 grid((unsigned)ceil_div(dim, WARP * N), (unsigned)groups);
    device_launch(name, columns_kernel<N, Work>, grid, dim3(COLUMN_THREADS),
                  Work::SUMS > 0 ? COLUMN_THREADS * N * sizeof(float) : 0, work, partial, rows, dim, group_rows);
}

/* `work` over (rows, dim), eight columns at a time where `vectors` says that addresses and strides allow it; its sums,
 * SUMS times dim, are added to `sums` by way of the lane's scratch. */
template <class Work>
static void for_each_column(const char *name, struct lane *lane, const Work &work, real *sums, size_t rows, size_t dim,
                            bool vectors) {
    float *partial = static_cast<float *>(lane->scratch);
    if (vectors && dim % ACTS == 0)
        launch_columns<ACTS>(name, work, partial, rows, dim);
    else
        launch_columns<1>(name, work, partial, rows, dim);
    size_t width = Work::SUMS * dim;
    if (width) add_tile_sums({{{sums, partial, width, width, 1, 0}}}, row_groups(rows));
}
