/* test_sequence: the whole-sequence forms, the token-by-token forms and the plain formulas agree; nothing looks ahead.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/kernels/op_case.h"
#include "tests/kernels/sequence_reference.h"

#ifdef HINGE_DOUBLE
static const double TOLERANCE = 1e-11; /* a few hundred sums of numbers near 1 */
#else
static const double TOLERANCE = 2e-5;
#endif
static const double ROPE_BASE = 100;

static real *reals(struct op_run *run, size_t count) { return op_memory(run, count * sizeof(real)); }

static void take_scratch(struct op_run *run, size_t bytes) {
    run->lane = (struct lane){0, op_memory(run, bytes), bytes};
}

/* Root mean square of the difference, relative to that of what is expected. */
static void assert_close(const real *found, const double *expected, size_t count, double tolerance, const char *what) {
    double error = 0, scale = 0;
    for (size_t i = 0; i < count; i++) {
        error += ((double)found[i] - expected[i]) * ((double)found[i] - expected[i]);
        scale += expected[i] * expected[i];
    }
    error = sqrt(error / scale);
    if (!(error <= tolerance)) fail_msg("%s: relative error %.3g, allowed %.3g", what, error, tolerance);
}

static void assert_finite(const real *x, size_t count, const char *what) {
    for (size_t i = 0; i < count; i++)
        if (!isfinite(x[i])) fail_msg("%s is not finite at %zu of %zu", what, i, count);
}

/* --- the Mamba mixer between its two projections ----------------------------------------------------------------- */

struct mixer {
    struct op_run run;
    struct mamba_shape shape;
    size_t rows, width, inner; /* inner: heads*head_dim */
    struct mamba_weights weights;
    struct mamba_tape tape;
    real *proj, *y, *out;
    double *expected;
};

static void mixer_start(struct mixer *m, struct mamba_shape shape) {
    struct op_run *run = &m->run;
    *m = (struct mixer){.run = {.seed = 11}, .shape = shape};
    m->rows = shape.batch * shape.time;
    m->width = mamba_columns(&shape).width;
    m->inner = shape.heads * shape.head_dim;
    size_t steps = m->rows * shape.heads;
    m->proj = op_input(run, "proj", m->rows * m->width, 1);
    m->weights = (struct mamba_weights){
        .dt_bias = op_input(run, "dt_bias", shape.heads, 1),
        .b_bias = op_input(run, "b_bias", shape.heads * shape.state, 1),
        .c_bias = op_input(run, "c_bias", shape.heads * shape.state, 1),
        .b_norm = op_input(run, "b_norm", shape.state, 1),
        .c_norm = op_input(run, "c_norm", shape.state, 1),
        .d = op_input(run, "d", shape.heads, 1),
    };
    m->tape = (struct mamba_tape){
        .b = reals(run, steps * shape.state),
        .c = reals(run, steps * shape.state),
        .inv_b = reals(run, m->rows * shape.groups),
        .inv_c = reals(run, m->rows * shape.groups),
        .delta = reals(run, steps),
        .log_decay = reals(run, steps),
        .gamma = reals(run, steps),
        .cosine = reals(run, steps * shape.angles),
        .sine = reals(run, steps * shape.angles),
        .states = reals(run, shape.batch * mamba_chunks(&shape) * m->inner * shape.state),
    };
    m->y = reals(run, m->rows * m->inner);
    m->out = reals(run, m->rows * m->inner);
    m->expected = op_memory(run, m->rows * m->inner * sizeof(double));
    size_t ssd = cpu_ssd_scratch(&shape), prepare = cpu_mamba_prepare_scratch(&shape);
    take_scratch(run, ssd > prepare ? ssd : prepare);
}

static void mixer_parallel(struct mixer *m) {
    cpu_mamba_prepare_forward(&m->run.lane, &m->tape, m->proj, &m->weights, &m->shape);
    cpu_ssd_silu_gate_forward(&m->run.lane, m->out, m->y, &m->tape, m->proj, &m->weights, &m->shape);
}

/* Token t of each sequence of `from` (batch, time, width), side by side. */
static void gather_token(real *to, const real *from, size_t t, size_t batch, size_t time, size_t width) {
    for (size_t b = 0; b < batch; b++) memcpy(to + b * width, from + (b * time + t) * width, width * sizeof *to);
}

