/* ssd_full_backward: ssd_backward's tiles for heads that fill them; ssd_backward.cuh says what the products are.
 *
 * A block has one tile of one group and walks the group's heads. One warpgroup has W, dB and <H', K>, the other M, dx
 * and dC. W and M stay in registers, from where they enter the next product; W also goes to shared memory, where dC
 * finds its transpose. A head's operands from global memory lie there twice: the next one's arrive while this one's
 * products are made. The gradients of B and C, summed over the heads, stay in registers until the norm's backward pass
 * has made them those of proj's columns.
 *
 * The sums for kappa and l are dot products of the gradients' rows with B and C: as G = C B^T,
 *
 *     dB_t.B_t = kappa_t dkappa_t + W_tt G_tt,   dC_t.C_t = U_t.C_t + W_tt G_tt,   dl_t = dC_t.C_t - dB_t.B_t,
 *
 * in which W is what the products had, rounded: what cancels when dl is summed does so here too.
 *
 * Published preset, a call: 69 GFLOP (87 us); x, dy, H', K read, dx written: 671 MB, the rest 60 MB (170 us); 0.28 MB
 * through shared memory a head and tile, 128 bytes a cycle an SM (154 us). Limit 170 us; with ssd_carry's 69 us and
 * ssd_join's 9 MB 240 us. */
#include "kernels/cuda/ssd_backward.cuh"
#include "kernels/cuda/ssd_full.cuh"

struct backward_squares {
    square b, c, w;
    square x[2], dy[2], state[2], gradient[2]; /* of head i: i % 2 */
    turn_table turn;
    tile_weights weights[2];
    float dphi[2][ANGLES][PHASES]; /* by B, by C */
    float bias[2][BANDS][TILE];    /* each band's part of db_bias and dc_bias; at the end of the norms' */
    float dot[2][TILE];            /* dB_t.B_t, dC_t.C_t */
    float diagonal[2][TILE];       /* dy_t.x_t, C_t.B_t */
    float dkappa[TILE];
    float passed[BANDS], through[BANDS]; /* parts of sum kappa_s f_s (K^T x_s).B_s and <H', K> */
};

static constexpr unsigned WARP_ANGLES = ANGLES / SSD_WARPS;

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
    unsigned width = (unsigned)a.t.columns.width, inner = (unsigned)a.t.s.heads * TILE;
    load_square(m->x, which, a.t.proj + row * width + a.t.columns.x + head * TILE, width, place);
    load_square(m->dy, which, a.dy + row * inner + head * TILE, inner, place);
    load_square(m->gradient, which, a.gradients + matrix, TILE, place);
    load_square(m->state, which, acts(a.t.tape.states) + matrix, TILE, place);
    copy_commit();
}

/* --- products ----------------------------------------------------------------------------------------------------- */

/* A block of 16 x 16 on the diagonal has two fragments: of the even one the upper rows are on it, of the odd one the
 * lower rows. There a lane has `row` and the columns `column` and the next. */
struct diagonal_place {
    int row, column;
    __device__ explicit diagonal_place(unsigned lane) : row((int)lane / 4), column((int)lane % 4 * 2) {}
};
/* A weight there, of token `from` in `to`. */
__device__ static inline float masked(float later, float own, int from, int to) {
    return from < to ? later : from == to ? own : 0;
}

/* The warp's rows of f or g, tokens that weigh, become those of W or M; `d` joins the diagonal, which is kept. */
__device__ static inline void weigh_rows(float (&acc)[FRAGMENTS][4], const tile_weights &w, float *diagonal, float d,
                                         const group_place &place) {
    float since[2] = {w.since[place.upper], w.since[place.upper + 8]},
          gamma[2] = {w.gamma[place.upper], w.gamma[place.upper + 8]};
    diagonal_place at(place.lane);
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        int first = (int)pair_column(place.lane, i);
        if ((unsigned)i / 2 < place.band) {
            acc[i][0] = acc[i][1] = acc[i][2] = acc[i][3] = 0;
            continue;
        }
        float2 l = two_at(w.l, first);
        bool on_diagonal = (unsigned)i / 2 == place.band;
#pragma unroll
        for (int k = 0; k < 4; k++) {
            int half = k / 2, to = at.column + k % 2;
            float weight = fast_exp2((k % 2 == 0 ? l.x : l.y) - since[half]);
            bool own = on_diagonal && half == i % 2 && to == at.row;
            if (own) diagonal[first + k % 2] = acc[i][k];
            if (on_diagonal && half == i % 2) weight = masked(weight, gamma[half], at.row, to);
            if (on_diagonal && half > i % 2) weight = 0;
            acc[i][k] *= weight;
            if (own) acc[i][k] += d;
        }
    }
}

