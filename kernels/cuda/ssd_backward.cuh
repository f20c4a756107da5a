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
 * with weight = kappa_s exp(l_t - l_s) before, gamma on the diagonal. W and M stay in shared memory. The sums for
 * kappa and l are taken from W o G in float:
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
    float4 *sums;  /* (blocks, 2, OWN<N>, threads) gradients of a group's B and C, where they have no registers */
    float *biases; /* (batch, tiles, 2, heads, state) each tile's part of db_bias and dc_bias */
    float *norms;  /* (batch, tiles, 2, groups, state) of db_norm and dc_norm */
    float *last;   /* (batch, tiles, heads) dkappa of each tile's last token */
    float *dd;     /* (batch, tiles, heads) each tile's part of dD */
};

/* ssd_full_backward.cu: all tiles, of heads that fill them; the shared memory of a block. */
void ssd_full_backward(const backward_arguments &a);
size_t ssd_full_backward_bytes();
/* ssd_backward_sums.cu: what joins tiles, and the weights' gradients from the tiles' parts. */
void ssd_join(const backward_arguments &a, const mamba_gradients &gradients);

template <class F> struct backward_tiles {
    static constexpr int P = F::P, N = F::N;
    /* Room for the next head's steps too, and for dtheta; else those wait, and dtheta is summed where it goes. */
    static constexpr bool AHEAD = N <= 64;
    static constexpr int STEPS = AHEAD ? 2 : 1;
    tile_row<N> b[TILE], c[TILE];      /* the group's columns of proj, then the head's B and C in their place */
    tile_row<N> state[P], gradient[P]; /* H', K */
    tile_row<P> x[TILE], dy[TILE];
    tile_row<TILE> w[TILE], weighed_g[TILE]; /* W, M */
    vector_parameters<N> b_parameters, c_parameters;
    tile_weights weights;
    /* What warps found, each for its own rows or columns: sums over the others are still to be taken. */
    float pairs[BANDS][TILE]; /* of W_st G_ts over the band's s, s before t */
    float bias[2][BANDS][N];  /* of db_bias and dc_bias; at the end of the norms' */
    float dkappa[PARTS][TILE];
    float passed[PARTS][TILE];   /* of kappa_s f_s (K^T x_s).B_s */
    float entered[PARTS][TILE];  /* of r_t (H'^T dy_t).C_t */
    float means[2][PARTS][TILE]; /* of the norms' rows */
    float through[SSD_WARPS];    /* of <H', K> */
    float m[TILE], g[TILE];      /* dy_t.x_t; C_t.B_t */
};

/* Behind them: the rotations, the steps of STEPS heads, and dphi and, AHEAD, dtheta (angles, PHASES), rows apart for
 * the banks. */
static constexpr int PHASES = TILE + 8;
struct backward_lines {
    rotation *turn;
    float *steps, *dphi, *dtheta;
    size_t pitch; /* of dtheta */
};
/* The steps of a block's i-th head. */
template <class F> __device__ static inline step_lines steps_of(const backward_lines &l, unsigned i, int angles) {
    return lay_out_steps(l.steps + i % backward_tiles<F>::STEPS * step_floats((size_t)angles), angles);
}
template <class F> static size_t backward_bytes(size_t angles) {
    size_t floats = turn_floats(angles) + backward_tiles<F>::STEPS * step_floats(angles) +
                    (backward_tiles<F>::AHEAD ? 2 : 1) * angles * PHASES;
    return sizeof(backward_tiles<F>) + floats * sizeof(float);
}

/* Where a block stands. What it reads is found from this when it is needed: pointers kept would cost registers. */
struct backward_place {
    unsigned batch, tile, head, group, index; /* index: batch x tiles + tile */
    unsigned tiles;                           /* of a sequence */
    int length, head_dim, n;                  /* tokens, channels, state */
};

/* Of the tile's matrices and phases, which lie head by head. */
__device__ static inline size_t matrix_of(const backward_arguments &a, const backward_place &at) {
    return (at.batch * (unsigned)a.t.s.heads + at.head) * at.tiles + at.tile;
}

