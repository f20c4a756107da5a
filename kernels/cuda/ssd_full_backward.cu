/* ssd_full_backward: ssd_backward's tiles for heads that fill them; ssd_backward.cuh says what the products are.
 *
 * A block has one tile of one group and walks the group's heads. One warpgroup has W and dB, the other M, dx and dC; of
 * <H', K> each has half. W and M stay in registers, from where they enter the next product; W also goes to shared
 * memory, where dC finds its transpose. A head's operands from global memory lie there twice: the next one's arrive
 * while this one's products are made. The gradients of B and C, summed over the heads, stay in registers until the
 * norm's backward pass has made them those of proj's columns.
 *
 * Registers are what is short: all 128 are used, so what is needed once a head lies in shared memory (the rates,
 * dtheta) or is found again, which afresh() and sum_now() force; a loop's invariants that are spilled come back late.
 * Both warpgroups run the same code where they can, because instructions come late otherwise.
 *
 * The sums for kappa and l are dot products of the gradients' rows with B and C: as G = C B^T,
 *
 *     dB_t.B_t = kappa_t dkappa_t + W_tt G_tt,   dC_t.C_t = U_t.C_t + W_tt G_tt,   dl_t = dC_t.C_t - dB_t.B_t,
 *
 * in which W is what the products had, rounded: what cancels when dl is summed does so here too.
 *
 * Published preset, a call: 69 GFLOP (87 us); x, dy, H', K read, dx written: 671 MB, the rest 60 MB (170 us); some
 * 0.33 MB through shared memory a head and tile, 128 bytes a cycle an SM (183 us). Limit by bytes 170 us; with
 * ssd_carry's 69 us and ssd_join's 9 MB 240 us. Measured on an H200: 367 us, in 67% of which the pipe of shared memory
 * has work. */
#include "kernels/cuda/ssd_backward.cuh"
#include "kernels/cuda/ssd_full.cuh"

struct backward_squares {
    square b, c, w;                            /* c behind b */
    square x[2], dy[2], state[2], gradient[2]; /* of head i: i % 2, as weights and steps */
    turn_table turn;
    tile_weights weights[2];
    tile_steps steps[2];
    float within[TILE];                            /* what is left in a token of the first of its band */
    float4 dtheta[SSD_THREADS], rate[SSD_THREADS]; /* of the warp's angles, the lane's tokens */
    float bias[2][BANDS][TILE]; /* each band's part of db_bias and dc_bias; at the end of the norms' */
    float dot[2][TILE];         /* dB_t.B_t, dC_t.C_t */
    float diagonal[2][TILE];    /* dy_t.x_t, C_t.B_t */
    float dkappa[TILE];
    float passed[BANDS], through[TILE]; /* parts of sum kappa_s f_s (K^T x_s).B_s and <H', K> */
};

static constexpr unsigned WARP_ANGLES = ANGLES / SSD_WARPS;
static_assert(WARP_ANGLES == 2);

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

