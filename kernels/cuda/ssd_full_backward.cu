/* ssd_full_backward: ssd_backward's tiles for heads that fill them; ssd_backward.cuh says what the products are.
 *
 * A block has one tile of one group and walks the group's heads. One warpgroup has W, dB and <H', K>, the other M, dx
 * and dC. W and M stay in registers, from where they enter the next product; W also goes to shared memory, where dC
 * finds its transpose. The gradients of B and C, summed over the heads, stay in registers until the norm's backward
 * pass has made them those of proj's columns.
 *
 * All of a block meet twice a head: when its B, C, x and dy are there, and when its products are made. Between those
 * the warpgroups tell each other what they have written and read (ssd_full_backward.cuh: say, await), the next head's x
 * and dy arrive, and its rotations are made; behind them come the sums over tokens, the next head's K and H', and its B
 * and C. What comes from global memory by registers is asked for before the barrier that it is used behind.
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
 * ssd_carry's 69 us and ssd_join's 9 MB 240 us. Measured on an H200: 350 us, in which 172 million instructions are
 * issued, 55% of what could be; that was before the phases had four warps. */
#include "kernels/cuda/ssd_full_phases.cuh"
#include "kernels/cuda/ssd_full_weigh.cuh"

/* --- products ----------------------------------------------------------------------------------------------------- */

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

/* Where a warp's parts of what the tile's states give to all its log_decays are, of the lane's row. */
__device__ static inline float *through_at(backward_squares *m, const group_place &place) {
    return m->through + place.band * 8 + diagonal_place(place.lane).row;
}

/* The warp's parts of <H', K>, on the diagonal of H' K^T: the rows of its band. */
__device__ static inline void dot_states(backward_squares *m, unsigned here, const group_place &place) {
    tile_line rows(&m->state, 0, place.row + place.lane % 16, place.lane / 16),
        columns(m->gradient, here, place.row + place.lane % 8 + place.lane / 16 * 8, place.lane / 8 % 2);
    float upper[4] = {}, lower[4] = {};
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        uint32_t left[4], right[4];
        ldmatrix_x4(left, rows.at(2 * k));
        ldmatrix_x4(right, columns.at(2 * k));
        mma_m16n8k16(upper, left, {right[0], right[1]});
        mma_m16n8k16(lower, left, {right[2], right[3]});
    }
    diagonal_place at(place.lane);
    float whole = m->weights[here].whole, *to = through_at(m, place);
    if (at.row == at.column) *to = whole * (upper[0] + lower[2]);
    if (at.row == at.column + 1) *to = whole * (upper[1] + lower[3]);
}

/* Adds sum kappa_s f_s (K^T x_s).B_s, of the warp's rows, to its parts: likewise on the diagonal of a product. */
__device__ static inline void dot_passed(backward_squares *m, const float (&passed)[FRAGMENTS][4], const own_pairs &b,
                                         const group_place &place) {
    float upper[4] = {}, lower[4] = {};
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        uint32_t left[4];
        pack_left(left, passed, k);
        mma_m16n8k16(upper, left, {b.held[k][0], b.held[k][2]});
        mma_m16n8k16(lower, left, {b.held[k][1], b.held[k][3]});
    }
    diagonal_place at(place.lane);
    float *to = through_at(m, place);
    if (at.row == at.column) *to += upper[0] + lower[2];
    if (at.row == at.column + 1) *to += upper[1] + lower[3];
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

/* dB of the rotated B: W C + diag(kappa f) x K; on the way W to shared memory. */
__device__ static inline void gradient_b(float (&db)[FRAGMENTS][4], own_pairs &b, const uint32_t (&rows)[STEPS][4],
                                         const uint32_t (&left)[STEPS][4], backward_squares *m, unsigned here,
                                         const group_place &place) {
    const tile_weights &w = m->weights[here];
    products_begin();
    multiply_all<BY_COLUMNS>(db, rows, &m->gradient[here], false);
    products_commit();
    store_left(&m->w, 0, left, place);
    shared_written();
    say(W_WRITTEN);
    products_wait<0>(db);
    say(FIRST_READ_GRADIENT);
    scale_rows(db, w.fall[place.upper], w.fall[place.upper + 8]);
    b.load(&m->b, 0, place);
    dot_passed(m, db, b, place);
    products_begin();
    multiply_all<BY_COLUMNS>(db, left, &m->c, true);
    products_commit();
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
    say(SECOND_READ_GRADIENT);
    scale_rows(dx, w.fall[place.upper], w.fall[place.upper + 8]);
    products_begin();
    multiply_all<BY_COLUMNS>(dx, left, &m->dy[here], true);
    products_commit();
    products_wait<0>(dx);
    pack_all(left, dx);
}

