/* ssd_head: a head of a sequence, tile by tile: its steps, their weights, and its B and C, which are made where they
 * are used, from the group's columns of proj, because they would be the largest tensors of all (4 KB a token).
 *
 * Phases are given for each tile's start (mamba_prepare); inside it they are summed here, in turns.
 *
 * Layouts of the tape on this device: delta, log_decay, gamma (batch, heads, time); inv_b, inv_c (batch, groups, time);
 * rate (batch, angles, time), turns of phase for each unit of delta; phase (batch, heads, chunks, angles). */
#pragma once
#include "kernels/cuda/mamba.cuh"
#include "kernels/cuda/ssd.cuh"
#include "kernels/cuda/vectors.cuh"

struct scan_tensors {
    mamba_shape s;
    struct mamba_columns columns;
    mamba_tape tape;
    mamba_weights weights;
    const bf16 *proj;
};

struct head_view {
    const bf16 *x, *b, *c; /* of token 0, `width` apart */
    const float *delta, *log_decay, *gamma, *inv_b, *inv_c, *rate, *phase;
    const float *b_bias, *c_bias;
    size_t width, time;
    int tile, tiles, angles, state;
};

/* Whether full_head (ssd_full.cuh) fits: dy, y and the states have no padding, and the others are columns of proj. */
static inline bool fills_tiles(const scan_tensors &a) {
    const mamba_shape &s = a.s;
    const mamba_weights &w = a.weights;
    return aligned(w.b_norm, w.c_norm, w.b_bias, w.c_bias) && s.state == 64 && s.head_dim == 64 && s.angles == 16 &&
           a.columns.width % 8 == 0 && s.chunk == TILE && s.time % TILE == 0;
}

/* Of one of the group's heads; no divisions, because a block asks for each of its heads. */
template <class F>
__device__ static inline head_view view_head(const scan_tensors &a, unsigned batch, unsigned head, unsigned group,
                                             unsigned chunks) {
    const mamba_shape &s = a.s;
    unsigned heads = (unsigned)s.heads;
    size_t steps = (size_t)(batch * heads + head) * s.time,
           norms = (size_t)(batch * (unsigned)s.groups + group) * s.time;
    const bf16 *row = a.proj + (size_t)batch * s.time * a.columns.width;
    return {.x = row + a.columns.x + head * s.head_dim,
            .b = row + a.columns.b + group * s.state,
            .c = row + a.columns.c + group * s.state,
            .delta = a.tape.delta + steps,
            .log_decay = a.tape.log_decay + steps,
            .gamma = a.tape.gamma + steps,
            .inv_b = a.tape.inv_b + norms,
            .inv_c = a.tape.inv_c + norms,
            .rate = a.tape.rate + batch * s.angles * s.time,
            .phase = a.tape.phase + (size_t)((batch * heads + head) * chunks) * (size_t)F::angles(s.angles),
            .b_bias = a.weights.b_bias + head * s.state,
            .c_bias = a.weights.c_bias + head * s.state,
            .width = a.columns.width,
            .time = s.time,
            .tile = F::tokens(s.chunk),
            .tiles = (int)chunks,
            .angles = F::angles(s.angles),
            .state = F::state(s.state)};
}

template <class F> __device__ static inline head_view view_head(const scan_tensors &a, size_t batch, size_t head) {
    size_t group = head / (a.s.heads / a.s.groups), chunks = ceil_div(a.s.time, a.s.chunk);
    return view_head<F>(a, (unsigned)batch, (unsigned)head, (unsigned)group, (unsigned)chunks);
}

/* Tokens of tile i. */
template <class F> __device__ static inline int tile_length(const head_view &v, int i) {
    size_t left = v.time - (size_t)i * (size_t)v.tile;
    return F::tokens(left < (size_t)v.tile ? left : (size_t)v.tile);
}

/* --- a tile's steps, as lines of floats in shared memory ---------------------------------------------------------- */

