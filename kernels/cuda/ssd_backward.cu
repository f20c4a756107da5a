/* ssd_backward: gradients of the Mamba-3 recurrence; the mathematics is in kernels/cpu/ssd.c, whose names are used.
 *
 * Three kernels. carry_states walks the tiles of each head from last to first with the gradient K of the state in
 * float, and leaves its rounded form for every tile. With that, tiles no longer depend on each other, and
 * ssd_backward_tiles does one tile of one head a block. It works on the transposes of the chunk's matrices, rows s (the
 * token that weighs) by columns t (the token weighed in): there
 *
 *     W_st = weight(t, s) dy_t.x_s      dB = W C + diag(kappa f) x K
 *     M_st = weight(t, s) C_t.B_s       dx = M dy + diag(kappa f) B K^T + D dy
 *                                       dC = W^T B + diag(r) dy H'
 *
 * with weight = kappa_s exp(l_t - l_s) before, gamma on the diagonal. W and M never leave the registers, but for one
 * copy of W in shared memory, for W^T. The sums for kappa and l are taken from W o G in float:
 *
 *     kappa_s dkappa_s = sum_{t>s} W_st G_ts + kappa_s f_s (K^T x_s).B_s,    U_t.C_t = sum_{s<t} W_st G_ts + r_t (H'^T
 * dy_t).C_t
 *
 * At last ssd_backward_joins gives each tile's first token what the tile before found for it, and adds up dD.
 *
 * Published preset, a call: carry_states 9 GFLOP; dy, C read, K written: 403 MB (94 us). The tiles: 52 GFLOP without
 * the blocks above the diagonals (66 us); x, dy, B, C, H', K read, dx, dB, dC written: 1208 MB (281 us): limit 375 us.
 */
#include "kernels/cuda/ssd.cuh"

/* --- the states, or their gradients, that enter every tile -----------------------------------------------------------
 */

/* FORWARD: H' of every tile, from x and B. Else K of every tile, from dy and C. */
template <int P, int N> struct carry_tiles {
    static constexpr int BUFFERS = N <= 128 ? 2 : 1;
    tile_row<N> matrix[BUFFERS][TILE];
    tile_row<P> rows[BUFFERS][TILE];
    tile_row<N> state[P];
    tile_weights weights[2];
};

struct carry_source {
    const bf16 *rows, *matrix;
    size_t rows_stride, matrix_stride;
};

template <int P, int N>
__device__ static inline void fetch(carry_tiles<P, N> *m, int buffer, const carry_source &from, size_t start,
                                    int length, int channels, int state) {
    load_tile<TILE, N>(m->matrix[buffer], from.matrix + start * from.matrix_stride, from.matrix_stride, length, state);
    load_tile<TILE, P>(m->rows[buffer], from.rows + start * from.rows_stride, from.rows_stride, length, channels);
    copy_commit();
}

