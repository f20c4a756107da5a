/* newton_schulz: Muon's orthogonalisation of many matrices of one shape at once, as batched products of bf16.
 *
 *   X = G/(|G| + 1e-7), wide; steps times:  A = X X^T;  B = b A + c A^2;  X = a X + B X
 *
 * Each line is one product: b A and a X are its beta term. Matrices are kept as they come: of a tall G, X is the
 * transpose, which the products are told. For the 7 in_proj of the published preset (2240 x 512), 5 steps are 92 GFLOP:
 * 0.12 ms at 790 TFLOP/s; all of that preset's matrices, 0.30 TFLOP: 0.38 ms. Around the products each matrix is read
 * for its norm, read again and written as bf16, and the other way round: 4, 6 and 6 bytes an element, few operations
 * each; for the 25.1 million elements of all, 100, 151 and 151 MB: 23, 35 and 35 us at 4.3 TB/s.
 *
 * Scratch: X | X' | A | B (batch of each, bf16) | partial sums of squares | norms | the workspace of cuBLASLt. */
#include "kernels/cuda/product.cuh"
#include "kernels/cuda/vectors.cuh"

enum { THREADS = 256, NORM_BLOCKS = 64, SQUARES_AHEAD = 16 /* elements that a thread reads together */ };
static const size_t MOST_MATRICES = 64;

static const float COEFFICIENT_A = 3.4445f, COEFFICIENT_B = -4.7750f, COEFFICIENT_C = 2.0315f;

/* A kernel gets the host's array of pointers by value. */
struct matrices {
    float *at[MOST_MATRICES];
};

struct layout {
    bool tall;
    size_t n, longer, count; /* of one matrix: n <= longer */
    bf16 *x, *next, *a, *b;
    double *partial; /* (batch, NORM_BLOCKS) */
    void *workspace;
    size_t bytes;
};

static struct layout layout_of(void *scratch, size_t batch, size_t rows, size_t cols) {
    struct layout l = {};
    l.tall = rows > cols;
    l.n = rows < cols ? rows : cols;
    l.longer = rows < cols ? cols : rows;
    l.count = rows * cols;
    l.x = take_scratch<bf16>(scratch, &l.bytes, batch * l.count);
    l.next = take_scratch<bf16>(scratch, &l.bytes, batch * l.count);
    l.a = take_scratch<bf16>(scratch, &l.bytes, batch * l.n * l.n);
    l.b = take_scratch<bf16>(scratch, &l.bytes, batch * l.n * l.n);
    l.partial = take_scratch<double>(scratch, &l.bytes, batch * NORM_BLOCKS);
    l.workspace = take_scratch<char>(scratch, &l.bytes, PRODUCT_WORKSPACE);
    return l;
}

extern "C" size_t cuda_newton_schulz_scratch(size_t batch, size_t rows, size_t cols) {
    return layout_of(NULL, batch < MOST_MATRICES ? batch : MOST_MATRICES, rows, cols).bytes;
}

/* partial[matrix][block] = the sum of squares of a fixed share of the matrix. */
__global__ void __launch_bounds__(THREADS) squares_kernel(double *partial, struct matrices g, size_t count) {
    double *room = shared_memory<double>();
    const float *x = g.at[blockIdx.y];
    double sum = 0;
    const size_t stride = (size_t)THREADS * NORM_BLOCKS;
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += SQUARES_AHEAD * stride) {
        float ahead[SQUARES_AHEAD];
#pragma unroll
        for (unsigned k = 0; k < SQUARES_AHEAD; k++) ahead[k] = i + k * stride < count ? x[i + k * stride] : 0;
#pragma unroll
        for (unsigned k = 0; k < SQUARES_AHEAD; k++) sum += (double)ahead[k] * (double)ahead[k];
    }
    room[threadIdx.x] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.y * NORM_BLOCKS + blockIdx.x] = room[0];
}

