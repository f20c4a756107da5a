/* linear_epilogue: products whose results become something else before they are written; see linear_epilogue.cu.
 *
 * Each says whether it has done its work: it does not where the device is no Hopper, or the shape none that fills it.
 * scratch: room for w. */
#pragma once
#include "kernels/cuda/device.cuh"

/* A product of x (rows, depth) and w, columns x depth. */
struct epilogue_shape {
    size_t rows, columns, depth;
};

/* h = x w^T, y = leaky_relu_squared(h); w (columns, depth). */
bool leaky_relu_squared_product(void *scratch, bf16 *h, bf16 *y, const bf16 *x, const bf16 *w, const epilogue_shape &s);
/* dh = (dy w) leaky_relu_squared'(h); w (depth, columns). */
bool leaky_relu_squared_slope_product(void *scratch, bf16 *dh, const bf16 *dy, const bf16 *w, const bf16 *h,
                                      const epilogue_shape &s);
/* dy = (dout w) silu(z), dz = (dout w) y silu'(z); w (depth, columns); z, dz: z_stride elements a row. */
bool silu_gate_slope_product(void *scratch, bf16 *dy, bf16 *dz, const bf16 *dout, const bf16 *w, const bf16 *y,
                             const bf16 *z, size_t z_stride, const epilogue_shape &s);
