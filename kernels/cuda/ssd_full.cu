/* ssd_full: the scan's forward pass for heads that fill their tiles.
 *
 * A block walks the tiles of one (sequence, head). Of each, one warpgroup makes the outputs, and the other the state
 * behind it and the rotations of the tile after the next; both make B and C of the next. All that a tile's products
 * read is there twice, so that one barrier a tile is enough. The state stays in float registers; its rounded form goes
 * to shared memory, where the next tile's product with C finds it, and to tape.states.
 *
 * Why no split of the sequence: the published preset has 256 (sequence, head) pairs, two blocks on each of 132 SMs, so
 * the chip is full, and splitting would read x a second time and write and read the states to have them first (403 MB,
 * 94 us). With fewer sequences than that the chip is not full; nothing of the published preset runs so.
 *
 * Published preset, a call: 34 GFLOP (43 us); x read, y and states written: 403 MB, the rest 40 MB (103 us); 0.14 MB
 * through shared memory a tile, 128 bytes a cycle an SM (76 us). Limit 103 us. With the gate also z read and gated
 * written, 268 MB: limit 166 us; what it adds fills gaps between barriers, and y is not read again. */
#include "kernels/cuda/ssd_full.cuh"

struct forward_squares {
    square b[2], c[2], x[2], state[2];
    turn_table turn[2];
    tile_weights weights[2];
};

/* With the gate: z of one tile. A thread has the pieces of eight columns that it stores of y, and nobody else's. */
template <bool GATED> struct output_squares : forward_squares {};
template <> struct output_squares<true> : forward_squares { uint4 z[TILE * 8]; };

/* Where the first tile's outputs of the warp go, and what lies between rows of theirs. */
struct output_rows {
    bf16 *y, *gated;
    unsigned stride;
};

/* The warp's rows of G, tokens by those that weigh in them, times what those weigh; `d` joins the diagonal. */
__device__ static inline void weigh_columns(float (&g)[FRAGMENTS][4], const tile_weights &w, float d,
                                            const group_place &place) {
    float l[2] = {w.l[place.upper], w.l[place.upper + 8]}, gamma[2] = {w.gamma[place.upper], w.gamma[place.upper + 8]};
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        int first = (int)pair_column(place.lane, i);
        if ((unsigned)i / 2 > place.band) {
            g[i][0] = g[i][1] = g[i][2] = g[i][3] = 0;
            continue;
        }
        float2 since = two_at(w.since, first);
        float weight[4] = {fast_exp2(l[0] - since.x), fast_exp2(l[0] - since.y), fast_exp2(l[1] - since.x),
                           fast_exp2(l[1] - since.y)};
        if ((unsigned)i / 2 == place.band)
#pragma unroll
            for (int k = 0; k < 4; k++) {
                int to = (int)place.upper + k / 2 * 8, from = first + k % 2;
                weight[k] = from < to ? weight[k] : from == to ? gamma[k / 2] : 0;
            }
#pragma unroll
        for (int k = 0; k < 4; k++) g[i][k] *= weight[k];
        if ((unsigned)i / 2 == place.band)
#pragma unroll
            for (int k = 0; k < 4; k++)
                if (first + k % 2 == (int)place.upper + k / 2 * 8) g[i][k] += d;
    }
}

/* y of tile i: diag(r) C H'^T + (G o weights + D) x; spends c. */
__device__ static inline void tile_outputs(bf16 *to, unsigned stride, forward_squares *m, unsigned here, float d,
                                           const group_place &place) {
    const tile_weights &w = m->weights[here];
    uint32_t left[STEPS][4], weighed[STEPS][4];
    float acc[FRAGMENTS][4];
    load_left(left, m->c, here, place);
    clear_rows(acc);
    products_begin();
    multiply_all<BY_ROWS>(acc, left, &m->b[here], false);
    products_commit();
    products_wait<0>(acc);
    weigh_columns(acc, w, d, place);
#pragma unroll
    for (int k = 0; k < STEPS; k++) pack_left(weighed[k], acc, k);
    products_begin();
    multiply_all<BY_ROWS>(acc, left, &m->state[here], false);
    products_commit();
    products_wait<0>(acc);
    scale_rows(acc, w.r[place.upper], w.r[place.upper + 8]);
    products_begin();
    multiply_all<BY_COLUMNS>(acc, weighed, &m->x[here], true);
    products_commit();
    products_wait<0>(acc);
    store_band(to, stride, m->c, here, acc, place);
}

