/* test_residual: norms, residual mixes, activations and gates on CUDA against the CPU's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

struct shape {
    size_t rows, dim;
};
/* Odd ones for the general path; up to 256, 512, 1024, 2048 columns and more for what a warp keeps of a row. */
static const struct shape shapes[] = {{5, 13}, {3, 2}, {70, 16}, {9, 264}, {3, 1000}, {2, 2048}, {2, 2056}, {1, 1}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static struct lane host_lane;

/* Ops with their norm round once where a warp keeps the row; else single ops follow each other and round between. An
 * act keeps 8 bits: a rounding costs at most 2^-8 of an element, and four of them 1.6e-2. */
static const double BETWEEN_TOLERANCE = 1.6e-2;
static bool rounds_once(struct shape s) { return s.dim % 8 == 0 && s.dim <= 1024; }

static void assert_acts(const char *name, real *got, const real *want, struct shape s) {
    size_t count = s.rows * s.dim;
    if (rounds_once(s))
        assert_rounded(name, got, want, count);
    else
        assert_close(name, got, want, count, BETWEEN_TOLERANCE);
}

static void assert_reals(const char *name, real *got, const real *want, size_t count, struct shape s) {
    assert_close(name, got, want, count, rounds_once(s) ? FLOAT_TOLERANCE : BETWEEN_TOLERANCE);
}

static void check_rms_norm(struct shape s, bool accumulate) {
    struct device_case c;
    size_t count = s.rows * s.dim;
    case_begin(&c, 0);
    real *x = random_acts("x", count, 2), *dy = random_acts("dy", count, 1), *dx = random_acts("dx", count, 1);
    real *want = malloc(count * sizeof *want), *inv = malloc(s.rows * sizeof *inv);
    act *y = device_poisoned_acts(&c, count), *device_x = device_acts(&c, x, count);
    act *device_dx = accumulate ? device_acts(&c, dx, count) : device_poisoned_acts(&c, count),
        *device_dy = device_acts(&c, dy, count);
    real *device_inv = device_poisoned_reals(&c, s.rows);

    cpu_rms_norm_forward(&host_lane, want, inv, x, s.rows, s.dim);
    cuda_rms_norm_forward(&c.lane, y, device_inv, device_x, s.rows, s.dim);
    real *got = host_acts(&c, y, count);
    cpu_rms_norm_backward(&host_lane, dx, dy, got, inv, s.rows, s.dim, accumulate);
    cuda_rms_norm_backward(&c.lane, device_dx, device_dy, y, device_inv, s.rows, s.dim, accumulate);
    assert_rounded("y", got, want, count);
    assert_close("inv", host_reals(&c, device_inv, s.rows), inv, s.rows, FLOAT_TOLERANCE);
    assert_rounded("dx", host_acts(&c, device_dx, count), dx, count);

    cuda_rms_norm_forward(&c.lane, device_x, device_inv, device_x, s.rows, s.dim);
    assert_rounded("y in place", host_acts(&c, device_x, count), want, count);
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
    assert_rounded("y", host_acts(&c, y, count), want, count);

    cpu_residual_mix_backward(&host_lane, want, dx0, dmix, dy, x, x0, mix, s.rows, s.dim);
    cuda_residual_mix_backward(&c.lane, y, other_dx0, again, device_dy, device_x, device_x0, device_mix, s.rows, s.dim);
    cuda_residual_mix_backward(&c.lane, device_dy, device_dx0, sums, device_dy, device_x, device_x0, device_mix, s.rows,
                               s.dim);
    assert_rounded("dx", host_acts(&c, y, count), want, count);
    assert_rounded("dx in place", host_acts(&c, device_dy, count), want, count);
    assert_rounded("dx0", host_acts(&c, device_dx0, count), dx0, count);
    real *got = host_reals(&c, sums, width);
    assert_same("dmix, twice", host_reals(&c, again, width), got, width * sizeof *got);
    assert_close("dmix", got, dmix, width, FLOAT_TOLERANCE);

    cpu_residual_mix_forward(&host_lane, want, x, x0, mix, s.rows, s.dim);
    cuda_residual_mix_forward(&c.lane, device_x, device_x, device_x0, device_mix, s.rows, s.dim);
    assert_rounded("y in place", host_acts(&c, device_x, count), want, count);
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
    assert_rounded("y", host_acts(&c, y, count), want, count);
    cuda_scaled_add_forward(&c.lane, device_x, device_x, device_scale, device_branch, s.rows, s.dim);
    assert_rounded("y in place", host_acts(&c, device_x, count), want, count);

    cpu_scaled_add_backward(&host_lane, want, dscale, dy, scale, branch, s.rows, s.dim);
    cuda_scaled_add_backward(&c.lane, dbranch, sums, device_dy, device_scale, device_branch, s.rows, s.dim);
    cuda_scaled_add_backward(&c.lane, dbranch, again, device_dy, device_scale, device_branch, s.rows, s.dim);
    assert_rounded("dbranch", host_acts(&c, dbranch, count), want, count);
    real *got = host_reals(&c, sums, s.dim);
    assert_same("dscale, twice", host_reals(&c, again, s.dim), got, s.dim * sizeof *got);
    assert_close("dscale", got, dscale, s.dim, FLOAT_TOLERANCE);
    free(x), free(branch), free(dy), free(scale), free(dscale), free(want);
    case_end(&c);
}

/* What is skipped to an entry, and what else its gradients are added up from. */
struct entry_kind {
    enum { ALONE, SKIP, SKIP_OF_ITSELF } skip;
    bool begins, ends, more;
};
static const struct entry_kind entry_kinds[] = {{ALONE, false, false, false},        {SKIP, false, false, false},
                                                {SKIP_OF_ITSELF, true, false, true}, {SKIP, true, true, true},
                                                {ALONE, false, false, true},         {ALONE, true, true, false}};
enum { ENTRY_KINDS = sizeof entry_kinds / sizeof *entry_kinds };

struct entry {
    struct entry_kind kind;
    size_t count, width; /* of an activation, of mix */
    real *x, *skip, *x0, *skip_scale, *mix, *dx, *dx0, *dnormed, *dmix, *dskip_scale, *more;
    struct residual_inputs host, device;
};

static void entry_begin(struct entry *e, struct device_case *c, struct shape s, struct entry_kind kind) {
    *e = (struct entry){.kind = kind, .count = s.rows * s.dim, .width = 2 * s.dim};
    e->x = random_acts("x", e->count, 1), e->skip = random_acts("skip", e->count, 1);
    e->x0 = random_acts("x0", e->count, 1), e->dx = random_acts("dx", e->count, 1);
    e->dx0 = random_acts("dx0", e->count, 1), e->dnormed = random_acts("dnormed", e->count, 1);
    e->mix = random_reals("mix", e->width, 1), e->dmix = random_reals("dmix", e->width, 1);
    e->skip_scale = random_reals("skip scale", s.dim, 1), e->dskip_scale = random_reals("dskip scale", s.dim, 1);
    e->more = random_acts("more", e->count, 1);
    e->host = (struct residual_inputs){.x = e->x, .x0 = e->x0, .mix = e->mix};
    e->device = (struct residual_inputs){.x = device_acts(c, e->x, e->count),
                                         .x0 = device_acts(c, e->x0, e->count),
                                         .mix = device_reals(c, e->mix, e->width)};
    if (kind.skip == ALONE) return;
    bool itself = kind.skip == SKIP_OF_ITSELF;
    e->host.skip = itself ? e->x : e->skip, e->host.skip_scale = e->skip_scale;
    e->device.skip = itself ? e->device.x : device_acts(c, e->skip, e->count);
    e->device.skip_scale = device_reals(c, e->skip_scale, s.dim);
}

static void entry_end(struct entry *e) {
    free(e->x), free(e->skip), free(e->x0), free(e->skip_scale), free(e->mix), free(e->dx), free(e->dx0);
    free(e->dnormed), free(e->dmix), free(e->dskip_scale), free(e->more);
}

/* From the same normed rows and their inv, which are given on both sides. */
static void check_entry_backward(struct device_case *c, struct entry *e, struct shape s, const real *normed,
                                 const real *inv) {
    bool skip = e->host.skip != NULL;
    real *want_dskip = malloc(e->count * sizeof *want_dskip), *sums[2], *scale_sums[2];
    act *dx[2], *dx0[2], *dskip = device_poisoned_acts(c, e->count), *dnormed = device_acts(c, e->dnormed, e->count);
    act *device_normed = device_acts(c, normed, e->count);
    real *device_inv = device_reals(c, inv, s.rows);
    struct residual_sums host = {.begins = e->kind.begins, .ends = e->kind.ends}, device = host;
    if (e->kind.more) host.more = e->more, device.more = device_acts(c, e->more, e->count);
    for (int i = 0; i < 2; i++) {
        dx[i] = device_acts(c, e->dx, e->count);
        dx0[i] = host.begins ? device_poisoned_acts(c, e->count) : device_acts(c, e->dx0, e->count);
        sums[i] = device_reals(c, e->dmix, e->width), scale_sums[i] = device_reals(c, e->dskip_scale, s.dim);
        cuda_residual_mix_norm_backward(&c->lane, dx[i], dx0[i], skip ? dskip : NULL, sums[i],
                                        skip ? scale_sums[i] : NULL, dnormed, device_normed, device_inv, &e->device,
                                        &device, s.rows, s.dim);
    }
    cpu_residual_mix_norm_backward(&host_lane, e->dx, e->dx0, want_dskip, e->dmix, e->dskip_scale, e->dnormed, normed,
                                   inv, &e->host, &host, s.rows, s.dim);
    if (!host.ends) assert_acts("dx", host_acts(c, dx[0], e->count), e->dx, s);
    assert_acts("dx0", host_acts(c, dx0[0], e->count), e->dx0, s);
    if (e->kind.skip == SKIP) assert_acts("dskip", host_acts(c, dskip, e->count), want_dskip, s);
    real *got = host_reals(c, sums[0], e->width), *got_scale = host_reals(c, scale_sums[0], s.dim);
    assert_same("dmix, twice", host_reals(c, sums[1], e->width), got, e->width * sizeof *got);
    assert_same("dskip_scale, twice", host_reals(c, scale_sums[1], s.dim), got_scale, s.dim * sizeof *got_scale);
    assert_reals("dmix", got, e->dmix, e->width, s);
    assert_reals("dskip_scale", got_scale, e->dskip_scale, s.dim, s);
    free(want_dskip);
}

static void check_entry(struct shape s, struct entry_kind kind) {
    struct device_case c;
    struct entry e;
    case_begin(&c, cuda_rows_scratch(s.rows, s.dim));
    entry_begin(&e, &c, s, kind);
    real *want = malloc(e.count * sizeof *want), *want_normed = malloc(e.count * sizeof *want);
    real *inv = malloc(s.rows * sizeof *inv), *device_inv = device_poisoned_reals(&c, s.rows);
    act *y = device_poisoned_acts(&c, e.count), *normed = device_poisoned_acts(&c, e.count);
    cpu_residual_mix_norm_forward(&host_lane, want, want_normed, inv, &e.host, s.rows, s.dim);
    cuda_residual_mix_norm_forward(&c.lane, y, normed, device_inv, &e.device, s.rows, s.dim);
    assert_acts("y", host_acts(&c, y, e.count), want, s);
    assert_reals("inv", host_reals(&c, device_inv, s.rows), inv, s.rows, s);
    real *got = host_acts(&c, normed, e.count);
    check_entry_backward(&c, &e, s, got, inv);
    assert_acts("normed", got, want_normed, s);
    act *x = device_acts(&c, e.x, e.count);
    e.device.x = x;
    if (kind.skip == SKIP_OF_ITSELF) e.device.skip = x;
    cuda_residual_mix_norm_forward(&c.lane, x, normed, device_inv, &e.device, s.rows, s.dim);
    assert_acts("y in place", host_acts(&c, x, e.count), want, s);
    free(want), free(want_normed), free(inv);
    entry_end(&e);
    case_end(&c);
}

static void entries_with_their_norms_agree_with_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++)
        for (int k = 0; k < ENTRY_KINDS; k++) check_entry(shapes[i], entry_kinds[k]);
}