/* A line has the tile's tokens and those behind it, zeros after the sequence: kappa needs one of them. */
static constexpr int LINE = TILE + 4, FIXED_LINES = 5;

struct step_lines {
    float *delta, *log_decay, *gamma, *inv_b, *inv_c;
    float *rate;  /* (angles, LINE) */
    float *phase; /* (angles) */
};

__host__ __device__ static inline size_t step_floats(size_t angles) {
    return (FIXED_LINES + angles) * LINE + (angles + 3) / 4 * 4;
}
__device__ static inline step_lines lay_out_steps(float *room, int angles) {
    float *rate = room + FIXED_LINES * LINE;
    return {room, room + LINE, room + 2 * LINE, room + 3 * LINE, room + 4 * LINE, rate, rate + angles * LINE};
}

/* By a warp: begins the copy of a line whose first `left` floats exist. */
__device__ static inline void load_line(float *line, const float *from, int left) {
    int at = (int)threadIdx.x % WARP * 4;
    if (at >= LINE) return;
    if (at + 4 <= left && reinterpret_cast<size_t>(from) % 16 == 0)
        copy_16(line + at, from + at, true);
    else
        for (int k = at; k < at + 4; k++) line[k] = k < left ? from[k] : 0;
}

/* Begins the copy of tile i's steps, a line a warp; done after copy_wait and a barrier. */
template <class F> __device__ static inline void load_steps(const step_lines &to, const head_view &v, int i, int warp) {
    size_t start = (size_t)i * (size_t)v.tile;
    int left = v.time - start < LINE ? (int)(v.time - start) : LINE;
    if (warp < FIXED_LINES) {
        const float *from = warp == 0   ? v.delta
                            : warp == 1 ? v.log_decay
                            : warp == 2 ? v.gamma
                            : warp == 3 ? v.inv_b
                                        : v.inv_c;
        load_line(to.delta + warp * LINE, from + start, left);
    }
#pragma unroll 2
    for (int j = warp; j < v.angles; j += SSD_WARPS)
        load_line(to.rate + j * LINE, v.rate + (size_t)j * v.time + start, left);
    const float *phase = v.phase + (size_t)i * (size_t)v.angles;
    int thread = (int)threadIdx.x;
#pragma unroll 1
    for (int j = thread; j < v.angles; j += SSD_THREADS) to.phase[j] = phase[j];
}

/* What two neighbouring tokens' weights are made of, in the lane that has them. */
struct two_steps {
    float log_decay[2], gamma[2], next_beta[2]; /* beta: of the token behind */
    bool there[2];
};

/* By one warp; tokens that the tile does not have weigh nothing. */
__device__ static inline void make_weights(tile_weights *w, const two_steps &steps) {
    int lane = (int)threadIdx.x % WARP;
    float own[2];
#pragma unroll
    for (int i = 0; i < 2; i++) own[i] = steps.there[i] ? steps.log_decay[i] * LOG2_E : 0;
    float sum = own[0] + own[1];
    for (int offset = 1; offset < WARP; offset *= 2) {
        float before = __shfl_up_sync(0xffffffffu, sum, offset);
        if (lane >= offset) sum += before;
    }
    float before = __shfl_up_sync(0xffffffffu, sum, 1), whole = __shfl_sync(0xffffffffu, sum, WARP - 1);
    if (lane == 0) before = 0, w->whole = fast_exp2(whole);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = 2 * lane + i;
        float l = i == 0 ? before + own[0] : sum, gamma = steps.there[i] ? steps.gamma[i] : 0;
        float kappa = steps.there[i] ? gamma + steps.next_beta[i] : 0;
        w->l[t] = l;
        w->r[t] = fast_exp2(l);
        w->f[t] = fast_exp2(whole - l);
        w->kappa[t] = kappa;
        w->gamma[t] = gamma;
        w->since[t] = l - __log2f(kappa);
        w->fall[t] = kappa * w->f[t];
    }
}
__device__ static inline void make_weights(tile_weights *w, const step_lines &steps, int length) {
    int t = (int)threadIdx.x % WARP * 2;
    two_steps two;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        two.log_decay[i] = steps.log_decay[t + i], two.gamma[i] = steps.gamma[t + i];
        two.next_beta[i] = steps.delta[t + i + 1] - steps.gamma[t + i + 1];
        two.there[i] = t + i < length;
    }
    make_weights(w, two);
}

