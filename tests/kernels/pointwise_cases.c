/* pointwise_cases: rows for the ops on activations that mix no tokens; see op_case.h.
 *
 * Where an op works in place, the case copies its input first, so that inputs stay as they are; a timed row does not.
 * size[] holds the op's own dimensions in the order of its arguments. Bytes count each tensor once per access. */
#include "tests/kernels/sized_case.h"

/* --- embedding: size = rows, dim, vocabulary -------------------------------------------------------------------- */
static void embedding_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    double reals = (double)(s->n[0] * s->n[1]);
    s->ids = random_ids(run, "ids", s->n[0], s->n[2]);
    op_parameter(run, "table", s->n[2] * s->n[1], 1);
    op_output(run, "x", s->n[0] * s->n[1]);
    count_work(run, 0, 2 * reals, reals, 3 * reals);
}
static void embedding_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_embedding_forward(&run->lane, out(run, 0), s->ids, in(run, 0), s->n[0], s->n[1]);
}
static void embedding_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_embedding_backward(&run->lane, din(run, 0), s->ids, dout(run, 0), s->n[0], s->n[1], s->n[2]);
}

/* --- bigram_ids: size = batch, time, vocabulary, buckets --------------------------------------------------------- */
static void bigram_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t rows = s->n[0] * s->n[1];
    s->ids = random_ids(run, "ids", rows, s->n[2]);
    s->more_ids = op_memory(run, rows * sizeof *s->more_ids);
    run->forward_bytes = (double)(2 * rows * sizeof *s->ids);
}
static void bigram_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_bigram_ids(&run->lane, s->more_ids, s->ids, s->n[0], s->n[1], s->n[3]);
}

/* --- next_tokens: size = sequences, rows, length, vocabulary, buckets -------------------------------------------- */
static void next_tokens_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    s->ids = random_ids(run, "ids", s->n[0] * s->n[1], s->n[3]);
    s->more_ids = op_memory(run, 2 * s->n[0] * sizeof *s->more_ids);
}
static void next_tokens_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    int32_t length = (int32_t)s->n[2];
    cpu_next_tokens(&run->lane, &length, s->more_ids, s->more_ids + s->n[0], s->ids, s->n[1], s->n[0], s->n[4]);
}

/* --- draw_tokens: size = sequences, vocabulary, rows, length -------------------------------------------------------
 */
static void draw_tokens_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t cells = s->n[0] * s->n[2];
    op_input(run, "logits", s->n[0] * s->n[1], 3);
    op_output(run, "weights", s->n[0] * s->n[1]);
    s->ids = op_memory(run, cells * sizeof *s->ids);
    s->doubles = op_memory(run, cells * sizeof *s->doubles);
    for (size_t i = 0; i < cells; i++) s->doubles[i] = random_uniform(random_stream(run->seed, "uniforms"), i);
}
static void draw_tokens_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    const int32_t length = (int32_t)s->n[3];
    memcpy(out(run, 0), in(run, 0), run->inputs[0].count * sizeof(real));
    cpu_draw_tokens(&run->lane, s->ids, out(run, 0), s->doubles, &length, s->n[2], s->n[0], s->n[1], 0.8);
}

/* --- smear: size = batch, time, dim ------------------------------------------------------------------------------ */
static void smear_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1] * s->n[2];
    op_input(run, "x", count, 1);
    op_parameter(run, "gate", s->n[2], 1);
    op_output(run, "y", count);
    count_work(run, 4.0 * (double)count, 2.0 * (double)count, 7.0 * (double)count, 3.0 * (double)count);
}
static void smear_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_smear_forward(&run->lane, out(run, 0), in(run, 0), in(run, 1), s->n[0], s->n[1], s->n[2]);
}
static void smear_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_smear_backward(&run->lane, din(run, 0), din(run, 1), dout(run, 0), in(run, 0), in(run, 1), s->n[0], s->n[1],
                       s->n[2]);
}

/* --- rms_norm: size = rows, dim ---------------------------------------------------------------------------------- */
static void rms_norm_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    s->kept = op_memory(run, s->n[0] * sizeof *s->kept);
    op_parameter(run, "x", count, 2);
    op_output(run, "y", count);
    count_work(run, 3.0 * (double)count, 2.0 * (double)count, 6.0 * (double)count, 4.0 * (double)count);
}
static void rms_norm_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_rms_norm_forward(&run->lane, out(run, 0), s->kept, in(run, 0), s->n[0], s->n[1]);
}
static void rms_norm_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_rms_norm_backward(&run->lane, din(run, 0), dout(run, 0), out(run, 0), s->kept, s->n[0], s->n[1], true);
}

