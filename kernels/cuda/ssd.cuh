/* ssd: what the kernels over tiles of a sequence share: tiles in shared memory, products of a warp with them, the
 * weights of a tile's tokens, and the state that is carried.
 *
 * A tile is one chunk of at most 64 tokens; a longer chunk (its length changes rounding only) is cut into tiles. Tokens
 * and columns that a tile does not have are zeros, so every product is of whole 16 x 16 blocks, and blocks of zeros
 * are left out. A product of 64 rows is made by four bands of 16 rows, each by PARTS warps that take its blocks of 16
 * columns in turn: work that a triangle or the rotated columns bring to one side is then shared.
 *
 * What binds these kernels is shared memory and the number of instructions, not bytes or products: see README.md. Hence
 * two warps for a band, to overlap them. Heads that fill their tiles have kernels of their own: ssd_full.cuh. */
#pragma once
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/tensor_core.cuh"

static constexpr int TILE = 64, BANDS = TILE / 16, PARTS = 2, SSD_WARPS = BANDS * PARTS, SSD_THREADS = SSD_WARPS * WARP;
static constexpr int PAD = 8; /* bf16 behind each row of a tile: eight rows then lie in eight different sets of banks */

/* A row of a tile in shared memory. */
template <int WIDTH> struct alignas(16) tile_row {
    bf16 at[WIDTH + PAD];
    __device__ bf16 &operator[](int column) { return at[column]; }
    __device__ const bf16 &operator[](int column) const { return at[column]; }
};

/* A slice of P channels of a head with up to N states. */
template <int CHANNELS, int STATE> struct scan_form {
    static constexpr int P = CHANNELS, N = STATE;
    static constexpr int BLOCKS = N <= 64 ? 2 : 1; /* on an SM */
    __device__ static int state(size_t state) { return (int)state; }
    __device__ static int angles(size_t angles) { return (int)angles; }
    __device__ static int tokens(size_t tokens) { return (int)tokens; }
};

/* Where this warp works: rows row .. row+15, blocks part, part + PARTS, .. of 16 columns. */
struct warp_place {
    int warp, row, part;
};
__device__ static inline warp_place place_of_warp() {
    int warp = __shfl_sync(0xffffffffu, (int)threadIdx.x / WARP, 0); /* so the compiler sees that a warp has but one */
    return {warp, warp % BANDS * 16, warp / BANDS};
}

/* The columns of a product that an accumulator holds: block i of 16 begins at first + i STEP; unless ALL, those outside
 * of from .. to-1 are not wanted. */
template <bool ALL, int STEP = PARTS * 16> struct column_blocks {
    int first, from, to;
    __device__ int at(int i) const { return first + i * STEP; }
    __device__ bool wanted(int i) const { return ALL || (at(i) >= from && at(i) < to); }
    /* Of this lane's pair in the 8-column fragment i. */
    __device__ int pair(int i) const { return at(i / 2) + i % 2 * 8 + (int)threadIdx.x % 4 * 2; }
};
template <bool ALL> __device__ static inline column_blocks<ALL> columns_to(warp_place place, int to) {
    return {place.part * 16, 0, to};
}
__device__ static inline column_blocks<false> columns_between(warp_place place, int from, int to) {
    return {place.part * 16, from, to};
}
/* Fragments of 8 columns that a warp has of COLUMNS. */
template <int COLUMNS> static constexpr int OWN = COLUMNS / 8 / PARTS;

/* exp(l) is 2^(l log2 e): log-decays are summed with the factor LOG2_E, and exponentials are fast_exp2. */

/* --- between global and shared memory ----------------------------------------------------------------------------- */

__device__ static inline bool sixteen_bytes(const bf16 *rows, size_t stride, int columns) {
    return (reinterpret_cast<size_t>(rows) % 16 | stride % 8 | (size_t)columns % 8) == 0;
}

/* Begins the copy of `rows` rows of `columns` elements, the rest of the tile zero; done after copy_wait and a barrier.
 * A thread's rows have one column. */
