/* mamba_prepare: from in_proj's rows to what the scan uses; the mathematics is in kernels/cpu/mamba.c.
 *
 * Phases are sums over time. Both directions cut a sequence into tiles of 32 tokens, one for each lane of a warp: sum
 * each tile, pass over the tiles' sums in order (float64), then scan inside the tile. The shape of every sum depends
 * on the tensor's shape alone.
 *
 * Published preset, a call: B, C, cos, sin written: 335 MB (78 us); reading proj's columns and the rest, 40 MB (9 us):
 * limit 87 us. */
#include "kernels/cuda/mamba_room.cuh"

static constexpr int THREADS = 128;

/* --- delta, log_decay, gamma -----------------------------------------------------------------------------------------
 */

__global__ void __launch_bounds__(THREADS) prepare_rates(mamba_tape tape, const bf16 *proj, const float *dt_bias,
                                                         size_t rows, size_t heads, struct mamba_columns k) {
    size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x, h = i % heads;
    if (i >= rows * heads) return;
    const bf16 *row = proj + i / heads * k.width;
    float delta = softplus(to_float(row[k.dt + h]) + dt_bias[h]);
    tape.delta[i] = delta;
    tape.log_decay[i] = decay_rate(to_float(row[k.a + h])) * delta;
    tape.gamma[i] = sigmoid(to_float(row[k.lambda + h])) * delta;
}

/* --- phases: turns at the start of every tile
 * -------------------------------------------------------------------------- */

/* turns (batch, tiles, heads, angles) = what each tile turns. Grid: batch x tiles. */
__global__ void __launch_bounds__(THREADS)
    tile_turns(double *turns, const float *delta, const bf16 *proj, mamba_shape s, struct mamba_columns k) {
    float *rate = shared_memory<float>(); /* (tokens, angles) */
    size_t tiles = mamba_tiles(s), batch = blockIdx.x / tiles, tile = blockIdx.x % tiles, pairs = s.heads * s.angles;
    size_t row = batch * s.time + tile * MAMBA_TILE, left = s.time - tile * MAMBA_TILE;
    size_t tokens = left < MAMBA_TILE ? left : MAMBA_TILE;
    for (size_t i = threadIdx.x; i < tokens * s.angles; i += THREADS)
        rate[i] = turning_rate(to_float(proj[(row + i / s.angles) * k.width + k.theta + i % s.angles]));
    __syncthreads();
    for (size_t pair = threadIdx.x; pair < pairs; pair += THREADS) {
        double sum = 0;
        for (size_t t = 0; t < tokens; t++)
            sum += (double)rate[t * s.angles + pair % s.angles] * delta[(row + t) * s.heads + pair / s.angles];
        turns[blockIdx.x * pairs + pair] = sum;
    }
}

/* --- B and C of every head
 * --------------------------------------------------------------------------------------------- */

/* unit (2, rows, groups, state) = the normed B and C times their weight; one warp for each. */
__global__ void __launch_bounds__(THREADS) norm_groups(float *unit, mamba_tape tape, const bf16 *proj, mamba_weights w,
                                                       mamba_shape s, struct mamba_columns k) {
    size_t count = s.batch * s.time * s.groups, i = ((size_t)blockIdx.x * THREADS + threadIdx.x) / WARP;
    if (i >= 2 * count) return;
    bool c = i >= count;
    size_t at = c ? i - count : i, group = at % s.groups;
    const bf16 *x = proj + at / s.groups * k.width + (c ? k.c : k.b) + group * s.state;
    const float *norm = c ? w.c_norm : w.b_norm;
    float inv = inverse_rms(x, s.state);
    for (size_t n = threadIdx.x % WARP; n < s.state; n += WARP) unit[i * s.state + n] = to_float(x[n]) * inv * norm[n];
    if (threadIdx.x % WARP == 0) (c ? tape.inv_c : tape.inv_b)[at] = inv;
}

/* turn[t][j]: the rotations of one head's tile, by the block; a warp scans one angle at a time. */
__device__ static void tile_rotations(rotation *turn, const double *start, const float *delta, const bf16 *theta,
                                      size_t tokens, const mamba_shape &s, size_t width) {
    size_t lane = threadIdx.x % WARP;
    for (size_t j = threadIdx.x / WARP; j < s.angles; j += THREADS / WARP) {
        float step = 0;
        if (lane < tokens) step = wrap_turns(turning_rate(to_float(theta[lane * width + j])) * delta[lane * s.heads]);
        for (size_t offset = 1; offset < WARP; offset *= 2) {
            float before = __shfl_up_sync(0xffffffffu, step, offset);
            if (lane >= offset) step += before;
        }
        turn[lane * (s.angles + 1) + j] = rotation_of(wrap_turns((float)start[j] + step));
    }
}

