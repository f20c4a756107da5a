/* linear_epilogue: a product of x (rows, depth) and w, whose results may go through an elementwise function before they
 * are written: on Hopper the MLP's activation and its slope, the slope of the Mamba mixer's gate, and adding to what is
 * there, cost no pass over memory of their own.
 *
 * What binds such a product is what an SM can read from shared memory. So w stays in registers: a warpgroup holds 64
 * columns of it, all DEPTH of them, as left operands for good, and makes results^T (64 columns x 128 rows) = w x^T;
 * only x comes from shared memory. A block's two warpgroups have the same rows and take turns, so that one multiplies
 * while the other is in its epilogue. One warp fetches tiles of 128 rows, in steps of 64 of the depth, into a ring; w
 * comes through it first. The two blocks of a cluster have the same rows and other columns: each fetches half of a step
 * for both, since what an SM can fetch from L2 would bind as well.
 *
 * What an epilogue reads comes to a warpgroup's tiles in shared memory while it multiplies, its results take their
 * place and leave as boxes, whole lines at a time; both are begun by a warp of the warpgroup's own. There is no order
 * that w's rows or columns would have to be put in, and where tensors end, boxes do.
 *
 * Published preset, a call: 103 GFLOP, 0.131 ms at 790 TFLOP/s (gate: 69, 0.087 ms). Bytes: 469 MB, h and y written
 * (0.11 ms at 4.3 TB/s); 469 MB, h read and dh written; gate: 604 MB (0.14 ms). in_proj and attention's: linear.cu. */
#include "kernels/cuda/linear_epilogue.cuh"

