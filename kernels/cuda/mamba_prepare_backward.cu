/* mamba_prepare_backward: from the gradients of the steps and phases to those of in_proj's last columns and of dt_bias;
 * the mathematics is in kernels/cpu/mamba.c. The columns of B and C have been written by ssd_backward.
 *
 * F_t = sum_{s>=t} dphi_s is linear in what lies behind a chunk: ssd_backward has spent each chunk's own part; here the
 * chunks' sums are added from last to first (float64), and their part follows.
 *
 * Published preset, a call: gradients of the steps and angles, the steps and rates read, 25 MB; 64 columns of proj read
 * and of dproj written, 17 MB; 1 MB of phases' gradients read, 1 MB of their sums written and read: 45 MB: limit 10 us
 * and the time of three launches. */
#include "kernels/cuda/mamba_prepare.cuh"
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/tile_sums.cuh"
#include "kernels/cuda/vectors.cuh"

struct prepare_gradients {
    prepare_tensors t;
    mamba_tape_gradients dtape;
    bf16 *dproj;
    float *behind;  /* (batch, heads, chunks, behind_pitch) the sum of dphi behind each chunk */
    float *dt_bias; /* (batch, chunks, heads) each chunk's part */
};
static constexpr unsigned FOUR = 4; /* angles that are read at once */
__host__ __device__ static inline size_t behind_pitch(const mamba_shape &s) { return ceil_div(s.angles, FOUR) * FOUR; }

struct behind_order {
    using sum = double;
    static constexpr bool BACKWARD = true;
    __device__ static float result(double behind) { return (float)behind; }
};

/* What a block reads of its chunk; in shared memory when there is room, else where it is. A thread writes its part of
 * the gradients where it has read the columns, or else to dproj. */
struct chunk_view {
    column_tile<const bf16> raw;
    column_tile<bf16> to;
    const float *rate, *delta; /* (angles), (heads) by tokens */
    unsigned line;             /* between two of those */
    const float *behind;       /* (heads, behind_pitch) */
    unsigned head;             /* between two of those */
};
__host__ __device__ static inline size_t view_floats(const mamba_shape &s) {
    return (s.heads + s.angles) * TILE_TOKENS + s.heads * behind_pitch(s);
}

/* Begins the copy of lines of a chunk's tokens, half a warp a line; zeros for what the chunk does not have. */
__device__ static inline void copy_lines(float *to, const float *from, unsigned lines, unsigned time, unsigned tokens) {
    unsigned at = threadIdx.x % (WARP / 2) * 4;
    bool fours = (reinterpret_cast<size_t>(from) % 16 | time % 4) == 0 && at + 4 <= tokens;
    for (unsigned i = threadIdx.x / (WARP / 2); i < lines; i += PREPARE_THREADS / (WARP / 2)) {
        const float *own = from + i * time;
        if (fours)
            copy_16(to + i * TILE_TOKENS + at, own + at, true);
        else
#pragma unroll 1
            for (unsigned t = at; t < at + 4; t++) to[i * TILE_TOKENS + t] = t < tokens ? own[t] : 0;
    }
}

/* Done after copy_wait and a barrier. */
template <bool STAGED>
__device__ static inline chunk_view view_chunk(float *room, const prepare_gradients &a, const token_tile &place) {
    const mamba_shape &s = a.t.s;
    const struct mamba_columns &k = a.t.k;
    unsigned pitch = (unsigned)behind_pitch(s), width = (unsigned)k.width, heads = (unsigned)s.heads;
    size_t first = place.row * k.width + k.dt;
    chunk_view v = {{a.t.proj + first, width},
                    {a.dproj + first, width},
                    own_lines(a.t.tape.rate, s, s.angles, place),
                    own_lines(a.t.tape.delta, s, s.heads, place),
                    (unsigned)s.time,
                    a.behind + (place.batch * s.heads * place.chunks + place.chunk) * pitch,
                    place.chunks * pitch};
    if constexpr (!STAGED) return v;
    float *rate = room, *delta = rate + s.angles * TILE_TOKENS, *behind = delta + heads * TILE_TOKENS;
    bf16 *columns = reinterpret_cast<bf16 *>(behind + heads * pitch);
    copy_lines(rate, v.rate, (unsigned)s.angles, v.line, place.tokens);
    copy_lines(delta, v.delta, heads, v.line, place.tokens);
    for (unsigned h = threadIdx.x / WARP; h < heads; h += PREPARE_WARPS)
        for (unsigned j = threadIdx.x % WARP * FOUR; j < pitch; j += WARP * FOUR)
            copy_16(behind + h * pitch + j, v.behind + h * v.head + j, true);
    copy_commit();
    v.raw = stage_columns<true>(columns, v.raw.rows, k, place.tokens);
    return {v.raw, {columns, v.raw.pitch}, rate, delta, TILE_TOKENS, behind, pitch};
}

