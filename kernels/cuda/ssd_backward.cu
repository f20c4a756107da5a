/* ssd_backward: gradients of the scan and of the vectors that it makes; see ssd_backward.cuh. Here for heads, states
 * and chunks of any size; those that fill their tiles are in ssd_full_backward.cu.
 *
 * After ssd_carry, which leaves the gradient of the state behind every tile, a block has one tile of one group and
 * walks the group's heads, fetching each one's operands while it ends the one before. The gradients of B and C, summed
 * over the heads, never leave the registers (a state of more than 64: the lane's scratch) before the norm's backward
 * pass has made them those of proj's columns. At last ssd_join gives each tile's first token what the tile before found
 * for it, and sums the weights' gradients over tiles. */
#include "kernels/cuda/ssd_backward.cuh"

#include <stdio.h>

/* --- the gradient of a group's normed B or C -------------------------------------------------------------------------
 */

template <int N> struct group_sum {
    static constexpr bool HELD = N <= 64;
    float held[HELD ? OWN<N> : 1][4];

    __device__ void add(const float (&acc)[OWN<N>][4], float4 *room, bool first) {
#pragma unroll
        for (int i = 0; i < OWN<N>; i++) {
            if constexpr (HELD) {
                for (int k = 0; k < 4; k++) held[i][k] = first ? acc[i][k] : held[i][k] + acc[i][k];
            } else {
                float4 *at = room + i * SSD_THREADS + threadIdx.x, sum = first ? float4{0, 0, 0, 0} : *at;
                *at = {sum.x + acc[i][0], sum.y + acc[i][1], sum.z + acc[i][2], sum.w + acc[i][3]};
            }
        }
    }
    __device__ void get(float (&sum)[OWN<N>][4], const float4 *room) const {
#pragma unroll
        for (int i = 0; i < OWN<N>; i++) {
            if constexpr (HELD) {
                for (int k = 0; k < 4; k++) sum[i][k] = held[i][k];
            } else {
                float4 at = room[i * SSD_THREADS + threadIdx.x];
                sum[i][0] = at.x, sum[i][1] = at.y, sum[i][2] = at.z, sum[i][3] = at.w;
            }
        }
    }
};

/* Unrotates the warp's part of dB or dC, adds dphi = dO E - dE O (FIRST: sets it), and sums the columns for the bias.
 */
template <bool FIRST, class F>
__device__ static inline void unrotate(float (&acc)[OWN<F::N>][4], const tile_row<F::N> *rotated, const rotation *turn,
                                       float *dphi, float *bias, int angles, warp_place place) {
    column_blocks<true> columns = columns_to<true>(place, F::N);
    int upper = place.row + (int)threadIdx.x % WARP / 4;
#pragma unroll
    for (int i = 0; i < OWN<F::N>; i++) {
        if (columns.at(i / 2) >= 2 * angles) break;
        int j = columns.pair(i) / 2;
        if (j >= angles) continue;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int t = upper + 8 * half;
            float &even = acc[i][2 * half], &odd = acc[i][2 * half + 1];
            uint32_t pair = pair_at(rotated, t, 2 * j);
            float turned = odd * low_half(pair) - even * high_half(pair);
            dphi[j * PHASES + t] = FIRST ? turned : dphi[j * PHASES + t] + turned;
            rotate_back(even, odd, turn[j * TURNS + t]);
        }
    }
    sum_columns(bias, acc, columns);
}

/* Each band's part of the norm's gradient: sum o x inv, by columns. */
template <int N>
__device__ static inline void norm_weights(float *norms, const float (&sum)[OWN<N>][4], const tile_row<N> *raw,
                                           const float *inv, warp_place place) {
    int upper = place.row + (int)threadIdx.x % WARP / 4, lower = upper + 8;
    column_blocks<true> columns = columns_to<true>(place, N);
    float product[OWN<N>][4];
#pragma unroll
    for (int i = 0; i < OWN<N>; i++) {
        const float *g = sum[i];
        uint32_t a = pair_at(raw, upper, columns.pair(i)), b = pair_at(raw, lower, columns.pair(i));
        product[i][0] = g[0] * low_half(a) * inv[upper], product[i][1] = g[1] * high_half(a) * inv[upper];
        product[i][2] = g[2] * low_half(b) * inv[lower], product[i][3] = g[3] * high_half(b) * inv[lower];
    }
    sum_columns(norms, product, columns);
}

