/* linear_epilogue: a product of x (rows, depth) and w, whose results go through an elementwise function in registers
 * before they are written: on Hopper the MLP's activation and its slope, and the slope of the Mamba mixer's gate, cost
 * no pass over memory of their own.
 *
 * A block keeps 128 columns of w for good, in shared memory, and works through tiles of 128 rows. One warp fetches the
 * tiles, in steps of 64 of the depth, into a ring; two warpgroups take the tiles in turn, so that one multiplies while
 * the other is in its epilogue. What an epilogue reads of its first rows is on its way during the product. No register
 * may be spilled: what is, comes from L2, shared memory having left no room for L1. The two blocks of a cluster have
 * the same rows and other columns: each fetches half of a step for both, since what an SM can fetch from L2 is what
 * would bind.
 *
 * w's rows are copied in an order in which the eight columns that a thread's fragments hold of each 32 are
 * neighbours: its results then leave it 16 bytes at a time. A copy of a box can do that with w (columns, depth); w
 * (depth, columns) is turned and put in order first, 3.5 us a call.
 *
 * Published preset, a call: 103 GFLOP, 0.131 ms at 790 TFLOP/s (gate: 69, 0.087 ms). Bytes: 469 MB, h and y written
 * (0.11 ms at 4.3 TB/s); 469 MB, h read and dh written; gate: 604 MB (0.14 ms). */
#include "kernels/cuda/linear_epilogue.cuh"

#ifdef HINGE_CUDA_EMULATOR /* has neither clusters nor bulk copies */
bool leaky_relu_squared_product(void *, bf16 *, bf16 *, const bf16 *, const bf16 *, const epilogue_shape &) {
    return false;
}
bool leaky_relu_squared_slope_product(void *, bf16 *, const bf16 *, const bf16 *, const bf16 *,
                                      const epilogue_shape &) {
    return false;
}
bool silu_gate_slope_product(void *, bf16 *, bf16 *, const bf16 *, const bf16 *, const bf16 *, const bf16 *, size_t,
                             const epilogue_shape &) {
    return false;
}
#else
#include "kernels/cuda/bulk_copy.cuh"
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/vectors.cuh"
#include "kernels/cuda/warpgroup.cuh"

