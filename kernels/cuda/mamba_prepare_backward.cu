/* mamba_prepare_backward: from the gradients of B, C and the steps to those of in_proj's columns and the mixer's small
 * weights; the mathematics is in kernels/cpu/mamba.c.
 *
 * F_t = sum_{s>=t} dphi_s is linear in what lies behind a tile: gradient_groups uses F of the tile alone, reading B, C
 * and their gradients once; a scan adds the tiles' sums from last to first; gradient_rows adds what F has from behind.
 * Weights' gradients are summed by tile, then over tiles, in a fixed order.
 *
 * Published preset, a call: B, C, dB, dC, cos, sin read: 604 MB (140 us); the rest, 80 MB (19 us): limit 159 us. */
#include "kernels/cuda/mamba_room.cuh"

static constexpr int THREADS = 128, LANES = THREADS / MAMBA_TILE; /* a tile's token has LANES threads, side by side */

/* Everything that the kernels share. partial rows: db_bias, dc_bias (heads, state), ddt_bias (heads), db_norm, dc_norm
 * (groups, state). */
struct prepare_arguments {
    mamba_shape s;
    struct mamba_columns k;
    mamba_tape tape;
    mamba_tape_gradients dtape;
    mamba_weights weights;
    const bf16 *proj;
    bf16 *dproj;
    struct prepare_room room;
};

/* A tile of one sequence. */
struct tile_place {
    size_t index, row; /* of the tile, of its first token */
    int tokens;
};
__device__ static inline tile_place place_of(const mamba_shape &s, size_t index) {
    size_t tiles = mamba_tiles(s), start = index % tiles * MAMBA_TILE, left = s.time - start;
    return {index, index / tiles * s.time + start, (int)(left < MAMBA_TILE ? left : MAMBA_TILE)};
}

/* Shared memory of gradient_groups. Rows are one float longer than their content, for the banks. */
struct group_tiles {
    float *sum;    /* (2, tokens, state + 1) the group's gradient of normed B and C */
    float *vector; /* (tokens, state + 1) of one head, unrotated */
    float *phase;  /* (tokens, angles + 1) dphi, then F */
    float *dtheta; /* (tokens, angles + 1) */
};
__host__ __device__ static inline size_t group_floats(const mamba_shape &s) {
    return MAMBA_TILE * (3 * (s.state + 1) + 2 * (s.angles + 1));
}
__device__ static inline group_tiles lay_out(float *room, const mamba_shape &s) {
    size_t vector = MAMBA_TILE * (s.state + 1), phase = MAMBA_TILE * (s.angles + 1);
    return {room, room + 2 * vector, room + 3 * vector, room + 3 * vector + phase};
}

/* Unrotates one head's gradient of B or C: into vector, onto the group's sum, and dphi. A thread has its own pairs. */
__device__ static void unrotate(const prepare_arguments &a, const group_tiles &m, const tile_place &place, int head,
                                bool c) {
    int token = (int)threadIdx.x / LANES, state = (int)a.s.state, angles = (int)a.s.angles;
    if (token >= place.tokens) return;
    size_t at = (place.row + (size_t)token) * a.s.heads + (size_t)head;
    const bf16 *gradient = reinterpret_cast<const bf16 *>(c ? a.dtape.c : a.dtape.b) + at * a.s.state;
    const bf16 *rotated = reinterpret_cast<const bf16 *>(c ? a.tape.c : a.tape.b) + at * a.s.state;
    const bf16 *cosine = reinterpret_cast<const bf16 *>(a.tape.cosine),
               *sine = reinterpret_cast<const bf16 *>(a.tape.sine);
    float *vector = m.vector + token * (state + 1), *sum = m.sum + ((c ? MAMBA_TILE : 0) + token) * (state + 1);
    for (int j = (int)threadIdx.x % LANES; 2 * j < state; j += LANES) {
        int odd_at = 2 * j + 1 < state ? 2 * j + 1 : 2 * j; /* an odd state ends in an element that never rotates */
        float even = to_float(gradient[2 * j]), odd = to_float(gradient[odd_at]);
        if (j < angles) {
            float *dphi = m.phase + token * (angles + 1) + j;
            float turned = odd * to_float(rotated[2 * j]) - even * to_float(rotated[odd_at]);
            *dphi = c ? *dphi + turned : turned;
            rotate_back(even, odd, {to_float(cosine[at * a.s.angles + j]), to_float(sine[at * a.s.angles + j])});
        }
        vector[2 * j] = even, sum[2 * j] += even;
        if (odd_at != 2 * j) vector[odd_at] = odd, sum[odd_at] += odd;
    }
}

