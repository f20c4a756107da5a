/* attention_wide: attention for heads of more than 128 dimensions, which no preset has: right, not fast. */
#pragma once
#include "kernels/cuda/device.cuh"

void wide_attention_forward(bf16 *out, const struct attention_tape *tape, const struct attention_shape *shape);

/* base2_sum, d (batch, heads, padded): log_sum in base 2, and rowsum(dout o out). */
void wide_attention_backward(bf16 *dq, bf16 *dk, bf16 *dv, const bf16 *dout, const float *base2_sum, const float *d,
                             size_t padded, const struct attention_tape *tape, const struct attention_shape *shape);