static void norms_agree_with_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        check_rms_norm(shapes[i], true);
        check_rms_norm(shapes[i], false);
    }
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
    assert_rounded("leaky relu squared", host_acts(&c, at, count), want, count);
    cpu_leaky_relu_squared_backward(&host_lane, want, dy + first, x + first, count);
    cuda_leaky_relu_squared_backward(&c.lane, at, dy_at, x_at, count);
    assert_rounded("its slope", host_acts(&c, at, count), want, count);
    cuda_leaky_relu_squared_backward(&c.lane, dy_at, dy_at, x_at, count);
    assert_rounded("its slope, in place", host_acts(&c, dy_at, count), want, count);
    memcpy(want, x + first, count * sizeof *want);
    cpu_add_into(&host_lane, want, dy + first, count);
    cuda_add_into(&c.lane, x_at, device_acts(&c, dy + first, count), count);
    assert_rounded("a + b", host_acts(&c, x_at, count), want, count);
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
    assert_rounded("out", host_acts(&c, out, count), want, count);
    cpu_silu_gate_backward(&host_lane, want, dz, dout, y, z, stride, rows, dim);
    cuda_silu_gate_backward(&c.lane, device_dout, device_dz, device_dout, device_y, device_z, stride, rows, dim);
    assert_rounded("dy", host_acts(&c, device_dout, count), want, count);
    assert_rounded("dz", host_acts(&c, device_dz, z_count), dz, z_count);
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
        cmocka_unit_test(gates_agree_with_the_cpu),       cmocka_unit_test(entries_with_their_norms_agree_with_the_cpu),
    };
    return cmocka_run_group_tests_name("residual ops on CUDA", tests, NULL, NULL);
}