namespace epilogue {

constexpr int ROWS = 128, COLUMNS = 128, STEP = 64, MOST_DEPTH = 512; /* of a tile; of the depth at once and in all */
constexpr int STAGES = 6, CLUSTER = 2;                                /* of the ring; blocks */
constexpr int THREADS = 3 * WARPGROUP;

/* Shared memory of a block. */
struct block_memory {
    panels<COLUMNS, STEP> w[MOST_DEPTH / STEP];
    panels<ROWS, STEP> x[STAGES];
    copy_barrier w_here[MOST_DEPTH / STEP], x_here[STAGES], x_spent[STAGES];
    copy_barrier turn[2]; /* of each warpgroup to multiply */
};

/* --- what follows the product -------------------------------------------------------------------------------------
 *
 * announce() of a row's COLUMNS columns, when its tile is fetched; fetch() and run() of eight neighbouring columns. */

struct leaky_relu_squared {
    bf16 *h, *y;
    size_t stride;
    static constexpr int AHEAD = 1;
    struct inputs {};
    __device__ void announce(size_t, size_t) const {}
    __device__ inputs fetch(size_t, size_t) const { return {}; }
    __device__ void run(size_t row, size_t column, pack<8> p, const inputs &) const {
        store<8>(h + row * stride + column, p);
        for (float &x : p.at) {
            float l = x > 0 ? x : x / 2;
            x = l * l;
        }
        store<8>(y + row * stride + column, p);
    }
};

struct leaky_relu_squared_slope {
    bf16 *dh;
    const bf16 *h;
    size_t stride;
    static constexpr int AHEAD = 4;
    struct inputs {
        uint4 h;
    };
    __device__ void announce(size_t row, size_t column) const { fetch_to_l2(h + row * stride + column); }
    __device__ inputs fetch(size_t row, size_t column) const {
        return {*reinterpret_cast<const uint4 *>(h + row * stride + column)};
    }
    __device__ void run(size_t row, size_t column, pack<8> p, const inputs &in) const {
        pack<8> x = unpack(in.h);
        for (int i = 0; i < 8; i++) p.at[i] *= x.at[i] > 0 ? 2 * x.at[i] : x.at[i] / 2;
        store<8>(dh + row * stride + column, p);
    }
};

struct silu_gate_slope {
    bf16 *dy, *dz;
    const bf16 *y, *z;
    size_t stride, z_stride;
    static constexpr int AHEAD = 2; /* registers would not hold more beside the sums */
    struct inputs {
        uint4 y, z;
    };
    __device__ void announce(size_t row, size_t column) const {
        fetch_to_l2(y + row * stride + column);
        fetch_to_l2(z + row * z_stride + column);
    }
    __device__ inputs fetch(size_t row, size_t column) const {
        return {*reinterpret_cast<const uint4 *>(y + row * stride + column),
                *reinterpret_cast<const uint4 *>(z + row * z_stride + column)};
    }
    __device__ void run(size_t row, size_t column, pack<8> g, const inputs &in) const {
        pack<8> p = unpack(in.y), gate = unpack(in.z);
        for (int i = 0; i < 8; i++) {
            float s = fast_sigmoid(gate.at[i]);
            float silu = gate.at[i] * s;
            p.at[i] *= g.at[i] * (s + silu * (1 - s));
            g.at[i] *= silu;
        }
        store<8>(dz + row * z_stride + column, p);
        store<8>(dy + row * stride + column, g);
    }
};

/* --- the product -------------------------------------------------------------------------------------------------- */

#if HINGE_WGMMA
#define CLUSTERS __cluster_dims__(CLUSTER)

/* Which tiles of rows a cluster works through, first, first + step, ..; and its first column. */
struct cluster_work {
    int first, step, tiles, columns;
    __device__ int row(int i) const { return (first + i * step) * ROWS; }
};

__device__ cluster_work work_of(const epilogue_shape &s) {
    int groups = (int)(s.columns / (COLUMNS * CLUSTER)), cluster = (int)blockIdx.x / CLUSTER;
    int step = (int)gridDim.x / CLUSTER / groups, first = cluster / groups, all = (int)((s.rows + ROWS - 1) / ROWS);
    return {first, step, first < all ? (all - first + step - 1) / step : 0, cluster % groups * CLUSTER * COLUMNS};
}

/* Of a thread, of 65536 / 384: a fetching thread needs few, a multiplying one 128 for its sums alone. */
constexpr int FETCHING_REGISTERS = 40, MULTIPLYING_REGISTERS = 232;

/* Step n of the ring, counted over all tiles. */
struct ring_place {
    int stage;
    unsigned parity;
    __device__ explicit ring_place(int n) : stage(n % STAGES), parity((unsigned)(n / STAGES % 2)) {}
};

/* One thread fetches w, for good. */
__device__ void fetch_weight(block_memory *m, const CUtensorMap *w_map, int steps, int column) {
    for (int k = 0; k < steps; k++) {
        barrier_expect(&m->w_here[k], COLUMNS * STEP * 2);
        copy_box(&m->w[k], w_map, k * STEP, 0, 0, 0, column / 32, &m->w_here[k]);
    }
}

/* One warp fetches every tile's steps, as room comes free; its first lane begins the copies. */
template <class Epilogue>
__device__ void fetch_tiles(block_memory *m, const CUtensorMap *x_map, const Epilogue &epilogue,
                            const cluster_work &work, const epilogue_shape &s, int steps, int column, int rank) {
    constexpr int LINES = COLUMNS / PANEL; /* of 128 bytes, of a row of the tile */
    int lane = (int)threadIdx.x % WARP;
    for (int i = 0, n = 0; i < work.tiles; i++)
        for (int k = 0; k < steps; k++, n++) {
            ring_place at(n);
            barrier_wait(&m->x_spent[at.stage], at.parity ^ 1);
            if (lane == 0) {
                barrier_expect(&m->x_here[at.stage], ROWS * STEP * 2);
                copy_box(m->x[at.stage].pieces[0][rank * (ROWS / CLUSTER)], x_map, k * STEP,
                         work.row(i) + rank * (ROWS / CLUSTER), &m->x_here[at.stage], (1 << CLUSTER) - 1);
            }
            size_t row = (size_t)(work.row(i) + (k * WARP + lane) / LINES);
            if (k < ROWS * LINES / WARP && row < s.rows)
                epilogue.announce(row, (size_t)(column + (k * WARP + lane) % LINES * PANEL));
        }
}

/* This warp no longer reads a stage: both blocks of the cluster may fill it. */
__device__ void spend(block_memory *m, int stage) {
    if (threadIdx.x % WARP < CLUSTER) barrier_arrive(&m->x_spent[stage], (int)threadIdx.x % WARP);
}

/* The warpgroup's turn to multiply its tile number `turn`: the other one has seen all that came before in the ring, so
 * no stage's barrier is two phases from what is waited for. */
__device__ void wait_for_turn(block_memory *m, int group, int turn) {
    if (group == 1 || turn > 0) barrier_wait(&m->turn[group], (unsigned)(turn - 1 + group) % 2);
}
__device__ void pass_turn(block_memory *m, int group, int rank) {
    if (threadIdx.x % WARP == 0) barrier_arrive(&m->turn[1 - group], rank);
}

/* upper, lower = 64 rows each of x w^T; n: the tile's first step of the ring. */
__device__ void multiply_tile(float (&upper)[COLUMNS / 8][4], float (&lower)[COLUMNS / 8][4], block_memory *m, int n,
                              int steps, int group, int rank, bool first) {
    for (int k = 0; k < steps; k++) {
        ring_place at(n + k);
        if (first) barrier_wait(&m->w_here[k], 0);
        barrier_wait(&m->x_here[at.stage], at.parity);
        if (k == steps - 1) pass_turn(m, group, rank);
        products_begin();
#pragma unroll
        for (int i = 0; i < STEP; i += 16) {
            multiply<BY_ROWS, BY_ROWS>(upper, &m->x[at.stage], 0, &m->w[k], 0, i, k > 0 || i > 0);
            multiply<BY_ROWS, BY_ROWS>(lower, &m->x[at.stage], 64, &m->w[k], 0, i, k > 0 || i > 0);
        }
        products_commit();
        products_wait<1>();
        if (k > 0) spend(m, ring_place(n + k - 1).stage);
    }
    products_wait<0>(upper, lower);
    spend(m, ring_place(n + steps - 1).stage);
}

/* What an epilogue reads for one of the four rows of a tile that a thread has results of. */
template <class Epilogue> struct row_inputs {
    static constexpr int BLOCKS = COLUMNS / 32;
    typename Epilogue::inputs of[BLOCKS];

    __device__ void fetch(const Epilogue &epilogue, int row, int rows, int column) {
        if (row < rows)
#pragma unroll
            for (int i = 0; i < BLOCKS; i++) of[i] = epilogue.fetch((size_t)row, (size_t)column + i * 32);
    }
    /* d: the sums of 64 rows; half: the row is the thread's first or second of them. */
    __device__ void finish(const Epilogue &epilogue, const float (&d)[COLUMNS / 8][4], int half, int row, int rows,
                           int column) const {
        if (row < rows)
#pragma unroll
            for (int i = 0; i < BLOCKS; i++) {
                pack<8> p;
                for (int j = 0; j < 8; j++) p.at[j] = d[4 * i + j / 2][2 * half + j % 2];
                epilogue.run((size_t)row, (size_t)column + i * 32, p, of[i]);
            }
    }
};

/* A warpgroup's tiles: every second one. Of a thread's four rows of results, what AHEAD read is on its way at a time,
 * of the first ones during the product. */
template <class Epilogue>
__device__ void multiply_all(block_memory *m, const Epilogue &epilogue, const cluster_work &work, int rows, int steps,
                             int column, int group, int rank) {
    constexpr int AHEAD = Epilogue::AHEAD;
    int thread = (int)threadIdx.x % WARPGROUP;
    column += thread % 4 * 8;
    for (int i = group; i < work.tiles; i += 2) {
        float sums[2][COLUMNS / 8][4];
        int first = work.row(i) + thread / WARP * 16 + thread % WARP / 4;
        auto row = [&](int r) { return first + r / 2 * 64 + r % 2 * 8; };
        row_inputs<Epilogue> in[AHEAD];
        for (int r = 0; r < AHEAD; r++) in[r].fetch(epilogue, row(r), rows, column);
        wait_for_turn(m, group, i / 2);
        multiply_tile(sums[0], sums[1], m, i * steps, steps, group, rank, i == group);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            in[r % AHEAD].finish(epilogue, sums[r / 2], r % 2, row(r), rows, column);
            if (r + AHEAD < 4) in[r % AHEAD].fetch(epilogue, row(r + AHEAD), rows, column);
        }
    }
}
#else
#define CLUSTERS
#endif