/* --- residual_mix, scaled_add: size = rows, dim ------------------------------------------------------------------ */
static void residual_mix_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "x", count, 1);
    op_parameter(run, "x0", count, 1);
    op_parameter(run, "mix", 2 * s->n[1], 1);
    op_output(run, "y", count);
    count_work(run, 3.0 * (double)count, 3.0 * (double)count, 7.0 * (double)count, 6.0 * (double)count);
}
static void residual_mix_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_residual_mix_forward(&run->lane, out(run, 0), in(run, 0), in(run, 1), in(run, 2), s->n[0], s->n[1]);
}
static void residual_mix_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_residual_mix_backward(&run->lane, din(run, 0), din(run, 1), din(run, 2), dout(run, 0), in(run, 0), in(run, 1),
                              in(run, 2), s->n[0], s->n[1]);
}

static void scaled_add_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "branch", count, 1);
    op_parameter(run, "scale", s->n[1], 1);
    s->kept = op_memory(run, count * sizeof *s->kept);
    for (size_t i = 0; i < count; i++) s->kept[i] = (real)i;
    op_output(run, "y", count);
    count_work(run, 2.0 * (double)count, 3.0 * (double)count, 3.0 * (double)count, 3.0 * (double)count);
}
static void scaled_add_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_scaled_add_forward(&run->lane, out(run, 0), s->kept, in(run, 1), in(run, 0), s->n[0], s->n[1]);
}
static void scaled_add_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_scaled_add_backward(&run->lane, din(run, 0), din(run, 1), dout(run, 0), in(run, 1), in(run, 0), s->n[0],
                            s->n[1]);
}

/* --- residual_mix_norm: size = rows, dim, with a skip. y's gradient comes in dx. -----------------------------------
 */
static struct residual_inputs residual_inputs(const struct op_run *run) {
    const struct sizes *s = run->state;
    struct residual_inputs inputs = {.x = in(run, 0), .x0 = in(run, 1), .mix = in(run, 2)};
    if (s->n[2]) inputs.skip = in(run, 3), inputs.skip_scale = in(run, 4);
    return inputs;
}
static void residual_mix_norm_setup(struct op_run *run, const struct op_case *row) {
    residual_mix_setup(run, row);
    struct sizes *s = run->state;
    size_t count = s->n[0] * s->n[1];
    double extra = s->n[2] ? (double)count : 0;
    if (s->n[2]) {
        op_input(run, "skip", count, 1);
        op_parameter(run, "skip scale", s->n[1], 1);
    }
    op_output(run, "normed", count);
    s->kept = op_memory(run, s->n[0] * sizeof *s->kept);
    count_work(run, 6.0 * (double)count + 2 * extra, 4.0 * (double)count + extra, 13.0 * (double)count + 5 * extra,
               8.0 * (double)count + 2 * extra);
}
static void residual_mix_norm_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    struct residual_inputs inputs = residual_inputs(run);
    cpu_residual_mix_norm_forward(&run->lane, out(run, 0), out(run, 1), s->kept, &inputs, s->n[0], s->n[1]);
}
static void residual_mix_norm_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    struct residual_inputs inputs = residual_inputs(run);
    const struct residual_sums nothing_else = {0};
    if (!s->bench) memcpy(din(run, 0), dout(run, 0), run->inputs[0].count * sizeof(real));
    cpu_residual_mix_norm_backward(&run->lane, din(run, 0), din(run, 1), s->n[2] ? din(run, 3) : NULL, din(run, 2),
                                   s->n[2] ? din(run, 4) : NULL, dout(run, 1), out(run, 1), s->kept, &inputs,
                                   &nothing_else, s->n[0], s->n[1]);
}

/* --- add_into: size = count. Its backward is the identity for both. ----------------------------------------------- */
static void add_into_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    op_input(run, "a", s->n[0], 1);
    op_input(run, "b", s->n[0], 1);
    op_output(run, "sum", s->n[0]);
    count_work(run, (double)s->n[0], 3.0 * (double)s->n[0], 0, 0);
}
static void add_into_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    cpu_add_into(&run->lane, out(run, 0), in(run, 1), s->n[0]);
}
static void add_into_backward(struct op_run *run) {
    for (int k = 0; k < 2; k++) memcpy(din(run, k), dout(run, 0), run->outputs[0].count * sizeof(real));
}

