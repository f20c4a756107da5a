/* test_residual: norms, residual mixes, activations and gates on CUDA against the CPU's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

/* An act keeps 8 bits: rounding to it costs at most 2^-9 of each element. Sums run in float on both sides. */
static const double ACT_TOLERANCE = 4e-3, SUM_TOLERANCE = 1e-5;

struct shape {
    size_t rows, dim;
};
/* Odd ones for the general path; up to 256, 512, 1024, 2048 columns and more for what a warp keeps of a row. */
static const struct shape shapes[] = {{5, 13}, {3, 2}, {70, 16}, {9, 264}, {3, 1000}, {2, 2048}, {2, 2056}, {1, 1}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct lane host_lane;

static void check_rms_norm(struct shape s) {
    struct device_case c;
    size_t count = s.rows * s.dim;
    case_begin(&c, 0);
    real *x = random_acts("x", count, 2), *dy = random_acts("dy", count, 1), *dx = random_acts("dx", count, 1);
    real *want = malloc(count * sizeof *want), *inv = malloc(s.rows * sizeof *inv);
    act *y = device_poisoned_acts(&c, count), *device_x = device_acts(&c, x, count);
    act *device_dx = device_acts(&c, dx, count), *device_dy = device_acts(&c, dy, count);
    real *device_inv = device_poisoned_reals(&c, s.rows);

    cpu_rms_norm_forward(&host_lane, want, inv, x, s.rows, s.dim);
    cuda_rms_norm_forward(&c.lane, y, device_inv, device_x, s.rows, s.dim);
    real *got = host_acts(&c, y, count);
    cpu_rms_norm_backward(&host_lane, dx, dy, got, inv, s.rows, s.dim);
    cuda_rms_norm_backward(&c.lane, device_dx, device_dy, y, device_inv, s.rows, s.dim);
    assert_close("y", got, want, count, ACT_TOLERANCE);
    assert_close("inv", host_reals(&c, device_inv, s.rows), inv, s.rows, SUM_TOLERANCE);
    assert_close("dx", host_acts(&c, device_dx, count), dx, count, ACT_TOLERANCE);

    cuda_rms_norm_forward(&c.lane, device_x, device_inv, device_x, s.rows, s.dim);
    assert_close("y in place", host_acts(&c, device_x, count), want, count, ACT_TOLERANCE);
    free(x), free(dy), free(dx), free(want), free(inv);
    case_end(&c);
}

static void check_residual_mix(struct shape s) {
    struct device_case c;
    size_t count = s.rows * s.dim, width = 2 * s.dim;
    case_begin(&c, cuda_rows_scratch(s.rows, s.dim));
    real *x = random_acts("x", count, 1), *x0 = random_acts("x0", count, 1), *dy = random_acts("dy", count, 1);
    real *mix = random_reals("mix", width, 1), *dmix = random_reals("dmix", width, 1);
    real *dx0 = random_acts("dx0", count, 1), *want = malloc(count * sizeof *want);
    act *device_x = device_acts(&c, x, count), *device_x0 = device_acts(&c, x0, count);
    act *y = device_poisoned_acts(&c, count), *device_dy = device_acts(&c, dy, count);
    act *device_dx0 = device_acts(&c, dx0, count), *other_dx0 = device_acts(&c, dx0, count);
    real *device_mix = device_reals(&c, mix, width), *sums = device_reals(&c, dmix, width),
         *again = device_reals(&c, dmix, width);

    cpu_residual_mix_forward(&host_lane, want, x, x0, mix, s.rows, s.dim);
    cuda_residual_mix_forward(&c.lane, y, device_x, device_x0, device_mix, s.rows, s.dim);
    assert_close("y", host_acts(&c, y, count), want, count, ACT_TOLERANCE);

    cpu_residual_mix_backward(&host_lane, want, dx0, dmix, dy, x, x0, mix, s.rows, s.dim);
    cuda_residual_mix_backward(&c.lane, y, other_dx0, again, device_dy, device_x, device_x0, device_mix, s.rows, s.dim);
    cuda_residual_mix_backward(&c.lane, device_dy, device_dx0, sums, device_dy, device_x, device_x0, device_mix, s.rows,
                               s.dim);
    assert_close("dx", host_acts(&c, y, count), want, count, ACT_TOLERANCE);
    assert_close("dx in place", host_acts(&c, device_dy, count), want, count, ACT_TOLERANCE);
    assert_close("dx0", host_acts(&c, device_dx0, count), dx0, count, ACT_TOLERANCE);
    real *got = host_reals(&c, sums, width);
    assert_same("dmix, twice", host_reals(&c, again, width), got, width * sizeof *got);
    assert_close("dmix", got, dmix, width, SUM_TOLERANCE);

    cpu_residual_mix_forward(&host_lane, want, x, x0, mix, s.rows, s.dim);
    cuda_residual_mix_forward(&c.lane, device_x, device_x, device_x0, device_mix, s.rows, s.dim);
    assert_close("y in place", host_acts(&c, device_x, count), want, count, ACT_TOLERANCE);
    free(x), free(x0), free(dy), free(mix), free(dmix), free(dx0), free(want);
    case_end(&c);
}

static void check_scaled_add(struct shape s) {
    struct device_case c;
    size_t count = s.rows * s.dim;
    case_begin(&c, cuda_rows_scratch(s.rows, s.dim));
    real *x = random_acts("x", count, 1), *branch = random_acts("branch", count, 1), *dy = random_acts("dy", count, 1);
    real *scale = random_reals("scale", s.dim, 1), *dscale = random_reals("dscale", s.dim, 1);
    real *want = malloc(count * sizeof *want);
    act *device_x = device_acts(&c, x, count), *device_branch = device_acts(&c, branch, count);
    act *y = device_poisoned_acts(&c, count), *dbranch = device_poisoned_acts(&c, count);
    act *device_dy = device_acts(&c, dy, count);
    real *device_scale = device_reals(&c, scale, s.dim), *sums = device_reals(&c, dscale, s.dim),
         *again = device_reals(&c, dscale, s.dim);

    cpu_scaled_add_forward(&host_lane, want, x, scale, branch, s.rows, s.dim);
    cuda_scaled_add_forward(&c.lane, y, device_x, device_scale, device_branch, s.rows, s.dim);
    assert_close("y", host_acts(&c, y, count), want, count, ACT_TOLERANCE);
    cuda_scaled_add_forward(&c.lane, device_x, device_x, device_scale, device_branch, s.rows, s.dim);
    assert_close("y in place", host_acts(&c, device_x, count), want, count, ACT_TOLERANCE);

    cpu_scaled_add_backward(&host_lane, want, dscale, dy, scale, branch, s.rows, s.dim);
    cuda_scaled_add_backward(&c.lane, dbranch, sums, device_dy, device_scale, device_branch, s.rows, s.dim);
    cuda_scaled_add_backward(&c.lane, dbranch, again, device_dy, device_scale, device_branch, s.rows, s.dim);
    assert_close("dbranch", host_acts(&c, dbranch, count), want, count, ACT_TOLERANCE);
    real *got = host_reals(&c, sums, s.dim);
    assert_same("dscale, twice", host_reals(&c, again, s.dim), got, s.dim * sizeof *got);
    assert_close("dscale", got, dscale, s.dim, SUM_TOLERANCE);
    free(x), free(branch), free(dy), free(scale), free(dscale), free(want);
    case_end(&c);
}

static void norms_agree_with_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) check_rms_norm(shapes[i]);
}

