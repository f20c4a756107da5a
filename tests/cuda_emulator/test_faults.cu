/* test_faults: each kind of wrong kernel is reported, with its name, block and thread; each runs in a child process.
 *
 * Faults of memory are seen only where kernels are built with checks of each access (SAN=address,...): elsewhere their
 * tests are skipped. The others are seen in every build. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <initializer_list>
#include <vector>

#include "kernels/cuda/tensor_core.cuh"
extern "C" {
#include <cmocka.h>

#include "kernels/cuda/backend.h"
}
#include "tests/cuda_emulator/access.h"

/* Runs `faulty` in a child; it must end with the status, and say each of the words on stderr. */
static void assert_ends(void (*faulty)(), int status, std::initializer_list<const char *> words) {
    int ends[2], state;
    char text[4096];
    assert_int_equal(pipe(ends), 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        faulty();
        _exit(0);
    }
    close(ends[1]);
    size_t count = 0;
    ssize_t got;
    while (count < sizeof text - 1 && (got = read(ends[0], text + count, sizeof text - 1 - count)) > 0)
        count += (size_t)got;
    text[count] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &state, 0), child);
    if (!WIFEXITED(state) || WEXITSTATUS(state) != status) fail_msg("no fault, but state %x: %s", state, text);
    for (const char *word : words)
        if (!strstr(text, word)) fail_msg("'%s' is not in: %s", word, text);
}
static void assert_fault(void (*faulty)(), std::initializer_list<const char *> words) {
    assert_ends(faulty, EMULATOR_FAULT, words);
}

extern "C" __attribute__((weak)) void __asan_init(); /* NULL in a program without AddressSanitizer */

/* With it there are checks too, or the build has lost them. */
static void needs_access_checks() {
    if (__asan_init) assert_true(access_checked());
    if (!access_checked()) skip();
}

/* `bytes` of device memory that hold zeros. */
static float *zeros(size_t bytes) {
    void *memory;
    if (cuda_memory_new(&memory, bytes, "a test")) abort();
    return static_cast<float *>(memory);
}

/* --- barriers ----------------------------------------------------------------------------------------------------- */

__global__ void barrier_without_those_who_ended(float *x) {
    if (threadIdx.x == 5) return;
    __syncthreads();
    x[threadIdx.x] = 1;
}
__global__ void barrier_of_one_branch(float *x) {
    if (threadIdx.x < 32)
        __syncthreads();
    else
        x[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 0);
    if (threadIdx.x == 40) __syncwarp();
}

static void test_divergent_barriers(void **) {
    assert_fault([] { LAUNCH(barrier_without_those_who_ended, 1, 64, 0, zeros(256)); },
                 {"kernel barrier_without_those_who_ended, block (0,0,0), thread (", "divergent barrier", "63 of 64",
                  "EMULATOR_SEED="});
    assert_fault([] { LAUNCH(barrier_of_one_branch, dim3(1, 1, 1), 64, 0, zeros(256)); },
                 {"kernel barrier_of_one_branch", "thread (40,0,0)", "__syncwarp"});
}

/* --- lanes -------------------------------------------------------------------------------------------------------- */

__global__ void shuffle_without_half_the_warp(float *x) {
    if (threadIdx.x < 16) x[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 0);
}
__global__ void shuffle_outside_its_mask(float *x) { x[threadIdx.x] = __shfl_sync(0x7fffffffu, x[threadIdx.x], 0); }
__global__ void shuffle_from_outside_its_mask(float *x) {
    if (threadIdx.x < 8) x[threadIdx.x] = __shfl_sync(0xffu, x[threadIdx.x], 8);
}
__global__ void ballot_with_two_masks(int *x) {
    if (threadIdx.x < 32) x[threadIdx.x] = (int)__ballot_sync(threadIdx.x % 2 ? 0xffffffffu : 0x55555555u, 1);
}
__global__ void shuffle_and_ballot(float *x) {
    if (threadIdx.x % 2)
        x[threadIdx.x] = __shfl_sync(0xffffffffu, x[threadIdx.x], 0);
    else
        x[threadIdx.x] = (float)__ballot_sync(0xffffffffu, 1);
}
__global__ void product_of_half_a_warp(float *x) {
    float d[4] = {};
    uint32_t a[4] = {}, b[2] = {};
    if (threadIdx.x % 2) mma_m16n8k16(d, a, b);
    x[threadIdx.x] = d[0];
}

