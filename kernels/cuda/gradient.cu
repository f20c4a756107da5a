/* gradient: the gradients of one step as a whole; the mathematics is in kernels/cpu/gradient.c.
 *
 * At the published preset (26.2 million parameters, 105 MB), at 4.3 TB/s:
 *   add_tree of 8 parts  9 x 105 MB, 0.220 ms in one pass
 *   clip_by_norm         105 MB, 0.024 ms; 0.073 ms when the norm is above the limit
 *   sum_in_order         8 bytes a row: 0.5 MB */
#include "kernels/cuda/sums.cuh"

enum { MOST_PARTS = 8, MOST_EIGHTHS = 64, MOST_PARTS_OF_ALL = MOST_PARTS * MOST_EIGHTHS };

extern "C" size_t cuda_tensor_scratch(size_t) { return sums_bytes(); }

struct plain_sum {
    enum { TERMS = 1 };
    const double *x;
    double *sum;
    template <int N> __device__ void add(double (&mine)[TERMS], size_t at) const { mine[0] += x[at]; }
    __device__ void finish(double *totals) const { *sum += totals[0]; }
};

extern "C" void cuda_sum_in_order(struct lane *lane, double *sum, const double *x, size_t count) {
    sum_elements<1>("sum_in_order", lane, plain_sum{x, sum}, count, false);
}

/* A kernel gets the host's array of pointers by value. */
struct part_list {
    float *at[MOST_PARTS];
};

/* PARTS is a power of two, or 1 to look at a sum only. */
template <int PARTS> struct part_tree {
    struct part_list parts;
    int32_t *finite; /* NULL: not asked for */
    template <int N> __device__ void run(size_t at) const {
        pack<N> p[PARTS];
        for (int k = 0; k < PARTS; k++) p[k] = load<N>(parts.at[k] + at);
        for (int stride = 1; stride < PARTS; stride *= 2)
            for (int k = 0; k < PARTS; k += 2 * stride)
                for (int i = 0; i < N; i++) p[k].at[i] += p[k + stride].at[i];
        if (PARTS > 1) store<N>(parts.at[0] + at, p[0]);
        float zero = 0; /* 0 times anything finite is 0; times an infinity or NaN it is NaN */
        for (int i = 0; i < N; i++) zero += 0 * p[0].at[i];
        if (finite && !(zero == 0)) atomicExch(finite, 0); /* by as many threads as see one */
    }
};

template <int PARTS> static void add_parts(real *const *parts, size_t count, int32_t *finite) {
    part_tree<PARTS> work = {};
    work.finite = finite;
    bool vectors = true;
    for (int k = 0; k < PARTS; k++) {
        work.parts.at[k] = parts[k];
        vectors = vectors && aligned(parts[k]);
    }
    for_each_element<FLOATS>("add_tree", work, count, vectors);
}

static __global__ void set_kernel(int32_t *flag, int32_t value) { *flag = value; }

/* Eight parts at a time, then the tree over their sums. */
extern "C" void cuda_add_tree(struct lane *lane, real *const *parts, int part_count, size_t count, int32_t *finite) {
    real *sums[MOST_EIGHTHS];
    if (part_count > MOST_PARTS_OF_ALL)
        return device_note_text("add_tree", "more parts than 512; give fewer ranks and micro-shards");
    if (part_count > MOST_PARTS) {
        for (int k = 0; k < part_count; k += MOST_PARTS) {
            add_parts<MOST_PARTS>(parts + k, count, NULL);
            sums[k / MOST_PARTS] = parts[k];
        }
        return cuda_add_tree(lane, sums, part_count / MOST_PARTS, count, finite);
    }
    LAUNCH(set_kernel, 1, 1, 0, finite, 1);
    switch (part_count) {
    case 8:
        return add_parts<8>(parts, count, finite);
    case 4:
        return add_parts<4>(parts, count, finite);
    case 2:
        return add_parts<2>(parts, count, finite);
    default:
        return add_parts<1>(parts, count, finite);
    }
}

struct sum_of_squares {
    enum { TERMS = 1 };
    const float *x;
    double limit;
    template <int N> __device__ void add(double (&sum)[TERMS], size_t at) const {
        pack<N> p = load<N>(x + at);
        for (int i = 0; i < N; i++) sum[0] += (double)p.at[i] * (double)p.at[i];
    }
    __device__ void finish(double *totals) const {
        double norm = sqrt(totals[0]);
        totals[0] = norm > limit ? limit / norm : 1;
    }
};

struct scaling {
    float *x;
    const double *by;
    template <int N> __device__ void run(size_t at) const {
        float factor = (float)*by;
        if (factor == 1) return;
        pack<N> p = load<N>(x + at);
        for (int i = 0; i < N; i++) p.at[i] *= factor;
        store<N>(x + at, p);
    }
};

extern "C" void cuda_clip_by_norm(struct lane *lane, real *g, size_t count, double limit) {
    const double *factor = sum_elements<FLOATS>("clip_by_norm", lane, sum_of_squares{g, limit}, count, aligned(g));
    for_each_element<FLOATS>("clip_by_norm", scaling{g, factor}, count, aligned(g));
}
