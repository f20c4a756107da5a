/* residual: what carries activations from block to block; the mathematics is in kernels/cpu/residual.c.
 *
 * Each tensor is read and written once. At the published preset (R 65,536, D 512) a tensor is 67 MB:
 *   residual_mix_forward   3 tensors, 0.047 ms at 4.3 TB/s    _backward  6 tensors, 0.094 ms
 *   scaled_add_forward     3 tensors, 0.047 ms                _backward  3 tensors, 0.047 ms
 *   add_into               3 tensors, 0.047 ms */
#include "kernels/cuda/columns.cuh"

extern "C" size_t cuda_rows_scratch(size_t rows, size_t width) { return column_sums_bytes(rows, width); }

struct residual_mix {
    enum { SUMS = 0 };
    bf16 *y;
    const bf16 *x, *x0;
    const float *mix;
    size_t dim;
    template <int N> struct columns { pack<N> mix0, mix1; };
    template <int N> __device__ void begin(columns<N> &mine, size_t c) const {
        mine.mix0 = load_any<N>(mix + c);
        mine.mix1 = load_any<N>(mix + dim + c);
    }
    template <int N> __device__ void row(columns<N> &mine, size_t r, size_t c) const {
        pack<N> a = load<N>(x + r * dim + c), b = load<N>(x0 + r * dim + c);
        for (int i = 0; i < N; i++) a.at[i] = mine.mix0.at[i] * a.at[i] + mine.mix1.at[i] * b.at[i];
        store<N>(y + r * dim + c, a);
    }
};

extern "C" void cuda_residual_mix_forward(struct lane *lane, act *y, const act *x, const act *x0, const real *mix,
                                          size_t rows, size_t dim) {
    for_each_column("residual_mix_forward", lane, residual_mix{acts(y), acts(x), acts(x0), mix, dim}, NULL, rows, dim,
                    aligned(y, x, x0));
}

struct residual_mix_slope {
    enum { SUMS = 2 };
    bf16 *dx, *dx0;
    const bf16 *dy, *x, *x0;
    const float *mix;
    size_t dim;
    template <int N> struct columns { pack<N> mix0, mix1, sum[SUMS]; };
    template <int N> __device__ void begin(columns<N> &mine, size_t c) const {
        mine.mix0 = load_any<N>(mix + c);
        mine.mix1 = load_any<N>(mix + dim + c);
    }
    template <int N> __device__ void row(columns<N> &mine, size_t r, size_t c) const {
        size_t at = r * dim + c;
        pack<N> d = load<N>(dy + at), a = load<N>(x + at), b = load<N>(x0 + at), db = load<N>(dx0 + at);
        for (int i = 0; i < N; i++) {
            mine.sum[0].at[i] += d.at[i] * a.at[i];
            mine.sum[1].at[i] += d.at[i] * b.at[i];
            db.at[i] += mine.mix1.at[i] * d.at[i];
            d.at[i] *= mine.mix0.at[i];
        }
        store<N>(dx0 + at, db);
        store<N>(dx + at, d);
    }
};

extern "C" void cuda_residual_mix_backward(struct lane *lane, act *dx, act *dx0, real *dmix, const act *dy,
                                           const act *x, const act *x0, const real *mix, size_t rows, size_t dim) {
    residual_mix_slope work = {acts(dx), acts(dx0), acts(dy), acts(x), acts(x0), mix, dim};
    for_each_column("residual_mix_backward", lane, work, dmix, rows, dim, aligned(dx, dx0, dy, x, x0));
}

struct scaled_add {
    enum { SUMS = 0 };
    bf16 *y;
    const bf16 *x, *branch;
    const float *scale;
    size_t dim;
    template <int N> struct columns { pack<N> scale; };
    template <int N> __device__ void begin(columns<N> &mine, size_t c) const { mine.scale = load_any<N>(scale + c); }
    template <int N> __device__ void row(columns<N> &mine, size_t r, size_t c) const {
        pack<N> a = load<N>(x + r * dim + c), b = load<N>(branch + r * dim + c);
        for (int i = 0; i < N; i++) a.at[i] += mine.scale.at[i] * b.at[i];
        store<N>(y + r * dim + c, a);
    }
};

extern "C" void cuda_scaled_add_forward(struct lane *lane, act *y, const act *x, const real *scale, const act *branch,
                                        size_t rows, size_t dim) {
    for_each_column("scaled_add_forward", lane, scaled_add{acts(y), acts(x), acts(branch), scale, dim}, NULL, rows, dim,
                    aligned(y, x, branch));
}

struct scaled_add_slope {
    enum { SUMS = 1 };
    bf16 *dbranch;
    const bf16 *dy, *branch;
    const float *scale;
    size_t dim;
    template <int N> struct columns { pack<N> scale, sum[SUMS]; };
    template <int N> __device__ void begin(columns<N> &mine, size_t c) const { mine.scale = load_any<N>(scale + c); }
    template <int N> __device__ void row(columns<N> &mine, size_t r, size_t c) const {
        pack<N> d = load<N>(dy + r * dim + c), b = load<N>(branch + r * dim + c);
        for (int i = 0; i < N; i++) {
            mine.sum[0].at[i] += d.at[i] * b.at[i];
            d.at[i] *= mine.scale.at[i];
        }
        store<N>(dbranch + r * dim + c, d);
    }
};

extern "C" void cuda_scaled_add_backward(struct lane *lane, act *dbranch, real *dscale, const act *dy,
                                         const real *scale, const act *branch, size_t rows, size_t dim) {
    scaled_add_slope work = {acts(dbranch), acts(dy), acts(branch), scale, dim};
    for_each_column("scaled_add_backward", lane, work, dscale, rows, dim, aligned(dbranch, dy, branch));
}

struct sum_of_two {
    bf16 *a;
    const bf16 *b;
    template <int N> __device__ void run(size_t at) const {
        pack<N> p = load<N>(a + at), q = load<N>(b + at);
        for (int i = 0; i < N; i++) p.at[i] += q.at[i];
        store<N>(a + at, p);
    }
};

extern "C" void cuda_add_into(struct lane *, act *a, const act *b, size_t count) {
    for_each_element<ACTS>("add_into", sum_of_two{acts(a), acts(b)}, count, aligned(a, b));
}
