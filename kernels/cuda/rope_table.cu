/* rope_table: the cosines and sines of RoPE's angles, computed once in float64; see kernels/cpu/attention_prepare.c.
 * T 4096 and 32 pairs: 1 MB, 0.24 us at 4.3 TB/s; 131,072 powers, cosines and sines in float64, some 200 operations
 * each thread: 26 MFLOP, 0.8 us at 34 TFLOP/s. Once a workspace. */
#include "kernels/cuda/device.cuh"

enum { TABLE_THREADS = 128 };

static __global__ void __launch_bounds__(TABLE_THREADS)
    rope_table_kernel(float *cosine, float *sine, size_t time, size_t pairs, double base) {
    size_t i = blockIdx.x * (size_t)TABLE_THREADS + threadIdx.x;
    if (i >= time * pairs) return;
    double angle = (double)(i / pairs) * pow(base, -(double)(i % pairs) / (double)pairs);
    cosine[i] = (float)cos(angle);
    sine[i] = (float)sin(angle);
}

extern "C" void cuda_rope_table(struct lane *, real *cosine, real *sine, size_t time, size_t rope_dims, double base) {
    size_t pairs = rope_dims / 2;
    LAUNCH(rope_table_kernel, (unsigned)ceil_div(time * pairs, TABLE_THREADS), TABLE_THREADS, 0, cosine, sine, time,
           pairs, base);
}
