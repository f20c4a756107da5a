/* attention_prepare: what whole sequences and decoding share. */
#pragma once
#include "kernels/cuda/device.cuh"

/* Raw q (rows, heads, dim), k and v (rows, kv_heads, dim) to what attention uses. Row r of `to_q`, `to_k` and `to_v`
 * begins r * q_stride or r * kv_stride elements on; its angles are row r % time of cosine and sine (time, rope/2).
 * inv_q (rows, heads) and inv_k (rows, kv_heads) may be NULL. With `length`, to_k and to_v are caches and every row is
 * the token of that number, counted from 1: that many tokens on are its place and its angles. */
struct head_preparation {
    const bf16 *q, *k, *v;
    bf16 *to_q, *to_k, *to_v;
    size_t q_stride, kv_stride;
    float *inv_q, *inv_k;
    const float *gain, *cosine, *sine;
    const int32_t *length; /* or NULL */
    int rows, time, heads, kv_heads, dim, rope;
};
void launch_head_preparation(const head_preparation &p);