/* --- B and C ------------------------------------------------------------------------------------------------------ */

/* turn[j][t]: lines of TURNS, for the banks. */
static constexpr int TURNS = TILE + 4;
__host__ __device__ static inline size_t turn_floats(size_t angles) { return angles * TURNS * 2; }

/* The rotations of the tile's tokens. A warp scans one angle at a time. */
__device__ static inline void make_rotations(rotation *turn, const step_lines &steps, int angles, int warp) {
    int lane = (int)threadIdx.x % WARP;
    float2 delta = two_at(steps.delta, 2 * lane);
#pragma unroll 1
    for (int j = warp; j < angles; j += SSD_WARPS) {
        float2 rate = two_at(steps.rate + j * LINE, 2 * lane);
        float first = wrap_turns(rate.x * delta.x), both = first + wrap_turns(rate.y * delta.y), sum = both;
#pragma unroll
        for (int offset = 1; offset < WARP; offset *= 2) {
            float before = __shfl_up_sync(0xffffffffu, sum, offset);
            if (lane >= offset) sum += before;
        }
        float start = steps.phase[j] + (sum - both);
        rotation one = rotation_of(wrap_turns(start + first)), two = rotation_of(wrap_turns(start + both));
        *reinterpret_cast<float4 *>(&turn[j * TURNS + 2 * lane]) = {one.cosine, one.sine, two.cosine, two.sine};
    }
}

/* The norm's weights and a head's biases, zeros behind the state. */
template <int N> struct alignas(16) vector_parameters { float norm[N], bias[N]; };
template <int N>
__device__ static inline void load_parameters(vector_parameters<N> *to, const float *norm, const float *bias,
                                              int state) {
#pragma unroll 1
    for (int n = (int)threadIdx.x; n < N; n += SSD_THREADS) {
        to->norm[n] = n < state ? norm[n] : 0;
        to->bias[n] = n < state ? bias[n] : 0;
    }
}

/* Eight neighbours of a row of B or C, normed: raw inv norm + bias. */
__device__ static inline void norm_eight(float (&value)[8], const uint32_t (&raw)[4], float inv, const float (&norm)[8],
                                         const float (&bias)[8]) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
        value[2 * k] = low_half(raw[k]) * inv * norm[2 * k] + bias[2 * k];
        value[2 * k + 1] = high_half(raw[k]) * inv * norm[2 * k + 1] + bias[2 * k + 1];
    }
}

/* A warp's part of tile = rotated (tile inv norm + bias), the rows that it does not have zero: eight columns of all
 * rows, a lane having every 32nd row, so that warps agree on what is rotated, and banks on who is next. What it reads
 * it reads at once, before anybody's stores: a load behind a store would wait for it. */
