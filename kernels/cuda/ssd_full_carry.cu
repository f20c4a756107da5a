/* ssd_full_carry: ssd_carry for heads that fill their tiles.
 *
 * A block walks the tiles of one (sequence, head) from last to first. Of each tile one warpgroup has K and the weights
 * of the next, and the other makes C of the next and the rotations of the tile after that. dy is copied
 * three tiles ahead, and steps and raw C two: a tile takes less time than memory.
 *
 * Published preset, a call: 9 GFLOP; dy read, K written: 268 MB, the rest 30 MB: limit 69 us. */
#include "kernels/cuda/ssd_full_walk.cuh"

static constexpr unsigned DY_TILES = 4;

struct alignas(16) carry_weights {
    float r[TILE], whole;
};

/* Of tile i: all at i % 2, but dy of the n-th that is walked at n % 4. */
struct carry_squares {
    square c[2], dy[DY_TILES], gradient;
    turn_table turn[2];
    square raw[2];
    staged_steps steps[2][BANDS];
    float inverse[2][TILE];
    carry_weights weights[2];
    copy_barrier dy_here[DY_TILES], raw_here[2][BANDS];
};
static_assert(2 * (sizeof(carry_squares) + 1024) <= 228 << 10, "two blocks on an SM");

struct carry_arguments {
    scan_tensors t;
    bf16 *gradients;
    const bf16 *dy;
    tensor_map gradients_map, dy_map, proj_map;
};

/* By one warp: a tile's weights, of its tokens' log-decays. */
__device__ static inline float2 fetch_decays(const head_view &v, int tile, unsigned lane) {
    return *reinterpret_cast<const float2 *>(v.log_decay + (unsigned)tile * TILE + 2 * lane);
}
__device__ static inline void make_weights(carry_weights *w, float2 log_decay, unsigned lane) {
    float2 l = sum_decays(log_decay, lane), r = {fast_exp2(l.x), fast_exp2(l.y)};
    *reinterpret_cast<float2 *>(w->r + 2 * lane) = r;
    if (lane == WARP - 1) w->whole = r.y;
}

/* --- C and rotations ---------------------------------------------------------------------------------------------- */

using band_vectors = warp_vectors<TILE / BANDS>;

/* Begins the copies of what the warp makes C of a tile of, and rotations of the tile before that. */
__device__ static inline void fetch_parts(carry_squares *m, const head_view &v, const band_vectors &vectors, int tile,
                                          const group_place &place) {
    unsigned which = (unsigned)tile % 2;
    if (tile > 0) vectors.fetch({&m->raw[which], m->inverse[which]}, tile, &m->raw_here[which][place.band], place.lane);
    if (tile > 1)
        m->steps[which][place.band].fetch(v, tile - 1, place);
    else
        copy_commit();
}
/* Makes those of a tile, while what the tile before needs is on its way, and begins the copies for the one before that.
 * Of tile 0 nothing is needed but its gradient's place. */
__device__ static inline void make_parts(carry_squares *m, const head_view &v, const band_vectors &vectors, int tile,
                                         const group_place &place) {
    unsigned which = (unsigned)tile % 2;
    if (tile < 1) return;
    wait_for(&m->raw_here[which][place.band], (unsigned)(v.tiles - 1 - tile) / 2);
    vectors.make(m->c, which, m->turn, which, {&m->raw[which], m->inverse[which]}, place.lane);
    if (tile < 2) return;
    copy_wait<1>();
    turn_steps steps = m->steps[which][place.band].of_lane(place.lane);
    fetch_parts(m, v, vectors, tile - 2, place);
    steps.make(m->turn, 1 - which, place);
}

__device__ static inline void walk_vectors(carry_squares *m, const head_view &v, const band_vectors &vectors, int last,
                                           const group_place &own) {
#pragma unroll 1
    for (int i = last; i > 0; i--) {
        group_place place = afresh(own);
        shared_written();
        __syncthreads();
        make_parts(m, v, vectors, i - 1, place);
    }
}

/* --- K ------------------------------------------------------------------------------------------------------------ */

