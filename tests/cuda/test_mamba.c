/* test_mamba: preparing, scanning and decoding on CUDA against the CPU's, on inputs that an act can hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

/* An act keeps 8 bits: rounding to it costs at most 2^-9 of each element. */
static const double ACT_TOLERANCE = 4e-3;
/* The tensor cores are given x, the state and the chunk's matrix rounded to acts on the way: three such errors. */
static const double SCAN_TOLERANCE = 8e-3;
/* Float on both sides, with other orders and other forms of exp and tanh. */
static const double REAL_TOLERANCE = 1e-5;

static const struct mamba_shape shapes[] = {
    {.batch = 1, .time = 20, .heads = 2, .head_dim = 16, .state = 16, .groups = 1, .angles = 4, .chunk = 8},
    {.batch = 2, .time = 70, .heads = 4, .head_dim = 5, .state = 9, .groups = 2, .angles = 3, .chunk = 64},
    {.batch = 1, .time = 130, .heads = 1, .head_dim = 64, .state = 64, .groups = 1, .angles = 16, .chunk = 64},
    {.batch = 1, .time = 33, .heads = 2, .head_dim = 7, .state = 6, .groups = 1, .angles = 0, .chunk = 16},
    {.batch = 2, .time = 40, .heads = 1, .head_dim = 80, .state = 72, .groups = 1, .angles = 36, .chunk = 32},
    {.batch = 1, .time = 90, .heads = 1, .head_dim = 40, .state = 132, .groups = 1, .angles = 20, .chunk = 100},
};

/* --- one shape: the same tensors on both sides ----------------------------------------------------------------------
 */

struct sizes {
    size_t rows, width, vectors, steps, pairs, norms, inner, states;
};

static struct sizes sizes_of(const struct mamba_shape *s) {
    size_t rows = s->batch * s->time;
    return (struct sizes){
        .rows = rows,
        .width = mamba_columns(s).width,
        .vectors = rows * s->heads * s->state,
        .steps = rows * s->heads,
        .pairs = rows * s->heads * s->angles,
        .norms = rows * s->groups,
        .inner = rows * s->heads * s->head_dim,
        .states = s->batch * s->heads * mamba_chunks(s) * s->head_dim * s->state,
    };
}

struct mamba_case {
    struct device_case device;
    struct mamba_shape s;
    struct sizes n;
    struct lane host;
    void *owned[64]; /* of the host */
    int owned_count;
    real *proj;
    act *device_proj;
    struct mamba_weights weights, device_weights;
    struct mamba_tape tape, device_tape; /* filled by the CPU's prepare_forward, and its copy */
};

static real *own(struct mamba_case *c, real *x) {
    assert_true(c->owned_count < (int)(sizeof c->owned / sizeof *c->owned));
    return c->owned[c->owned_count++] = x;
}

static real *empty(struct mamba_case *c, size_t count) { return own(c, malloc(count * sizeof(real) + 1)); }

static real *acts_of(struct mamba_case *c, const char *name, size_t count, real scale) {
    return own(c, random_acts(name, count, scale));
}

static real *shifted(struct mamba_case *c, const char *name, size_t count, real scale, real mean) {
    real *x = own(c, random_reals(name, count, scale));
    for (size_t i = 0; i < count; i++) x[i] += mean;
    return x;
}

static void make_weights(struct mamba_case *c) {
    const struct mamba_shape *s = &c->s;
    struct device_case *d = &c->device;
    size_t biases = s->heads * s->state;
    /* Small steps, as trained: what happens in one token must count in the next tile. */
    c->weights = (struct mamba_weights){.dt_bias = shifted(c, "dt_bias", s->heads, 1, -3),
                                        .b_bias = shifted(c, "b_bias", biases, 1, 1),
                                        .c_bias = shifted(c, "c_bias", biases, 1, 1),
                                        .b_norm = shifted(c, "b_norm", s->state, 1, 1),
                                        .c_norm = shifted(c, "c_norm", s->state, 1, 1),
                                        .d = shifted(c, "d", s->heads, 1, 1)};
    c->device_weights = (struct mamba_weights){.dt_bias = device_reals(d, c->weights.dt_bias, s->heads),
                                               .b_bias = device_reals(d, c->weights.b_bias, biases),
                                               .c_bias = device_reals(d, c->weights.c_bias, biases),
                                               .b_norm = device_reals(d, c->weights.b_norm, s->state),
                                               .c_norm = device_reals(d, c->weights.c_norm, s->state),
                                               .d = device_reals(d, c->weights.d, s->heads)};
}