__device__ static inline void pack_all(uint32_t (&a)[STEPS][4], const float (&d)[FRAGMENTS][4]) {
#pragma unroll
    for (int k = 0; k < STEPS; k++) pack_left(a[k], d, k);
}

/* A left operand, to the warp's rows of a tile. */
__device__ static inline void store_left(square *tile, const uint32_t (&a)[STEPS][4], const group_place &place) {
    tile_line pairs(tile, 0, place.upper, 0, place.lane % 4 * 4);
#pragma unroll
    for (unsigned k = 0; k < STEPS; k++) {
        *pairs.two(2 * k) = a[k][0], *pairs.two(2 * k, 8) = a[k][1];
        *pairs.two(2 * k + 1) = a[k][2], *pairs.two(2 * k + 1, 8) = a[k][3];
    }
}

/* What a tile has where the lane's accumulators lie: pairs of the upper and the lower row. */
struct own_pairs {
    uint32_t upper[FRAGMENTS], lower[FRAGMENTS];
    __device__ own_pairs(square *tile, const group_place &place) {
        tile_line pairs(tile, 0, place.upper, 0, place.lane % 4 * 4);
#pragma unroll
        for (unsigned i = 0; i < FRAGMENTS; i++) upper[i] = *pairs.two(i), lower[i] = *pairs.two(i, 8);
    }
    /* The lane's part of the dot product of its rows. */
    __device__ two_rows dot(const float (&acc)[FRAGMENTS][4]) const {
        two_rows sum = {0, 0};
#pragma unroll
        for (int i = 0; i < FRAGMENTS; i++) {
            sum.upper += acc[i][0] * low_half(upper[i]) + acc[i][1] * high_half(upper[i]);
            sum.lower += acc[i][2] * low_half(lower[i]) + acc[i][3] * high_half(lower[i]);
        }
        return sum;
    }
};

/* This thread's part of <H', K>: both lie alike. */
__device__ static inline float dot_states(const square *state, const square *gradient, const group_place &place) {
    const uint4 *left = &state->pieces[0][0][0], *right = &gradient->pieces[0][0][0];
    float sum = 0;
#pragma unroll 1
    for (unsigned i = 0; i < sizeof(square) / sizeof(uint4); i += WARPGROUP) {
        uint4 a = left[i + place.band * WARP + place.lane], b = right[i + place.band * WARP + place.lane];
        sum += low_half(a.x) * low_half(b.x) + high_half(a.x) * high_half(b.x);
        sum += low_half(a.y) * low_half(b.y) + high_half(a.y) * high_half(b.y);
        sum += low_half(a.z) * low_half(b.z) + high_half(a.z) * high_half(b.z);
        sum += low_half(a.w) * low_half(b.w) + high_half(a.w) * high_half(b.w);
    }
    return sum;
}