/* dC of the rotated C, W^T B + diag(r) dy H'; on the way dx to where it goes, and what is done `beside` that; spends
 * x. */
template <class BESIDE>
__device__ static inline void gradient_c(float (&dc)[FRAGMENTS][4], own_pairs &c, backward_squares *m, unsigned here,
                                         const uint32_t (&dx)[STEPS][4], const full_backward_arguments &a,
                                         const block_view &at, unsigned head, const group_place &place, BESIDE beside) {
    const tile_weights &w = m->weights[here];
    clear_rows(dc);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE; k += 16) multiply<BY_ROWS, BY_COLUMNS>(dc, &m->dy[here], 0, &m->state, 0, k, k > 0);
    products_commit();
    await(X_READ);
    store_left(m->x, here, dx, place);
    send_band(m, here, a, at, head, place);
    beside();
    products_wait<0>(dc);
    scale_rows(dc, w.r[place.upper], w.r[place.upper + 8]);
    await(W_WRITTEN);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE; k += 16) multiply<BY_COLUMNS, BY_COLUMNS>(dc, &m->w, 0, &m->b, 0, k, true);
    products_commit();
    c.load(&m->c, 0, place);
    products_wait<0>(dc);
    await(FIRST_READ_GRADIENT);
}

/* dB or dC of the rotated rows to that of the others, with the rows' dot products, the phases' gradients, and the
 * columns' sums for the bias. */
__device__ static inline void unrotate(float (&acc)[FRAGMENTS][4], const own_pairs &rotated, backward_squares *m,
                                       unsigned here, unsigned which, const group_place &place) {
    float *dphi[2] = {phase_line(m, here, which, place.lane % 4) + phase_place(place.lane, place.upper),
                      phase_line(m, here, which, place.lane % 4) + phase_place(place.lane, place.upper + 8)};
    float dot[2][2] = {}; /* of the upper and the lower row, by even and by odd columns */
#pragma unroll
    for (unsigned i = 0; i < FRAGMENTS; i++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            uint32_t pair = half == 0 ? rotated.upper((int)i) : rotated.lower((int)i);
            float &even = acc[i][2 * half], &odd = acc[i][2 * half + 1], first = low_half(pair),
                  second = high_half(pair);
            dot[half][0] += even * first, dot[half][1] += odd * second;
            if (i >= FRAGMENTS / 2) continue;
            const rotation *turn = reinterpret_cast<const rotation *>(
                turns_at(m->turn, here, place.upper, place.lane / 2 % 2 * 2, 4 * i, 8 * half));
            dphi[half][4 * i * TILE] = odd * first - even * second;
            rotate_back(even, odd, turn[place.lane % 2]);
        }
    two_rows sum = {sum_of_four(dot[0][0] + dot[0][1]), sum_of_four(dot[1][0] + dot[1][1])};
    if (place.lane % 4 == 0) m->dot[which][place.upper] = sum.upper, m->dot[which][place.upper + 8] = sum.lower;
    sum_columns(m->bias[which][place.band], acc, place.lane);
}

/* --- steps, B and C --------------------------------------------------------------------------------------------------
 */

/* By one warp: a head's weights. */
__device__ static inline void weigh_tokens(tile_weights *w, float *within, const tile_steps &s, unsigned lane) {
    int token = 2 * (int)lane;
    s.of_lane(lane).make(w);
    __syncwarp();
    float2 l = two_at(w->l, token);
    float first = w->l[token / 16 * 16];
    *reinterpret_cast<float2 *>(within + token) = {fast_exp2(l.x - first), fast_exp2(l.y - first)};
}

