/* sequence_cases: the ops that mix tokens, one row per op and shape; see op_case.h.
 *
 * Derivatives are checked in float64 with steps of 1e-5 through sums of a few hundred terms: 1e-6 relative (the
 * driver's default) leaves two digits. Rows that differ from it say why. */
#include <math.h>
#include <string.h>

#include "tests/kernels/op_case.h"

#define COUNT(array) (sizeof(array) / sizeof *(array))

static void take_scratch(struct op_run *run, size_t bytes) {
    run->lane.scratch = op_memory(run, bytes);
    run->lane.scratch_bytes = bytes;
}

static real *reals(struct op_run *run, size_t count) { return op_memory(run, count * sizeof(real)); }

static void set_work(struct op_run *run, double flops, double backward_flops, double reals_moved,
                     double backward_reals) {
    run->forward_flops = flops;
    run->backward_flops = backward_flops;
    run->forward_bytes = reals_moved * sizeof(real);
    run->backward_bytes = backward_reals * sizeof(real);
}

/* --- attention: size = {batch, time, heads, kv_heads, head_dim, rope_dims, position (decode)} ------------------- */

struct attention_state {
    struct attention_shape shape;
    struct attention_tape tape;
    real *cosine, *sine, *k_cache, *v_cache;
    size_t queries, values; /* count of q, of k and v */
    size_t position, capacity;
};

static struct attention_state *attention_state(struct op_run *run, const struct op_case *row) {
    const size_t *n = row->size;
    struct attention_state *s = op_memory(run, sizeof *s);
    s->shape = (struct attention_shape){n[0], n[1], n[2], n[3], n[4], n[5]};
    s->position = n[6];
    s->capacity = s->position + 3;
    s->queries = n[0] * n[1] * n[2] * n[4];
    s->values = n[0] * n[1] * n[3] * n[4];
    s->tape.inv_q = reals(run, n[0] * n[1] * n[2]);
    s->tape.inv_k = reals(run, n[0] * n[1] * n[3]);
    s->tape.log_sum = reals(run, n[0] * n[1] * n[2]);
    size_t angles = (n[1] + s->capacity) * (n[5] / 2);
    s->cosine = reals(run, angles);
    s->sine = reals(run, angles);
    cpu_rope_table(&run->lane, s->cosine, s->sine, n[1] + s->capacity, n[5], 100);
    take_scratch(run, cpu_attention_scratch(&s->shape));
    return run->state = s;
}

static void rope_setup(struct op_run *run, const struct op_case *row) {
    size_t *size = op_memory(run, sizeof row->size), angles = row->size[0] * row->size[1] / 2;
    memcpy(size, row->size, sizeof row->size);
    op_output(run, "cosine", angles);
    op_output(run, "sine", angles);
    run->state = size;
}

static void rope_forward(struct op_run *run) {
    const size_t *size = run->state;
    cpu_rope_table(&run->lane, run->outputs[0].data, run->outputs[1].data, size[0], size[1], 10000);
}

static void attention_prepare_setup(struct op_run *run, const struct op_case *row) {
    struct attention_state *s = attention_state(run, row);
    op_input(run, "q", s->queries, 1);
    op_input(run, "k", s->values, 1);
    op_input(run, "v", s->values, 1);
    op_parameter(run, "q_gain", s->shape.heads, 1);
    s->tape.q = op_output(run, "q'", s->queries);
    s->tape.k = op_output(run, "k'", s->values);
    s->tape.v = op_output(run, "v'", s->values);
    double q = (double)s->queries, v = (double)s->values;
    set_work(run, 6 * (q + v) + 5 * v, 10 * (q + v) + 8 * v, 2 * q + 4 * v, 3 * q + 6 * v);
}

static void attention_prepare_forward(struct op_run *run) {
    struct attention_state *s = run->state;
    const struct op_tensor *in = run->inputs;
    cpu_attention_prepare_forward(&run->lane, &s->tape, in[0].data, in[1].data, in[2].data, in[3].data, s->cosine,
                                  s->sine, &s->shape);
}

