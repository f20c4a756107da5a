/* ssd_full: the scan's forward pass for heads that fill their tiles.
 *
 * A block walks the tiles of one (sequence, head). Of each, one warpgroup makes the outputs and the rotations of the
 * tile after the next, and the other the state behind it and B, C and the weights of the next. All that a tile's
 * products read is there twice, so that one barrier a tile is enough. The state stays in float registers; its rounded
 * form goes to shared memory, where the next tile's product with C finds it behind that tile's B, and to tape.states.
 *
 * Why no split of the sequence: the published preset has 256 (sequence, head) pairs, two blocks on each of 132 SMs, so
 * the chip is full, and splitting would read x a second time and write and read the states to have them first (403 MB,
 * 94 us). With fewer sequences than that the chip is not full; nothing of the published preset runs so.
 *
 * Published preset, a call: 34 GFLOP (43 us); x read, y and states written: 403 MB, the rest 40 MB (103 us); 0.14 MB
 * through shared memory a tile, 128 bytes a cycle an SM (76 us). Limit 103 us. With the gate also z read and gated
 * written, 268 MB: limit 166 us; what it adds fills gaps between barriers, and y is not read again. */
#include "kernels/cuda/ssd_full_walk.cuh"

/* What a tile's tokens weigh, as tile_weights. */
struct alignas(16) forward_weights {
    float l[TILE], gamma[TILE], fall[TILE], since[TILE];
    float until[TILE]; /* what is left of the token's share at the end of its band */
    float whole;
};

/* Of tile i: B at 2 (i % 2) of `both`, the state that enters it behind that, and all else at i % 2. */
struct forward_squares {
    square both[4], c[2], x[2];
    square z; /* and what is gated with it */
    turn_table turn[2];
    square raw[2]; /* of B and C */
    staged_steps steps[BANDS];
    float inverse[2][TILE]; /* likewise */
    forward_weights weights[2];
    copy_barrier x_here[2], z_here[BANDS], raw_here[BANDS];
};
static_assert(2 * (sizeof(forward_squares) + 1024) <= 228 << 10, "two blocks on an SM");

struct forward_arguments {
    scan_tensors t;
    bf16 *y, *gated;
    tensor_map proj_map, y_map, gated_map, states_map;
};

/* --- weights ------------------------------------------------------------------------------------------------------ */

/* By one warp. */
__device__ static inline void make_weights(forward_weights *w, const weight_steps &s, unsigned lane) {
    float next = __shfl_down_sync(0xffffffffu, s.delta.x - s.gamma.x, 1);
    if (lane == WARP - 1) next = s.delta_behind - s.gamma_behind;
    float2 kappa = {s.gamma.x + (s.delta.y - s.gamma.y), s.gamma.y + next}, l = sum_decays(s.log_decay, lane);
    float end = __shfl_sync(0xffffffffu, l.y, (int)(lane | 7)), whole = __shfl_sync(0xffffffffu, l.y, WARP - 1);
    auto store = [&](float(&line)[TILE], float2 two) { *reinterpret_cast<float2 *>(line + 2 * lane) = two; };
    store(w->l, l);
    store(w->gamma, s.gamma);
    store(w->fall, {kappa.x * fast_exp2(whole - l.x), kappa.y * fast_exp2(whole - l.y)});
    store(w->since, {l.x - __log2f(kappa.x), l.y - __log2f(kappa.y)});
    store(w->until, {kappa.x * fast_exp2(end - l.x), kappa.y * fast_exp2(end - l.y)});
    if (lane == 0) w->whole = fast_exp2(whole);
}

/* Two neighbours in a block of 8 x 8 on the diagonal, which `d` joins; since: of their tokens. */
__device__ static inline void weigh_diagonal(float &even, float &odd, float l, float2 since, float gamma, float d,
                                             int row, int column) {
    bool first = row == column, second = row == column + 1;
    float by_even = fast_exp2(l - since.x), by_odd = fast_exp2(l - since.y);
    even = even * (row > column ? by_even : first ? gamma : 0) + (first ? d : 0);
    odd = odd * (row > column + 1 ? by_odd : second ? gamma : 0) + (second ? d : 0);
}

/* The warp's rows of G, tokens by those that weigh in them, times what those weigh, as left operands; `d` joins the
 * diagonal. What a token weighs behind its band is what is left of it at the band's end, times what is left of that. */
