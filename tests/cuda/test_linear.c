/* test_linear: linear layers, the head and Newton-Schulz on CUDA against the CPU's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

struct linear_shape {
    size_t rows, out, in;
};

static const struct linear_shape shapes[] = {{33, 24, 16}, {9, 7, 5}, {64, 139, 32}, {1, 8, 8}, {40, 32, 96}};

struct linear_case {
    struct device_case device;
    struct linear_shape s;
    real *x, *dy, *w; /* on the host */
    act *device_x, *device_dy, *device_w;
};

static void linear_begin(struct linear_case *c, struct linear_shape s) {
    case_begin(&c->device, cuda_linear_scratch(s.rows, s.out, s.in));
    c->s = s;
    c->x = random_acts("x", s.rows * s.in, 1);
    c->dy = random_acts("dy", s.rows * s.out, 1);
    c->w = random_acts("w", s.out * s.in, 1);
    c->device_x = device_acts(&c->device, c->x, s.rows * s.in);
    c->device_dy = device_acts(&c->device, c->dy, s.rows * s.out);
    c->device_w = device_acts(&c->device, c->w, s.out * s.in);
}

static void linear_end(struct linear_case *c) {
    free(c->x), free(c->dy), free(c->w);
    case_end(&c->device);
}

static struct lane host_lane;

/* cuBLASLt's kernels for Hopper round the product to bf16 before they add what is there, and the sum once more: seen as
 * 8.5372 - 0.8555 = 7.71875, by way of 8.5625. */
static const double ADDED_TOLERANCE = 8e-3;

static void check_forward(struct linear_case *c) {
    struct linear_shape s = c->s;
    act *y = device_poisoned_acts(&c->device, s.rows * s.out);
    real *logits = device_poisoned_reals(&c->device, s.rows * s.out);
    real *want = malloc(s.rows * s.out * sizeof *want);
    cpu_linear_forward(&host_lane, want, c->x, c->w, s.rows, s.out, s.in);
    cuda_linear_forward(&c->device.lane, y, c->device_x, c->device_w, s.rows, s.out, s.in);
    assert_rounded("y", host_acts(&c->device, y, s.rows * s.out), want, s.rows * s.out);
    cuda_head_forward(&c->device.lane, logits, c->device_x, c->device_w, s.rows, s.out, s.in);
    assert_close("logits", host_reals(&c->device, logits, s.rows * s.out), want, s.rows * s.out, FLOAT_TOLERANCE);
    free(want);
}

/* In place, as in a block, and from elsewhere. */
static void check_add(struct linear_case *c) {
    struct linear_shape s = c->s;
    size_t count = s.rows * s.out;
    real *before = random_acts("before", count, 1), *want = malloc(count * sizeof *want);
    act *stream = device_acts(&c->device, before, count), *y = device_poisoned_acts(&c->device, count);
    cpu_linear_add_forward(&host_lane, want, before, c->x, c->w, s.rows, s.out, s.in);
    cuda_linear_add_forward(&c->device.lane, y, stream, c->device_x, c->device_w, s.rows, s.out, s.in);
    cuda_linear_add_forward(&c->device.lane, stream, stream, c->device_x, c->device_w, s.rows, s.out, s.in);
    assert_close("y, added to", host_acts(&c->device, y, count), want, count, ADDED_TOLERANCE);
    assert_close("y, in place", host_acts(&c->device, stream, count), want, count, ADDED_TOLERANCE);
    free(before), free(want);
}

static void check_backward_input(struct linear_case *c, bool accumulate) {
    struct linear_shape s = c->s;
    real *want = random_acts("dx", s.rows * s.in, 1);
    act *dx =
        accumulate ? device_acts(&c->device, want, s.rows * s.in) : device_poisoned_acts(&c->device, s.rows * s.in);
    cpu_linear_backward_input(&host_lane, want, c->dy, c->w, s.rows, s.out, s.in, accumulate);
    cuda_linear_backward_input(&c->device.lane, dx, c->device_dy, c->device_w, s.rows, s.out, s.in, accumulate);
    real *got = host_acts(&c->device, dx, s.rows * s.in);
    if (accumulate)
        assert_close("dx, added to", got, want, s.rows * s.in, ADDED_TOLERANCE);
    else
        assert_rounded("dx", got, want, s.rows * s.in);
    free(want);
}