/* As own_vectors::make, by warps that have the rotated columns, or do not: rows do not wait for each other. */
template <bool ROTATED>
__device__ static inline void make_rows(backward_squares *m, const own_vectors &from, unsigned which,
                                        const vector_place &place) {
    constexpr unsigned ROWS = own_vectors::ROWS, APART = own_vectors::APART;
    tile_line line(place.c ? &m->c : &m->b, 0, place.row, place.column / 8);
#pragma unroll
    for (unsigned i = 0; i < ROWS; i++) {
        uint32_t pairs[4] = {from.raw[i].x, from.raw[i].y, from.raw[i].z, from.raw[i].w};
        float value[8];
        norm_eight(value, pairs, from.inv[i], from.norm, from.bias);
        if (ROTATED)
#pragma unroll
            for (unsigned k = 0; k < 4; k += 2) {
                float4 two = *turns_at(m->turn, which, place.row, place.column / 2, k, i * APART);
                rotate(value[2 * k], value[2 * k + 1], {two.x, two.y});
                rotate(value[2 * k + 2], value[2 * k + 3], {two.z, two.w});
            }
#pragma unroll
        for (int k = 0; k < 4; k++) pairs[k] = pack_bf16(value[2 * k], value[2 * k + 1]);
        *line.eight(0, i * APART) = {pairs[0], pairs[1], pairs[2], pairs[3]};
    }
}
__device__ static inline void make_vectors(backward_squares *m, const own_vectors &from, unsigned which,
                                           const group_place &own) {
    vector_place place = place_of_vectors(own);
    if (place.rotated)
        make_rows<true>(m, from, which, place);
    else
        make_rows<false>(m, from, which, place);
}

/* The bands' parts of two vectors, added in order, to to[0 ..] and to[stride ..]; by one warp. */
__device__ static inline void store_sums(float *to, unsigned stride, const backward_squares *m, unsigned lane) {
    unsigned which = lane / (WARP / 2), n = lane % (WARP / 2) * 4;
    float4 sum = four_at(m->bias[which][0], n);
#pragma unroll
    for (int i = 1; i < BANDS; i++) {
        float4 more = four_at(m->bias[which][i], n);
        sum = {sum.x + more.x, sum.y + more.y, sum.z + more.z, sum.w + more.w};
    }
    store<FLOATS>(to + which * stride + n, pack<FLOATS>{{sum.x, sum.y, sum.z, sum.w}});
}

/* From the sums to the gradient of log_decay; by one warp. first_at: of the tile's first token. */
__device__ static inline void gradient_decays(backward_squares *m, const backward_arguments &a, size_t first_at,
                                              unsigned lane) {
    float2 by_b = two_at(m->dot[0], 2 * (int)lane), by_c = two_at(m->dot[1], 2 * (int)lane);
    float first = by_c.x - by_b.x, behind = first + (by_c.y - by_b.y), state = m->through[lane];
#pragma unroll
    for (unsigned offset = 1; offset < WARP; offset *= 2) { /* to the sum over this lane's tokens and all later ones */
        float more = __shfl_down_sync(0xffffffffu, behind, offset);
        if (lane + offset < WARP) behind += more;
        state += __shfl_xor_sync(0xffffffffu, state, offset);
    }
    *reinterpret_cast<float2 *>(a.dtape.log_decay + first_at + 2 * lane) = {behind + state, behind - first + state};
}

/* And to those of gamma and kappa, which is left for delta, and the tile's part of dD. */
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
    float dd = warp_sum(of_w.x + of_w.y);
    if (lane == 0) a.dd[index] = dd;
    if (lane == WARP - 1) a.last[index] = dkappa[1];
}

/* The gradients of the tokens' delta, by their phases and by the kappa of the token before, of a head that sum_phases
 * and gradient_shares are done with; by one warpgroup. A lane adds four tokens of two angles, and lanes share the
 * tokens as they add. */