template <class Epilogue>
__global__ void CLUSTERS __launch_bounds__(THREADS, 1)
    epilogue_kernel(const __grid_constant__ CUtensorMap x_map, const __grid_constant__ CUtensorMap w_map,
                    Epilogue epilogue, epilogue_shape s) {
#if HINGE_WGMMA
    block_memory *m = shared_memory<block_memory>();
    cluster_work work = work_of(s);
    int steps = (int)s.depth / STEP, rank = (int)cluster_rank(), column = work.columns + rank * COLUMNS;
    int group = uniform((int)threadIdx.x / WARPGROUP);
    if (threadIdx.x == 0) {
        for (copy_barrier &b : m->w_here) barrier_begin(&b, 1);
        for (copy_barrier &b : m->x_here) barrier_begin(&b, 1);
        for (copy_barrier &b : m->x_spent) barrier_begin(&b, CLUSTER * WARPGROUP / WARP);
        for (copy_barrier &b : m->turn) barrier_begin(&b, WARPGROUP / WARP);
        barriers_begun();
    }
    cluster_barrier();
    if (group == 2) {
        give_registers<FETCHING_REGISTERS>();
        int warp = (int)threadIdx.x / WARP - 2 * WARPGROUP / WARP;
        if (warp == 0) fetch_tiles(m, &x_map, epilogue, work, s, steps, column, rank);
        if (warp == 1 && threadIdx.x % WARP == 0) fetch_weight(m, &w_map, steps, column);
    } else {
        take_registers<MULTIPLYING_REGISTERS>();
        multiply_all(m, epilogue, work, (int)s.rows, steps, column, group, rank);
    }
    cluster_barrier(); /* nobody leaves while the other block may still copy to it or arrive at its barriers */
#endif
}