static void scatter_token(real *to, const real *from, size_t t, size_t batch, size_t time, size_t width) {
    for (size_t b = 0; b < batch; b++) memcpy(to + (b * time + t) * width, from + b * width, width * sizeof *to);
}

static void mixer_decode(struct mixer *m) {
    struct mamba_shape shape = m->shape;
    size_t heads = shape.batch * shape.heads, batch = shape.batch, time = shape.time;
    struct mamba_state state = {
        reals(&m->run, heads * shape.head_dim * shape.state),
        reals(&m->run, heads * shape.angles),
        reals(&m->run, heads * shape.state),
        reals(&m->run, heads * shape.head_dim),
    };
    real *row = reals(&m->run, batch * m->width), *out = reals(&m->run, batch * m->inner);
    shape.time = 1;
    for (size_t t = 0; t < time; t++) {
        gather_token(row, m->proj, t, batch, time, m->width);
        cpu_mamba_decode(&m->run.lane, out, &state, row, &m->weights, &shape);
        scatter_token(m->out, out, t, batch, time, m->inner);
    }
}

static void check_chunk(size_t chunk) {
    struct mixer m;
    mixer_start(&m, (struct mamba_shape){2, 150, 4, 8, 6, 2, 2, chunk});
    mamba_reference(m.expected, m.proj, &m.weights, &m.shape);
    mixer_parallel(&m);
    assert_close(m.out, m.expected, m.rows * m.inner, TOLERANCE, "prepare, ssd and gate");
    op_run_end(&m.run);
}

static void chunks_of_1_equal_the_recurrence(void **state) {
    (void)state;
    check_chunk(1);
}

static void chunks_of_16_equal_the_recurrence(void **state) {
    (void)state;
    check_chunk(16);
}

static void chunks_of_64_equal_the_recurrence(void **state) {
    (void)state;
    check_chunk(64);
}

static void a_chunk_longer_than_the_sequence_equals_the_recurrence(void **state) {
    (void)state;
    check_chunk(200);
}

static void decoding_token_by_token_equals_the_recurrence(void **state) {
    (void)state;
    struct mixer m;
    mixer_start(&m, (struct mamba_shape){2, 150, 4, 8, 6, 2, 2, 64});
    mamba_reference(m.expected, m.proj, &m.weights, &m.shape);
    mixer_decode(&m);
    assert_close(m.out, m.expected, m.rows * m.inner, TOLERANCE, "mamba_decode");
    op_run_end(&m.run);
}

/* A float32 sum going to 7500 radians moves in steps of 5e-4 and is off by some thousandths after 6000 tokens. What is
 * allowed is what the rounding of the rate itself makes: 6e-8 of 7500. */
static void phases_stay_right_over_thousands_of_tokens(void **state) {
    (void)state;
    struct mixer m;
    mixer_start(&m, (struct mamba_shape){1, 6000, 1, 2, 4, 1, 2, 64});
    const size_t theta = mamba_columns(&m.shape).theta;
    for (size_t i = 0; i < m.rows; i++) m.proj[i * m.width + theta] = m.proj[i * m.width + theta + 1] = 1;
    double phase = 0;
    cpu_mamba_prepare_forward(&m.run.lane, &m.tape, m.proj, &m.weights, &m.shape);
    double rate = M_PI * tanh(1);
    for (size_t t = 0; t < m.rows; t++) phase += rate * (double)m.tape.delta[t];
    assert_true(phase > 3000);
    size_t last = 2 * m.rows - 1;
    double off = hypot((double)m.tape.cosine[last] - cos(phase), (double)m.tape.sine[last] - sin(phase));
    if (!(off < 50 * TOLERANCE)) fail_msg("the phase is off by %.3g radians after %zu tokens", off, m.rows);
    op_run_end(&m.run);
}

