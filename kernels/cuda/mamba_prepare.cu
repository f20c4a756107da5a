/* mamba_prepare: from in_proj's rows to the steps, norms and phases that the scan uses; the mathematics is in
 * kernels/cpu/mamba.c. B and C themselves are made by the scan.
 *
 * Phases are sums over time: each chunk of the scan is summed (float64), the sums are passed over in order, and the
 * scan sums inside a chunk. The shape of every sum depends on the tensor's shape alone.
 *
 * Published preset, a call: 192 columns of proj read, 25 MB; steps, rates and norms written, 17 MB, and read again for
 * the phases; 4 MB of phases: 55 MB: limit 13 us and the time of three launches. */
#include "kernels/cuda/mamba_prepare.cuh"

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
    for (size_t i = warp; i < (size_t)place.tokens * 2 * s.groups; i += PREPARE_WARPS) {
        size_t t = i / (2 * s.groups), group = i / 2 % s.groups, c = i % 2;
        float inv = inverse_rms(rows + t * a.k.width + (c ? a.k.c : a.k.b) + group * s.state, s.state);
        size_t at = (place.batch * s.groups + group) * s.time + place.start + t;
        float *norms = c ? a.tape.inv_c : a.tape.inv_b;
        if (lane == 0) norms[at] = inv;
    }
}

/* turns (batch, heads, chunks, angles): what each chunk turns. A warp has one head's chunk: grid x warps of them. */
__global__ void __launch_bounds__(PREPARE_THREADS) chunk_turns(double *turns, prepare_tensors a, size_t count) {
    const mamba_shape &s = a.s;
    size_t index = ((size_t)blockIdx.x * PREPARE_THREADS + threadIdx.x) / WARP, chunks = ceil_div(s.time, s.chunk);
    if (index >= count) return;
    size_t start = index % chunks * s.chunk, end = start + s.chunk < s.time ? start + s.chunk : s.time;
    const float *delta = a.tape.delta + index / chunks * s.time,
                *rate = a.tape.rate + index / chunks / s.heads * s.angles * s.time;
    for (size_t j = 0; j < s.angles; j++, rate += s.time) {
        double sum = 0;
        for (size_t t = start + threadIdx.x % WARP; t < end; t += WARP) sum += (double)rate[t] * delta[t];
        for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
        if (threadIdx.x % WARP == 0) turns[index * s.angles + j] = sum;
    }
}

/* phase = the wrapped sum of all chunks before. A thread has one angle of one head. */
__global__ void __launch_bounds__(PREPARE_THREADS)
    start_phases(float *phase, const double *turns, size_t heads, size_t chunks, size_t angles) {
    size_t i = (size_t)blockIdx.x * PREPARE_THREADS + threadIdx.x;
    if (i >= heads * angles) return;
    size_t first = i / angles * chunks * angles + i % angles;
    double sum = 0;
#pragma unroll 8
    for (size_t chunk = 0; chunk < chunks; chunk++) {
        phase[first + chunk * angles] = (float)sum;
        sum = wrap_turns(sum + turns[first + chunk * angles]);
    }
}

extern "C" void cuda_mamba_prepare_forward(struct lane *lane, struct mamba_tape *tape, const act *proj,
                                           const struct mamba_weights *weights, const struct mamba_shape *shape) {
    const struct mamba_shape &s = *shape;
    prepare_tensors a = {s, mamba_columns(shape), *tape, *weights, acts(proj)};
    size_t heads = s.batch * s.heads, chunks = mamba_chunks(shape);
    LAUNCH(prepare_tokens, (unsigned)(s.batch * token_tiles(s)), PREPARE_THREADS, staged_bytes(a.k), a);
    if (!s.angles) return;
    double *turns = (double *)lane->scratch;
    LAUNCH(chunk_turns, (unsigned)ceil_div(heads * chunks, PREPARE_WARPS), PREPARE_THREADS, 0, turns, a,
           heads * chunks);
    LAUNCH(start_phases, (unsigned)ceil_div(heads * s.angles, PREPARE_THREADS), PREPARE_THREADS, 0, tape->phase, turns,
           heads, chunks, s.angles);
}
