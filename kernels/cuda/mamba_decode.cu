/* mamba_decode: one token of each sequence by the recurrence itself; the mathematics is in kernels/cpu/mamba.c.
 *
 * A block has one head of one sequence: all of its small vectors, then its state, a warp a channel.
 *
 * Published preset, a token: the state is read and written, 524 KB a sequence and layer (0.12 us at full rate): a few
 * microseconds of latency decide. */
#include "kernels/cuda/mamba.cuh"

static constexpr int THREADS = 256;

/* Shared memory: b, c, b_before (state), x, x_before (head_dim), turn (angles). */
struct decode_tiles {
    float *b, *c, *b_before, *x, *x_before;
    rotation *turn;
};
__host__ __device__ static inline size_t decode_bytes(const mamba_shape &s) {
    return s.angles * sizeof(rotation) + (3 * s.state + 2 * s.head_dim) * sizeof(float);
}
__device__ static inline decode_tiles lay_out(rotation *room, const mamba_shape &s) {
    float *b = reinterpret_cast<float *>(room + s.angles);
    float *x = b + 3 * s.state;
    return {b, b + s.state, b + 2 * s.state, x, x + s.head_dim, room};
}

/* B or C of the head, normed, with its bias and rotated; by one warp. */
__device__ static void decode_vector(float *to, const bf16 *x, const float *norm, const float *bias,
                                     const rotation *turn, const mamba_shape &s) {
    float inv = inverse_rms(x, s.state);
    for (size_t j = threadIdx.x % WARP; 2 * j < s.state; j += WARP) {
        size_t odd_at = 2 * j + 1 < s.state ? 2 * j + 1 : 2 * j;
        float even = to_float(x[2 * j]) * inv * norm[2 * j] + bias[2 * j];
        float odd = to_float(x[odd_at]) * inv * norm[odd_at] + bias[odd_at];
        if (j < s.angles) rotate(even, odd, turn[j]);
        to[odd_at] = odd;
        to[2 * j] = even;
    }
}

/* Grid: batch x heads. */
__global__ void __launch_bounds__(THREADS) decode_heads(bf16 *out, mamba_state kept, const bf16 *proj, mamba_weights w,
                                                        mamba_shape s, struct mamba_columns k) {
    decode_tiles m = lay_out(shared_memory<rotation>(), s);
    size_t head = blockIdx.x % s.heads, group = head / (s.heads / s.groups), index = blockIdx.x;
    int thread = (int)threadIdx.x, warp = thread / WARP;
    const bf16 *row = proj + index / s.heads * k.width;
    float delta = softplus(to_float(row[k.dt + head]) + w.dt_bias[head]);
    float alpha = expf(decay_rate(to_float(row[k.a + head])) * delta);
    float gamma = sigmoid(to_float(row[k.lambda + head])) * delta, before = alpha * (delta - gamma);

    for (size_t j = threadIdx.x; j < s.angles; j += THREADS) {
        float *phase = kept.phase + index * s.angles + j;
        float turns = wrap_turns(*phase / TURN + wrap_turns(turning_rate(to_float(row[k.theta + j])) * delta));
        *phase = TURN * turns;
        m.turn[j] = rotation_of(turns);
    }
    for (size_t n = threadIdx.x; n < s.state; n += THREADS) m.b_before[n] = kept.b_before[index * s.state + n];
    for (size_t p = threadIdx.x; p < s.head_dim; p += THREADS) {
        float *x_before = kept.x_before + index * s.head_dim + p;
        m.x_before[p] = *x_before;
        *x_before = m.x[p] = to_float(row[k.x + head * s.head_dim + p]);
    }
    __syncthreads();
    const float *b_bias = w.b_bias + head * s.state, *c_bias = w.c_bias + head * s.state;
    if (warp == 0) decode_vector(m.b, row + k.b + group * s.state, w.b_norm, b_bias, m.turn, s);
    if (warp == 1) decode_vector(m.c, row + k.c + group * s.state, w.c_norm, c_bias, m.turn, s);
    __syncthreads();
    for (size_t n = threadIdx.x; n < s.state; n += THREADS) kept.b_before[index * s.state + n] = m.b[n];
    for (size_t p = (size_t)warp; p < s.head_dim; p += THREADS / WARP) {
        float *state = kept.s + (index * s.head_dim + p) * s.state, sum = 0;
        float x_now = gamma * m.x[p], x_then = before * m.x_before[p];
        for (size_t n = threadIdx.x % WARP; n < s.state; n += WARP) {
            state[n] = alpha * state[n] + x_then * m.b_before[n] + x_now * m.b[n];
            sum += state[n] * m.c[n];
        }
        sum = warp_sum(sum) + w.d[head] * m.x[p];
        float z = to_float(row[k.z + head * s.head_dim + p]);
        if (thread % WARP == 0) out[index * s.head_dim + p] = to_bf16(sum * z * sigmoid(z));
    }
}

extern "C" void cuda_mamba_decode(struct lane *, act *out, struct mamba_state *state, const act *proj,
                                  const struct mamba_weights *weights, const struct mamba_shape *shape) {
    LAUNCH(decode_heads, (unsigned)(shape->batch * shape->heads), THREADS, decode_bytes(*shape), acts(out), *state,
           acts(proj), *weights, *shape, mamba_columns(shape));
}