#ifdef HINGE_CUDA_EMULATOR /* has neither clusters nor bulk copies */
bool stored_product(const char *, bf16 *, const bf16 *, const bf16 *, bool, const epilogue_shape &) { return false; }
bool added_product(const char *, bf16 *, const bf16 *, const bf16 *, const bf16 *, const epilogue_shape &) {
    return false;
}
bool leaky_relu_squared_product(bf16 *, bf16 *, const bf16 *, const bf16 *, const epilogue_shape &) { return false; }
bool leaky_relu_squared_slope_product(bf16 *, const bf16 *, const bf16 *, const bf16 *, const epilogue_shape &) {
    return false;
}
bool silu_gate_slope_product(bf16 *, bf16 *, const bf16 *, const bf16 *, const bf16 *, const bf16 *, size_t,
                             const epilogue_shape &) {
    return false;
}
#else
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/vectors.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace epilogue {

constexpr int ROWS = 128, COLUMNS = 64;                               /* of a warpgroup's tile */
constexpr int PARTS = 2, PART_ROWS = ROWS / PARTS;                    /* which come and leave one after the other */
constexpr int DEPTH = 512, STEP = 64, STEPS = DEPTH / STEP;           /* of the depth, at once */
constexpr int GROUPS = 2, BLOCK_COLUMNS = GROUPS * COLUMNS;           /* warpgroups of a block that multiply */
constexpr int CLUSTER = 2, CLUSTER_COLUMNS = CLUSTER * BLOCK_COLUMNS; /* blocks */
constexpr int THREADS = (GROUPS + 1) * WARPGROUP;
constexpr int RING_AND_TILES = 226 << 10; /* bytes; a block may have 1024 more, for barriers */

using tile = panels<ROWS, COLUMNS>;
using step_rows = panels<ROWS, STEP>; /* of x; of w, BLOCK_COLUMNS rows of it */

/* Shared memory of a block whose warpgroups have so many tiles for what they read and write. The ring has the rest. */
template <int TILES> struct block_memory {
    static constexpr int STAGES = (RING_AND_TILES - GROUPS * TILES * (int)sizeof(tile)) / (int)sizeof(step_rows);
    static_assert(STAGES > STEPS); /* both warpgroups read a tile of x, one after the other */
    step_rows ring[STAGES];
    tile at[GROUPS][TILES];
    copy_barrier here[STAGES], spent[STAGES]; /* of the ring */
    copy_barrier turn[GROUPS];                /* of each warpgroup to multiply */
    copy_barrier part_here[GROUPS][PARTS];    /* what is read has come, or there is room for results */
    copy_barrier part_done[GROUPS][PARTS];    /* results are there */
};

/* --- what follows the product -------------------------------------------------------------------------------------
 *
 * run() of one sum: x[i] is the element of tensor i that is READ, and then of that which is WRITTEN. */

struct stored {
    static constexpr int READ = 0, WRITTEN = 1;
    static __device__ void run(float sum, float (&x)[2]) { x[0] = sum; }
};

struct added {
    static constexpr int READ = 1, WRITTEN = 1;
    static __device__ void run(float sum, float (&x)[2]) { x[0] += sum; }
};

/* To h and y. */
struct leaky_relu_squared {
    static constexpr int READ = 0, WRITTEN = 2;
    static __device__ void run(float sum, float (&x)[2]) {
        float l = sum > 0 ? sum : sum / 2;
        x[0] = sum, x[1] = l * l;
    }
};

/* h to dh. */
struct leaky_relu_squared_slope {
    static constexpr int READ = 1, WRITTEN = 1;
    static __device__ void run(float sum, float (&x)[2]) { x[0] = sum * (x[0] > 0 ? 2 * x[0] : x[0] / 2); }
};

/* y and z to dy and dz. */
struct silu_gate_slope {
    static constexpr int READ = 2, WRITTEN = 2;
    static __device__ void run(float sum, float (&x)[2]) {
        float s = fast_sigmoid(x[1]), silu = x[1] * s;
        x[1] = x[0] * sum * (s + silu * (1 - s));
        x[0] = sum * silu;
    }
};

template <class Epilogue> constexpr int TILES = Epilogue::READ > Epilogue::WRITTEN ? Epilogue::READ : Epilogue::WRITTEN;

/* The tensors: boxes of what is multiplied, and of what an epilogue reads and writes. */
struct tensor_maps {
    CUtensorMap x, w, read[2], written[2];
};

/* --- the product -------------------------------------------------------------------------------------------------- */

#if HINGE_WGMMA
#define CLUSTERS __cluster_dims__(CLUSTER)

/* Which tiles of rows a cluster works through, first, first + step, ..; and which of the groups of columns it has. */
struct cluster_work {
    int first, step, tiles, group, groups;
    __device__ int row(int i) const { return (first + i * step) * ROWS; }
};

__device__ cluster_work work_of(const epilogue_shape &s) {
    int groups = (int)ceil_div(s.columns, CLUSTER_COLUMNS), cluster = (int)blockIdx.x / CLUSTER;
    int step = (int)gridDim.x / CLUSTER / groups, first = cluster / groups, all = (int)ceil_div(s.rows, ROWS);
    return {first, step, first < all ? (all - first + step - 1) / step : 0, cluster % groups, groups};
}

/* Of a thread, of 65536 / 384: a fetching thread needs few, a multiplying one 128 for w and 64 for its sums. */
constexpr int FETCHING_REGISTERS = 40, MULTIPLYING_REGISTERS = 232;

/* Step n of the ring: w's come first, then those of all tiles of x. */
template <class Memory> struct ring_place {
    int stage;
    unsigned parity;
    __device__ explicit ring_place(int n) : stage(n % Memory::STAGES), parity((unsigned)(n / Memory::STAGES % 2)) {}
};

/* One thread fetches w's steps for this block: BLOCK_COLUMNS rows of (columns, depth), or, ACROSS, of the depth. */
template <bool ACROSS, class Memory> __device__ void fetch_weight(Memory *m, const CUtensorMap *w, int column) {
    for (int k = 0; k < STEPS; k++) {
        barrier_expect(&m->here[k], sizeof m->ring[k]);
        if (ACROSS)
            for (int i = 0; i < BLOCK_COLUMNS; i += PANEL)
                copy_box(m->ring[k].pieces[0][i], w, column + i, k * STEP, &m->here[k]);
        else
            copy_box(&m->ring[k], w, k * STEP, column, &m->here[k]);
    }
}

/* One thread fetches every tile's steps, as room comes free. The ring is too short to wait for memory, above all where
 * much is written: of the tile behind, each of the clusters with the same rows announces some steps to L2. */
template <class Memory>
__device__ void fetch_rows(Memory *m, const CUtensorMap *x, const cluster_work &work, int rank) {
    int first_row = rank * (ROWS / CLUSTER);
    for (int n = STEPS; n < (work.tiles + 1) * STEPS; n++) {
        ring_place<Memory> at(n);
        int i = n / STEPS - 1, k = n % STEPS;
        if (i + 1 < work.tiles && k % work.groups == work.group) box_to_l2(x, k * STEP, work.row(i + 1) + first_row);
        barrier_wait(&m->spent[at.stage], at.parity ^ 1);
        barrier_expect(&m->here[at.stage], sizeof m->ring[at.stage]);
        copy_box(m->ring[at.stage].pieces[0][first_row], x, k * STEP, work.row(i) + first_row, &m->here[at.stage],
                 (1 << CLUSTER) - 1);
    }
}

/* A part of tile i gets what its epilogue reads, or is free for results. */
template <class Epilogue, class Memory>
__device__ void bring(Memory *m, const tensor_maps &maps, const cluster_work &work, int column, int group, int i,
                      int part) {
    copy_barrier *here = &m->part_here[group][part];
    if (i >= work.tiles) return;
    if (Epilogue::READ > 0)
        barrier_expect(here, Epilogue::READ * PART_ROWS * COLUMNS * 2);
    else
        barrier_arrive(here);
    for (int t = 0; t < Epilogue::READ; t++)
        copy_box(m->at[group][t].pieces[0][part * PART_ROWS], &maps.read[t], column, work.row(i) + part * PART_ROWS,
                 here);
}

/* One thread brings a warpgroup's tiles what its epilogue reads, and takes from them what it has made. */
template <class Epilogue, class Memory>
__device__ void carry(Memory *m, const tensor_maps &maps, const cluster_work &work, int column, int group) {
    for (int p = 0; p < PARTS; p++) bring<Epilogue>(m, maps, work, column, group, 0, p);
    for (int i = 0; i < work.tiles; i++) {
        for (int p = 0; p < PARTS; p++) {
            barrier_wait(&m->part_done[group][p], (unsigned)i % 2);
            for (int t = 0; t < Epilogue::WRITTEN; t++)
                store_box(&maps.written[t], column, work.row(i) + p * PART_ROWS,
                          m->at[group][t].pieces[0][p * PART_ROWS]);
            stores_commit();
            if (p == 0) continue;
            stores_wait_read<1>();
            bring<Epilogue>(m, maps, work, column, group, i + 1, p - 1);
        }
        stores_wait_read<0>();
        bring<Epilogue>(m, maps, work, column, group, i + 1, PARTS - 1);
    }
}

/* This warp no longer reads a stage: both blocks of the cluster may fill it. */
template <class Memory> __device__ void spend(Memory *m, int stage) {
    if (threadIdx.x % WARP < CLUSTER) barrier_arrive(&m->spent[stage], (int)threadIdx.x % WARP);
}

/* w^T's fragments of a warp: 16 columns, all of the depth. */
using weight = uint32_t[DEPTH / 16][4];

template <bool ACROSS, class Memory> __device__ void take_weight(weight &w, Memory *m, int group) {
    int lane = (int)threadIdx.x % WARP, column = group * COLUMNS + (int)threadIdx.x / WARP % 4 * 16;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        barrier_wait(&m->here[k], 0);
        auto *by_columns = reinterpret_cast<const panels<STEP, BLOCK_COLUMNS> *>(&m->ring[k]);
#pragma unroll
        for (int i = 0; i < STEP; i += 16)
            if (ACROSS)
                ldmatrix_x4_trans(w[(k * STEP + i) / 16],
                                  by_columns->piece(i + lane % 8 + lane / 16 * 8, column + lane / 8 % 2 * 8));
            else
                ldmatrix_x4(w[(k * STEP + i) / 16], m->ring[k].piece(column + lane % 16, i + lane / 16 * 8));
        __syncwarp();
        spend(m, k);
    }
}

