/* test_kernels: right kernels run on the emulator with the results that a device gives, and without a complaint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <vector>

#include "kernels/cuda/tensor_core.cuh"
extern "C" {
#include <cmocka.h>

#include "kernels/cuda/backend.h"
#include "kernels/random.h"
}

/* Managed for the tests: device memory with a copy of, or room for, a host vector. */
template <typename T> struct device_vector {
    std::vector<T> host;
    T *device;
    explicit device_vector(std::vector<T> values) : host(std::move(values)) {
        assert_int_equal(cudaMalloc(&device, host.size() * sizeof(T)), cudaSuccess);
        cuda_upload(NULL, device, host.data(), host.size() * sizeof(T));
    }
    ~device_vector() { cuda_memory_free(device); }
    const std::vector<T> &fetched() {
        cuda_download(NULL, host.data(), device, host.size() * sizeof(T));
        return host;
    }
};

static void finish() {
    status s = cuda_finish(NULL);
    if (s) fail_msg("%s", status_text(s));
}

/* --- blocks, shared memory, reductions ---------------------------------------------------------------------------- */

__global__ void row_sums(float *sums, const float *x, int columns) {
    float *room = shared_memory<float>(), total = 0;
    const float *row = x + (size_t)blockIdx.x * (size_t)columns;
    for (int i = (int)threadIdx.x; i < columns; i += (int)blockDim.x) total += row[i];
    total = block_sum(total, room);
    if (threadIdx.x == 0) sums[blockIdx.x] = total;
}

static void test_block_sum(void **) {
    enum { ROWS = 7, COLUMNS = 333 };
    std::vector<float> x(ROWS * COLUMNS);
    for (size_t i = 0; i < x.size(); i++) x[i] = (float)(i % 17) - 5;
    device_vector<float> input(x), sums(std::vector<float>(ROWS, NAN));
    LAUNCH(row_sums, ROWS, 128, 4 * sizeof(float), sums.device, input.device, COLUMNS);
    finish();
    for (int r = 0; r < ROWS; r++) {
        float want = 0;
        for (int i = 0; i < COLUMNS; i++) want += x[(size_t)(r * COLUMNS + i)];
        assert_true(sums.fetched()[(size_t)r] == want);
    }
}

__global__ void places(unsigned *out) {
    unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
    unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
    out[block * blockDim.x * blockDim.y * blockDim.z + thread] = block * 1000 + thread;
}

static void test_every_thread_of_every_block_runs_once(void **) {
    dim3 grid(3, 2, 2), block(5, 4, 3);
    device_vector<unsigned> out(std::vector<unsigned>(12 * 60, 0xffffffffu));
    LAUNCH(places, grid, block, 0, out.device);
    finish();
    for (unsigned i = 0; i < 12 * 60; i++) assert_int_equal(out.fetched()[i], i / 60 * 1000 + i % 60);
}

/* --- shuffles and votes ------------------------------------------------------------------------------------------- */

enum { SHUFFLES = 9 };

__global__ void shuffles(int *out) {
    int lane = (int)threadIdx.x;
    int *mine = out + lane * SHUFFLES;
    mine[0] = __shfl_sync(0xffffffffu, lane, lane + 1);
    mine[1] = __shfl_sync(0xffffffffu, lane, 2, 8);
    mine[2] = __shfl_up_sync(0xffffffffu, lane, 3);
    mine[3] = __shfl_down_sync(0xffffffffu, lane, 3, 16);
    mine[4] = __shfl_xor_sync(0xffffffffu, lane, 5);
    mine[5] = (int)__ballot_sync(0xffffffffu, lane % 3 == 0);
    mine[6] = __any_sync(0xffffffffu, lane == 31) + 2 * __all_sync(0xffffffffu, lane < 31);
    mine[7] = -1;
    if (lane < 8) mine[7] = __shfl_sync(0xffu, lane, 7); /* a part of the warp, while the rest goes on */
    mine[8] = __syncthreads_count(lane % 2) + 100 * __syncthreads_or(lane == 3) + 1000 * __syncthreads_and(lane < 32);
}

