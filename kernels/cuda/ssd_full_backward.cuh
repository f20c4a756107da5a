/* ssd_full_backward: what a block of ssd_full_backward.cu has in shared memory, and how that comes and goes.
 *
 * On Hopper one thread has a head's squares copied, and a warp its rows of dx, from maps of the tensors
 * (bulk_copy.cuh): that takes no thread's registers, and nothing of the pipe that all other accesses to shared memory
 * go through. Elsewhere all threads copy. */
#pragma once
#include "kernels/cuda/ssd_backward.cuh"
#include "kernels/cuda/ssd_full.cuh"
#include "kernels/cuda/tensor_map.cuh"

struct full_backward_arguments : backward_arguments {
    tensor_map x_map, dy_map, state_map, gradient_map, dx_map;
};

/* Of head i: x[i % 2], and likewise dy, gradient, turn, weights and steps. */
struct backward_squares {
    square b, c, w; /* c behind b */
    square x[2], dy[2], gradient[2], state;
    turn_table turn[2];
    tile_weights weights[2];
    tile_steps steps[2];
    float within[TILE];                            /* what is left in a token of the first of its band */
    float4 dtheta[SSD_THREADS], rate[SSD_THREADS]; /* as sum_lane and phase_lane have them */
    float bias[2][BANDS][TILE]; /* each band's part of db_bias and dc_bias; at the end of the norms' */
    float dot[2][TILE];         /* dB_t.B_t, dC_t.C_t */
    float diagonal[2][TILE];    /* dy_t.x_t, C_t.B_t */
    float dkappa[TILE];
    float through[TILE / 2];             /* parts of exp(l_end) <H', K> + sum kappa_s f_s (K^T x_s).B_s */
    copy_barrier rows_here, states_here; /* phase i: x and dy of head i and steps of the next one, H' and K of head i */
};

/* What a block has all the time. */
struct block_view {
    unsigned batch, tile, group, index, tiles, heads; /* index: batch x tiles + tile; heads: of a group */
};

__device__ static inline block_view afresh(const block_view &at) {
    return {afresh(at.batch), afresh(at.tile), at.group, at.index, at.tiles, at.heads};
}
__device__ static inline head_view view_at(const backward_arguments &a, const block_view &at, unsigned head) {
    return view_head<full_head>(a.t, at.batch, head, at.group, at.tiles);
}
__device__ static inline size_t first_row(const backward_arguments &a, const block_view &at) {
    return (size_t)at.batch * a.t.s.time + at.tile * TILE;
}
/* Of the tile's matrices and phases, which lie head by head. */
__device__ static inline size_t matrix_of(const backward_arguments &a, const block_view &at, unsigned head) {
    return (size_t)(at.batch * (unsigned)a.t.s.heads + head) * at.tiles + at.tile;
}
/* Of the tile's tokens in lines of floats, likewise. */
__device__ static inline size_t token_of(const backward_arguments &a, const block_view &at, unsigned head) {
    return (size_t)(at.batch * (unsigned)a.t.s.heads + head) * a.t.s.time + at.tile * TILE;
}

static constexpr unsigned WARP_ANGLES = ANGLES / SSD_WARPS;
static_assert(WARP_ANGLES == 2);

/* --- copies ------------------------------------------------------------------------------------------------------- */

#if HINGE_WGMMA
/* last: the sequence has no token behind the tile, whose steps are then zeros. */
__device__ static inline void copies_begin(backward_squares *m, bool last) {
    if (threadIdx.x == 0) {
        barrier_begin(&m->rows_here, 1);
        barrier_begin(&m->states_here, 1);
        barriers_begun();
    }
    if (last && threadIdx.x < 2) m->steps[threadIdx.x].delta[TILE] = m->steps[threadIdx.x].gamma[TILE] = 0;
    __syncthreads();
}
/* By all threads: begin the copies of a head's steps, behind them those of a head's x and dy, and those of its K and
 * H'; `which`: of two places. */
__device__ static inline void fetch_steps(backward_squares *m, const full_backward_arguments &a, const block_view &at,
                                          unsigned head, unsigned which, const group_place &place) {
    if (place.group != 0 || place.band != 0 || !is_elected()) return;
    tile_steps &to = m->steps[which];
    constexpr int OWN_TOKENS = TILE * (int)sizeof(float), ALL_ANGLES = ANGLES * (int)sizeof(float);
    int tokens = OWN_TOKENS + (at.tile + 1 < at.tiles ? 16 : 0);
    size_t token = token_of(a, at, head);
    asm volatile("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [%0], %1;"
                 :
                 : "r"(shared_address(&m->rows_here)), "r"(2 * tokens + OWN_TOKENS + ALL_ANGLES)
                 : "memory");
    copy_bytes(to.delta, a.t.tape.delta + token, tokens, &m->rows_here);
    copy_bytes(to.gamma, a.t.tape.gamma + token, tokens, &m->rows_here);
    copy_bytes(to.log_decay, a.t.tape.log_decay + token, OWN_TOKENS, &m->rows_here);
    copy_bytes(to.phase, a.t.tape.phase + matrix_of(a, at, head) * ANGLES, ALL_ANGLES, &m->rows_here);
}
__device__ static inline void fetch_rows(backward_squares *m, const full_backward_arguments &a, const block_view &at,
                                         unsigned head, unsigned which, const group_place &place) {
    if (place.group != 0 || place.band != 0 || !is_elected()) return;
    int row = (int)first_row(a, at);
    barrier_expect(&m->rows_here, 2 * (int)sizeof(square));
    copy_box(&m->x[which], &a.x_map, (int)(a.t.columns.x + head * TILE), row, &m->rows_here);
    copy_box(&m->dy[which], &a.dy_map, (int)(head * TILE), row, &m->rows_here);
}
__device__ static inline void fetch_states(backward_squares *m, const full_backward_arguments &a, const block_view &at,
                                           unsigned head, unsigned which, const group_place &place) {
    if (place.group != 0 || place.band != 0 || !is_elected()) return;
    int row = (int)(matrix_of(a, at, head) * TILE);
    barrier_expect(&m->states_here, 2 * (int)sizeof(square));
    copy_box(&m->gradient[which], &a.gradient_map, 0, row, &m->states_here);
    copy_box(&m->state, &a.state_map, 0, row, &m->states_here);
}
/* Until those of the block's i-th head are here. */
__device__ static inline void wait_for_rows(backward_squares *m, unsigned i) { barrier_wait(&m->rows_here, i % 2); }
__device__ static inline void wait_for_states(backward_squares *m, unsigned i) { barrier_wait(&m->states_here, i % 2); }