/* Grid: sequences x heads, slices of P channels. carried: (batch, heads, tiles, head_dim, state). */
template <bool FORWARD, int P, int N>
__global__ void __launch_bounds__(SSD_THREADS) carry_states(bf16 *carried, mamba_shape s, struct mamba_columns columns,
                                                            mamba_tape tape, const bf16 *proj, const bf16 *dy) {
    using tiles = carry_tiles<P, N>;
    tiles *m = shared_memory<tiles>();
    size_t batch = blockIdx.x / s.heads, head = blockIdx.x % s.heads, slice = blockIdx.y * (size_t)P;
    size_t length = ssd_tile(s), count = ssd_tiles(s), inner = s.heads * s.head_dim;
    int channels = (int)(s.head_dim - slice), state = (int)s.state, warp = (int)threadIdx.x / WARP;
    channels = channels < P ? channels : P;
    head_view v = view_head(s, columns, tape, proj, batch, head);
    carry_source from = {v.x + slice, v.b, v.x_stride, v.bc_stride};
    if (!FORWARD) from = {dy + batch * s.time * inner + head * s.head_dim + slice, v.c, inner, v.bc_stride};
    carried += (blockIdx.x * count * s.head_dim + slice) * s.state;

    state_part<P, N> sum;
    for (size_t step = 0; step < count; step++) {
        size_t i = FORWARD ? step : count - 1 - step, start = i * length,
               next = FORWARD ? start + length : start - length;
        int now = (int)(s.time - start < length ? s.time - start : length), buffer = (int)(step % tiles::BUFFERS);
        int then = step + 1 == count ? 0 : (int)(s.time - next < length ? s.time - next : length);
        tile_weights &w = m->weights[step % 2];
        if (step == 0) {
            fetch(m, buffer, from, start, now, channels, state);
            if (warp == 0) make_weights(&w, read_weights(v, start, length, s.time), now);
        }
        copy_wait<0>();
        __syncthreads(); /* this tile and its weights are there; nobody reads the tile before any more */
        if (tiles::BUFFERS == 2 && then > 0) fetch(m, 1 - buffer, from, next, then, channels, state);
        raw_weights raw;
        if (warp == 0 && then > 0) raw = read_weights(v, next, length, s.time);
        sum.write(m->state);
        sum.store(carried + i * s.head_dim * s.state, s.state, m->state, channels, state);
        sum.advance(w.whole, m->rows[buffer], FORWARD ? w.fall : w.r, m->matrix[buffer], now, state);
        if (warp == 0 && then > 0) make_weights(&m->weights[(step + 1) % 2], raw, then);
        if (tiles::BUFFERS == 1 && then > 0) {
            __syncthreads();
            fetch(m, 0, from, next, then, channels, state);
        }
    }
}

/* --- one tile of one head --------------------------------------------------------------------------------------------
 */

template <int P, int N> struct backward_tiles {
    tile_row<N> b[TILE], c[TILE], state[P], gradient[P]; /* H', K */
    tile_row<P> x[TILE], dy[TILE];
    tile_row<TILE> w[TILE];
    tile_row<(P > N ? P : N)> out[TILE];
    tile_weights weights;
    float columns[SSD_WARPS][TILE];   /* each warp's part of sum_s W_st G_ts, s before t */
    float m[TILE], g[TILE];           /* dy_t.x_t; C_t.B_t */
    float dkappa[TILE], passed[TILE]; /* passed: kappa_s f_s (K^T x_s).B_s */
    float entered[TILE];              /* r_t (H'^T dy_t).C_t */
    float through[SSD_WARPS];         /* each warp's part of <H', K> */
};

/* Where one tile of one head lies in everything that the kernel reads and writes. */
struct tile_view {
    head_view head; /* moved on to the tile's first token */
    const bf16 *dy, *state, *gradient;
    bf16 *dx, *db, *dc;
    size_t dy_stride, head_dim;
    int length, channels, n; /* tokens, P of the head, N */
};

struct backward_arguments {
    mamba_shape s;
    struct mamba_columns columns;
    mamba_tape tape;
    mamba_tape_gradients dtape;
    const bf16 *proj, *dy, *states, *gradients;
    const float *d;
    bf16 *dproj;
    float *last; /* (batch, tiles, heads) dkappa of each tile's last token */
    float *dd;   /* (batch, tiles, heads) each tile's part of dD */
};

__device__ static inline tile_view view_tile(const backward_arguments &a, size_t batch, size_t tile, size_t head) {
    const mamba_shape &s = a.s;
    size_t start = tile * ssd_tile(s), left = s.time - start, row = batch * s.time + start;
    size_t at = row * s.heads + head, inner = s.heads * s.head_dim;
    size_t matrix = ((batch * s.heads + head) * ssd_tiles(s) + tile) * s.head_dim * s.state;
    tile_view v = {.head = view_head(s, a.columns, a.tape, a.proj, batch, head),
                   .dy = a.dy + at * s.head_dim,
                   .state = a.states + matrix,
                   .gradient = a.gradients + matrix,
                   .dx = a.dproj + row * a.columns.width + a.columns.x + head * s.head_dim,
                   .db = reinterpret_cast<bf16 *>(a.dtape.b) + at * s.state,
                   .dc = reinterpret_cast<bf16 *>(a.dtape.c) + at * s.state,
                   .dy_stride = inner,
                   .head_dim = s.head_dim,
                   .length = (int)(left < ssd_tile(s) ? left : ssd_tile(s)),
                   .channels = (int)s.head_dim,
                   .n = (int)s.state};
    v.head.x += start * v.head.x_stride;
    v.head.b += start * v.head.bc_stride;
    v.head.c += start * v.head.bc_stride;
    return v;
}

