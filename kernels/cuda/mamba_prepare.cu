/* mamba_prepare: from in_proj's rows to the steps, norms and phases that the scan uses; the mathematics is in
 * kernels/cpu/mamba.c. B and C themselves are made by the scan.
 *
 * Phases are sums over time: each chunk of the scan is summed, the sums are passed over in order, and the scan sums
 * inside a chunk.
 *
 * Published preset, a call: 192 columns of proj read, 25 MB; steps, rates and norms written, 17 MB; 1 MB of turns
 * written and read, 1 MB of phases: 45 MB: limit 10 us and the time of two launches. */
#include "kernels/cuda/mamba_prepare.cuh"

/* A turn is 2^32 in fixed point, so that whole turns fall off a sum and any order of it has the same bits: a product
 * added to POINT, which is large enough to have no bits behind the point, is one in its low word. */
static constexpr double TURN_UNITS = 4294967296.0, POINT = 6755399441055744.0 /* 1.5 2^52 */;
__device__ static inline uint32_t low_word(double x) { return (uint32_t)__double_as_longlong(x); }

/* Whether B and C are made of vectors of eight elements, so many. */
__device__ static inline bool has_eights(const prepare_tensors &a, unsigned count) {
    return a.s.state == 8 * count && (a.k.b | a.k.width) % 8 == 0 && reinterpret_cast<size_t>(a.proj) % 16 == 0;
}

