/* ssd_backward: gradients of the scan and of the vectors that it makes; see ssd_backward.cuh.
 *
 * After ssd_carry, which leaves the gradient of the state behind every tile, a block has one tile of one group and
 * walks the group's heads: B and C of the group are read once, and their gradients, summed over the heads, never leave
 * the registers (a state of more than 64: the lane's scratch) before the norm's backward pass has made them those of
 * proj's columns. At last ssd_backward_joins gives each tile's first token what the tile before found for it, and sums
 * the weights' gradients over tiles.
 *
 * Published preset, a call: ssd_carry 69 us. The tiles: 52 GFLOP without the blocks above the diagonals (66 us); x, dy,
 * H', K read, dx written: 671 MB, the rest 60 MB (170 us); 0.35 MB through shared memory a head and tile, 128 bytes a
 * cycle an SM (200 us). The sums: 9 MB written and read. Limit 275 us. */
#include "kernels/cuda/ssd_backward.cuh"

/* --- the gradient of a group's normed B or C -------------------------------------------------------------------------
 */

template <int N> struct group_sum {
    static constexpr bool HELD = N <= 64;
    float held[HELD ? N / 8 : 1][4];

    __device__ void add(const float (&acc)[N / 8][4], float4 *room, bool first) {
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            if constexpr (HELD) {
                for (int k = 0; k < 4; k++) held[i][k] = first ? acc[i][k] : held[i][k] + acc[i][k];
            } else {
                float4 *at = room + i * SSD_THREADS + threadIdx.x, sum = first ? float4{0, 0, 0, 0} : *at;
                *at = {sum.x + acc[i][0], sum.y + acc[i][1], sum.z + acc[i][2], sum.w + acc[i][3]};
            }
        }
    }
    __device__ void get(float (&sum)[N / 8][4], const float4 *room) const {
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            if constexpr (HELD) {
                for (int k = 0; k < 4; k++) sum[i][k] = held[i][k];
            } else {
                float4 at = room[i * SSD_THREADS + threadIdx.x];
                sum[i][0] = at.x, sum[i][1] = at.y, sum[i][2] = at.z, sum[i][3] = at.w;
            }
        }
    }
};

/* Unrotates the warp's rows of dB or dC, adds dphi = dO E - dE O (FIRST: sets it), and sums the columns for the bias.
 */
template <bool FIRST, int N>
__device__ static inline void unrotate(float (&acc)[N / 8][4], const tile_row<N> *rotated, const rotation *turn,
                                       float *dphi, float *bias, int angles, int row) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < N / 8; i++) {
        int j = 4 * i + lane % 4;
        if (j >= angles) continue;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            int t = row + lane / 4 + 8 * half;
            float &even = acc[i][2 * half], &odd = acc[i][2 * half + 1];
            uint32_t pair = pair_at(rotated, t, 2 * j);
            float turned = odd * low_half(pair) - even * high_half(pair);
            dphi[j * PHASES + t] = FIRST ? turned : dphi[j * PHASES + t] + turned;
            rotate_back(even, odd, turn[t * (angles + 4) + j]);
        }
    }
    sum_columns(bias, acc);
}

/* Each warp's part of the norm's gradient: sum o x inv, by columns. */
template <int N>
__device__ static inline void norm_weights(float *norms, const float (&sum)[N / 8][4], const tile_row<N> *raw,
                                           const float *inv, int row) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4, lower = upper + 8;
#pragma unroll
    for (int first = 0; first < N / 8; first += 8) {
        float columns[16];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float *g = sum[first + i];
            uint32_t a = pair_at(raw, upper, 8 * (first + i) + lane % 4 * 2);
            uint32_t b = pair_at(raw, lower, 8 * (first + i) + lane % 4 * 2);
            columns[2 * i] = g[0] * low_half(a) * inv[upper] + g[2] * low_half(b) * inv[lower];
            columns[2 * i + 1] = g[1] * high_half(a) * inv[upper] + g[3] * high_half(b) * inv[lower];
        }
        share_columns(norms + 8 * first, columns);
    }
}

/* sum, the gradient of a group's normed B or C, becomes that of proj's columns, and goes there; `raw` is spent. */
template <int N>
__device__ static inline void norm_rows(float (&sum)[N / 8][4], tile_row<N> *raw, const float *inv, const float *norm,
                                        bf16 *to, size_t width, int row, int length, int state) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int t = row + lane / 4 + 8 * half;
        float scale = inv[t], mean = 0;
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            uint32_t pair = pair_at(raw, t, 8 * i + lane % 4 * 2);
            sum[i][2 * half] *= norm[8 * i + lane % 4 * 2], sum[i][2 * half + 1] *= norm[8 * i + lane % 4 * 2 + 1];
            mean += sum[i][2 * half] * low_half(pair) + sum[i][2 * half + 1] * high_half(pair);
        }
        mean = sum_of_four(mean) * scale * scale / (float)state;
