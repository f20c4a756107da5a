/* ssd: what the kernels over tiles of a sequence share: tiles in shared memory, products of a warp with them, the
 * weights of a tile's tokens, and the state that is carried.
 *
 * A tile is one chunk of at most 64 tokens; a longer chunk (its length changes rounding only) is cut into tiles. Tokens
 * and columns that a tile does not have are zeros, so every product is of whole 16 x 16 blocks, and blocks of zeros
 * are left out. A block has four warps; warp w owns rows 16w .. 16w+15 of each product, whole rows: a product's result
 * is then, rounded, an operand of the next one without leaving the registers. */
#pragma once
#include "kernels/cuda/tensor_core.cuh"

static constexpr int TILE = 64, SSD_WARPS = 4, SSD_THREADS = SSD_WARPS * WARP;
static constexpr int PAD = 8; /* bf16 behind each row of a tile: eight rows then lie in eight different sets of banks */

/* A row of a tile in shared memory. */
template <int WIDTH> struct alignas(16) tile_row {
    bf16 at[WIDTH + PAD];
    __device__ bf16 &operator[](int column) { return at[column]; }
    __device__ const bf16 &operator[](int column) const { return at[column]; }
};

/* exp(l) is 2^(l log2 e): log-decays are summed with the factor, and exponentials are fast_exp2. */
static const float LOG2_E = 1.44269504f;

/* --- between global and shared memory ------------------------------------------------------------------------------
 */

__device__ static inline bool sixteen_bytes(const bf16 *rows, size_t stride, int columns) {
    return (reinterpret_cast<size_t>(rows) % 16 | stride % 8 | (size_t)columns % 8) == 0;
}

/* Begins the copy of `rows` rows of `columns` elements, the rest of the tile zero; done after copy_wait and a barrier.
 */
template <int ROWS, int COLUMNS>
__device__ static inline void load_tile(tile_row<COLUMNS> *tile, const bf16 *from, size_t stride, int rows,
                                        int columns) {
    if (sixteen_bytes(from, stride, columns)) {
        for (int i = (int)threadIdx.x; i < ROWS * COLUMNS / 8; i += SSD_THREADS) {
            int row = i / (COLUMNS / 8), column = i % (COLUMNS / 8) * 8;
            bool wanted = row < rows && column < columns;
            copy_16(&tile[row][column], wanted ? from + (size_t)row * stride + column : from, wanted);
        }
        return;
    }
    for (int i = (int)threadIdx.x; i < ROWS * COLUMNS; i += SSD_THREADS) {
        int row = i / COLUMNS, column = i % COLUMNS;
        tile[row][column] = row < rows && column < columns ? from[(size_t)row * stride + column] : bf16{0};
    }
}

/* A warp's 16 rows of COLUMNS elements, which it has just written, to global memory. */
template <int COLUMNS, int WIDTH>
__device__ static inline void store_rows(bf16 *to, size_t stride, const tile_row<WIDTH> *tile, int rows, int columns) {
    int lane = (int)threadIdx.x % WARP;
    __syncwarp();
    if (sixteen_bytes(to, stride, columns)) {
        for (int i = lane; i < 16 * COLUMNS / 8; i += WARP) {
            int row = i / (COLUMNS / 8), column = i % (COLUMNS / 8) * 8;
            if (row < rows && column < columns)
                *reinterpret_cast<uint4 *>(to + (size_t)row * stride + column) =
                    *reinterpret_cast<const uint4 *>(&tile[row][column]);
        }
    } else {
        for (int i = lane; i < 16 * COLUMNS; i += WARP) {
            int row = i / COLUMNS, column = i % COLUMNS;
            if (row < rows && column < columns) to[(size_t)row * stride + column] = tile[row][column];
        }
    }
    __syncwarp();
}

/* --- a warp's products: accumulators hold 16 rows, as d fragments of COLUMNS/8 tiles --------------------------------
 */