/* Begins the copies of a head's operands. */
__device__ static inline void fetch_operands(backward_squares *m, const backward_arguments &a, const block_view &at,
                                             unsigned head, unsigned which, const group_place &place) {
    size_t row = first_row(a, at), matrix = matrix_of(a, at, head) * (TILE * TILE);
    unsigned width = afresh((unsigned)a.t.columns.width), inner = afresh((unsigned)a.t.s.heads * TILE);
    load_square(m->x, which, a.t.proj + row * width + a.t.columns.x + head * TILE, width, place);
    load_square(m->dy, which, a.dy + row * inner + head * TILE, inner, place);
    load_square(m->gradient, which, a.gradients + matrix, TILE, place);
    load_square(m->state, which, acts(a.t.tape.states) + matrix, TILE, place);
    copy_commit();
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* In a block of 8 x 8 a lane has `row`, and the columns `column` and the next. */
struct diagonal_place {
    int row, column;
    __device__ explicit diagonal_place(unsigned lane) : row((int)lane / 4), column((int)lane % 4 * 2) {}
};

/* A block of 16 columns, all of tokens behind the rows': their weights are the rows' in the block's first token, times
 * what is left of that one (`within`) in the others. */
__device__ static inline void weigh_behind(float (&left)[4], float (&right)[4], const tile_weights &w,
                                           const float *within, int first, const float (&since)[2], int column) {
    float start = w.l[first], upper = fast_exp2(start - since[0]), lower = fast_exp2(start - since[1]);
    float2 near = two_at(within, first + column), far = two_at(within, first + 8 + column);
    left[0] *= upper * near.x, left[1] *= upper * near.y, left[2] *= lower * near.x, left[3] *= lower * near.y;
    right[0] *= upper * far.x, right[1] *= upper * far.y, right[2] *= lower * far.x, right[3] *= lower * far.y;
}

/* Two neighbours in a block of 8 x 8 on the diagonal, which is kept, and which `d` joins. l: of the columns' tokens. */
__device__ static inline void weigh_diagonal(float &even, float &odd, float2 l, float since, float gamma, float d,
                                             float *diagonal, const diagonal_place &at) {
    bool first = at.row == at.column, second = at.row == at.column + 1;
    if (first) diagonal[at.row] = even;
    if (second) diagonal[at.row] = odd;
    float by_even = fast_exp2(l.x - since), by_odd = fast_exp2(l.y - since);
    even = even * (at.row < at.column ? by_even : first ? gamma : 0) + (first ? d : 0);
    odd = odd * (at.row <= at.column ? by_odd : second ? gamma : 0) + (second ? d : 0);
}

/* The warp's rows of f or g, tokens that weigh, become those of W or M; `d` joins the diagonal, which is kept. */
template <int BAND>
__device__ static inline void weigh_band(float (&acc)[FRAGMENTS][4], const tile_weights &w, const float *within,
                                         float *diagonal, float d, const group_place &place) {
    float since[2] = {w.since[place.upper], w.since[place.upper + 8]},
          gamma[2] = {w.gamma[place.upper], w.gamma[place.upper + 8]};
    diagonal_place at(place.lane);
    constexpr int FIRST = BAND * 16;
    float(&left)[4] = acc[2 * BAND], (&right)[4] = acc[2 * BAND + 1];
    float2 near = two_at(w.l, FIRST + at.column), far = two_at(w.l, FIRST + 8 + at.column);
#pragma unroll
    for (int i = 0; i < 2 * BAND; i++) acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
    weigh_diagonal(left[0], left[1], near, since[0], gamma[0], d, diagonal + FIRST, at);
    left[2] = left[3] = 0;
    right[0] *= fast_exp2(far.x - since[0]), right[1] *= fast_exp2(far.y - since[0]);
    weigh_diagonal(right[2], right[3], far, since[1], gamma[1], d, diagonal + FIRST + 8, at);
#pragma unroll
    for (int j = BAND + 1; j < BANDS; j++)
        weigh_behind(acc[2 * j], acc[2 * j + 1], w, within, 16 * j, since, at.column);
}
__device__ static inline void weigh_rows(float (&acc)[FRAGMENTS][4], const tile_weights &w, const float *within,
                                         float *diagonal, float d, const group_place &place) {
    if (place.band == 0)
        weigh_band<0>(acc, w, within, diagonal, d, place);
    else if (place.band == 1)
        weigh_band<1>(acc, w, within, diagonal, d, place);
    else if (place.band == 2)
        weigh_band<2>(acc, w, within, diagonal, d, place);
    else
        weigh_band<3>(acc, w, within, diagonal, d, place);
}

/* What a tile has where the lane's accumulators lie: pairs of the upper and the lower row. */
struct own_pairs {
    uint32_t held[STEPS][4];
    __device__ void load(square *tiles, unsigned which, const group_place &place) {
        load_left(held, tiles, which, place);
    }
    __device__ uint32_t upper(int i) const { return held[i / 2][i % 2 * 2]; }
    __device__ uint32_t lower(int i) const { return held[i / 2][i % 2 * 2 + 1]; }
    /* The lane's part of the dot product of its rows. */
    __device__ two_rows dot(const float (&acc)[FRAGMENTS][4]) const {
        two_rows sum = {0, 0};
#pragma unroll
        for (int i = 0; i < FRAGMENTS; i++) {
            sum.upper += acc[i][0] * low_half(upper(i)) + acc[i][1] * high_half(upper(i));
            sum.lower += acc[i][2] * low_half(lower(i)) + acc[i][3] * high_half(lower(i));
        }
        return sum;
    }
};

/* Sums of each column over the warp's rows, as share_columns makes them, to to[column]. */
template <int HALF> __device__ static inline void halve_columns(float (&sum)[2 * FRAGMENTS], bool upper, unsigned bit) {
#pragma unroll
    for (int i = 0; i < HALF; i++) {
        float sent = upper ? sum[i] : sum[HALF + i], kept = upper ? sum[HALF + i] : sum[i];
        sum[i] = kept + __shfl_xor_sync(0xffffffffu, sent, bit);
    }
}
__device__ static inline void sum_columns(float *to, const float (&acc)[FRAGMENTS][4], unsigned lane) {
    float sum[2 * FRAGMENTS];
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) sum[2 * i] = acc[i][0] + acc[i][2], sum[2 * i + 1] = acc[i][1] + acc[i][3];
    halve_columns<8>(sum, lane & 16, 16);
    halve_columns<4>(sum, lane & 8, 8);
    halve_columns<2>(sum, lane & 4, 4);
    unsigned fragment = lane / 16 * 4 + lane / 8 % 2 * 2 + lane / 4 % 2;
    *reinterpret_cast<float2 *>(to + fragment * 8 + lane % 4 * 2) = {sum[0], sum[1]};
}

