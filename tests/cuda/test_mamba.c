/* test_mamba: preparing, scanning and decoding on CUDA against the CPU's, on inputs that an act can hold. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

/* The tensor cores are given B, C, x, the states and the chunk's matrices rounded to acts on the way. */
static const double SCAN_TOLERANCE = 8e-3;
/* Of sums over tokens too, of parts of both signs: what these err by counts against what is left of them. */
static const double SUM_TOLERANCE = 1.5e-2;

static const struct mamba_shape shapes[] = {
    {.batch = 1, .time = 20, .heads = 2, .head_dim = 16, .state = 16, .groups = 1, .angles = 4, .chunk = 8},
    {.batch = 2, .time = 70, .heads = 4, .head_dim = 5, .state = 9, .groups = 2, .angles = 3, .chunk = 64},
    {.batch = 1, .time = 130, .heads = 1, .head_dim = 64, .state = 64, .groups = 1, .angles = 16, .chunk = 64},
    {.batch = 1, .time = 33, .heads = 2, .head_dim = 7, .state = 6, .groups = 1, .angles = 0, .chunk = 16},
    {.batch = 2, .time = 40, .heads = 1, .head_dim = 80, .state = 72, .groups = 1, .angles = 36, .chunk = 32},
    {.batch = 1, .time = 90, .heads = 1, .head_dim = 40, .state = 132, .groups = 1, .angles = 20, .chunk = 60},
    {.batch = 1, .time = 70, .heads = 2, .head_dim = 34, .state = 256, .groups = 1, .angles = 64, .chunk = 64},
    {.batch = 1, .time = 24, .heads = 4, .head_dim = 8, .state = 128, .groups = 2, .angles = 64, .chunk = 16},
    /* More columns of steps than fit in shared memory. */
    {.batch = 2, .time = 40, .heads = 96, .head_dim = 2, .state = 4, .groups = 2, .angles = 2, .chunk = 16},
    /* These fill their tiles; those after them all but for tokens and angles. */
    {.batch = 1, .time = 256, .heads = 8, .head_dim = 64, .state = 64, .groups = 2, .angles = 16, .chunk = 64},
    {.batch = 2, .time = 64, .heads = 8, .head_dim = 64, .state = 64, .groups = 1, .angles = 16, .chunk = 64},
    {.batch = 1, .time = 100, .heads = 2, .head_dim = 64, .state = 64, .groups = 1, .angles = 10, .chunk = 64},
    {.batch = 2, .time = 72, .heads = 4, .head_dim = 64, .state = 64, .groups = 2, .angles = 4, .chunk = 32},
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
    struct mamba_tape tape; /* filled by the CPU's prepare_forward */
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
    for (size_t i = 0; i < count; i++) x[i] = (float)(x[i] + mean);
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

/* The tape of a device whose scan makes B and C, and its gradients, all poisoned. */
static struct mamba_tape poisoned_tape(struct mamba_case *c) {
    struct device_case *d = &c->device;
    size_t starts = c->s.batch * c->s.heads * mamba_chunks(&c->s) * c->s.angles;
    return (struct mamba_tape){.rate = device_poisoned_reals(d, c->n.rows * c->s.angles),
                               .phase = device_poisoned_reals(d, starts),
                               .inv_b = device_poisoned_reals(d, c->n.norms),
                               .inv_c = device_poisoned_reals(d, c->n.norms),
                               .delta = device_poisoned_reals(d, c->n.steps),
                               .log_decay = device_poisoned_reals(d, c->n.steps),
                               .gamma = device_poisoned_reals(d, c->n.steps),
                               .states = device_poisoned_acts(d, c->n.states)};
}

static struct mamba_tape_gradients poisoned_gradients(struct mamba_case *c) {
    struct device_case *d = &c->device;
    size_t starts = c->s.batch * c->s.heads * mamba_chunks(&c->s) * c->s.angles;
    return (struct mamba_tape_gradients){.theta = device_poisoned_reals(d, c->s.groups * c->n.rows * c->s.angles),
                                         .phase = device_poisoned_reals(d, starts),
                                         .delta = device_poisoned_reals(d, c->n.steps),
                                         .log_decay = device_poisoned_reals(d, c->n.steps),
                                         .gamma = device_poisoned_reals(d, c->n.steps)};
}

static void close_acts(struct mamba_case *c, const char *name, const act *got, const real *want, size_t count,
                       double tolerance) {
    assert_close(name, host_acts(&c->device, got, count), want, count, tolerance);
}

static void close_reals(struct mamba_case *c, const char *name, const real *got, const real *want, size_t count,
                        double tolerance) {
    assert_close(name, host_reals(&c->device, got, count), want, count, tolerance);
}

static void same_reals(struct mamba_case *c, const char *name, const real *a, const real *b, size_t count) {
    assert_same(name, host_reals(&c->device, a, count), own(c, host_reals(&c->device, b, count)), count * sizeof *a);
}

static void same_acts(struct mamba_case *c, const char *name, const act *a, const act *b, size_t count) {
    assert_same(name, host_acts(&c->device, a, count), own(c, host_acts(&c->device, b, count)), count * sizeof(real));
}

/* --- forward ------------------------------------------------------------------------------------------------------ */

/* What is (batch, time, each) on the CPU is (batch, each, time) on the device. */
static void close_steps(struct mamba_case *c, const char *name, const real *got, const real *want, size_t each) {
    size_t batch = c->s.batch, time = c->s.time;
    real *turned = empty(c, batch * time * each);
    for (size_t b = 0; b < batch; b++)
        for (size_t t = 0; t < time; t++)
            for (size_t i = 0; i < each; i++) turned[(b * each + i) * time + t] = want[(b * time + t) * each + i];
    close_reals(c, name, got, turned, batch * time * each, FLOAT_TOLERANCE);
}

static act *run_forward(struct mamba_case *c, struct mamba_tape *tape) {
    struct device_case *d = &c->device;
    act *y = device_poisoned_acts(d, c->n.inner);
    *tape = poisoned_tape(c);
    cuda_mamba_prepare_forward(&d->lane, tape, c->device_proj, &c->device_weights, &c->s);
    cuda_ssd_forward(&d->lane, y, tape, c->device_proj, &c->device_weights, &c->s);
    return y;
}

/* The scan with its gate leaves the bits that the two ops leave. */
static void check_gate(struct mamba_case *c, struct mamba_tape *tape, const act *y) {
    struct device_case *d = &c->device;
    size_t rows = c->n.rows, inner = c->s.heads * c->s.head_dim, width = c->n.width;
    act *gated = device_poisoned_acts(d, c->n.inner), *own = device_poisoned_acts(d, c->n.inner),
        *want = device_poisoned_acts(d, c->n.inner);
    cuda_silu_gate_forward(&d->lane, want, y, c->device_proj + mamba_columns(&c->s).z, width, rows, inner);
    cuda_ssd_silu_gate_forward(&d->lane, gated, own, tape, c->device_proj, &c->device_weights, &c->s);
    same_acts(c, "y", own, y, c->n.inner);
    same_acts(c, "gated", gated, want, c->n.inner);
}

static void check_forward(struct mamba_case *c) {
    struct mamba_tape tape, again;
    real *want = empty(c, c->n.inner);
    act *y = run_forward(c, &tape);
    cpu_ssd_forward(&c->host, want, &c->tape, c->proj, &c->weights, &c->s);
    close_steps(c, "inv_b", tape.inv_b, c->tape.inv_b, c->s.groups);
    close_steps(c, "inv_c", tape.inv_c, c->tape.inv_c, c->s.groups);
    close_steps(c, "delta", tape.delta, c->tape.delta, c->s.heads);
    close_steps(c, "log_decay", tape.log_decay, c->tape.log_decay, c->s.heads);
    close_steps(c, "gamma", tape.gamma, c->tape.gamma, c->s.heads);
    close_acts(c, "states", tape.states, c->tape.states, c->n.states, SCAN_TOLERANCE);
    close_acts(c, "y", y, want, c->n.inner, SCAN_TOLERANCE);
    same_acts(c, "y", run_forward(c, &again), y, c->n.inner);
    check_gate(c, &again, y);
}

static void for_each_shape(void (*check)(struct mamba_case *c)) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct mamba_case c;
        case_of(&c, shapes[i]);
        check(&c);
        case_done(&c);
    }
}

