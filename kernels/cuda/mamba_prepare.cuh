/* mamba_prepare: what its two directions share. A block has one chunk of a sequence, of at most TILE_TOKENS tokens; a
 * lane has two tokens, a warp HEADS_AT_ONCE heads or angles at a time. The layouts are those of ssd_head.cuh. */
#pragma once
#include "kernels/cuda/mamba.cuh"

static constexpr unsigned PREPARE_THREADS = 128, PREPARE_WARPS = PREPARE_THREADS / WARP;
static constexpr unsigned TOKENS = 2, TILE_TOKENS = TOKENS * WARP, HEADS_AT_ONCE = 4;

struct prepare_tensors {
    mamba_shape s;
    struct mamba_columns k;
    mamba_tape tape;
    mamba_weights weights;
    const bf16 *proj;
};

/* A chunk of one sequence: of the first token, its time and its row. The grid is chunks x batch. */
struct token_tile {
    unsigned batch, chunk, chunks, start, tokens;
    size_t row;
};
static inline dim3 token_tiles(const mamba_shape &s) {
    return dim3((unsigned)ceil_div(s.time, s.chunk), (unsigned)s.batch);
}
__device__ static inline token_tile own_tile(const mamba_shape &s) {
    unsigned start = blockIdx.x * (unsigned)s.chunk, tokens = min((unsigned)s.chunk, (unsigned)s.time - start);
    return {blockIdx.y, blockIdx.x, gridDim.x, start, tokens, blockIdx.y * s.time + start};
}

/* A lane's tokens: where they are in shared memory, which has zeros for what the chunk does not have, and where they
 * are read elsewhere, its last token in place of those. */
struct lane_tokens {
    unsigned at[TOKENS], from[TOKENS];
    bool here[TOKENS];
};
template <bool STAGED> __device__ static inline lane_tokens own_tokens(const token_tile &place) {
    lane_tokens t;
#pragma unroll
    for (unsigned k = 0; k < TOKENS; k++) {
        unsigned own = threadIdx.x % WARP + k * WARP;
        t.from[k] = min(own, place.tokens - 1);
        t.at[k] = STAGED ? own : t.from[k];
        t.here[k] = own < place.tokens;
    }
    return t;
}

/* The columns dt', a', lambda', theta' of a chunk's rows: in shared memory when there is room, else where they are. A
 * row there is two elements longer or one, so that it has an odd number of words. */
static constexpr size_t STAGED_MOST = 256;
__host__ __device__ static inline size_t step_columns(const struct mamba_columns &k) { return k.width - k.dt; }
__host__ __device__ static inline bool is_staged(const struct mamba_columns &k) {
    return step_columns(k) <= STAGED_MOST;
}
__host__ __device__ static inline size_t staged_pitch(size_t columns) {
    return (columns + 1) / 2 % 2 ? (columns + 1) / 2 * 2 : columns / 2 * 2 + 2;
}
__host__ __device__ static inline size_t staged_bytes(const struct mamba_columns &k) {
    return is_staged(k) ? TILE_TOKENS * staged_pitch(step_columns(k)) * sizeof(bf16) : 0;
}
/* The lines (batch, each, time) of a chunk's sequence, from its first token on. */
template <typename Element>
__device__ static inline Element *own_lines(Element *lines, const mamba_shape &s, size_t each,
                                            const token_tile &place) {
    return lines + place.batch * each * s.time + place.start;
}
/* Whether rows of these columns are made of pieces of eight that vectors can be. */
__device__ static inline bool has_pieces(const bf16 *rows, const struct mamba_columns &k) {
    return (reinterpret_cast<size_t>(rows) % sizeof(uint4) | k.width % 8 | step_columns(k) % 8) == 0;
}

template <typename Element> struct column_tile {
    Element *rows; /* of the first token, from the column dt' on */
    unsigned pitch;
};

/* How a warp's lanes share rows that are made of pieces of eight columns: whole rows at a time, some lanes none. */
static constexpr unsigned ROWS_AT_ONCE = 4;
struct piece_place {
    unsigned first, step, column;
    bool any;
};
__device__ static inline piece_place own_pieces(unsigned columns) {
    unsigned pieces = columns / 8, rows = WARP / pieces, lane = threadIdx.x % WARP;
    return {threadIdx.x / WARP * rows + lane / pieces, PREPARE_WARPS * rows, lane % pieces * 8, lane / pieces < rows};
}

