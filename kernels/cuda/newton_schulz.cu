/* newton_schulz: Muon's orthogonalisation of many matrices of one shape at once, as batched products of bf16.
 *
 *   X = G/(|G| + 1e-7), wide; steps times:  A = X X^T;  B = b A + c A^2;  X = a X + B X
 *
 * Each line is one product: b A and a X are its beta term. Matrices are kept wide (n x longer), so tall ones are
 * transposed on the way in and out. For the 7 in_proj of the published preset (2240 x 512), 5 steps are 92 GFLOP:
 * 0.12 ms at 790 TFLOP/s; all of that preset's matrices, 0.30 TFLOP: 0.38 ms. Around the products each matrix is read
 * for its norm, read again and written as bf16, and the other way round: 4, 6 and 6 bytes an element, few operations
 * each; for the 25.1 million elements of all, 100, 151 and 151 MB: 23, 35 and 35 us at 4.3 TB/s.
 *
 * Scratch: X | X' | A | B (batch of each, bf16) | partial sums of squares | norms | the workspace of cuBLASLt. */
#include "kernels/cuda/product.cuh"

enum { THREADS = 256, TILE = 32, NORM_BLOCKS = 32 };
static const size_t MOST_MATRICES = 64;

static const float COEFFICIENT_A = 3.4445f, COEFFICIENT_B = -4.7750f, COEFFICIENT_C = 2.0315f;

/* A kernel gets the host's array of pointers by value. */
struct matrices {
    float *at[MOST_MATRICES];
};

struct layout {
    size_t n, longer, count; /* of one matrix, wide: n <= longer */
    bf16 *x, *next, *a, *b;
    double *partial; /* (batch, NORM_BLOCKS) */
    void *workspace;
    size_t bytes;
};

static struct layout layout_of(void *scratch, size_t batch, size_t rows, size_t cols) {
    struct layout l = {};
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
    for (size_t i = (size_t)blockIdx.x * THREADS + threadIdx.x; i < count; i += (size_t)THREADS * NORM_BLOCKS)
        sum += (double)x[i] * (double)x[i];
    room[threadIdx.x] = sum;
    __syncthreads();
    for (int half = THREADS / 2; half > 0; half /= 2) {
        if ((int)threadIdx.x < half) room[threadIdx.x] += room[threadIdx.x + half];
        __syncthreads();
    }
    if (threadIdx.x == 0) partial[blockIdx.y * NORM_BLOCKS + blockIdx.x] = room[0];
}

__device__ static float inverse_norm(const double *partial) {
    double sum = 0;
    for (int i = 0; i < NORM_BLOCKS; i++) sum += partial[i];
    return (float)(1 / (sqrt(sum) + 1e-7));
}

/* x = the matrix over its norm, rounded; transposed when it is tall. A tile of 32 x 32 goes through shared memory so
 * that both sides are read and written along their rows. */
__global__ void enter_kernel(bf16 *x, struct matrices g, const double *partial, size_t rows, size_t cols, bool tall) {
    float *tile = shared_memory<float>(); /* TILE x (TILE + 1) */
    const float *from = g.at[blockIdx.z];
    const float scale = inverse_norm(partial + blockIdx.z * NORM_BLOCKS);
    bf16 *to = x + blockIdx.z * rows * cols;
    size_t row = (size_t)blockIdx.y * TILE, col = (size_t)blockIdx.x * TILE;
    for (size_t i = threadIdx.y; i < TILE; i += blockDim.y)
        if (row + i < rows && col + threadIdx.x < cols)
            tile[i * (TILE + 1) + threadIdx.x] = from[(row + i) * cols + col + threadIdx.x] * scale;
    __syncthreads();
    for (size_t i = threadIdx.y; i < TILE; i += blockDim.y) {
        if (!tall && row + i < rows && col + threadIdx.x < cols)
            to[(row + i) * cols + col + threadIdx.x] = to_bf16(tile[i * (TILE + 1) + threadIdx.x]);
        if (tall && col + i < cols && row + threadIdx.x < rows)
            to[(col + i) * rows + row + threadIdx.x] = to_bf16(tile[threadIdx.x * (TILE + 1) + i]);
    }
}

/* The way back: rows and cols are those of the matrix that is left, not of x. */
__global__ void leave_kernel(struct matrices g, const bf16 *x, size_t rows, size_t cols, bool tall) {
    float *tile = shared_memory<float>();
    float *to = g.at[blockIdx.z];
    const bf16 *from = x + blockIdx.z * rows * cols;
    size_t row = (size_t)blockIdx.y * TILE, col = (size_t)blockIdx.x * TILE;
    for (size_t i = threadIdx.y; i < TILE; i += blockDim.y) {
        if (!tall && row + i < rows && col + threadIdx.x < cols)
            tile[i * (TILE + 1) + threadIdx.x] = to_float(from[(row + i) * cols + col + threadIdx.x]);
        if (tall && col + i < cols && row + threadIdx.x < rows)
            tile[threadIdx.x * (TILE + 1) + i] = to_float(from[(col + i) * rows + row + threadIdx.x]);
    }
    __syncthreads();
    for (size_t i = threadIdx.y; i < TILE; i += blockDim.y)
        if (row + i < rows && col + threadIdx.x < cols)
            to[(row + i) * cols + col + threadIdx.x] = tile[i * (TILE + 1) + threadIdx.x];
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

static void one_step(const struct layout *l, size_t batch) {
    struct product gram = square_product(l, batch, l->x, l->a);
    gram.transpose_a = true;
    gram.k = l->longer;
    gram.b = l->x;
    gram.lda = gram.ldb = l->longer;
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

    struct product update = square_product(l, batch, l->x, l->next); /* X'^T = X^T B + a X^T */
    update.m = update.lda = update.ldd = l->longer;
    update.k = update.ldb = l->n;
    update.b = l->b;
    update.stride_a = update.stride_d = l->count;
    update.stride_b = l->n * l->n;
    update.c = l->x;
    update.alpha = 1, update.beta = COEFFICIENT_A;
    product_run(&update);
}

static void orthogonalise(struct lane *lane, const struct matrices *g, size_t batch, size_t rows, size_t cols,
                          int steps) {
    struct layout l = layout_of(static_cast<char *>(lane->scratch), batch, rows, cols);
    const bool tall = rows > cols;
    const dim3 tiles((unsigned)ceil_div(cols, TILE), (unsigned)ceil_div(rows, TILE), (unsigned)batch), threads(TILE, 8);
    const size_t tile_bytes = TILE * (TILE + 1) * sizeof(float);
    LAUNCH(squares_kernel, dim3(NORM_BLOCKS, (unsigned)batch), THREADS, THREADS * sizeof(double), l.partial, *g,
           l.count);
    LAUNCH(enter_kernel, tiles, threads, tile_bytes, l.x, *g, l.partial, rows, cols, tall);
    for (int step = 0; step < steps; step++) {
        one_step(&l, batch);
        bf16 *done = l.next;
        l.next = l.x, l.x = done;
    }
    LAUNCH(leave_kernel, tiles, threads, tile_bytes, *g, l.x, rows, cols, tall);
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