/* sum becomes the gradient of a group's normed B or C, times the norm's weight; its part of each row's dot product with
 * that row goes to means. */
template <int N>
__device__ static inline void norm_means(float (&sum)[OWN<N>][4], float *means, const tile_row<N> *raw,
                                         const float *norm, warp_place place) {
    int row = place.row, upper = row + (int)threadIdx.x % WARP / 4;
    column_blocks<true> columns = columns_to<true>(place, N);
#pragma unroll
    for (int i = 0; i < OWN<N>; i++)
        for (int k = 0; k < 4; k++) sum[i][k] *= norm[columns.pair(i) + k % 2];
    two_rows dot = dot_rows(sum, raw, row, columns);
    if (threadIdx.x % 4 == 0) means[upper] = dot.upper, means[upper + 8] = dot.lower;
}

/* sum, from norm_means, becomes the gradient of proj's columns, and goes there; `raw` is spent. */
template <int N>
__device__ static inline void norm_rows(float (&sum)[OWN<N>][4], tile_row<N> *raw, const float (&means)[PARTS][TILE],
                                        const float *inv, bf16 *to, size_t width, warp_place place, int length,
                                        int state) {
    column_blocks<false> columns = columns_to<false>(place, state);
    int row = place.row;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int t = row + (int)threadIdx.x % WARP / 4 + 8 * half;
        float scale = inv[t], mean = 0;
        for (int part = 0; part < PARTS; part++) mean += means[part][t];
        mean *= scale * scale / (float)state;
#pragma unroll
        for (int i = 0; i < OWN<N>; i++) {
            uint32_t pair = pair_at(raw, t, columns.pair(i));
            sum[i][2 * half] = scale * (sum[i][2 * half] - low_half(pair) * mean);
            sum[i][2 * half + 1] = scale * (sum[i][2 * half + 1] - high_half(pair) * mean);
        }
    }
    __syncwarp();
    write_rows(raw, row, sum, columns);
    store_rows<OWN<N>>(to + (size_t)row * width, width, raw, row, length - row, columns);
}

/* The bands' parts of two vectors of sums, added in order, to to[0 ..] and to[stride ..]. */
template <int N>
__device__ static inline void store_sums(float *to, size_t stride, const float (&parts)[2][BANDS][N], int state) {
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < 2 * N; i += SSD_THREADS) {
        const float(&part)[BANDS][N] = parts[i / N];
        if (i % N < state)
            to[(size_t)(i / N) * stride + (size_t)(i % N)] =
                ((part[0][i % N] + part[1][i % N]) + part[2][i % N]) + part[3][i % N];
    }
}

/* --- phases and steps --------------------------------------------------------------------------------------------- */

/* dphi to its sum over the token and the tile's later ones, F; the whole tile's to `sums`. A warp has one angle at a
 * time. */
__device__ static inline void sum_phases(float *dphi, float *sums, int angles, int warp) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll 1
    for (int j = warp; j < angles; j += SSD_WARPS) {
        float *line = dphi + j * PHASES + 2 * lane, second = line[1], sum = line[0] + second;
        for (int offset = 1; offset < WARP; offset *= 2) {
            float more = __shfl_down_sync(0xffffffffu, sum, offset);
            if (lane + offset < WARP) sum += more;
        }
        float behind = __shfl_down_sync(0xffffffffu, sum, 1);
        line[0] = sum;
        line[1] = second + (lane + 1 < WARP ? behind : 0);
        if (lane == 0) sums[j] = sum;
    }
}

/* The parts of a token's sum, added. */
__device__ static inline float of_parts(const float (&parts)[PARTS][TILE], int t) {
    float sum = 0;
    for (int part = 0; part < PARTS; part++) sum += parts[part][t];
    return sum;
}