static void prepares_and_scans_as_the_cpu_does(void **state) {
    (void)state;
    for_each_shape(check_forward);
}

/* float32 would lose the angle over thousands of tokens: a chunk starts where float64 says. */
static void phases_stay_right_over_thousands_of_tokens(void **state) {
    (void)state;
    enum { TIME = 6000, CHUNK = 64 };
    struct mamba_case c;
    case_of(
        &c,
        (struct mamba_shape){
            .batch = 1, .time = TIME, .heads = 1, .head_dim = 2, .state = 4, .groups = 1, .angles = 1, .chunk = CHUNK});
    struct mamba_tape tape = poisoned_tape(&c);
    for (size_t r = 0; r < TIME; r++) c.proj[r * c.n.width + mamba_columns(&c.s).dt] += 3;
    act *proj = device_acts(&c.device, c.proj, c.n.rows * c.n.width);
    cuda_mamba_prepare_forward(&c.device.lane, &tape, proj, &c.device_weights, &c.s);
    real *rate = own(&c, host_reals(&c.device, tape.rate, TIME)),
         *delta = own(&c, host_reals(&c.device, tape.delta, TIME));
    size_t chunks = mamba_chunks(&c.s);
    real *phase = own(&c, host_reals(&c.device, tape.phase, chunks));
    double sum = 0;
    for (size_t t = 0; t < TIME; t++) {
        double off = phase[t / CHUNK] - sum;
        if (t % CHUNK == 0 && !(fabs(off - rint(off)) < 1e-6))
            fail_msg("the phase of chunk %zu is off by %.3g turns", t / CHUNK, off - rint(off));
        sum += (double)rate[t] * (double)delta[t];
    }
    case_done(&c);
}