/* turned = sum_j rate[j] behind[h][j], of the lane's tokens and the heads from `first` on. */
__device__ static inline void add_turned(float (&turned)[HEADS_AT_ONCE][TOKENS], const chunk_view &v,
                                         const mamba_shape &s, const lane_tokens &t, unsigned first) {
    unsigned angles = (unsigned)s.angles, last = (unsigned)s.heads - 1;
    for (unsigned j = 0; j < angles; j += FOUR) {
        float rate[FOUR][TOKENS];
#pragma unroll
        for (unsigned n = 0; n < FOUR; n++)
#pragma unroll
            for (unsigned k = 0; k < TOKENS; k++) rate[n][k] = j + n < angles ? v.rate[(j + n) * v.line + t.at[k]] : 0;
#pragma unroll
        for (unsigned i = 0; i < HEADS_AT_ONCE; i++) {
            float4 behind = *reinterpret_cast<const float4 *>(v.behind + min(first + i, last) * v.head + j);
#pragma unroll
            for (unsigned k = 0; k < TOKENS; k++)
                turned[i][k] +=
                    rate[0][k] * behind.x + rate[1][k] * behind.y + rate[2][k] * behind.z + rate[3][k] * behind.w;
        }
    }
}

/* The gradients of one token's steps of a head, as ssd_backward has left them. */
struct step_gradients {
    float delta, log_decay, gamma;
};

/* dt', a', lambda' of one token and head; returns its part of ddt_bias. */
__device__ static inline float write_rates(const chunk_view &v, const step_gradients &given, float turned, float bias,
                                           unsigned heads, unsigned h, unsigned t, bool here) {
    const bf16 *raw = v.raw.rows + t * v.raw.pitch + h;
    bf16 *to = v.to.rows + t * v.to.pitch + h;
    float delta = v.delta[h * v.line + t], step = to_float(raw[0]) + bias, decay = to_float(raw[heads]);
    float mix = sigmoid(to_float(raw[2 * heads])), a_rate = -softplus(decay);
    bool bound = a_rate >= -LEAST_DECAY;
    float ddelta = given.delta + TURN * turned + given.log_decay * (bound ? -LEAST_DECAY : a_rate) + given.gamma * mix;
    float ddt = ddelta * sigmoid(step), ddecay = bound ? 0 : -sigmoid(decay) * delta * given.log_decay;
    float dmix = given.gamma * delta * mix * (1 - mix);
    if (here) to[0] = to_bf16(ddt), to[heads] = to_bf16(ddecay), to[2 * heads] = to_bf16(dmix);
    return here ? ddt : 0;
}

/* The same of the lane's tokens and the heads from `first` on. */
__device__ static inline void gradient_heads(const prepare_gradients &a, const token_tile &place, const chunk_view &v,
                                             const lane_tokens &t, unsigned first) {
    const mamba_shape &s = a.t.s;
    unsigned heads = (unsigned)s.heads, lane = threadIdx.x % WARP;
    const float *ddelta = own_lines(a.dtape.delta, s, heads, place);
    const float *dlog_decay = own_lines(a.dtape.log_decay, s, heads, place);
    const float *dgamma = own_lines(a.dtape.gamma, s, heads, place);
    float *dt_bias = a.dt_bias + ((size_t)place.batch * place.chunks + place.chunk) * heads;
    float turned[HEADS_AT_ONCE][TOKENS] = {};
    step_gradients given[HEADS_AT_ONCE][TOKENS];
#pragma unroll
    for (unsigned i = 0; i < HEADS_AT_ONCE; i++)
#pragma unroll
        for (unsigned k = 0; k < TOKENS; k++) {
            unsigned at = min(first + i, heads - 1) * (unsigned)s.time + t.from[k];
            given[i][k] = {ddelta[at], dlog_decay[at], dgamma[at]};
        }
    add_turned(turned, v, s, t, first);
#pragma unroll
    for (unsigned i = 0; i < HEADS_AT_ONCE; i++) {
        unsigned h = first + i;
        if (h >= heads) break;
        float ddt = 0, bias = a.t.weights.dt_bias[h];
#pragma unroll
        for (unsigned k = 0; k < TOKENS; k++)
            ddt += write_rates(v, given[i][k], turned[i][k], bias, heads, h, t.at[k], t.here[k]);
        ddt = warp_sum(ddt);
        if (lane == 0) dt_bias[h] = ddt;
    }
}