static void case_of(struct mamba_case *c, struct mamba_shape s) {
    size_t prepare = cuda_mamba_prepare_scratch(&s), ssd = cuda_ssd_scratch(&s);
    *c = (struct mamba_case){.s = s, .n = sizes_of(&s)};
    case_begin(&c->device, prepare > ssd ? prepare : ssd);
    size_t host_prepare = cpu_mamba_prepare_scratch(&s), host_ssd = cpu_ssd_scratch(&s);
    c->host.scratch_bytes = host_prepare > host_ssd ? host_prepare : host_ssd;
    c->host.scratch = c->owned[c->owned_count++] = aligned_alloc(64, (c->host.scratch_bytes + 63) / 64 * 64);
    c->proj = acts_of(c, "proj", c->n.rows * c->n.width, 1);
    c->device_proj = device_acts(&c->device, c->proj, c->n.rows * c->n.width);
    make_weights(c);
    c->tape = (struct mamba_tape){.b = empty(c, c->n.vectors),
                                  .c = empty(c, c->n.vectors),
                                  .inv_b = empty(c, c->n.norms),
                                  .inv_c = empty(c, c->n.norms),
                                  .delta = empty(c, c->n.steps),
                                  .log_decay = empty(c, c->n.steps),
                                  .gamma = empty(c, c->n.steps),
                                  .cosine = s.angles ? empty(c, c->n.pairs) : NULL,
                                  .sine = s.angles ? empty(c, c->n.pairs) : NULL,
                                  .states = empty(c, c->n.states)};
    cpu_mamba_prepare_forward(&c->host, &c->tape, c->proj, &c->weights, &c->s);
}

static void case_done(struct mamba_case *c) {
    case_end(&c->device);
    for (int i = 0; i < c->owned_count; i++) free(c->owned[i]);
}

/* Rounds x as an act on both sides; NULL stays NULL. */
static act *share_acts(struct mamba_case *c, real **x, size_t count) {
    if (!*x) return NULL;
    act *device = device_acts(&c->device, *x, count);
    *x = own(c, host_acts(&c->device, device, count));
    return device;
}

/* The device's copy of what the CPU has on its tape: the backward ops start from the same numbers. */
static void share_tape(struct mamba_case *c, bool states) {
    struct device_case *d = &c->device;
    c->device_tape = (struct mamba_tape){.b = share_acts(c, &c->tape.b, c->n.vectors),
                                         .c = share_acts(c, &c->tape.c, c->n.vectors),
                                         .inv_b = device_reals(d, c->tape.inv_b, c->n.norms),
                                         .inv_c = device_reals(d, c->tape.inv_c, c->n.norms),
                                         .delta = device_reals(d, c->tape.delta, c->n.steps),
                                         .log_decay = device_reals(d, c->tape.log_decay, c->n.steps),
                                         .gamma = device_reals(d, c->tape.gamma, c->n.steps),
                                         .cosine = share_acts(c, &c->tape.cosine, c->n.pairs),
                                         .sine = share_acts(c, &c->tape.sine, c->n.pairs),
                                         .states = states ? share_acts(c, &c->tape.states, c->n.states)
                                                          : device_poisoned_acts(d, c->n.states)};
}

static void close_acts(struct mamba_case *c, const char *name, const act *got, const real *want, size_t count,
                       double tolerance) {
    assert_close(name, host_acts(&c->device, got, count), want, count, tolerance);
}

static void close_reals(struct mamba_case *c, const char *name, const real *got, const real *want, size_t count,
                        double tolerance) {
    assert_close(name, host_reals(&c->device, got, count), want, count, tolerance);
}

/* --- prepare
 * ---------------------------------------------------------------------------------------------------------- */