/* The warpgroup's turn to multiply tile i. */
template <class Memory> __device__ void wait_for_turn(Memory *m, int group, int i) {
    if (group == 1 || i > 0) barrier_wait(&m->turn[group], (unsigned)(i - 1 + group) % 2);
}
template <class Memory> __device__ void pass_turn(Memory *m, int group) {
    if (threadIdx.x % WARP == 0) barrier_arrive(&m->turn[1 - group]);
}

/* sums = w x^T of tile i. */
template <class Memory>
__device__ void multiply_tile(float (&sums)[ROWS / 8][4], const weight &w, Memory *m, int i, int group) {
    using place = ring_place<Memory>;
    int n = (i + 1) * STEPS;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        place at(n + k);
        barrier_wait(&m->here[at.stage], at.parity);
        if (k == STEPS - 1) pass_turn(m, group);
        products_begin();
#pragma unroll
        for (int j = 0; j < STEP; j += 16)
            multiply<BY_ROWS>(sums, w[(k * STEP + j) / 16], &m->ring[at.stage], 0, j, k > 0 || j > 0);
        products_commit();
        products_wait<1>();
        if (k > 0) spend(m, place(n + k - 1).stage);
    }
    products_wait<0>(sums);
    spend(m, place(n + STEPS - 1).stage);
}