static void residual_mixes_agree_with_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) check_residual_mix(shapes[i]);
}

static void scaled_adds_agree_with_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) check_scaled_add(shapes[i]);
}

/* `first` elements in from an aligned address. */
static void check_elements(size_t count, size_t first) {
    struct device_case c;
    size_t whole = first + count;
    case_begin(&c, 0);
    real *x = random_acts("x", whole, 1), *dy = random_acts("dy", whole, 1), *want = malloc(whole * sizeof *want);
    act *device_x = device_acts(&c, x, whole), *device_dy = device_acts(&c, dy, whole);
    act *y = device_poisoned_acts(&c, whole), *at = act_at(c.ops, y, first);
    act *x_at = act_at(c.ops, device_x, first), *dy_at = act_at(c.ops, device_dy, first);

    cpu_leaky_relu_squared_forward(&host_lane, want, x + first, count);
    cuda_leaky_relu_squared_forward(&c.lane, at, x_at, count);
    assert_close("leaky relu squared", host_acts(&c, at, count), want, count, ACT_TOLERANCE);
    cpu_leaky_relu_squared_backward(&host_lane, want, dy + first, x + first, count);
    cuda_leaky_relu_squared_backward(&c.lane, at, dy_at, x_at, count);
    assert_close("its slope", host_acts(&c, at, count), want, count, ACT_TOLERANCE);
    cuda_leaky_relu_squared_backward(&c.lane, dy_at, dy_at, x_at, count);
    assert_close("its slope, in place", host_acts(&c, dy_at, count), want, count, ACT_TOLERANCE);
    memcpy(want, x + first, count * sizeof *want);
    cpu_add_into(&host_lane, want, dy + first, count);
    cuda_add_into(&c.lane, x_at, device_acts(&c, dy + first, count), count);
    assert_close("a + b", host_acts(&c, x_at, count), want, count, ACT_TOLERANCE);
    free(x), free(dy), free(want);
    case_end(&c);
}