static void attention_prepare_backward(struct op_run *run) {
    struct attention_state *s = run->state;
    const struct op_tensor *in = run->inputs;
    for (int i = 0; i < 3; i++) memcpy(in[i].gradient, run->outputs[i].gradient, in[i].count * sizeof(real));
    cpu_attention_prepare_backward(&run->lane, in[0].gradient, in[1].gradient, in[2].gradient, in[3].gradient, &s->tape,
                                   in[2].data, in[3].data, s->cosine, s->sine, &s->shape);
}

static void attention_setup(struct op_run *run, const struct op_case *row) {
    struct attention_state *s = attention_state(run, row);
    s->tape.q = op_input(run, "q", s->queries, 1);
    s->tape.k = op_input(run, "k", s->values, 1);
    s->tape.v = op_input(run, "v", s->values, 1);
    op_output(run, "out", s->queries);
    const size_t *n = row->size;
    double pairs = 0.5 * (double)n[1] * (double)(n[1] + 1), q = (double)s->queries, v = (double)s->values;
    double product = 2 * pairs * (double)(n[0] * n[2] * n[4]); /* the causal half of one (T,T) product */
    set_work(run, 2 * product, 5 * product, 2 * q + 2 * v, 4 * q + 4 * v);
}

static void attention_forward(struct op_run *run) {
    struct attention_state *s = run->state;
    cpu_attention_forward(&run->lane, run->outputs[0].data, &s->tape, &s->shape);
}

static void attention_backward(struct op_run *run) {
    struct attention_state *s = run->state;
    const struct op_tensor *in = run->inputs, *out = run->outputs;
    cpu_attention_backward(&run->lane, in[0].gradient, in[1].gradient, in[2].gradient, out->gradient, out->data,
                           &s->tape, &s->shape);
}

static void attention_decode_setup(struct op_run *run, const struct op_case *row) {
    struct attention_state *s = attention_state(run, row);
    size_t cache = s->shape.batch * s->capacity * s->shape.kv_heads * s->shape.head_dim;
    op_input(run, "q", s->queries, 1);
    op_input(run, "k", s->values, 1);
    op_input(run, "v", s->values, 1);
    op_input(run, "q_gain", s->shape.heads, 1);
    op_input(run, "keys before", cache, 1);
    op_input(run, "values before", cache, 1);
    op_output(run, "out", s->queries);
    s->k_cache = reals(run, cache);
    s->v_cache = reals(run, cache);
}

static void attention_decode_forward(struct op_run *run) {
    struct attention_state *s = run->state;
    const struct op_tensor *in = run->inputs;
    const int32_t length = (int32_t)s->position + 1;
    memcpy(s->k_cache, in[4].data, in[4].count * sizeof(real));
    memcpy(s->v_cache, in[5].data, in[5].count * sizeof(real));
    cpu_attention_decode(&run->lane, run->outputs[0].data, s->k_cache, s->v_cache, in[0].data, in[1].data, in[2].data,
                         in[3].data, s->cosine, s->sine, &length, s->capacity, &s->shape);
}

/* --- Mamba: size = {batch, time, heads, head_dim, state, groups, angles, chunk} --------------------------------- */

struct mamba_case {
    struct mamba_shape shape;
    struct mamba_columns columns;
    struct mamba_tape tape;
    struct mamba_tape_gradients dtape;
    struct mamba_weights weights;
    struct mamba_state state;
    real *y, *dy;         /* of a scan whose output is gated */
    size_t rows, vectors; /* batch*time; rows*heads*state */
    bool bench;
};

static struct mamba_case *mamba_case(struct op_run *run, const struct op_case *row, size_t scratch) {
    const size_t *n = row->size;
    struct mamba_case *s = op_memory(run, sizeof *s);
    s->shape = (struct mamba_shape){n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]};
    s->columns = mamba_columns(&s->shape);
    s->rows = n[0] * n[1];
    s->vectors = s->rows * n[2] * n[4];
    s->bench = row->bench;
    take_scratch(run, scratch);
    return run->state = s;
}

static struct mamba_shape shape_of(const struct op_case *row) {
    const size_t *n = row->size;
    return (struct mamba_shape){n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7]};
}

/* Head 0's a' lies where the bound just holds a (softplus(a') < 1e-4), so that ignoring the bound would show. */
static void lower_first_decay(const struct mamba_case *s, real *proj) {
    real *a = proj + s->columns.a;
    for (size_t r = 0; r < s->rows; r++) a[r * s->columns.width] = (real)0.1 * a[r * s->columns.width] - (real)9.7;
}