static void test_missing_lanes(void **) {
    assert_fault([] { LAUNCH(shuffle_without_half_the_warp, 1, 32, 0, zeros(128)); },
                 {"shuffle_without_half_the_warp", "__shfl_sync", "has ended"});
    assert_fault([] { LAUNCH(shuffle_outside_its_mask, 1, 32, 0, zeros(128)); },
                 {"thread (31,0,0)", "lane 31, which is not in it"});
    assert_fault([] { LAUNCH(shuffle_from_outside_its_mask, 1, 32, 0, zeros(128)); }, {"reads lane 8"});
    assert_fault([] { LAUNCH(ballot_with_two_masks, 1, 32, 0, reinterpret_cast<int *>(zeros(128))); },
                 {"__ballot_sync", "mask"});
    assert_fault([] { LAUNCH(shuffle_and_ballot, 1, 32, 0, zeros(128)); }, {"while other lanes wait in"});
    assert_fault([] { LAUNCH(product_of_half_a_warp, 1, 32, 0, zeros(128)); }, {"mma_m16n8k16"});
    assert_fault([] { LAUNCH(shuffle_outside_its_mask, 1, 20, 0, zeros(128)); }, {"which the block does not have"});
}

/* --- addresses ---------------------------------------------------------------------------------------------------- */

__global__ void write_at(float *x, int at) {
    if (threadIdx.x == 3 && blockIdx.x == 1) x[at] = 1;
}
__global__ void read_at(float *x, const float *from, int at) {
    if (threadIdx.x == 3) x[0] = from[at];
}
__global__ void write_shared_at(float *x, int at) {
    float *tile = shared_memory<float>();
    if (threadIdx.x == 3) tile[at] = 1;
    x[threadIdx.x] = 1;
}
__global__ void copy_to(float *x, int shared_byte, int global_byte) {
    char *tile = shared_memory<char>();
    copy_16(tile + shared_byte, reinterpret_cast<char *>(x) + global_byte, true);
    copy_commit();
    copy_wait<0>();
}
__global__ void load_matrices_at(float *x, int byte) {
    char *tile = shared_memory<char>();
    uint32_t r[4];
    ldmatrix_x4(r, tile + byte);
    x[threadIdx.x] = (float)r[0];
}
struct host_array {
    float *const *rows;
};
__global__ void read_through(host_array x) { x.rows[0][0] = 1; }

static void test_out_of_bounds(void **) {
    needs_access_checks();
    assert_fault([] { LAUNCH(write_at, 2, 32, 0, zeros(402), 101); },
                 {"kernel write_at, block (1,0,0), thread (3,0,0)", "a write of 4 bytes at byte 404 of", "of 402",
                  "out of bounds"});
    assert_fault([] { LAUNCH(write_at, 2, 32, 0, zeros(402), 100); }, {"a write of 4 bytes at byte 400"});
    assert_fault([] { LAUNCH(write_at, 2, 32, 0, zeros(402), -1); }, {"kernel write_at", "out of bounds"});
    assert_fault([] { LAUNCH(read_at, 1, 32, 0, zeros(4), zeros(64), 1 << 20); }, {"kernel read_at"});
    assert_fault([] { LAUNCH(write_shared_at, 1, 32, 100, zeros(128), 25); },
                 {"a write of 4 bytes at byte 100 of shared memory of 100", "thread (3,0,0)"});
}

static void test_copies_and_matrices_out_of_place(void **) {
    assert_fault([] { LAUNCH(copy_to, 1, 1, 64, zeros(64), 0, 56); }, {"copy_16", "not a multiple of 16"});
    assert_fault([] { LAUNCH(copy_to, 1, 1, 64, zeros(64), 0, 64); }, {"copy_16 reads", "not all in device memory"});
    assert_fault([] { LAUNCH(copy_to, 1, 1, 64, zeros(64), 64, 0); }, {"copy_16", "not within the block's 64 bytes"});
    assert_fault([] { LAUNCH(copy_to, 1, 1, 64, zeros(64), 8, 0); }, {"copy_16", "not a multiple of 16"});
    assert_fault([] { LAUNCH(load_matrices_at, 1, 32, 512, zeros(128), 8); }, {"ldmatrix", "not a multiple of 16"});
    assert_fault([] { LAUNCH(load_matrices_at, 1, 32, 512, zeros(128), 512); }, {"ldmatrix", "not within"});
}