/* Four 8 x 8 matrices to shared memory, as ldmatrix_x4_trans reads them. */
__device__ void stmatrix_x4_trans(void *row, const uint32_t (&r)[4]) {
    asm volatile("stmatrix.sync.aligned.m8n8.x4.trans.shared.b16 [%0], {%1, %2, %3, %4};"
                 :
                 : "r"(shared_address(row)), "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])
                 : "memory");
}

/* The tiles of 16 rows of sums, from `row` on: a warp has 16 columns of them. */
template <class Epilogue>
__device__ void finish_rows(tile (&at)[TILES<Epilogue>], const float (&sums)[ROWS / 8][4], int row) {
    int lane = (int)threadIdx.x % WARP, column = (int)threadIdx.x / WARP % 4 * 16 + lane / 8 % 2 * 8;
    uint32_t x[2][4] = {};
#pragma unroll
    for (int t = 0; t < Epilogue::READ; t++)
        ldmatrix_x4_trans(x[t], at[t].piece(row + lane / 16 * 8 + lane % 8, column));
#pragma unroll
    for (int r = 0; r < 4; r++) {
        float low[2] = {low_half(x[0][r]), low_half(x[1][r])}, high[2] = {high_half(x[0][r]), high_half(x[1][r])};
        Epilogue::run(sums[row / 8 + r / 2][r % 2 * 2], low);
        Epilogue::run(sums[row / 8 + r / 2][r % 2 * 2 + 1], high);
        for (int t = 0; t < Epilogue::WRITTEN; t++) x[t][r] = pack_bf16(low[t], high[t]);
    }
#pragma unroll
    for (int t = 0; t < Epilogue::WRITTEN; t++)
        stmatrix_x4_trans(at[t].piece(row + lane / 16 * 8 + lane % 8, column), x[t]);
}