/* Fetches the slice of P channels from `slice` on of x, dy, H' and K, if it is not the one that is there. */
template <int P, int N>
__device__ static inline void fetch_slice(backward_tiles<P, N> *m, const tile_view &v, int slice, int *here) {
    if (slice == *here) return;
    int channels = v.channels - slice < P ? v.channels - slice : P;
    size_t matrix = (size_t)slice * (size_t)v.n;
    if (*here >= 0) __syncthreads();
    load_tile<TILE, P>(m->x, v.head.x + slice, v.head.x_stride, v.length, channels);
    load_tile<TILE, P>(m->dy, v.dy + slice, v.dy_stride, v.length, channels);
    load_tile<P, N>(m->state, v.state + matrix, (size_t)v.n, channels, v.n);
    load_tile<P, N>(m->gradient, v.gradient + matrix, (size_t)v.n, channels, v.n);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    *here = slice;
}

/* From f = x dy^T and g = B C^T of the warp's rows: f becomes W and g becomes M, with the sums of W o G and the
 * diagonals on the way. */
template <int P, int N>
__device__ static inline void weigh_pairs(float (&f)[TILE / 8][4], float (&g)[TILE / 8][4], backward_tiles<P, N> *m,
                                          int row) {
    int warp = row / 16, lane = (int)threadIdx.x % WARP, upper = row + lane / 4;
    two_rows sums = {0, 0};
#pragma unroll
    for (int j = 0; j < TILE / 8; j++) {
        if (j / 2 < warp) continue;
        float column[2] = {0, 0};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int from = upper + i / 2 * 8, to = 8 * j + lane % 4 * 2 + i % 2;
            float decay = token_decay(m->weights, to, from), weight = token_weight(m->weights, to, from, decay);
            float both = decay * f[j][i] * g[j][i];
            if (from == to) m->m[to] = f[j][i], m->g[to] = g[j][i];
            column[i % 2] += m->weights.kappa[from] * both;
            (i < 2 ? sums.upper : sums.lower) += both;
            f[j][i] *= weight;
            g[j][i] *= weight;
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            for (int offset = 4; offset < WARP; offset *= 2)
                column[i] += __shfl_xor_sync(0xffffffffu, column[i], offset);
            if (lane < 4) m->columns[warp][8 * j + lane * 2 + i] = column[i];
        }
    }
    sums = {sum_of_four(sums.upper), sum_of_four(sums.lower)};
    if (lane % 4 == 0) m->dkappa[upper] = sums.upper, m->dkappa[upper + 8] = sums.lower;
}

template <int P, int N>
__device__ static inline void gradient_x(backward_tiles<P, N> *m, const tile_view &v, const uint32_t (&weighed)[4][4],
                                         float d, int row, int *here) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4;
    for (int slice = 0; slice < v.channels; slice += P) {
        fetch_slice(m, v, slice, here);
        if (row >= v.length) continue;
        int channels = v.channels - slice < P ? v.channels - slice : P;
        float dx[P / 8][4];
        clear_rows(dx);
        for (int k = 0; k < v.n; k += 16) {
            uint32_t a[4];
            load_a(a, m->b, row, k);
            multiply(dx, a, m->gradient, k, blocks_of(channels));
        }
        scale_rows(dx, m->weights.fall[upper], m->weights.fall[upper + 8]);
#pragma unroll
        for (int i = 0; i < TILE / 16; i++)
            if (i >= row / 16) multiply_across(dx, weighed[i], m->dy, 16 * i, 0, blocks_of(channels));
        add_rows(dx, d, m->dy, row);
        write_rows(m->out, row, 0, dx);
        store_rows<P>(v.dx + slice + (size_t)row * v.head.x_stride, v.head.x_stride, &m->out[row], v.length - row,
                      channels);
    }
}