/* --- linear: size = rows, out, in, accumulate into dx ------------------------------------------------------------- */
static void linear_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    double x = (double)(s->n[0] * s->n[2]), y = (double)(s->n[0] * s->n[1]), w = (double)(s->n[1] * s->n[2]);
    (s->n[3] ? op_parameter : op_input)(run, "x", s->n[0] * s->n[2], 1);
    op_parameter(run, "w", s->n[1] * s->n[2], 1);
    op_output(run, "y", s->n[0] * s->n[1]);
    double flops = 2.0 * (double)s->n[0] * w;
    count_work(run, flops, x + y + w, 2 * flops, 2 * y + 2 * x + 3 * w);
}
static void linear_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_linear_forward(&run->lane, out(run, 0), in(run, 0), in(run, 1), s->n[0], s->n[1], s->n[2]);
}
static void linear_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_linear_backward_input(&run->lane, din(run, 0), dout(run, 0), in(run, 1), s->n[0], s->n[1], s->n[2], s->n[3]);
    cpu_linear_backward_weight(&run->lane, din(run, 1), dout(run, 0), in(run, 0), s->n[0], s->n[1], s->n[2]);
}

/* --- linear_add: size = rows, out, in ----------------------------------------------------------------------------- */
static void linear_add_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    double x = (double)(s->n[0] * s->n[2]), y = (double)(s->n[0] * s->n[1]), w = (double)(s->n[1] * s->n[2]);
    op_input(run, "x", s->n[0] * s->n[2], 1);
    op_parameter(run, "w", s->n[1] * s->n[2], 1);
    op_input(run, "before", s->n[0] * s->n[1], 1);
    op_output(run, "y", s->n[0] * s->n[1]);
    double flops = 2.0 * (double)s->n[0] * w;
    count_work(run, flops, x + 2 * y + w, 2 * flops, 2 * y + 2 * x + 3 * w);
}
static void linear_add_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_linear_add_forward(&run->lane, out(run, 0), in(run, 2), in(run, 0), in(run, 1), s->n[0], s->n[1], s->n[2]);
}
static void linear_add_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    linear_backward(run);
    if (!s->bench) memcpy(din(run, 2), dout(run, 0), run->inputs[2].count * sizeof(real));
}

/* --- head: size = rows, vocabulary, dim; its backward is linear's. ----------------------------------------------- */
static void head_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_head_forward(&run->lane, out(run, 0), in(run, 0), in(run, 1), s->n[0], s->n[1], s->n[2]);
}

/* --- memory and whole gradients: size = count. Values that a step is judged by are checked in test_value_ops.c. --- */
static void one_to_one_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    op_input(run, "x", s->n[0], 1);
    op_output(run, "y", s->n[0]);
    count_work(run, (double)s->n[0], 2.0 * (double)s->n[0], 0, 0);
}
static void copy_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_copy(&run->lane, out(run, 0), in(run, 0), s->n[0] * sizeof(real));
}
static void round_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_round_to_acts(&run->lane, out(run, 0), in(run, 0), s->n[0]);
}
static void clear_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_clear(&run->lane, out(run, 0), s->n[0] * sizeof(real));
}
static void clip_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    cpu_clip_by_norm(&run->lane, out(run, 0), s->n[0], 0.5);
}
static void sum_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    double sum = 0, x[64];
    for (size_t i = 0; i < s->n[0]; i++) x[i] = (double)in(run, 0)[i];
    cpu_sum_in_order(&run->lane, &sum, x, s->n[0]);
    for (size_t i = 0; i < s->n[0]; i++) out(run, 0)[i] = (real)sum;
}
static void add_tree_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    real copy[64], *const parts[] = {out(run, 0), copy};
    int32_t finite = 0;
    start_from_input(run, 0);
    memcpy(copy, in(run, 0), s->n[0] * sizeof *copy);
    cpu_add_tree(&run->lane, parts, 2, s->n[0], &finite);
}