/* A warpgroup's tiles: its columns of all of the block's rows. */
template <bool ACROSS, class Epilogue, class Memory>
__device__ void multiply_all(Memory *m, const cluster_work &work, int group) {
    weight w;
    take_weight<ACROSS>(w, m, group);
    for (int i = 0; i < work.tiles; i++) {
        float sums[ROWS / 8][4];
        wait_for_turn(m, group, i);
        multiply_tile(sums, w, m, i, group);
#pragma unroll
        for (int p = 0; p < PARTS; p++) {
            barrier_wait(&m->part_here[group][p], (unsigned)i % 2);
#pragma unroll
            for (int row = 0; row < PART_ROWS; row += 16)
                finish_rows<Epilogue>(m->at[group], sums, p * PART_ROWS + row);
            shared_written();
            __syncwarp();
            if (threadIdx.x % WARP == 0) barrier_arrive(&m->part_done[group][p]);
        }
    }
}
#else
#define CLUSTERS
#endif

template <bool ACROSS, class Epilogue>
__global__ void CLUSTERS __launch_bounds__(THREADS, 1)
    epilogue_kernel(const __grid_constant__ tensor_maps maps, epilogue_shape s) {
#if HINGE_WGMMA
    auto *m = shared_memory<block_memory<TILES<Epilogue>>>();
    cluster_work work = work_of(s);
    int rank = (int)cluster_rank(), column = work.group * CLUSTER_COLUMNS + rank * BLOCK_COLUMNS;
    int group = uniform((int)threadIdx.x / WARPGROUP);
    if (threadIdx.x == 0) {
        for (copy_barrier &b : m->here) barrier_begin(&b, 1);
        for (copy_barrier &b : m->spent) barrier_begin(&b, CLUSTER * GROUPS * WARPGROUP / WARP);
        for (copy_barrier &b : m->turn) barrier_begin(&b, WARPGROUP / WARP);
        for (int i = 0; i < GROUPS * PARTS; i++) {
            barrier_begin(&m->part_here[i / PARTS][i % PARTS], 1);
            barrier_begin(&m->part_done[i / PARTS][i % PARTS], WARPGROUP / WARP);
        }
        barriers_begun();
    }
    cluster_barrier();
    if (group == GROUPS) {
        give_registers<FETCHING_REGISTERS>();
        int warp = (int)threadIdx.x / WARP % 4;
        if (threadIdx.x % WARP == 0 && warp < GROUPS) carry<Epilogue>(m, maps, work, column + warp * COLUMNS, warp);
        if (threadIdx.x % WARP == 0 && warp == GROUPS) {
            fetch_weight<ACROSS>(m, &maps.w, column);
            fetch_rows(m, &maps.x, work, rank);
        }
    } else {
        take_registers<MULTIPLYING_REGISTERS>();
        multiply_all<ACROSS, Epilogue>(m, work, group);
    }
    cluster_barrier(); /* nobody leaves while the other block may still copy to it or arrive at its barriers */
#endif
}

/* --- the host's side ---------------------------------------------------------------------------------------------- */

/* Boxes of a matrix, PANEL columns by box_rows. */
CUtensorMap map_of(const bf16 *x, size_t rows, size_t columns, size_t stride, int box_rows, const char *name) {
    return boxes<2>{{columns, rows}, {stride * sizeof(bf16)}, {PANEL, (cuuint32_t)box_rows}}.map(x, name);
}

int multiprocessors() {
    static int count;
    int device = 0;
    if (!count && cudaGetDevice(&device) == cudaSuccess)
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count;
}

/* A tensor that an epilogue reads or writes, and the elements of its rows. */
struct stream {
    const bf16 *at;
    size_t stride;
};