static void mamba_weights_setup(struct op_run *run, struct mamba_case *s) {
    size_t heads = s->shape.heads, state = s->shape.state;
    s->weights.dt_bias = op_parameter(run, "dt_bias", heads, 1);
    s->weights.b_bias = op_parameter(run, "b_bias", heads * state, 1);
    s->weights.c_bias = op_parameter(run, "c_bias", heads * state, 1);
    s->weights.b_norm = op_parameter(run, "b_norm", state, 1);
    s->weights.c_norm = op_parameter(run, "c_norm", state, 1);
}

static void mamba_prepare_setup(struct op_run *run, const struct op_case *row) {
    struct mamba_shape shape = shape_of(row);
    struct mamba_case *s = mamba_case(run, row, cpu_mamba_prepare_scratch(&shape));
    size_t steps = s->rows * shape.heads, pairs = steps * shape.angles;
    real *proj = op_input(run, "proj", s->rows * s->columns.width, 1);
    if (!row->bench) lower_first_decay(s, proj);
    mamba_weights_setup(run, s);
    s->tape.b = op_output(run, "b", s->vectors);
    s->tape.c = op_output(run, "c", s->vectors);
    s->tape.delta = op_output(run, "delta", steps);
    s->tape.log_decay = op_output(run, "log_decay", steps);
    s->tape.gamma = op_output(run, "gamma", steps);
    s->tape.inv_b = reals(run, s->rows * shape.groups);
    s->tape.inv_c = reals(run, s->rows * shape.groups);
    s->tape.cosine = shape.angles ? reals(run, pairs) : NULL;
    s->tape.sine = shape.angles ? reals(run, pairs) : NULL;
    double v = (double)s->vectors, p = (double)pairs, x = (double)(s->rows * (s->columns.width - s->columns.b));
    set_work(run, 2 * v + 16 * p, 4 * v + 26 * p, x + 2 * v + 2 * p, 2 * x + 4 * v + 2 * p);
}

static void mamba_prepare_forward(struct op_run *run) {
    struct mamba_case *s = run->state;
    cpu_mamba_prepare_forward(&run->lane, &s->tape, run->inputs[0].data, &s->weights, &s->shape);
}

/* The op leaves the columns of z and x alone, so nothing depends on them: the case itself writes their zeros. */
static void clear_gradient(const struct mamba_case *s, const struct op_tensor *proj) {
    if (!s->bench) memset(proj->gradient, 0, proj->count * sizeof(real));
}

static void mamba_prepare_backward(struct op_run *run) {
    struct mamba_case *s = run->state;
    const struct op_tensor *in = run->inputs, *out = run->outputs;
    struct mamba_tape_gradients dtape = {.b = out[0].gradient,
                                         .c = out[1].gradient,
                                         .delta = out[2].gradient,
                                         .log_decay = out[3].gradient,
                                         .gamma = out[4].gradient};
    struct mamba_gradients to = {.dt_bias = in[1].gradient,
                                 .b_bias = in[2].gradient,
                                 .c_bias = in[3].gradient,
                                 .b_norm = in[4].gradient,
                                 .c_norm = in[5].gradient};
    clear_gradient(s, in);
    cpu_mamba_prepare_backward(&run->lane, in[0].gradient, &to, &dtape, &s->tape, in[0].data, &s->weights, &s->shape);
}

/* Products of one head's chunks: `square` of (L,L) with 64 columns or rows each, `flat` of (L,P,N). */
static double ssd_flops(const struct mamba_shape *s, int square_n, int square_p, int flat) {
    double flops = 0, p = (double)s->head_dim, n = (double)s->state;
    for (size_t start = 0; start < s->time; start += s->chunk) {
        double l = (double)(s->time - start < s->chunk ? s->time - start : s->chunk);
        flops += 2 * l * (l * (square_n * n + square_p * p) + flat * p * n);
    }
    return flops * (double)(s->batch * s->heads);
}

