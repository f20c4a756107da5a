/* test_attention: preparing q, k and v, attention and decoding on CUDA against the CPU's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/cuda/device_case.h"

/* An act keeps 8 bits: rounding to it costs at most 2^-8 of an element, and 1.7e-3 of the norm of many. Attention's out
 * is also a mean over rounded probabilities; gradients are sums over rounded P and dS, whose errors are as large as the
 * output's own, and decoding starts from rounded q, k and v. */
static const double OUT_TOLERANCE = 3e-3, GRADIENT_TOLERANCE = 6e-3;
static const double ROPE_BASE = 10000;

/* Tiles of 32, 64 and 128 dimensions, full and not; heads that are no vectors; heads wider than tiles. */
static const struct attention_shape shapes[] = {
    {.batch = 2, .time = 5, .heads = 2, .kv_heads = 1, .head_dim = 4, .rope_dims = 4},
    {.batch = 1, .time = 70, .heads = 6, .kv_heads = 2, .head_dim = 7, .rope_dims = 2},
    {.batch = 2, .time = 131, .heads = 2, .kv_heads = 1, .head_dim = 32, .rope_dims = 0},
    {.batch = 1, .time = 200, .heads = 4, .kv_heads = 2, .head_dim = 64, .rope_dims = 64},
    {.batch = 1, .time = 64, .heads = 3, .kv_heads = 3, .head_dim = 48, .rope_dims = 16},
    {.batch = 1, .time = 145, .heads = 2, .kv_heads = 1, .head_dim = 128, .rope_dims = 32},
    {.batch = 1, .time = 33, .heads = 1, .kv_heads = 1, .head_dim = 72, .rope_dims = 72},
    {.batch = 2, .time = 35, .heads = 2, .kv_heads = 1, .head_dim = 136, .rope_dims = 40},
    {.batch = 1, .time = 19, .heads = 2, .kv_heads = 2, .head_dim = 131, .rope_dims = 6},
};

/* One tensor of a case, on both sides. */
struct tensor {
    size_t count;
    real *host;
    act *device;
};

struct attention_case {
    struct device_case device;
    struct attention_shape s;
    struct lane lane; /* of the CPU */
    size_t rows, queries, keys, pairs;
    real *cosine, *sine, *gain, *device_cosine, *device_sine, *device_gain;
};

static void begin(struct attention_case *c, struct attention_shape s) {
    case_begin(&c->device, cuda_attention_scratch(&s));
    c->s = s;
    size_t bytes = (cpu_attention_scratch(&s) + 127) / 64 * 64;
    c->lane = (struct lane){.scratch = aligned_alloc(64, bytes), .scratch_bytes = bytes};
    c->rows = s.batch * s.time;
    c->queries = c->rows * s.heads * s.head_dim, c->keys = c->rows * s.kv_heads * s.head_dim;
    c->pairs = s.time * (s.rope_dims / 2);
    c->cosine = calloc(c->pairs + 1, sizeof(real)), c->sine = calloc(c->pairs + 1, sizeof(real));
    if (s.rope_dims) cpu_rope_table(&c->lane, c->cosine, c->sine, s.time, s.rope_dims, ROPE_BASE);
    c->gain = random_reals("gain", s.heads, 1);
    c->device_cosine = device_reals(&c->device, c->cosine, c->pairs + 1);
    c->device_sine = device_reals(&c->device, c->sine, c->pairs + 1);
    c->device_gain = device_reals(&c->device, c->gain, s.heads);
}

static void end(struct attention_case *c) {
    free(c->lane.scratch), free(c->cosine), free(c->sine), free(c->gain);
    case_end(&c->device);
}

static struct tensor drawn(struct attention_case *c, const char *name, size_t count, real scale) {
    struct tensor x = {.count = count, .host = random_acts(name, count, scale)};
    x.device = device_acts(&c->device, x.host, count);
    return x;
}

static struct tensor empty(struct attention_case *c, size_t count) {
    return (struct tensor){count, calloc(count + 1, sizeof(real)), device_poisoned_acts(&c->device, count)};
}