/* w (columns, depth), or where it is (depth, columns), ACROSS. */
template <bool ACROSS, class Epilogue>
void launch(const char *name, const bf16 *x, const bf16 *w, const stream *read, const stream *written,
            const epilogue_shape &s) {
    tensor_maps maps = {};
    maps.x = map_of(x, s.rows, s.depth, s.depth, ROWS / CLUSTER, name);
    maps.w = ACROSS ? map_of(w, s.depth, s.columns, s.columns, STEP, name)
                    : map_of(w, s.columns, s.depth, s.depth, BLOCK_COLUMNS, name);
    for (int i = 0; i < Epilogue::READ; i++)
        maps.read[i] = map_of(read[i].at, s.rows, s.columns, read[i].stride, PART_ROWS, name);
    for (int i = 0; i < Epilogue::WRITTEN; i++)
        maps.written[i] = map_of(written[i].at, s.rows, s.columns, written[i].stride, PART_ROWS, name);
    unsigned groups = (unsigned)ceil_div(s.columns, CLUSTER_COLUMNS), clusters = (unsigned)multiprocessors() / CLUSTER;
    LAUNCH((epilogue_kernel<ACROSS, Epilogue>), clusters / groups * groups * CLUSTER, THREADS,
           sizeof(block_memory<TILES<Epilogue>>), maps, s);
}

/* Whether a product of this shape fills the device, with few columns to spare, and the device has code for it. */
bool fits(const epilogue_shape &s) {
    size_t groups = ceil_div(s.columns, CLUSTER_COLUMNS), processors = (size_t)multiprocessors();
    size_t spare = groups * CLUSTER_COLUMNS - s.columns, tiles = s.rows / ROWS * (s.columns / BLOCK_COLUMNS);
    return is_hopper() && s.columns % ACTS == 0 && spare <= s.columns / 16 && s.depth == DEPTH &&
           groups * CLUSTER <= processors && tiles >= 2 * processors;
}

} // namespace epilogue

bool stored_product(const char *name, bf16 *y, const bf16 *x, const bf16 *w, bool across, const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(y, x, w)) return false;
    const epilogue::stream written[] = {{y, s.columns}};
    auto run = across ? epilogue::launch<true, epilogue::stored> : epilogue::launch<false, epilogue::stored>;
    run(name, x, w, NULL, written, s);
    return true;
}

bool added_product(const char *name, bf16 *y, const bf16 *before, const bf16 *x, const bf16 *w,
                   const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(y, before, x, w)) return false;
    const epilogue::stream read[] = {{before, s.columns}}, written[] = {{y, s.columns}};
    epilogue::launch<false, epilogue::added>(name, x, w, read, written, s);
    return true;
}

bool leaky_relu_squared_product(bf16 *h, bf16 *y, const bf16 *x, const bf16 *w, const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(h, y, x, w)) return false;
    const epilogue::stream written[] = {{h, s.columns}, {y, s.columns}};
    epilogue::launch<false, epilogue::leaky_relu_squared>("linear_leaky_relu_squared_forward", x, w, NULL, written, s);
    return true;
}

bool leaky_relu_squared_slope_product(bf16 *dh, const bf16 *dy, const bf16 *w, const bf16 *h, const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(dh, dy, w, h)) return false;
    const epilogue::stream read[] = {{h, s.columns}}, written[] = {{dh, s.columns}};
    epilogue::launch<true, epilogue::leaky_relu_squared_slope>("linear_leaky_relu_squared_backward", dy, w, read,
                                                               written, s);
    return true;
}

bool silu_gate_slope_product(bf16 *dy, bf16 *dz, const bf16 *dout, const bf16 *w, const bf16 *y, const bf16 *z,
                             size_t z_stride, const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(dy, dz, dout, w) || !aligned(y, z) || z_stride % ACTS) return false;
    const epilogue::stream read[] = {{y, s.columns}, {z, z_stride}}, written[] = {{dy, s.columns}, {dz, z_stride}};
    epilogue::launch<true, epilogue::silu_gate_slope>("linear_silu_gate_backward", dout, w, read, written, s);
    return true;
}
#endif