/* --- the host's side ---------------------------------------------------------------------------------------------- */

/* The order of w's rows: n tile j of an accumulator has, for lane t, columns 8 t + 2 (j % 4) of each 32, so a thread's
 * fragments j .. j + 3 are eight neighbours. Column 8 a + 2 b + e of 32, e 0 or 1, is therefore row 8 b + 2 a + e. */
__device__ size_t place_of(size_t c) { return c / 32 * 32 + c % 8 / 2 * 8 + c % 32 / 8 * 2 + c % 2; }

/* to (columns, depth) = from (depth, columns) across, its rows in that order. 8 of the depth a thread. */
__global__ void put_in_order(bf16 *to, const bf16 *from, size_t columns, size_t depth) {
    size_t i = blockIdx.x * (size_t)EACH_THREADS + threadIdx.x;
    if (i >= columns * (depth / 8)) return;
    size_t column = i % columns, k = i / columns * 8;
    pack<8> p;
    for (size_t j = 0; j < 8; j++) p.at[j] = to_float(from[(k + j) * columns + column]);
    store<8>(to + place_of(column) * depth + k, p);
}

CUtensorMap map_of_rows(const bf16 *x, const epilogue_shape &s, const char *name) {
    return boxes<2>{{s.depth, s.rows}, {s.depth * sizeof(bf16)}, {STEP, ROWS / CLUSTER}}.map(x, name);
}

