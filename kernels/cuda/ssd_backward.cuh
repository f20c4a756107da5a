/* ssd_backward: what a block of ssd_backward.cu has in shared memory, and its products; the mathematics is in
 * kernels/cpu/ssd.c, whose names are used.
 *
 * It works on the transposes of the chunk's matrices, rows s (the token that weighs) by columns t (the token weighed
 * in): there
 *
 *     W_st = weight(t, s) dy_t.x_s      dB = W C + diag(kappa f) x K
 *     M_st = weight(t, s) C_t.B_s       dx = M dy + diag(kappa f) B K^T + D dy
 *                                       dC = W^T B + diag(r) dy H'
 *
 * with weight = kappa_s exp(l_t - l_s) before, gamma on the diagonal. W and M never leave the registers, but for one
 * copy of W in shared memory, for W^T. The sums for kappa and l are taken from W o G in float:
 *
 *     kappa_s dkappa_s = sum_{t>s} W_st G_ts + kappa_s f_s (K^T x_s).B_s
 *     U_t.C_t = sum_{s<t} W_st G_ts + r_t (H'^T dy_t).C_t */
#pragma once
#include "kernels/cuda/ssd_head.cuh"

struct backward_arguments {
    scan_tensors t;
    mamba_tape_gradients dtape;
    const bf16 *dy, *gradients; /* gradients: of the states, by ssd_carry */
    bf16 *dproj;
    float4 *sums;  /* (blocks, 2, state/8, threads) gradients of a group's B and C, where they have no registers */
    float *biases; /* (batch, tiles, 2, heads, state) each tile's part of db_bias and dc_bias */
    float *norms;  /* (batch, tiles, 2, groups, state) of db_norm and dc_norm */
    float *last;   /* (batch, tiles, heads) dkappa of each tile's last token */
    float *dd;     /* (batch, tiles, heads) each tile's part of dD */
};

/* ssd_backward_sums.cu: what joins tiles, and the weights' gradients from the tiles' parts. */
void ssd_join(const backward_arguments &a, const mamba_gradients &gradients);

template <int P, int N> struct backward_tiles {
    /* The group's columns of proj are kept beside the head's B and C, but for large states: there each head reads
     * them again, and turns them into its own in place. */
    static constexpr bool KEEPS_RAW = N <= 64;
    tile_row<N> kept[2][KEEPS_RAW ? TILE : 1];
    tile_row<N> b[TILE], c[TILE]; /* of the head */
    __device__ tile_row<N> *raw_b() { return KEEPS_RAW ? kept[0] : b; }
    __device__ tile_row<N> *raw_c() { return KEEPS_RAW ? kept[1] : c; }
    tile_row<N> state[P], gradient[P]; /* H', K */
    tile_row<P> x[TILE], dy[TILE];
    tile_row<TILE> w[TILE];
    vector_parameters<N> b_parameters, c_parameters;
    tile_weights weights;
    float pairs[SSD_WARPS][TILE];     /* each warp's part of sum_s W_st G_ts, s before t */
    float bias[2][SSD_WARPS][N];      /* each warp's part of db_bias and dc_bias; at the end of the norms' */
    float m[TILE], g[TILE];           /* dy_t.x_t; C_t.B_t */
    float dkappa[TILE], passed[TILE]; /* passed: kappa_s f_s (K^T x_s).B_s */
    float entered[TILE];              /* r_t (H'^T dy_t).C_t */
    float through[SSD_WARPS];         /* each warp's part of <H', K> */
};

/* Behind them: the rotations, the steps, and dphi and dtheta (angles, PHASES), rows apart for the banks. */
static constexpr int PHASES = TILE + 8;
struct backward_lines {
    rotation *turn;
    float *steps, *dphi, *dtheta;
};
__host__ __device__ static inline size_t backward_floats(size_t angles) {
    return turn_floats(angles) + step_floats(angles) + 2 * angles * PHASES;
}

/* Where a block stands. What it reads is found from this when it is needed: pointers kept would cost registers. */
struct backward_place {
    unsigned batch, tile, head, group, index; /* index: batch x tiles + tile */
    int length, head_dim, n;                  /* tokens, channels, state */
};

__device__ static inline size_t first_row(const backward_arguments &a, const backward_place &at) {
    return at.batch * a.t.s.time + at.tile * a.t.s.chunk;
}
__device__ static inline size_t state_offset(const backward_arguments &a, const backward_place &at, int slice) {
    size_t tiles = ceil_div(a.t.s.time, a.t.s.chunk), matrix = (at.batch * a.t.s.heads + at.head) * tiles + at.tile;
    return (matrix * a.t.s.head_dim + (size_t)slice) * a.t.s.state;
}