static void elements_agree_with_the_cpu_at_any_address(void **state) {
    (void)state;
    check_elements(1, 0);
    check_elements(2055, 0);
    check_elements(4096, 0);
    check_elements(300, 3);
}

static void check_silu_gate(size_t rows, size_t dim, size_t stride) {
    struct device_case c;
    size_t count = rows * dim, z_count = rows * stride;
    case_begin(&c, 0);
    real *y = random_acts("y", count, 1), *z = random_acts("z", z_count, 3), *dout = random_acts("dout", count, 1);
    real *want = malloc(count * sizeof *want), *dz = random_acts("dz", z_count, 1);
    act *device_y = device_acts(&c, y, count), *device_z = device_acts(&c, z, z_count);
    act *out = device_poisoned_acts(&c, count), *device_dout = device_acts(&c, dout, count);
    act *device_dz = device_acts(&c, dz, z_count); /* between the columns of z it stays as it is */

    cpu_silu_gate_forward(&host_lane, want, y, z, stride, rows, dim);
    cuda_silu_gate_forward(&c.lane, out, device_y, device_z, stride, rows, dim);
    assert_close("out", host_acts(&c, out, count), want, count, ACT_TOLERANCE);
    cpu_silu_gate_backward(&host_lane, want, dz, dout, y, z, stride, rows, dim);
    cuda_silu_gate_backward(&c.lane, device_dout, device_dz, device_dout, device_y, device_z, stride, rows, dim);
    assert_close("dy", host_acts(&c, device_dout, count), want, count, ACT_TOLERANCE);
    assert_close("dz", host_acts(&c, device_dz, z_count), dz, z_count, ACT_TOLERANCE);
    free(y), free(z), free(dout), free(want), free(dz);
    case_end(&c);
}

static void gates_agree_with_the_cpu(void **state) {
    (void)state;
    check_silu_gate(5, 13, 29);
    check_silu_gate(40, 24, 64);
    check_silu_gate(9, 24, 61);
    check_silu_gate(3, 264, 520);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_agree_with_the_cpu),       cmocka_unit_test(residual_mixes_agree_with_the_cpu),
        cmocka_unit_test(scaled_adds_agree_with_the_cpu), cmocka_unit_test(elements_agree_with_the_cpu_at_any_address),
        cmocka_unit_test(gates_agree_with_the_cpu),
    };
    return cmocka_run_group_tests_name("residual ops on CUDA", tests, NULL, NULL);
}