static void scan_setup(struct op_run *run, const struct op_case *row, const char *output) {
    struct mamba_shape shape = shape_of(row);
    struct mamba_case *s = mamba_case(run, row, cpu_ssd_scratch(&shape));
    size_t steps = s->rows * shape.heads, inner = steps * shape.head_dim;
    size_t states = shape.batch * shape.heads * mamba_chunks(&shape) * shape.head_dim * shape.state;
    op_input(run, "proj", s->rows * s->columns.width, 1);
    s->tape.b = op_input(run, "b", s->vectors, 1);
    s->tape.c = op_input(run, "c", s->vectors, 1);
    s->tape.delta = op_input(run, "delta", steps, 1);
    s->tape.log_decay = op_input(run, "log_decay", steps, 0.5);
    s->tape.gamma = op_input(run, "gamma", steps, 1);
    s->weights.d = op_parameter(run, "d", shape.heads, 1);
    for (size_t i = 0; i < steps; i++) s->tape.log_decay[i] = -(real)0.01 - (real)fabs((double)s->tape.log_decay[i]);
    s->tape.states = reals(run, states);
    op_output(run, output, inner);
    s->y = reals(run, inner);
    s->dy = reals(run, inner);
    double moved = 2 * (double)inner + 2 * (double)s->vectors + 3 * (double)steps + (double)states;
    set_work(run, ssd_flops(&shape, 1, 1, 2), ssd_flops(&shape, 3, 2, 4), moved, 2 * moved);
}

static void ssd_setup(struct op_run *run, const struct op_case *row) { scan_setup(run, row, "y"); }

static void ssd_forward(struct op_run *run) {
    struct mamba_case *s = run->state;
    cpu_ssd_forward(&run->lane, run->outputs[0].data, &s->tape, run->inputs[0].data, &s->weights, &s->shape);
}

static void scan_backward(struct op_run *run, const real *dy) {
    struct mamba_case *s = run->state;
    const struct op_tensor *in = run->inputs;
    struct mamba_tape_gradients dtape = {.b = in[1].gradient,
                                         .c = in[2].gradient,
                                         .delta = in[3].gradient,
                                         .log_decay = in[4].gradient,
                                         .gamma = in[5].gradient};
    struct mamba_gradients to = {.d = in[6].gradient};
    cpu_ssd_backward(&run->lane, in[0].gradient, &to, &dtape, dy, &s->tape, in[0].data, &s->weights, &s->shape);
}

static void ssd_backward(struct op_run *run) {
    clear_gradient(run->state, run->inputs);
    scan_backward(run, run->outputs[0].gradient);
}

/* The scan with its gate, which goes back by silu_gate's way and the scan's. */
static void ssd_silu_gate_setup(struct op_run *run, const struct op_case *row) { scan_setup(run, row, "gated"); }

static void ssd_silu_gate_forward(struct op_run *run) {
    struct mamba_case *s = run->state;
    cpu_ssd_silu_gate_forward(&run->lane, run->outputs[0].data, s->y, &s->tape, run->inputs[0].data, &s->weights,
                              &s->shape);
}

static void ssd_silu_gate_backward(struct op_run *run) {
    struct mamba_case *s = run->state;
    const struct op_tensor *proj = &run->inputs[0];
    size_t z = s->columns.z;
    clear_gradient(s, proj);
    cpu_silu_gate_backward(&run->lane, s->dy, proj->gradient + z, run->outputs[0].gradient, s->y, proj->data + z,
                           s->columns.width, s->rows, s->shape.heads * s->shape.head_dim);
    scan_backward(run, s->dy);
}

static void mamba_decode_setup(struct op_run *run, const struct op_case *row) {
    struct mamba_shape shape = shape_of(row);
    struct mamba_case *s = mamba_case(run, row, cpu_mamba_prepare_scratch(&shape));
    size_t steps = s->rows * shape.heads;
    op_input(run, "proj", s->rows * s->columns.width, 1);
    mamba_weights_setup(run, s);
    s->weights.d = op_input(run, "d", shape.heads, 1);
    op_input(run, "s", s->vectors * shape.head_dim, 1);
    op_input(run, "phase", steps * shape.angles, 1);
    op_input(run, "b_before", s->vectors, 1);
    op_input(run, "x_before", steps * shape.head_dim, 1);
    s->state = (struct mamba_state){reals(run, s->vectors * shape.head_dim), reals(run, steps * shape.angles),
                                    reals(run, s->vectors), reals(run, steps * shape.head_dim)};
    op_output(run, "out", steps * shape.head_dim);
}

