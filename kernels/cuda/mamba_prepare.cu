/* mamba_prepare: from in_proj's rows to the steps, norms and phases that the scan uses; the mathematics is in
 * kernels/cpu/mamba.c. B and C themselves are made by the scan.
 *
 * Phases are sums over time: each chunk of the scan is summed, the sums are passed over in order, and the scan sums
 * inside a chunk.
 *
 * Published preset, a call: 192 columns of proj read, 25 MB; steps, rates and norms written, 17 MB, and read again for
 * the phases; 4 MB of phases: 55 MB: limit 13 us and the time of three launches. */
#include "kernels/cuda/mamba_prepare.cuh"

/* How many lanes share a token's B or C: one for each eight elements, or the warp. */
__device__ static inline size_t lanes_of_a_vector(const prepare_tensors &a) {
    size_t lanes = a.s.state / 8;
    bool eights = a.s.state % 8 == 0 && (a.k.b | a.k.width) % 8 == 0 && reinterpret_cast<size_t>(a.proj) % 16 == 0;
    return eights && (lanes == 4 || lanes == 8 || lanes == 16) ? lanes : (size_t)WARP;
}

/* 1/rms of x (8 lanes elements), by that many neighbouring lanes; every lane of the warp calls it. */
__device__ static inline float inverse_rms_of_eights(const bf16 *x, size_t count, size_t lanes, bool here) {
    uint4 eight = here ? *reinterpret_cast<const uint4 *>(x + threadIdx.x % lanes * 8) : uint4{0, 0, 0, 0};
    uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++)
        sum += low_half(pairs[k]) * low_half(pairs[k]) + high_half(pairs[k]) * high_half(pairs[k]);
    for (int offset = (int)lanes / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    return rsqrtf(sum / (float)count + (float)BC_NORM_EPSILON);
}

/* Grid: batch x tiles of tokens. */
__global__ void __launch_bounds__(PREPARE_THREADS) prepare_tokens(prepare_tensors a) {
    const mamba_shape &s = a.s;
    token_tile place = tile_of(s, blockIdx.x);
    const bf16 *rows = a.proj + place.row * a.k.width;
    column_tile<const bf16> steps = stage_columns(shared_memory<bf16>(), rows, a.k, place.tokens);
    size_t lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    __syncthreads();
    const bf16 *own = steps.rows + lane * steps.pitch;
    if ((int)lane < place.tokens) {
        for (size_t h = warp; h < s.heads; h += PREPARE_WARPS) {
            size_t at = (place.batch * s.heads + h) * s.time + place.start + lane;
            float delta = softplus(to_float(own[h]) + a.weights.dt_bias[h]);
            a.tape.delta[at] = delta;
            a.tape.log_decay[at] = decay_rate(to_float(own[a.k.a - a.k.dt + h])) * delta;
            a.tape.gamma[at] = sigmoid(to_float(own[a.k.lambda - a.k.dt + h])) * delta;
        }
        for (size_t j = warp; j < s.angles; j += PREPARE_WARPS)
            a.tape.rate[(place.batch * s.angles + j) * s.time + place.start + lane] =
                turning_rate(to_float(own[a.k.theta - a.k.dt + j]));
    }
    __syncwarp();
    size_t lanes = lanes_of_a_vector(a), vectors = WARP / lanes, count = (size_t)place.tokens * 2 * s.groups;
    for (size_t i = warp * vectors; i < count; i += PREPARE_WARPS * vectors) {
        size_t own = i + lane / lanes, t = own / (2 * s.groups), group = own / 2 % s.groups, c = own % 2;
        const bf16 *x = rows + t * a.k.width + (c ? a.k.c : a.k.b) + group * s.state;
        float inv = lanes == WARP ? inverse_rms(x, s.state) : inverse_rms_of_eights(x, s.state, lanes, own < count);
        float *norms = c ? a.tape.inv_c : a.tape.inv_b;
        if (lane % lanes == 0 && own < count) norms[(place.batch * s.groups + group) * s.time + place.start + t] = inv;
    }
}

/* turns (batch, heads, chunks, angles): what each chunk turns, as a fraction of 2^32, so that whole turns fall off and
 * any order of the sum has the same bits. A warp has one head's chunk, of at most two tokens a lane. */
__global__ void __launch_bounds__(PREPARE_THREADS) chunk_turns(uint32_t *turns, prepare_tensors a, size_t count) {
    const mamba_shape &s = a.s;
    size_t index = ((size_t)blockIdx.x * PREPARE_THREADS + threadIdx.x) / WARP, chunks = ceil_div(s.time, s.chunk);
    if (index >= count) return;
    size_t lane = threadIdx.x % WARP, start = index % chunks * s.chunk,
           length = start + s.chunk < s.time ? s.chunk : s.time - start;
    const float *delta = a.tape.delta + index / chunks * s.time + start + lane,
                *rate = a.tape.rate + index / chunks / s.heads * s.angles * s.time + start + lane;
    bool first = lane < length, second = lane + WARP < length;
    double near = first ? delta[0] : 0, far = second ? delta[WARP] : 0;
#pragma unroll 4
    for (size_t j = 0; j < s.angles; j++) {
        const float *own = rate + j * s.time;
        double both = (first ? own[0] * near : 0) + (second ? own[WARP] * far : 0);
        uint32_t sum = (uint32_t)(int64_t)(both * 4294967296.0);
        for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (lane == 0) turns[index * s.angles + j] = sum;
    }
}

/* phase = the sum of all chunks before, in -1/2 .. 1/2. A thread has one angle of one head. */
__global__ void __launch_bounds__(PREPARE_THREADS)
    start_phases(float *phase, const uint32_t *turns, size_t heads, size_t chunks, size_t angles) {
    size_t i = (size_t)blockIdx.x * PREPARE_THREADS + threadIdx.x;
    if (i >= heads * angles) return;
    size_t first = i / angles * chunks * angles + i % angles;
    uint32_t sum = 0;
    for (size_t start = 0; start < chunks; start += CHUNKS_AT_ONCE) {
        uint32_t turned[CHUNKS_AT_ONCE];
#pragma unroll
        for (size_t k = 0; k < CHUNKS_AT_ONCE; k++)
            turned[k] = start + k < chunks ? turns[first + (start + k) * angles] : 0;
#pragma unroll
        for (size_t k = 0; k < CHUNKS_AT_ONCE; k++) {
            if (start + k < chunks) phase[first + (start + k) * angles] = (float)(int32_t)sum * 0x1p-32f;
            sum += turned[k];
        }
    }
}

extern "C" void cuda_mamba_prepare_forward(struct lane *lane, struct mamba_tape *tape, const act *proj,
                                           const struct mamba_weights *weights, const struct mamba_shape *shape) {
    const struct mamba_shape &s = *shape;
    prepare_tensors a = {s, mamba_columns(shape), *tape, *weights, acts(proj)};
    size_t heads = s.batch * s.heads, chunks = mamba_chunks(shape);
    LAUNCH(prepare_tokens, (unsigned)(s.batch * token_tiles(s)), PREPARE_THREADS, staged_bytes(a.k), a);
    if (!s.angles) return;
    uint32_t *turns = (uint32_t *)lane->scratch;
    LAUNCH(chunk_turns, (unsigned)ceil_div(heads * chunks, PREPARE_WARPS), PREPARE_THREADS, 0, turns, a,
           heads * chunks);
    LAUNCH(start_phases, (unsigned)ceil_div(heads * s.angles, PREPARE_THREADS), PREPARE_THREADS, 0, tape->phase, turns,
           heads, chunks, s.angles);
}