static void check_backward_weight(struct linear_case *c) {
    struct linear_shape s = c->s;
    real *want = random_reals("dw", s.out * s.in, 1);
    real *dw = device_reals(&c->device, want, s.out * s.in), *again = device_reals(&c->device, want, s.out * s.in);
    cpu_linear_backward_weight(&host_lane, want, c->dy, c->x, s.rows, s.out, s.in);
    cuda_linear_backward_weight(&c->device.lane, dw, c->device_dy, c->device_x, s.rows, s.out, s.in);
    cuda_linear_backward_weight(&c->device.lane, again, c->device_dy, c->device_x, s.rows, s.out, s.in);
    real *first = host_reals(&c->device, dw, s.out * s.in);
    assert_same("dw, twice", host_reals(&c->device, again, s.out * s.in), first, s.out * s.in * sizeof *first);
    assert_close("dw", first, want, s.out * s.in, FLOAT_TOLERANCE);
    free(want);
}

/* At any address of a float, and of any number. */
static void weights_are_rounded_to_acts(void **state) {
    (void)state;
    enum { COUNT = 1037 };
    struct device_case device;
    case_begin(&device, 1);
    real *from = random_reals("weights", COUNT, 1), *want = random_acts("weights", COUNT, 1);
    const char *on_device = (const char *)device_reals(&device, from, COUNT);
    for (int first = 0; first < 3; first++) {
        act *to = device_poisoned_acts(&device, COUNT);
        const real *at = (const real *)(const void *)(on_device + first * DEVICE_REAL);
        cuda_round_to_acts(&device.lane, to, at, (size_t)(COUNT - first));
        assert_rounded("weights", host_acts(&device, to, (size_t)(COUNT - first)), want + first,
                       (size_t)(COUNT - first));
    }
    free(from), free(want);
    case_end(&device);
}

static void linear_agrees_with_the_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct linear_case c;
        linear_begin(&c, shapes[i]);
        check_forward(&c);
        check_add(&c);
        check_backward_input(&c, false);
        check_backward_input(&c, true);
        check_backward_weight(&c);
        linear_end(&c);
    }
}

/* What is rounded once more on the way, where product and function are two kernels. */
static const double TWICE_ROUNDED = 4e-3;

/* Shapes of the products with an epilogue: small ones, and on a device one that fills it, with rows that end within a
 * tile. The emulator would take minutes for it. */
static const struct linear_shape epilogue_shapes[] = {{33, 24, 16}, {9, 7, 5}, {4203, 1024, 128}, {8320, 1536, 512}};
static int epilogue_shape_count(void) { return device_is_emulated() ? 2 : 4; }

static void check_activation(struct linear_case *c) {
    struct linear_shape s = c->s;
    size_t wide = s.rows * s.out;
    act *h = device_poisoned_acts(&c->device, wide), *y = device_poisoned_acts(&c->device, wide);
    real *want_h = malloc(wide * sizeof *want_h), *want_y = malloc(wide * sizeof *want_y);
    cpu_linear_leaky_relu_squared_forward(&host_lane, want_h, want_y, c->x, c->w, s.rows, s.out, s.in);
    cuda_linear_leaky_relu_squared_forward(&c->device.lane, h, y, c->device_x, c->device_w, s.rows, s.out, s.in);
    assert_rounded("h", host_acts(&c->device, h, wide), want_h, wide);
    assert_close("leaky_relu_squared(h)", host_acts(&c->device, y, wide), want_y, wide, TWICE_ROUNDED);
    free(want_h), free(want_y);
}