/* dB of the rotated B: W C + diag(kappa f) x K, and W to shared memory. */
__device__ static inline void gradient_b(float (&db)[FRAGMENTS][4], backward_squares *m, unsigned here,
                                         const group_place &place) {
    const tile_weights &w = m->weights[here];
    uint32_t left[STEPS][4];
    clear_rows(db);
    products_begin();
    multiply_all<BY_ROWS>(db, &m->x[here], &m->dy[here], false);
    products_commit();
    products_wait<0>(db);
    weigh_rows(db, w, m->diagonal[0], 0, place);
    pack_all(left, db);
    products_begin();
    multiply_all<BY_COLUMNS>(db, &m->x[here], &m->gradient[here], false);
    products_commit();
    store_left(&m->w, left, place);
    float through = warp_sum(dot_states(&m->state[here], &m->gradient[here], place));
    products_wait<0>(db);
    float upper = w.fall[place.upper], lower = w.fall[place.upper + 8];
    scale_rows(db, upper, lower);
    two_rows passed = own_pairs(&m->b, place).dot(db);
    products_begin();
    multiply_all<BY_COLUMNS>(db, left, &m->c, true);
    products_commit();
    float sum = warp_sum(passed.upper + passed.lower);
    if (place.lane == 0) m->passed[place.band] = sum, m->through[place.band] = through;
    products_wait<0>(db);
}

/* dx = M dy + diag(kappa f) B K^T + D dy. */
__device__ static inline void gradient_x(float (&dx)[FRAGMENTS][4], backward_squares *m, unsigned here, float d,
                                         const group_place &place) {
    const tile_weights &w = m->weights[here];
    uint32_t left[STEPS][4];
    clear_rows(dx);
    products_begin();
    multiply_all<BY_ROWS>(dx, &m->b, &m->c, false);
    products_commit();
    products_wait<0>(dx);
    weigh_rows(dx, w, m->diagonal[1], d, place);
    pack_all(left, dx);
    products_begin();
    multiply_all<BY_ROWS>(dx, &m->b, &m->gradient[here], false);
    products_commit();
    products_wait<0>(dx);
    scale_rows(dx, w.fall[place.upper], w.fall[place.upper + 8]);
    products_begin();
    multiply_all<BY_COLUMNS>(dx, left, &m->dy[here], true);
    products_commit();
    products_wait<0>(dx);
}

/* dC of the rotated C, W^T B + diag(r) dy H', and on the way dx to where it goes; spends x. */
__device__ static inline void gradient_c(float (&dc)[FRAGMENTS][4], backward_squares *m, unsigned here,
                                         const float (&dx)[FRAGMENTS][4], bf16 *to, unsigned width,
                                         const group_place &place) {
    const tile_weights &w = m->weights[here];
    clear_rows(dc);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE; k += 16) multiply<BY_ROWS, BY_COLUMNS>(dc, &m->dy[here], 0, &m->state[here], 0, k, k > 0);
    products_commit();
    store_band(to, width, m->x, here, dx, place);
    products_wait<0>(dc);
    scale_rows(dc, w.r[place.upper], w.r[place.upper + 8]);
    products_begin();
#pragma unroll
    for (int k = 0; k < TILE; k += 16) multiply<BY_COLUMNS, BY_COLUMNS>(dc, &m->w, 0, &m->b, 0, k, true);
    products_commit();
    products_wait<0>(dc);
}

/* dB or dC of the rotated rows to that of the others, with the rows' dot products, the phases' gradients, and the
 * columns' sums for the bias. */
__device__ static inline void unrotate(float (&acc)[FRAGMENTS][4], backward_squares *m, unsigned which,
                                       const group_place &place) {
    own_pairs rotated(which == 0 ? &m->b : &m->c, place);
    two_rows dot = rotated.dot(acc);
    dot = {sum_of_four(dot.upper), sum_of_four(dot.lower)};
    if (place.lane % 4 == 0) m->dot[which][place.upper] = dot.upper, m->dot[which][place.upper + 8] = dot.lower;
    float *dphi = &m->dphi[which][place.lane % 4][place.upper];
#pragma unroll
    for (unsigned i = 0; i < FRAGMENTS / 2; i++)
#pragma unroll
        for (unsigned half = 0; half < 2; half++) {
            uint32_t pair = half == 0 ? rotated.upper[i] : rotated.lower[i];
            const rotation *turn = reinterpret_cast<const rotation *>(
                turns_at(&m->turn, 0, place.upper, place.lane / 2 % 2 * 2, 4 * i, 8 * half));
            float &even = acc[i][2 * half], &odd = acc[i][2 * half + 1];
            dphi[4 * i * PHASES + 8 * half] = odd * low_half(pair) - even * high_half(pair);
            rotate_back(even, odd, turn[place.lane % 2]);
        }
    sum_columns(m->bias[which][place.band], acc, column_blocks<true, 16>{0, 0, TILE});
}