template <class F>
__device__ static inline unsigned first_token(const backward_arguments &a, const backward_place &at) {
    return at.tile * (unsigned)F::tokens(a.t.s.chunk);
}
template <class F> __device__ static inline size_t first_row(const backward_arguments &a, const backward_place &at) {
    return at.batch * a.t.s.time + first_token<F>(a, at);
}
template <class F>
__device__ static inline size_t state_offset(const backward_arguments &a, const backward_place &at, int slice) {
    unsigned state = (unsigned)F::state(a.t.s.state), size = (unsigned)a.t.s.head_dim * state;
    return matrix_of(a, at) * size + (unsigned)slice * state;
}

/* Begin the copies of P channels from `slice` on: x and K, or dy and H'. */
template <class F>
__device__ static inline void load_x(backward_tiles<F> *m, const backward_arguments &a, const backward_place &at,
                                     int slice) {
    int left = at.head_dim - slice, channels = left >= F::P ? F::P : left;
    size_t width = a.t.columns.width, column = a.t.columns.x + at.head * (unsigned)a.t.s.head_dim + (unsigned)slice;
    load_tile<TILE, F::P>(m->x, a.t.proj + first_row<F>(a, at) * width + column, width, at.length, channels);
    load_tile<F::P, F::N>(m->gradient, a.gradients + state_offset<F>(a, at, slice), F::state(a.t.s.state), channels,
                          at.n);
}
template <class F>
__device__ static inline void load_dy(backward_tiles<F> *m, const backward_arguments &a, const backward_place &at,
                                      int slice) {
    int left = at.head_dim - slice, channels = left >= F::P ? F::P : left;
    unsigned head_dim = (unsigned)a.t.s.head_dim;
    size_t inner = (unsigned)a.t.s.heads * head_dim, column = at.head * head_dim + (unsigned)slice;
    load_tile<TILE, F::P>(m->dy, a.dy + first_row<F>(a, at) * inner + column, inner, at.length, channels);
    load_tile<F::P, F::N>(m->state, acts(a.t.tape.states) + state_offset<F>(a, at, slice), F::state(a.t.s.state),
                          channels, at.n);
}

/* Fetches a slice, if it is not the one that is there: only heads of more than P channels have several. */
template <class F>
__device__ static inline void fetch_slice(backward_tiles<F> *m, const backward_arguments &a, const backward_place &at,
                                          int slice, int *here) {
    if (slice == *here) return;
    __syncthreads();
    load_x(m, a, at, slice);
    load_dy(m, a, at, slice);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    *here = slice;
}

/* The warp's blocks of f = x dy^T and g = B C^T, of tokens t from its own on. */
template <class F>
__device__ static inline void multiply_pairs(float (&f)[OWN<TILE>][4], float (&g)[OWN<TILE>][4], backward_tiles<F> *m,
                                             const backward_arguments &a, const backward_place &at, warp_place place,
                                             int *here) {
    column_blocks<false> later = columns_between(place, place.row, at.length);
    clear_rows(f);
    clear_rows(g);
    for (int slice = 0; slice < at.head_dim; slice += F::P) {
        fetch_slice(m, a, at, slice, here);
#pragma unroll
        for (int k = 0; k < F::P; k += 16) {
            if (slice + k >= at.head_dim) break;
            uint32_t left[4];
            load_a(left, m->x, place.row, k);
            multiply(f, left, m->dy, k, later);
        }
    }
#pragma unroll
    for (int k = 0; k < F::N; k += 16) {
        if (k >= at.n) break;
        uint32_t left[4];
        load_a(left, m->b, place.row, k);
        multiply(g, left, m->c, k, later);
    }
}

/* The fragment (f, g) of tokens s (from: upper, lower) that all come before t, t + 1 becomes one of W and M. */
__device__ static inline void weigh_before(float (&f)[4], float (&g)[4], const tile_weights &w, int upper, int t,
                                           float (&columns)[2], two_rows &rows) {
    float2 l = two_at(w.l, t);
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int from = upper + i / 2 * 8;
        float decay = fast_exp2((i % 2 ? l.y : l.x) - w.l[from]), weighed = decay * f[i], both = weighed * g[i];
        columns[i % 2] += w.kappa[from] * both;
        (i < 2 ? rows.upper : rows.lower) += both;
        f[i] = weighed * w.kappa[from];
        g[i] *= decay * w.kappa[from];
    }
}