/* Leaves dkappa whole. */
template <int P, int N>
__device__ static inline void gradient_b(backward_tiles<P, N> *m, const tile_view &v, const uint32_t (&weighed)[4][4],
                                         int row, int *here) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4, lower = upper + 8;
    float db[N / 8][4];
    clear_rows(db);
    for (int slice = 0; slice < v.channels; slice += P) {
        fetch_slice(m, v, slice, here);
        if (row >= v.length) continue;
        for (int k = 0; k < P && slice + k < v.channels; k += 16) {
            uint32_t a[4];
            load_a(a, m->x, row, k);
            multiply_across(db, a, m->gradient, k, 0, blocks_of(v.n));
        }
    }
    two_rows dot = dot_rows(db, m->b, row);
    if (lane % 4 == 0) {
        m->dkappa[upper] += m->weights.f[upper] * dot.upper;
        m->dkappa[lower] += m->weights.f[lower] * dot.lower;
        m->passed[upper] = m->weights.fall[upper] * dot.upper;
        m->passed[lower] = m->weights.fall[lower] * dot.lower;
    }
    if (row >= v.length) return;
    scale_rows(db, m->weights.fall[upper], m->weights.fall[lower]);
#pragma unroll
    for (int i = 0; i < TILE / 16; i++)
        if (i >= row / 16) multiply_across(db, weighed[i], m->c, 16 * i, 0, blocks_of(v.n));
    write_rows(m->out, row, 0, db);
    store_rows<N>(v.db + (size_t)row * v.head.bc_stride, v.head.bc_stride, &m->out[row], v.length - row, v.n);
}

template <int P, int N>
__device__ static inline void gradient_c(backward_tiles<P, N> *m, const tile_view &v, int row, int *here) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4, lower = upper + 8;
    float dc[N / 8][4], through = 0;
    clear_rows(dc);
    for (int slice = 0; slice < v.channels; slice += P) {
        fetch_slice(m, v, slice, here);
        for (int i = (int)threadIdx.x; i < P * N / 2; i += SSD_THREADS) {
            uint32_t h = pair_at(m->state, i / (N / 2), i % (N / 2) * 2);
            uint32_t k = pair_at(m->gradient, i / (N / 2), i % (N / 2) * 2);
            through += low_half(h) * low_half(k) + high_half(h) * high_half(k);
        }
        if (row >= v.length) continue;
        for (int k = 0; k < P && slice + k < v.channels; k += 16) {
            uint32_t a[4];
            load_a(a, m->dy, row, k);
            multiply_across(dc, a, m->state, k, 0, blocks_of(v.n));
        }
    }
    through = warp_sum(through);
    if (lane == 0) m->through[row / 16] = through;
    two_rows dot = dot_rows(dc, m->c, row);
    if (lane % 4 == 0) {
        m->entered[upper] = m->weights.r[upper] * dot.upper;
        m->entered[lower] = m->weights.r[lower] * dot.lower;
    }
    if (row >= v.length) return;
    scale_rows(dc, m->weights.r[upper], m->weights.r[lower]);
    for (int k = 0; k <= row; k += 16) {
        uint32_t a[4];
        load_a_across(a, m->w, row, k);
        multiply_across(dc, a, m->b, k, 0, blocks_of(v.n));
    }
    write_rows(m->out, row, 0, dc);
    store_rows<N>(v.dc + (size_t)row * v.head.bc_stride, v.head.bc_stride, &m->out[row], v.length - row, v.n);
}

