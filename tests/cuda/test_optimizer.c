/* test_optimizer: memory, the gradient's tree and norm, Adam, Muon's steps and averages on CUDA against the CPU's. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

/* Both sides calculate in float; only the last place may differ. */
static const double TOLERANCE = 1e-6;

static const size_t counts[] = {1, 37, 1024, 4099};
enum { COUNTS = sizeof counts / sizeof *counts, MOST_PARTS = 16 };

static struct lane host_lane;

static void memory_is_copied_and_cleared(void **state) {
    (void)state;
    enum { COUNT = 100 };
    struct device_case c;
    case_begin(&c, 0);
    real *x = random_reals("x", COUNT, 1);
    const real zeros[COUNT] = {0};
    real *from = device_reals(&c, x, COUNT), *to = device_poisoned_reals(&c, COUNT);
    cuda_copy(&c.lane, to, from, COUNT * DEVICE_REAL);
    cuda_clear(&c.lane, from, COUNT * DEVICE_REAL);
    assert_same("copy", host_reals(&c, to, COUNT), x, COUNT * sizeof *x);
    assert_same("cleared", host_reals(&c, from, COUNT), zeros, sizeof zeros);
    free(x);
    case_end(&c);
}

/* The tree that cpu_add_tree is, every sum rounded as the device's are. */
static void add_in_float(real *const *parts, int part_count, size_t count) {
    for (int apart = 1; apart < part_count; apart *= 2)
        for (int k = 0; k < part_count; k += 2 * apart)
            for (size_t i = 0; i < count; i++) parts[k][i] = (float)(parts[k][i] + parts[k + apart][i]);
}

static void check_tree(int part_count, size_t count) {
    struct device_case c;
    case_begin(&c, cuda_tensor_scratch(count));
    real *host[MOST_PARTS] = {NULL}, *rounded[MOST_PARTS] = {NULL}, *device[MOST_PARTS] = {NULL};
    int32_t want = -1, *finite = device_copy(&c, &want, sizeof want);
    for (int k = 0; k < part_count; k++) {
        char name[24];
        snprintf(name, sizeof name, "part %d", k);
        host[k] = random_reals(name, count, k % 3 ? 1 : 1e4);
        rounded[k] = random_reals(name, count, k % 3 ? 1 : 1e4);
        device[k] = device_reals(&c, host[k], count);
    }
    cpu_add_tree(&host_lane, host, part_count, count, &want);
    cuda_add_tree(&c.lane, device, part_count, count, finite);
    add_in_float(rounded, part_count, count);
    assert_same("sum", host_reals(&c, device[0], count), rounded[0], count * sizeof **rounded);
    assert_close("sum", host_reals(&c, device[0], count), host[0], count, TOLERANCE);
    assert_same("finite", host_bytes(&c, finite, sizeof want), &want, sizeof want);
    for (int k = 0; k < part_count; k++) free(host[k]), free(rounded[k]);
    case_end(&c);
}

static void the_tree_has_the_bits_of_the_cpus(void **state) {
    (void)state;
    for (int parts = 1; parts <= MOST_PARTS; parts *= 2)
        for (int i = 0; i < COUNTS; i++) check_tree(parts, counts[i]);
}

/* Whether the sum is finite when the parts hold these values at every `apart`th place from `place` on. */
static int32_t finite_with(real first, real second, size_t place, size_t apart) {
    enum { SIZE = 1031 };
    struct device_case c;
    case_begin(&c, cuda_tensor_scratch(SIZE));
    real a[SIZE] = {0}, b[SIZE] = {0};
    for (size_t i = place; i < SIZE; i += apart) a[i] = first, b[i] = second;
    real *parts[2] = {device_reals(&c, a, SIZE), device_reals(&c, b, SIZE)};
    int32_t *finite = device_copy(&c, &(int32_t){-1}, sizeof *finite);
    cuda_add_tree(&c.lane, parts, 2, SIZE, finite);
    int32_t *got = host_bytes(&c, finite, sizeof *finite), answer = *got;
    free(got);
    case_end(&c);
    return answer;
}

static void the_tree_tells_a_sum_that_is_not_finite(void **state) {
    (void)state;
    const size_t places[3] = {0, 1026, 1030}, aparts[3] = {2000, 100, 1}; /* one place, some, all from there on */
    for (int i = 0; i < 9; i++) {
        const size_t place = places[i % 3], apart = aparts[i / 3];
        assert_int_equal(finite_with(1, (real)INFINITY, place, apart), 0);
        assert_int_equal(finite_with((real)NAN, 1, place, apart), 0);
        assert_int_equal(finite_with(FLT_MAX, FLT_MAX, place, apart), 0);
        assert_int_equal(finite_with(FLT_MAX, -FLT_MAX, place, apart), 1);
    }
}