/* Grid: batch x tiles x heads, the head fastest. Shared: rotations (tokens, angles + 1). */
__global__ void __launch_bounds__(THREADS)
    prepare_heads(mamba_tape tape, const float *unit, const double *turns, const bf16 *proj, mamba_weights w,
                  mamba_shape s, struct mamba_columns k) {
    rotation *turn = shared_memory<rotation>();
    size_t tiles = mamba_tiles(s), head = blockIdx.x % s.heads, index = blockIdx.x / s.heads;
    size_t batch = index / tiles, tile = index % tiles;
    size_t row = batch * s.time + tile * MAMBA_TILE, left = s.time - tile * MAMBA_TILE;
    size_t tokens = left < MAMBA_TILE ? left : MAMBA_TILE, group = head / (s.heads / s.groups);
    bf16 *cosine = reinterpret_cast<bf16 *>(tape.cosine), *sine = reinterpret_cast<bf16 *>(tape.sine);
    tile_rotations(turn, turns + (size_t)blockIdx.x * s.angles, tape.delta + row * s.heads + head,
                   proj + row * k.width + k.theta, tokens, s, k.width);
    __syncthreads();
    unsigned angles = (unsigned)s.angles, count = (unsigned)tokens;
    for (unsigned i = threadIdx.x; i < count * angles; i += THREADS) {
        size_t t = i / angles, j = i % angles, at = ((row + t) * s.heads + head) * s.angles + j;
        cosine[at] = to_bf16(turn[t * (s.angles + 1) + j].cosine);
        sine[at] = to_bf16(turn[t * (s.angles + 1) + j].sine);
    }
    unsigned pairs = (unsigned)(s.state + 1) / 2;
    size_t all = s.batch * s.time;
    for (unsigned i = threadIdx.x; i < 2 * count * pairs; i += THREADS) {
        bool c = i >= count * pairs;
        size_t t = i / pairs % count, j = i % pairs;
        const float *from = unit + (((c ? all : 0) + row + t) * s.groups + group) * s.state + 2 * j;
        const float *bias = (c ? w.c_bias : w.b_bias) + head * s.state + 2 * j;
        bf16 *to = reinterpret_cast<bf16 *>(c ? tape.c : tape.b) + ((row + t) * s.heads + head) * s.state + 2 * j;
        bool odd_there = 2 * j + 1 < s.state;
        float even = from[0] + bias[0], odd = odd_there ? from[1] + bias[1] : 0;
        if (j < s.angles) rotate(even, odd, turn[t * (s.angles + 1) + j]);
        if (s.state % 2 == 0) {
            *reinterpret_cast<uint32_t *>(to) = pack_bf16(even, odd);
            continue;
        }
        to[0] = to_bf16(even);
        if (odd_there) to[1] = to_bf16(odd);
    }
}

extern "C" void cuda_mamba_prepare_forward(struct lane *lane, struct mamba_tape *tape, const act *proj,
                                           const struct mamba_weights *weights, const struct mamba_shape *shape) {
    const struct mamba_shape &s = *shape;
    struct mamba_columns k = mamba_columns(shape);
    struct prepare_room room = prepare_room(lane->scratch, shape);
    size_t rows = s.batch * s.time, tiles = s.batch * mamba_tiles(s);
    LAUNCH(prepare_rates, (unsigned)ceil_div(rows * s.heads, THREADS), THREADS, 0, *tape, acts(proj), weights->dt_bias,
           rows, s.heads, k);
    LAUNCH(norm_groups, (unsigned)ceil_div(2 * rows * s.groups * WARP, THREADS), THREADS, 0, room.unit, *tape,
           acts(proj), *weights, s, k);
    if (s.angles) {
        LAUNCH(tile_turns, (unsigned)tiles, THREADS, MAMBA_TILE * s.angles * sizeof(float), room.sums, tape->delta,
               acts(proj), s, k);
        launch_scan<false>(room.sums, s);
    }
    LAUNCH(prepare_heads, (unsigned)(tiles * s.heads), THREADS, MAMBA_TILE * (s.angles + 1) * sizeof(rotation), *tape,
           room.unit, room.sums, acts(proj), *weights, s, k);
}
