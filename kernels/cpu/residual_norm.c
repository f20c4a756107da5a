/* residual_norm: what enters a block, and its norm, in one pass.
 *
 * Row by row the ops of residual.c and norm.c, so that a row is still in cache when the next of them reads it. */
#include <string.h>

#include "kernels/kernels.h"

void cpu_residual_mix_norm_forward(struct lane *lane, real *y, real *normed, real *inv,
                                   const struct residual_inputs *in, size_t rows, size_t dim) {
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * dim;
        const real *x = in->x + at;
        if (in->skip) {
            cpu_scaled_add_forward(lane, y + at, x, in->skip_scale, in->skip + at, 1, dim);
            x = y + at;
        }
        cpu_residual_mix_forward(lane, y + at, x, in->x0 + at, in->mix, 1, dim);
        cpu_rms_norm_forward(lane, normed + at, inv + r, y + at, 1, dim);
    }
}

/* x' is made again, where dskip will be. */
void cpu_residual_mix_norm_backward(struct lane *lane, real *dx, real *dx0, real *dskip, real *dmix, real *dskip_scale,
                                    const real *dnormed, const real *normed, const real *inv,
                                    const struct residual_inputs *in, const struct residual_sums *sums, size_t rows,
                                    size_t dim) {
    for (size_t r = 0; r < rows; r++) {
        size_t at = r * dim;
        const real *x = in->x + at;
        if (sums->begins) memset(dx0 + at, 0, dim * sizeof *dx0);
        if (in->skip) {
            cpu_scaled_add_forward(lane, dskip + at, x, in->skip_scale, in->skip + at, 1, dim);
            x = dskip + at;
        }
        cpu_rms_norm_backward(lane, dx + at, dnormed + at, normed + at, inv + r, 1, dim, true);
        cpu_residual_mix_backward(lane, dx + at, dx0 + at, dmix, dx + at, x, in->x0 + at, in->mix, 1, dim);
        if (in->skip)
            cpu_scaled_add_backward(lane, dskip + at, dskip_scale, dx + at, in->skip_scale, in->skip + at, 1, dim);
        if (in->skip == in->x) cpu_add_into(lane, dx + at, dskip + at, dim);
        if (sums->more) cpu_add_into(lane, dx + at, sums->more + at, dim);
        if (sums->ends) cpu_add_into(lane, dx0 + at, dx + at, dim);
    }
}