/* --- backward ----------------------------------------------------------------------------------------------------- */

static const char *const gradient_names[] = {"ddt_bias", "db_bias", "dc_bias", "db_norm", "dc_norm", "dd"};

static void gradient_counts(const struct mamba_shape *s, size_t counts[6]) {
    size_t each[] = {s->heads, s->heads * s->state, s->heads * s->state, s->state, s->state, s->heads};
    memcpy(counts, each, sizeof each);
}

static struct mamba_gradients gradients_at(real *const g[6]) {
    return (struct mamba_gradients){g[0], g[1], g[2], g[3], g[4], g[5]};
}

/* Some columns of all rows, side by side; for the caller to free. */
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

/* What one backward pass leaves on the device. */
struct gradients {
    act *dproj;
    real *small[6];
};

static struct gradients run_backward(struct mamba_case *c, const struct mamba_tape *tape, const act *dy,
                                     const real *dproj, real *const before[6]) {
    struct device_case *d = &c->device;
    struct mamba_tape_gradients dtape = poisoned_gradients(c);
    struct gradients g = {.dproj = device_acts(d, dproj, c->n.rows * c->n.width)};
    size_t counts[6];
    gradient_counts(&c->s, counts);
    for (int i = 0; i < 6; i++) g.small[i] = device_reals(d, before[i], counts[i]);
    struct mamba_gradients to = gradients_at(g.small);
    cuda_ssd_backward(&d->lane, g.dproj, &to, &dtape, dy, tape, c->device_proj, &c->device_weights, &c->s);
    cuda_mamba_prepare_backward(&d->lane, g.dproj, &to, &dtape, tape, c->device_proj, &c->device_weights, &c->s);
    return g;
}

static void want_backward(struct mamba_case *c, real *dproj, const real *dy, real *const small[6]) {
    struct mamba_gradients to = gradients_at(small);
    struct mamba_tape_gradients dtape = {.b = empty(c, c->n.vectors),
                                         .c = empty(c, c->n.vectors),
                                         .delta = empty(c, c->n.steps),
                                         .log_decay = empty(c, c->n.steps),
                                         .gamma = empty(c, c->n.steps)};
    real *y = empty(c, c->n.inner);
    cpu_ssd_forward(&c->host, y, &c->tape, c->proj, &c->weights, &c->s);
    cpu_ssd_backward(&c->host, dproj, &to, &dtape, dy, &c->tape, c->proj, &c->weights, &c->s);
    cpu_mamba_prepare_backward(&c->host, dproj, &to, &dtape, &c->tape, c->proj, &c->weights, &c->s);
}