static void check_prepare_forward(struct mamba_case *c) {
    struct device_case *d = &c->device;
    struct mamba_tape t = {.b = device_poisoned_acts(d, c->n.vectors),
                           .c = device_poisoned_acts(d, c->n.vectors),
                           .inv_b = device_poisoned_reals(d, c->n.norms),
                           .inv_c = device_poisoned_reals(d, c->n.norms),
                           .delta = device_poisoned_reals(d, c->n.steps),
                           .log_decay = device_poisoned_reals(d, c->n.steps),
                           .gamma = device_poisoned_reals(d, c->n.steps),
                           .cosine = c->s.angles ? device_poisoned_acts(d, c->n.pairs) : NULL,
                           .sine = c->s.angles ? device_poisoned_acts(d, c->n.pairs) : NULL};
    cuda_mamba_prepare_forward(&d->lane, &t, c->device_proj, &c->device_weights, &c->s);
    close_acts(c, "b", t.b, c->tape.b, c->n.vectors, ACT_TOLERANCE);
    close_acts(c, "c", t.c, c->tape.c, c->n.vectors, ACT_TOLERANCE);
    close_reals(c, "inv_b", t.inv_b, c->tape.inv_b, c->n.norms, REAL_TOLERANCE);
    close_reals(c, "inv_c", t.inv_c, c->tape.inv_c, c->n.norms, REAL_TOLERANCE);
    close_reals(c, "delta", t.delta, c->tape.delta, c->n.steps, REAL_TOLERANCE);
    close_reals(c, "log_decay", t.log_decay, c->tape.log_decay, c->n.steps, REAL_TOLERANCE);
    close_reals(c, "gamma", t.gamma, c->tape.gamma, c->n.steps, REAL_TOLERANCE);
    if (!c->s.angles) return;
    close_acts(c, "cosine", t.cosine, c->tape.cosine, c->n.pairs, ACT_TOLERANCE);
    close_acts(c, "sine", t.sine, c->tape.sine, c->n.pairs, ACT_TOLERANCE);
}

static void prepares_as_the_cpu_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mamba_case c;
        case_of(&c, shapes[i]);
        check_prepare_forward(&c);
        case_done(&c);
    }
}

/* The six small gradients, which start as what "before" draws, side by side. */
static const char *const gradient_names[] = {"ddt_bias", "db_bias", "dc_bias", "db_norm", "dc_norm", "dd"};

static void gradient_counts(const struct mamba_shape *s, size_t counts[6]) {
    size_t each[] = {s->heads, s->heads * s->state, s->heads * s->state, s->state, s->state, s->heads};
    memcpy(counts, each, sizeof each);
}

static struct mamba_gradients gradients_at(real *const g[6]) {
    return (struct mamba_gradients){g[0], g[1], g[2], g[3], g[4], g[5]};
}

/* Columns `from`.. of all rows: from the device, side by side. */
static real *columns_of(const real *rows, size_t count, size_t width, size_t from, size_t columns) {
    real *out = malloc(count * columns * sizeof *out + 1);
    for (size_t r = 0; r < count; r++) memcpy(out + r * columns, rows + r * width + from, columns * sizeof *out);
    return out;
}

static void close_columns(const char *name, const real *got, const real *want, struct sizes n, size_t from,
                          size_t columns, double tolerance) {
    real *expected = columns_of(want, n.rows, n.width, from, columns);
    assert_close(name, columns_of(got, n.rows, n.width, from, columns), expected, n.rows * columns, tolerance);
    free(expected);
}

static void check_prepare_backward(struct mamba_case *c) {
    struct device_case *d = &c->device;
    struct mamba_columns k = mamba_columns(&c->s);
    share_tape(c, false);
    struct mamba_tape_gradients dtape = {acts_of(c, "db", c->n.vectors, 1), acts_of(c, "dc", c->n.vectors, 1),
                                         own(c, random_reals("ddelta", c->n.steps, 1)),
                                         own(c, random_reals("dlog_decay", c->n.steps, 1)),
                                         own(c, random_reals("dgamma", c->n.steps, 1))};
    struct mamba_tape_gradients device_dtape = {
        device_acts(d, dtape.b, c->n.vectors), device_acts(d, dtape.c, c->n.vectors),
        device_reals(d, dtape.delta, c->n.steps), device_reals(d, dtape.log_decay, c->n.steps),
        device_reals(d, dtape.gamma, c->n.steps)};
    real *dproj = acts_of(c, "dproj", c->n.rows * c->n.width, 1), *want[6], *got[6], *again[6];
    act *device_dproj = device_acts(d, dproj, c->n.rows * c->n.width);
    size_t counts[6];
    gradient_counts(&c->s, counts);
    for (int i = 0; i < 6; i++) {
        want[i] = own(c, random_reals("before", counts[i], 1));
        got[i] = device_reals(d, want[i], counts[i]);
        again[i] = device_reals(d, want[i], counts[i]);
    }
    struct mamba_gradients to = gradients_at(want), device_to = gradients_at(got), twice = gradients_at(again);
    cpu_mamba_prepare_backward(&c->host, dproj, &to, &dtape, &c->tape, c->proj, &c->weights, &c->s);
    cuda_mamba_prepare_backward(&d->lane, device_dproj, &device_to, &device_dtape, &c->device_tape, c->device_proj,
                                &c->device_weights, &c->s);
    real *out = own(c, host_acts(d, device_dproj, c->n.rows * c->n.width));
    close_columns("z and x", out, dproj, c->n, 0, k.b, 0);
    close_columns("dB", out, dproj, c->n, k.b, k.c - k.b, ACT_TOLERANCE);
    close_columns("dC", out, dproj, c->n, k.c, k.dt - k.c, ACT_TOLERANCE);
    close_columns("ddt'", out, dproj, c->n, k.dt, c->s.heads, ACT_TOLERANCE);
    close_columns("da'", out, dproj, c->n, k.a, c->s.heads, ACT_TOLERANCE);
    close_columns("dlambda'", out, dproj, c->n, k.lambda, c->s.heads, ACT_TOLERANCE);
    close_columns("dtheta'", out, dproj, c->n, k.theta, c->s.angles, ACT_TOLERANCE);
    for (int i = 0; i < 6; i++) close_reals(c, gradient_names[i], got[i], want[i], counts[i], REAL_TOLERANCE);
    cuda_mamba_prepare_backward(&d->lane, device_dproj, &twice, &device_dtape, &c->device_tape, c->device_proj,
                                &c->device_weights, &c->s);
    for (int i = 0; i < 6; i++)
        assert_same(gradient_names[i], host_reals(d, again[i], counts[i]), own(c, host_reals(d, got[i], counts[i])),
                    counts[i] * sizeof(real));
}