static void test_memory_of_the_host(void **) {
    static float *row;
    needs_access_checks();
    assert_fault(
        [] {
            float *rows[1] = {zeros(4)}, **on_heap = static_cast<float **>(malloc(sizeof rows));
            *on_heap = rows[0];
            LAUNCH(read_through, 1, 1, 0, host_array{on_heap});
        },
        {"kernel read_through", "the host's"});
    assert_fault([] { LAUNCH(write_at, 2, 32, 0, reinterpret_cast<float *>(&row), 0); }, {"the host's"});
}

/* --- what nobody wrote -------------------------------------------------------------------------------------------- */

__global__ void sum_of_unwritten_tile(float *x) {
    float *tile = shared_memory<float>();
    if (threadIdx.x != 7) tile[threadIdx.x] = 1;
    __syncthreads();
    x[threadIdx.x] = tile[31 - threadIdx.x];
}
__global__ void write_all_but(float *x, int skipped) {
    if ((int)threadIdx.x != skipped) x[threadIdx.x] = 1;
}
__global__ void write_all_but_in_blocks(float *x, int skipped) {
    int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
    if (i != skipped) x[i] = 1;
}
/* Memory marked as tests mark outputs. */
static float *poisoned(size_t bytes) {
    float *memory = zeros(bytes);
    std::vector<unsigned char> ones(bytes, 0xff);
    cuda_upload(NULL, memory, ones.data(), bytes);
    return memory;
}

static void test_unwritten(void **) {
    needs_access_checks();
    assert_fault([] { LAUNCH(sum_of_unwritten_tile, 1, 32, 128, zeros(128)); },
                 {"kernel sum_of_unwritten_tile", "thread (24,0,0)", "a read of 4 bytes at byte 28 of shared",
                  "nothing has written it in this block"});
    assert_fault([] { LAUNCH(read_at, 1, 32, 0, zeros(4), poisoned(64), 9); },
                 {"at byte 36 of an allocation of 64", "nothing has written it"});
    assert_fault(
        [] {
            float *x = poisoned(128), host[32];
            LAUNCH(write_all_but, 1, 32, 0, x, 11);
            cuda_download(NULL, host, x, sizeof host);
        },
        {"a download reads byte 44 of an allocation of 128 bytes, which nothing has written",
         "kernel write_all_but, block (0,0,0), thread (10,0,0) wrote byte 40"});
    assert_fault(
        [] {
            float *x = poisoned(512), host[128];
            LAUNCH(write_all_but_in_blocks, 4, 32, 0, x, 101);
            LAUNCH(write_all_but, 1, 32, 0, zeros(128), 32);
            cuda_download(NULL, host, x, sizeof host);
        },
        {"byte 404 of an allocation of 512", "kernel write_all_but_in_blocks, block (3,0,0), thread (4,0,0) wrote"});
    assert_fault(
        [] {
            float host[32];
            cuda_download(NULL, host, poisoned(128), sizeof host);
        },
        {"no kernel has written any of it"});
}

static void test_fresh_memory(void **) {
    float *fresh;
    uint32_t bits = 0;
    assert_int_equal(cudaMalloc(&fresh, 4), cudaSuccess);
    if (!access_checked()) cuda_download(NULL, &bits, fresh, 4); /* a NaN, if nobody checks */
    assert_int_equal(bits, access_checked() ? 0 : 0xffffffffu);
    cuda_memory_free(fresh);
}

/* --- order -------------------------------------------------------------------------------------------------------- */