/* The same of a fragment on the diagonal, whose own elements m and g are kept. */
template <class F>
__device__ static inline void weigh_diagonal(float (&f)[4], float (&g)[4], backward_tiles<F> *m, int upper, int t,
                                             float (&columns)[2], two_rows &rows) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int from = upper + i / 2 * 8, to = t + i % 2;
        float decay = token_decay(m->weights, to, from), weight = token_weight(m->weights, to, from, decay);
        float both = decay * f[i] * g[i];
        if (from == to) m->m[to] = f[i], m->g[to] = g[i];
        columns[i % 2] += m->weights.kappa[from] * both;
        (i < 2 ? rows.upper : rows.lower) += both;
        f[i] *= weight;
        g[i] *= weight;
    }
}

/* f becomes W and g becomes M, with the sums of W o G and the diagonals on the way. */
template <class F>
__device__ static inline void weigh_pairs(float (&f)[OWN<TILE>][4], float (&g)[OWN<TILE>][4], backward_tiles<F> *m,
                                          warp_place place) {
    int upper = place.row + (int)threadIdx.x % WARP / 4;
    column_blocks<false> later = columns_between(place, place.row, TILE);
    float columns[OWN<TILE>][2] = {};
    two_rows rows = {0, 0};
#pragma unroll
    for (int j = 0; j < OWN<TILE>; j++) {
        if (!later.wanted(j / 2)) continue;
        if (later.at(j / 2) > place.row)
            weigh_before(f[j], g[j], m->weights, upper, later.pair(j), columns[j], rows);
        else
            weigh_diagonal(f[j], g[j], m, upper, later.pair(j), columns[j], rows);
    }
    float sums[2 * OWN<TILE>];
#pragma unroll
    for (int j = 0; j < OWN<TILE>; j++) sums[2 * j] = columns[j][0], sums[2 * j + 1] = columns[j][1];
    share_columns(m->pairs[place.row / 16], sums, 0, later);
    rows = {sum_of_four(rows.upper), sum_of_four(rows.lower)};
    if (threadIdx.x % 4 == 0) m->dkappa[place.part][upper] = rows.upper, m->dkappa[place.part][upper + 8] = rows.lower;
    write_rows(m->w, place.row, f, later);
    write_rows(m->weighed_g, place.row, g, later);
}

/* acc += the warp's rows of a triangle, W or M, times a tile (t, column). */
template <int COLUMNS, bool ALL, int WIDTH>
__device__ static inline void multiply_later(float (&acc)[COLUMNS][4], const tile_row<TILE> *triangle,
                                             const tile_row<WIDTH> *tile, int row, column_blocks<ALL> columns) {
#pragma unroll
    for (int k = 0; k < TILE; k += 16) {
        if (k < row) continue;
        uint32_t left[4];
        load_a(left, triangle, row, k);
        multiply_across(acc, left, tile, k, columns);
    }
}

/* acc = rows of x or dy times K or H', over all channels. */
template <class F>
__device__ static inline void multiply_channels(float (&acc)[OWN<F::N>][4], backward_tiles<F> *m,
                                                const backward_arguments &a, const backward_place &at,
                                                const tile_row<F::P> *rows, const tile_row<F::N> *states, int row,
                                                column_blocks<false> columns, int *here) {
    clear_rows(acc);
    for (int slice = 0; slice < at.head_dim; slice += F::P) {
        fetch_slice(m, a, at, slice, here);
#pragma unroll
        for (int k = 0; k < F::P; k += 16) {
            if (slice + k >= at.head_dim) break;
            uint32_t left[4];
            load_a(left, rows, row, k);
            multiply_across(acc, left, states, k, columns);
        }
    }
}

/* dB of the head's rotated B. */
template <class F>
__device__ static inline void gradient_b(float (&db)[OWN<F::N>][4], backward_tiles<F> *m, const backward_arguments &a,
                                         const backward_place &at, warp_place place, int *here) {
    int row = place.row, upper = row + (int)threadIdx.x % WARP / 4, lower = upper + 8;
    column_blocks<false> columns = columns_to<false>(place, at.n);
    multiply_channels(db, m, a, at, m->x, m->gradient, row, columns, here);
    two_rows dot = dot_rows(db, m->b, row, columns);
    if (threadIdx.x % 4 == 0) {
        m->dkappa[place.part][upper] += m->weights.f[upper] * dot.upper;
        m->dkappa[place.part][lower] += m->weights.f[lower] * dot.lower;
        m->passed[place.part][upper] = m->weights.fall[upper] * dot.upper;
        m->passed[place.part][lower] = m->weights.fall[lower] * dot.lower;
    }
    scale_rows(db, m->weights.fall[upper], m->weights.fall[lower]);
    multiply_later(db, m->w, m->c, row, columns);
}