/* A warp calls this together. */
__device__ static float inverse_norm(const double *partial) {
    double sum = 0;
    for (int i = (int)threadIdx.x % WARP; i < NORM_BLOCKS; i += WARP) sum += partial[i];
    for (int offset = WARP / 2; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
    return (float)(1 / (sqrt(sum) + 1e-7));
}

/* x = the matrices over their norms, rounded, N neighbours a thread; a block has some of one matrix. */
template <int N>
__global__ void __launch_bounds__(THREADS)
    enter_kernel(bf16 *x, struct matrices g, const double *partial, size_t count) {
    const float scale = inverse_norm(partial + blockIdx.y * NORM_BLOCKS);
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * N;
    if (i >= count) return;
    pack<N> p = load<N>(g.at[blockIdx.y] + i);
    for (int k = 0; k < N; k++) p.at[k] *= scale;
    store<N>(x + blockIdx.y * count + i, p);
}

/* The way back. */
template <int N>
__global__ void __launch_bounds__(THREADS) leave_kernel(struct matrices g, const bf16 *x, size_t count) {
    size_t i = ((size_t)blockIdx.x * THREADS + threadIdx.x) * N;
    if (i < count) store<N>(g.at[blockIdx.y] + i, load<N>(x + blockIdx.y * count + i));
}

/* All three products of a step; the squares are symmetric, so column-major and row-major are one. */
static struct product square_product(const struct layout *l, size_t batch, const bf16 *a, bf16 *d) {
    struct product p = {};
    p.name = "newton_schulz";
    p.m = p.n = l->n;
    p.a = a;
    p.d = d, p.ldd = l->n;
    p.batch = batch;
    p.stride_d = l->n * l->n;
    p.workspace = l->workspace;
    return p;
}

/* To the products, which count columns first, a wide matrix is its transpose, (longer, n), and a tall one is X. */
static void one_step(const struct layout *l, size_t batch) {
    const size_t leading = l->tall ? l->n : l->longer;
    struct product gram = square_product(l, batch, l->x, l->a);
    gram.transpose_a = !l->tall, gram.transpose_b = l->tall;
    gram.k = l->longer;
    gram.b = l->x;
    gram.lda = gram.ldb = leading;
    gram.stride_a = gram.stride_b = l->count;
    gram.alpha = 1;
    product_run(&gram);

    struct product polynomial = square_product(l, batch, l->a, l->b);
    polynomial.k = l->n;
    polynomial.b = l->a;
    polynomial.lda = polynomial.ldb = l->n;
    polynomial.stride_a = polynomial.stride_b = l->n * l->n;
    polynomial.c = l->a;
    polynomial.alpha = COEFFICIENT_C, polynomial.beta = COEFFICIENT_B;
    product_run(&polynomial);

    struct product update = square_product(l, batch, l->tall ? l->b : l->x, l->next); /* X'^T = X^T B + a X^T */
    update.m = leading, update.n = l->tall ? l->longer : l->n;
    update.k = l->n;
    update.b = l->tall ? l->x : l->b;
    update.lda = update.ldd = leading;
    update.ldb = l->n;
    update.stride_a = l->tall ? l->n * l->n : l->count;
    update.stride_b = l->tall ? l->count : l->n * l->n;
    update.stride_d = l->count;
    update.c = l->x;
    update.alpha = 1, update.beta = COEFFICIENT_A;
    product_run(&update);
}

template <int N> static void enter(const struct layout *l, const struct matrices *g, size_t batch) {
    dim3 blocks((unsigned)ceil_div(l->count, THREADS * N), (unsigned)batch);
    LAUNCH(enter_kernel<N>, blocks, THREADS, 0, l->x, *g, l->partial, l->count);
}

template <int N> static void leave(const struct layout *l, const struct matrices *g, size_t batch) {
    dim3 blocks((unsigned)ceil_div(l->count, THREADS * N), (unsigned)batch);
    LAUNCH(leave_kernel<N>, blocks, THREADS, 0, *g, l->x, l->count);
}

static bool whole_vectors(const struct matrices *g, size_t batch, size_t count) {
    bool vectors = count % ACTS == 0;
    for (size_t i = 0; i < batch; i++) vectors = vectors && aligned(g->at[i]);
    return vectors;
}

static void orthogonalise(struct lane *lane, const struct matrices *g, size_t batch, size_t rows, size_t cols,
                          int steps) {
    struct layout l = layout_of(static_cast<char *>(lane->scratch), batch, rows, cols);
    const bool vectors = whole_vectors(g, batch, l.count);
    auto first = vectors ? enter<ACTS> : enter<1>, last = vectors ? leave<ACTS> : leave<1>;
    LAUNCH(squares_kernel, dim3(NORM_BLOCKS, (unsigned)batch), THREADS, THREADS * sizeof(double), l.partial, *g,
           l.count);
    first(&l, g, batch);
    for (int step = 0; step < steps; step++) {
        one_step(&l, batch);
        bf16 *done = l.next;
        l.next = l.x, l.x = done;
    }
    last(&l, g, batch);
}

extern "C" void cuda_newton_schulz(struct lane *lane, real *const *x, size_t batch, size_t rows, size_t cols,
                                   int steps) {
    for (size_t first = 0; first < batch; first += MOST_MATRICES) {
        size_t count = batch - first < MOST_MATRICES ? batch - first : MOST_MATRICES;
        struct matrices g = {};
        for (size_t i = 0; i < count; i++) g.at[i] = x[first + i];
        orthogonalise(lane, &g, count, rows, cols, steps);
    }
}