/* The warp's parts of <H', K>, on the diagonal of H' K^T: the rows of its band, in half of the columns. */
__device__ static inline void dot_states(backward_squares *m, unsigned here, const group_place &place) {
    tile_line rows(m->state, here, place.row + place.lane % 16, 4 * place.group + place.lane / 16),
        columns(m->gradient, here, place.row + place.lane % 8 + place.lane / 16 * 8,
                4 * place.group + place.lane / 8 % 2);
    float upper[4] = {}, lower[4] = {};
#pragma unroll
    for (int k = 0; k < STEPS / 2; k++) {
        uint32_t left[4], right[4];
        ldmatrix_x4(left, rows.at(2 * k));
        ldmatrix_x4(right, columns.at(2 * k));
        mma_m16n8k16(upper, left, {right[0], right[1]});
        mma_m16n8k16(lower, left, {right[2], right[3]});
    }
    diagonal_place at(place.lane);
    float *to = m->through + (place.group * BANDS + place.band) * 8 + at.row;
    if (at.row == at.column) *to = upper[0] + lower[2];
    if (at.row == at.column + 1) *to = upper[1] + lower[3];
}

/* Begins f or g; rows: those of x or B. */
__device__ static inline void multiply_pairs(float (&acc)[FRAGMENTS][4], uint32_t (&rows)[STEPS][4],
                                             backward_squares *m, unsigned here, const group_place &place) {
    bool has_b = place.group == 0;
    load_left(rows, has_b ? &m->x[here] : &m->b, 0, place);
    const square *columns = has_b ? &m->dy[here] : &m->c;
    clear_rows(acc);
    products_begin();
    multiply_all<BY_ROWS>(acc, rows, columns, false);
    products_commit();
}

/* dB of the rotated B: W C + diag(kappa f) x K; on the way W to shared memory, and a barrier when it is there and x is
 * free. */
__device__ static inline void gradient_b(float (&db)[FRAGMENTS][4], own_pairs &b, const uint32_t (&rows)[STEPS][4],
                                         const uint32_t (&left)[STEPS][4], backward_squares *m, unsigned here,
                                         const group_place &place) {
    const tile_weights &w = m->weights[here];
    products_begin();
    multiply_all<BY_COLUMNS>(db, rows, &m->gradient[here], false);
    products_commit();
    store_left(&m->w, 0, left, place);
    shared_written();
    products_wait<0>(db);
    __syncthreads();
    scale_rows(db, w.fall[place.upper], w.fall[place.upper + 8]);
    b.load(&m->b, 0, place);
    two_rows passed = b.dot(db);
    products_begin();
    multiply_all<BY_COLUMNS>(db, left, &m->c, true);
    products_commit();
    float sum = warp_sum(passed.upper + passed.lower);
    if (place.lane == 0) m->passed[place.band] = sum;
    products_wait<0>(db);
}