#pragma unroll
        for (int i = 0; i < N / 8; i++) {
            uint32_t pair = pair_at(raw, t, 8 * i + lane % 4 * 2);
            sum[i][2 * half] = scale * (sum[i][2 * half] - low_half(pair) * mean);
            sum[i][2 * half + 1] = scale * (sum[i][2 * half + 1] - high_half(pair) * mean);
        }
    }
    __syncwarp();
    write_rows(raw, row, 0, sum);
    store_rows<N>(to + (size_t)row * width, width, &raw[row], length - row, state);
}

/* The warps' parts of two vectors of sums, added in order, to to[0 ..] and to[stride ..]. */
template <int N>
__device__ static inline void store_sums(float *to, size_t stride, const float (&parts)[2][SSD_WARPS][N], int state) {
    for (int i = (int)threadIdx.x; i < 2 * N; i += SSD_THREADS) {
        const float(&part)[SSD_WARPS][N] = parts[i / N];
        if (i % N < state)
            to[(size_t)(i / N) * stride + (size_t)(i % N)] =
                ((part[0][i % N] + part[1][i % N]) + part[2][i % N]) + part[3][i % N];
    }
}

/* --- phases and steps
 * ---------------------------------------------------------------------------------------------------- */

/* dphi to its sum over the token and the tile's later ones, F; the whole tile's to `sums`. A warp has one angle at a
 * time. */
__device__ static inline void sum_phases(float *dphi, float *sums, int angles) {
    int lane = (int)threadIdx.x % WARP;
    for (int j = (int)threadIdx.x / WARP; j < angles; j += SSD_WARPS) {
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

/* From the sums to the gradients of delta (with its phases), log_decay and gamma; by one warp. */
template <int P, int N>
__device__ static inline void gradient_steps(backward_tiles<P, N> *m, const backward_arguments &a, const float *dphi,
                                             const step_lines &steps, size_t first_at, size_t index, int length) {
    int lane = (int)threadIdx.x % WARP, angles = (int)a.t.s.angles;
    float dl[2], turned[2] = {0, 0}, through = 0, passed = m->passed[2 * lane] + m->passed[2 * lane + 1];
    for (int i = 0; i < SSD_WARPS; i++) through += m->through[i];
    for (int j = 0; j < angles; j++)
        for (int i = 0; i < 2; i++) turned[i] += steps.rate[j * LINE + 2 * lane + i] * dphi[j * PHASES + 2 * lane + i];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = 2 * lane + i;
        dl[i] = m->entered[t] - m->weights.kappa[t] * m->dkappa[t];
        for (int warp = 0; warp < SSD_WARPS; warp++) dl[i] += m->pairs[warp][t];
    }
    float behind = dl[0] + dl[1]; /* becomes the sum over this lane's tokens and all later ones */
    for (int offset = 1; offset < WARP; offset *= 2) {
        float more = __shfl_down_sync(0xffffffffu, behind, offset);
        if (lane + offset < WARP) behind += more;
    }
    float state = m->weights.whole * through + warp_sum(passed), dd = warp_sum(m->m[2 * lane] + m->m[2 * lane + 1]);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = 2 * lane + i;
        if (t >= length) continue;
        size_t at = first_at + (size_t)t;
        float before = t > 0 ? m->dkappa[t - 1] : 0;
        a.dtape.log_decay[at] = (i == 0 ? behind : behind - dl[0]) + state;
        a.dtape.gamma[at] = m->m[t] * m->g[t] + m->dkappa[t] - before;
        a.dtape.delta[at] = before + TURN * turned[i];
        if (t == length - 1) a.last[index] = m->dkappa[t];
    }
    if (lane == 0) a.dd[index] = dd;
}

/* --- the tiles
 * ------------------------------------------------------------------------------------------------------------ */

