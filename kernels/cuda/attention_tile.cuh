/* attention_tile: tiles of heads in shared memory, and a warpgroup's products with them.
 *
 * Attention is products of rows of DIM elements, DIM being head_dim padded with zeros to 64 or 128. A warpgroup owns 64
 * rows (queries or keys), whose sums are in registers, and goes over the rows of the other side, some at a step. Those
 * come in tiles of 64 rows; of 32 at DIM 128, so that a block fits into the shared memory of devices that have 99 KB.
 */
#pragma once
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/vectors.cuh"
#include "kernels/cuda/warpgroup.cuh"

enum { OWN_ROWS = 64, WIDEST_HEAD = 128, LEAST_SHARED = 99 << 10 /* bytes that a block of any device may have */ };

template <int DIM> constexpr int TILE_ROWS = DIM <= 64 ? 64 : 32;
template <int DIM> using own_tile = panels<OWN_ROWS, DIM>;
template <int DIM> using other_tile = panels<TILE_ROWS<DIM>, DIM>;

/* A thread's share of a warpgroup's 64 rows of sums, and of those, rounded, as left operand. */
template <int COLUMNS> using row_sums = float[COLUMNS / 8][4];
template <int COLUMNS> using operand = uint32_t[COLUMNS / 16][4];

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

/* Thread `thread` of THREADS copies its share of the first ROWS rows of x to a tile, with zeros where x has nothing.
 * The copies are left to copy_wait. */
template <int THREADS, bool VECTORS, int ROWS, int DIM>
__device__ static inline void load_rows(panels<ROWS, DIM> *tile, const head_rows<const bf16> &x, int thread) {
    if constexpr (VECTORS) {
        constexpr int LOADS = DIM / 8, STEP = THREADS / LOADS;
        static_assert(THREADS % LOADS == 0);
        int first = thread / LOADS, column = thread % LOADS * 8;
#pragma unroll
        for (int at = 0; at < ROWS; at += STEP) {
            int row = first + at;
            if (at + STEP <= ROWS || row < ROWS)
                copy_16(tile->piece(row, column), x.at(row, column), x.has(row, column));
        }
    } else {
#pragma unroll 1
        for (int at = thread; at < ROWS * DIM; at += THREADS) {
            int row = at / DIM, column = at % DIM;
            *tile->at(row, column) = x.has(row, column) ? *x.at(row, column) : bf16{0};
        }
    }
}

/* A warpgroup's own rows as left operand of products with rows of tiles: held in registers, or read anew. */
template <int DIM, bool HELD> struct own_rows {
    const own_tile<DIM> *tile;
    uint32_t held[HELD ? DIM / 16 : 1][4];

    __device__ void take(const own_tile<DIM> *from) {
        tile = from;
        int lane = (int)threadIdx.x % WARP, row = (int)threadIdx.x % WARPGROUP / WARP * 16 + lane % 16;
        if constexpr (HELD)
#pragma unroll
            for (int k = 0; k < DIM / 16; k++) ldmatrix_x4(held[k], from->piece(row, k * 16 + lane / 16 * 8));
    }
    /* d = own x^T for x's rows from `row` on, under way. */
    template <int TILES> __device__ void multiply_by(float (&d)[TILES][4], const other_tile<DIM> *x, int row) const {
#pragma unroll
        for (int k = 0; k < DIM / 16; k++)
            if constexpr (HELD)
                multiply<BY_ROWS>(d, held[k], x, row, k * 16, k > 0);
            else
                multiply<BY_ROWS, BY_ROWS>(d, tile, 0, x, row, k * 16, k > 0);
    }
};

/* sums += a x for x's rows from `row` on, under way. */
template <int DIM, int STEPS>
__device__ static inline void add_product(float (&sums)[DIM / 8][4], const uint32_t (&a)[STEPS][4],
                                          const other_tile<DIM> *x, int row) {
#pragma unroll
    for (int i = 0; i < STEPS; i++) multiply<BY_COLUMNS>(sums, a[i], x, 0, row + i * 16);
}

template <int STEPS, int TILES>
__device__ static inline void round_sums(uint32_t (&a)[STEPS][4], const float (&s)[TILES][4]) {
    static_assert(TILES == 2 * STEPS);
#pragma unroll
    for (int i = 0; i < STEPS; i++) pack_left(a[i], s, i);
}

/* Two products of bf16, rounded. */
__device__ static inline uint32_t multiply_pairs(uint32_t a, uint32_t b) {
#ifdef HINGE_CUDA_EMULATOR
    return pack_bf16(low_half(a) * low_half(b), high_half(a) * high_half(b));
#else
    uint32_t c;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(c) : "r"(a), "r"(b), "r"(0x80008000u)); /* + -0 */
    return c;
#endif
}

template <int TILES> __device__ static inline void clear(float (&sums)[TILES][4]) {
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) sums[i / 4][i % 4] = 0;
}

/* Of the warpgroup's sums: row of the thread's elements e, column of its elements e in n tile n. */
__device__ static inline int fragment_row(int e) {
    return (int)threadIdx.x % WARPGROUP / WARP * 16 + (int)threadIdx.x % WARP / 4 + e / 2 * 8;
}
__device__ static inline int fragment_column(int n, int e) { return n * 8 + (int)threadIdx.x % 4 * 2 + e % 2; }

/* x = the warpgroup's sums, each times factor[0 or 1] of its row, by way of a tile of its own: a warp its 16 rows. */
template <int DIM, bool VECTORS>
__device__ static inline void store_rows(const head_rows<bf16> &x, own_tile<DIM> *tile, const row_sums<DIM> &sums,
                                         const float (&factor)[2]) {
    constexpr int LOADS = VECTORS ? DIM / 8 : DIM;
    int lane = (int)threadIdx.x % WARP, first = (int)threadIdx.x % WARPGROUP / WARP * 16;
#pragma unroll
    for (int i = 0; i < DIM / 4; i++) {
        int n = i / 2, half = i % 2;
        *tile->pair(fragment_row(2 * half), fragment_column(n, 0)) =
            pack_bf16(sums[n][2 * half] * factor[half], sums[n][2 * half + 1] * factor[half]);
    }
    __syncwarp();
    for (int at = lane; at < 16 * LOADS; at += WARP) {
        int row = first + at / LOADS, column = at % LOADS * (DIM / LOADS);
        if (!x.has(row, column)) continue;
        if constexpr (VECTORS)
            store_16(x.at(row, column), *tile->piece(row, column));
        else
            *x.at(row, column) = *tile->at(row, column);
    }
}