/* dx = M dy + diag(kappa f) B K^T + D dy, rounded, from M. */
__device__ static inline void gradient_x(uint32_t (&left)[STEPS][4], float (&dx)[FRAGMENTS][4],
                                         const uint32_t (&rows)[STEPS][4], backward_squares *m, unsigned here,
                                         const group_place &place) {
    const tile_weights &w = m->weights[here];
    products_begin();
    multiply_all<BY_ROWS>(dx, rows, &m->gradient[here], false);
    products_commit();
    products_wait<0>(dx);
    scale_rows(dx, w.fall[place.upper], w.fall[place.upper + 8]);
    products_begin();
    multiply_all<BY_COLUMNS>(dx, left, &m->dy[here], true);
    products_commit();
    products_wait<0>(dx);
    pack_all(left, dx);
}

/* dC of the rotated C, W^T B + diag(r) dy H', and on the way dx to where it goes; spends x. */
__device__ static inline void gradient_c(float (&dc)[FRAGMENTS][4], own_pairs &c, backward_squares *m, unsigned here,
                                         const uint32_t (&dx)[STEPS][4], bf16 *to, unsigned width,
                                         const group_place &place) {
    const tile_weights &w = m->weights[here];
    clear_rows(dc);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE; k += 16) multiply<BY_ROWS, BY_COLUMNS>(dc, &m->dy[here], 0, &m->state[here], 0, k, k > 0);
    products_commit();
    store_left(m->x, here, dx, place);
    __syncwarp();
    copy_band(to, width, m->x, here, place);
    products_wait<0>(dc);
    scale_rows(dc, w.r[place.upper], w.r[place.upper + 8]);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE; k += 16) multiply<BY_COLUMNS, BY_COLUMNS>(dc, &m->w, 0, &m->b, 0, k, true);
    products_commit();
    c.load(&m->c, 0, place);
    products_wait<0>(dc);
}

/* Of the phases of a head, dphi by B and by C, where its K was; lines of 64 tokens, permuted for the banks of lanes
 * that have four angles of eight tokens. */
__device__ static inline float *phase_line(backward_squares *m, unsigned here, unsigned which, unsigned angle) {
    return reinterpret_cast<float *>(&m->gradient[here]) + (which * ANGLES + angle) * TILE;
}
__device__ static inline unsigned phase_place(unsigned angle, unsigned token) { return token ^ angle % 4 * 8; }

/* dB or dC of the rotated rows to that of the others, with the rows' dot products, the phases' gradients, and the
 * columns' sums for the bias. */
__device__ static inline void unrotate(float (&acc)[FRAGMENTS][4], const own_pairs &rotated, backward_squares *m,
                                       unsigned here, unsigned which, const group_place &place) {
    two_rows dot = rotated.dot(acc);
    dot = {sum_of_four(dot.upper), sum_of_four(dot.lower)};
    if (place.lane % 4 == 0) m->dot[which][place.upper] = dot.upper, m->dot[which][place.upper + 8] = dot.lower;
    float *dphi[2] = {phase_line(m, here, which, place.lane % 4) + phase_place(place.lane, place.upper),
                      phase_line(m, here, which, place.lane % 4) + phase_place(place.lane, place.upper + 8)};
#pragma unroll
    for (unsigned i = 0; i < FRAGMENTS / 2; i++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            uint32_t pair = half == 0 ? rotated.upper((int)i) : rotated.lower((int)i);
            const rotation *turn = reinterpret_cast<const rotation *>(
                turns_at(&m->turn, 0, place.upper, place.lane / 2 % 2 * 2, 4 * i, 8 * half));
            float &even = acc[i][2 * half], &odd = acc[i][2 * half + 1];
            dphi[half][4 * i * TILE] = odd * low_half(pair) - even * high_half(pair);
            rotate_back(even, odd, turn[place.lane % 2]);
        }
    sum_columns(m->bias[which][place.band], acc, place.lane);
}

/* --- phases and steps --------------------------------------------------------------------------------------------- */

