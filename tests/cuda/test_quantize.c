/* test_quantize: weights as the forward pass sees them, integer rows, Hessians, GPTQ and RoPE's table on CUDA against
 * the CPU's: the same scales and the same integers, one of which would already be far above FLOAT_TOLERANCE. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

static struct lane host_lane;

static void check_ternary(size_t count, real size) {
    struct device_case c;
    case_begin(&c, cuda_tensor_scratch(count));
    size_t bytes = count * sizeof(real);
    real *w = random_reals("w", count, size), *dw = random_reals("dw", count, 1), *effective = malloc(bytes);
    w[count / 2] = 0; /* no slope there */
    real *device_w = device_reals(&c, w, count), *device_dw = device_reals(&c, dw, count);
    real *out = device_poisoned_reals(&c, count), *again = device_reals(&c, dw, count);
    cpu_ternarize(&host_lane, effective, w, count);
    cuda_ternarize(&c.lane, out, device_w, count);
    assert_close("ternary weights", host_reals(&c, out, count), effective, count, FLOAT_TOLERANCE);
    cpu_ternarize_backward(&host_lane, dw, w, effective, count);
    cuda_ternarize_backward(&c.lane, device_dw, device_w, out, count);
    cuda_ternarize_backward(&c.lane, again, device_w, out, count);
    real *got = host_reals(&c, device_dw, count);
    assert_same("dw, twice", host_reals(&c, again, count), got, bytes);
    assert_close("dw", got, dw, count, 1e-6);
    free(w), free(dw), free(effective);
    case_end(&c);
}

static void ternary_weights_are_the_cpus(void **state) {
    (void)state;
    check_ternary(91, 0.3);
    check_ternary(9000, 0.05);
    check_ternary(64, 1e-7); /* the least scale */
}

/* The same single products of floats on both sides; the sums over a row differ in their order. */
static void check_scale_rows(size_t rows, size_t cols) {
    struct device_case c;
    case_begin(&c, 0);
    size_t count = rows * cols, bytes = count * sizeof(real);
    real *w = random_reals("w", count, 1), *scale = random_reals("scale", rows, 1), *want = malloc(bytes);
    real *dw = random_reals("dw", count, 1), *dscale = random_reals("dscale", rows, 1);
    real *device_w = device_reals(&c, w, count), *device_scale = device_reals(&c, scale, rows);
    real *device_dw = device_reals(&c, dw, count), *device_dscale = device_reals(&c, dscale, rows);
    act *to = device_poisoned_acts(&c, count);
    cpu_scale_rows(&host_lane, want, w, scale, rows, cols);
    cuda_scale_rows(&c.lane, to, device_w, device_scale, rows, cols);
    assert_rounded("diag(scale) w", host_acts(&c, to, count), want, count);
    cpu_scale_rows_backward(&host_lane, dw, dscale, w, scale, rows, cols);
    cuda_scale_rows_backward(&c.lane, device_dw, device_dscale, device_w, device_scale, rows, cols);
    assert_close("diag(scale) G", host_reals(&c, device_dw, count), dw, count, FLOAT_TOLERANCE);
    assert_close("dscale", host_reals(&c, device_dscale, rows), dscale, rows, FLOAT_TOLERANCE);
    free(w), free(scale), free(want), free(dw), free(dscale);
    case_end(&c);
}

static void scaled_rows_are_the_cpus(void **state) {
    (void)state;
    check_scale_rows(7, 13);
    check_scale_rows(9, 264);
    check_scale_rows(33, 1536);
}

static void check_fake(size_t rows, size_t cols, int qmax, bool floor_scale) {
    struct device_case c;
    case_begin(&c, 0);
    size_t count = rows * cols, bytes = count * sizeof(real);
    real *w = random_reals("w", count, 0.05), *want = malloc(bytes), *out = device_poisoned_reals(&c, count);
    memset(w, 0, cols * sizeof *w); /* a row of zeros stays */
    cpu_fake_quantize_rows(&host_lane, want, w, rows, cols, qmax, floor_scale);
    cuda_fake_quantize_rows(&c.lane, out, device_reals(&c, w, count), rows, cols, qmax, floor_scale);
    assert_close("fake-quantised rows", host_reals(&c, out, count), want, count, FLOAT_TOLERANCE);
    free(w), free(want);
    case_end(&c);
}

