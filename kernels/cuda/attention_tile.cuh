/* attention_tile: tiles of heads in shared memory, and a warp's products of bf16 with them.
 *
 * Attention is products of ROWS x DIM matrices, DIM being head_dim padded with zeros to 32, 64 or 128. A block owns 128
 * rows (queries or keys), 16 * TILES of them a warp, kept in registers as `a` fragments of mma_m16n8k16; it streams
 * over tiles of 64 rows of the other side. 32 rows a warp halve the shared memory that is read per product, which is
 * what bounds mma.sync here: each 16 x 16 fragment of a tile (512 bytes) then feeds 4 products of 4096 FLOPs. At DIM
 * 128 the accumulators leave registers for 16 rows only. Rows in shared memory are 16 bytes longer than DIM, so the
 * eight rows that one ldmatrix reads lie in different banks. */
#pragma once
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/vectors.cuh"

enum { OWN_ROWS = 128, TILE_ROWS = 64, SLICE = 16, WIDEST_HEAD = 128 };

template <int DIM> struct tiling {
    static constexpr int TILES = DIM <= 64 ? 2 : 1;
    static constexpr int WARP_ROWS = 16 * TILES;
    static constexpr int THREADS = OWN_ROWS / WARP_ROWS * WARP;
    static constexpr int BLOCKS = DIM <= 64 ? 2 : 1; /* of a multiprocessor, for __launch_bounds__ */
    static constexpr int STRIDE = DIM + 8;           /* of a row in shared memory */
    static constexpr int TILE = TILE_ROWS * STRIDE;  /* elements of a tile */
};

/* Fragments of a warp's rows: of an operand, and of 16 and DIM columns of float sums. */
template <int DIM> using operand = uint32_t[tiling<DIM>::TILES][DIM / 16][4];
template <int DIM> using slice_operand = uint32_t[tiling<DIM>::TILES][4];
template <int DIM> using slice_sums = float[tiling<DIM>::TILES][2][4];
template <int DIM> using row_sums = float[tiling<DIM>::TILES][DIM / 8][4];

/* One head of one sequence, from some token on: `rows` rows of `dim` elements, `stride` elements apart. */
template <typename T> struct head_rows {
    T *first;
    int stride, rows, dim;

    __device__ head_rows from(int row) const { return {first + (ptrdiff_t)row * stride, stride, rows - row, dim}; }
    __device__ bool has(int row, int column) const { return row < rows && column < dim; }
    __device__ T *at(int row, int column) const { return first + row * stride + column; } /* row: a tile's */
};

/* Of a tensor (batch, time, heads, head_dim): what is the same for all its heads. */
struct head_layout {
    size_t sequence; /* elements of one */
    int stride, rows, dim;
};

static inline head_layout layout_of(const struct attention_shape *s, size_t heads) {
    size_t stride = heads * s->head_dim;
    return {s->time * stride, (int)stride, (int)s->time, (int)s->head_dim};
}

template <typename T>
__device__ static inline head_rows<T> head_of(T *x, const head_layout &l, int sequence, int head) {
    return {x + sequence * l.sequence + head * l.dim, l.stride, l.rows, l.dim};
}

/* The first ROWS rows of x to a tile, with zeros where x has nothing. The copies are left to copy_wait. */
template <int DIM, int ROWS, bool VECTORS>
__device__ static inline void load_rows(bf16 *tile, const head_rows<const bf16> &x) {
    constexpr int STRIDE = tiling<DIM>::STRIDE, THREADS = tiling<DIM>::THREADS, LOADS = DIM / 8;
    int thread = (int)threadIdx.x;
    if constexpr (VECTORS) {
        int row = thread / LOADS, column = thread % LOADS * 8;
        const bf16 *from = x.at(row, column); /* one pointer that walks: registers are scarce */
#pragma unroll
        for (int at = 0; at < ROWS; at += THREADS / LOADS) {
            copy_16(tile + (row + at) * STRIDE + column, from, x.has(row + at, column));
            from += THREADS / LOADS * x.stride;
        }
    } else {
#pragma unroll 1
        for (int at = thread; at < ROWS * DIM; at += THREADS) {
            int row = at / DIM, column = at % DIM;
            tile[row * STRIDE + column] = x.has(row, column) ? *x.at(row, column) : bf16{0};
        }
    }
}

template <int DIM> __device__ static inline void load_operand(operand<DIM> &a, const bf16 *tile, int row) {
    int lane = (int)threadIdx.x % WARP;
    const bf16 *from = tile + (row + lane % 16) * tiling<DIM>::STRIDE + lane / 16 * 8;
#pragma unroll
    for (int t = 0; t < tiling<DIM>::TILES; t++)
#pragma unroll
        for (int k = 0; k < DIM / 16; k++) ldmatrix_x4(a[t][k], from + t * 16 * tiling<DIM>::STRIDE + k * 16);
}