/* What the warp's rotations of a head are made of, whose steps are steps[which]. */
__device__ static inline angle_steps<WARP_ANGLES> steps_of(const backward_squares *m, unsigned which, unsigned warp,
                                                           unsigned lane) {
    const tile_steps &s = m->steps[which];
    float4 rate = m->rate[warp * WARP + lane];
    float2 phase = two_at(s.phase, (int)(warp * WARP_ANGLES));
    return {two_at(s.delta, 2 * (int)lane), {{rate.x, rate.y}, {rate.z, rate.w}}, {phase.x, phase.y}};
}

/* By one warp: a head's weights. */
__device__ static inline void weigh_tokens(tile_weights *w, float *within, const tile_steps &s, unsigned lane) {
    int token = 2 * (int)lane;
    s.of_lane(lane).make(w);
    __syncwarp();
    float2 l = two_at(w->l, token);
    float first = w->l[token / 16 * 16];
    *reinterpret_cast<float2 *>(within + token) = {fast_exp2(l.x - first), fast_exp2(l.y - first)};
}

/* The warps' parts of what turns a token's delta: their angles' rate times F; where W was. */
__device__ static inline float *turned_parts(backward_squares *m) { return reinterpret_cast<float *>(&m->w); }

/* The warp's angles: dphi to F, its sum over the token and the tile's later ones; adds delta F to dtheta, and leaves
 * the tile's sums of dphi. Beside that, because sums over lanes have little to do, its rotations of the next head. */
__device__ static inline void sum_phases(backward_squares *m, unsigned here, unsigned next, float *sums, unsigned warp,
                                         unsigned lane) {
    float2 first[WARP_ANGLES];
    float sum[WARP_ANGLES];
#pragma unroll
    for (unsigned i = 0; i < WARP_ANGLES; i++) {
        unsigned j = warp * WARP_ANGLES + i;
        int at = (int)phase_place(j, 2 * lane);
        float2 b = two_at(phase_line(m, here, 0, j), at), c = two_at(phase_line(m, here, 1, j), at);
        first[i] = {b.x + c.x, b.y + c.y};
        sum[i] = first[i].x + first[i].y;
    }
    angle_steps<WARP_ANGLES> angles = steps_of(m, next, warp, lane);
    angles.make(&m->turn, 0, warp * WARP_ANGLES, lane, [&](unsigned offset) {
#pragma unroll
        for (unsigned i = 0; i < WARP_ANGLES; i++) {
            float more = __shfl_down_sync(0xffffffffu, sum[i], offset);
            if (lane + offset < WARP) sum[i] += more;
        }
    });
    float2 delta = two_at(m->steps[here].delta, 2 * (int)lane);
    float second[WARP_ANGLES] = {sum[0] - first[0].x, sum[1] - first[1].x}; /* of the lane's second token */
    float4 &dtheta = m->dtheta[warp * WARP + lane], before = dtheta;
    dtheta = {before.x + delta.x * sum[0], before.y + delta.y * second[0], before.z + delta.x * sum[1],
              before.w + delta.y * second[1]};
    if (lane == 0) *reinterpret_cast<float2 *>(sums + warp * WARP_ANGLES) = {sum[0], sum[1]};
    *reinterpret_cast<float2 *>(turned_parts(m) + warp * TILE +
                                2 * lane) = {angles.rate[0].x * sum[0] + angles.rate[1].x * sum[1],
                                             angles.rate[0].y * second[0] + angles.rate[1].y * second[1]};
}

/* The bands' parts of two vectors, added in order, to to[0 ..] and to[stride ..]; by 128 threads. */
__device__ static inline void store_sums(float *to, unsigned stride, const backward_squares *m, unsigned thread) {
    const float(&part)[BANDS][TILE] = m->bias[thread / TILE];
    unsigned n = thread % TILE;
    to[thread / TILE * stride + n] = ((part[0][n] + part[1][n]) + part[2][n]) + part[3][n];
}

/* From the sums to the gradient of log_decay, and the tile's part of dD; by one warp. first_at: of the tile's first
 * token. */