template <int ROWS, int COLUMNS>
__device__ static inline void load_tile(tile_row<COLUMNS> *tile, const bf16 *from, size_t stride, int rows,
                                        int columns) {
    constexpr int PIECES = COLUMNS / 8, STEP = SSD_THREADS / PIECES;
    if (sixteen_bytes(from, stride, columns)) {
        int first = (int)threadIdx.x / PIECES, column = (int)threadIdx.x % PIECES * 8;
        from += (unsigned)first * (unsigned)stride + (unsigned)column;
#pragma unroll
        for (int i = 0; i < ROWS; i += STEP)
            copy_16(&tile[first + i][column], from + (unsigned)i * (unsigned)stride,
                    first + i < rows && column < columns);
    } else {
#pragma unroll 1
        for (int i = (int)threadIdx.x; i < ROWS * COLUMNS; i += SSD_THREADS) {
            int row = i / COLUMNS, column = i % COLUMNS;
            tile[row][column] = row < rows && column < columns ? from[(size_t)row * stride + column] : bf16{0};
        }
    }
}

/* A warp's blocks of its 16 rows, which it has just written from row `row` on, to global memory: `to` is that row's
 * column 0, and has `rows` rows. */
template <int FRAGMENTS, bool ALL, int STEP, int WIDTH>
__device__ static inline void store_rows(bf16 *to, size_t stride, const tile_row<WIDTH> *tile, int row, int rows,
                                         column_blocks<ALL, STEP> columns) {
    int lane = (int)threadIdx.x % WARP;
    __syncwarp();
    if (ALL || sixteen_bytes(to, stride, columns.to)) {
        int at = lane / 2;
        to += (unsigned)at * (unsigned)stride;
#pragma unroll
        for (int i = 0; i < FRAGMENTS / 2; i++) {
            int column = columns.at(i) + lane % 2 * 8;
            if (at < rows && (ALL || column < columns.to))
                *reinterpret_cast<uint4 *>(to + column) = *reinterpret_cast<const uint4 *>(&tile[row + at][column]);
        }
    } else {
        for (int i = lane; i < FRAGMENTS * 8 * 16; i += WARP) {
            int at = i / 16 % 16, column = columns.at(i / 256) + i % 16;
            if (at < rows && column < columns.to) to[(size_t)at * stride + column] = tile[row + at][column];
        }
    }
    __syncwarp();
}

/* --- a warp's products: accumulators hold 16 rows, as d fragments of 8 columns ------------------------------------ */

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

/* acc += a tile^T[k.., :], the tile stored (column, k): its rows are the product's columns. */
template <int COLUMNS, bool ALL, int STEP, int WIDTH>
__device__ static inline void multiply(float (&acc)[COLUMNS][4], const uint32_t (&a)[4], const tile_row<WIDTH> *tile,
                                       int k, column_blocks<ALL, STEP> columns) {
    int lane = (int)threadIdx.x % WARP, quarter = lane / 8;
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) {
        if (!columns.wanted(i)) continue;
        uint32_t b[4];
        ldmatrix_x4(b, &tile[columns.at(i) + lane % 8 + quarter / 2 * 8][k + quarter % 2 * 8]);
        mma_m16n8k16(acc[2 * i], a, {b[0], b[1]});
        mma_m16n8k16(acc[2 * i + 1], a, {b[2], b[3]});
    }
}

/* acc += a tile[k.., :], the tile stored (k, column). */
template <int COLUMNS, bool ALL, int STEP, int WIDTH>
__device__ static inline void multiply_across(float (&acc)[COLUMNS][4], const uint32_t (&a)[4],
                                              const tile_row<WIDTH> *tile, int k, column_blocks<ALL, STEP> columns) {
    int lane = (int)threadIdx.x % WARP, quarter = lane / 8;
#pragma unroll
    for (int i = 0; i < COLUMNS / 2; i++) {
        if (!columns.wanted(i)) continue;
        uint32_t b[4];
        ldmatrix_x4_trans(b, &tile[k + lane % 8 + quarter % 2 * 8][columns.at(i) + quarter / 2 * 8]);
        mma_m16n8k16(acc[2 * i], a, {b[0], b[1]});
        mma_m16n8k16(acc[2 * i + 1], a, {b[2], b[3]});
    }
}