__global__ void neighbours_without_a_barrier(float *x) {
    float *tile = shared_memory<float>();
    tile[threadIdx.x] = x[threadIdx.x];
    x[threadIdx.x] = tile[threadIdx.x ^ 1];
}
__global__ void overwritten_while_others_read(float *x) {
    float *tile = shared_memory<float>();
    tile[threadIdx.x] = x[threadIdx.x];
    __syncthreads();
    float y = tile[(threadIdx.x + 32) % 64];
    tile[threadIdx.x] = y;
}
__global__ void warp_barrier_for_two_warps(float *x) {
    float *tile = shared_memory<float>();
    tile[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    x[threadIdx.x] = tile[threadIdx.x ^ 32];
}
__global__ void shuffle_as_a_barrier(float *x) {
    float *tile = shared_memory<float>();
    tile[threadIdx.x] = x[threadIdx.x];
    float y = __shfl_sync(0xffffffffu, x[threadIdx.x], 0);
    x[threadIdx.x] = y + tile[threadIdx.x ^ 1];
}
__global__ void blocks_that_share_a_sum(float *x) {
    if (threadIdx.x == 0) x[0] += (float)blockIdx.x;
}
__global__ void read_what_the_next_block_writes(float *x) { x[blockIdx.x] = x[(blockIdx.x + 1) % gridDim.x] + 1; }
__global__ void copy_without_a_wait(float *x) {
    float *tile = shared_memory<float>();
    copy_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    copy_commit();
    float y = tile[4 * threadIdx.x];
    copy_wait<0>();
    x[threadIdx.x] = y;
}
__global__ void copy_of_another_without_a_barrier(float *x) {
    float *tile = shared_memory<float>();
    copy_16(tile + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    copy_commit();
    copy_wait<0>();
    x[threadIdx.x] = tile[4 * (threadIdx.x ^ 1)];
}
__global__ void copy_that_nobody_awaits(float *x) {
    copy_16(shared_memory<float>() + 4 * threadIdx.x, x + 4 * threadIdx.x, true);
    copy_commit();
}

static void test_order(void **) {
    needs_access_checks();
    assert_fault([] { LAUNCH(neighbours_without_a_barrier, 1, 32, 128, zeros(128)); },
                 {"kernel neighbours_without_a_barrier, block (0,0,0), thread ("});
    assert_fault([] { LAUNCH(overwritten_while_others_read, 1, 64, 256, zeros(256)); },
                 {"a race: thread ", "and no barrier is between"});
    assert_fault([] { LAUNCH(warp_barrier_for_two_warps, 1, 64, 256, zeros(256)); }, {"shared memory"});
    assert_fault([] { LAUNCH(shuffle_as_a_barrier, 1, 32, 128, zeros(128)); },
                 {"a race: thread ", "wrote it, and no barrier is between"});
    assert_fault([] { LAUNCH(blocks_that_share_a_sum, 3, 32, 0, zeros(128)); },
                 {"a race: thread 0 of block (", "an allocation of 128"});
    assert_fault([] { LAUNCH(read_what_the_next_block_writes, 3, 1, 0, zeros(128)); }, {"a race"});
    assert_fault([] { LAUNCH(copy_without_a_wait, 1, 32, 512, zeros(512)); }, {"a copy_16 of thread"});
    assert_fault([] { LAUNCH(copy_of_another_without_a_barrier, 1, 32, 512, zeros(512)); },
                 {"kernel copy_of_another_without_a_barrier", "shared memory of 512"});
}

static void test_copies_that_nobody_awaits(void **) {
    assert_fault([] { LAUNCH(copy_that_nobody_awaits, 1, 32, 512, zeros(512)); }, {"copy_16 are under way"});
}

/* --- no faults ---------------------------------------------------------------------------------------------------- */

/* Everything that the wrong kernels above lack is there. */
__global__ void ordered(float *x, unsigned *count) {
    float *tile = shared_memory<float>();
    int i = (int)threadIdx.x;
    tile[i] = x[64 * blockIdx.x + i];
    __syncwarp();
    float y = tile[i ^ 1];
    __syncthreads();
    y += tile[(i + 32) % 64];
    __syncthreads();
    tile[i] = y;
    if (i < 4) {
        __syncwarp(0xfu);
        y += tile[i ^ 3];
        __syncwarp(0xfu);
        tile[i ^ 3] = y;
        __syncwarp(0xfu);
    }
    x[64 * blockIdx.x + i] = tile[i];
    atomicAdd(count, 1u);
}

static void test_right_kernels_pass(void **) {
    unsigned count = 0;
    float *x = zeros(3 * 256), *counter = zeros(4);
    LAUNCH(ordered, 3, 64, 256, x, reinterpret_cast<unsigned *>(counter));
    cuda_download(NULL, &count, counter, sizeof count);
    assert_int_equal(count, 3 * 64);
    cuda_memory_free(x);
    cuda_memory_free(counter);
    assert_null(cuda_finish(NULL));
}

/* --- alignment: the compiler's check, which every build has ------------------------------------------------------- */

__global__ void reads_two_at_an_odd_place(float *x) {
    float2 two = *reinterpret_cast<const float2 *>(x + 1);
    x[threadIdx.x] = two.x + two.y;
}

static void test_misaligned_accesses(void **) {
    assert_ends([] { LAUNCH(reads_two_at_an_odd_place, 1, 1, 0, zeros(64)); }, 1,
                {"test_faults.cu", "misaligned address", "float2", "8 byte alignment"});
}

/* --- calls of the host -------------------------------------------------------------------------------------------- */

static void expect_error(const char *word) {
    status s = cuda_finish(NULL);
    assert_non_null(s);
    if (!strstr(status_text(s), word)) fail_msg("'%s' is not in: %s", word, status_text(s));
    status_free(s);
    assert_null(cuda_finish(NULL));
}

static void test_launches_that_cannot_be(void **) {
    float *x = zeros(64);
    LAUNCH(write_all_but, 1, 1025, 0, x, 0);
    expect_error("write_all_but: invalid configuration");
    LAUNCH(write_all_but, 1, 32, (227 << 10) + 1, x, 0);
    expect_error("write_all_but: invalid argument");
    LAUNCH(write_all_but, dim3(1, 65536), 32, 0, x, 0);
    expect_error("invalid configuration");
    cuda_memory_free(x);
}

static void synchronises(void *) { cudaStreamSynchronize(device_stream()); }
static void allocates(void *memory) { cudaMalloc(static_cast<float **>(memory), 16); }

static void test_what_a_capture_forbids(void **) {
    float *memory;
    for (int i = 0; i < 2; i++) cuda_replay(NULL, 7, synchronises, NULL);
    expect_error("cudaStreamEndCapture");
    cuda_replay(NULL, 8, allocates, &memory);
    cuda_memory_free(memory);
    cuda_replay(NULL, 8, allocates, &memory);
    expect_error("cudaStreamEndCapture");
    cudaGetLastError();
}

static void test_memory_that_is_not_there(void **) {
    void *memory;
    status s = cuda_memory_new(&memory, (size_t)1 << 50, "the test's tensor");
    assert_non_null(s);
    assert_non_null(strstr(status_text(s), "no device memory for the test's tensor"));
    status_free(s);
    assert_null(cuda_finish(NULL));
    float *x = zeros(64), host[16];
    cuda_upload(NULL, host, host, sizeof host); /* the wrong way round */
    expect_error("upload");
    assert_fault([] { cuda_download(NULL, malloc(128), zeros(64), 65); }, {"a copy of 65 bytes at byte 0"});
    cuda_memory_free(x);
}

static int open_device(void **) { return cuda_open() ? 1 : 0; }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_divergent_barriers),
        cmocka_unit_test(test_missing_lanes),
        cmocka_unit_test(test_out_of_bounds),
        cmocka_unit_test(test_copies_and_matrices_out_of_place),
        cmocka_unit_test(test_memory_of_the_host),
        cmocka_unit_test(test_unwritten),
        cmocka_unit_test(test_fresh_memory),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_copies_that_nobody_awaits),
        cmocka_unit_test(test_misaligned_accesses),
        cmocka_unit_test(test_right_kernels_pass),
        cmocka_unit_test(test_launches_that_cannot_be),
        cmocka_unit_test(test_what_a_capture_forbids),
        cmocka_unit_test(test_memory_that_is_not_there),
    };
    return cmocka_run_group_tests(tests, open_device, NULL);
}