/* From the sums to the gradients of log_decay and gamma; by one warp. first_at: of the tile's first token. */
template <class F>
__device__ static inline void gradient_decays(const backward_tiles<F> *m, const backward_arguments &a, size_t first_at,
                                              size_t index, int length) {
    int lane = (int)threadIdx.x % WARP;
    float dl[2], kappa[2], through = 0, passed = 0;
    for (int i = 0; i < SSD_WARPS; i++) through += m->through[i];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = 2 * lane + i;
        kappa[i] = of_parts(m->dkappa, t);
        passed += of_parts(m->passed, t);
        dl[i] = of_parts(m->entered, t) - m->weights.kappa[t] * kappa[i];
        for (int band = 0; band < BANDS; band++) dl[i] += m->pairs[band][t];
    }
    float behind = dl[0] + dl[1]; /* becomes the sum over this lane's tokens and all later ones */
    for (int offset = 1; offset < WARP; offset *= 2) {
        float more = __shfl_down_sync(0xffffffffu, behind, offset);
        if (lane + offset < WARP) behind += more;
    }
    float before = __shfl_up_sync(0xffffffffu, kappa[1], 1); /* the token before this lane's */
    float state = m->weights.whole * through + warp_sum(passed), dd = warp_sum(m->m[2 * lane] + m->m[2 * lane + 1]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = 2 * lane + i;
        if (t >= length) continue;
        a.dtape.log_decay[first_at + (size_t)t] = (i == 0 ? behind : behind - dl[0]) + state;
        a.dtape.gamma[first_at + (size_t)t] = m->m[t] * m->g[t] + kappa[i] -
                                              (i == 1     ? kappa[0]
                                               : lane > 0 ? before
                                                          : 0);
        if (t == length - 1) a.last[index] = kappa[i];
    }
    if (lane == 0) a.dd[index] = dd;
}

/* The gradient of a token's delta, by its phases and by the kappa of the token before. */
template <class F>
__device__ static inline void gradient_delta(const backward_tiles<F> *m, const backward_arguments &a, const float *dphi,
                                             const step_lines &steps, size_t first_at, int t) {
    float turned = 0;
#pragma unroll 4
    for (int j = 0; j < F::angles(a.t.s.angles); j++) turned += steps.rate[j * LINE + t] * dphi[j * PHASES + t];
    a.dtape.delta[first_at + (size_t)t] = (t > 0 ? of_parts(m->dkappa, t - 1) : 0) + TURN * turned;
}

/* Of the head's steps: warp 0 has decays, the next threads a token's delta each, all others the angles. */
template <class F>
__device__ static inline void gradient_steps(const backward_tiles<F> *m, const backward_arguments &a,
                                             const backward_lines &l, const step_lines &steps, const backward_place &at,
                                             bool first) {
    const mamba_shape &s = a.t.s;
    unsigned heads = (unsigned)s.heads;
    size_t first_at = (size_t)(at.batch * heads + at.head) * s.time + first_token<F>(a, at);
    int thread = (int)threadIdx.x;
    if (thread < WARP) {
        gradient_decays(m, a, first_at, at.index * heads + at.head, at.length);
    } else if (thread < WARP + TILE) {
        if (thread - WARP < at.length) gradient_delta(m, a, l.dphi, steps, first_at, thread - WARP);
    } else {
#pragma unroll 1
        for (int i = thread - WARP - TILE; i < F::angles(s.angles) * TILE; i += SSD_THREADS - WARP - TILE) {
            if (i % TILE >= at.length) continue;
            float &sum =
                l.dtheta[(unsigned)(i / TILE) * (backward_tiles<F>::AHEAD ? PHASES : l.pitch) + (unsigned)(i % TILE)];
            float part = steps.delta[i % TILE] * l.dphi[i / TILE * PHASES + i % TILE];
            sum = first ? part : sum + part;
        }
    }
}

/* --- the tiles ---------------------------------------------------------------------------------------------------- */

/* Begins the copy of the group's columns of B and C. */
template <class F>
__device__ static inline void load_raw(backward_tiles<F> *m, const head_view &v, const backward_place &at) {
    size_t row = at.tile * (size_t)v.tile * v.width;
    load_tile<TILE, F::N>(m->b, v.b + row, v.width, at.length, at.n);
    load_tile<TILE, F::N>(m->c, v.c + row, v.width, at.length, at.n);
}