__device__ static inline void gradient_delta(backward_squares *m, const backward_arguments &a, const block_view &block,
                                             unsigned head, unsigned which, const group_place &place) {
    unsigned angle = place.lane / 4, t = place.row + place.lane % 4 * 4;
    const float *line = phase_line(m, which, 0, angle) + phase_place(angle, t);
    float4 one = four_at(line, 0), other = four_at(line, ANGLES / 2 * TILE);
    float four[4] = {one.x + other.x, one.y + other.y, one.z + other.z, one.w + other.w};
    bool last_two = place.lane & 16, second = place.lane & 8;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float sent = last_two ? four[i] : four[2 + i], kept = last_two ? four[2 + i] : four[i];
        four[i] = kept + __shfl_xor_sync(0xffffffffu, sent, 16);
    }
    float sent = second ? four[0] : four[1], turned = second ? four[1] : four[0];
    turned += __shfl_xor_sync(0xffffffffu, sent, 8);
    turned += __shfl_xor_sync(0xffffffffu, turned, 4);
    t += place.lane / 16 * 2 + place.lane / 8 % 2;
    float *to = a.dtape.delta + token_of(a, block, head) + t;
    if (angle % 2 == 0) *to = (t > 0 ? m->dkappa[t - 1] : 0) + TURN * turned;
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
__device__ static inline void walk_heads(backward_squares *m, const full_backward_arguments &a, const block_view &block,
                                         const group_place &own) {
    const mamba_shape &s = a.t.s;
    unsigned first_head = block.group * block.heads, warp = own.group * BANDS + own.band, all_heads = (unsigned)s.heads;
    float sum[FRAGMENTS][4];
    bool has_b = own.group == 0, sums = !place_of_vectors(own).rotated; /* whether it has phases to sum */
    float d = has_b ? 0 : a.t.weights.d[first_head];
    clear_rows(sum);
#pragma unroll 1
    for (unsigned i = 0; i < block.heads; i++) {
        group_place place = afresh(own);
        block_view at = afresh(block);
        unsigned here = i % 2, head = first_head + i;
        bool more = i + 1 < block.heads;
        copy_wait<0>();
        wait_for_rows(m, i);
        shared_written();
        __syncthreads(); /* B, C, x, dy and the next head's steps are there; nobody reads the head before's any more */
        float acc[FRAGMENTS][4];
        uint32_t rows[STEPS][4], left[STEPS][4];
        multiply_pairs(acc, rows, m, here, place);
        if (i + 2 < block.heads) fetch_steps(m, a, at, head + 2, here, place);
        if (more) fetch_rows(m, a, at, head + 1, 1 - here, place);
        copy_commit();
        wait_for_states(m, i);
        if (has_b) dot_states(m, here, place);
        products_wait<0>(acc);
        if (has_b) say(X_READ);
        weigh_rows(acc, m->weights[here], m->within, m->diagonal[place.group], d, place);
        pack_all(left, acc); /* W or M */
        sum_now(acc);
        own_pairs rotated;
        if (has_b) {
            gradient_b(acc, rotated, rows, left, m, here, place);
            sum_now(acc);
            if (more) turn_tokens(m, 1 - here, warp, place.lane);
            if (i > 0) gradient_delta(m, a, at, head - 1, 1 - here, place);
            await(SECOND_READ_GRADIENT);
        } else {
            gradient_x(left, acc, rows, m, here, place);
            d = a.t.weights.d[more ? head + 1 : head];
            gradient_c(acc, rotated, m, here, left, a, at, head, place, [&] {
                if (more) turn_tokens(m, 1 - here, warp, place.lane);
            });
        }
        sum_now(acc);
        place = afresh(own);
        unrotate(acc, rotated, m, here, place.group, place);
#pragma unroll
        for (int k = 0; k < FRAGMENTS; k++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[k][j] += acc[k][j];
        sum_now(sum);
        place = afresh(own), at = afresh(block);
        /* The last head's are fetched twice, since what is fetched only sometimes would have registers always. */
        head_view next = view_at(a, at, more ? head + 1 : head);
        own_vectors vectors(next, (int)at.tile, place);
        vectors.fetch();
        vectors.fetch_parameters(next, a.t.weights, place);
        size_t first_at = token_of(a, at, head), index = (size_t)at.index * all_heads + head;
        sum_lane sums_at(place);
        float4 delta[2] = {};
        if (sums) fetch_delta(delta, a.t.tape.delta + first_at, sums_at);
        wait_for_sent();
        __syncthreads(); /* the sums and the next head's rotations are there; B, C, W, x, dy and H' are free */
        if (more) fetch_states(m, a, at, head + 1, 1 - here, place);
        /* Those that rotate nothing in making B and C have more to do here. */
        if (sums)
            sum_phases(m, here, delta, a.dtape.phase + matrix_of(a, at, head) * ANGLES, sums_at, place.lane);
        else if (has_b && place.band == 0)
            store_sums(a.biases + (index + (size_t)at.index * all_heads) * TILE, all_heads * TILE, m, place.lane);
        else if (has_b)
            gradient_shares(m, a, m->weights[here], first_at, index, place.lane);
        else if (place.band == 1)
            gradient_decays(m, a, first_at, place.lane);
        else if (more)
            weigh_tokens(&m->weights[1 - here], m->within, m->steps[1 - here], place.lane);
        if (more) make_vectors(m, vectors, 1 - here, place);
    }
    const block_view &at = block;
    head_view v = view_at(a, at, first_head);
    size_t row = (size_t)at.tile * TILE * v.width;
    load_square(&m->b, 0, v.b + row, (unsigned)v.width, own);
    load_square(&m->c, 0, v.c + row, (unsigned)v.width, own);
    copy_commit();
    sum_lane sums_at(own);
    float *theta = a.dtape.theta +
                   ((size_t)(at.group * (unsigned)s.batch + at.batch) * ANGLES + sums_at.angle) * s.time +
                   at.tile * TILE;
    if (sums)
        for (unsigned i = 0; i < 2; i++)
            *reinterpret_cast<float4 *>(theta + sums_at.tokens(i)) = *sums_at.dtheta(m, i, own.lane);
    copy_wait<0>();
    __syncthreads();
    if (has_b) gradient_delta(m, a, at, first_head + at.heads - 1, (at.heads - 1) % 2, own);
    size_t column = (has_b ? a.t.columns.b : a.t.columns.c) + at.group * TILE;
    backward_norm(sum, m, own.group, (has_b ? v.inv_b : v.inv_c) + at.tile * TILE,
                  has_b ? a.t.weights.b_norm : a.t.weights.c_norm,
                  a.dproj + ((size_t)at.batch * s.time + at.tile * TILE) * v.width + column, (unsigned)v.width, own);
    __syncthreads();
    if (warp == 0)
        store_sums(a.norms + ((size_t)at.index * 2 * s.groups + at.group) * TILE, (unsigned)s.groups * TILE, m,
                   own.lane);
}

/* Grid: (sequence, tile, group), the group fastest. */
__global__ void __launch_bounds__(SSD_THREADS, 2)
    ssd_full_gradients(const __grid_constant__ full_backward_arguments a) {
    auto *m = shared_memory<backward_squares>();
    const mamba_shape &s = a.t.s;
    group_place place = place_in_group();
    unsigned groups = (unsigned)s.groups, index = blockIdx.x / groups, tiles = (unsigned)s.time / TILE;
    block_view at = {index / tiles, index % tiles, blockIdx.x % groups, index, tiles, (unsigned)s.heads / groups};
    unsigned head = at.group * at.heads, warp = place.group * BANDS + place.band;
    head_view v = view_at(a, at, head);
    copies_begin(m, at.tile + 1 == at.tiles);
    fetch_steps(m, a, at, head, 0, place);
    if (at.heads > 1) fetch_steps(m, a, at, head + 1, 1, place);
    fetch_rows(m, a, at, head, 0, place);
    fetch_states(m, a, at, head, 0, place);
    copy_commit();
    own_vectors vectors(v, (int)at.tile, place);
    vectors.fetch();
    vectors.fetch_parameters(v, a.t.weights, place);
    phase_lane lane_at(warp, place.lane);
    m->rate[threadIdx.x] = four_at(v.rate + lane_at.angle * (unsigned)v.time, at.tile * TILE + lane_at.token);
    m->dtheta[threadIdx.x] = {0, 0, 0, 0};
    copy_wait<0>();
    wait_for_rows(m, 0);
    __syncthreads();
    turn_tokens(m, 0, warp, place.lane);
    if (warp == 0) weigh_tokens(&m->weights[0], m->within, m->steps[0], place.lane);
    __syncthreads();
    make_vectors(m, vectors, 0, place);
    walk_heads(m, a, at, place);
}

static_assert(2 * (sizeof(backward_squares) + 1024) <= 228 << 10, "two blocks on an SM");

size_t ssd_full_backward_bytes() { return sizeof(backward_squares); }

void ssd_full_backward(const backward_arguments &a) {
    size_t blocks = a.t.s.batch * mamba_chunks(&a.t.s) * a.t.s.groups;
    full_backward_arguments all = {a};
    if (is_hopper()) make_maps(&all);
    LAUNCH(ssd_full_gradients, (unsigned)blocks, SSD_THREADS, ssd_full_backward_bytes(), all);
}