/* The warp's rows of a tile, which it has just written, to dx. */
__device__ static inline void send_band(backward_squares *m, unsigned which, const full_backward_arguments &a,
                                        const block_view &at, unsigned head, const group_place &place) {
    shared_written();
    __syncwarp();
    if (!is_elected()) return;
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\n"
                 "cp.async.bulk.commit_group;"
                 :
                 : "l"(&a.dx_map), "r"((int)(a.t.columns.x + head * TILE)), "r"((int)(first_row(a, at) + place.row)),
                   "r"(shared_address(&m->x[which].pieces[0][place.row]))
                 : "memory");
}
/* Until nothing that the thread has sent is read any more. */
__device__ static inline void wait_for_sent() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }
#else
__device__ static inline void copies_begin(backward_squares *, bool) {}
__device__ static inline void fetch_steps(backward_squares *m, const backward_arguments &a, const block_view &at,
                                          unsigned head, unsigned which, const group_place &place) {
    if (place.group == 0) m->steps[which].fetch(view_at(a, at, head), (int)at.tile, place);
}
__device__ static inline void fetch_rows(backward_squares *m, const full_backward_arguments &a, const block_view &at,
                                         unsigned head, unsigned which, const group_place &place) {
    size_t row = first_row(a, at);
    unsigned width = (unsigned)a.t.columns.width, inner = (unsigned)a.t.s.heads * TILE;
    load_square(m->x, which, a.t.proj + row * width + a.t.columns.x + head * TILE, width, place);
    load_square(m->dy, which, a.dy + row * inner + head * TILE, inner, place);
}
__device__ static inline void fetch_states(backward_squares *m, const full_backward_arguments &a, const block_view &at,
                                           unsigned head, unsigned which, const group_place &place) {
    size_t matrix = matrix_of(a, at, head) * (TILE * TILE);
    load_square(m->gradient, which, a.gradients + matrix, TILE, place);
    load_square(&m->state, 0, acts(a.t.tape.states) + matrix, TILE, place);
    copy_commit();
}
/* copy_wait, behind which a barrier comes, has waited for both. */
__device__ static inline void wait_for_rows(backward_squares *, unsigned) {}
__device__ static inline void wait_for_states(backward_squares *, unsigned) {}
__device__ static inline void send_band(backward_squares *m, unsigned which, const full_backward_arguments &a,
                                        const block_view &at, unsigned head, const group_place &place) {
    unsigned width = (unsigned)a.t.columns.width;
    __syncwarp();
    copy_band(a.dproj + (first_row(a, at) + place.row) * width + a.t.columns.x + head * TILE, width, m->x, which,
              place);
}
__device__ static inline void wait_for_sent() {}
#endif

#ifdef HINGE_CUDA_EMULATOR
static inline bool is_hopper() { return false; }
static inline void make_maps(full_backward_arguments *) {}
#else
/* Of rows of `width` elements, of which boxes of 64 columns and so many rows are copied. */
static inline tensor_map map_of_rows(const bf16 *x, size_t width, size_t rows, unsigned box) {
    return boxes<2>{{width, rows}, {width * sizeof(bf16)}, {PANEL, box}}.map(x, "ssd_backward");
}
static inline void make_maps(full_backward_arguments *a) {
    const mamba_shape &s = a->t.s;
    size_t width = a->t.columns.width, rows = s.batch * s.time, states = rows * s.heads; /* TILE rows a tile and head */
    a->x_map = map_of_rows(a->t.proj, width, rows, TILE);
    a->dx_map = map_of_rows(a->dproj, width, rows, TILE / BANDS);
    a->dy_map = map_of_rows(a->dy, s.heads * TILE, rows, TILE);
    a->state_map = map_of_rows(acts(a->t.tape.states), TILE, states, TILE);
    a->gradient_map = map_of_rows(a->gradients, TILE, states, TILE);
}
#endif

/* --- barriers between the warpgroups ------------------------------------------------------------------------------ */

/* A place that one of the two warpgroups says it has come to, and that the other waits for; in both, all pass them in
 * the same order. */
enum meeting { X_READ = 1, W_WRITTEN, FIRST_READ_GRADIENT, SECOND_READ_GRADIENT };
#ifdef HINGE_CUDA_EMULATOR
__device__ static inline void say(meeting) { __syncthreads(); }
__device__ static inline void await(meeting) { __syncthreads(); }
#else
__device__ static inline void say(meeting at) {
    asm volatile("bar.arrive %0, %1;" : : "r"((int)at), "n"(SSD_THREADS) : "memory");
}
__device__ static inline void await(meeting at) {
    asm volatile("bar.sync %0, %1;" : : "r"((int)at), "n"(SSD_THREADS) : "memory");
}
#endif
