/* attention_prepare: what whole sequences and decoding share. */
#pragma once
#include "kernels/kernels.h"

/* to = gain R x inv, both (head_dim); returns inv = 1/rms. cosine, sine (rope_dims/2) are the token's. */
real attention_prepare_head(real *to, const real *x, real gain, const real *cosine, const real *sine, size_t head_dim,
                            size_t rope_dims);

/* to = silu(v) */
void attention_prepare_values(real *to, const real *v, size_t count);