static void check_columns(struct mamba_case *c, const act *device, const real *want) {
    struct mamba_columns k = mamba_columns(&c->s);
    real *got = own(c, host_acts(&c->device, device, c->n.rows * c->n.width));
    close_columns("z", got, want, c->n, 0, k.x, 0);
    close_columns("dx", got, want, c->n, k.x, k.b - k.x, SCAN_TOLERANCE);
    close_columns("dB", got, want, c->n, k.b, k.c - k.b, SCAN_TOLERANCE);
    close_columns("dC", got, want, c->n, k.c, k.dt - k.c, SCAN_TOLERANCE);
    close_columns("ddt'", got, want, c->n, k.dt, c->s.heads, SCAN_TOLERANCE);
    close_columns("da'", got, want, c->n, k.a, c->s.heads, SCAN_TOLERANCE);
    close_columns("dlambda'", got, want, c->n, k.lambda, c->s.heads, SCAN_TOLERANCE);
    close_columns("dtheta'", got, want, c->n, k.theta, c->s.angles, SUM_TOLERANCE);
}

/* A sum of parts of both signs errs by what its parts do, not in proportion to what is left of them. */
static void check_dt_bias(struct mamba_case *c, const real *device, const real *want, const real *dproj) {
    real *got = own(c, host_reals(&c->device, device, c->s.heads));
    for (size_t h = 0; h < c->s.heads; h++) {
        const real *parts = dproj + mamba_columns(&c->s).dt + h;
        double size = 0;
        for (size_t r = 0; r < c->n.rows; r++) size += parts[r * c->n.width] * parts[r * c->n.width];
        if (!(fabs(got[h] - want[h]) <= SUM_TOLERANCE * sqrt(size)))
            fail_msg("ddt_bias of head %zu: %.9g, but the CPU has %.9g; %.3g is the root of its parts' squares", h,
                     got[h], want[h], sqrt(size));
    }
}

static void check_backward(struct mamba_case *c) {
    struct mamba_tape tape;
    real *dy = acts_of(c, "dy", c->n.inner, 1), *dproj = acts_of(c, "dproj", c->n.rows * c->n.width, 1), *want[6];
    act *device_dy = device_acts(&c->device, dy, c->n.inner);
    size_t counts[6];
    gradient_counts(&c->s, counts);
    for (int i = 0; i < 6; i++) want[i] = own(c, random_reals("before", counts[i], 1));
    run_forward(c, &tape);
    struct gradients got = run_backward(c, &tape, device_dy, dproj, want);
    struct gradients again = run_backward(c, &tape, device_dy, dproj, want);
    want_backward(c, dproj, dy, want);
    check_columns(c, got.dproj, dproj);
    check_dt_bias(c, got.small[0], want[0], dproj);
    for (int i = 1; i < 6; i++)
        close_reals(c, gradient_names[i], got.small[i], want[i], counts[i], i < 5 ? SUM_TOLERANCE : FLOAT_TOLERANCE);
    same_acts(c, "dproj", again.dproj, got.dproj, c->n.rows * c->n.width);
    for (int i = 0; i < 6; i++) same_reals(c, gradient_names[i], again.small[i], got.small[i], counts[i]);
}

static void goes_back_as_the_cpu_does(void **state) {
    (void)state;
    for_each_shape(check_backward);
}

/* --- decode ------------------------------------------------------------------------------------------------------- */

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
        assert_rounded("out", host_acts(d, device_out, inner), out, inner);
    }
    close_reals(c, "s", got.s, want.s, states, FLOAT_TOLERANCE);
    close_reals(c, "phase", got.phase, want.phase, pairs, FLOAT_TOLERANCE);
    close_reals(c, "b before", got.b_before, want.b_before, vectors, FLOAT_TOLERANCE);
    close_reals(c, "x before", got.x_before, want.x_before, inner, 0);
}

static void decodes_as_the_cpu_does(void **state) {
    (void)state;
    for_each_shape(check_decode);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prepares_and_scans_as_the_cpu_does),
        cmocka_unit_test(phases_stay_right_over_thousands_of_tokens),
        cmocka_unit_test(goes_back_as_the_cpu_does),
        cmocka_unit_test(decodes_as_the_cpu_does),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