/* One head of the block's tile. here: the slice of its operands that is in shared memory, or on its way there. */
template <int P, int N>
__device__ static inline void backward_head(backward_tiles<P, N> *m, const backward_lines &l,
                                            const backward_arguments &a, const backward_place &at, group_sum<N> &sum_b,
                                            group_sum<N> &sum_c, int *here) {
    const mamba_shape &s = a.t.s;
    int warp = (int)threadIdx.x / WARP, row = 16 * warp, angles = (int)s.angles;
    bool first = at.head % (unsigned)(s.heads / s.groups) == 0;
    step_lines steps = lay_out_steps(l.steps, angles);
    float4 *room = a.sums + blockIdx.x * (size_t)(2 * N / 8 * SSD_THREADS);
    make_rotations(l.turn, steps, angles);
    if (warp == SSD_WARPS - 1) make_weights(&m->weights, steps, at.length);
    __syncthreads();
    make_vectors(m->b, m->raw_b(), steps.inv_b, m->b_parameters, l.turn, angles, at.length);
    make_vectors(m->c, m->raw_c(), steps.inv_c, m->c_parameters, l.turn, angles, at.length);
    __syncthreads();

    uint32_t from_dy[TILE / 16][4], from_c[TILE / 16][4];
    {
        float f[TILE / 8][4], g[TILE / 8][4];
        multiply_pairs(f, g, m, a, at, row, here);
        weigh_pairs(f, g, m, row);
#pragma unroll
        for (int i = 0; i < TILE / 16; i++) pack_a(from_dy[i], g, i), pack_a(from_c[i], f, i);
        write_rows(m->w, row, 0, f);
    }
    float acc[N / 8][4];
    gradient_b(acc, m, a, at, from_c, row, here);
    unrotate<true, N>(acc, m->b, l.turn, l.dphi, m->bias[0][warp], angles, row);
    sum_b.add(acc, room, first);
    gradient_x(m, a, at, from_dy, a.t.weights.d[at.head], row, here);
    __syncthreads(); /* W; x and K are free */
    gradient_c(acc, m, a, at, row, here);
    unrotate<false, N>(acc, m->c, l.turn, l.dphi, m->bias[1][warp], angles, row);
    sum_c.add(acc, room + N / 8 * SSD_THREADS, first);
    __syncthreads(); /* the sums; dy, H' and the head's B and C are free */
    size_t tiles = ceil_div(s.time, s.chunk);
    sum_phases(l.dphi, a.dtape.phase + ((at.batch * s.heads + at.head) * tiles + at.tile) * s.angles, angles);
    store_sums<N>(a.biases + (at.index * 2 * s.heads + at.head) * s.state, s.heads * s.state, m->bias, (int)s.state);
    __syncthreads();
    if (warp == 0)
        gradient_steps(m, a, l.dphi, steps, (at.batch * s.heads + at.head) * s.time + at.tile * s.chunk,
                       at.index * s.heads + at.head, at.length);
    for (int i = (int)threadIdx.x; i < angles * TILE; i += SSD_THREADS) {
        int j = i / TILE, t = i % TILE;
        float part = steps.delta[t] * l.dphi[j * PHASES + t];
        l.dtheta[j * PHASES + t] = first ? part : l.dtheta[j * PHASES + t] + part;
    }
}

/* Begins the copy of the group's columns of B and C. */
template <int P, int N>
__device__ static inline void load_raw(backward_tiles<P, N> *m, const head_view &v, const backward_place &at) {
    size_t row = at.tile * (size_t)v.tile * v.width;
    load_tile<TILE, N>(m->raw_b(), v.b + row, v.width, at.length, v.state);
    load_tile<TILE, N>(m->raw_c(), v.c + row, v.width, at.length, v.state);
}

/* dB, dC and dtheta of the group, when all heads are done. */
template <int P, int N>
__device__ static inline void backward_group(backward_tiles<P, N> *m, const backward_lines &l,
                                             const backward_arguments &a, const backward_place &at,
                                             const group_sum<N> &sum_b, const group_sum<N> &sum_c) {
    const mamba_shape &s = a.t.s;
    int warp = (int)threadIdx.x / WARP, row = 16 * warp, angles = (int)s.angles, state = (int)s.state;
    size_t width = a.t.columns.width;
    step_lines steps = lay_out_steps(l.steps, angles);
    float4 *room = a.sums + blockIdx.x * (size_t)(2 * N / 8 * SSD_THREADS);
    bf16 *columns = a.dproj + first_row(a, at) * width + at.group * s.state;
    float sum[N / 8][4];
    if (!m->KEEPS_RAW) {
        load_raw(m, view_head(a.t, at.batch, at.group * (unsigned)(s.heads / s.groups)), at);
        copy_commit();
        copy_wait<0>();
        __syncthreads();
    }
    sum_b.get(sum, room);
    norm_weights<N>(m->bias[0][warp], sum, m->raw_b(), steps.inv_b, row);
    norm_rows<N>(sum, m->raw_b(), steps.inv_b, m->b_parameters.norm, columns + a.t.columns.b, width, row, at.length,
                 state);
    sum_c.get(sum, room + N / 8 * SSD_THREADS);
    norm_weights<N>(m->bias[1][warp], sum, m->raw_c(), steps.inv_c, row);
    norm_rows<N>(sum, m->raw_c(), steps.inv_c, m->c_parameters.norm, columns + a.t.columns.c, width, row, at.length,
                 state);
    __syncthreads();
    store_sums<N>(a.norms + (at.index * 2 * s.groups + at.group) * s.state, s.groups * s.state, m->bias, state);
    float *dtheta = a.dtape.theta + ((at.group * s.batch + at.batch) * s.angles) * s.time + at.tile * s.chunk;
    for (int i = (int)threadIdx.x; i < angles * TILE; i += SSD_THREADS)
        if (i % TILE < at.length)
            dtheta[(size_t)(i / TILE) * s.time + (size_t)(i % TILE)] = l.dtheta[i / TILE * PHASES + i % TILE];
}