/* --- phases and steps --------------------------------------------------------------------------------------------- */

/* The warps' parts of what turns a token's delta: their angles' rate times F; where W was. */
__device__ static inline float *turned_parts(backward_squares *m) { return reinterpret_cast<float *>(&m->w); }

/* The warp's angles: dphi to F, its sum over the token and the tile's later ones; adds delta F to dtheta, and leaves
 * the tile's sums of dphi. */
__device__ static inline void sum_phases(float2 (&dtheta)[WARP_ANGLES], backward_squares *m, float *sums,
                                         const float2 (&rate)[WARP_ANGLES], float2 delta, unsigned warp,
                                         unsigned lane) {
    float2 turned = {0, 0}, first[WARP_ANGLES];
    float sum[WARP_ANGLES];
#pragma unroll
    for (unsigned i = 0; i < WARP_ANGLES; i++) {
        unsigned j = warp * WARP_ANGLES + i;
        float2 b = two_at(m->dphi[0][j], 2 * (int)lane), c = two_at(m->dphi[1][j], 2 * (int)lane);
        first[i] = {b.x + c.x, b.y + c.y};
        sum[i] = first[i].x + first[i].y;
    }
#pragma unroll
    for (unsigned offset = 1; offset < WARP; offset *= 2)
#pragma unroll
        for (unsigned i = 0; i < WARP_ANGLES; i++) {
            float more = __shfl_down_sync(0xffffffffu, sum[i], offset);
            if (lane + offset < WARP) sum[i] += more;
        }
#pragma unroll
    for (unsigned i = 0; i < WARP_ANGLES; i++) {
        float second = sum[i] - first[i].x; /* of the lane's second token */
        dtheta[i].x += delta.x * sum[i], dtheta[i].y += delta.y * second;
        turned.x += rate[i].x * sum[i], turned.y += rate[i].y * second;
        if (lane == 0) sums[warp * WARP_ANGLES + i] = sum[i];
    }
    *reinterpret_cast<float2 *>(turned_parts(m) + warp * TILE + 2 * lane) = turned;
}

/* The bands' parts of two vectors, added in order, to to[0 ..] and to[stride ..]; by 128 threads. */
__device__ static inline void store_sums(float *to, unsigned stride, const backward_squares *m, unsigned thread) {
    const float(&part)[BANDS][TILE] = m->bias[thread / TILE];
    unsigned n = thread % TILE;
    to[thread / TILE * stride + n] = ((part[0][n] + part[1][n]) + part[2][n]) + part[3][n];
}