/* w (columns, depth), by e, a, b and 32 columns at a time: where its rows are not in order, a box of it is. */
CUtensorMap map_of_weight(const bf16 *w, bool in_order, const epilogue_shape &s, const char *name) {
    size_t row = s.depth * sizeof(bf16), a = in_order ? 2 : 8, b = in_order ? 8 : 2;
    return boxes<5>{
        {s.depth, 2, 4, 4, s.columns / 32}, {row, a * row, b * row, 32 * row}, {STEP, 2, 4, 4, COLUMNS / 32}}
        .map(w, name);
}

int multiprocessors() {
    static int count;
    int device = 0;
    if (!count && cudaGetDevice(&device) == cudaSuccess)
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    return count;
}

/* w (columns, depth), or where it is (depth, columns), ACROSS. */
template <bool ACROSS, class Epilogue>
void launch(const char *name, void *scratch, const bf16 *x, const bf16 *w, const Epilogue &epilogue,
            const epilogue_shape &s) {
    bf16 *ordered = static_cast<bf16 *>(scratch);
    if (ACROSS)
        LAUNCH(put_in_order, (unsigned)ceil_div(s.columns * s.depth / 8, EACH_THREADS), EACH_THREADS, 0, ordered, w,
               s.columns, s.depth);
    unsigned groups = (unsigned)(s.columns / (COLUMNS * CLUSTER)), clusters = (unsigned)multiprocessors() / CLUSTER;
    LAUNCH(epilogue_kernel<Epilogue>, clusters / groups * groups * CLUSTER, THREADS, sizeof(block_memory),
           map_of_rows(x, s, name), map_of_weight(ACROSS ? ordered : w, ACROSS, s, name), epilogue, s);
}

/* Whether a product of this shape fills the device, and the device has code for it. */
bool fits(const epilogue_shape &s) {
    size_t tiles = s.rows / ROWS * (s.columns / COLUMNS), processors = (size_t)multiprocessors();
    return is_hopper() && s.columns % (COLUMNS * CLUSTER) == 0 && s.depth % STEP == 0 && s.depth <= MOST_DEPTH &&
           s.columns / COLUMNS <= processors && tiles >= 2 * processors;
}

} // namespace epilogue

bool leaky_relu_squared_product(void *scratch, bf16 *h, bf16 *y, const bf16 *x, const bf16 *w,
                                const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(h, y, x, w)) return false;
    epilogue::launch<false>("linear_leaky_relu_squared_forward", scratch, x, w,
                            epilogue::leaky_relu_squared{h, y, s.columns}, s);
    return true;
}

bool leaky_relu_squared_slope_product(void *scratch, bf16 *dh, const bf16 *dy, const bf16 *w, const bf16 *h,
                                      const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(dh, dy, h)) return false;
    epilogue::launch<true>("linear_leaky_relu_squared_backward", scratch, dy, w,
                           epilogue::leaky_relu_squared_slope{dh, h, s.columns}, s);
    return true;
}

bool silu_gate_slope_product(void *scratch, bf16 *dy, bf16 *dz, const bf16 *dout, const bf16 *w, const bf16 *y,
                             const bf16 *z, size_t z_stride, const epilogue_shape &s) {
    if (!epilogue::fits(s) || !aligned(dy, dz, dout, y, z) || z_stride % ACTS) return false;
    epilogue::launch<true>("linear_silu_gate_backward", scratch, dout, w,
                           epilogue::silu_gate_slope{dy, dz, y, z, s.columns, z_stride}, s);
    return true;
}
#endif
