/* mamba_prepare_backward: from the gradients of the steps and phases to those of in_proj's last columns and of dt_bias;
 * the mathematics is in kernels/cpu/mamba.c. The columns of B and C have been written by ssd_backward.
 *
 * F_t = sum_{s>=t} dphi_s is linear in what lies behind a chunk: ssd_backward has spent each chunk's own part; here the
 * chunks' sums are added from last to first (float64), and their part follows.
 *
 * Published preset, a call: gradients of the steps and angles, the steps and rates read, 34 MB; 64 columns of proj read
 * and of dproj written, 17 MB: limit 12 us and the time of three launches. */
#include "kernels/cuda/mamba_prepare.cuh"
#include "kernels/cuda/tile_sums.cuh"

struct prepare_gradients {
    prepare_tensors t;
    mamba_tape_gradients dtape;
    bf16 *dproj;
    float *behind;  /* (batch, heads, chunks, angles) the sum of dphi behind each chunk */
    float *dt_bias; /* (batch, tiles of tokens, heads) each tile's part */
};

/* A thread has one angle of one head. */
__global__ void __launch_bounds__(PREPARE_THREADS)
    sum_behind(float *behind, const float *sums, size_t heads, size_t chunks, size_t angles) {
    size_t i = (size_t)blockIdx.x * PREPARE_THREADS + threadIdx.x;
    if (i >= heads * angles) return;
    size_t first = i / angles * chunks * angles + i % angles;
    double sum = 0;
    for (size_t end = chunks; end > 0; end -= end < CHUNKS_AT_ONCE ? end : CHUNKS_AT_ONCE) {
        float own[CHUNKS_AT_ONCE];
#pragma unroll
        for (size_t k = 0; k < CHUNKS_AT_ONCE; k++) own[k] = k < end ? sums[first + (end - 1 - k) * angles] : 0;
#pragma unroll
        for (size_t k = 0; k < CHUNKS_AT_ONCE; k++) {
            if (k < end) behind[first + (end - 1 - k) * angles] = (float)sum;
            sum += own[k];
        }
    }
}

/* Where a lane's token is. */
struct token_place {
    size_t batch, time, chunk, chunks;
};

/* dt', a', lambda' of one token and head; returns its part of ddt_bias. */
__device__ static inline float gradient_rates(const prepare_gradients &a, const token_place &at, size_t h,
                                              const bf16 *raw, bf16 *to) {
    const mamba_shape &s = a.t.s;
    const struct mamba_columns &k = a.t.k;
    size_t head = at.batch * s.heads + h, step = head * s.time + at.time;
    const float *behind = a.behind + (head * at.chunks + at.chunk) * s.angles;
    const float *rate = a.t.tape.rate + at.batch * s.angles * s.time + at.time;
    float ddelta = a.dtape.delta[step], dlog_decay = a.dtape.log_decay[step], dgamma = a.dtape.gamma[step];
    float decay = to_float(raw[k.a - k.dt + h]), a_rate = -softplus(decay), delta = a.t.tape.delta[step], turned = 0;
    float mix = sigmoid(to_float(raw[k.lambda - k.dt + h]));
    bool bound = a_rate >= -LEAST_DECAY;
#pragma unroll 4
    for (size_t j = 0; j < s.angles; j++) turned += rate[j * s.time] * behind[j];
    ddelta += TURN * turned + dlog_decay * (bound ? -LEAST_DECAY : a_rate) + dgamma * mix;
    float ddt = ddelta * sigmoid(to_float(raw[h]) + a.t.weights.dt_bias[h]);
    to[h] = to_bf16(ddt);
    to[k.a - k.dt + h] = to_bf16(bound ? 0 : -sigmoid(decay) * delta * dlog_decay);
    to[k.lambda - k.dt + h] = to_bf16(dgamma * delta * mix * (1 - mix));
    return ddt;
}