static void test_shuffles_and_votes(void **) {
    device_vector<int> out(std::vector<int>(32 * SHUFFLES, -7));
    LAUNCH(shuffles, 1, 32, 0, out.device);
    finish();
    unsigned thirds = 0;
    for (int lane = 0; lane < 32; lane += 3) thirds |= 1u << lane;
    for (int lane = 0; lane < 32; lane++) {
        const int *mine = &out.fetched()[(size_t)(lane * SHUFFLES)];
        assert_int_equal(mine[0], (lane + 1) % 32);
        assert_int_equal(mine[1], lane / 8 * 8 + 2);
        assert_int_equal(mine[2], lane < 3 ? lane : lane - 3);
        assert_int_equal(mine[3], lane % 16 + 3 < 16 ? lane + 3 : lane);
        assert_int_equal(mine[4], lane ^ 5);
        assert_int_equal((unsigned)mine[5], thirds);
        assert_int_equal(mine[6], 1);
        assert_int_equal(mine[7], lane < 8 ? 7 : -1);
        assert_int_equal(mine[8], 1116);
    }
}

/* --- the matrix product ------------------------------------------------------------------------------------------- */

/* One tile: a (16 x 16) by copy_16 and ldmatrix, b (16 x 8, row-major) by ldmatrix_x2_trans, d (16 x 8). */
__global__ void tile_product(float *d, const bf16 *a, const bf16 *b) {
    bf16 *sa = shared_memory<bf16>(), *sb = sa + 256;
    int lane = (int)threadIdx.x, g = lane / 4, t = lane % 4;
    copy_16(sa + 8 * lane, a + 8 * lane, true);
    if (lane < 16) copy_16(sb + 8 * lane, b + 8 * lane, true);
    copy_commit();
    copy_wait<0>();
    __syncthreads();
    uint32_t fa[4], fb[2];
    ldmatrix_x4(fa, sa + (lane % 16) * 16 + lane / 16 * 8);
    ldmatrix_x2_trans(fb, sb + (lane % 16) * 8);
    float sum[4] = {};
    mma_m16n8k16(sum, fa, fb);
    mma_m16n8k16(sum, fa, fb);
    d[g * 8 + 2 * t] = sum[0];
    d[g * 8 + 2 * t + 1] = sum[1];
    d[(g + 8) * 8 + 2 * t] = sum[2];
    d[(g + 8) * 8 + 2 * t + 1] = sum[3];
}

static void test_matrix_product(void **) {
    std::vector<bf16> a(256), b(128);
    for (size_t i = 0; i < a.size(); i++) a[i] = to_bf16((float)((int)(i * 7 % 13) - 6));
    for (size_t i = 0; i < b.size(); i++) b[i] = to_bf16((float)((int)(i * 5 % 11) - 4));
    device_vector<bf16> da(a), db(b);
    device_vector<float> d(std::vector<float>(128, NAN));
    LAUNCH(tile_product, 1, 32, (256 + 128) * sizeof(bf16), d.device, da.device, db.device);
    finish();
    for (size_t i = 0; i < 16; i++)
        for (size_t j = 0; j < 8; j++) {
            float want = 0;
            for (size_t k = 0; k < 16; k++) want += to_float(a[i * 16 + k]) * to_float(b[k * 8 + j]);
            assert_true(d.fetched()[i * 8 + j] == 2 * want);
        }
}

/* --- graphs ------------------------------------------------------------------------------------------------------- */

__global__ void add_one(float *x, int count) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i < count) x[i] += 1;
}

struct step {
    float *x;
    int called;
};

static void do_step(void *context) {
    step *s = static_cast<step *>(context);
    s->called++;
    LAUNCH(add_one, 2, 32, 0, s->x, 50);
    LAUNCH(add_one, 2, 32, 0, s->x, 49);
}

static void test_a_replayed_step_runs_its_launches_again(void **) {
    device_vector<float> x(std::vector<float>(50, 0));
    step s = {x.device, 0};
    for (int i = 0; i < 5; i++) cuda_replay(NULL, 42, do_step, &s);
    finish();
    assert_int_equal(s.called, 2);
    assert_true(x.fetched()[0] == 10 && x.fetched()[48] == 10 && x.fetched()[49] == 5);
    for (int i = 0; i < 3; i++) cuda_replay(NULL, 0, do_step, &s);
    assert_int_equal(s.called, 5);
}

static int open_device(void **) { return cuda_open() ? 1 : 0; }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_block_sum),
        cmocka_unit_test(test_every_thread_of_every_block_runs_once),
        cmocka_unit_test(test_shuffles_and_votes),
        cmocka_unit_test(test_matrix_product),
        cmocka_unit_test(test_a_replayed_step_runs_its_launches_again),
    };
    return cmocka_run_group_tests(tests, open_device, NULL);
}