/* Two neighbouring elements of a tile. */
template <int WIDTH> __device__ static inline uint32_t pair_at(const tile_row<WIDTH> *tile, int row, int column) {
    return *reinterpret_cast<const uint32_t *>(&tile[row][column]);
}

/* The accumulator, rounded, to 16 rows of a tile from `row` on. */
template <int COLUMNS, bool ALL, int STEP, int WIDTH>
__device__ static inline void write_rows(tile_row<WIDTH> *tile, int row, const float (&acc)[COLUMNS][4],
                                         column_blocks<ALL, STEP> columns) {
    int upper = row + (int)threadIdx.x % WARP / 4;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        *reinterpret_cast<uint32_t *>(&tile[upper][columns.pair(i)]) = pack_bf16(acc[i][0], acc[i][1]);
        *reinterpret_cast<uint32_t *>(&tile[upper + 8][columns.pair(i)]) = pack_bf16(acc[i][2], acc[i][3]);
    }
}

/* acc += factor times the same rows of a tile. */
template <int COLUMNS, bool ALL, int STEP, int WIDTH>
__device__ static inline void add_rows(float (&acc)[COLUMNS][4], float factor, const tile_row<WIDTH> *tile, int row,
                                       column_blocks<ALL, STEP> columns) {
    int upper = row + (int)threadIdx.x % WARP / 4;
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        uint32_t a = pair_at(tile, upper, columns.pair(i)), b = pair_at(tile, upper + 8, columns.pair(i));
        acc[i][0] += factor * low_half(a), acc[i][1] += factor * high_half(a);
        acc[i][2] += factor * low_half(b), acc[i][3] += factor * high_half(b);
    }
}

/* The dot product of each row of acc with the same columns of a tile's row, in all four lanes of the row. */
struct two_rows {
    float upper, lower;
};
__device__ static inline float sum_of_four(float x) {
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
template <int COLUMNS, bool ALL, int STEP, int WIDTH>
__device__ static inline two_rows dot_rows(const float (&acc)[COLUMNS][4], const tile_row<WIDTH> *tile, int row,
                                           column_blocks<ALL, STEP> columns) {
    int at = row + (int)threadIdx.x % WARP / 4;
    two_rows sum = {0, 0};
#pragma unroll
    for (int i = 0; i < COLUMNS; i++) {
        uint32_t upper = pair_at(tile, at, columns.pair(i)), lower = pair_at(tile, at + 8, columns.pair(i));
        sum.upper += acc[i][0] * low_half(upper) + acc[i][1] * high_half(upper);
        sum.lower += acc[i][2] * low_half(lower) + acc[i][3] * high_half(lower);
    }
    return {sum_of_four(sum.upper), sum_of_four(sum.lower)};
}

/* --- the weights of a tile's tokens, as kernels/cpu/ssd.c names them ---------------------------------------------- */

struct alignas(16) tile_weights {
    float l[TILE];                           /* log-decay summed from the tile's start, times log2 e */
    float r[TILE], kappa[TILE], gamma[TILE]; /* r = exp(l) */
    float fall[TILE];                        /* kappa f: what is left of the token's share at the tile's end */
    float f[TILE];
    float
        since[TILE]; /* l less log2 kappa: 2^(l_t - since_s) is what s weighs in a later t; infinite where kappa is 0 */
    float whole;     /* r of the last token */
};

/* Two neighbours of a line of floats, the first at an even place. */
__device__ static inline float2 two_at(const float *line, int at) {
    return *reinterpret_cast<const float2 *>(line + at);
}

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

/* Sums of each column over the warp's 16 rows, in a fixed order, to to[column]; sum holds this lane's two rows already
 * added, of the fragments from `fragment` on. Lanes share the columns as they add: each step halves a lane's columns
 * and doubles its rows. */
template <int HALF, int COUNT> __device__ static inline int share_half(float (&sum)[COUNT], int bit) {
    bool upper = threadIdx.x & bit;
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        float sent = upper ? sum[i] : sum[HALF + i], kept = upper ? sum[HALF + i] : sum[i];
        sum[i] = kept + __shfl_xor_sync(0xffffffffu, sent, bit);
    }
    return upper ? HALF : 0;
}
template <int COUNT, bool ALL, int STEP>
__device__ static inline void share_columns(float *to, float (&sum)[COUNT], int fragment,
                                            column_blocks<ALL, STEP> columns) {
    int first = share_half<COUNT / 2>(sum, 16);
    first += share_half<COUNT / 4>(sum, 8);
    first += share_half<COUNT / 8>(sum, 4);
#pragma unroll
    for (int i = 0; i < COUNT / 8; i++) to[columns.pair(fragment + (first + i) / 2) + (first + i) % 2] = sum[i];
}
template <int COLUMNS, bool ALL, int STEP>
__device__ static inline void sum_columns(float *to, const float (&acc)[COLUMNS][4], column_blocks<ALL, STEP> columns) {
    constexpr int AT_ONCE = COLUMNS < 8 ? COLUMNS : 8; /* for the registers */
#pragma unroll
    for (int first = 0; first < COLUMNS; first += AT_ONCE) {
        float sum[2 * AT_ONCE];
#pragma unroll
        for (int i = 0; i < AT_ONCE; i++) {
            sum[2 * i] = acc[first + i][0] + acc[first + i][2];
            sum[2 * i + 1] = acc[first + i][1] + acc[first + i][3];
        }
        share_columns(to, sum, first, columns);
    }
}