template <int COLUMNS> __device__ static inline void clear_rows(float (&acc)[COLUMNS][4]) {
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
}

/* Rows of acc: this lane's d fragments hold row lane/4 (upper) and that + 8 (lower). */
template <int COLUMNS> __device__ static inline void scale_rows(float (&acc)[COLUMNS][4], float upper, float lower) {
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        acc[i][0] *= upper, acc[i][1] *= upper;
        acc[i][2] *= lower, acc[i][3] *= lower;
    }
}

/* The a fragment of rows row.. and columns k.. of a tile, or (across) of its transpose. */
template <int WIDTH>
__device__ static inline void load_a(uint32_t (&a)[4], const tile_row<WIDTH> *tile, int row, int k) {
    int lane = (int)threadIdx.x % WARP;
    ldmatrix_x4(a, &tile[row + lane % 16][k + lane / 16 * 8]);
}
template <int WIDTH>
__device__ static inline void load_a_across(uint32_t (&a)[4], const tile_row<WIDTH> *tile, int row, int k) {
    int lane = (int)threadIdx.x % WARP, quarter = lane / 8;
    ldmatrix_x4_trans(a, &tile[k + lane % 8 + quarter / 2 * 8][row + quarter % 2 * 8]);
}

/* Which pairs of 8 columns of a product are wanted: first .. last-1, of 16 columns each. */
struct column_blocks {
    int first, last;
};
__device__ static inline column_blocks blocks_of(int columns) { return {0, (columns + 15) / 16}; }

/* acc += a tile^T[k.., :], the tile stored (column, k): its rows are the product's columns. */
template <int COLUMNS, int WIDTH>
__device__ static inline void multiply(float (&acc)[COLUMNS][4], const uint32_t (&a)[4], const tile_row<WIDTH> *tile,
                                       int k, column_blocks wanted) {
    int lane = (int)threadIdx.x % WARP, quarter = lane / 8;
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) {
        if (i < wanted.first || i >= wanted.last) continue;
        uint32_t b[4];
        ldmatrix_x4(b, &tile[i * 16 + lane % 8 + quarter / 2 * 8][k + quarter % 2 * 8]);
        mma_m16n8k16(acc[2 * i], a, {b[0], b[1]});
        mma_m16n8k16(acc[2 * i + 1], a, {b[2], b[3]});
    }
}

/* acc += a tile[k.., from..], the tile stored (k, column). */
template <int COLUMNS, int WIDTH>
__device__ static inline void multiply_across(float (&acc)[COLUMNS][4], const uint32_t (&a)[4],
                                              const tile_row<WIDTH> *tile, int k, int from, column_blocks wanted) {
    int lane = (int)threadIdx.x % WARP, quarter = lane / 8;
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) {
        if (i < wanted.first || i >= wanted.last) continue;
        uint32_t b[4];
        ldmatrix_x4_trans(b, &tile[k + lane % 8 + quarter % 2 * 8][from + i * 16 + quarter / 2 * 8]);
        mma_m16n8k16(acc[2 * i], a, {b[0], b[1]});
        mma_m16n8k16(acc[2 * i + 1], a, {b[2], b[3]});
    }
}

/* Columns 16 block .. 16 block + 15 of an accumulator as an a fragment. */
template <int COLUMNS>
__device__ static inline void pack_a(uint32_t (&a)[4], const float (&acc)[COLUMNS][4], int block) {
    a[0] = pack_bf16(acc[2 * block][0], acc[2 * block][1]);
    a[1] = pack_bf16(acc[2 * block][2], acc[2 * block][3]);
    a[2] = pack_bf16(acc[2 * block + 1][0], acc[2 * block + 1][1]);
    a[3] = pack_bf16(acc[2 * block + 1][2], acc[2 * block + 1][3]);
}

/* Two neighbouring elements of a tile. */
template <int WIDTH> __device__ static inline uint32_t pair_at(const tile_row<WIDTH> *tile, int row, int column) {
    return *reinterpret_cast<const uint32_t *>(&tile[row][column]);
}

