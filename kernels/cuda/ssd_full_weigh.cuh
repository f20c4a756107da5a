/* ssd_full_weigh: of ssd_full_backward.cu, from f = x dy^T and g = B C^T in a warpgroup's registers to W and M. */
#pragma once
#include "kernels/cuda/ssd_full.cuh"

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