static void compare(struct attention_case *c, const char *name, struct tensor x, double tolerance) {
    assert_close(name, host_acts(&c->device, x.device, x.count), x.host, x.count, tolerance);
}

static void compare_rounded(struct attention_case *c, const char *name, struct tensor x) {
    assert_rounded(name, host_acts(&c->device, x.device, x.count), x.host, x.count);
}

static void compare_reals(struct attention_case *c, const char *name, const real *device, const real *host,
                          size_t count) {
    assert_close(name, host_reals(&c->device, device, count), host, count, FLOAT_TOLERANCE);
}

static void compare_bits(struct attention_case *c, const char *name, const void *a, const void *b, size_t bytes) {
    void *second = host_bytes(&c->device, b, bytes);
    assert_same(name, host_bytes(&c->device, a, bytes), second, bytes);
    free(second);
}

/* --- preparing --------------------------------------------------------------------------------------------------- */

static void check_prepare_forward(struct attention_case *c) {
    struct device_case *d = &c->device;
    size_t inv_q = c->rows * c->s.heads, inv_k = c->rows * c->s.kv_heads;
    struct tensor q = drawn(c, "q", c->queries, 2), k = drawn(c, "k", c->keys, 1), v = drawn(c, "v", c->keys, 3);
    struct tensor to_q = empty(c, c->queries), to_k = empty(c, c->keys), to_v = empty(c, c->keys);
    struct attention_tape want = {.q = to_q.host, .k = to_k.host, .v = to_v.host};
    struct attention_tape got = {.q = to_q.device, .k = to_k.device, .v = to_v.device};
    want.inv_q = calloc(inv_q, sizeof(real)), want.inv_k = calloc(inv_k, sizeof(real));
    got.inv_q = device_poisoned_reals(d, inv_q), got.inv_k = device_poisoned_reals(d, inv_k);
    cpu_attention_prepare_forward(&c->lane, &want, q.host, k.host, v.host, c->gain, c->cosine, c->sine, &c->s);
    cuda_attention_prepare_forward(&d->lane, &got, q.device, k.device, v.device, c->device_gain, c->device_cosine,
                                   c->device_sine, &c->s);
    compare_rounded(c, "prepared q", to_q);
    compare_rounded(c, "prepared k", to_k);
    compare_rounded(c, "prepared v", to_v);
    compare_reals(c, "inv_q", got.inv_q, want.inv_q, inv_q);
    compare_reals(c, "inv_k", got.inv_k, want.inv_k, inv_k);
    free(want.inv_q), free(want.inv_k);
    free(q.host), free(k.host), free(v.host), free(to_q.host), free(to_k.host), free(to_v.host);
}

static void check_prepare_backward(struct attention_case *c) {
    struct device_case *d = &c->device;
    size_t inv_q = c->rows * c->s.heads, inv_k = c->rows * c->s.kv_heads;
    struct tensor q = drawn(c, "tape q", c->queries, 1), k = drawn(c, "tape k", c->keys, 1),
                  v = drawn(c, "v", c->keys, 3);
    struct tensor dq = drawn(c, "dq", c->queries, 1), dk = drawn(c, "dk", c->keys, 1), dv = drawn(c, "dv", c->keys, 1);
    struct attention_tape tape = {.q = q.host, .k = k.host}, device_tape = {.q = q.device, .k = k.device};
    tape.inv_q = random_reals("inv_q", inv_q, 1), tape.inv_k = random_reals("inv_k", inv_k, 1);
    device_tape.inv_q = device_reals(d, tape.inv_q, inv_q), device_tape.inv_k = device_reals(d, tape.inv_k, inv_k);
    real *dgain = random_reals("dgain", c->s.heads, 1), *device_dgain = device_reals(d, dgain, c->s.heads);
    real *again = device_reals(d, dgain, c->s.heads);
    struct tensor dq2 = drawn(c, "dq", c->queries, 1), dk2 = drawn(c, "dk", c->keys, 1),
                  dv2 = drawn(c, "dv", c->keys, 1);
    cpu_attention_prepare_backward(&c->lane, dq.host, dk.host, dv.host, dgain, &tape, v.host, c->gain, c->cosine,
                                   c->sine, &c->s);
    cuda_attention_prepare_backward(&d->lane, dq.device, dk.device, dv.device, device_dgain, &device_tape, v.device,
                                    c->device_gain, c->device_cosine, c->device_sine, &c->s);
    cuda_attention_prepare_backward(&d->lane, dq2.device, dk2.device, dv2.device, again, &device_tape, v.device,
                                    c->device_gain, c->device_cosine, c->device_sine, &c->s);
    compare_rounded(c, "raw dq", dq);
    compare_rounded(c, "raw dk", dk);
    compare_rounded(c, "raw dv", dv);
    compare_reals(c, "dq_gain", device_dgain, dgain, c->s.heads);
    compare_bits(c, "raw dq, twice", dq.device, dq2.device, c->queries * d->ops->act_bytes);
    compare_bits(c, "dq_gain, twice", device_dgain, again, c->s.heads * DEVICE_REAL);
    free(tape.inv_q), free(tape.inv_k), free(dgain), free(dq2.host), free(dk2.host), free(dv2.host);
    free(q.host), free(k.host), free(v.host), free(dq.host), free(dk.host), free(dv.host);
}