/* --- leaky_relu_squared: size = count ----------------------------------------------------------------------------- */
static void leaky_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    op_input(run, "x", s->n[0], 1);
    op_output(run, "y", s->n[0]);
    count_work(run, 2.0 * (double)s->n[0], 2.0 * (double)s->n[0], 2.0 * (double)s->n[0], 3.0 * (double)s->n[0]);
}
static void leaky_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_leaky_relu_squared_forward(&run->lane, out(run, 0), in(run, 0), s->n[0]);
}
static void leaky_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_leaky_relu_squared_backward(&run->lane, din(run, 0), dout(run, 0), in(run, 0), s->n[0]);
}

/* --- linear_leaky_relu_squared: an MLP, of whose layers one has the function behind it and the other its slope; size =
 * rows, hidden, dim */
static void mlp_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t wide = s->n[0] * s->n[1], narrow = s->n[0] * s->n[2], w = s->n[1] * s->n[2];
    op_input(run, "x", narrow, 1);
    op_parameter(run, "fc", w, 1);
    op_parameter(run, "proj", w, 1);
    op_output(run, "y", narrow);
    s->kept = op_memory(run, 3 * wide * sizeof(real)); /* h, the function of it, dh */
    double flops = 4.0 * (double)s->n[0] * (double)w, reals = (double)(2 * narrow + 3 * wide + 2 * w);
    count_work(run, flops, reals, 2 * flops, 2 * reals);
}
static void mlp_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    size_t wide = s->n[0] * s->n[1];
    cpu_linear_leaky_relu_squared_forward(&run->lane, s->kept, s->kept + wide, in(run, 0), in(run, 1), s->n[0], s->n[1],
                                          s->n[2]);
    cpu_linear_forward(&run->lane, out(run, 0), s->kept + wide, in(run, 2), s->n[0], s->n[2], s->n[1]);
}
static void mlp_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    size_t rows = s->n[0], hidden = s->n[1], dim = s->n[2], wide = rows * hidden;
    real *dh = s->kept + 2 * wide;
    cpu_linear_backward_weight(&run->lane, din(run, 2), dout(run, 0), s->kept + wide, rows, dim, hidden);
    cpu_linear_leaky_relu_squared_backward(&run->lane, dh, dout(run, 0), in(run, 2), s->kept, rows, dim, hidden);
    cpu_linear_backward_weight(&run->lane, din(run, 1), dh, in(run, 0), rows, hidden, dim);
    cpu_linear_backward_input(&run->lane, din(run, 0), dh, in(run, 1), rows, hidden, dim, false);
}

/* --- linear_silu_gate: a gate and the layer that reads it; size = rows, out, in ------------------------------------
 */
static void gated_linear_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t wide = s->n[0] * s->n[2], w = s->n[1] * s->n[2];
    op_input(run, "y", wide, 1);
    op_input(run, "z", wide, 1);
    op_parameter(run, "w", w, 1);
    op_output(run, "out", s->n[0] * s->n[1]);
    s->kept = op_memory(run, wide * sizeof(real));
    double flops = 2.0 * (double)s->n[0] * (double)w, reals = (double)(s->n[0] * s->n[1] + 4 * wide + w);
    count_work(run, flops, reals, 2 * flops, 2 * reals);
}
static void gated_linear_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_silu_gate_forward(&run->lane, s->kept, in(run, 0), in(run, 1), s->n[2], s->n[0], s->n[2]);
    cpu_linear_forward(&run->lane, out(run, 0), s->kept, in(run, 2), s->n[0], s->n[1], s->n[2]);
}
static void gated_linear_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_linear_backward_weight(&run->lane, din(run, 2), dout(run, 0), s->kept, s->n[0], s->n[1], s->n[2]);
    cpu_linear_silu_gate_backward(&run->lane, din(run, 0), din(run, 1), dout(run, 0), in(run, 2), in(run, 0),
                                  in(run, 1), s->n[2], s->n[0], s->n[1], s->n[2]);
}

