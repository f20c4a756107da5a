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

/* --- a tile's steps, as lines of floats in shared memory -------------------------------------------------------------
 */

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

/* Begins the copy of tile i's steps; done after copy_wait and a barrier. */
__device__ static inline void load_steps(const step_lines &to, const head_view &v, int i) {
    size_t start = (size_t)i * (size_t)v.tile;
    int left = v.time - start < LINE ? (int)(v.time - start) : LINE;
#pragma unroll 1
    for (int piece = (int)threadIdx.x; piece < (FIXED_LINES + v.angles) * (LINE / 4); piece += SSD_THREADS) {
        int line = piece / (LINE / 4), at = piece % (LINE / 4) * 4;
        const float *from = line == 0   ? v.delta
                            : line == 1 ? v.log_decay
                            : line == 2 ? v.gamma
                            : line == 3 ? v.inv_b
                            : line == 4 ? v.inv_c
                                        : v.rate + (size_t)(line - FIXED_LINES) * v.time;
        from += start + (size_t)at;
        float *room = to.delta + line * LINE + at;
        if (at + 4 <= left && reinterpret_cast<size_t>(from) % 16 == 0)
            copy_16(room, from, true);
        else
            for (int k = 0; k < 4; k++) room[k] = at + k < left ? from[k] : 0;
    }
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

/* --- B and C
 * ------------------------------------------------------------------------------------------------------------- */

/* turn[t][j]: rows of angles + 4, for the banks. */
__host__ __device__ static inline size_t turn_floats(size_t angles) { return TILE * (angles + 4) * 2; }

/* The rotations of the tile's tokens; a warp scans one angle at a time. */
__device__ static inline void make_rotations(rotation *turn, const step_lines &steps, int angles) {
    int lane = (int)threadIdx.x % WARP;
    float delta[2] = {steps.delta[2 * lane], steps.delta[2 * lane + 1]};
#pragma unroll 1
    for (int j = (int)threadIdx.x / WARP; j < angles; j += SSD_WARPS) {
        const float *rate = steps.rate + j * LINE + 2 * lane;
        float first = wrap_turns(rate[0] * delta[0]), both = first + wrap_turns(rate[1] * delta[1]), sum = both;
        for (int offset = 1; offset < WARP; offset *= 2) {
            float before = __shfl_up_sync(0xffffffffu, sum, offset);
            if (lane >= offset) sum += before;
        }
        float start = steps.phase[j] + (sum - both);
        turn[2 * lane * (angles + 4) + j] = rotation_of(wrap_turns(start + first));
        turn[(2 * lane + 1) * (angles + 4) + j] = rotation_of(wrap_turns(start + both));
    }
}

/* Eight columns' norm weight and bias, zero behind the state. */
template <int N> struct vector_parameters { float norm[N], bias[N]; };
template <int N>
__device__ static inline void load_parameters(vector_parameters<N> *to, const float *norm, const float *bias,
                                              int state) {
    for (int n = (int)threadIdx.x; n < N; n += SSD_THREADS) {
        to->norm[n] = n < state ? norm[n] : 0;
        to->bias[n] = n < state ? bias[n] : 0;
    }
}

/* to = rotated (raw inv norm + bias), the rows that the tile does not have zero; `to` may be `raw`. */
template <int N>
__device__ static inline void make_vectors(tile_row<N> *to, const tile_row<N> *raw, const float *inv,
                                           const vector_parameters<N> &p, const rotation *turn, int angles,
                                           int length) {
    int column = (int)threadIdx.x % (N / 8) * 8; /* the same for all of a thread's rows */
    float norm[8], bias[8];
#pragma unroll
    for (int k = 0; k < 8; k++) norm[k] = p.norm[column + k], bias[k] = p.bias[column + k];
#pragma unroll 1
    for (int row = (int)threadIdx.x / (N / 8); row < TILE; row += SSD_THREADS / (N / 8)) {
        uint4 eight = *reinterpret_cast<const uint4 *>(&raw[row][column]);
        uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
        float scale = inv[row];
#pragma unroll
        for (int k = 0; k < 4; k++) {
            float even = low_half(pairs[k]) * scale * norm[2 * k] + bias[2 * k];
            float odd = high_half(pairs[k]) * scale * norm[2 * k + 1] + bias[2 * k + 1];
            if (column / 2 + k < angles) rotate(even, odd, turn[row * (angles + 4) + column / 2 + k]);
            pairs[k] = row < length ? pack_bf16(even, odd) : 0;
        }
        *reinterpret_cast<uint4 *>(&to[row][column]) = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }
}

/* ssd_carry.cu: gradients (batch, heads, chunks, head_dim, state), of the state behind each tile. */
void ssd_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy);