/* exp of a sum of log-decays alone would overflow or vanish here; of their differences it does not. */
static void the_strongest_decay_stays_finite_both_ways(void **state) {
    (void)state;
    struct mixer m;
    mixer_start(&m, (struct mamba_shape){1, 150, 2, 4, 6, 1, 1, 64});
    struct mamba_columns k = mamba_columns(&m.shape);
    for (size_t i = 0; i < m.rows; i++) m.proj[i * m.width + k.a] = m.proj[i * m.width + k.dt] = 40;
    mamba_reference(m.expected, m.proj, &m.weights, &m.shape);
    mixer_parallel(&m);
    assert_close(m.out, m.expected, m.rows * m.inner, TOLERANCE, "prepare, ssd and gate");
    size_t steps = m.rows * m.shape.heads;
    struct mamba_tape_gradients to = {.b = reals(&m.run, steps * m.shape.state),
                                      .c = reals(&m.run, steps * m.shape.state),
                                      .delta = reals(&m.run, steps),
                                      .log_decay = reals(&m.run, steps),
                                      .gamma = reals(&m.run, steps)};
    real *dproj = reals(&m.run, m.rows * m.width);
    struct mamba_gradients gradients = {.d = reals(&m.run, m.shape.heads)};
    cpu_ssd_backward(&m.run.lane, dproj, &gradients, &to, m.out, &m.tape, m.proj, &m.weights, &m.shape);
    assert_finite(dproj, m.rows * m.width, "dx");
    assert_finite(to.log_decay, steps, "dlog_decay");
    assert_finite(to.b, steps * m.shape.state, "dB");
    op_run_end(&m.run);
}

static void a_later_token_changes_no_earlier_output_of_mamba(void **state) {
    (void)state;
    struct mixer m;
    mixer_start(&m, (struct mamba_shape){1, 150, 4, 8, 6, 2, 2, 64});
    size_t count = m.rows * m.inner, changed[] = {1, 63, 64, 100, 128, 149};
    mixer_parallel(&m);
    real *before = reals(&m.run, count);
    memcpy(before, m.out, count * sizeof *before);
    for (size_t c = sizeof changed / sizeof *changed; c-- > 0;) {
        for (size_t i = 0; i < m.width; i++) m.proj[changed[c] * m.width + i] += 3;
        mixer_parallel(&m);
        for (size_t i = 0; i < changed[c] * m.inner; i++)
            if (m.out[i] != before[i]) fail_msg("token %zu changed output %zu", changed[c], i / m.inner);
        assert_memory_not_equal(m.out + changed[c] * m.inner, before + changed[c] * m.inner, m.inner * sizeof(real));
    }
    op_run_end(&m.run);
}

/* --- the attention mixer between its projections ----------------------------------------------------------------- */

struct attention {
    struct op_run run;
    struct attention_shape shape;
    size_t rows, queries, values; /* of a row: heads*head_dim, kv_heads*head_dim */
    real *q, *k, *v, *q_gain, *cosine, *sine, *out;
    struct attention_tape tape;
    double *expected;
};

static void attention_start(struct attention *a, struct attention_shape shape) {
    struct op_run *run = &a->run;
    *a = (struct attention){.run = {.seed = 12}, .shape = shape};
    size_t rows = a->rows = shape.batch * shape.time, angles = shape.time * shape.rope_dims / 2;
    size_t queries = a->queries = shape.heads * shape.head_dim, values = a->values = shape.kv_heads * shape.head_dim;
    a->q = op_input(run, "q", rows * queries, 1);
    a->k = op_input(run, "k", rows * values, 1);
    a->v = op_input(run, "v", rows * values, 1);
    a->q_gain = op_input(run, "q_gain", shape.heads, 2);
    a->cosine = reals(run, angles);
    a->sine = reals(run, angles);
    a->out = reals(run, rows * queries);
    a->expected = op_memory(run, rows * queries * sizeof(double));
    a->tape = (struct attention_tape){
        .q = reals(run, rows * queries),
        .k = reals(run, rows * values),
        .v = reals(run, rows * values),
        .inv_q = reals(run, rows * shape.heads),
        .inv_k = reals(run, rows * shape.kv_heads),
        .log_sum = reals(run, rows * shape.heads),
    };
    cpu_rope_table(&run->lane, a->cosine, a->sine, shape.time, shape.rope_dims, ROPE_BASE);
    take_scratch(run, cpu_attention_scratch(&shape));
}

static void attention_parallel(struct attention *a) {
    cpu_attention_prepare_forward(&a->run.lane, &a->tape, a->q, a->k, a->v, a->q_gain, a->cosine, a->sine, &a->shape);
    cpu_attention_forward(&a->run.lane, a->out, &a->tape, &a->shape);
}