/* The accumulator, rounded, to 16 rows of a tile from `row` and `column` on. */
template <int COLUMNS, int WIDTH>
__device__ static inline void write_rows(tile_row<WIDTH> *tile, int row, int column, const float (&acc)[COLUMNS][4]) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4;
    column += lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        *reinterpret_cast<uint32_t *>(&tile[upper][column + 8 * i]) = pack_bf16(acc[i][0], acc[i][1]);
        *reinterpret_cast<uint32_t *>(&tile[upper + 8][column + 8 * i]) = pack_bf16(acc[i][2], acc[i][3]);
    }
}

/* acc += factor times the same rows of a tile. */
template <int COLUMNS, int WIDTH>
__device__ static inline void add_rows(float (&acc)[COLUMNS][4], float factor, const tile_row<WIDTH> *tile, int row) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        uint32_t a = pair_at(tile, upper, 8 * i + lane % 4 * 2), b = pair_at(tile, upper + 8, 8 * i + lane % 4 * 2);
        acc[i][0] += factor * low_half(a), acc[i][1] += factor * high_half(a);
        acc[i][2] += factor * low_half(b), acc[i][3] += factor * high_half(b);
    }
}

/* The dot product of each row of acc with the same row of a tile, in all four lanes of the row. */
struct two_rows {
    float upper, lower;
};
__device__ static inline float sum_of_four(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
template <int COLUMNS, int WIDTH>
__device__ static inline two_rows dot_rows(const float (&acc)[COLUMNS][4], const tile_row<WIDTH> *tile, int row) {
    int lane = (int)threadIdx.x % WARP, at = row + lane / 4;
    two_rows sum = {0, 0};
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        uint32_t upper = pair_at(tile, at, 8 * i + lane % 4 * 2);
        uint32_t lower = pair_at(tile, at + 8, 8 * i + lane % 4 * 2);
        sum.upper += acc[i][0] * low_half(upper) + acc[i][1] * high_half(upper);
        sum.lower += acc[i][2] * low_half(lower) + acc[i][3] * high_half(lower);
    }
    return {sum_of_four(sum.upper), sum_of_four(sum.lower)};
}

/* --- the weights of a tile's tokens, as kernels/cpu/ssd.c names them
 * --------------------------------------------------
 */

struct tile_weights {
    float l[TILE];                           /* log-decay summed from the tile's start, times log2 e */
    float r[TILE], kappa[TILE], gamma[TILE]; /* r = exp(l) */
    float fall[TILE];                        /* kappa f: what is left of the token's share at the tile's end */
    float f[TILE];
    float whole; /* r of the last token */
};

/* exp(l_to - l_from) for a token `from` before the token `to`, else 0. The exponent is masked before fast_exp2, so it
 * is never above 0. */
__device__ static inline float token_decay(const tile_weights &w, int to, int from) {
    float decay = fast_exp2(from < to ? w.l[to] - w.l[from] : 0);
    return from < to ? decay : 0;
}

/* What a token weighs in a later one, given its decay until there, or in itself. */
__device__ static inline float token_weight(const tile_weights &w, int to, int from, float decay) {
    return from == to ? w.gamma[from] : decay * w.kappa[from];
}
__device__ static inline float token_weight(const tile_weights &w, int to, int from) {
    return token_weight(w, to, from, token_decay(w, to, from));
}

/* Sums of each column over the warp's 16 rows, in a fixed order, to to[0 .. 8 COLUMNS - 1]; sum holds this lane's two
 * rows already added. Lanes share the columns as they add: each step halves a lane's columns and doubles its rows. */