static void mamba_decode_forward(struct op_run *run) {
    struct mamba_case *s = run->state;
    real *to[] = {s->state.s, s->state.phase, s->state.b_before, s->state.x_before};
    for (size_t i = 0; i < COUNT(to); i++)
        memcpy(to[i], run->inputs[7 + i].data, run->inputs[7 + i].count * sizeof(real));
    cpu_mamba_decode(&run->lane, run->outputs[0].data, &s->state, run->inputs[0].data, &s->weights, &s->shape);
}

/* --- the gate: size = {rows, dim, z_stride} ---------------------------------------------------------------------- */

struct gate_state {
    size_t rows, dim, stride;
    bool bench;
};

static void gate_setup(struct op_run *run, const struct op_case *row) {
    struct gate_state *s = op_memory(run, sizeof *s);
    *s = (struct gate_state){row->size[0], row->size[1], row->size[2], row->bench};
    op_input(run, "y", s->rows * s->dim, 1);
    op_input(run, "z", s->rows * s->stride, 2);
    op_output(run, "out", s->rows * s->dim);
    double count = (double)(s->rows * s->dim);
    set_work(run, 5 * count, 10 * count, 3 * count, 5 * count);
    run->state = s;
}

static void gate_forward(struct op_run *run) {
    const struct gate_state *s = run->state;
    cpu_silu_gate_forward(&run->lane, run->outputs[0].data, run->inputs[0].data, run->inputs[1].data, s->stride,
                          s->rows, s->dim);
}

static void gate_backward(struct op_run *run) {
    const struct gate_state *s = run->state;
    const struct op_tensor *y = &run->inputs[0], *z = &run->inputs[1];
    if (!s->bench) memset(z->gradient, 0, z->count * sizeof(real)); /* what lies between the rows of z is not its */
    cpu_silu_gate_backward(&run->lane, y->gradient, z->gradient, run->outputs[0].gradient, y->data, z->data, s->stride,
                           s->rows, s->dim);
}

/* --- the rows ---------------------------------------------------------------------------------------------------- */

#define FORWARD_ONLY(op, shape, bench, setup, forward, ...) \
    { op, shape, bench, setup, forward, NULL, {__VA_ARGS__}, 0 }
#define ROPE(shape, bench, ...) FORWARD_ONLY("rope_table", shape, bench, rope_setup, rope_forward, __VA_ARGS__)
#define ATTENTION_DECODE(shape, bench, ...) \
    FORWARD_ONLY("attention_decode", shape, bench, attention_decode_setup, attention_decode_forward, __VA_ARGS__)
#define MAMBA_DECODE(shape, bench, ...) \
    FORWARD_ONLY("mamba_decode", shape, bench, mamba_decode_setup, mamba_decode_forward, __VA_ARGS__)