/* From the sums to the gradients of delta, log_decay and gamma; by one warp. */
template <int P, int N>
__device__ static inline void gradient_steps(backward_tiles<P, N> *m, const backward_arguments &a, size_t first_at,
                                             size_t index, int length) {
    int lane = (int)threadIdx.x % WARP;
    float dl[2], through = 0, passed = m->passed[2 * lane] + m->passed[2 * lane + 1];
    for (int i = 0; i < SSD_WARPS; i++) through += m->through[i];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        int t = 2 * lane + i;
        dl[i] = m->entered[t] - m->weights.kappa[t] * m->dkappa[t];
        for (int warp = 0; warp <= t / 16; warp++) dl[i] += m->columns[warp][t];
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
        size_t at = first_at + (size_t)t * a.s.heads;
        float before = t > 0 ? m->dkappa[t - 1] : 0;
        a.dtape.log_decay[at] = (i == 0 ? behind : behind - dl[0]) + state;
        a.dtape.gamma[at] = m->m[t] * m->g[t] + m->dkappa[t] - before;
        a.dtape.delta[at] = before;
        if (t == length - 1) a.last[index] = m->dkappa[t];
    }
    if (lane == 0) a.dd[index] = dd;
}

/* Grid: (sequence, tile, head), the head fastest: neighbours in memory. */
template <int P, int N> __global__ void __launch_bounds__(SSD_THREADS, 2) ssd_backward_tiles(backward_arguments a) {
    auto *m = shared_memory<backward_tiles<P, N>>();
    size_t head = blockIdx.x % a.s.heads, tile = blockIdx.x / a.s.heads % ssd_tiles(a.s);
    size_t batch = blockIdx.x / a.s.heads / ssd_tiles(a.s), start = tile * ssd_tile(a.s);
    tile_view v = view_tile(a, batch, tile, head);
    int warp = (int)threadIdx.x / WARP, row = 16 * warp, here = -1;
    load_tile<TILE, N>(m->b, v.head.b, v.head.bc_stride, v.length, v.n);
    load_tile<TILE, N>(m->c, v.head.c, v.head.bc_stride, v.length, v.n);
    if (warp == 0) make_weights(&m->weights, read_weights(v.head, start, ssd_tile(a.s), a.s.time), v.length);

    float f[TILE / 8][4], g[TILE / 8][4];
    clear_rows(f);
    clear_rows(g);
    column_blocks later = {warp, (v.length + 15) / 16};
    for (int slice = 0; slice < v.channels; slice += P) {
        fetch_slice(m, v, slice, &here);
        for (int k = 0; k < P && slice + k < v.channels; k += 16) {
            uint32_t x[4];
            load_a(x, m->x, row, k);
            multiply(f, x, m->dy, k, later);
        }
    }
    for (int k = 0; k < v.n; k += 16) {
        uint32_t b[4];
        load_a(b, m->b, row, k);
        multiply(g, b, m->c, k, later);
    }
    weigh_pairs(f, g, m, row);
    uint32_t from_dy[TILE / 16][4], from_c[TILE / 16][4];
#pragma unroll
    for (int i = 0; i < TILE / 16; i++) pack_a(from_dy[i], g, i), pack_a(from_c[i], f, i);
    write_rows(m->w, row, 0, f);
    gradient_x(m, v, from_dy, a.d[head], row, &here);
    gradient_b(m, v, from_c, row, &here);
    __syncthreads(); /* W */
    gradient_c(m, v, row, &here);
    __syncthreads(); /* the sums */
    if (warp == 0) gradient_steps(m, a, (batch * a.s.time + start) * a.s.heads + head, blockIdx.x, v.length);
}

/* --- between tiles
 * ---------------------------------------------------------------------------------------------------- */