/* As the gradient of a layer that goes back from s.in to s.out: w is (in, out) to it. */
static void check_slopes(struct linear_case *c) {
    struct linear_shape s = c->s;
    size_t wide = s.rows * s.out, stride = s.out + 24;
    real *at = random_acts("y", wide, 1), *z = random_acts("z", s.rows * stride, 1),
         *want = malloc(wide * sizeof *want);
    real *want_dz = random_acts("dz", s.rows * stride, 1);
    act *device_at = device_acts(&c->device, at, wide), *device_z = device_acts(&c->device, z, s.rows * stride);
    act *got = device_poisoned_acts(&c->device, wide), *dz = device_acts(&c->device, want_dz, s.rows * stride);
    cpu_linear_leaky_relu_squared_backward(&host_lane, want, c->x, c->w, at, s.rows, s.in, s.out);
    cuda_linear_leaky_relu_squared_backward(&c->device.lane, got, c->device_x, c->device_w, device_at, s.rows, s.in,
                                            s.out);
    assert_close("dh", host_acts(&c->device, got, wide), want, wide, TWICE_ROUNDED);
    cpu_linear_silu_gate_backward(&host_lane, want, want_dz, c->x, c->w, at, z, stride, s.rows, s.in, s.out);
    cuda_linear_silu_gate_backward(&c->device.lane, got, dz, c->device_x, c->device_w, device_at, device_z, stride,
                                   s.rows, s.in, s.out);
    assert_close("dy", host_acts(&c->device, got, wide), want, wide, TWICE_ROUNDED);
    assert_close("dz", host_acts(&c->device, dz, s.rows * stride), want_dz, s.rows * stride, TWICE_ROUNDED);
    free(at), free(z), free(want), free(want_dz);
}

static void products_with_an_epilogue_agree_with_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < epilogue_shape_count(); i++) {
        struct linear_case c;
        linear_begin(&c, epilogue_shapes[i]);
        check_activation(&c);
        check_slopes(&c);
        linear_end(&c);
    }
}

enum { BATCH = 3 };

/* The largest relative error that five steps of bf16 products leave. */
static const double ORTHOGONAL_TOLERANCE = 3e-2;

static void check_newton_schulz(size_t rows, size_t cols) {
    struct device_case device;
    case_begin(&device, cuda_newton_schulz_scratch(BATCH, rows, cols));
    size_t count = rows * cols, bytes = cpu_newton_schulz_scratch(1, rows, cols);
    struct lane lane = {.scratch = aligned_alloc(64, (bytes + 63) / 64 * 64), .scratch_bytes = bytes};
    real *want[BATCH], *x[BATCH];
    for (int i = 0; i < BATCH; i++) {
        char name[24];
        snprintf(name, sizeof name, "matrix %d", i);
        want[i] = random_reals(name, count, (real)(i + 1));
        x[i] = device_reals(&device, want[i], count);
    }
    cpu_newton_schulz(&lane, want, BATCH, rows, cols, 5);
    cuda_newton_schulz(&device.lane, x, BATCH, rows, cols, 5);
    for (int i = 0; i < BATCH; i++) {
        assert_close("orthogonalised", host_reals(&device, x[i], count), want[i], count, ORTHOGONAL_TOLERANCE);
        free(want[i]);
    }
    free(lane.scratch);
    case_end(&device);
}

static void newton_schulz_agrees_with_the_cpu(void **state) {
    (void)state;
    check_newton_schulz(24, 40);
    check_newton_schulz(40, 24);
    check_newton_schulz(33, 33);
    check_newton_schulz(5, 70);
}

static void newton_schulz_leaves_a_zero_matrix_zero(void **state) {
    (void)state;
    enum { COUNT = 16 * 24 };
    struct device_case device;
    case_begin(&device, cuda_newton_schulz_scratch(1, 16, 24));
    const real zeros[COUNT] = {0};
    real *x = device_reals(&device, zeros, COUNT);
    cuda_newton_schulz(&device.lane, &x, 1, 16, 24, 5);
    real *got = host_reals(&device, x, COUNT);
    for (int i = 0; i < COUNT; i++) assert_true(got[i] == 0);
    free(got);
    case_end(&device);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_rounded_to_acts), cmocka_unit_test(linear_agrees_with_the_cpu),
        cmocka_unit_test(products_with_an_epilogue_agree_with_the_cpu),
        cmocka_unit_test(newton_schulz_agrees_with_the_cpu), cmocka_unit_test(newton_schulz_leaves_a_zero_matrix_zero)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
