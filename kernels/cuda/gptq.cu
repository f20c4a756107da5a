/* gptq: quantisation with error feedback, float64 throughout; the mathematics is in kernels/cpu/gptq.c.
 *
 * A warp has one row of the weights and treats GPTQ_BLOCK columns one after the other, each lane with four of them in
 * registers; what follows the block is updated by one product of tiles.
 *
 * mlp.proj of the published preset, 512 rows of 1536 columns: 1.2 GFLOP in the products and 0.1 in the blocks; the
 * longest part is the 1536 columns, one after the other, some 0.2 us each. It is done once a run. */
#include "kernels/cuda/gptq.cuh"
#include "kernels/cuda/rounding.cuh"

enum {
    ROW_WARPS = 4,
    ROW_THREADS = ROW_WARPS * WARP,
    OWN = GPTQ_BLOCK / (int)WARP /* columns of a block that a lane owns: lane, lane + 32, .. */
};

static gptq lay_out(void *scratch, size_t rows, size_t cols) {
    gptq p = {};
    p.rows = rows, p.cols = cols, p.size = ceil_div(cols, SIDE) * SIDE;
    p.hessian = take_scratch<double>(scratch, &p.bytes, p.size * p.size);
    p.inverse = take_scratch<double>(scratch, &p.bytes, p.size * p.size);
    p.weights = take_scratch<double>(scratch, &p.bytes, rows * cols);
    p.errors = take_scratch<double>(scratch, &p.bytes, rows * GPTQ_BLOCK);
    p.diagonal = take_scratch<double>(scratch, &p.bytes, cols + 1);
    p.order = take_scratch<uint32_t>(scratch, &p.bytes, cols);
    return p;
}

extern "C" size_t cuda_gptq_scratch(size_t rows, size_t cols) { return lay_out(NULL, rows, cols).bytes; }

static __global__ void __launch_bounds__(TILE_THREADS) permute_kernel(gptq p, const float *w) {
    size_t at = blockIdx.x * (size_t)TILE_THREADS + threadIdx.x;
    if (at >= p.rows * p.cols) return;
    size_t column = p.order[at % p.cols];
    p.weights[at] = p.diagonal[column] == 0 ? 0 : (double)w[at / p.cols * p.cols + column];
}

struct rounding {
    const uint16_t *scales; /* (rows, groups) */
    int8_t *q;              /* (rows, cols) */
    size_t width, groups;
    double limit;
};

/* Columns start..end of one row, which the lanes have in w; lane 0 writes the integers. */
__device__ static inline void round_row(const gptq &p, const rounding &to, size_t row, size_t start, size_t end,
                                        double (&w)[OWN]) {
    const size_t lane = threadIdx.x % WARP;
    for (int own = 0; own < OWN; own++)
        for (size_t owner = 0; owner < WARP; owner++) {
            size_t i = start + own * (size_t)WARP + owner, column;
            if (i >= end) return;
            column = p.order[i];
            double s = (double)float_of_half(to.scales[row * to.groups + column / to.width]);
            double value = __shfl_sync(0xffffffffu, w[own], (int)owner), x = rint(value / s);
            x = x > -to.limit ? x : -to.limit;
            x = x < to.limit ? x : to.limit;
            double error = (value - x * s) * (1 / upper_factor(p, i, i));
            for (int next = own; next < OWN; next++) {
                size_t j = start + next * (size_t)WARP + lane;
                if (j > i && j < end) w[next] -= error * upper_factor(p, i, j);
            }
            if (lane != 0) continue;
            to.q[row * p.cols + column] = (int8_t)x;
            p.errors[row * GPTQ_BLOCK + i - start] = error;
        }
}

static __global__ void __launch_bounds__(ROW_THREADS) round_kernel(gptq p, rounding to, size_t start, size_t end) {
    size_t row = blockIdx.x * (size_t)ROW_WARPS + threadIdx.x / WARP;
    if (row >= p.rows || *p.info != 0) return;
    double w[OWN];
    for (int own = 0; own < OWN; own++) {
        size_t i = start + own * (size_t)WARP + threadIdx.x % WARP;
        w[own] = i < end ? p.weights[row * p.cols + i] : 0;
    }
    round_row(p, to, row, start, end, w);
}

/* The weights of the columns after the block -= errors U. */
static __global__ void __launch_bounds__(TILE_THREADS) pass_on_kernel(gptq p, size_t start, size_t end) {
    const size_t row = blockIdx.y * (size_t)SIDE, col = end + blockIdx.x * (size_t)SIDE;
    double sum[MICRO][MICRO] = {};
    multiply_tile(
        sum, end - start,
        [=](size_t m, size_t d) { return row + m < p.rows ? p.errors[(row + m) * GPTQ_BLOCK + d] : 0; },
        [=](size_t d, size_t n) { return col + n < p.cols ? upper_factor(p, start + d, col + n) : 0; });
    each_of_tile(sum, [=](size_t m, size_t n, double x) {
        if (row + m < p.rows && col + n < p.cols) p.weights[(row + m) * p.cols + col + n] -= x;
    });
}

extern "C" void cuda_gptq_quantize(struct lane *lane, int8_t *q, const uint16_t *scales, const real *w, const double *h,
                                   size_t rows, size_t cols, size_t group, int qmax, double damping, int *info) {
    gptq p = lay_out(lane->scratch, rows, cols);
    const size_t width = group ? group : cols;
    rounding to = {scales, q, width, ceil_div(cols, width), (double)qmax};
    p.info = info;
    gptq_factor(p, h, damping);
    LAUNCH(permute_kernel, (unsigned)ceil_div(rows * cols, TILE_THREADS), TILE_THREADS, 0, p, w);
    for (size_t start = 0; start < cols; start += GPTQ_BLOCK) {
        size_t end = start + GPTQ_BLOCK < cols ? start + GPTQ_BLOCK : cols;
        LAUNCH(round_kernel, (unsigned)ceil_div(rows, ROW_WARPS), ROW_THREADS, 0, p, to, start, end);
        LAUNCH(pass_on_kernel, dim3((unsigned)ceil_div(cols - end, SIDE), (unsigned)ceil_div(rows, SIDE)), TILE_THREADS,
               TILE_BYTES, p, start, end);
    }
}