/* From the sums to the gradients of log_decay and gamma; by one warp. first_at: of the tile's first token. */
__device__ static inline void gradient_decays(backward_squares *m, const backward_arguments &a, const tile_weights &w,
                                              size_t first_at, size_t index, unsigned lane) {
    float dl[2], dkappa[2], through = 0, passed = 0;
    for (int i = 0; i < BANDS; i++) through += m->through[i], passed += m->passed[i];
    float2 by_b = two_at(m->dot[0], 2 * (int)lane), by_c = two_at(m->dot[1], 2 * (int)lane);
    float2 of_w = two_at(m->diagonal[0], 2 * (int)lane), of_g = two_at(m->diagonal[1], 2 * (int)lane);
    float2 kappa = two_at(w.kappa, 2 * (int)lane), gamma = two_at(w.gamma, 2 * (int)lane);
    float own[2] = {to_float(to_bf16(of_w.x * gamma.x)) * of_g.x, to_float(to_bf16(of_w.y * gamma.y)) * of_g.y};
    dl[0] = by_c.x - by_b.x, dl[1] = by_c.y - by_b.y;
    dkappa[0] = kappa.x > 0 ? __fdividef(by_b.x - own[0], kappa.x) : 0;
    dkappa[1] = kappa.y > 0 ? __fdividef(by_b.y - own[1], kappa.y) : 0;
    float behind = dl[0] + dl[1]; /* becomes the sum over this lane's tokens and all later ones */
    for (unsigned offset = 1; offset < WARP; offset *= 2) {
        float more = __shfl_down_sync(0xffffffffu, behind, offset);
        if (lane + offset < WARP) behind += more;
    }
    float before = __shfl_up_sync(0xffffffffu, dkappa[1], 1); /* the token before this lane's */
    float state = w.whole * through + passed, dd = warp_sum(of_w.x + of_w.y);
    size_t at = first_at + 2 * lane;
    *reinterpret_cast<float2 *>(a.dtape.log_decay + at) = {behind + state, behind - dl[0] + state};
    *reinterpret_cast<float2 *>(a.dtape.gamma + at) = {of_w.x * of_g.x + dkappa[0] - (lane > 0 ? before : 0),
                                                       of_w.y * of_g.y + dkappa[1] - dkappa[0]};
    *reinterpret_cast<float2 *>(m->dkappa + 2 * lane) = {dkappa[0], dkappa[1]};
    if (lane == WARP - 1) a.last[index] = dkappa[1];
    if (lane == 0) a.dd[index] = dd;
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
    square *tile = which == 0 ? &m->b : &m->c;
    own_pairs raw(tile, place);
    float upper = inverse[place.upper], lower = inverse[place.upper + 8], product[FRAGMENTS][4];
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        product[i][0] = sum[i][0] * low_half(raw.upper[i]) * upper;
        product[i][1] = sum[i][1] * high_half(raw.upper[i]) * upper;
        product[i][2] = sum[i][2] * low_half(raw.lower[i]) * lower;
        product[i][3] = sum[i][3] * high_half(raw.lower[i]) * lower;
        float even = norm[pair_column(place.lane, i)], odd = norm[pair_column(place.lane, i) + 1];
        sum[i][0] *= even, sum[i][1] *= odd, sum[i][2] *= even, sum[i][3] *= odd;
    }
    sum_columns(m->bias[which][place.band], product, column_blocks<true, 16>{0, 0, TILE});
    two_rows mean = raw.dot(sum);
    mean = {sum_of_four(mean.upper) * upper * upper / TILE, sum_of_four(mean.lower) * lower * lower / TILE};
#pragma unroll
    for (int i = 0; i < FRAGMENTS; i++) {
        sum[i][0] = upper * (sum[i][0] - low_half(raw.upper[i]) * mean.upper);
        sum[i][1] = upper * (sum[i][1] - high_half(raw.upper[i]) * mean.upper);
        sum[i][2] = lower * (sum[i][2] - low_half(raw.lower[i]) * mean.lower);
        sum[i][3] = lower * (sum[i][3] - high_half(raw.lower[i]) * mean.lower);
    }
    __syncwarp();
    store_band(to + place.row * width, width, tile, 0, sum, place);
}