/* --- the carried state (P, N), in float, split over the block's warps --------------------------------------------- */

template <class F> struct state_part {
    static constexpr int P = F::P, N = F::N, ROW_WARPS = P / 16, COLUMN_WARPS = SSD_WARPS / ROW_WARPS,
                         FRAGMENTS = N / 8 / COLUMN_WARPS;
    float value[FRAGMENTS][4];
    int row;
    column_blocks<false, COLUMN_WARPS * 16> columns; /* this warp's, of the first `state` */

    __device__ state_part(warp_place place, int state) {
        row = place.warp % ROW_WARPS * 16;
        columns = {place.warp / ROW_WARPS * 16, 0, state};
        clear_rows(value);
    }
    /* value = factor value + (diag(weight) rows)^T matrix. */
    __device__ void advance(float factor, const tile_row<P> *rows, const float *weight, const tile_row<N> *matrix,
                            int length) {
        int lane = (int)threadIdx.x % WARP;
        scale_rows(value, factor, factor);
#pragma unroll
        for (int k = 0; k < TILE; k += 16) {
            if (k >= length) break;
            uint32_t a[4];
            load_a_across(a, rows, row, k);
            const float *w = weight + k + lane % 4 * 2;
            float2 near = *reinterpret_cast<const float2 *>(w), far = *reinterpret_cast<const float2 *>(w + 8);
            a[0] = pack_bf16(low_half(a[0]) * near.x, high_half(a[0]) * near.y);
            a[1] = pack_bf16(low_half(a[1]) * near.x, high_half(a[1]) * near.y);
            a[2] = pack_bf16(low_half(a[2]) * far.x, high_half(a[2]) * far.y);
            a[3] = pack_bf16(low_half(a[3]) * far.x, high_half(a[3]) * far.y);
            multiply_across(value, a, matrix, k, columns);
        }
    }
    /* Rounded, into a tile (P, N), and from there to global memory, which has `rows` rows of `state`. */
    __device__ void write(tile_row<N> *tile, bf16 *to, int rows) const {
        size_t state = (size_t)columns.to;
        write_rows(tile, row, value, columns);
        store_rows<FRAGMENTS>(to + (size_t)row * state, state, tile, row, rows - row, columns);
    }
};

/* --- launches: N is at most 256; a block handles a slice of P of the head's channels ------------------------------ */

/* Calls launch<form>() with the form that fits the shape and 160 KB of shared memory. */
#define SSD_DISPATCH(shape, launch, ...)             \
    do {                                             \
        if ((shape)->state <= 64)                    \
            launch<scan_form<64, 64>>(__VA_ARGS__);  \
        else if ((shape)->state <= 128)              \
            launch<scan_form<64, 128>>(__VA_ARGS__); \
        else                                         \
            launch<scan_form<32, 256>>(__VA_ARGS__); \
    } while (0)
