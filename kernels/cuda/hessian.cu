/* hessian: h += x^T x, upper triangle; products of bf16 on the tensor cores, sums in float for 256 rows, then in
 * float64.
 *
 * A block has one tile of TILE x TILE of h: it walks down x, CHUNK rows at a time through shared memory, two stages
 * deep, and each of its four warps has a quarter of the tile in registers.
 *
 * For R 65,536 rows of 512 columns: 17 GFLOP, 0.022 ms at 790 TFLOP/s, and 67 MB, 0.016 ms at 4.3 TB/s; 36 blocks
 * have work, so it takes several times that. It is done once a run. */
#include "kernels/cuda/tensor_core.cuh"
#include "kernels/cuda/vectors.cuh"

enum {
    TILE = 64,
    VECTORS = TILE / (int)ACTS, /* of a row of a tile */
    CHUNK = 64,
    FLOAT_ROWS = 256,
    PITCH = TILE + (int)ACTS, /* rows of a chunk start in different banks */
    HESSIAN_THREADS = 128,
    STAGE = 2 * CHUNK * PITCH, /* the chunk's columns of both sides */
    QUARTER = TILE / 2,
    M_TILES = QUARTER / 16,
    N_TILES = QUARTER / 8
};

struct samples {
    const bf16 *x;
    size_t rows, cols;
    bool vectors;
};

/* Rows first.. of the columns col.. to shared memory, zeros outside of x. */
__device__ static inline void load_side(bf16 *to, const samples &s, size_t first, size_t col) {
    if (s.vectors) {
        for (unsigned i = threadIdx.x; i < CHUNK * VECTORS; i += HESSIAN_THREADS) {
            size_t r = first + i / VECTORS, c = col + i % VECTORS * ACTS;
            bool inside = r < s.rows && c < s.cols;
            copy_16(to + i / VECTORS * PITCH + i % VECTORS * ACTS, inside ? s.x + r * s.cols + c : s.x, inside);
        }
        return;
    }
    for (unsigned i = threadIdx.x; i < CHUNK * TILE; i += HESSIAN_THREADS) {
        size_t r = first + i / TILE, c = col + i % TILE;
        to[i / TILE * PITCH + i % TILE] = r < s.rows && c < s.cols ? s.x[r * s.cols + c] : to_bf16(0);
    }
}

/* sum += the chunk's product, for the warp's quarter. Both sides lie as (row, column), so both are transposed. */
__device__ static inline void multiply_chunk(float (&sum)[M_TILES][N_TILES][4], const bf16 *left, const bf16 *right) {
    const unsigned lane = threadIdx.x % WARP, in_matrix = lane % 8, matrix = lane / 8;
    for (unsigned k = 0; k < CHUNK; k += 16) {
        uint32_t a[M_TILES][4], b[N_TILES][2];
        for (unsigned m = 0; m < M_TILES; m++)
            ldmatrix_x4_trans(a[m], left + (k + in_matrix + matrix / 2 * 8) * PITCH + m * 16 + matrix % 2 * 8);
        for (unsigned n = 0; n < N_TILES; n++)
            ldmatrix_x2_trans(b[n], right + (k + in_matrix + matrix % 2 * 8) * PITCH + n * 8);
        for (unsigned m = 0; m < M_TILES; m++)
            for (unsigned n = 0; n < N_TILES; n++) mma_m16n8k16(sum[m][n], a[m], b[n]);
    }
}

/* total += sum, which becomes 0. */
__device__ static inline void move_sums(double (&total)[M_TILES][N_TILES][4], float (&sum)[M_TILES][N_TILES][4]) {
    for (unsigned m = 0; m < M_TILES; m++)
        for (unsigned n = 0; n < N_TILES; n++)
            for (unsigned i = 0; i < 4; i++) {
                total[m][n][i] += (double)sum[m][n][i];
                sum[m][n][i] = 0;
            }
}

static __global__ void __launch_bounds__(HESSIAN_THREADS) hessian_kernel(double *h, samples s) {
    if (blockIdx.y > blockIdx.x) return;
    bf16 *room = shared_memory<bf16>(); /* 2 stages */
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const unsigned down = warp / 2 * QUARTER, across = warp % 2 * QUARTER;
    size_t row = blockIdx.y * (size_t)TILE, col = blockIdx.x * (size_t)TILE;
    float sum[M_TILES][N_TILES][4] = {};
    double total[M_TILES][N_TILES][4] = {};
    auto fetch = [&](size_t first) {
        bf16 *stage = room + first / CHUNK % 2 * STAGE;
        load_side(stage, s, first, row);
        load_side(stage + CHUNK * PITCH, s, first, col);
        copy_commit();
    };
    fetch(0);
    for (size_t first = 0; first < s.rows; first += CHUNK) {
        fetch(first + CHUNK); /* beyond the last row: zeros, not used */
        copy_wait<1>();
        __syncthreads();
        const bf16 *stage = room + first / CHUNK % 2 * STAGE;
        multiply_chunk(sum, stage + down, stage + CHUNK * PITCH + across);
        __syncthreads();
        if ((first + CHUNK) % FLOAT_ROWS != 0 && first + CHUNK < s.rows) continue;
        move_sums(total, sum);
    }
    copy_wait<0>();
    for (unsigned m = 0; m < M_TILES; m++)
        for (unsigned n = 0; n < N_TILES; n++)
            for (unsigned i = 0; i < 4; i++) {
                size_t r = row + down + m * 16 + lane / 4 + i / 2 * 8, c = col + across + n * 8 + lane % 4 * 2 + i % 2;
                if (r <= c && c < s.cols) h[r * s.cols + c] += total[m][n][i];
            }
}

extern "C" void cuda_hessian_accumulate(struct lane *, double *h, const act *x, size_t rows, size_t cols) {
    samples s = {acts(x), rows, cols, aligned(acts(x)) && cols % ACTS == 0};
    unsigned tiles = (unsigned)ceil_div(cols, TILE);
    LAUNCH(hessian_kernel, dim3(tiles, tiles), HESSIAN_THREADS, 2 * STAGE * sizeof(bf16), h, s);
}