/* Brings in all that a head starts from; returns the slice of its operands that is there, or -1. */
template <int P, int N>
__device__ static inline int begin_head(backward_tiles<P, N> *m, const backward_arguments &a, const backward_place &at,
                                        float *steps, bool first) {
    head_view v = view_head(a.t, at.batch, at.head);
    __syncthreads(); /* nobody reads the head before any more */
    if (first || !m->KEEPS_RAW) load_raw(m, v, at);
    load_steps(lay_out_steps(steps, v.angles), v, (int)at.tile);
    load_parameters(&m->b_parameters, a.t.weights.b_norm, v.b_bias, v.state);
    load_parameters(&m->c_parameters, a.t.weights.c_norm, v.c_bias, v.state);
    bool whole = at.head_dim <= P;
    if (whole) load_x(m, a, at, 0), load_dy(m, a, at, 0);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    return whole ? 0 : -1;
}

/* Grid: (sequence, tile, group), the group fastest. */
template <int P, int N>
__global__ void __launch_bounds__(SSD_THREADS, N <= 64 ? 2 : 1) ssd_backward_tiles(backward_arguments a) {
    auto *m = shared_memory<backward_tiles<P, N>>();
    const mamba_shape &s = a.t.s;
    unsigned tiles = (unsigned)ceil_div(s.time, s.chunk), per_group = (unsigned)(s.heads / s.groups);
    unsigned group = blockIdx.x % (unsigned)s.groups, index = blockIdx.x / (unsigned)s.groups;
    float *lines = reinterpret_cast<float *>(m + 1), *steps = lines + turn_floats(s.angles);
    float *dphi = steps + step_floats(s.angles);
    backward_lines l = {reinterpret_cast<rotation *>(lines), steps, dphi, dphi + s.angles * PHASES};
    backward_place at = {index / tiles,   index % tiles, group * per_group, group, index, 0,
                         (int)s.head_dim, (int)s.state};
    size_t left = s.time - at.tile * s.chunk;
    at.length = left < s.chunk ? (int)left : (int)s.chunk;

    group_sum<N> sum_b, sum_c;
    for (unsigned i = 0; i < per_group; i++, at.head++) {
        int here = begin_head(m, a, at, l.steps, i == 0);
        backward_head(m, l, a, at, sum_b, sum_c, &here);
    }
    backward_group(m, l, a, at, sum_b, sum_c);
}

/* --- launches
 * ------------------------------------------------------------------------------------------------------------ */

/* The tensors of `a` that are in the lane's scratch; returns their bytes. */
static size_t lay_out_scratch(backward_arguments *a, bf16 **gradients, void *scratch, const struct mamba_shape *s) {
    size_t used = 0, tiles = s->batch * mamba_chunks(s), heads = tiles * s->heads;
    auto take = [&](size_t bytes) {
        char *at = (char *)scratch + used;
        used += (bytes + 255) / 256 * 256;
        return at;
    };
    size_t padded = s->state <= 64 ? 0 : s->state <= 128 ? 128 : 256;
    *gradients = (bf16 *)take(heads * s->head_dim * s->state * sizeof(bf16));
    a->sums = (float4 *)take(tiles * s->groups * 2 * padded / 8 * SSD_THREADS * sizeof(float4));
    a->biases = (float *)take(heads * 2 * s->state * sizeof(float));
    a->norms = (float *)take(tiles * 2 * s->groups * s->state * sizeof(float));
    a->last = (float *)take(heads * sizeof(float));
    a->dd = (float *)take(heads * sizeof(float));
    return used;
}

extern "C" size_t cuda_ssd_scratch(const struct mamba_shape *shape) {
    backward_arguments a;
    bf16 *gradients;
    return lay_out_scratch(&a, &gradients, NULL, shape);
}

template <int P, int N> static void launch_backward(const backward_arguments &a) {
    size_t blocks = a.t.s.batch * mamba_chunks(&a.t.s) * a.t.s.groups;
    size_t bytes = sizeof(backward_tiles<P, N>) + backward_floats(a.t.s.angles) * sizeof(float);
    LAUNCH((ssd_backward_tiles<P, N>), (unsigned)blocks, SSD_THREADS, bytes, a);
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
    SSD_DISPATCH(shape, launch_backward, a);
    ssd_join(a, *gradients);
}