static void attention_decode(struct attention *a) {
    struct attention_shape shape = a->shape;
    size_t batch = shape.batch, time = shape.time, capacity = time + 5;
    real *q = reals(&a->run, batch * a->queries), *out = reals(&a->run, batch * a->queries);
    real *k = reals(&a->run, batch * a->values), *v = reals(&a->run, batch * a->values);
    real *keys = reals(&a->run, batch * capacity * a->values), *values = reals(&a->run, batch * capacity * a->values);
    shape.time = 1;
    take_scratch(&a->run, cpu_attention_scratch(&shape));
    for (size_t t = 0; t < time; t++) {
        gather_token(q, a->q, t, batch, time, a->queries);
        gather_token(k, a->k, t, batch, time, a->values);
        gather_token(v, a->v, t, batch, time, a->values);
        const int32_t length = (int32_t)t + 1;
        cpu_attention_decode(&a->run.lane, out, keys, values, q, k, v, a->q_gain, a->cosine, a->sine, &length, capacity,
                             &shape);
        scatter_token(a->out, out, t, batch, time, a->queries);
    }
}

static void check_attention(struct attention_shape shape, void (*run)(struct attention *), const char *what) {
    struct attention a;
    attention_start(&a, shape);
    attention_reference(a.expected, a.q, a.k, a.v, a.q_gain, ROPE_BASE, &a.shape);
    run(&a);
    assert_close(a.out, a.expected, a.rows * a.queries, TOLERANCE, what);
    op_run_end(&a.run);
}

static void blocks_of_queries_equal_the_formula(void **state) {
    (void)state;
    check_attention((struct attention_shape){2, 150, 4, 2, 8, 6}, attention_parallel, "prepare and attention");
}

static void attention_without_rope_equals_the_formula(void **state) {
    (void)state;
    check_attention((struct attention_shape){1, 70, 3, 1, 10, 0}, attention_parallel, "prepare and attention");
}

static void attention_decoded_token_by_token_equals_the_formula(void **state) {
    (void)state;
    check_attention((struct attention_shape){2, 150, 4, 2, 8, 6}, attention_decode, "attention_decode");
}

static void a_later_token_changes_no_earlier_output_of_attention(void **state) {
    (void)state;
    struct attention a;
    attention_start(&a, (struct attention_shape){1, 150, 4, 2, 8, 8});
    size_t count = a.rows * a.queries, changed[] = {1, 63, 64, 100, 128, 149};
    attention_parallel(&a);
    real *before = reals(&a.run, count);
    memcpy(before, a.out, count * sizeof *before);
    for (size_t c = sizeof changed / sizeof *changed; c-- > 0;) {
        for (size_t i = 0; i < a.queries; i++) a.q[changed[c] * a.queries + i] += 3;
        for (size_t i = 0; i < a.values; i++) a.k[changed[c] * a.values + i] = a.v[changed[c] * a.values + i] += 3;
        attention_parallel(&a);
        for (size_t i = 0; i < changed[c] * a.queries; i++)
            if (a.out[i] != before[i]) fail_msg("token %zu changed output %zu", changed[c], i / a.queries);
        assert_memory_not_equal(a.out + changed[c] * a.queries, before + changed[c] * a.queries,
                                a.queries * sizeof(real));
    }
    op_run_end(&a.run);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chunks_of_1_equal_the_recurrence),
        cmocka_unit_test(chunks_of_16_equal_the_recurrence),
        cmocka_unit_test(chunks_of_64_equal_the_recurrence),
        cmocka_unit_test(a_chunk_longer_than_the_sequence_equals_the_recurrence),
        cmocka_unit_test(decoding_token_by_token_equals_the_recurrence),
        cmocka_unit_test(phases_stay_right_over_thousands_of_tokens),
        cmocka_unit_test(the_strongest_decay_stays_finite_both_ways),
        cmocka_unit_test(a_later_token_changes_no_earlier_output_of_mamba),
        cmocka_unit_test(blocks_of_queries_equal_the_formula),
        cmocka_unit_test(attention_without_rope_equals_the_formula),
        cmocka_unit_test(attention_decoded_token_by_token_equals_the_formula),
        cmocka_unit_test(a_later_token_changes_no_earlier_output_of_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