template <class F> struct vector_part {
    static constexpr int ROWS = TILE / WARP;
    int column;
    uint4 raw[ROWS];
    float inv[ROWS];

    __device__ vector_part(const tile_row<F::N> *tile, const float *inverse, int first) : column(first) {
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            int row = (int)threadIdx.x % WARP + i * WARP;
            raw[i] = *reinterpret_cast<const uint4 *>(&tile[row][column]);
            inv[i] = inverse[row];
        }
    }
    __device__ void make(tile_row<F::N> *tile, const vector_parameters<F::N> &p, const rotation *turn, int angles,
                         int length) const {
        float norm[8], bias[8];
#pragma unroll
        for (int k = 0; k < 8; k++) norm[k] = p.norm[column + k], bias[k] = p.bias[column + k];
        int rotated = angles - column / 2; /* pairs */
#pragma unroll
        for (int i = 0; i < ROWS; i++) {
            int row = (int)threadIdx.x % WARP + i * WARP;
            uint32_t pairs[4] = {raw[i].x, raw[i].y, raw[i].z, raw[i].w};
            float value[8];
            norm_eight(value, pairs, inv[i], norm, bias);
            if (rotated > 0)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    if (k < rotated) rotate(value[2 * k], value[2 * k + 1], turn[(column / 2 + k) * TURNS + row]);
#pragma unroll
            for (int k = 0; k < 4; k++) pairs[k] = row < length ? pack_bf16(value[2 * k], value[2 * k + 1]) : 0;
            *reinterpret_cast<uint4 *>(&tile[row][column]) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
};

static constexpr int VECTOR_COLUMNS = SSD_WARPS * 8; /* that the block's warps have at once */

/* C of a tile. */
template <class F>
__device__ static inline void make_vectors(tile_row<F::N> *tile, const float *inv, const vector_parameters<F::N> &p,
                                           const rotation *turn, int angles, int length, int warp) {
#pragma unroll 1
    for (int column = warp * 8; column < F::N; column += VECTOR_COLUMNS)
        vector_part<F>(tile, inv, column).make(tile, p, turn, angles, length);
}

/* B and C, of which a warp has different columns, so that none has the rotated ones of both. */
template <class F>
__device__ static inline void
make_vectors(tile_row<F::N> *b, tile_row<F::N> *c, const step_lines &steps, const vector_parameters<F::N> &b_parameters,
             const vector_parameters<F::N> &c_parameters, const rotation *turn, int angles, int length, int warp) {
#pragma unroll 1
    for (int first = 0; first < F::N; first += VECTOR_COLUMNS) {
        vector_part<F> of_b(b, steps.inv_b, first + warp * 8);
        vector_part<F> of_c(c, steps.inv_c, first + (warp + SSD_WARPS / 2) % SSD_WARPS * 8);
        of_b.make(b, b_parameters, turn, angles, length);
        of_c.make(c, c_parameters, turn, angles, length);
    }
}

/* --- walks over a sequence's tiles, of ssd.cu and ssd_carry.cu -----------------------------------------------------
 */

/* AHEAD: two of each tile, and steps a tile further, from which rotations and weights are made while the tile before
 * has its products. Large states have no room for that: there all of a tile follows the one before. */
template <class F> struct tile_walk {
    static constexpr bool AHEAD = F::N <= 64;
    static constexpr int BUFFERS = AHEAD ? 2 : 1, STEPS = AHEAD ? 3 : 1;
};

/* Rotations, and behind them steps: of tile i in place i modulo STEPS. */
struct tile_lines {
    rotation *turn;
    float *steps;
    int angles;
};
template <class F> __host__ __device__ static inline size_t line_bytes(size_t angles) {
    return (turn_floats(angles) + tile_walk<F>::STEPS * step_floats(angles)) * sizeof(float);
}
__device__ static inline tile_lines lay_out_lines(void *room, int angles) {
    float *lines = static_cast<float *>(room);
    return {static_cast<rotation *>(room), lines + turn_floats((size_t)angles), angles};
}
template <class F> __device__ static inline step_lines steps_of(const tile_lines &l, int tile) {
    return lay_out_steps(l.steps + tile % tile_walk<F>::STEPS * step_floats((size_t)l.angles), l.angles);
}

/* Makes rotations and weights, m->weights, of a tile whose steps are there. */
template <class F, class TILES>
__device__ static inline void begin_tile(TILES *m, const tile_lines &l, const head_view &v, int tile, int warp) {
    step_lines steps = steps_of<F>(l, tile);
    make_rotations(l.turn, steps, v.angles, warp);
    if (warp == 0) make_weights(&m->weights[tile % TILES::BUFFERS], steps, tile_length<F>(v, tile));
}

/* ssd_carry.cu: gradients (batch, heads, chunks, head_dim, state), of the state behind each tile. */
void ssd_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy);