/* One warpgroup's walk over the heads: the one that has B, or that has C. */
template <bool HAS_B>
__device__ static inline void walk_heads(backward_squares *m, const backward_arguments &a, const block_view &block,
                                         angle_steps<WARP_ANGLES> &angles, const group_place &own) {
    const mamba_shape &s = a.t.s;
    unsigned first_head = block.group * block.heads, warp = own.group * BANDS + own.band, all_heads = (unsigned)s.heads;
    float sum[FRAGMENTS][4];
    float2 dtheta[WARP_ANGLES] = {};
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
        if (more) fetch_operands(m, a, at, head + 1, 1 - here, place);
        float acc[FRAGMENTS][4];
        if constexpr (HAS_B) {
            gradient_b(acc, m, here, place);
            shared_written();
            __syncthreads(); /* W is there, x free */
        } else {
            float dx[FRAGMENTS][4];
            gradient_x(dx, m, here, a.t.weights.d[head], place);
            __syncthreads();
            unsigned width = (unsigned)a.t.columns.width;
            gradient_c(acc, m, here, dx, a.dproj + (first_row(a, at) + place.row) * width + a.t.columns.x + head * TILE,
                       width, place);
        }
        place = afresh(own);
        unrotate(acc, m, HAS_B ? 0 : 1, place);
#pragma unroll
        for (int k = 0; k < FRAGMENTS; k++)
#pragma unroll
            for (int j = 0; j < 4; j++) sum[k][j] += acc[k][j];
        sum_now(sum);
        at = afresh(block);
        /* The last head's are fetched twice, since what is fetched only sometimes would have registers always. */
        head_view next = view_at(a, at, more ? head + 1 : head);
        float2 delta = angles.delta;
        weight_steps steps;
        angles.fetch(next, (int)at.tile, warp * WARP_ANGLES, place.lane);
        if (!HAS_B) steps.fetch(next, (int)at.tile, place.lane);
        __syncthreads(); /* the sums are there; B, C, W and the rotations are free */
        own_vectors<true> vectors(next, (int)at.tile, place);
        vectors.fetch();
        vectors.fetch_parameters(next, a.t.weights, place);
        sum_phases(dtheta, m, a.dtape.phase + matrix_of(a, at, head) * ANGLES, angles.rate, delta, warp, place.lane);
        size_t first_at = (size_t)(at.batch * all_heads + head) * s.time + at.tile * TILE;
        if (HAS_B)
            store_sums(a.biases + ((size_t)at.index * 2 * all_heads + head) * TILE, all_heads * TILE, m,
                       place.band * WARP + place.lane);
        else if (place.band == 0)
            gradient_decays(m, a, m->weights[here], first_at, (size_t)at.index * all_heads + head, place.lane);
        else if (place.band == 1 && more)
            steps.make(&m->weights[1 - here]);
        if (more) angles.make(&m->turn, 0, warp * WARP_ANGLES, place.lane);
        __syncthreads(); /* the parts of delta's gradient and the next head's rotations are there */
        if (!HAS_B && place.band >= 2) {
            unsigned t = (place.band - 2) * WARP + place.lane;
            a.dtape.delta[first_at + t] = gradient_delta(m, t);
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
    for (unsigned i = 0; i < WARP_ANGLES; i++) *reinterpret_cast<float2 *>(theta + i * s.time) = dtheta[i];
    copy_wait<0>();
    __syncthreads();
    size_t column = (HAS_B ? a.t.columns.b : a.t.columns.c) + at.group * TILE;
    backward_norm(sum, m, HAS_B ? 0 : 1, (HAS_B ? v.inv_b : v.inv_c) + at.tile * TILE,
                  HAS_B ? a.t.weights.b_norm : a.t.weights.c_norm,
                  a.dproj + ((size_t)at.batch * s.time + at.tile * TILE) * v.width + column, (unsigned)v.width, own);
    __syncthreads();
    if (HAS_B)
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
    fetch_operands(m, a, at, head, 0, place);
    own_vectors<true> vectors(v, (int)at.tile, place);
    vectors.fetch();
    vectors.fetch_parameters(v, a.t.weights, place);
    angle_steps<WARP_ANGLES> angles;
    angles.fetch_rates(v, (int)at.tile, warp * WARP_ANGLES, place.lane);
    angles.fetch(v, (int)at.tile, warp * WARP_ANGLES, place.lane);
    angles.make(&m->turn, 0, warp * WARP_ANGLES, place.lane);
    if (warp == 0) {
        weight_steps steps;
        steps.fetch(v, (int)at.tile, place.lane);
        steps.make(&m->weights[0]);
    }
    __syncthreads();
    vectors.make(&m->b, &m->c, &m->turn, 0, place);
    if (place.group == 0)
        walk_heads<true>(m, a, at, angles, place);
    else
        walk_heads<false>(m, a, at, angles, place);
}

size_t ssd_full_backward_bytes() { return sizeof(backward_squares); }

void ssd_full_backward(const backward_arguments &a) {
    size_t blocks = a.t.s.batch * mamba_chunks(&a.t.s) * a.t.s.groups;
    LAUNCH(ssd_full_gradients, (unsigned)blocks, SSD_THREADS, ssd_full_backward_bytes(), a);
}