static void check_clip(size_t count, double limit) {
    struct device_case c;
    case_begin(&c, cuda_tensor_scratch(count));
    real *g = random_reals("g", count, 3), *device = device_reals(&c, g, count), *again = device_reals(&c, g, count);
    cpu_clip_by_norm(&host_lane, g, count, limit);
    cuda_clip_by_norm(&c.lane, device, count, limit);
    cuda_clip_by_norm(&c.lane, again, count, limit);
    real *got = host_reals(&c, device, count);
    assert_same("clipped, twice", host_reals(&c, again, count), got, count * sizeof *g);
    if (limit > 1e6) assert_memory_equal(got, g, count * sizeof *g);
    assert_close("clipped", got, g, count, TOLERANCE);
    free(g);
    case_end(&c);
}

static void long_gradients_are_cut_and_short_ones_left_alone(void **state) {
    (void)state;
    for (int i = 0; i < COUNTS; i++) {
        check_clip(counts[i], 0.25);
        check_clip(counts[i], 1e9);
    }
}

static void check_adam(size_t count) {
    struct device_case c;
    case_begin(&c, 0);
    const struct adam_settings settings = adam_settings_at(0.02, 0.9, 0.95, 1e-8, 3);
    real *w = random_reals("w", count, 1), *m = random_reals("m", count, 1), *v = random_reals("v", count, 1);
    real *g = random_reals("g", count, 1);
    for (size_t i = 0; i < count; i++) v[i] = (float)(v[i] * v[i]);
    real *device_w = device_reals(&c, w, count), *device_m = device_reals(&c, m, count);
    real *device_v = device_reals(&c, v, count);
    cpu_adam_step(&host_lane, w, m, v, g, count, &settings);
    cuda_adam_step(&c.lane, device_w, device_m, device_v, device_reals(&c, g, count), count,
                   device_copy(&c, &settings, sizeof settings));
    assert_close("w", host_reals(&c, device_w, count), w, count, TOLERANCE);
    assert_close("m", host_reals(&c, device_m, count), m, count, TOLERANCE);
    assert_close("v", host_reals(&c, device_v, count), v, count, TOLERANCE);
    free(w), free(m), free(v), free(g);
    case_end(&c);
}

static void check_muon(size_t count) {
    struct device_case c;
    case_begin(&c, 0);
    real *momentum = random_reals("momentum", count, 1), *g = random_reals("g", count, 1);
    real *w = random_reals("w", count, 1), *average = random_reals("average", count, 1);
    real *update = malloc(count * sizeof *update);
    real *device_momentum = device_reals(&c, momentum, count), *device_update = device_poisoned_reals(&c, count);
    real *device_w = device_reals(&c, w, count), *device_average = device_reals(&c, average, count);
    const struct muon_settings settings = muon_settings_of(0.95, 0.025, 0.04);
    const struct muon_settings *device_settings = device_copy(&c, &settings, sizeof settings);
    cpu_muon_momentum(&host_lane, update, momentum, g, count, &settings);
    cuda_muon_momentum(&c.lane, device_update, device_momentum, device_reals(&c, g, count), count, device_settings);
    cpu_muon_apply(&host_lane, w, update, count, &settings, 1.2);
    cuda_muon_apply(&c.lane, device_w, device_update, count, device_settings, 1.2);
    cpu_moving_average(&host_lane, average, w, count, 0.997);
    cuda_moving_average(&c.lane, device_average, device_w, count, 0.997);
    assert_close("momentum", host_reals(&c, device_momentum, count), momentum, count, TOLERANCE);
    assert_close("update", host_reals(&c, device_update, count), update, count, TOLERANCE);
    assert_close("w", host_reals(&c, device_w, count), w, count, TOLERANCE);
    assert_close("average", host_reals(&c, device_average, count), average, count, TOLERANCE);
    free(momentum), free(g), free(w), free(average), free(update);
    case_end(&c);
}

static void check_normalize_rows(size_t rows, size_t cols) {
    struct device_case c;
    case_begin(&c, 0);
    size_t count = rows * cols;
    real *x = random_reals("x", count, 5);
    memset(x, 0, cols * sizeof *x); /* a row of zeros stays */
    real *device = device_reals(&c, x, count);
    cpu_normalize_rows(&host_lane, x, rows, cols);
    cuda_normalize_rows(&c.lane, device, rows, cols);
    assert_close("rows", host_reals(&c, device, count), x, count, TOLERANCE);
    free(x);
    case_end(&c);
}

static void steps_agree_with_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < COUNTS; i++) {
        check_adam(counts[i]);
        check_muon(counts[i]);
    }
    check_normalize_rows(7, 13);
    check_normalize_rows(11, 516);
    check_normalize_rows(2, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_copied_and_cleared),
        cmocka_unit_test(the_tree_has_the_bits_of_the_cpus),
        cmocka_unit_test(the_tree_tells_a_sum_that_is_not_finite),
        cmocka_unit_test(long_gradients_are_cut_and_short_ones_left_alone),
        cmocka_unit_test(steps_agree_with_the_cpu),
    };
    return cmocka_run_group_tests_name("optimisers on CUDA", tests, NULL, NULL);
}