/* Begin the copies of P channels from `slice` on: of what V and X, or what X and U, are the last to need. */
template <int P, int N>
__device__ static inline void load_x(backward_tiles<P, N> *m, const backward_arguments &a, const backward_place &at,
                                     int slice) {
    int channels = at.head_dim - slice < P ? at.head_dim - slice : P;
    size_t width = a.t.columns.width, column = a.t.columns.x + at.head * a.t.s.head_dim + (size_t)slice;
    load_tile<TILE, P>(m->x, a.t.proj + first_row(a, at) * width + column, width, at.length, channels);
    load_tile<P, N>(m->gradient, a.gradients + state_offset(a, at, slice), a.t.s.state, channels, at.n);
}
template <int P, int N>
__device__ static inline void load_dy(backward_tiles<P, N> *m, const backward_arguments &a, const backward_place &at,
                                      int slice) {
    int channels = at.head_dim - slice < P ? at.head_dim - slice : P;
    size_t inner = a.t.s.heads * a.t.s.head_dim, column = at.head * a.t.s.head_dim + (size_t)slice;
    load_tile<TILE, P>(m->dy, a.dy + first_row(a, at) * inner + column, inner, at.length, channels);
    load_tile<P, N>(m->state, acts(a.t.tape.states) + state_offset(a, at, slice), a.t.s.state, channels, at.n);
}

/* Fetches a slice, if it is not the one that is there: only heads of more than P channels have several. */
template <int P, int N>
__device__ static inline void fetch_slice(backward_tiles<P, N> *m, const backward_arguments &a,
                                          const backward_place &at, int slice, int *here) {
    if (slice == *here) return;
    __syncthreads();
    load_x(m, a, at, slice);
    load_dy(m, a, at, slice);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    *here = slice;
}

/* f = x dy^T and g = B C^T, of tokens t from the warp's own on. */
template <int P, int N>
__device__ static inline void multiply_pairs(float (&f)[TILE / 8][4], float (&g)[TILE / 8][4], backward_tiles<P, N> *m,
                                             const backward_arguments &a, const backward_place &at, int row,
                                             int *here) {
    column_blocks later = {row / 16, (at.length + 15) / 16};
    clear_rows(f);
    clear_rows(g);
    for (int slice = 0; slice < at.head_dim; slice += P) {
        fetch_slice(m, a, at, slice, here);
#pragma unroll 1
        for (int k = 0; k < P && slice + k < at.head_dim; k += 16) {
            uint32_t left[4];
            load_a(left, m->x, row, k);
            multiply(f, left, m->dy, k, later);
        }
    }
#pragma unroll 1
    for (int k = 0; k < at.n; k += 16) {
        uint32_t left[4];
        load_a(left, m->b, row, k);
        multiply(g, left, m->c, k, later);
    }
}

/* f becomes W and g becomes M, with the sums of W o G and the diagonals on the way. */
template <int P, int N>
__device__ static inline void weigh_pairs(float (&f)[TILE / 8][4], float (&g)[TILE / 8][4], backward_tiles<P, N> *m,
                                          int row) {
    int warp = row / 16, lane = (int)threadIdx.x % WARP, upper = row + lane / 4;
    float columns[TILE / 4] = {};
    two_rows sums = {0, 0};
#pragma unroll
    for (int j = 0; j < TILE / 8; j++) {
        if (j / 2 < warp) continue;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int from = upper + i / 2 * 8, to = 8 * j + lane % 4 * 2 + i % 2;
            float decay = token_decay(m->weights, to, from), weight = token_weight(m->weights, to, from, decay);
            float both = decay * f[j][i] * g[j][i];
            if (from == to) m->m[to] = f[j][i], m->g[to] = g[j][i];
            columns[2 * j + i % 2] += m->weights.kappa[from] * both;
            (i < 2 ? sums.upper : sums.lower) += both;
            f[j][i] *= weight;
            g[j][i] *= weight;
        }
    }
    share_columns(m->pairs[warp], columns);
    sums = {sum_of_four(sums.upper), sum_of_four(sums.lower)};
    if (lane % 4 == 0) m->dkappa[upper] = sums.upper, m->dkappa[upper + 8] = sums.lower;
}

/* dB of the head's rotated B; leaves dkappa whole. */
template <int P, int N>
__device__ static inline void gradient_b(float (&db)[N / 8][4], backward_tiles<P, N> *m, const backward_arguments &a,
                                         const backward_place &at, const uint32_t (&w)[4][4], int row, int *here) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4, lower = upper + 8;
    clear_rows(db);
    for (int slice = 0; slice < at.head_dim; slice += P) {
        fetch_slice(m, a, at, slice, here);
#pragma unroll 1
        for (int k = 0; k < P && slice + k < at.head_dim; k += 16) {
            uint32_t left[4];
            load_a(left, m->x, row, k);
            multiply_across(db, left, m->gradient, k, 0, blocks_of(at.n));
        }
    }
    two_rows dot = dot_rows(db, m->b, row);
    if (lane % 4 == 0) {
        m->dkappa[upper] += m->weights.f[upper] * dot.upper;
        m->dkappa[lower] += m->weights.f[lower] * dot.lower;
        m->passed[upper] = m->weights.fall[upper] * dot.upper;
        m->passed[lower] = m->weights.fall[lower] * dot.lower;
    }
    scale_rows(db, m->weights.fall[upper], m->weights.fall[lower]);