/* This thread's part of <H', K>, of the slice that is there. */
template <class F> __device__ static inline float dot_states(const backward_tiles<F> *m) {
    constexpr int PIECES = F::N / 8, STEP = SSD_THREADS / PIECES;
    int row = (int)threadIdx.x / PIECES, column = (int)threadIdx.x % PIECES * 8;
    float sum = 0;
#pragma unroll
    for (int i = 0; i < F::P; i += STEP) {
        uint4 a = *reinterpret_cast<const uint4 *>(&m->state[row + i][column]);
        uint4 b = *reinterpret_cast<const uint4 *>(&m->gradient[row + i][column]);
        sum += low_half(a.x) * low_half(b.x) + high_half(a.x) * high_half(b.x);
        sum += low_half(a.y) * low_half(b.y) + high_half(a.y) * high_half(b.y);
        sum += low_half(a.z) * low_half(b.z) + high_half(a.z) * high_half(b.z);
        sum += low_half(a.w) * low_half(b.w) + high_half(a.w) * high_half(b.w);
    }
    return sum;
}

/* dC of the head's rotated C. */
template <class F>
__device__ static inline void gradient_c(float (&dc)[OWN<F::N>][4], backward_tiles<F> *m, const backward_arguments &a,
                                         const backward_place &at, warp_place place, int *here) {
    int row = place.row, upper = row + (int)threadIdx.x % WARP / 4, lower = upper + 8;
    column_blocks<false> columns = columns_to<false>(place, at.n);
    multiply_channels(dc, m, a, at, m->dy, m->state, row, columns, here);
    two_rows dot = dot_rows(dc, m->c, row, columns);
    if (threadIdx.x % 4 == 0) {
        m->entered[place.part][upper] = m->weights.r[upper] * dot.upper;
        m->entered[place.part][lower] = m->weights.r[lower] * dot.lower;
    }
    scale_rows(dc, m->weights.r[upper], m->weights.r[lower]);
#pragma unroll
    for (int k = 0; k < TILE; k += 16) {
        if (k > row) break;
        uint32_t left[4];
        load_a_across(left, m->w, row, k);
        multiply_across(dc, left, m->b, k, columns);
    }
}

/* Writes dx and <H', K>; spends x. */
template <class F>
__device__ static inline void gradient_x(backward_tiles<F> *m, const backward_arguments &a, const backward_place &at,
                                         warp_place place, int *here) {
    int row = place.row, upper = row + (int)threadIdx.x % WARP / 4;
    float d = a.t.weights.d[at.head], through = 0;
    size_t width = a.t.columns.width;
    bf16 *dx_rows = a.dproj + (first_row<F>(a, at) + (size_t)row) * width + a.t.columns.x + at.head * a.t.s.head_dim;
    for (int slice = 0; slice < at.head_dim; slice += F::P) {
        fetch_slice(m, a, at, slice, here);
        through += dot_states(m);
        int left_over = at.head_dim - slice;
        column_blocks<false> columns = columns_to<false>(place, left_over < F::P ? left_over : F::P);
        float dx[OWN<F::P>][4];
        clear_rows(dx);
#pragma unroll
        for (int k = 0; k < F::N; k += 16) {
            if (k >= at.n) break;
            uint32_t left[4];
            load_a(left, m->b, row, k);
            multiply(dx, left, m->gradient, k, columns);
        }
        scale_rows(dx, m->weights.fall[upper], m->weights.fall[upper + 8]);
        multiply_later(dx, m->weighed_g, m->dy, row, columns);
        add_rows(dx, d, m->dy, row, columns);
        write_rows(m->x, row, dx, columns);
        store_rows<OWN<F::P>>(dx_rows + slice, width, m->x, row, at.length - row, columns);
        if (at.head_dim > F::P) *here = -1;
    }
    through = warp_sum(through);
    if (threadIdx.x % WARP == 0) m->through[place.warp] = through;
}