static void prepares_backward_as_the_cpu_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mamba_case c;
        case_of(&c, shapes[i]);
        check_prepare_backward(&c);
        case_done(&c);
    }
}

/* --- scan
 * ---------------------------------------------------------------------------------------------------------------- */

static void check_scan_forward(struct mamba_case *c) {
    struct device_case *d = &c->device;
    share_tape(c, false);
    real *want = empty(c, c->n.inner);
    act *y = device_poisoned_acts(d, c->n.inner), *again = device_poisoned_acts(d, c->n.inner);
    cpu_ssd_forward(&c->host, want, &c->tape, c->proj, c->weights.d, &c->s);
    cuda_ssd_forward(&d->lane, y, &c->device_tape, c->device_proj, c->device_weights.d, &c->s);
    close_acts(c, "y", y, want, c->n.inner, SCAN_TOLERANCE);
    /* Longer chunks are cut into tiles on the device, and only its backward pass knows their states. */
    if (c->s.chunk <= 64) close_acts(c, "states", c->device_tape.states, c->tape.states, c->n.states, SCAN_TOLERANCE);
    cuda_ssd_forward(&d->lane, again, &c->device_tape, c->device_proj, c->device_weights.d, &c->s);
    assert_same("y", host_acts(d, again, c->n.inner), own(c, host_acts(d, y, c->n.inner)), c->n.inner * sizeof(real));
}

static void scans_as_the_cpu_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mamba_case c;
        case_of(&c, shapes[i]);
        check_scan_forward(&c);
        case_done(&c);
    }
}

struct scan_gradients {
    struct mamba_tape_gradients tape;
    act *dproj;
    real *dd;
};

static struct scan_gradients scan_backward(struct mamba_case *c, const real *dproj, const real *dd, const act *dy) {
    struct device_case *d = &c->device;
    struct scan_gradients g = {{device_poisoned_acts(d, c->n.vectors), device_poisoned_acts(d, c->n.vectors),
                                device_poisoned_reals(d, c->n.steps), device_poisoned_reals(d, c->n.steps),
                                device_poisoned_reals(d, c->n.steps)},
                               device_acts(d, dproj, c->n.rows * c->n.width),
                               device_reals(d, dd, c->s.heads)};
    cuda_ssd_backward(&d->lane, g.dproj, &g.tape, g.dd, dy, &c->device_tape, c->device_proj, c->device_weights.d,
                      &c->s);
    return g;
}

static void same_reals(struct mamba_case *c, const char *name, const real *a, const real *b, size_t count) {
    assert_same(name, host_reals(&c->device, a, count), own(c, host_reals(&c->device, b, count)), count * sizeof *a);
}