/* Begins the copy of a head's steps. */
template <class F>
__device__ static inline void fetch_steps(const backward_arguments &a, const backward_place &at,
                                          const step_lines &steps, warp_place place) {
    load_steps<F>(steps, view_head<F>(a.t, at.batch, at.head, at.group, at.tiles), (int)at.tile, place.warp);
    copy_commit();
}

/* Begins the copies of what a head starts from, and then of its slice, if it has but one: two groups. */
template <class F>
__device__ static inline void fetch_head(backward_tiles<F> *m, const backward_arguments &a, const backward_place &at) {
    head_view v = view_head<F>(a.t, at.batch, at.head, at.group, at.tiles);
    load_raw(m, v, at);
    load_parameters(&m->b_parameters, a.t.weights.b_norm, v.b_bias, at.n);
    load_parameters(&m->c_parameters, a.t.weights.c_norm, v.c_bias, at.n);
    copy_commit();
    if (at.head_dim <= F::P) load_x(m, a, at, 0), load_dy(m, a, at, 0);
    copy_commit();
}

/* The head's weights, B and C, when what fetch_head fetched is there and the rotations are made. */
template <class F>
__device__ static inline void begin_head(backward_tiles<F> *m, const backward_lines &l, const step_lines &steps,
                                         const backward_place &at, int angles, warp_place place) {
    copy_wait<1>();
    __syncthreads();
    make_vectors<F>(m->b, m->c, steps, m->b_parameters, m->c_parameters, l.turn, angles, at.length, place.warp);
    if (place.warp == SSD_WARPS - 1) make_weights(&m->weights, steps, at.length);
    copy_wait<0>();
    __syncthreads();
}

/* One head of the block's tile, number i of its group; fetches the next one's operands, if there is one. */
template <class F>
__device__ static inline void backward_head(backward_tiles<F> *m, const backward_lines &l, const backward_arguments &a,
                                            const backward_place &at, group_sum<F::N> &sum_b, group_sum<F::N> &sum_c,
                                            unsigned i, bool more, warp_place place) {
    const mamba_shape &s = a.t.s;
    int band = place.row / 16, angles = F::angles(s.angles), here = at.head_dim <= F::P ? 0 : -1;
    step_lines steps = steps_of<F>(l, i, angles);
    float4 *room = a.sums + blockIdx.x * (size_t)(2 * OWN<F::N> * SSD_THREADS);
    constexpr bool AHEAD = backward_tiles<F>::AHEAD;
    backward_place next = at;
    next.head++;
    step_lines next_steps = steps_of<F>(l, i + 1, angles);
    begin_head(m, l, steps, at, angles, place);
    if (AHEAD && more) fetch_steps<F>(a, next, next_steps, place);
    {
        float f[OWN<TILE>][4], g[OWN<TILE>][4];
        multiply_pairs(f, g, m, a, at, place, &here);
        weigh_pairs(f, g, m, place);
    }
    __syncthreads();
    float acc[OWN<F::N>][4];
    gradient_b(acc, m, a, at, place, &here);
    unrotate<true, F>(acc, m->b, l.turn, l.dphi, m->bias[0][band], angles, place);
    sum_b.add(acc, room, i == 0);
    gradient_c(acc, m, a, at, place, &here);
    unrotate<false, F>(acc, m->c, l.turn, l.dphi, m->bias[1][band], angles, place);
    sum_c.add(acc, room + OWN<F::N> * SSD_THREADS, i == 0);
    copy_wait<0>();
    __syncthreads(); /* the sums and the next head's steps are there; x and the rotations are free */
    gradient_x(m, a, at, place, &here);
    sum_phases(l.dphi, a.dtape.phase + matrix_of(a, at) * (unsigned)angles, angles, place.warp);
    unsigned heads = (unsigned)s.heads, state = (unsigned)at.n;
    store_sums<F::N>(a.biases + (size_t)(at.index * 2 * heads + at.head) * state, heads * state, m->bias, at.n);
    if (AHEAD && more) make_rotations(l.turn, next_steps, angles, place.warp);
    __syncthreads(); /* all tiles are free, but not the sums */
    if (AHEAD && more) fetch_head(m, a, next);
    gradient_steps(m, a, l, steps, at, i == 0);
    if (AHEAD || !more) return;
    __syncthreads(); /* the steps are free */
    fetch_steps<F>(a, next, steps, place);
    fetch_head(m, a, next);
    copy_wait<2>();
    __syncthreads();
    make_rotations(l.turn, steps, angles, place.warp);
}

