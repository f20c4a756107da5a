/* weights: what the forward pass sees instead of the master weights: ternary, fake-quantised, or with a row's scale.
 *
 *   ternarize  s = max(mean|w|, 1e-5), out = s Q, Q = round(clamp(w/s, -1, 1))       (BitNet b1.58, arXiv 2402.17764)
 *   backward   Q counts as w/s: dout_i/dw_j = [i = j] + (Q_i - w_i/s) ds/dw_j, ds/dw_j = sign(w_j)/count, so
 *              dw_j = G_j + sign(w_j)/count (sum G out - sum G w)/s
 *   scale_rows  out = diag(scale) w;  backward, where dw holds G:  dscale_r = w_r . G_r, dw = diag(scale) G
 *   fake_quantize_rows  s = max|w_row|/qmax, out = s clamp(round(w/s), -qmax, qmax); its backward is the identity
 *
 * Rounding is to nearest, ties to even. */
#include <stddef.h>

#include "kernels/cpu/rounding.h"
#include "kernels/kernels.h"

static const double LEAST_SCALE = 1e-5;

static double mean_magnitude(const real *w, size_t count) {
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += (double)real_abs(w[i]);
    return count ? sum / (double)count : 0;
}

void cpu_ternarize(struct lane *lane, real *out, const real *w, size_t count) {
    (void)lane;
    const double mean = mean_magnitude(w, count);
    const real s = (real)(mean > LEAST_SCALE ? mean : LEAST_SCALE);
#pragma omp simd
    for (size_t i = 0; i < count; i++) out[i] = s * round_within(w[i] / s, 1);
}

void cpu_ternarize_backward(struct lane *lane, real *dw, const real *w, const real *effective, size_t count) {
    (void)lane;
    const double mean = mean_magnitude(w, count);
    if (mean <= LEAST_SCALE) return;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < count; i++) sum += (double)dw[i] * ((double)effective[i] - (double)w[i]);
    const real slope = (real)(sum / mean / (double)count);
#pragma omp simd
    for (size_t i = 0; i < count; i++) dw[i] += w[i] > 0 ? slope : w[i] < 0 ? -slope : 0;
}

void cpu_scale_rows(struct lane *lane, act *to, const real *w, const real *scale, size_t rows, size_t cols) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
#pragma omp simd
        for (size_t i = r * cols; i < (r + 1) * cols; i++) to[i] = scale[r] * w[i];
    }
}

void cpu_scale_rows_backward(struct lane *lane, real *dw, real *dscale, const real *w, const real *scale, size_t rows,
                             size_t cols) {
    (void)lane;
    for (size_t r = 0; r < rows; r++) {
        real sum = 0;
#pragma omp simd reduction(+ : sum)
        for (size_t i = r * cols; i < (r + 1) * cols; i++) {
            sum += w[i] * dw[i];
            dw[i] *= scale[r];
        }
        dscale[r] += sum;
    }
}

void cpu_fake_quantize_rows(struct lane *lane, real *out, const real *w, size_t rows, size_t cols, int qmax,
                            bool floor_scale) {
    (void)lane;
    const real limit = (real)qmax, floor = floor_scale ? 1 / limit : 0;
    for (size_t r = 0; r < rows; r++) {
        const real *from = w + r * cols;
        real *to = out + r * cols, s = largest_magnitude(from, cols) / limit;
        s = s < floor ? floor : s;
        s = s > 0 ? s : 1; /* a row of zeros: any scale gives zeros */
#pragma omp simd
        for (size_t i = 0; i < cols; i++) to[i] = s * round_within(from[i] / s, limit);
    }
}