/* Begins the copy of the warp's rows of z in tile i; z is `inner` columns before x. */
__device__ static inline void load_gates(output_squares<true> *m, const head_view &v, int i, unsigned inner,
                                         const group_place &place) {
    uint4 *to = m->z + place.row * 8 + place.lane;
    unsigned width = (unsigned)v.width, row = (unsigned)i * TILE + place.row + place.lane / 8;
    const bf16 *z = v.x - inner + (size_t)row * width + place.lane % 8 * 8;
#pragma unroll
    for (unsigned n = 0; n < 16; n += 4) copy_16(to + n * 8, z + n * width, true);
    copy_commit();
}
/* gated = y silu(z), the warp's rows, of the y that store_band has left in its tile. */
__device__ static inline void store_gated(bf16 *to, unsigned stride, output_squares<true> *m, unsigned here,
                                          const group_place &place) {
    tile_line rows(m->c, here, place.row + place.lane / 8, place.lane);
    const uint4 *z = m->z + place.row * 8 + place.lane;
    to += place.lane / 8 * stride + place.lane % 8 * 8;
#pragma unroll
    for (unsigned i = 0; i < 16; i += 4) {
        pack<ACTS> p = unpack(*rows.eight(i % 8, i)), gate = unpack(z[i * 8]);
#pragma unroll
        for (int k = 0; k < ACTS; k++) p.at[k] *= gate.at[k] * fast_sigmoid(gate.at[k]);
        store(to + i * stride, p);
    }
}

/* What both warpgroups do between tiles: waits until all of tile i is there, the LATER youngest copies excepted, and
 * begins the copy of the next x. */
template <int LATER>
__device__ static inline void next_tile(forward_squares *m, const head_view &v, int i, const group_place &place) {
    copy_wait<LATER>();
    shared_written();
    __syncthreads(); /* all of this tile is there; nobody reads the tile before any more */
    if (i + 1 < v.tiles)
        load_square(m->x, (unsigned)(i + 1) % 2, v.x + (size_t)(i + 1) * TILE * v.width, (unsigned)v.width, place);
    copy_commit();
}
/* And at the end of tile i: B and C of the next. */
__device__ static inline void next_vectors(forward_squares *m, own_vectors<true> &vectors, int i, int tiles,
                                           const group_place &place) {
    vectors.make(m->b, m->c, m->turn, (unsigned)(i + 1) % 2, place);
    if (i + 2 < tiles) vectors.move(1), vectors.fetch();
}

/* z is read a tile ahead. */
template <bool GATED>
__device__ static inline void walk_outputs(output_squares<GATED> *m, const head_view &v, own_vectors<true> &vectors,
                                           output_rows to, float d, const group_place &own) {
    weight_steps steps;
    if constexpr (GATED) load_gates(m, v, 0, to.stride, own);
    if (own.band == 0 && v.tiles > 1) steps.fetch(v, 1, own.lane);
#pragma unroll 1
    for (int i = 0; i < v.tiles; i++) {
        group_place place = afresh(own);
        next_tile<GATED ? 1 : 0>(m, v, i, place);
        size_t at = (size_t)i * TILE * to.stride;
        tile_outputs(to.y + at, to.stride, m, (unsigned)i % 2, d, place);
        if constexpr (GATED) {
            copy_wait<1>();
            store_gated(to.gated + at, to.stride, m, (unsigned)i % 2, place);
            if (i + 1 < v.tiles) load_gates(m, v, i + 1, to.stride, place);
        }
        if (i + 1 == v.tiles) break;
        if (place.band == 0) steps.make(&m->weights[(i + 1) % 2]);
        next_vectors(m, vectors, i, v.tiles, place);
        if (place.band == 0 && i + 2 < v.tiles) steps.fetch(v, i + 2, place.lane);
    }
}