__device__ static inline void gradient_decays(backward_squares *m, const backward_arguments &a, const tile_weights &w,
                                              size_t first_at, size_t index, unsigned lane) {
    float2 by_b = two_at(m->dot[0], 2 * (int)lane), by_c = two_at(m->dot[1], 2 * (int)lane);
    float2 through = two_at(m->through, 2 * (int)lane), of_w = two_at(m->diagonal[0], 2 * (int)lane);
    float first = by_c.x - by_b.x, behind = first + (by_c.y - by_b.y), dd = of_w.x + of_w.y;
    float state = w.whole * (through.x + through.y) + (lane < BANDS ? m->passed[lane] : 0);
    for (unsigned offset = 1; offset < WARP; offset *= 2) { /* to the sum over this lane's tokens and all later ones */
        float more = __shfl_down_sync(0xffffffffu, behind, offset);
        if (lane + offset < WARP) behind += more;
        state += __shfl_xor_sync(0xffffffffu, state, offset);
        dd += __shfl_xor_sync(0xffffffffu, dd, offset);
    }
    *reinterpret_cast<float2 *>(a.dtape.log_decay + first_at + 2 * lane) = {behind + state, behind - first + state};
    if (lane == 0) a.dd[index] = dd;
}

/* And to those of gamma and kappa, which is left for delta. */
__device__ static inline void gradient_shares(backward_squares *m, const backward_arguments &a, const tile_weights &w,
                                              size_t first_at, size_t index, unsigned lane) {
    float2 by_b = two_at(m->dot[0], 2 * (int)lane);
    float2 of_w = two_at(m->diagonal[0], 2 * (int)lane), of_g = two_at(m->diagonal[1], 2 * (int)lane);
    float2 kappa = two_at(w.kappa, 2 * (int)lane), gamma = two_at(w.gamma, 2 * (int)lane);
    float own[2] = {to_float(to_bf16(of_w.x * gamma.x)) * of_g.x, to_float(to_bf16(of_w.y * gamma.y)) * of_g.y};
    float dkappa[2] = {kappa.x > 0 ? __fdividef(by_b.x - own[0], kappa.x) : 0,
                       kappa.y > 0 ? __fdividef(by_b.y - own[1], kappa.y) : 0};
    float before = __shfl_up_sync(0xffffffffu, dkappa[1], 1); /* the token before this lane's */
    *reinterpret_cast<float2 *>(a.dtape.gamma + first_at + 2 * lane) = {
        of_w.x * of_g.x + dkappa[0] - (lane > 0 ? before : 0), of_w.y * of_g.y + dkappa[1] - dkappa[0]};
    *reinterpret_cast<float2 *>(m->dkappa + 2 * lane) = {dkappa[0], dkappa[1]};
    if (lane == WARP - 1) a.last[index] = dkappa[1];
}

/* The gradient of a token's delta, by its phases and by the kappa of the token before. */
__device__ static inline float gradient_delta(backward_squares *m, unsigned t) {
    const float *parts = turned_parts(m);
    float turned = 0;
#pragma unroll
    for (unsigned i = 0; i < SSD_WARPS; i++) turned += parts[i * TILE + t];
    return (t > 0 ? m->dkappa[t - 1] : 0) + TURN * turned;
}

/* --- the tiles ---------------------------------------------------------------------------------------------------- */

/* dB or dC of the group's columns of proj, and the norm's part, when all heads are done; raw and norm: of the group's
 * B or C. */
__device__ static inline void backward_norm(float (&sum)[FRAGMENTS][4], backward_squares *m, unsigned which,
                                            const float *inverse, const float *norm, bf16 *to, unsigned width,
                                            const group_place &place) {
    own_pairs raw;
    raw.load(&m->b, which, place);
    float upper = inverse[place.upper], lower = inverse[place.upper + 8], product[FRAGMENTS][4];
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        product[i][0] = sum[i][0] * low_half(raw.upper(i)) * upper;
        product[i][1] = sum[i][1] * high_half(raw.upper(i)) * upper;
        product[i][2] = sum[i][2] * low_half(raw.lower(i)) * lower;
        product[i][3] = sum[i][3] * high_half(raw.lower(i)) * lower;
        float even = norm[pair_column(place.lane, i)], odd = norm[pair_column(place.lane, i) + 1];
        sum[i][0] *= even, sum[i][1] *= odd, sum[i][2] *= even, sum[i][3] *= odd;
    }
    sum_columns(m->bias[which][place.band], product, place.lane);
    two_rows mean = raw.dot(sum);
    mean = {sum_of_four(mean.upper) * upper * upper / TILE, sum_of_four(mean.lower) * lower * lower / TILE};
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        sum[i][0] = upper * (sum[i][0] - low_half(raw.upper(i)) * mean.upper);
        sum[i][1] = upper * (sum[i][1] - high_half(raw.upper(i)) * mean.upper);
        sum[i][2] = lower * (sum[i][2] - low_half(raw.lower(i)) * mean.lower);
        sum[i][3] = lower * (sum[i][3] - high_half(raw.lower(i)) * mean.lower);
    }
    __syncwarp();
    store_band(to + place.row * width, width, &m->b, which, sum, place);
}