template <int HALF, int COUNT> __device__ static inline int share_half(float (&sum)[COUNT], int bit) {
    bool upper = threadIdx.x & bit;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        float sent = upper ? sum[i] : sum[HALF + i], kept = upper ? sum[HALF + i] : sum[i];
        sum[i] = kept + __shfl_xor_sync(0xffffffffu, sent, bit);
    }
    return upper ? HALF : 0;
}
template <int COUNT> __device__ static inline void share_columns(float *to, float (&sum)[COUNT]) {
    int first = share_half<COUNT / 2>(sum, 16);
    first += share_half<COUNT / 4>(sum, 8);
    first += share_half<COUNT / 8>(sum, 4);
#pragma unroll
    for (int i = 0; i < COUNT / 8; i++) to[(first + i) / 2 * 8 + (int)threadIdx.x % 4 * 2 + (first + i) % 2] = sum[i];
}
template <int COLUMNS> __device__ static inline void sum_columns(float *to, const float (&acc)[COLUMNS][4]) {
#pragma unroll
    for (int first = 0; first < COLUMNS; first += 8) { /* 64 columns at a time, for the registers */
        float sum[16];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sum[2 * i] = acc[first + i][0] + acc[first + i][2];
            sum[2 * i + 1] = acc[first + i][1] + acc[first + i][3];
        }
        share_columns(to + 8 * first, sum);
    }
}

/* --- the carried state (P, N), in float, split over the block's warps ------------------------------------------------
 */

template <int P, int N> struct state_part {
    static constexpr int ROW_WARPS = P / 16, COLUMNS = N * ROW_WARPS / SSD_WARPS;
    float value[COLUMNS / 8][4];
    int row, column; /* where this warp's 16 x COLUMNS begin */

    __device__ state_part() {
        int warp = (int)threadIdx.x / WARP;
        row = warp % ROW_WARPS * 16, column = warp / ROW_WARPS * COLUMNS;
        clear_rows(value);
    }
    /* value = factor value + (diag(weight) rows)^T matrix; of the first `columns` columns. */
    __device__ void advance(float factor, const tile_row<P> *rows, const float *weight, const tile_row<N> *matrix,
                            int length, int columns) {
        int lane = (int)threadIdx.x % WARP;
        scale_rows(value, factor, factor);
        for (int k = 0; k < length; k += 16) {
            uint32_t a[4];
            load_a_across(a, rows, row, k);
            const float *w = weight + k + lane % 4 * 2;
            a[0] = pack_bf16(low_half(a[0]) * w[0], high_half(a[0]) * w[1]);
            a[1] = pack_bf16(low_half(a[1]) * w[0], high_half(a[1]) * w[1]);
            a[2] = pack_bf16(low_half(a[2]) * w[8], high_half(a[2]) * w[9]);
            a[3] = pack_bf16(low_half(a[3]) * w[8], high_half(a[3]) * w[9]);
            multiply_across(value, a, matrix, k, column, blocks_of(columns - column));
        }
    }
    /* Rounded, into a tile (P, N). */
    __device__ void write(tile_row<N> *tile) const { write_rows(tile, row, column, value); }
    /* The tile's part of this warp to global memory, which has `rows` x `columns`. */
    __device__ void store(bf16 *to, size_t stride, const tile_row<N> *tile, int rows, int columns) const {
        const bf16 *from = &tile[row][column];
        store_rows<COLUMNS>(to + (size_t)row * stride + column, stride, reinterpret_cast<const tile_row<N> *>(from),
                            rows - row, columns - column);
    }
};

/* --- launches: N is at most 256; a block handles a slice of P of the head's channels ---------------------------------
 */

/* Calls launch<P, N>() with the slice and the padded state that fit the shape and 160 KB of shared memory. */
#define SSD_DISPATCH(shape, launch, ...)  \
    do {                                  \
        if ((shape)->state <= 64)         \
            launch<64, 64>(__VA_ARGS__);  \
        else if ((shape)->state <= 128)   \
            launch<64, 128>(__VA_ARGS__); \
        else                              \
            launch<32, 256>(__VA_ARGS__); \
    } while (0)