static void prepare_agrees_with_the_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct attention_case c;
        begin(&c, shapes[i]);
        check_prepare_forward(&c);
        check_prepare_backward(&c);
        end(&c);
    }
}

/* --- attention --------------------------------------------------------------------------------------------------- */

static void check_forward(struct attention_case *c, struct tensor *out, struct attention_tape *want,
                          struct attention_tape *got) {
    struct device_case *d = &c->device;
    size_t sums = c->rows * c->s.heads;
    act *again = device_poisoned_acts(d, c->queries);
    want->log_sum = calloc(sums, sizeof(real)), got->log_sum = device_poisoned_reals(d, sums);
    cpu_attention_forward(&c->lane, out->host, want, &c->s);
    cuda_attention_forward(&d->lane, again, got, &c->s);
    cuda_attention_forward(&d->lane, out->device, got, &c->s);
    compare(c, "out", *out, OUT_TOLERANCE);
    compare_reals(c, "log_sum", got->log_sum, want->log_sum, sums);
    compare_bits(c, "out, twice", out->device, again, c->queries * d->ops->act_bytes);
}

static void check_backward(struct attention_case *c, const struct tensor *out, const struct attention_tape *want,
                           const struct attention_tape *got) {
    struct device_case *d = &c->device;
    struct tensor dout = drawn(c, "dout", c->queries, 1), rounded = drawn(c, "out", c->queries, 1);
    struct tensor dq = empty(c, c->queries), dk = empty(c, c->keys), dv = empty(c, c->keys);
    struct tensor dq2 = empty(c, c->queries), dk2 = empty(c, c->keys), dv2 = empty(c, c->keys);
    free(rounded.host);
    rounded.host = host_acts(d, out->device, c->queries); /* both sides have the same out */
    cpu_attention_backward(&c->lane, dq.host, dk.host, dv.host, dout.host, rounded.host, want, &c->s);
    cuda_attention_backward(&d->lane, dq.device, dk.device, dv.device, dout.device, out->device, got, &c->s);
    cuda_attention_backward(&d->lane, dq2.device, dk2.device, dv2.device, dout.device, out->device, got, &c->s);
    compare(c, "dq", dq, GRADIENT_TOLERANCE);
    compare(c, "dk", dk, GRADIENT_TOLERANCE);
    compare(c, "dv", dv, GRADIENT_TOLERANCE);
    compare_bits(c, "dq, twice", dq.device, dq2.device, c->queries * d->ops->act_bytes);
    compare_bits(c, "dk, twice", dk.device, dk2.device, c->keys * d->ops->act_bytes);
    compare_bits(c, "dv, twice", dv.device, dv2.device, c->keys * d->ops->act_bytes);
    free(dout.host), free(rounded.host), free(dq.host), free(dk.host), free(dv.host);
    free(dq2.host), free(dk2.host), free(dv2.host);
}