template <int BAND>
__device__ static inline void weigh_band(uint32_t (&left)[STEPS][4], float (&g)[2 * FRAGMENTS][4],
                                         const forward_weights &w, float d, const group_place &place) {
    float upper = w.l[place.upper], lower = w.l[place.upper + 8];
    int row = (int)place.lane / 4, column = (int)place.lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < BAND; j++) {
        float end = w.l[16 * j + 15], by_upper = fast_exp2(upper - end), by_lower = fast_exp2(lower - end);
#pragma unroll
        for (int i = 2 * j; i < 2 * j + 2; i++) {
            float2 until = two_at(w.until, 8 * i + column);
            g[i][0] *= by_upper * until.x, g[i][1] *= by_upper * until.y;
            g[i][2] *= by_lower * until.x, g[i][3] *= by_lower * until.y;
        }
    }
    constexpr int FIRST = 2 * BAND;
    float(&near)[4] = g[FIRST], (&far)[4] = g[FIRST + 1];
    float2 since = two_at(w.since, 8 * FIRST + column), since_far = two_at(w.since, 8 * FIRST + 8 + column);
    weigh_diagonal(near[0], near[1], upper, since, w.gamma[place.upper], d, row, column);
    near[2] *= fast_exp2(lower - since.x), near[3] *= fast_exp2(lower - since.y);
    far[0] = far[1] = 0;
    weigh_diagonal(far[2], far[3], lower, since_far, w.gamma[place.upper + 8], d, row, column);
#pragma unroll
    for (int k = 0; k < STEPS; k++)
        if (k <= BAND)
            pack_left(left[k], g, k);
        else
            left[k][0] = left[k][1] = left[k][2] = left[k][3] = 0;
}
__device__ static inline void weigh_rows(uint32_t (&left)[STEPS][4], float (&g)[2 * FRAGMENTS][4],
                                         const forward_weights &w, float d, const group_place &place) {
    if (place.band == 0)
        weigh_band<0>(left, g, w, d, place);
    else if (place.band == 1)
        weigh_band<1>(left, g, w, d, place);
    else if (place.band == 2)
        weigh_band<2>(left, g, w, d, place);
    else
        weigh_band<3>(left, g, w, d, place);
}

/* --- outputs ------------------------------------------------------------------------------------------------------ */

/* Where a head's tiles come from and go to. */
struct head_matrices {
    matrix_rows<const bf16> x, z, b, c;
    matrix_rows<bf16> y, gated, states;
};

/* Begins y of a tile, diag(r) C H'^T + (G o weights + D) x; left: those weights. */
__device__ static inline void begin_outputs(float (&y)[FRAGMENTS][4], uint32_t (&left)[STEPS][4], forward_squares *m,
                                            unsigned here, float d, const group_place &place) {
    const forward_weights &w = m->weights[here];
    const auto *both = reinterpret_cast<const panels<2 * TILE, TILE> *>(&m->both[2 * here]);
    float acc[2 * FRAGMENTS][4]; /* G, and C H'^T */
    load_left(left, m->c, here, place);
    clear_rows(acc);
    products_begin();
#pragma unroll
    for (int k = 0; k < STEPS; k++) multiply<BY_ROWS>(acc, left[k], both, 0, 16 * k, k > 0);
    products_commit();
    float upper = fast_exp2(w.l[place.upper]), lower = fast_exp2(w.l[place.upper + 8]);
    products_wait<0>(acc);
    weigh_rows(left, acc, w, d, place);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        float(&from)[4] = acc[FRAGMENTS + i];
        y[i][0] = from[0] * upper, y[i][1] = from[1] * upper, y[i][2] = from[2] * lower, y[i][3] = from[3] * lower;
    }
    products_begin();
    multiply_all<BY_COLUMNS>(y, left, &m->x[here], true);
    products_commit();
}

/* silu(z) of the warp's rows of tile i, where the lane's accumulators are. */
__device__ static inline void open_gates(float (&gate)[FRAGMENTS][4], forward_squares *m, int i,
                                         const group_place &place) {
    uint32_t z[STEPS][4];
    wait_for(&m->z_here[place.band], (unsigned)i);
    load_left(z, &m->z, 0, place);
#pragma unroll
    for (int k = 0; k < STEPS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float even = low_half(z[k][j]), odd = high_half(z[k][j]);
            float *to = &gate[2 * k + j / 2][j % 2 * 2];
            to[0] = even * fast_sigmoid(even), to[1] = odd * fast_sigmoid(odd);
        }
}
/* left: y as it is kept, which becomes gated. */
__device__ static inline void multiply_gates(uint32_t (&left)[STEPS][4], const float (&gate)[FRAGMENTS][4]) {
#pragma unroll
    for (int k = 0; k < STEPS; k++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const float *by = &gate[2 * k + j / 2][j % 2 * 2];
            left[k][j] = pack_bf16(low_half(left[k][j]) * by[0], high_half(left[k][j]) * by[1]);
        }
}

