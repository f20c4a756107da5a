/* activation: the MLP's leaky relu squared and the Mamba mixer's gate; the mathematics is in kernels/cpu.
 *
 * Bytes at the published preset (R 65,536), at 4.3 TB/s:
 *   leaky_relu_squared_forward   hidden 1536: 2 x 201 MB, 0.094 ms     _backward  3 x 201 MB, 0.140 ms
 *   silu_gate_forward            D_in 1024:   3 x 134 MB, 0.094 ms     _backward  5 x 134 MB, 0.156 ms */
#include "kernels/cuda/columns.cuh"
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/vectors.cuh"

struct leaky_relu_squared {
    bf16 *y;
    const bf16 *x;
    template <int N> __device__ void run(size_t at) const {
        pack<N> p = load<N>(x + at);
        for (int i = 0; i < N; i++) {
            float l = p.at[i] > 0 ? p.at[i] : p.at[i] / 2;
            p.at[i] = l * l;
        }
        store<N>(y + at, p);
    }
};

extern "C" void cuda_leaky_relu_squared_forward(struct lane *, act *y, const act *x, size_t count) {
    for_each_element<ACTS>("leaky_relu_squared_forward", leaky_relu_squared{acts(y), acts(x)}, count, aligned(y, x));
}

struct leaky_relu_squared_slope {
    bf16 *dx;
    const bf16 *dy, *x;
    template <int N> __device__ void run(size_t at) const {
        pack<N> d = load<N>(dy + at), p = load<N>(x + at);
        for (int i = 0; i < N; i++) d.at[i] *= p.at[i] > 0 ? 2 * p.at[i] : p.at[i] / 2;
        store<N>(dx + at, d);
    }
};

extern "C" void cuda_leaky_relu_squared_backward(struct lane *, act *dx, const act *dy, const act *x, size_t count) {
    for_each_element<ACTS>("leaky_relu_squared_backward", leaky_relu_squared_slope{acts(dx), acts(dy), acts(x)}, count,
                           aligned(dx, dy, x));
}

struct silu_gate {
    enum { SUMS = 0 };
    bf16 *out;
    const bf16 *y, *z;
    size_t z_stride, dim;
    template <int N> struct columns {};
    template <int N> __device__ void begin(columns<N> &, size_t) const {}
    template <int N> __device__ void row(columns<N> &, size_t r, size_t c) const {
        pack<N> p = load<N>(y + r * dim + c), gate = load<N>(z + r * z_stride + c);
        for (int i = 0; i < N; i++) p.at[i] *= gate.at[i] * fast_sigmoid(gate.at[i]);
        store<N>(out + r * dim + c, p);
    }
};

extern "C" void cuda_silu_gate_forward(struct lane *lane, act *out, const act *y, const act *z, size_t z_stride,
                                       size_t rows, size_t dim) {
    for_each_column("silu_gate_forward", lane, silu_gate{acts(out), acts(y), acts(z), z_stride, dim}, NULL, rows, dim,
                    aligned(out, y, z) && z_stride % ACTS == 0);
}

struct silu_gate_slope {
    enum { SUMS = 0 };
    bf16 *dy, *dz;
    const bf16 *dout, *y, *z;
    size_t z_stride, dim;
    template <int N> struct columns {};
    template <int N> __device__ void begin(columns<N> &, size_t) const {}
    template <int N> __device__ void row(columns<N> &, size_t r, size_t c) const {
        size_t at = r * dim + c, gate_at = r * z_stride + c;
        pack<N> g = load<N>(dout + at), p = load<N>(y + at), gate = load<N>(z + gate_at);
        for (int i = 0; i < N; i++) {
            float s = fast_sigmoid(gate.at[i]);
            p.at[i] *= g.at[i] * s * (1 + gate.at[i] * (1 - s));
            g.at[i] *= gate.at[i] * s;
        }
        store<N>(dz + gate_at, p);
        store<N>(dy + at, g);
    }
};

extern "C" void cuda_silu_gate_backward(struct lane *lane, act *dy, act *dz, const act *dout, const act *y,
                                        const act *z, size_t z_stride, size_t rows, size_t dim) {
    silu_gate_slope work = {acts(dy), acts(dz), acts(dout), acts(y), acts(z), z_stride, dim};
    for_each_column("silu_gate_backward", lane, work, NULL, rows, dim,
                    aligned(dy, dz, dout, y, z) && z_stride % ACTS == 0);
}