static void attention_agrees_with_the_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        struct attention_case c;
        begin(&c, shapes[i]);
        /* As sharp as q_gain makes it: the largest probability of a row is near 1 for some rows. */
        struct tensor q = drawn(&c, "tape q", c.queries, 2), k = drawn(&c, "tape k", c.keys, 1);
        struct tensor v = drawn(&c, "tape v", c.keys, 1), out = empty(&c, c.queries);
        struct attention_tape want = {.q = q.host, .k = k.host, .v = v.host};
        struct attention_tape got = {.q = q.device, .k = k.device, .v = v.device};
        check_forward(&c, &out, &want, &got);
        check_backward(&c, &out, &want, &got);
        free(want.log_sum), free(q.host), free(k.host), free(v.host), free(out.host);
        end(&c);
    }
}

/* --- decoding ---------------------------------------------------------------------------------------------------- */

/* A cache of which `position` tokens are filled; what is behind them is NaN, so that who reads it is seen. */
static struct tensor filled_cache(struct attention_case *c, const char *name, size_t position, size_t capacity) {
    size_t width = c->s.kv_heads * c->s.head_dim, count = c->s.batch * capacity * width;
    struct tensor x = {.count = count, .host = random_acts(name, count, 1)};
    for (size_t i = 0; i < count; i++)
        if (i / width % capacity >= position) x.host[i] = NAN;
    x.device = device_acts(&c->device, x.host, count);
    return x;
}

/* The token is in the cache now, and nothing behind it. */
static void compare_cache(struct attention_case *c, const char *name, struct tensor x, size_t position,
                          size_t capacity) {
    size_t width = c->s.kv_heads * c->s.head_dim;
    real *got = host_acts(&c->device, x.device, x.count);
    for (size_t i = 0; i < x.count; i++) {
        if (i / width % capacity <= position) continue;
        assert_true(isnan(got[i]));
        got[i] = x.host[i] = 0;
    }
    assert_rounded(name, got, x.host, x.count);
}

static void check_decode(struct attention_case *c, size_t position, size_t capacity) {
    struct attention_shape s = c->s;
    s.time = 1;
    size_t queries = s.batch * s.heads * s.head_dim, keys = s.batch * s.kv_heads * s.head_dim;
    struct tensor q = drawn(c, "q", queries, 1), k = drawn(c, "k", keys, 1), v = drawn(c, "v", keys, 1);
    struct tensor k_cache = filled_cache(c, "k cache", position, capacity);
    struct tensor v_cache = filled_cache(c, "v cache", position, capacity), out = empty(c, queries);
    const int32_t length = (int32_t)position + 1;
    cpu_attention_decode(&c->lane, out.host, k_cache.host, v_cache.host, q.host, k.host, v.host, c->gain, c->cosine,
                         c->sine, &length, capacity, &s);
    cuda_attention_decode(&c->device.lane, out.device, k_cache.device, v_cache.device, q.device, k.device, v.device,
                          c->device_gain, c->device_cosine, c->device_sine,
                          device_copy(&c->device, &length, sizeof length), capacity, &s);
    compare(c, "decoded", out, GRADIENT_TOLERANCE);
    compare_cache(c, "k cache", k_cache, position, capacity);
    compare_cache(c, "v cache", v_cache, position, capacity);
    free(q.host), free(k.host), free(v.host), free(k_cache.host), free(v_cache.host), free(out.host);
}

static void decode_agrees_with_the_cpu(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        size_t last = shapes[i].time - 1, positions[] = {0, last / 2, last};
        for (size_t j = 0; j < sizeof positions / sizeof *positions; j++) {
            struct attention_case c;
            begin(&c, shapes[i]);
            check_decode(&c, positions[j], shapes[i].time + 2);
            end(&c);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(prepare_agrees_with_the_cpu),
        cmocka_unit_test(attention_agrees_with_the_cpu),
        cmocka_unit_test(decode_agrees_with_the_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