/* What both warpgroups do between tiles: waits until all of tile i is there, and nobody reads the tile before. */
__device__ static inline void begin_tile(forward_squares *m, int i) {
    wait_for(&m->x_here[(unsigned)i % 2], (unsigned)i / 2);
    shared_written();
    __syncthreads();
}

template <bool GATED>
__device__ static inline void walk_outputs(forward_squares *m, const head_view &v, const head_matrices &at, float d,
                                           const group_place &own) {
#pragma unroll 1
    for (int i = 0; i < v.tiles; i++) {
        group_place place = afresh(own);
        unsigned here = (unsigned)i % 2;
        begin_tile(m, i);
        if (i + 1 < v.tiles) fetch_band(m->x, 1 - here, at.x, i + 1, &m->x_here[1 - here], place);
        if (i + 2 < v.tiles) {
            bring_band(at.x, i + 2, place);
            if (GATED) bring_band(at.z, i + 2, place);
            m->steps[place.band].fetch(v, i + 2, place);
        }
        float y[FRAGMENTS][4];
        uint32_t left[STEPS][4];
        begin_outputs(y, left, m, here, d, place);
        if constexpr (GATED) {
            float gate[FRAGMENTS][4];
            open_gates(gate, m, i, place);
            copy_wait<0>(); /* before the stores, which else it would wait for */
            products_wait<0>(y);
            pack_all(left, y);
            store_band(at.y, i, m->c, here, left, place);
            multiply_gates(left, gate);
            store_band(at.gated, i, &m->z, 0, left, place);
        } else {
            copy_wait<0>();
            products_wait<0>(y);
            pack_all(left, y);
            store_band(at.y, i, m->c, here, left, place);
        }
        if (i + 2 < v.tiles) m->steps[place.band].of_lane(place.lane).make(m->turn, here, place);
        rows_are_stored();
        if (GATED && i + 1 < v.tiles) fetch_band(&m->z, 0, at.z, i + 1, &m->z_here[place.band], place);
    }
}

/* --- states ------------------------------------------------------------------------------------------------------- */

/* Of the warps that make B and C, two have each. */
using half_vectors = warp_vectors<TILE / 2>;
__device__ static inline bool has_c(const group_place &place) { return place.band / 2 == 1; }

/* B or C of a tile whose raw rows are on their way, and the copy of the next tile's. */
__device__ static inline void make_vectors(forward_squares *m, const half_vectors &vectors, int tile, int tiles,
                                           const group_place &place) {
    unsigned which = (unsigned)tile % 2;
    bool c = has_c(place);
    raw_vectors raw = {&m->raw[c], m->inverse[c]};
    wait_for(&m->raw_here[place.band], (unsigned)tile);
    vectors.make(c ? m->c : m->both, c ? which : 2 * which, m->turn, which, raw, place.lane);
    __syncwarp();
    if (tile + 1 < tiles) vectors.fetch(raw, tile + 1, &m->raw_here[place.band], place.lane);
}

__device__ static inline void walk_states(forward_squares *m, const head_view &v, const head_matrices &at,
                                          const half_vectors &vectors, const group_place &own) {
    float carried[FRAGMENTS][4];
    clear_rows(carried);
#pragma unroll 1
    for (int i = 0; i < v.tiles; i++) {
        group_place place = afresh(own);
        unsigned here = (unsigned)i % 2, next = 1 - here;
        begin_tile(m, i);
        if (i + 1 == v.tiles) break;
        const forward_weights &w = m->weights[here];
        uint32_t left[STEPS][4];
        weight_steps steps;
        if (place.band == BANDS - 1) {
            steps.fetch(v, i + 1, place.lane);
            int later = i + 3 < v.tiles ? i + 3 : i;
            bring_line(v.log_decay, later, place.lane), bring_line(v.gamma, later, place.lane);
        }
        load_left_across(left, m->x, here, place);
        scale_steps(left, w.fall, place.lane);
        scale_rows(carried, w.whole, w.whole);
        products_begin();
        multiply_all<BY_COLUMNS>(carried, left, &m->both[2 * here], true);
        products_commit();
        make_vectors(m, vectors, i + 1, v.tiles, place);
        rows_are_stored();
        if (place.band == BANDS - 1) make_weights(&m->weights[next], steps, place.lane);
        products_wait<0>(carried);
        pack_all(left, carried);
        store_band(at.states, i + 1, m->both, 2 * next + 1, left, place);
    }
    rows_are_stored();
}

/* --- the kernel --------------------------------------------------------------------------------------------------- */

