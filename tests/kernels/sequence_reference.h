/* sequence_reference: the mixers written out in float64 by plain loops, token by token, straight from the formulas. */
#pragma once
#include "kernels/kernels.h"

/* out (R, heads, head_dim) = the Mamba mixer from in_proj's rows to what out_proj reads. */
void mamba_reference(double *out, const real *proj, const struct mamba_weights *weights,
                     const struct mamba_shape *shape);

/* out (R, heads, head_dim) = the attention mixer from raw q, k, v to what proj reads. */
void attention_reference(double *out, const real *q, const real *k, const real *v, const real *q_gain, double base,
                         const struct attention_shape *shape);