static void fake_quantised_rows_are_the_cpus(void **state) {
    (void)state;
    check_fake(7, 13, 31, false);
    check_fake(9, 260, 127, false);
    check_fake(5, 64, 7, true);
}

struct quantisation {
    size_t rows, cols, group;
    int qmax;
    double percentile;
    bool floor_scale;
    real size;
};

static void check_rows(struct quantisation s) {
    struct device_case c;
    case_begin(&c, cuda_gptq_scratch(s.rows, s.cols));
    size_t count = s.rows * s.cols, width = s.group ? s.group : s.cols;
    size_t scale_bytes = s.rows * ((s.cols + width - 1) / width) * sizeof(uint16_t);
    real *w = random_reals("w", count, s.size);
    if (s.cols > 3) w[1] = w[2] = w[3]; /* ranks that are shared */
    int8_t *q = malloc(count), *device_q = device_copy(&c, w, count);
    uint16_t *scales = malloc(scale_bytes), *device_scales = device_copy(&c, w, scale_bytes);
    cpu_quantize_rows(&host_lane, q, scales, w, s.rows, s.cols, s.group, s.qmax, s.percentile, s.floor_scale);
    cuda_quantize_rows(&c.lane, device_q, device_scales, device_reals(&c, w, count), s.rows, s.cols, s.group, s.qmax,
                       s.percentile, s.floor_scale);
    assert_same("scales", host_bytes(&c, device_scales, scale_bytes), scales, scale_bytes);
    assert_same("integers", host_bytes(&c, device_q, count), q, count);
    free(w), free(q), free(scales);
    case_end(&c);
}