__device__ static inline head_matrices view_matrices(const forward_arguments &a, const head_view &v, unsigned batch,
                                                     unsigned head, unsigned group) {
    const mamba_shape &s = a.t.s;
    unsigned inner = (unsigned)s.heads * TILE, width = (unsigned)v.width, index = batch * (unsigned)s.heads + head;
    int row = (int)(batch * (unsigned)s.time), column = (int)(head * TILE), x = (int)(a.t.columns.x + head * TILE),
        b = (int)(a.t.columns.b + group * TILE), c = (int)(a.t.columns.c + group * TILE),
        matrix = (int)(index * (unsigned)v.tiles) * TILE;
    size_t first = batch * s.time * inner + head * TILE;
    return {.x = {v.x, width, &a.proj_map, x, row},
            .z = {v.x - inner, width, &a.proj_map, x - (int)inner, row},
            .b = {v.b, width, &a.proj_map, b, row},
            .c = {v.c, width, &a.proj_map, c, row},
            .y = {a.y + first, inner, &a.y_map, column, row},
            .gated = {a.gated + first, inner, &a.gated_map, column, row},
            .states = {acts(a.t.tape.states) + (size_t)matrix * TILE, TILE, &a.states_map, 0, matrix}};
}

__device__ static inline void begin_barriers(forward_squares *m) {
    if (threadIdx.x == 0) {
        begin_barrier(&m->x_here[0], BANDS), begin_barrier(&m->x_here[1], BANDS);
        for (int band = 0; band < BANDS; band++)
            begin_barrier(&m->z_here[band], 1), begin_barrier(&m->raw_here[band], 1);
        barriers_are_begun();
    }
    __syncthreads();
}

/* Grid: sequences x heads. tape.states: (batch, heads, chunks, head_dim, state). */
template <bool GATED>
__global__ void __launch_bounds__(SSD_THREADS, 2) ssd_full_outputs(const __grid_constant__ forward_arguments a) {
    auto *m = shared_memory<forward_squares>();
    const mamba_shape &s = a.t.s;
    group_place place = place_in_group();
    unsigned heads = (unsigned)s.heads, batch = blockIdx.x / heads, head = blockIdx.x % heads,
             group = head / (heads / (unsigned)s.groups);
    head_view v = view_head<full_head>(a.t, batch, head, group, (unsigned)s.time / (unsigned)TILE);
    head_matrices at = view_matrices(a, v, batch, head, group);
    bool c = has_c(place);
    half_vectors vectors(v, a.t.weights, c ? at.c : at.b, c, place.band % 2 * (TILE / 2), place.lane);
    begin_barriers(m);
    if (place.group == 0) {
        fetch_band(m->x, 0, at.x, 0, &m->x_here[0], place);
        if constexpr (GATED) fetch_band(&m->z, 0, at.z, 0, &m->z_here[place.band], place);
        for (int i = 0; i < 2 && i < v.tiles; i++) {
            m->steps[place.band].fetch(v, i, place);
            copy_wait<0>();
            m->steps[place.band].of_lane(place.lane).make(m->turn, (unsigned)i, place);
        }
    } else {
        uint32_t none[STEPS][4] = {};
        vectors.fetch({&m->raw[c], m->inverse[c]}, 0, &m->raw_here[place.band], place.lane);
        store_band(at.states, 0, m->both, 1, none, place);
        if (place.band == 0) {
            weight_steps first;
            first.fetch(v, 0, place.lane);
            make_weights(&m->weights[0], first, place.lane);
        }
    }
    __syncthreads();
    if (place.group == 0) {
        walk_outputs<GATED>(m, v, at, a.t.weights.d[head], place);
    } else {
        make_vectors(m, vectors, 0, v.tiles, place);
        walk_states(m, v, at, vectors, place);
    }
}

template <bool GATED> static void launch_outputs(bf16 *y, bf16 *gated, const scan_tensors &a) {
    const mamba_shape &s = a.s;
    size_t rows = s.batch * s.time, inner = s.heads * TILE, matrices = s.batch * s.heads * mamba_chunks(&s);
    forward_arguments arguments = {.t = a,
                                   .y = y,
                                   .gated = gated,
                                   .proj_map = map_of_rows(a.proj, a.columns.width, rows),
                                   .y_map = map_of_rows(y, inner, rows),
                                   .gated_map = map_of_rows(gated, inner, rows),
                                   .states_map = map_of_rows(acts(a.tape.states), TILE, matrices * TILE)};
    LAUNCH(ssd_full_outputs<GATED>, (unsigned)(s.batch * s.heads), SSD_THREADS, sizeof(forward_squares), arguments);
}

void ssd_full_forward(bf16 *y, const scan_tensors &a) { launch_outputs<false>(y, y, a); }
void ssd_full_gated(bf16 *y, bf16 *gated, const scan_tensors &a) { launch_outputs<true>(y, gated, a); }