/* 1/rms of 8 LANES elements, by that many neighbouring lanes; every lane of the warp calls it. */
template <unsigned LANES> __device__ static inline float inverse_rms_of_eights(uint4 eight) {
    uint32_t pairs[4] = {eight.x, eight.y, eight.z, eight.w};
    float sum = 0;
#pragma unroll
    for (int k = 0; k < 4; k++)
        sum += low_half(pairs[k]) * low_half(pairs[k]) + high_half(pairs[k]) * high_half(pairs[k]);
#pragma unroll
    for (int offset = LANES / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    return rsqrtf(sum / (float)(8 * LANES) + (float)BC_NORM_EPSILON);
}

/* One group's B and C: of the first token, `width` apart; and their norms, by tokens. */
struct group_vectors {
    const bf16 *from[2];
    float *inv[2];
    unsigned width;
};

template <unsigned LANES> __device__ static inline void norms_of_eights(const group_vectors &v, unsigned tokens) {
    constexpr unsigned AT_ONCE = 4, STEP = PREPARE_THREADS / LANES;
    unsigned first = threadIdx.x / LANES, place = threadIdx.x % LANES;
    for (unsigned start = first; start < first + tokens; start += AT_ONCE * STEP) {
        uint4 eight[2][AT_ONCE];
#pragma unroll
        for (unsigned c = 0; c < 2; c++)
#pragma unroll
            for (unsigned n = 0; n < AT_ONCE; n++) {
                unsigned t = min(start + n * STEP, tokens - 1);
                eight[c][n] = *reinterpret_cast<const uint4 *>(v.from[c] + t * v.width + place * 8);
            }
#pragma unroll
        for (unsigned c = 0; c < 2; c++)
#pragma unroll
            for (unsigned n = 0; n < AT_ONCE; n++) {
                float own = inverse_rms_of_eights<LANES>(eight[c][n]);
                if (place == 0 && start + n * STEP < tokens) v.inv[c][start + n * STEP] = own;
            }
    }
}

/* The same of vectors of any size. */
__device__ static inline void norms_of_any(const group_vectors &v, unsigned tokens, size_t state) {
    for (unsigned i = threadIdx.x / WARP; i < 2 * tokens; i += PREPARE_WARPS) {
        unsigned c = i % 2, t = i / 2;
        float own = inverse_rms((c ? v.from[1] : v.from[0]) + t * v.width, state);
        if (threadIdx.x % WARP == 0) (c ? v.inv[1] : v.inv[0])[t] = own;
    }
}

__device__ static inline void write_norms(const prepare_tensors &a, const token_tile &place) {
    unsigned groups = (unsigned)a.s.groups, state = (unsigned)a.s.state;
    const bf16 *row = a.proj + place.row * a.k.width;
    for (unsigned group = 0; group < groups; group++) {
        size_t at = group * a.s.time;
        group_vectors v = {
            {row + a.k.b + group * state, row + a.k.c + group * state},
            {own_lines(a.tape.inv_b, a.s, groups, place) + at, own_lines(a.tape.inv_c, a.s, groups, place) + at},
            (unsigned)a.k.width};
        if (has_eights(a, 8))
            norms_of_eights<8>(v, place.tokens);
        else if (has_eights(a, 16))
            norms_of_eights<16>(v, place.tokens);
        else
            norms_of_any(v, place.tokens, state);
    }
}

/* The rates of the chunk's angles, to the tape and to `units` (angles, TILE_TOKENS) in fixed point, 0 for tokens that
 * it does not have. */
__device__ static inline void write_rates(double *units, const prepare_tensors &a, const token_tile &place,
                                          const column_tile<const bf16> &steps, const lane_tokens &t) {
    unsigned angles = (unsigned)a.s.angles, lane = threadIdx.x % WARP, theta = 3 * (unsigned)a.s.heads;
    float *to = own_lines(a.tape.rate, a.s, angles, place) + lane;
    for (unsigned j = threadIdx.x / WARP; j < angles; j += PREPARE_WARPS)
#pragma unroll
        for (unsigned k = 0; k < TOKENS; k++) {
            float rate = turning_rate(to_float(steps.rows[t.at[k] * steps.pitch + theta + j]));
            if (t.here[k]) to[j * (unsigned)a.s.time + k * WARP] = rate;
            units[j * TILE_TOKENS + k * WARP + lane] = t.here[k] ? rate * TURN_UNITS : 0;
        }
}

/* The steps of the lane's tokens and one head, to the tape; those of delta also to `delta`. */
__device__ static inline void write_steps(double (&delta)[TOKENS], const prepare_tensors &a, const token_tile &place,
                                          const column_tile<const bf16> &steps, const lane_tokens &t, unsigned h) {
    unsigned heads = (unsigned)a.s.heads, at = h * (unsigned)a.s.time + threadIdx.x % WARP;
    float *to = own_lines(a.tape.delta, a.s, heads, place) + at;
    float *log_decay = own_lines(a.tape.log_decay, a.s, heads, place) + at;
    float *gamma = own_lines(a.tape.gamma, a.s, heads, place) + at;
    float bias = a.weights.dt_bias[h];
#pragma unroll
    for (unsigned k = 0; k < TOKENS; k++) {
        const bf16 *own = steps.rows + t.at[k] * steps.pitch + h;
        float step = softplus(to_float(own[0]) + bias), decay = decay_rate(to_float(own[heads])) * step;
        float mixed = sigmoid(to_float(own[2 * heads])) * step;
        delta[k] = step;
        if (t.here[k]) to[k * WARP] = step, log_decay[k * WARP] = decay, gamma[k * WARP] = mixed;
    }
}

/* turns (batch, heads, chunks, angles) of the warp's heads, from `first` on. */
__device__ static inline void write_turns(uint32_t *turns, const double *units,
                                          const double (&delta)[HEADS_AT_ONCE][TOKENS], const prepare_tensors &a,
                                          const token_tile &place, unsigned first) {
    unsigned angles = (unsigned)a.s.angles, heads = (unsigned)a.s.heads, lane = threadIdx.x % WARP;
    for (unsigned start = 0; start < angles; start += WARP) {
        uint32_t own[HEADS_AT_ONCE] = {};
#pragma unroll 4
        for (unsigned j = start; j < min(angles, start + WARP); j++) {
            double near = units[j * TILE_TOKENS + lane], far = units[j * TILE_TOKENS + WARP + lane];
#pragma unroll
            for (unsigned i = 0; i < HEADS_AT_ONCE; i++) {
                uint32_t sum = low_word(fma(near, delta[i][0], fma(far, delta[i][1], POINT)));
                sum = __reduce_add_sync(0xffffffffu, sum);
                if (lane == j - start) own[i] = sum;
            }
        }
        uint32_t *to = turns + ((size_t)place.batch * heads * place.chunks + place.chunk) * angles + start + lane;
        if (start + lane < angles)
            for (unsigned i = 0; i < HEADS_AT_ONCE; i++)
                if (first + i < heads) to[(first + i) * place.chunks * angles] = own[i];
    }
}

/* turns: what each chunk turns. Shared: the rates, the columns. */
template <bool STAGED>
__global__ void __launch_bounds__(PREPARE_THREADS, 8) prepare_tokens(uint32_t *turns, prepare_tensors a) {
    token_tile place = own_tile(a.s);
    unsigned warp = threadIdx.x / WARP, heads = (unsigned)a.s.heads;
    lane_tokens t = own_tokens<STAGED>(place);
    double *units = shared_memory<double>();
    column_tile<const bf16> steps = stage_columns<STAGED>(reinterpret_cast<bf16 *>(units + a.s.angles * TILE_TOKENS),
                                                          a.proj + place.row * a.k.width + a.k.dt, a.k, place.tokens);
    write_norms(a, place);
    __syncthreads();
    write_rates(units, a, place, steps, t);
    __syncthreads();
    for (unsigned first = warp * HEADS_AT_ONCE; first < heads; first += PREPARE_WARPS * HEADS_AT_ONCE) {
        double delta[HEADS_AT_ONCE][TOKENS] = {};
#pragma unroll
        for (unsigned i = 0; i < HEADS_AT_ONCE; i++)
            if (first + i < heads) write_steps(delta[i], a, place, steps, t, first + i);
        write_turns(turns, units, delta, a, place, first);
    }
}

/* phase = the turns of all chunks before, in -1/2 .. 1/2. */
struct phase_order {
    using sum = uint32_t;
    static constexpr bool BACKWARD = false;
    __device__ static float result(uint32_t turns) { return (float)(int32_t)turns * 0x1p-32f; }
};

extern "C" void cuda_mamba_prepare_forward(struct lane *lane, struct mamba_tape *tape, const act *proj,
                                           const struct mamba_weights *weights, const struct mamba_shape *shape) {
    const struct mamba_shape &s = *shape;
    prepare_tensors a = {s, mamba_columns(shape), *tape, *weights, acts(proj)};
    uint32_t *turns = (uint32_t *)lane->scratch;
    size_t bytes = s.angles * TILE_TOKENS * sizeof(double) + staged_bytes(a.k);
    device_launch("prepare_tokens", is_staged(a.k) ? prepare_tokens<true> : prepare_tokens<false>, token_tiles(s),
                  dim3(PREPARE_THREADS), bytes, turns, a);
    launch_sum_of_others<phase_order>(tape->phase, turns, s, s.angles);
}