/* theta' of the lane's tokens and FOUR angles from `first` on. */
__device__ static inline void gradient_angles(const prepare_gradients &a, const token_tile &place, const chunk_view &v,
                                              const lane_tokens &t, unsigned first) {
    const mamba_shape &s = a.t.s;
    unsigned angles = (unsigned)s.angles, heads = (unsigned)s.heads, theta = 3 * heads + first;
    float sum[FOUR][TOKENS] = {};
    for (size_t group = 0; group < s.groups; group++) {
        const float *dtheta = own_lines(a.dtape.theta + group * s.batch * angles * s.time, s, angles, place);
#pragma unroll
        for (unsigned n = 0; n < FOUR; n++)
#pragma unroll
            for (unsigned k = 0; k < TOKENS; k++)
                sum[n][k] += dtheta[min(first + n, angles - 1) * (unsigned)s.time + t.from[k]];
    }
#pragma unroll 4
    for (unsigned h = 0; h < heads; h++) {
        float4 behind = *reinterpret_cast<const float4 *>(v.behind + h * v.head + first);
#pragma unroll
        for (unsigned k = 0; k < TOKENS; k++) {
            float delta = v.delta[h * v.line + t.at[k]];
            sum[0][k] += delta * behind.x, sum[1][k] += delta * behind.y;
            sum[2][k] += delta * behind.z, sum[3][k] += delta * behind.w;
        }
    }
#pragma unroll
    for (unsigned n = 0; n < FOUR; n++)
#pragma unroll
        for (unsigned k = 0; k < TOKENS; k++) {
            if (first + n >= angles || !t.here[k]) continue;
            float rate = 2 * v.rate[(first + n) * v.line + t.at[k]];
            v.to.rows[t.at[k] * v.to.pitch + theta + n] = to_bf16(TURN / 2 * (1 - rate * rate) * sum[n][k]);
        }
}

/* The columns of a chunk from shared memory to dproj; `to` is the column dt' of the first row. */
__device__ static inline void store_columns(bf16 *to, const column_tile<bf16> &from, const struct mamba_columns &k,
                                            unsigned tokens) {
    unsigned columns = (unsigned)step_columns(k), width = (unsigned)k.width;
    if (!has_pieces(to, k)) {
        for (unsigned t = threadIdx.x / WARP; t < tokens; t += PREPARE_WARPS)
#pragma unroll 1
            for (unsigned i = threadIdx.x % WARP; i < columns; i += WARP)
                to[t * width + i] = from.rows[t * from.pitch + i];
        return;
    }
    piece_place own = own_pieces(columns);
#pragma unroll 4
    for (unsigned t = own.first; own.any && t < tokens; t += own.step) {
        const uint32_t *two = reinterpret_cast<const uint32_t *>(from.rows + t * from.pitch + own.column);
        store_16(to + t * width + own.column, uint4{two[0], two[1], two[2], two[3]});
    }
}

template <bool STAGED> __global__ void __launch_bounds__(PREPARE_THREADS, 8) gradient_tokens(prepare_gradients a) {
    const struct mamba_columns &k = a.t.k;
    token_tile place = own_tile(a.t.s);
    unsigned warp = threadIdx.x / WARP, heads = (unsigned)a.t.s.heads, angles = (unsigned)a.t.s.angles;
    lane_tokens t = own_tokens<STAGED>(place);
    chunk_view v = view_chunk<STAGED>(shared_memory<float>(), a, place);
    copy_wait<0>();
    __syncthreads();
    for (unsigned first = warp * HEADS_AT_ONCE; first < heads; first += PREPARE_WARPS * HEADS_AT_ONCE)
        gradient_heads(a, place, v, t, first);
    for (unsigned first = warp * FOUR; first < angles; first += PREPARE_WARPS * FOUR)
        gradient_angles(a, place, v, t, first);
    if constexpr (!STAGED) return;
    __syncthreads();
    store_columns(a.dproj + place.row * k.width + k.dt, v.to, k, place.tokens);
}

/* The lane's scratch, forward and backward; returns its bytes. */
static size_t lay_out_scratch(prepare_gradients *a, void *scratch, const struct mamba_shape *s) {
    size_t chunks = mamba_chunks(s), heads = s->batch * s->heads * chunks, used = 0;
    a->behind = take_scratch<float>(scratch, &used, heads * behind_pitch(*s));
    a->dt_bias = take_scratch<float>(scratch, &used, heads);
    size_t turns = scratch_bytes(heads * s->angles * sizeof(uint32_t));
    return turns > used ? turns : used;
}

extern "C" size_t cuda_mamba_prepare_scratch(const struct mamba_shape *shape) {
    prepare_gradients a;
    return lay_out_scratch(&a, NULL, shape);
}

extern "C" void cuda_mamba_prepare_backward(struct lane *lane, act *dproj, const struct mamba_gradients *gradients,
                                            const struct mamba_tape_gradients *dtape, const struct mamba_tape *tape,
                                            const act *proj, const struct mamba_weights *weights,
                                            const struct mamba_shape *shape) {
    const struct mamba_shape &s = *shape;
    prepare_gradients a = {
        .t = {s, mamba_columns(shape), *tape, *weights, acts(proj)}, .dtape = *dtape, .dproj = acts(dproj)};
    lay_out_scratch(&a, lane->scratch, shape);
    size_t floats = is_staged(a.t.k) ? view_floats(s) : 0;
    launch_sum_of_others<behind_order>(a.behind, dtape->phase, s, behind_pitch(s));
    device_launch("gradient_tokens", is_staged(a.t.k) ? gradient_tokens<true> : gradient_tokens<false>, token_tiles(s),
                  dim3(PREPARE_THREADS), floats * sizeof(float) + staged_bytes(a.t.k), a);
    all_tile_sums sums = {{{gradients->dt_bias, a.dt_bias, s.heads, s.heads, 1, 0}}};
    add_tile_sums(sums, s.batch * mamba_chunks(shape));
}