__device__ static inline void walk_gradients(carry_squares *m, const head_view &v, const matrix_rows<const bf16> &dy,
                                             const matrix_rows<bf16> &gradients, int last, const group_place &own) {
    float carried[FRAGMENTS][4];
    uint32_t left[STEPS][4], kept[STEPS][4];
    unsigned slot = 0, turn = 0; /* of dy */
    clear_rows(carried);
#pragma unroll 1
    for (int i = last; i > 0; i--) {
        group_place place = afresh(own);
        unsigned here = (unsigned)i % 2;
        wait_for(&m->dy_here[slot], turn);
        shared_written();
        __syncthreads(); /* all of this tile is there; nobody reads the tile behind it any more */
        unsigned spent = (slot + DY_TILES - 1) % DY_TILES;
        if (i > 3) fetch_band(m->dy, spent, dy, i - 3, &m->dy_here[spent], place);
        if (i > 6) bring_band(dy, i - 6, place);
        float2 log_decay = {0, 0};
        if (place.band == BANDS - 1) {
            log_decay = fetch_decays(v, i - 1, place.lane);
            bring_line(v.log_decay, i > 4 ? i - 4 : 0, place.lane);
        }
        const carry_weights &w = m->weights[here];
        pack_all(kept, carried);
        load_left_across(left, m->dy, slot, place);
        scale_steps(left, w.r, place.lane);
        scale_rows(carried, w.whole, w.whole);
        products_begin();
        multiply_all<BY_COLUMNS>(carried, left, &m->c[here], true);
        products_commit();
        rows_are_stored();
        store_band(gradients, i, &m->gradient, 0, kept, place);
        if (place.band == BANDS - 1) make_weights(&m->weights[1 - here], log_decay, place.lane);
        products_wait<0>(carried);
        if (++slot == DY_TILES) slot = 0, turn++;
    }
    pack_all(kept, carried);
    rows_are_stored();
    store_band(gradients, 0, &m->gradient, 0, kept, own);
    rows_are_stored();
}

/* Grid: sequences x heads. gradients: (batch, heads, chunks, head_dim, state). */
__global__ void __launch_bounds__(SSD_THREADS, 2) ssd_full_carried(const __grid_constant__ carry_arguments a) {
    auto *m = shared_memory<carry_squares>();
    const mamba_shape &s = a.t.s;
    group_place place = place_in_group();
    unsigned heads = (unsigned)s.heads, batch = blockIdx.x / heads, head = blockIdx.x % heads, stride = heads * TILE;
    unsigned group = head / (heads / (unsigned)s.groups);
    head_view v = view_head<full_head>(a.t, batch, head, group, (unsigned)s.time / (unsigned)TILE);
    int last = v.tiles - 1, matrix = (int)(blockIdx.x * (unsigned)v.tiles) * TILE;
    int row = (int)(batch * (unsigned)s.time);
    matrix_rows<const bf16> dy = {a.dy + batch * s.time * stride + head * TILE, stride, &a.dy_map, (int)(head * TILE),
                                  row},
                            c = {v.c, (unsigned)v.width, &a.proj_map, (int)(a.t.columns.c + group * TILE), row};
    matrix_rows<bf16> gradients = {a.gradients + (size_t)matrix * TILE, TILE, &a.gradients_map, 0, matrix};
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < DY_TILES; i++) begin_barrier(&m->dy_here[i], BANDS);
        for (int band = 0; band < BANDS; band++)
            begin_barrier(&m->raw_here[0][band], 1), begin_barrier(&m->raw_here[1][band], 1);
        barriers_are_begun();
    }
    __syncthreads();
    band_vectors vectors(v, a.t.weights, c, true, place.row, place.lane);
    if (place.group == 0) {
        unsigned other = (unsigned)(last + 1) % 2;
        m->steps[other][place.band].fetch(v, last, place);
        copy_wait<0>();
        m->steps[other][place.band].of_lane(place.lane).make(m->turn, 1 - other, place);
        fetch_parts(m, v, vectors, last, place);
        fetch_parts(m, v, vectors, last - 1, place);
    } else {
        for (int n = 0; n < (int)DY_TILES - 1; n++)
            if (last > n) fetch_band(m->dy, (unsigned)n, dy, last - n, &m->dy_here[n], place);
        if (place.band == BANDS - 1)
            make_weights(&m->weights[(unsigned)last % 2], fetch_decays(v, last, place.lane), place.lane);
    }
    __syncthreads();
    if (place.group == 0) {
        make_parts(m, v, vectors, last, place);
        walk_vectors(m, v, vectors, last, place);
    } else {
        walk_gradients(m, v, dy, gradients, last, place);
    }
}

void ssd_full_carry(bf16 *gradients, const scan_tensors &a, const bf16 *dy) {
    const mamba_shape &s = a.s;
    size_t inner = s.heads * TILE, matrices = s.batch * s.heads * mamba_chunks(&s);
    carry_arguments arguments = {.t = a,
                                 .gradients = gradients,
                                 .dy = dy,
                                 .gradients_map = map_of_rows(gradients, TILE, matrices * TILE),
                                 .dy_map = map_of_rows(dy, inner, s.batch * s.time),
                                 .proj_map = map_of_rows(a.proj, a.columns.width, s.batch * s.time)};
    LAUNCH(ssd_full_carried, (unsigned)(s.batch * s.heads), SSD_THREADS, sizeof(carry_squares), arguments);
}