/* --- cross_entropy: size = rows, vocabulary, cap. The output is the sum of nll, as backward has one scale. -------- */
static void cross_entropy_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    s->ids = random_ids(run, "targets", s->n[0], s->n[1]);
    s->kept = op_memory(run, s->n[0] * sizeof *s->kept);
    s->doubles = op_memory(run, s->n[0] * sizeof *s->doubles);
    op_input(run, "logits", count, 3);
    op_output(run, "nll", 1);
    count_work(run, 5.0 * (double)count, (double)count, 8.0 * (double)count, 2.0 * (double)count);
}
static void cross_entropy_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    double sum = 0;
    cpu_cross_entropy_forward(&run->lane, s->doubles, s->kept, in(run, 0), s->ids, s->n[0], s->n[1], (double)s->n[2],
                              1);
    for (size_t r = 0; r < s->n[0]; r++) sum += s->doubles[r];
    out(run, 0)[0] = (real)sum;
}
static void cross_entropy_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_cross_entropy_backward(&run->lane, din(run, 0), in(run, 0), s->kept, s->ids, (double)dout(run, 0)[0], s->n[0],
                               s->n[1], (double)s->n[2]);
}

/* --- softcap: size = count, cap. Its backward is part of cross_entropy's. ----------------------------------------- */
static void softcap_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    op_input(run, "logits", s->n[0], 10);
    op_output(run, "y", s->n[0]);
    count_work(run, 2.0 * (double)s->n[0], 2.0 * (double)s->n[0], 0, 0);
}
static void softcap_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_softcap(&run->lane, out(run, 0), in(run, 0), s->n[0], (double)s->n[1]);
}

/* Small shapes are odd, so that vector loops have tails; timed ones exceed the caches, as training's do. */
#define EMBEDDING "embedding", .setup = embedding_setup, .forward = embedding_forward, .backward = embedding_backward
#define BIGRAM "bigram_ids", .setup = bigram_setup, .forward = bigram_forward
#define NEXT_TOKENS "next_tokens", .setup = next_tokens_setup, .forward = next_tokens_forward
#define DRAW_TOKENS "draw_tokens", .setup = draw_tokens_setup, .forward = draw_tokens_forward
#define SMEAR "smear", .setup = smear_setup, .forward = smear_forward, .backward = smear_backward
#define RMS_NORM "rms_norm", .setup = rms_norm_setup, .forward = rms_norm_forward, .backward = rms_norm_backward
#define RESIDUAL_MIX \
    "residual_mix", .setup = residual_mix_setup, .forward = residual_mix_forward, .backward = residual_mix_backward
#define SCALED_ADD \
    "scaled_add", .setup = scaled_add_setup, .forward = scaled_add_forward, .backward = scaled_add_backward
#define RESIDUAL_MIX_NORM                                                                        \
    "residual_mix_norm", .setup = residual_mix_norm_setup, .forward = residual_mix_norm_forward, \
                         .backward = residual_mix_norm_backward
#define ADD_INTO "add_into", .setup = add_into_setup, .forward = add_into_forward
#define LINEAR "linear", .setup = linear_setup, .forward = linear_forward, .backward = linear_backward
#define LINEAR_ADD \
    "linear_add", .setup = linear_add_setup, .forward = linear_add_forward, .backward = linear_add_backward
#define HEAD "head", .setup = linear_setup, .forward = head_forward, .backward = linear_backward
#define CLEAR "clear", .setup = one_to_one_setup, .forward = clear_forward
#define COPY "copy", .setup = one_to_one_setup, .forward = copy_forward
#define ROUND "round_to_acts", .setup = one_to_one_setup, .forward = round_forward
#define SUM "sum_in_order", .setup = one_to_one_setup, .forward = sum_forward
#define ADD_TREE "add_tree", .setup = one_to_one_setup, .forward = add_tree_forward
#define CLIP "clip_by_norm", .setup = one_to_one_setup, .forward = clip_forward
#define LEAKY "leaky_relu_squared", .setup = leaky_setup, .forward = leaky_forward, .backward = leaky_backward
#define MLP "linear_leaky_relu_squared", .setup = mlp_setup, .forward = mlp_forward, .backward = mlp_backward
#define GATED_LINEAR \
    "linear_silu_gate", .setup = gated_linear_setup, .forward = gated_linear_forward, .backward = gated_linear_backward
#define CROSS_ENTROPY \
    "cross_entropy", .setup = cross_entropy_setup, .forward = cross_entropy_forward, .backward = cross_entropy_backward
#define SOFTCAP "softcap", .setup = softcap_setup, .forward = softcap_forward