static void check_scan_backward(struct mamba_case *c) {
    struct device_case *d = &c->device;
    size_t x = mamba_columns(&c->s).x, b = mamba_columns(&c->s).b;
    real *y = empty(c, c->n.inner), *dy = acts_of(c, "dy", c->n.inner, 1);
    share_tape(c, false);
    cpu_ssd_forward(&c->host, y, &c->tape, c->proj, c->weights.d, &c->s);
    c->device_tape.states = share_acts(c, &c->tape.states, c->n.states);
    real *dproj = acts_of(c, "dproj", c->n.rows * c->n.width, 1), *dd = own(c, random_reals("dd", c->s.heads, 1));
    act *device_dy = device_acts(d, dy, c->n.inner);
    struct scan_gradients got = scan_backward(c, dproj, dd, device_dy), again = scan_backward(c, dproj, dd, device_dy);
    struct mamba_tape_gradients want = {empty(c, c->n.vectors), empty(c, c->n.vectors), empty(c, c->n.steps),
                                        empty(c, c->n.steps), empty(c, c->n.steps)};
    cpu_ssd_backward(&c->host, dproj, &want, dd, dy, &c->tape, c->proj, c->weights.d, &c->s);
    real *out = own(c, host_acts(d, got.dproj, c->n.rows * c->n.width));
    close_columns("z", out, dproj, c->n, 0, x, 0);
    close_columns("dx", out, dproj, c->n, x, b - x, SCAN_TOLERANCE);
    close_columns("B and later", out, dproj, c->n, b, c->n.width - b, 0);
    close_acts(c, "dB", got.tape.b, want.b, c->n.vectors, SCAN_TOLERANCE);
    close_acts(c, "dC", got.tape.c, want.c, c->n.vectors, SCAN_TOLERANCE);
    close_reals(c, "ddelta", got.tape.delta, want.delta, c->n.steps, SCAN_TOLERANCE);
    close_reals(c, "dlog_decay", got.tape.log_decay, want.log_decay, c->n.steps, SCAN_TOLERANCE);
    close_reals(c, "dgamma", got.tape.gamma, want.gamma, c->n.steps, SCAN_TOLERANCE);
    close_reals(c, "dd", got.dd, dd, c->s.heads, REAL_TOLERANCE);
    same_reals(c, "ddelta", again.tape.delta, got.tape.delta, c->n.steps);
    same_reals(c, "dlog_decay", again.tape.log_decay, got.tape.log_decay, c->n.steps);
    same_reals(c, "dgamma", again.tape.gamma, got.tape.gamma, c->n.steps);
    same_reals(c, "dd", again.dd, got.dd, c->s.heads);
}

static void scans_backward_as_the_cpu_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mamba_case c;
        case_of(&c, shapes[i]);
        check_scan_backward(&c);
        case_done(&c);
    }
}

/* --- decode
 * --------------------------------------------------------------------------------------------------------------- */

static void check_decode(struct mamba_case *c) {
    struct device_case *d = &c->device;
    struct mamba_shape one = c->s;
    one.time = 1;
    size_t heads = one.batch * one.heads, inner = heads * one.head_dim, vectors = heads * one.state;
    size_t states = inner * one.state, pairs = heads * one.angles, rows = one.batch * c->n.width;
    struct mamba_state want = {own(c, random_reals("s", states, 1)), own(c, random_reals("phase", pairs, 1)),
                               own(c, random_reals("b before", vectors, 1)), acts_of(c, "x before", inner, 1)};
    struct mamba_state got = {device_reals(d, want.s, states), device_reals(d, want.phase, pairs),
                              device_reals(d, want.b_before, vectors), device_reals(d, want.x_before, inner)};
    real *out = empty(c, inner);
    act *device_out = device_poisoned_acts(d, inner);
    for (size_t t = 0; t < 3; t++) {
        act *row = device_acts(d, c->proj + t * rows, rows);
        cpu_mamba_decode(&c->host, out, &want, c->proj + t * rows, &c->weights, &one);
        cuda_mamba_decode(&d->lane, device_out, &got, row, &c->device_weights, &one);
        close_acts(c, "out", device_out, out, inner, ACT_TOLERANCE);
    }
    close_reals(c, "s", got.s, want.s, states, REAL_TOLERANCE);
    close_reals(c, "phase", got.phase, want.phase, pairs, REAL_TOLERANCE);
    close_reals(c, "b before", got.b_before, want.b_before, vectors, REAL_TOLERANCE);
    close_reals(c, "x before", got.x_before, want.x_before, inner, 0);
}

static void decodes_as_the_cpu_does(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mamba_case c;
        case_of(&c, shapes[i]);
        check_decode(&c);
        case_done(&c);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prepares_as_the_cpu_does), cmocka_unit_test(prepares_backward_as_the_cpu_does),
        cmocka_unit_test(scans_as_the_cpu_does),    cmocka_unit_test(scans_backward_as_the_cpu_does),
        cmocka_unit_test(decodes_as_the_cpu_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