/* `from` is the column dt' of the first row; done after a barrier. */
template <bool STAGED>
__device__ static inline column_tile<const bf16> stage_columns(bf16 *room, const bf16 *from,
                                                               const struct mamba_columns &k, unsigned tokens) {
    unsigned columns = (unsigned)step_columns(k), pitch = (unsigned)staged_pitch(columns), width = (unsigned)k.width;
    if constexpr (!STAGED) return {from, width};
    if (!has_pieces(from, k)) {
        for (unsigned t = threadIdx.x / WARP; t < TILE_TOKENS; t += PREPARE_WARPS)
#pragma unroll 1
            for (unsigned i = threadIdx.x % WARP; i < columns; i += WARP)
                room[t * pitch + i] = t < tokens ? from[t * width + i] : bf16{0};
        return {room, pitch};
    }
    piece_place own = own_pieces(columns);
    for (unsigned first = own.first; own.any && first < TILE_TOKENS; first += ROWS_AT_ONCE * own.step) {
        uint4 eight[ROWS_AT_ONCE];
#pragma unroll
        for (unsigned n = 0; n < ROWS_AT_ONCE; n++) {
            unsigned t = first + n * own.step;
            eight[n] = uint4{0, 0, 0, 0};
            if (t < tokens) eight[n] = *reinterpret_cast<const uint4 *>(from + t * width + own.column);
        }
#pragma unroll
        for (unsigned n = 0; n < ROWS_AT_ONCE; n++) {
            unsigned t = first + n * own.step;
            uint32_t *to = reinterpret_cast<uint32_t *>(room + t * pitch + own.column);
            if (t < TILE_TOKENS) to[0] = eight[n].x, to[1] = eight[n].y, to[2] = eight[n].z, to[3] = eight[n].w;
        }
    }
    return {room, pitch};
}

/* --- sums over a sequence's chunks -------------------------------------------------------------------------------- */

/* A block has PASS_ANGLES angles of one head, and cuts the chunks into PASS_PARTS runs. */
static constexpr unsigned PASS_ANGLES = 16, PASS_PARTS = 16, PASS_THREADS = PASS_ANGLES * PASS_PARTS;

/* of (batch, heads, chunks, pitch) = the sum of parts (batch, heads, chunks, angles) over the chunks before each, or
 * those behind it; 0 for what a row has more than angles. Order has: sum, what a part is added to; result(sum), what is
 * kept of it; and BACKWARD, whether those behind are meant. */
template <class Order, typename Part>
static __global__ void __launch_bounds__(PASS_THREADS)
    sum_of_others(float *of, const Part *parts, unsigned chunks, unsigned angles, unsigned pitch) {
    using sum_type = typename Order::sum;
    sum_type *room = shared_memory<sum_type>(); /* (runs, angles) */
    unsigned run = threadIdx.x / PASS_ANGLES, lane = threadIdx.x % PASS_ANGLES,
             each = (chunks + PASS_PARTS - 1) / PASS_PARTS;
    unsigned angle = blockIdx.y * PASS_ANGLES + lane, first = run * each, end = min(first + each, chunks);
    auto row = [&](unsigned i) { return (size_t)blockIdx.x * chunks + (Order::BACKWARD ? chunks - 1 - i : i); };
    sum_type sum = 0, own = 0;
    if (angle < angles)
#pragma unroll 4
        for (unsigned i = first; i < end; i++) own += parts[row(i) * angles + angle];
    room[threadIdx.x] = own;
    __syncthreads();
#pragma unroll
    for (unsigned before = 0; before < PASS_PARTS; before++)
        if (before < run) sum += room[before * PASS_ANGLES + lane];
    if (angle >= pitch) return;
#pragma unroll 4
    for (unsigned i = first; i < end; i++) {
        of[row(i) * pitch + angle] = Order::result(sum);
        if (angle < angles) sum += parts[row(i) * angles + angle];
    }
}

template <class Order, typename Part>
static void launch_sum_of_others(float *of, const Part *parts, const mamba_shape &s, size_t pitch) {
    dim3 grid((unsigned)(s.batch * s.heads), (unsigned)ceil_div(pitch, PASS_ANGLES));
    device_launch("sum_of_others", sum_of_others<Order, Part>, grid, dim3(PASS_THREADS),
                  PASS_THREADS * sizeof(typename Order::sum), of, parts, (unsigned)ceil_div(s.time, s.chunk),
                  (unsigned)s.angles, (unsigned)pitch);
}