/* Block h < heads: dD of head h. The blocks behind: one thread for the first token of each tile of each head. */
__global__ void __launch_bounds__(SSD_THREADS)
    ssd_backward_joins(float *dd, mamba_tape_gradients dtape, const float *tile_dd, const float *last, mamba_shape s) {
    size_t tiles = ssd_tiles(s), count = s.batch * tiles;
    if (blockIdx.x < s.heads) {
        float sum = 0;
        for (size_t i = threadIdx.x; i < count; i += SSD_THREADS) sum += tile_dd[i * s.heads + blockIdx.x];
        sum = block_sum(sum, shared_memory<float>());
        if (threadIdx.x == 0) dd[blockIdx.x] += sum;
        return;
    }
    size_t index = (blockIdx.x - s.heads) * SSD_THREADS + threadIdx.x, tile = index / s.heads % tiles;
    if (index >= count * s.heads) return;
    size_t batch = index / s.heads / tiles, row = batch * s.time + tile * ssd_tile(s);
    size_t at = row * s.heads + index % s.heads;
    float before = tile > 0 ? last[index - s.heads] : 0;
    dtape.delta[at] = before;
    dtape.gamma[at] -= before;
}

/* --- launches
 * --------------------------------------------------------------------------------------------------------- */

/* What the lane's scratch holds. */
struct ssd_room {
    bf16 *gradients,
        *states;      /* (batch, heads, tiles, head_dim, state); states only when the tape's are of longer chunks */
    float *last, *dd; /* (batch, tiles, heads) */
    size_t bytes;
};

static size_t take(size_t *used, size_t bytes) {
    size_t at = *used;
    *used = at + (bytes + 255) / 256 * 256;
    return at;
}

static struct ssd_room lay_out(char *scratch, const struct mamba_shape *s) {
    size_t used = 0, tiles = s->batch * s->heads * ssd_tiles(*s),
           states = tiles * s->head_dim * s->state * sizeof(bf16);
    size_t gradients = take(&used, states), own = take(&used, s->chunk > TILE ? states : 0);
    size_t last = take(&used, tiles * sizeof(float)), dd = take(&used, tiles * sizeof(float));
    return {(bf16 *)(scratch + gradients), (bf16 *)(scratch + own), (float *)(scratch + last), (float *)(scratch + dd),
            used};
}

extern "C" size_t cuda_ssd_scratch(const struct mamba_shape *shape) { return lay_out(NULL, shape).bytes; }

template <int P, int N> static void launch_backward(const backward_arguments &a, bf16 *gradients, bf16 *own_states) {
    dim3 walks((unsigned)(a.s.batch * a.s.heads), (unsigned)ceil_div(a.s.head_dim, P));
    size_t shared = sizeof(carry_tiles<P, N>);
    if (own_states)
        LAUNCH((carry_states<true, P, N>), walks, SSD_THREADS, shared, own_states, a.s, a.columns, a.tape, a.proj,
               a.dy);
    LAUNCH((carry_states<false, P, N>), walks, SSD_THREADS, shared, gradients, a.s, a.columns, a.tape, a.proj, a.dy);
    LAUNCH((ssd_backward_tiles<P, N>), (unsigned)(a.s.batch * a.s.heads * ssd_tiles(a.s)), SSD_THREADS,
           sizeof(backward_tiles<P, N>), a);
}

extern "C" void cuda_ssd_backward(struct lane *lane, act *dproj, const struct mamba_tape_gradients *dtape, real *dd,
                                  const act *dy, const struct mamba_tape *tape, const act *proj, const real *d,
                                  const struct mamba_shape *shape) {
    struct ssd_room room = lay_out((char *)lane->scratch, shape);
    bf16 *own = shape->chunk > TILE ? room.states : NULL;
    backward_arguments a = {.s = *shape,
                            .columns = mamba_columns(shape),
                            .tape = *tape,
                            .dtape = *dtape,
                            .proj = acts(proj),
                            .dy = acts(dy),
                            .states = own ? own : acts(tape->states),
                            .gradients = room.gradients,
                            .d = d,
                            .dproj = acts(dproj),
                            .last = room.last,
                            .dd = room.dd};
    SSD_DISPATCH(shape, launch_backward, a, room.gradients, own);
    size_t joins = ceil_div(shape->batch * shape->heads * ssd_tiles(*shape), SSD_THREADS);
    LAUNCH(ssd_backward_joins, (unsigned)(shape->heads + joins), SSD_THREADS, SSD_WARPS * sizeof(float), dd, *dtape,
           room.dd, room.last, *shape);
}