/* s = a x^T for the 16 rows of the tile x from `row`. */
template <int DIM>
__device__ static inline void multiply_slice(slice_sums<DIM> &s, const operand<DIM> &a, const bf16 *x, int row) {
    int lane = (int)threadIdx.x % WARP;
    const bf16 *from =
        x + ((lane % 8 + lane / 16 * 8) * tiling<DIM>::STRIDE + lane / 8 % 2 * 8) + row * tiling<DIM>::STRIDE;
#pragma unroll
    for (int i = 0; i < tiling<DIM>::TILES * 8; i++) s[i / 8][i / 4 % 2][i % 4] = 0;
#pragma unroll
    for (int k = 0; k < DIM / 16; k++) {
        uint32_t b[4];
        ldmatrix_x4(b, from + k * 16);
        const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
        for (int t = 0; t < tiling<DIM>::TILES; t++) {
            mma_m16n8k16(s[t][0], a[t][k], left);
            mma_m16n8k16(s[t][1], a[t][k], right);
        }
    }
}

/* sums += p x for the 16 rows of the tile x from `row`. */
template <int DIM>
__device__ static inline void add_product(row_sums<DIM> &sums, const slice_operand<DIM> &p, const bf16 *x, int row) {
    int lane = (int)threadIdx.x % WARP;
    const bf16 *from = x + (lane % 16 * tiling<DIM>::STRIDE + lane / 16 * 8) + row * tiling<DIM>::STRIDE;
#pragma unroll
    for (int n = 0; n < DIM / 16; n++) {
        uint32_t b[4];
        ldmatrix_x4_trans(b, from + n * 16);
        const uint32_t left[2] = {b[0], b[1]}, right[2] = {b[2], b[3]};
#pragma unroll
        for (int t = 0; t < tiling<DIM>::TILES; t++) {
            mma_m16n8k16(sums[t][2 * n], p[t], left);
            mma_m16n8k16(sums[t][2 * n + 1], p[t], right);
        }
    }
}

/* A slice of sums, rounded to bf16, as the left operand of the next product. */
template <int DIM> __device__ static inline void round_slice(slice_operand<DIM> &a, const slice_sums<DIM> &s) {
#pragma unroll
    for (int t = 0; t < tiling<DIM>::TILES; t++)
#pragma unroll
        for (int i = 0; i < 4; i++) a[t][i] = pack_bf16(s[t][i / 2][i % 2 * 2], s[t][i / 2][i % 2 * 2 + 1]);
}

/* Row of the block, from the warp's first, of element e of a fragment in tile t; column of it in n tile n. */
__device__ static inline int fragment_row(int t, int e) { return t * 16 + e / 2 * 8 + (int)threadIdx.x % WARP / 4; }
__device__ static inline int fragment_column(int n, int e) { return n * 8 + (int)threadIdx.x % 4 * 2 + e % 2; }

/* The first rows of x = the warp's sums, each times factor[t][0 or 1], by way of the warp's own rows of a tile. */
template <int DIM, bool VECTORS>
__device__ static inline void store_rows(const head_rows<bf16> &x, bf16 *tile, const row_sums<DIM> &sums,
                                         const float (&factor)[tiling<DIM>::TILES][2]) {
    constexpr int STRIDE = tiling<DIM>::STRIDE, ROWS = tiling<DIM>::WARP_ROWS, LOADS = DIM / 8;
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < tiling<DIM>::TILES * (DIM / 8) * 2; i++) {
        int t = i / (DIM / 4), n = i / 2 % (DIM / 8), half = i % 2;
        float scale = factor[t][half];
        *reinterpret_cast<uint32_t *>(tile + fragment_row(t, 2 * half) * STRIDE + fragment_column(n, 0)) =
            pack_bf16(sums[t][n][2 * half] * scale, sums[t][n][2 * half + 1] * scale);
    }
    __syncwarp();
    if constexpr (VECTORS) {
        for (int at = lane; at < ROWS * LOADS; at += WARP) {
            int row = at / LOADS, column = at % LOADS * 8;
            const bf16 *from = tile + row * STRIDE + column;
            if (x.has(row, column)) store_16(x.at(row, column), *reinterpret_cast<const uint4 *>(from));
        }
    } else {
        for (int at = lane; at < ROWS * DIM; at += WARP) {
            int row = at / DIM, column = at % DIM;
            if (x.has(row, column)) *x.at(row, column) = tile[row * STRIDE + column];
        }
    }
}