const struct op_case pointwise_cases[] = {
    {EMBEDDING, .shape = "R37 D11 V5, ids repeat", .size = {37, 11, 5}},
    {BIGRAM, .shape = "B3 T7", .size = {3, 7, 1024, 61}},
    {NEXT_TOKENS, .shape = "5 sequences, the 4th of 3 rows", .size = {5, 3, 4, 1024, 61}},
    {DRAW_TOKENS, .shape = "3 sequences V37", .size = {3, 37, 4, 2}},
    {SMEAR, .shape = "B2 T5 D7", .size = {2, 5, 7}},
    {SMEAR, .shape = "B3 T1 D9", .size = {3, 1, 9}},
    {SMEAR, .shape = "B1 T3 D700, two blocks of columns", .size = {1, 3, 700}},
    {RMS_NORM, .shape = "R5 D13", .size = {5, 13}},
    {RMS_NORM, .shape = "R3 D2", .size = {3, 2}},
    {RESIDUAL_MIX, .shape = "R5 D13", .size = {5, 13}},
    {SCALED_ADD, .shape = "R5 D13", .size = {5, 13}},
    {RESIDUAL_MIX_NORM, .shape = "R5 D13", .size = {5, 13}},
    {RESIDUAL_MIX_NORM, .shape = "R5 D13 with a skip", .size = {5, 13, 1}},
    {ADD_INTO, .shape = "37", .size = {37}, .backward = add_into_backward},
    {LINEAR, .shape = "R9 out 7 in 5", .size = {9, 7, 5}},
    {LINEAR, .shape = "R9 out 7 in 5, dx accumulated", .size = {9, 7, 5, 1}},
    {LINEAR_ADD, .shape = "R9 out 7 in 5", .size = {9, 7, 5}},
    {HEAD, .shape = "R9 V7 D5", .size = {9, 7, 5}},
    {CLEAR, .shape = "37", .size = {37}},
    {COPY, .shape = "37", .size = {37}},
    {ROUND, .shape = "37", .size = {37}},
    {SUM, .shape = "37", .size = {37}},
    {ADD_TREE, .shape = "37", .size = {37}},
    {CLIP, .shape = "37", .size = {37}},
    {LEAKY, .shape = "131", .size = {131}},
    {MLP, .shape = "R5 hidden 11 D7", .size = {5, 11, 7}},
    {GATED_LINEAR, .shape = "R5 out 7 in 11", .size = {5, 7, 11}},
    {CROSS_ENTROPY, .shape = "R5 V37 cap 30", .size = {5, 37, 30}},
    {CROSS_ENTROPY, .shape = "R3 V9 cap 2, saturated", .size = {3, 9, 2}},
    {SOFTCAP, .shape = "37 cap 30", .size = {37, 30}},

    {EMBEDDING, .shape = "R16384 D512 V1024", .bench = 1, .size = {16384, 512, 1024}},
    {BIGRAM, .shape = "R4M", .bench = 1, .size = {1024, 4096, 1024, 4096}},
    {SMEAR, .shape = "R16384 D512", .bench = 1, .size = {4, 4096, 512}},
    {RMS_NORM, .shape = "R16384 D512", .bench = 1, .size = {16384, 512}},
    {RESIDUAL_MIX, .shape = "R16384 D512", .bench = 1, .size = {16384, 512}},
    {SCALED_ADD, .shape = "R16384 D512", .bench = 1, .size = {16384, 512}},
    {RESIDUAL_MIX_NORM, .shape = "R16384 D512 with a skip", .bench = 1, .size = {16384, 512, 1}},
    {ADD_INTO, .shape = "8M", .bench = 1, .size = {8 << 20}},
    {LINEAR, .shape = "R2048 768x256", .bench = 1, .size = {2048, 768, 256}},
    {LINEAR, .shape = "R4096 1536x512", .bench = 1, .size = {4096, 1536, 512}},
    {LINEAR, .shape = "R4096 512x1536", .bench = 1, .size = {4096, 512, 1536}},
    {LINEAR_ADD, .shape = "R4096 512x1536", .bench = 1, .size = {4096, 512, 1536}},
    {LEAKY, .shape = "8M", .bench = 1, .size = {8 << 20}},
    {CROSS_ENTROPY, .shape = "R8192 V1024", .bench = 1, .size = {8192, 1024, 30}},
    {SOFTCAP, .shape = "8M", .bench = 1, .size = {8 << 20, 30}},
};
const size_t pointwise_case_count = sizeof pointwise_cases / sizeof *pointwise_cases;
