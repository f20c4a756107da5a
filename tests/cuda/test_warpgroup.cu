/* test_warpgroup: every order of operands and width of a warpgroup's product, against the same sum in float64. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <vector>

#include "kernels/cuda/warpgroup.cuh"
extern "C" {
#include <cmocka.h>

#include "kernels/cuda/backend.h"
#include "kernels/random.h"
}

static constexpr int DEPTH = 128, GROUPS = 2, ROWS = 64 * GROUPS;

template <operand_order ORDER, int MN> struct stored {
    static constexpr int ROWS_ = ORDER == BY_ROWS ? MN : DEPTH, COLUMNS = ORDER == BY_ROWS ? DEPTH : MN;
    using type = panels<ROWS_, COLUMNS>;
};
template <int N> static constexpr int WHOLE_PANELS = N < PANEL ? (int)PANEL : N;

/* d (ROWS, N) = 1 + a b, each group its 64 rows; HELD: `a` goes through registers. from: column of b's first. */
template <operand_order A, operand_order B, int N, bool HELD>
__global__ void __launch_bounds__(WARPGROUP *GROUPS) products(float *out, const bf16 *a, const bf16 *b, int from) {
    struct both {
        typename stored<A, ROWS>::type a;
        typename stored<B, 2 * WHOLE_PANELS<N>>::type b;
    } *m = shared_memory<both>();
    constexpr int THREADS = WARPGROUP * GROUPS;
    for (int i = (int)threadIdx.x; i < ROWS * DEPTH; i += THREADS) {
        int row = i / DEPTH, k = i % DEPTH;
        *(A == BY_ROWS ? m->a.at(row, k) : m->a.at(k, row)) = a[i];
    }
    for (int i = (int)threadIdx.x; i < 2 * WHOLE_PANELS<N> * DEPTH; i += THREADS) {
        int n = i / DEPTH, k = i % DEPTH;
        *(B == BY_ROWS ? m->b.at(n, k) : m->b.at(k, n)) = b[i];
    }
    shared_written();
    __syncthreads();
    int first = (int)threadIdx.x / WARPGROUP * 64, lane = (int)threadIdx.x % WARP;
    int row = first + (int)threadIdx.x % WARPGROUP / WARP * 16 + lane / 4;
    float d[N / 8][4];
#pragma unroll
    for (int i = 0; i < N / 8 * 4; i++) d[i / 4][i % 4] = 1;
    if constexpr (HELD) {
        uint32_t left[DEPTH / 16][4];
#pragma unroll
        for (int step = 0; step < DEPTH / 16; step++) {
            int k = 16 * step + lane % 4 * 2;
#pragma unroll
            for (int i = 0; i < 4; i++) left[step][i] = A == BY_ROWS ? *m->a.pair(row + i % 2 * 8, k + i / 2 * 8) : 0;
        }
        products_begin();
#pragma unroll
        for (int step = 0; step < DEPTH / 16; step++) multiply<B>(d, left[step], &m->b, from, 16 * step);
    } else {
        products_begin();
#pragma unroll
        for (int k = 0; k < DEPTH; k += 16) multiply<A, B>(d, &m->a, first, &m->b, from, k);
    }
    products_commit();
    products_wait<0>(d);
#pragma unroll
    for (int i = 0; i < N / 8 * 4; i++)
        out[(row + i % 4 / 2 * 8) * N + i / 4 * 8 + lane % 4 * 2 + i % 2] = d[i / 4][i % 4];
}

/* Multiples of 1/8, which bf16 has. */
static std::vector<float> draws(size_t count, const char *consumer) {
    struct random_stream random = random_stream(11, consumer);
    std::vector<float> x(count);
    for (size_t i = 0; i < count; i++) x[i] = (float)(rint(random_normal(random, i) * 8) / 8);
    return x;
}

static bf16 *rounded_on_device(const std::vector<float> &x) {
    std::vector<uint16_t> bits(x.size());
    for (size_t i = 0; i < x.size(); i++) {
        uint32_t whole;
        memcpy(&whole, &x[i], sizeof whole);
        bits[i] = (uint16_t)(whole >> 16);
    }
    void *to = NULL;
    assert_int_equal(cudaMalloc(&to, bits.size() * 2), cudaSuccess);
    cuda_upload(NULL, to, bits.data(), bits.size() * 2);
    return static_cast<bf16 *>(to);
}

template <operand_order A, operand_order B, int N, bool HELD> static void check(int from) {
    size_t columns = 2 * (size_t)WHOLE_PANELS<N>;
    std::vector<float> a = draws(ROWS * DEPTH, "a"), b = draws(columns * DEPTH, "b"), out(ROWS * N);
    bf16 *device_a = rounded_on_device(a), *device_b = rounded_on_device(b);
    float *device_out = NULL;
    assert_int_equal(cudaMalloc(&device_out, out.size() * sizeof(float)), cudaSuccess);
    LAUNCH((products<A, B, N, HELD>), 1, WARPGROUP * GROUPS, (ROWS + columns) * DEPTH * sizeof(bf16), device_out,
           device_a, device_b, from);
    cuda_download(NULL, out.data(), device_out, out.size() * sizeof(float));
    status s = cuda_finish(NULL);
    if (s) fail_msg("%s", status_text(s));
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < N; j++) {
            double want = 1;
            for (size_t k = 0; k < DEPTH; k++)
                want += (double)a[i * DEPTH + k] * (double)b[(j + (size_t)from) * DEPTH + k];
            if (fabs((double)out[i * N + j] - want) > 1e-4)
                fail_msg("a %d, b %d, N %d, held %d, from %d: d(%zu,%zu) is %g in place of %g", A, B, N, HELD, from, i,
                         j, (double)out[i * N + j], want);
        }
    cudaFree(device_a), cudaFree(device_b), cudaFree(device_out);
}

template <operand_order A, operand_order B> static void check_widths() {
    check<A, B, 32, false>(0);
    check<A, B, 32, false>(32);
    check<A, B, 64, false>(0);
    check<A, B, 64, false>(64);
    check<A, B, 128, false>(0);
}

static void test_both_by_rows(void **) { check_widths<BY_ROWS, BY_ROWS>(); }
static void test_left_by_rows(void **) { check_widths<BY_ROWS, BY_COLUMNS>(); }
static void test_left_by_columns(void **) { check_widths<BY_COLUMNS, BY_ROWS>(); }
static void test_both_by_columns(void **) { check_widths<BY_COLUMNS, BY_COLUMNS>(); }
static void test_left_held(void **) {
    check<BY_ROWS, BY_ROWS, 32, true>(32);
    check<BY_ROWS, BY_ROWS, 64, true>(0);
    check<BY_ROWS, BY_ROWS, 128, true>(0);
    check<BY_ROWS, BY_COLUMNS, 32, true>(32);
    check<BY_ROWS, BY_COLUMNS, 64, true>(64);
    check<BY_ROWS, BY_COLUMNS, 128, true>(0);
}

static int open_device(void **) { return cuda_open() ? 1 : 0; }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_both_by_rows),    cmocka_unit_test(test_left_by_rows),
        cmocka_unit_test(test_left_by_columns), cmocka_unit_test(test_both_by_columns),
        cmocka_unit_test(test_left_held),
    };
    return cmocka_run_group_tests(tests, open_device, NULL);
}