#define BOTH_WAYS(op, stem, shape, bench, ...) \
    { op, shape, bench, stem##_setup, stem##_forward, stem##_backward, {__VA_ARGS__}, 0 }
#define PREPARE(shape, bench, ...) BOTH_WAYS("attention_prepare", attention_prepare, shape, bench, __VA_ARGS__)
#define ATTENTION(shape, bench, ...) BOTH_WAYS("attention", attention, shape, bench, __VA_ARGS__)
#define MAMBA(shape, bench, ...) BOTH_WAYS("mamba_prepare", mamba_prepare, shape, bench, __VA_ARGS__)
#define SSD(shape, bench, ...) BOTH_WAYS("ssd", ssd, shape, bench, __VA_ARGS__)
#define SSD_GATE(shape, bench, ...) BOTH_WAYS("ssd_silu_gate", ssd_silu_gate, shape, bench, __VA_ARGS__)
#define GATE(shape, bench, ...) BOTH_WAYS("silu_gate", gate, shape, bench, __VA_ARGS__)

const struct op_case sequence_cases[] = {
    ROPE("T7 r6", 0, 7, 6),
    ROPE("T3 r0", 0, 3, 0),

    PREPARE("B2 T5 H4 kv2 hd10 r6", 0, 2, 5, 4, 2, 10, 6),
    PREPARE("B1 T3 H2 kv2 hd8 r8 whole head", 0, 1, 3, 2, 2, 8, 8),
    PREPARE("B1 T1 H3 kv1 hd6 r0 no rope", 0, 1, 1, 3, 1, 6, 0),
    PREPARE("B2 T512 H4 kv2 hd64 r64", 1, 2, 512, 4, 2, 64, 64),
    PREPARE("B1 T4096 H8 kv4 hd64 r64", 1, 1, 4096, 8, 4, 64, 64),

    ATTENTION("B2 T7 H4 kv2 hd6", 0, 2, 7, 4, 2, 6, 0),
    ATTENTION("B1 T1 H1 kv1 hd4 one token", 0, 1, 1, 1, 1, 4, 0),
    ATTENTION("B1 T64 H2 kv2 hd4 one whole block", 0, 1, 64, 2, 2, 4, 0),
    ATTENTION("B1 T131 H3 kv1 hd5 three blocks", 0, 1, 131, 3, 1, 5, 0),
    ATTENTION("B2 T512 H4 kv2 hd64", 1, 2, 512, 4, 2, 64, 64),
    ATTENTION("B1 T4096 H8 kv4 hd64", 1, 1, 4096, 8, 4, 64, 64),

    ATTENTION_DECODE("B2 H4 kv2 hd8 r6 first token", 0, 2, 1, 4, 2, 8, 6, 0),
    ATTENTION_DECODE("B2 H2 kv1 hd8 r0 token 130", 0, 2, 1, 2, 1, 8, 0, 130),

    MAMBA("B2 T5 H4 P2 N8 G2 A4 all pairs", 0, 2, 5, 4, 2, 8, 2, 4, 4),
    MAMBA("B1 T9 H3 P2 N7 G1 A2 odd state", 0, 1, 9, 3, 2, 7, 1, 2, 4),
    MAMBA("B2 T3 H2 P2 N6 G2 A0 no rotation", 0, 2, 3, 2, 2, 6, 2, 0, 4),
    MAMBA("B1 T1 H1 P1 N2 G1 A1 one token", 0, 1, 1, 1, 1, 2, 1, 1, 1),
    MAMBA("B2 T512 H8 P64 N64 G1 A16", 1, 2, 512, 8, 64, 64, 1, 16, 64),
    MAMBA("B1 T4096 H16 P64 N64 G1 A16", 1, 1, 4096, 16, 64, 64, 1, 16, 64),

    SSD("B2 T13 H2 P3 N4 chunk 5 odd tail", 0, 2, 13, 2, 3, 4, 1, 0, 5),
    SSD("B1 T12 H4 P5 N8 chunk 4 whole chunks", 0, 1, 12, 4, 5, 8, 2, 0, 4),
    SSD("B1 T7 H2 P4 N6 chunk 1", 0, 1, 7, 2, 4, 6, 1, 0, 1),
    SSD("B1 T17 H1 P4 N6 chunk 16 tail of one", 0, 1, 17, 1, 4, 6, 1, 0, 16),
    SSD("B1 T9 H2 P2 N3 chunk 256 in one", 0, 1, 9, 2, 2, 3, 1, 0, 256),
    SSD("B2 T1 H2 P2 N3 chunk 8 one token", 0, 2, 1, 2, 2, 3, 1, 0, 8),
    SSD("B2 T512 H8 P64 N64 chunk 64", 1, 2, 512, 8, 64, 64, 1, 0, 64),
    SSD("B1 T4096 H16 P64 N64 chunk 64", 1, 1, 4096, 16, 64, 64, 1, 0, 64),

    SSD_GATE("B2 T13 H2 P3 N4 chunk 5 odd tail", 0, 2, 13, 2, 3, 4, 1, 0, 5),

    GATE("R3 D11 stride 20", 0, 3, 11, 20),
    GATE("R1024 D512 stride 1184", 1, 1024, 512, 1184),
    GATE("R4096 D1024 stride 2240", 1, 4096, 1024, 2240),

    MAMBA_DECODE("B2 H4 P3 N8 G2 A2", 0, 2, 1, 4, 3, 8, 2, 2, 1),
    MAMBA_DECODE("B1 H2 P3 N5 G1 A0 no rotation", 0, 1, 1, 2, 3, 5, 1, 0, 1),
};
const size_t sequence_case_count = COUNT(sequence_cases);