/* Where the tile's first token has the group's dtheta; angles are `time` apart. */
__device__ static inline float *dtheta_of(const backward_arguments &a, const backward_place &at) {
    const mamba_shape &s = a.t.s;
    return a.dtape.theta + ((at.group * s.batch + at.batch) * s.angles) * s.time + at.tile * s.chunk;
}

/* dB, dC and dtheta of the group, when all heads are done. */
template <class F>
__device__ static inline void backward_group(backward_tiles<F> *m, const backward_lines &l, const backward_arguments &a,
                                             const backward_place &at, const group_sum<F::N> &sum_b,
                                             const group_sum<F::N> &sum_c, warp_place place) {
    const mamba_shape &s = a.t.s;
    int band = place.row / 16, angles = F::angles(s.angles), state = at.n;
    size_t width = a.t.columns.width;
    step_lines steps = steps_of<F>(l, (unsigned)(s.heads / s.groups) - 1, angles);
    float4 *room = a.sums + blockIdx.x * (size_t)(2 * OWN<F::N> * SSD_THREADS);
    bf16 *columns = a.dproj + first_row<F>(a, at) * width + at.group * s.state;
    load_raw(m, view_head<F>(a.t, at.batch, at.group * (unsigned)(s.heads / s.groups)), at);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    float b[OWN<F::N>][4], c[OWN<F::N>][4];
    sum_b.get(b, room);
    sum_c.get(c, room + OWN<F::N> * SSD_THREADS);
    norm_weights<F::N>(m->bias[0][band], b, m->b, steps.inv_b, place);
    norm_weights<F::N>(m->bias[1][band], c, m->c, steps.inv_c, place);
    norm_means<F::N>(b, m->means[0][place.part], m->b, m->b_parameters.norm, place);
    norm_means<F::N>(c, m->means[1][place.part], m->c, m->c_parameters.norm, place);
    __syncthreads();
    norm_rows<F::N>(b, m->b, m->means[0], steps.inv_b, columns + a.t.columns.b, width, place, at.length, state);
    norm_rows<F::N>(c, m->c, m->means[1], steps.inv_c, columns + a.t.columns.c, width, place, at.length, state);
    store_sums<F::N>(a.norms + (at.index * 2 * s.groups + at.group) * s.state, s.groups * s.state, m->bias, state);
    if (!backward_tiles<F>::AHEAD) return;
    float *dtheta = dtheta_of(a, at);
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < angles * TILE; i += SSD_THREADS)
        if (i % TILE < at.length)
            dtheta[(size_t)(i / TILE) * s.time + (size_t)(i % TILE)] = l.dtheta[i / TILE * PHASES + i % TILE];
}

/* Grid: (sequence, tile, group), the group fastest. */
template <class F> __global__ void __launch_bounds__(SSD_THREADS, F::BLOCKS) ssd_backward_tiles(backward_arguments a) {
    auto *m = shared_memory<backward_tiles<F>>();
    const mamba_shape &s = a.t.s;
    warp_place place = place_of_warp();
    unsigned tiles = (unsigned)ceil_div(s.time, s.chunk), per_group = (unsigned)(s.heads / s.groups);
    unsigned group = blockIdx.x % (unsigned)s.groups, index = blockIdx.x / (unsigned)s.groups;
    size_t angles = (size_t)F::angles(s.angles);
    float *lines = reinterpret_cast<float *>(m + 1), *all_steps = lines + turn_floats(angles);
    float *dphi = all_steps + backward_tiles<F>::STEPS * step_floats(angles);
    backward_place at = {index / tiles,   index % tiles,    group * per_group, group, index, tiles, 0,
                         (int)s.head_dim, F::state(s.state)};
    size_t left = s.time - at.tile * s.chunk;
    at.length = F::tokens(left < s.chunk ? left : s.chunk);
    backward_lines l = {reinterpret_cast<rotation *>(lines), all_steps, dphi, dphi + angles * PHASES, PHASES};
    if (!backward_tiles<F>::AHEAD) l.dtheta = dtheta_of(a, at), l.pitch = s.time;

    group_sum<F::N> sum_b, sum_c;
    step_lines steps = steps_of<F>(l, 0, (int)angles);
    fetch_steps<F>(a, at, steps, place);
    fetch_head(m, a, at);
    copy_wait<2>();
    __syncthreads();
    make_rotations(l.turn, steps, (int)angles, place.warp);
    for (unsigned i = 0; i < per_group; i++, at.head++)
        backward_head(m, l, a, at, sum_b, sum_c, i, i + 1 < per_group, place);
    backward_group(m, l, a, at, sum_b, sum_c, place);
}