static void integer_rows_and_their_scales_are_the_cpus(void **state) {
    (void)state;
    const struct quantisation cases[] = {
        {7, 13, 0, 31, 100, false, 0.05},  {7, 45, 32, 127, 99.9, false, 0.05}, {9, 130, 0, 31, 99.9, false, 0.05},
        {3, 64, 64, 7, 50, false, 0.05},   {4, 33, 8, 15, 0, false, 0.05},      {5, 40, 0, 31, 99.5, true, 0.05},
        {2, 9, 0, 127, 100, false, 1e-12}, {2, 9, 0, 127, 100, false, 1e12},    {2, 1, 0, 31, 99.9, false, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_rows(cases[i]);
}

static double *random_hessian(const char *name, size_t samples, size_t cols) {
    double *h = calloc(cols * cols, sizeof *h);
    real *x = random_acts(name, samples * cols, 1);
    cpu_hessian_accumulate(&host_lane, h, x, samples, cols);
    free(x);
    return h;
}

/* Only the upper triangle counts; the rest must stay as it is. */
static void check_hessian(size_t rows, size_t cols) {
    struct device_case c;
    case_begin(&c, cuda_gptq_scratch(1, cols));
    size_t count = cols * cols, bytes = count * sizeof(double);
    real *x = random_acts("x", rows * cols, 1);
    double *want = random_hessian("before", 8, cols), *h = device_copy(&c, want, bytes);
    cpu_hessian_accumulate(&host_lane, want, x, rows, cols);
    cuda_hessian_accumulate(&c.lane, h, device_acts(&c, x, rows * cols), rows, cols);
    double *got = host_bytes(&c, h, bytes);
    for (size_t i = 0; i < count; i++)
        if (!(fabs(got[i] - want[i]) <= 1e-6 * sqrt((double)rows) * (1 + fabs(want[i]))))
            fail_msg("h at %zu, %zu: %.9g, but the CPU has %.9g", i / cols, i % cols, got[i], want[i]);
    free(x), free(want), free(got);
    case_end(&c);
}

static void hessians_agree_with_the_cpu(void **state) {
    (void)state;
    check_hessian(300, 101);
    check_hessian(40, 72);
    check_hessian(520, 16);
    check_hessian(1, 3);
}

struct gptq_case {
    size_t rows, cols, group;
    int qmax;
    size_t samples; /* 0: the Hessian is all zero but its diagonal, which is negative */
};

static void check_gptq(struct gptq_case s) {
    struct device_case c;
    case_begin(&c, cuda_gptq_scratch(s.rows, s.cols));
    size_t count = s.rows * s.cols, width = s.group ? s.group : s.cols, h_bytes = s.cols * s.cols * sizeof(double);
    size_t scale_bytes = s.rows * ((s.cols + width - 1) / width) * sizeof(uint16_t);
    real *w = random_reals("w", count, 0.05);
    double *h = random_hessian("samples", s.samples, s.cols);
    for (size_t i = 0; i < s.cols; i++) {
        if (!s.samples) h[i * s.cols + i] = -1;
        if (s.samples && s.cols > 5) h[5 * s.cols + i] = h[i * s.cols + 5] = 0; /* a dead column */
    }
    int8_t *q = malloc(count), *device_q;
    uint16_t *scales = malloc(scale_bytes);
    int info = -1, *device_info = device_copy(&c, &info, sizeof info);
    struct lane lane = {.scratch = malloc(cpu_gptq_scratch(s.rows, s.cols))};
    cpu_quantize_rows(&host_lane, q, scales, w, s.rows, s.cols, s.group, s.qmax, 100, false);
    device_q = device_copy(&c, q, count);
    cpu_gptq_quantize(&lane, q, scales, w, h, s.rows, s.cols, s.group, s.qmax, 0.01, &info);
    cuda_gptq_quantize(&c.lane, device_q, device_copy(&c, scales, scale_bytes), device_reals(&c, w, count),
                       device_copy(&c, h, h_bytes), s.rows, s.cols, s.group, s.qmax, 0.01, device_info);
    assert_same("info", host_bytes(&c, device_info, sizeof info), &info, sizeof info);
    assert_true((info > 0) == !s.samples);
    assert_same("integers", host_bytes(&c, device_q, count), q, count);
    free(w), free(h), free(q), free(scales), free(lane.scratch);
    case_end(&c);
}

static void gptq_gives_the_integers_of_the_cpu(void **state) {
    (void)state;
    const struct gptq_case cases[] = {
        {41, 150, 0, 31, 170}, {3, 70, 32, 15, 80}, {5, 128, 0, 7, 60}, {70, 9, 4, 31, 30}, {1, 1, 0, 31, 3}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) check_gptq(cases[i]);
}

static void gptq_refuses_a_hessian_that_is_not_positive_definite(void **state) {
    (void)state;
    check_gptq((struct gptq_case){4, 20, 0, 31, 0});
    check_gptq((struct gptq_case){4, 100, 0, 31, 0});
}

static void ropes_angles_are_the_cpus(void **state) {
    (void)state;
    enum { TIME = 70, DIMS = 18, COUNT = TIME * DIMS / 2 };
    struct device_case c;
    case_begin(&c, 0);
    real cosine[COUNT], sine[COUNT], *device_cosine = device_poisoned_reals(&c, COUNT),
                                     *device_sine = device_poisoned_reals(&c, COUNT);
    cpu_rope_table(&host_lane, cosine, sine, TIME, DIMS, 10000);
    cuda_rope_table(&c.lane, device_cosine, device_sine, TIME, DIMS, 10000);
    assert_close("cosine", host_reals(&c, device_cosine, COUNT), cosine, COUNT, 1e-7);
    assert_close("sine", host_reals(&c, device_sine, COUNT), sine, COUNT, 1e-7);
    case_end(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ternary_weights_are_the_cpus),
        cmocka_unit_test(scaled_rows_are_the_cpus),
        cmocka_unit_test(fake_quantised_rows_are_the_cpus),
        cmocka_unit_test(integer_rows_and_their_scales_are_the_cpus),
        cmocka_unit_test(hessians_agree_with_the_cpu),
        cmocka_unit_test(gptq_gives_the_integers_of_the_cpu),
        cmocka_unit_test(gptq_refuses_a_hessian_that_is_not_positive_definite),
        cmocka_unit_test(ropes_angles_are_the_cpus),
    };
    return cmocka_run_group_tests_name("quantisation on CUDA", tests, NULL, NULL);
}