#pragma unroll
    for (int i = 0; i < TILE / 16; i++)
        if (i >= row / 16 && 16 * i < at.length) multiply_across(db, w[i], m->c, 16 * i, 0, blocks_of(at.n));
}

/* This thread's part of <H', K>, of the slice that is there. */
template <int P, int N> __device__ static inline float dot_states(const backward_tiles<P, N> *m) {
    float sum = 0;
    for (int i = (int)threadIdx.x; i < P * N / 8; i += SSD_THREADS) {
        uint4 a = *reinterpret_cast<const uint4 *>(&m->state[i / (N / 8)][i % (N / 8) * 8]);
        uint4 b = *reinterpret_cast<const uint4 *>(&m->gradient[i / (N / 8)][i % (N / 8) * 8]);
        sum += low_half(a.x) * low_half(b.x) + high_half(a.x) * high_half(b.x);
        sum += low_half(a.y) * low_half(b.y) + high_half(a.y) * high_half(b.y);
        sum += low_half(a.z) * low_half(b.z) + high_half(a.z) * high_half(b.z);
        sum += low_half(a.w) * low_half(b.w) + high_half(a.w) * high_half(b.w);
    }
    return sum;
}

/* Writes dx and <H', K>; spends the warp's rows of x, unless there are slices. */
template <int P, int N>
__device__ static inline void gradient_x(backward_tiles<P, N> *m, const backward_arguments &a, const backward_place &at,
                                         const uint32_t (&weighed)[4][4], float d, int row, int *here) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4;
    size_t width = a.t.columns.width;
    bf16 *dx_rows = a.dproj + (first_row(a, at) + (size_t)row) * width + a.t.columns.x + at.head * a.t.s.head_dim;
    float through = 0;
    for (int slice = 0; slice < at.head_dim; slice += P) {
        fetch_slice(m, a, at, slice, here);
        through += dot_states(m);
        int channels = at.head_dim - slice < P ? at.head_dim - slice : P;
        float dx[P / 8][4];
        clear_rows(dx);
#pragma unroll 1
        for (int k = 0; k < at.n; k += 16) {
            uint32_t left[4];
            load_a(left, m->b, row, k);
            multiply(dx, left, m->gradient, k, blocks_of(channels));
        }
        scale_rows(dx, m->weights.fall[upper], m->weights.fall[upper + 8]);
#pragma unroll
        for (int i = 0; i < TILE / 16; i++)
            if (i >= row / 16 && 16 * i < at.length)
                multiply_across(dx, weighed[i], m->dy, 16 * i, 0, blocks_of(channels));
        add_rows(dx, d, m->dy, row);
        __syncwarp(); /* x is read by its warp alone */
        write_rows(m->x, row, 0, dx);
        store_rows<P>(dx_rows + slice, width, &m->x[row], at.length - row, channels);
        if (at.head_dim > P) *here = -1;
    }
    through = warp_sum(through);
    if (lane == 0) m->through[row / 16] = through;
}

/* dC of the head's rotated C. */
template <int P, int N>
__device__ static inline void gradient_c(float (&dc)[N / 8][4], backward_tiles<P, N> *m, const backward_arguments &a,
                                         const backward_place &at, int row, int *here) {
    int lane = (int)threadIdx.x % WARP, upper = row + lane / 4, lower = upper + 8;
    clear_rows(dc);
    for (int slice = 0; slice < at.head_dim; slice += P) {
        fetch_slice(m, a, at, slice, here);
#pragma unroll 1
        for (int k = 0; k < P && slice + k < at.head_dim; k += 16) {
            uint32_t left[4];
            load_a(left, m->dy, row, k);
            multiply_across(dc, left, m->state, k, 0, blocks_of(at.n));
        }
    }
    two_rows dot = dot_rows(dc, m->c, row);
    if (lane % 4 == 0) {
        m->entered[upper] = m->weights.r[upper] * dot.upper;
        m->entered[lower] = m->weights.r[lower] * dot.lower;
    }
    scale_rows(dc, m->weights.r[upper], m->weights.r[lower]);
#pragma unroll 1
    for (int k = 0; k <= row && k < at.length; k += 16) {
        uint32_t left[4];
        load_a_across(left, m->w, row, k);
        multiply_across(dc, left, m->b, k, 0, blocks_of(at.n));
    }
}