/* The sum of one head's vector over the tile's tokens. */
__device__ static void sum_tokens(float *to, const float *rows, int tokens, int width) {
    for (int n = (int)threadIdx.x; n < width; n += THREADS) {
        float sum = 0;
        for (int t = 0; t < tokens; t++) sum += rows[t * (width + 1) + n];
        to[n] = sum;
    }
}

/* dphi to F inside the tile, a warp an angle; the tile's sum to room.sums. */
__device__ static void sum_phases(const prepare_arguments &a, const group_tiles &m, const tile_place &place, int head) {
    int lane = (int)threadIdx.x % WARP, angles = (int)a.s.angles;
    for (int j = (int)threadIdx.x / WARP; j < angles; j += THREADS / WARP) {
        float sum = lane < place.tokens ? m.phase[lane * (angles + 1) + j] : 0;
        for (int offset = 1; offset < WARP; offset *= 2) {
            float more = __shfl_down_sync(0xffffffffu, sum, offset);
            if (lane + offset < WARP) sum += more;
        }
        m.phase[lane * (angles + 1) + j] = sum;
        if (lane == 0) a.room.sums[(place.index * a.s.heads + (size_t)head) * a.s.angles + (size_t)j] = sum;
    }
}

/* The head's ddelta from the tile's own F, and its part of dtheta. */
__device__ static void spend_phases(const prepare_arguments &a, const group_tiles &m, const tile_place &place,
                                    int head) {
    int token = (int)threadIdx.x / LANES, lane = (int)threadIdx.x % LANES, angles = (int)a.s.angles;
    size_t row = place.row + (size_t)(token < place.tokens ? token : 0), at = row * a.s.heads + (size_t)head;
    float delta = a.tape.delta[at], sum = 0;
    for (int j = lane; j < angles; j += LANES) {
        float f = m.phase[token * (angles + 1) + j];
        sum += turning_rate(to_float(a.proj[row * a.k.width + a.k.theta + (size_t)j])) * f;
        m.dtheta[token * (angles + 1) + j] += delta * f;
    }
    for (int offset = 1; offset < LANES; offset *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    if (lane == 0 && token < place.tokens) a.room.ddelta[at] = TURN * sum;
}

/* The norm of one group's B or C, a warp a token: dx, and sum becomes each token's part of dnorm. */
__device__ static void norm_backward(const prepare_arguments &a, const group_tiles &m, const tile_place &place,
                                     size_t group, bool c) {
    int lane = (int)threadIdx.x % WARP, state = (int)a.s.state;
    for (int token = (int)threadIdx.x / WARP; token < place.tokens; token += THREADS / WARP) {
        size_t row = place.row + (size_t)token, column = (c ? a.k.c : a.k.b) + group * a.s.state;
        const bf16 *x = a.proj + row * a.k.width + column;
        const float *norm = c ? a.weights.c_norm : a.weights.b_norm;
        float inv = (c ? a.tape.inv_c : a.tape.inv_b)[row * a.s.groups + group], mean = 0;
        float *sum = m.sum + ((c ? MAMBA_TILE : 0) + token) * (state + 1);
        for (int n = lane; n < state; n += WARP) mean += sum[n] * norm[n] * to_float(x[n]);
        mean = warp_sum(mean) * inv / (float)state;
        for (int n = lane; n < state; n += WARP) {
            float unit = to_float(x[n]) * inv;
            a.dproj[row * a.k.width + column + (size_t)n] = to_bf16(inv * (sum[n] * norm[n] - unit * mean));
            sum[n] *= unit;
        }
    }
}

/* Grid: batch x tiles x groups, the group fastest. */
__global__ void __launch_bounds__(THREADS, 4) gradient_groups(prepare_arguments a) {
    size_t group = blockIdx.x % a.s.groups, per_group = a.s.heads / a.s.groups;
    int state = (int)a.s.state, angles = (int)a.s.angles;
    tile_place place = place_of(a.s, blockIdx.x / a.s.groups);
    group_tiles m = lay_out(shared_memory<float>(), a.s);
    float *partial = a.room.partial + place.index * partial_width(a.s),
          *norms = partial + a.s.heads * (2 * a.s.state + 1);
    for (int i = (int)threadIdx.x; i < (int)group_floats(a.s); i += THREADS) m.sum[i] = 0;
    __syncthreads();
    for (size_t head = group * per_group; head < (group + 1) * per_group; head++)
        for (int c = 0; c < 2; c++) {
            unrotate(a, m, place, (int)head, c);
            __syncthreads();
            sum_tokens(partial + ((size_t)c * a.s.heads + head) * a.s.state, m.vector, place.tokens, state);
            if (c) sum_phases(a, m, place, (int)head);
            __syncthreads();
            if (c) spend_phases(a, m, place, (int)head);
        }
    norm_backward(a, m, place, group, false);
    norm_backward(a, m, place, group, true);
    __syncthreads();
    sum_tokens(norms + group * a.s.state, m.sum, place.tokens, state);
    sum_tokens(norms + (a.s.groups + group) * a.s.state, m.sum + MAMBA_TILE * (state + 1), place.tokens, state);
    float *dtheta = a.room.dtheta + (group * a.s.batch * a.s.time + place.row) * a.s.angles;
    for (int i = (int)threadIdx.x; i < place.tokens * angles; i += THREADS)
        dtheta[i] = m.dtheta[i / angles * (angles + 1) + i % angles];
}

/* --- dt', a', lambda', theta'
 * ------------------------------------------------------------------------------------------- */

__device__ static void gradient_theta(const prepare_arguments &a, const tile_place &place, const double *behind) {
    size_t angles = a.s.angles, all = a.s.batch * a.s.time;
    for (size_t i = threadIdx.x; i < (size_t)place.tokens * angles; i += THREADS) {
        size_t row = place.row + i / angles, j = i % angles, at = row * a.k.width + a.k.theta + j;
        float sum = 0, rate = tanhf(to_float(a.proj[at]));
        for (size_t group = 0; group < a.s.groups; group++) sum += a.room.dtheta[(group * all + row) * angles + j];
        for (size_t head = 0; head < a.s.heads; head++)
            sum += a.tape.delta[row * a.s.heads + head] * (float)behind[head * angles + j];
        a.dproj[at] = to_bf16(TURN / 2 * (1 - rate * rate) * sum);
    }
}

/* One token and head; returns its part of ddt_bias. */
__device__ static float gradient_rates(const prepare_arguments &a, size_t row, size_t head, const double *behind) {
    size_t at = row * a.s.heads + head, column = row * a.k.width + head;
    float ddelta = a.dtape.delta[at], dlog_decay = a.dtape.log_decay[at], dgamma = a.dtape.gamma[at];
    float raw = to_float(a.proj[column + a.k.a]), step = -softplus(raw), delta = a.tape.delta[at];
    float mix = sigmoid(to_float(a.proj[column + a.k.lambda])), turned = 0;
    bool bound = step >= -LEAST_DECAY;
    for (size_t j = 0; j < a.s.angles; j++)
        turned +=
            turning_rate(to_float(a.proj[row * a.k.width + a.k.theta + j])) * (float)behind[head * a.s.angles + j];
    if (a.s.angles) ddelta += a.room.ddelta[at] + TURN * turned;
    ddelta += dlog_decay * (bound ? -LEAST_DECAY : step) + dgamma * mix;
    float ddt = ddelta * sigmoid(to_float(a.proj[column + a.k.dt]) + a.weights.dt_bias[head]);
    a.dproj[column + a.k.dt] = to_bf16(ddt);
    a.dproj[column + a.k.a] = to_bf16(bound ? 0 : -sigmoid(raw) * delta * dlog_decay);
    a.dproj[column + a.k.lambda] = to_bf16(dgamma * delta * mix * (1 - mix));
    return ddt;
}

/* Grid: batch x tiles. A warp has one head at a time, a lane one token. */
__global__ void __launch_bounds__(THREADS) gradient_rows(prepare_arguments a) {
    tile_place place = place_of(a.s, blockIdx.x);
    const double *behind = a.room.sums + place.index * a.s.heads * a.s.angles;
    float *partial = a.room.partial + place.index * partial_width(a.s) + 2 * a.s.heads * a.s.state;
    int lane = (int)threadIdx.x % WARP;
    for (size_t head = threadIdx.x / WARP; head < a.s.heads; head += THREADS / WARP) {
        float ddt = lane < place.tokens ? gradient_rates(a, place.row + (size_t)lane, head, behind) : 0;
        ddt = warp_sum(ddt);
        if (lane == 0) partial[head] = ddt;
    }
    gradient_theta(a, place, behind);
}

/* --- the weights' gradients
 * ---------------------------------------------------------------------------------------------- */

/* The tiles' parts summed by column: a block has WARP columns, each of its warps every 32nd tile. */
__global__ void __launch_bounds__(WARP *WARP)
    gradient_weights(mamba_gradients to, const float *partial, size_t tiles, mamba_shape s) {
    float *room = shared_memory<float>(); /* (warps, lanes) */
    size_t width = partial_width(s), lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, biases = s.heads * s.state;
    size_t weights = 2 * biases + s.heads + 2 * s.state, column = blockIdx.x * (size_t)WARP + lane;
    size_t copies = column < 2 * biases + s.heads ? 1 : s.groups; /* a norm's weight is shared by the groups */
    size_t norm = column - (2 * biases + s.heads), c = norm / s.state;
    size_t from = copies == 1 && column < 2 * biases + s.heads
                      ? column
                      : 2 * biases + s.heads + c * s.groups * s.state + norm % s.state;
    float sum = 0;
    if (column < weights)
        for (size_t group = 0; group < copies; group++)
#pragma unroll 8
            for (size_t tile = warp; tile < tiles; tile += WARP) sum += partial[tile * width + from + group * s.state];
    room[warp * WARP + lane] = sum;
    __syncthreads();
    if (warp > 0 || column >= weights) return;
    for (size_t i = 1; i < WARP; i++) sum += room[i * WARP + lane];
    float *norm_weight = c ? to.c_norm : to.b_norm;
    if (column < biases)
        to.b_bias[column] += sum;
    else if (column < 2 * biases)
        to.c_bias[column - biases] += sum;
    else if (column < 2 * biases + s.heads)
        to.dt_bias[column - 2 * biases] += sum;
    else
        norm_weight[norm % s.state] += sum;
}

extern "C" size_t cuda_mamba_prepare_scratch(const struct mamba_shape *shape) {
    return prepare_room(NULL, shape).bytes;
}

extern "C" void cuda_mamba_prepare_backward(struct lane *lane, act *dproj, const struct mamba_gradients *gradients,
                                            const struct mamba_tape_gradients *dtape, const struct mamba_tape *tape,
                                            const act *proj, const struct mamba_weights *weights,
                                            const struct mamba_shape *shape) {
    const struct mamba_shape &s = *shape;
    prepare_arguments a = {s,        mamba_columns(shape), *tape,       *dtape,
                           *weights, acts(proj),           acts(dproj), prepare_room(lane->scratch, shape)};
    size_t tiles = s.batch * mamba_tiles(s);
    size_t columns = s.heads * (2 * s.state + 1) + 2 * s.state;
    LAUNCH(gradient_groups, (unsigned)(tiles * s.groups), THREADS, group_floats(s) * sizeof(float), a);
    if (s.angles) launch_scan<true>(a.room.sums, s);
    LAUNCH(gradient_rows, (unsigned)tiles, THREADS, 0, a);
    LAUNCH(gradient_weights, (unsigned)ceil_div(columns, WARP), WARP * WARP, WARP * WARP * sizeof(float), *gradients,
           a.room.partial, tiles, s);
}