/* theta' of one token and angle. */
__device__ static inline bf16 gradient_theta(const prepare_gradients &a, const token_place &at, size_t j) {
    const mamba_shape &s = a.t.s;
    float sum = 0, rate = 2 * a.t.tape.rate[(at.batch * s.angles + j) * s.time + at.time];
    for (size_t group = 0; group < s.groups; group++)
        sum += a.dtape.theta[((group * s.batch + at.batch) * s.angles + j) * s.time + at.time];
#pragma unroll 4
    for (size_t h = 0; h < s.heads; h++) {
        size_t head = at.batch * s.heads + h;
        sum += a.t.tape.delta[head * s.time + at.time] * a.behind[(head * at.chunks + at.chunk) * s.angles + j];
    }
    return to_bf16(TURN / 2 * (1 - rate * rate) * sum);
}

/* Grid: batch x tiles of tokens. Shared: the raw columns, then their gradients. */
__global__ void __launch_bounds__(PREPARE_THREADS) gradient_tokens(prepare_gradients a) {
    const mamba_shape &s = a.t.s;
    const struct mamba_columns &k = a.t.k;
    token_tile place = tile_of(s, blockIdx.x);
    size_t columns = step_columns(k), pitch = staged_pitch(columns), lane = threadIdx.x % WARP,
           warp = threadIdx.x / WARP;
    bf16 *room = shared_memory<bf16>(), *out = room + WARP * pitch, *rows = a.dproj + place.row * k.width + k.dt;
    bool staged = columns <= STAGED_MOST, here = (int)lane < place.tokens;
    column_tile<const bf16> raw = stage_columns(room, a.t.proj + place.row * k.width, k, place.tokens);
    __syncthreads();
    const bf16 *own = raw.rows + lane * raw.pitch;
    bf16 *to = staged ? out + lane * pitch : rows + lane * k.width;
    token_place at = {place.batch, place.start + lane, (place.start + lane) / s.chunk, ceil_div(s.time, s.chunk)};
    for (size_t h = warp; h < s.heads; h += PREPARE_WARPS) {
        float ddt = warp_sum(here ? gradient_rates(a, at, h, own, to) : 0);
        if (lane == 0) a.dt_bias[blockIdx.x * s.heads + h] = ddt;
    }
    if (here)
        for (size_t j = warp; j < s.angles; j += PREPARE_WARPS) to[k.theta - k.dt + j] = gradient_theta(a, at, j);
    if (!staged) return;
    __syncthreads();
    for (unsigned i = threadIdx.x; i < (unsigned)place.tokens * (unsigned)columns; i += PREPARE_THREADS) {
        unsigned t = i / (unsigned)columns, column = i % (unsigned)columns;
        rows[t * k.width + column] = out[t * pitch + column];
    }
}

/* The lane's scratch, forward and backward; returns its bytes. */
static size_t lay_out_scratch(prepare_gradients *a, void *scratch, const struct mamba_shape *s) {
    size_t pairs = s->batch * s->heads * mamba_chunks(s) * s->angles, turns = pairs * sizeof(uint32_t);
    size_t behind = scratch_bytes(pairs * sizeof(float));
    size_t dt_bias = s->batch * token_tiles(*s) * s->heads * sizeof(float);
    a->behind = (float *)scratch;
    a->dt_bias = (float *)((char *)scratch + behind);
    return turns > behind + dt_bias ? turns : behind + dt_bias;
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
    size_t heads = s.batch * s.heads, tiles = s.batch * token_tiles(s);
    if (s.angles)
        LAUNCH(sum_behind, (unsigned)ceil_div(heads * s.angles, PREPARE_THREADS), PREPARE_THREADS, 0, a.behind,
               dtape->phase, heads, mamba_chunks(shape), s.angles);
    LAUNCH(gradient_tokens, (unsigned)tiles, PREPARE_THREADS, 2 * staged_bytes(a.t.k), a);
    all_tile_sums sums = {{{gradients->dt_bias, a.dt_bias, s.heads, s.heads, 1, 0}}};
    add_tile_sums(sums, tiles);
}