/* One warpgroup's walk over the heads: the first has B, the other C. */
__device__ static inline void walk_heads(backward_squares *m, const backward_arguments &a, const block_view &block,
                                         const group_place &own) {
    const mamba_shape &s = a.t.s;
    unsigned first_head = block.group * block.heads, warp = own.group * BANDS + own.band, all_heads = (unsigned)s.heads;
    float sum[FRAGMENTS][4];
    bool has_b = own.group == 0;
    float d = has_b ? 0 : a.t.weights.d[first_head];
    clear_rows(sum);
#pragma unroll 1
    for (unsigned i = 0; i < block.heads; i++) {
        group_place place = afresh(own);
        block_view at = afresh(block);
        unsigned here = i % 2, head = first_head + i;
        bool more = i + 1 < block.heads;
        copy_wait<0>();
        shared_written();
        __syncthreads(); /* B, C and all operands are there; nobody reads those of the head before any more */
        float acc[FRAGMENTS][4];
        uint32_t rows[STEPS][4], left[STEPS][4];
        multiply_pairs(acc, rows, m, here, place);
        if (!has_b && more) m->steps[1 - here].fetch(view_at(a, at, head + 1), (int)at.tile, place);
        copy_commit();
        if (more) fetch_operands(m, a, at, head + 1, 1 - here, place);
        dot_states(m, here, place);
        products_wait<0>(acc);
        weigh_rows(acc, m->weights[here], m->within, m->diagonal[place.group], d, place);
        pack_all(left, acc); /* W or M */
        sum_now(acc);
        own_pairs rotated;
        if (has_b) {
            gradient_b(acc, rotated, rows, left, m, here, place);
        } else {
            gradient_x(left, acc, rows, m, here, place);
            d = a.t.weights.d[more ? head + 1 : head];
            __syncthreads();
            unsigned width = afresh((unsigned)a.t.columns.width);
            gradient_c(acc, rotated, m, here, left,
                       a.dproj + (first_row(a, at) + place.row) * width + a.t.columns.x + head * TILE, width, place);
        }
        sum_now(acc);
        place = afresh(own);
        unrotate(acc, rotated, m, here, place.group, place);
#pragma unroll
        for (int k = 0; k < FRAGMENTS; k++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[k][j] += acc[k][j];
        sum_now(sum);
        copy_wait<1>();
        __syncthreads(); /* the sums and the next head's steps are there; B, C, W and the rotations are free */
        place = afresh(own), at = afresh(block);
        /* The last head's are fetched twice, since what is fetched only sometimes would have registers always. */
        head_view next = view_at(a, at, more ? head + 1 : head);
        own_vectors vectors(next, (int)at.tile, place);
        vectors.fetch();
        vectors.fetch_parameters(next, a.t.weights, place);
        sum_phases(m, here, more ? 1 - here : here, a.dtape.phase + matrix_of(a, at, head) * ANGLES, warp, place.lane);
        size_t first_at = (size_t)(at.batch * all_heads + head) * s.time + at.tile * TILE,
               index = (size_t)at.index * all_heads + head;
        if (has_b)
            store_sums(a.biases + (index + (size_t)at.index * all_heads) * TILE, all_heads * TILE, m,
                       place.band * WARP + place.lane);
        else if (place.band == 0)
            gradient_shares(m, a, m->weights[here], first_at, index, place.lane);
        __syncthreads(); /* the parts of delta's gradient and the next head's rotations are there */
        /* Beside B's and C's making, by warps that rotate nothing in that. */
        if (has_b && place.band % 2 == 1) {
            unsigned t = place.band / 2 * WARP + place.lane;
            a.dtape.delta[first_at + t] = gradient_delta(m, t);
        } else if (!has_b && place.band == 0) {
            gradient_decays(m, a, m->weights[here], first_at, index, place.lane);
        } else if (!has_b && place.band == 2 && more) {
            weigh_tokens(&m->weights[1 - here], m->within, m->steps[1 - here], place.lane);
        }
        if (more) vectors.make(&m->b, &m->c, &m->turn, 0, place);
    }
    const block_view &at = block;
    head_view v = view_at(a, at, first_head);
    size_t row = (size_t)at.tile * TILE * v.width;
    load_square(&m->b, 0, v.b + row, (unsigned)v.width, own);
    load_square(&m->c, 0, v.c + row, (unsigned)v.width, own);
    copy_commit();
    float *theta = a.dtape.theta +
                   ((size_t)(at.group * (unsigned)s.batch + at.batch) * ANGLES + warp * WARP_ANGLES) * s.time +
                   at.tile * TILE + 2 * own.lane;
#pragma unroll
    for (unsigned i = 0; i < WARP_ANGLES; i++)
        *reinterpret_cast<float2 *>(theta + i * s.time) =
            *(reinterpret_cast<const float2 *>(&m->dtheta[warp * WARP + own.lane]) + i);
    copy_wait<0>();
    __syncthreads();
    size_t column = (has_b ? a.t.columns.b : a.t.columns.c) + at.group * TILE;
    backward_norm(sum, m, own.group, (has_b ? v.inv_b : v.inv_c) + at.tile * TILE,
                  has_b ? a.t.weights.b_norm : a.t.weights.c_norm,
                  a.dproj + ((size_t)at.batch * s.time + at.tile * TILE) * v.width + column, (unsigned)v.width, own);
    __syncthreads();
    if (has_b)
        store_sums(a.norms + ((size_t)at.index * 2 * s.groups + at.group) * TILE, (unsigned)s.groups * TILE, m,
                   own.band * WARP + own.lane);
}

/* Grid: (sequence, tile, group), the group fastest. */
__global__ void __launch_bounds__(SSD_THREADS, 2) ssd_full_gradients(backward_arguments a) {
    auto *m = shared_memory<backward_squares>();
    const mamba_shape &s = a.t.s;
    group_place place = place_in_group();
    unsigned groups = (unsigned)s.groups, index = blockIdx.x / groups, tiles = (unsigned)s.time / TILE;
    block_view at = {index / tiles, index % tiles, blockIdx.x % groups, index, tiles, (unsigned)s.heads / groups};
    unsigned head = at.group * at.heads, warp = place.group * BANDS + place.band;
    head_view v = view_at(a, at, head);
    if (place.group == 0) m->steps[0].fetch(v, (int)at.tile, place);
    fetch_operands(m, a, at, head, 0, place);
    own_vectors vectors(v, (int)at.tile, place);
    vectors.fetch();
    vectors.fetch_parameters(v, a.t.weights, place);
    angle_steps<WARP_ANGLES> angles;
    angles.fetch_rates(v, (int)at.tile, warp * WARP_ANGLES, place.lane);
    m->rate[threadIdx.x] = {angles.rate[0].x, angles.rate[0].y, angles.rate[1].x, angles.rate[1].y};
    m->dtheta[threadIdx.x] = {0, 0, 0, 0};
    copy_wait<0>();
    __syncthreads();
    steps_of(m, 0, warp, place.lane).make(&m->turn, 0, warp * WARP_ANGLES, place.lane);
    if (warp == 0) weigh_tokens(&m->weights[0], m->within, m->steps[0], place.lane);
    __syncthreads();
    vectors.make(&m->b, &m->c, &m->turn, 0, place);
    walk_heads(m, a, at, place);
}

static_assert(2 * (sizeof(backward_squares) + 1024) <= 228 << 10, "two blocks on an SM");

size_t ssd_full_backward_bytes() { return sizeof(backward_squares); }

void ssd_full_backward(const backward_arguments &a) {
    size_t blocks = a.t.s.batch * mamba_chunks(&a.t.s) * a.t.s.groups;
    LAUNCH(ssd_full_gradients, (unsigned)blocks, SSD_THREADS, ssd_full_backward_bytes(), a);
}
