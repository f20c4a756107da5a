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

/* Whether scan_form<64, 64, true> fits: dy, y and the states have no padding, and the others are columns of proj. */
static inline bool fills_tiles(const scan_tensors &a) {
    const mamba_shape &s = a.s;
    return s.state == 64 && s.head_dim == 64 && a.columns.width % 8 == 0 && s.time % 4 == 0 && s.chunk % 4 == 0;
}

__device__ static inline head_view view_head(const scan_tensors &a, size_t batch, size_t head) {
    const mamba_shape &s = a.s;
    size_t group = head / (s.heads / s.groups), chunks = ceil_div(s.time, s.chunk);
    size_t steps = (batch * s.heads + head) * s.time, norms = (batch * s.groups + group) * s.time;
    const bf16 *row = a.proj + batch * s.time * a.columns.width;
    return {.x = row + a.columns.x + head * s.head_dim,
            .b = row + a.columns.b + group * s.state,
            .c = row + a.columns.c + group * s.state,
            .delta = a.tape.delta + steps,
            .log_decay = a.tape.log_decay + steps,
            .gamma = a.tape.gamma + steps,
            .inv_b = a.tape.inv_b + norms,
            .inv_c = a.tape.inv_c + norms,
            .rate = a.tape.rate + batch * s.angles * s.time,
            .phase = a.tape.phase + (batch * s.heads + head) * chunks * s.angles,
            .b_bias = a.weights.b_bias + head * s.state,
            .c_bias = a.weights.c_bias + head * s.state,
            .width = a.columns.width,
            .time = s.time,
            .tile = (int)s.chunk,
            .tiles = (int)chunks,
            .angles = (int)s.angles,
            .state = (int)s.state};
}

/* Tokens of tile i. */
__device__ static inline int tile_length(const head_view &v, int i) {
    size_t left = v.time - (size_t)i * (size_t)v.tile;
    return (int)(left < (size_t)v.tile ? left : (size_t)v.tile);
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
template <bool WHOLE> __device__ static inline void load_line(float *line, const float *from, int left) {
    int at = (int)threadIdx.x % WARP * 4;
    if (at >= LINE) return;
    if (WHOLE || (at + 4 <= left && reinterpret_cast<size_t>(from) % 16 == 0))
        copy_16(line + at, from + at, at < left);
    else
        for (int k = at; k < at + 4; k++) line[k] = k < left ? from[k] : 0;
}

/* Begins the copy of tile i's steps, a line a warp; done after copy_wait and a barrier. */
template <bool WHOLE>
__device__ static inline void load_steps(const step_lines &to, const head_view &v, int i, int warp) {
    size_t start = (size_t)i * (size_t)v.tile;
    int left = v.time - start < LINE ? (int)(v.time - start) : LINE;
    if (warp < FIXED_LINES) {
        const float *from = warp == 0   ? v.delta
                            : warp == 1 ? v.log_decay
                            : warp == 2 ? v.gamma
                            : warp == 3 ? v.inv_b
                                        : v.inv_c;
        load_line<WHOLE>(to.delta + warp * LINE, from + start, left);
    }
#pragma unroll 1
    for (int j = warp; j < v.angles; j += SSD_WARPS)
        load_line<WHOLE>(to.rate + j * LINE, v.rate + (size_t)j * v.time + start, left);
#pragma unroll 1
    for (int j = (int)threadIdx.x; j < v.angles; j += SSD_THREADS)
        to.phase[j] = v.phase[(size_t)i * (size_t)v.angles + (size_t)j];
}

/* By one warp; tokens that the tile does not have weigh nothing. */
__device__ static inline void make_weights(tile_weights *w, const step_lines &steps, int length) {
    int lane = (int)threadIdx.x % WARP;
    float own[2];
#pragma unroll
    for (int i = 0; i < 2; i++) own[i] = 2 * lane + i < length ? steps.log_decay[2 * lane + i] * LOG2_E : 0;
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
        float l = i == 0 ? before + own[0] : sum, gamma = t < length ? steps.gamma[t] : 0;
        float kappa = t < length ? gamma + (steps.delta[t + 1] - steps.gamma[t + 1]) : 0;
        w->l[t] = l;
        w->r[t] = fast_exp2(l);
        w->f[t] = fast_exp2(whole - l);
        w->kappa[t] = kappa;
        w->gamma[t] = gamma;
        w->fall[t] = kappa * w->f[t];
    }
}

/* --- B and C ------------------------------------------------------------------------------------------------------ */

/* turn[j][t]: lines of TURNS, for the banks. */
static constexpr int TURNS = TILE + 4;
__host__ __device__ static inline size_t turn_floats(size_t angles) { return angles * TURNS * 2; }

/* The rotations of the tile's tokens; a warp scans one angle at a time. */
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

/* tile = rotated (tile inv norm + bias), the rows that it does not have zero. A warp has the same eight columns of all
 * rows, a lane a row: warps agree on what is rotated, and banks on who is next. `turned` tells warps that make two
 * tiles which columns to take of the second, so that none has the rotated ones of both. */
template <int N>
__device__ static inline void make_vectors(tile_row<N> *tile, const float *inv, const vector_parameters<N> &p,
                                           const rotation *turn, int angles, int length, int turned) {
#pragma unroll 1
    for (int column = turned % SSD_WARPS * 8; column < N; column += SSD_WARPS * 8) {
        float norm[8], bias[8];
#pragma unroll
        for (int k = 0; k < 8; k++) norm[k] = p.norm[column + k], bias[k] = p.bias[column + k];
        int rotated = angles - column / 2; /* pairs */
#pragma unroll
        for (int row = (int)threadIdx.x % WARP; row < TILE; row += WARP) {
            uint4 eight = *reinterpret_cast<const uint4 *>(&tile[row][column]);
            uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
            float value[8], scale = inv[row];
#pragma unroll
            for (int k = 0; k < 4; k++) {
                value[2 * k] = low_half(pairs[k]) * scale * norm[2 * k] + bias[2 * k];
                value[2 * k + 1] = high_half(pairs[k]) * scale * norm[2 * k + 1] + bias[2 * k + 1];
            }
            if (rotated > 0)
#pragma unroll
                for (int k = 0; k < 4; k++)
                    if (k < rotated) rotate(value[2 * k], value[2 * k + 1], turn[(column / 2 + k) * TURNS + row]);
#pragma unroll
            for (int k = 0; k < 4; k++) pairs[k] = row < length ? pack_bf16(value[2 * k], value[2 * k + 1]) : 0;
            *reinterpret_cast<uint4 *>(&tile[row][column]) = {pairs[0], pairs[1], pairs[2], pairs[3]};
        }
    }
}

/* ssd_carry.cu: gradients (batch, heads, chunks, head_dim, state), of the state behind each tile. */
void ssd_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy);