__device__ static inline void walk_states(forward_squares *m, const head_view &v, own_vectors<true> &vectors,
                                          bf16 *states, const group_place &own) {
    float carried[FRAGMENTS][4];
    angle_steps<BAND_ANGLES> angles;
    unsigned angle = own.band * BAND_ANGLES;
    clear_rows(carried);
    store_band(states, TILE, m->state, 0, carried, own);
    if (v.tiles > 2) angles.fetch_rates(v, 2, angle, own.lane), angles.fetch(v, 2, angle, own.lane);
#pragma unroll 1
    for (int i = 0; i < v.tiles; i++) {
        group_place place = afresh(own);
        unsigned here = (unsigned)i % 2;
        next_tile<0>(m, v, i, place);
        if (i + 1 == v.tiles) break;
        const tile_weights &w = m->weights[here];
        uint32_t left[STEPS][4];
        load_left_across(left, m->x, here, place);
        scale_steps(left, w.fall, place.lane);
        scale_rows(carried, w.whole, w.whole);
        products_begin();
        multiply_all<BY_COLUMNS>(carried, left, &m->b[here], true);
        products_commit();
        if (i + 2 < v.tiles) angles.make(m->turn, here, angle, place.lane);
        products_wait<0>(carried);
        states += TILE * TILE;
        store_band(states, TILE, m->state, 1 - here, carried, place);
        next_vectors(m, vectors, i, v.tiles, place);
        if (i + 3 < v.tiles) angles.fetch_rates(v, i + 3, angle, place.lane), angles.fetch(v, i + 3, angle, place.lane);
    }
}

/* Grid: sequences x heads. tape.states: (batch, heads, chunks, head_dim, state). */
template <bool GATED>
__global__ void __launch_bounds__(SSD_THREADS, 2) ssd_full_outputs(bf16 *y, bf16 *gated, scan_tensors a) {
    auto *m = shared_memory<output_squares<GATED>>();
    const mamba_shape &s = a.s;
    group_place place = place_in_group();
    unsigned heads = (unsigned)s.heads, batch = blockIdx.x / heads, head = blockIdx.x % heads, stride = heads * TILE;
    head_view v =
        view_head<full_head>(a, batch, head, head / (heads / (unsigned)s.groups), (unsigned)s.time / (unsigned)TILE);
    size_t first = batch * s.time * stride + head * TILE + place.row * stride;
    bf16 *states = acts(a.tape.states) + blockIdx.x * (size_t)v.tiles * (TILE * TILE) + place.row * TILE;
    own_vectors<true> vectors(v, 0, place);
    vectors.fetch_parameters(v, a.weights, place);

    load_square(m->x, 0, v.x, (unsigned)v.width, place);
    copy_commit();
    vectors.fetch();
    if ((int)place.group < v.tiles) {
        unsigned angle = place.band * BAND_ANGLES;
        angle_steps<BAND_ANGLES> angles;
        angles.fetch_rates(v, (int)place.group, angle, place.lane);
        angles.fetch(v, (int)place.group, angle, place.lane);
        angles.make(m->turn, place.group, angle, place.lane);
    }
    if (place.group == 0 && place.band == 0) {
        weight_steps steps;
        steps.fetch(v, 0, place.lane);
        steps.make(&m->weights[0]);
    }
    __syncthreads();
    next_vectors(m, vectors, -1, v.tiles, place);
    if (place.group == 0)
        walk_outputs<GATED>(m, v, vectors, {y + first, GATED ? gated + first : NULL, stride}, a.weights.d[head], place);
    else
        walk_states(m, v, vectors, states, place);
}

void ssd_full_forward(bf16 *y, const scan_tensors &a) {
    LAUNCH(ssd_full_outputs<false>, (unsigned)(a.s.batch * a.s.heads), SSD_THREADS, sizeof(output_squares<false>), y,
           (bf16 *)NULL, a);
}
void ssd_full_gated(bf16 *y, bf16 *gated, const scan_tensors &a) {
    LAUNCH(ssd_full_outputs<true>, (unsigned)(a.s.batch * a.s.heads), SSD_THREADS, sizeof(output_squares<true>), y,
           gated, a);
}