/* --- launches ----------------------------------------------------------------------------------------------------- */

/* The tensors of `a` that are in the lane's scratch; returns their bytes. */
static size_t lay_out_scratch(backward_arguments *a, bf16 **gradients, void *scratch, const struct mamba_shape *s) {
    size_t used = 0, tiles = s->batch * mamba_chunks(s), heads = tiles * s->heads;
    size_t padded = s->state <= 64 ? 0 : s->state <= 128 ? 128 : 256;
    *gradients = take_scratch<bf16>(scratch, &used, heads * s->head_dim * s->state);
    a->sums = take_scratch<float4>(scratch, &used, tiles * s->groups * 2 * padded / 8 / PARTS * SSD_THREADS);
    a->biases = take_scratch<float>(scratch, &used, heads * 2 * s->state);
    a->norms = take_scratch<float>(scratch, &used, tiles * 2 * s->groups * s->state);
    a->last = take_scratch<float>(scratch, &used, heads);
    a->dd = take_scratch<float>(scratch, &used, heads);
    return used;
}

extern "C" size_t cuda_ssd_scratch(const struct mamba_shape *shape) {
    backward_arguments a;
    bf16 *gradients;
    return lay_out_scratch(&a, &gradients, NULL, shape);
}

/* Says which options to lower where a block of this device has less than `bytes` of shared memory. */
static bool has_shared_memory(const struct mamba_shape *s, size_t bytes) {
    int device = 0, most = 0;
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&most, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
    if (bytes <= (size_t)most) return true;
    char text[200];
    snprintf(text, sizeof text,
             "a state of %zu with %zu rotated pairs takes %zu KB of shared memory, a block of this device has %d KB; "
             "lower mamba.state or mamba.rotary_fraction",
             s->state, s->angles, bytes >> 10, most >> 10);
    device_note_text("ssd_backward", text);
    return false;
}

template <class F> static void launch_backward(const backward_arguments &a) {
    size_t blocks = a.t.s.batch * mamba_chunks(&a.t.s) * a.t.s.groups, bytes = backward_bytes<F>(a.t.s.angles);
    if (!has_shared_memory(&a.t.s, bytes)) return;
    LAUNCH((ssd_backward_tiles<F>), (unsigned)blocks, SSD_THREADS, bytes, a);
}

extern "C" void cuda_ssd_backward(struct lane *lane, act *dproj, const struct mamba_gradients *gradients,
                                  const struct mamba_tape_gradients *dtape, const act *dy,
                                  const struct mamba_tape *tape, const act *proj, const struct mamba_weights *weights,
                                  const struct mamba_shape *shape) {
    bf16 *states;
    backward_arguments a = {.t = {*shape, mamba_columns(shape), *tape, *weights, acts(proj)},
                            .dtape = *dtape,
                            .dy = acts(dy),
                            .dproj = acts(dproj)};
    lay_out_scratch(&a, &states, lane->scratch, shape);
    a.gradients = states;
    ssd_carry(states, a.t, a.dy);
    if (fills_tiles(a.t)) {
        if (has_shared_memory(shape, ssd_full_backward_bytes())) ssd_full_backward(a);
    } else {
        SSD_DISPATCH(shape, launch_backward, a);
    }
    ssd_join(a, *gradients);
}
