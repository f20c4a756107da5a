/* pointwise_cases: rows for every op but attention and Mamba; see op_case.h.
 *
 * Where an op works in place, the case copies its input first, so that inputs stay as they are; a timed row does not.
 * size[] holds the op's own dimensions in the order of its arguments. Bytes count each tensor once per access. */
#include <string.h>

#include "kernels/random.h"
#include "tests/kernels/op_case.h"

static real *in(const struct op_run *run, int k) { return run->inputs[k].data; }
static real *din(const struct op_run *run, int k) { return run->inputs[k].gradient; }
static real *out(const struct op_run *run, int k) { return run->outputs[k].data; }
static real *dout(const struct op_run *run, int k) { return run->outputs[k].gradient; }

/* Dimensions of the row, so that forward and backward can read them; kept as the run's state. */
struct sizes {
    size_t n[8];
    bool bench;
    int32_t *ids, *more_ids;
    real *kept;
    double *doubles;
    int8_t *integers;
    uint16_t *scales;
};

static struct sizes *keep_sizes(struct op_run *run, const struct op_case *row) {
    struct sizes *s = op_memory(run, sizeof *s);
    memcpy(s->n, row->size, sizeof s->n);
    s->bench = row->bench;
    run->state = s;
    return s;
}

static void count_work(struct op_run *run, double flops, double reals, double backward_flops, double backward_reals) {
    run->forward_flops = flops;
    run->forward_bytes = reals * sizeof(real);
    run->backward_flops = backward_flops;
    run->backward_bytes = backward_reals * sizeof(real);
}

static int32_t *random_ids(struct op_run *run, const char *name, size_t count, size_t bound) {
    int32_t *ids = op_memory(run, count * sizeof *ids);
    struct random_stream stream = random_stream(run->seed, name);
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)random_below(stream, i, bound);
    return ids;
}

/* Output k starts as input k; a timed row does it once. */
static void start_from_input(const struct op_run *run, int k) {
    const struct sizes *s = run->state;
    if (!s->bench) memcpy(out(run, k), in(run, k), run->inputs[k].count * sizeof(real));
}

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
    cpu_rms_norm_backward(&run->lane, din(run, 0), dout(run, 0), out(run, 0), s->kept, s->n[0], s->n[1]);
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

/* --- residual_mix_norm: size = rows, dim, with a skip; scaled_add_norm: size = rows, dim. y's gradient comes in dx. --
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
    if (!s->bench) memcpy(din(run, 0), dout(run, 0), run->inputs[0].count * sizeof(real));
    cpu_residual_mix_norm_backward(&run->lane, din(run, 0), din(run, 1), s->n[2] ? din(run, 3) : NULL, din(run, 2),
                                   s->n[2] ? din(run, 4) : NULL, dout(run, 1), out(run, 1), s->kept, &inputs, s->n[0],
                                   s->n[1]);
}

static void scaled_add_norm_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "x", count, 1);
    op_input(run, "branch", count, 1);
    op_parameter(run, "scale", s->n[1], 1);
    op_output(run, "y", count);
    op_output(run, "normed", count);
    s->kept = op_memory(run, s->n[0] * sizeof *s->kept);
    count_work(run, 5.0 * (double)count, 4.0 * (double)count, 9.0 * (double)count, 6.0 * (double)count);
}
static void scaled_add_norm_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_scaled_add_norm_forward(&run->lane, out(run, 0), out(run, 1), s->kept, in(run, 0), in(run, 2), in(run, 1),
                                s->n[0], s->n[1]);
}
static void scaled_add_norm_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    if (!s->bench) memcpy(din(run, 0), dout(run, 0), run->inputs[0].count * sizeof(real));
    cpu_scaled_add_norm_backward(&run->lane, din(run, 0), din(run, 1), din(run, 2), dout(run, 1), out(run, 1), s->kept,
                                 in(run, 2), in(run, 1), s->n[0], s->n[1]);
}

/* --- add_into: size = count. Its backward is the identity for both. ------------------------------------------------
 */
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

/* --- head: size = rows, vocabulary, dim; its backward is linear's. ----------------------------------------------- */
static void head_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_head_forward(&run->lane, out(run, 0), in(run, 0), in(run, 1), s->n[0], s->n[1], s->n[2]);
}

/* --- memory and whole gradients: size = count. Values that a step is judged by are checked in test_value_ops.c. -----
 */
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

/* --- leaky_relu_squared: size = count ------------------------------------------------------------------------------
 */
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

/* --- cross_entropy: size = rows, vocabulary, cap. The output is the sum of nll, as backward has one scale. ---------
 */
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

/* --- softcap: size = count, cap. Its backward is part of cross_entropy's. --------------------------------------------
 */
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

/* --- weights: size = rows, cols, qmax. The surrogate of ternarize_backward is checked in test_quantise_ops.c. --------
 */
static void weights_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "w", count, 0.05);
    op_output(run, "effective", count);
    count_work(run, 4.0 * (double)count, 3.0 * (double)count, 0, 0);
}
static void ternarize_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_ternarize(&run->lane, out(run, 0), in(run, 0), s->n[0] * s->n[1]);
}
static void fake_quantize_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_fake_quantize_rows(&run->lane, out(run, 0), in(run, 0), s->n[0], s->n[1], (int)s->n[2], false);
}
static void ternarize_backward_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "dw", count, 1);
    op_input(run, "w", count, 0.05);
    op_output(run, "dw after", count);
    s->kept = op_memory(run, count * sizeof *s->kept);
    cpu_ternarize(&run->lane, s->kept, in(run, 1), count);
    count_work(run, 5.0 * (double)count, 7.0 * (double)count, 0, 0);
}
static void ternarize_backward_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    cpu_ternarize_backward(&run->lane, out(run, 0), in(run, 1), s->kept, s->n[0] * s->n[1]);
}

/* --- optimisers: size = rows, cols (count is their product), steps
 * ---------------------------------------------------- */
static void adam_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "w", count, 1);
    op_input(run, "m", count, 1);
    real *v = op_input(run, "v", count, 1);
    for (size_t i = 0; i < count; i++) v[i] *= v[i];
    op_input(run, "g", count, 1);
    op_output(run, "w after", count);
    op_output(run, "m after", count);
    op_output(run, "v after", count);
    count_work(run, 11.0 * (double)count, 7.0 * (double)count, 0, 0);
}
static void adam_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    const struct adam_settings settings = {.rate = 0.02, .beta1 = 0.9, .beta2 = 0.95, .epsilon = 1e-8, .step = 3};
    for (int k = 0; k < 3; k++) start_from_input(run, k);
    cpu_adam_step(&run->lane, out(run, 0), out(run, 1), out(run, 2), in(run, 3), s->n[0] * s->n[1], &settings);
}

/* Two tensors in, the first changed in place: muon_apply, moving_average. */
static void update_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "w", count, 1);
    op_input(run, "update", count, 1);
    op_output(run, "w after", count);
    count_work(run, 3.0 * (double)count, 3.0 * (double)count, 0, 0);
}
static void muon_apply_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    cpu_muon_apply(&run->lane, out(run, 0), in(run, 1), s->n[0] * s->n[1], 0.025, 0.04, 1.2);
}
static void moving_average_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    cpu_moving_average(&run->lane, out(run, 0), in(run, 1), s->n[0] * s->n[1], 0.997);
}

static void muon_momentum_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "momentum", count, 1);
    op_input(run, "g", count, 1);
    op_output(run, "momentum after", count);
    op_output(run, "update", count);
    count_work(run, 4.0 * (double)count, 4.0 * (double)count, 0, 0);
}
static void muon_momentum_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    cpu_muon_momentum(&run->lane, out(run, 1), out(run, 0), in(run, 1), s->n[0] * s->n[1], 0.95);
}

static void matrix_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    double n = (double)(s->n[0] < s->n[1] ? s->n[0] : s->n[1]), count = (double)(s->n[0] * s->n[1]);
    op_input(run, "g", s->n[0] * s->n[1], 1);
    op_output(run, "x", s->n[0] * s->n[1]);
    run->lane.scratch_bytes = cpu_newton_schulz_scratch(1, s->n[0], s->n[1]);
    run->lane.scratch = op_memory(run, run->lane.scratch_bytes);
    /* A = X X^T and A^2 by their upper triangles, then the product with X; without steps, one norm of each row. */
    count_work(run, s->n[2] ? (double)s->n[2] * n * (3 * count + n * n) : 3 * count, 2 * count, 0, 0);
}
static void newton_schulz_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    real *x = out(run, 0);
    cpu_newton_schulz(&run->lane, &x, 1, s->n[0], s->n[1], (int)s->n[2]);
}
static void normalize_rows_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    start_from_input(run, 0);
    cpu_normalize_rows(&run->lane, out(run, 0), s->n[0], s->n[1]);
}

/* --- quantisation: size = rows, cols, group, qmax, percentile in hundredths
 * ------------------------------------------- */
static void quantize_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1], group = s->n[2] ? s->n[2] : s->n[1];
    op_input(run, "w", count, 0.05);
    op_output(run, "decoded", count);
    s->integers = op_memory(run, count);
    s->scales = op_memory(run, s->n[0] * ((s->n[1] + group - 1) / group) * sizeof *s->scales);
    count_work(run, 4.0 * (double)count, 2.25 * (double)count, 0, 0);
}
/* The integers, as reals, are what a checked row compares. */
static void show_integers(struct op_run *run) {
    const struct sizes *s = run->state;
    for (size_t i = 0; !s->bench && i < run->outputs[0].count; i++) out(run, 0)[i] = (real)s->integers[i];
}
static void quantize_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_quantize_rows(&run->lane, s->integers, s->scales, in(run, 0), s->n[0], s->n[1], s->n[2], (int)s->n[3],
                      (double)s->n[4] / 100, false);
    show_integers(run);
}

static void hessian_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    double cols = (double)s->n[1], blocks = (double)((s->n[0] + 255) / 256);
    op_input(run, "x", s->n[0] * s->n[1], 1);
    if (!row->bench) op_output(run, "h", s->n[1] * s->n[1]);
    s->doubles = op_memory(run, s->n[1] * s->n[1] * sizeof *s->doubles);
    count_work(run, (double)s->n[0] * cols * (cols + 1), (double)s->n[0] * cols, 0, 0);
    run->forward_bytes += blocks * cols * cols * sizeof(double);
}
static void hessian_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    size_t count = s->n[1] * s->n[1];
    if (!s->bench) memset(s->doubles, 0, count * sizeof *s->doubles);
    cpu_hessian_accumulate(&run->lane, s->doubles, in(run, 0), s->n[0], s->n[1]);
    for (size_t i = 0; !s->bench && i < count; i++) out(run, 0)[i] = (real)s->doubles[i];
}

static void gptq_setup(struct op_run *run, const struct op_case *row) {
    quantize_setup(run, row);
    struct sizes *s = run->state;
    size_t rows = s->n[0], cols = s->n[1], samples = cols + 8;
    real *x = op_memory(run, samples * cols * sizeof *x);
    struct random_stream stream = random_stream(run->seed, "calibration");
    for (size_t i = 0; i < samples * cols; i++) x[i] = (real)random_normal(stream, i);
    s->doubles = op_memory(run, cols * cols * sizeof *s->doubles);
    cpu_hessian_accumulate(&run->lane, s->doubles, x, samples, cols);
    run->lane.scratch_bytes = cpu_gptq_scratch(rows, cols);
    run->lane.scratch = op_memory(run, run->lane.scratch_bytes);
    cpu_quantize_rows(&run->lane, s->integers, s->scales, in(run, 0), rows, cols, s->n[2], (int)s->n[3], 100, false);
    double n = (double)cols;
    count_work(run, n * n * (2 * n / 3 + (double)rows), 2.25 * (double)(rows * cols), 0, 0);
    run->forward_bytes += n * n * sizeof(double);
}
static void gptq_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    int info;
    cpu_gptq_quantize(&run->lane, s->integers, s->scales, in(run, 0), s->doubles, s->n[0], s->n[1], s->n[2],
                      (int)s->n[3], 0.01, &info);
    if (info == 0) show_integers(run);
}

/* Small shapes are odd, so that vector loops have tails; timed ones exceed the caches, as training's do. */
#define EMBEDDING "embedding", .setup = embedding_setup, .forward = embedding_forward, .backward = embedding_backward
#define BIGRAM "bigram_ids", .setup = bigram_setup, .forward = bigram_forward
#define SMEAR "smear", .setup = smear_setup, .forward = smear_forward, .backward = smear_backward
#define RMS_NORM "rms_norm", .setup = rms_norm_setup, .forward = rms_norm_forward, .backward = rms_norm_backward
#define RESIDUAL_MIX \
    "residual_mix", .setup = residual_mix_setup, .forward = residual_mix_forward, .backward = residual_mix_backward
#define SCALED_ADD \
    "scaled_add", .setup = scaled_add_setup, .forward = scaled_add_forward, .backward = scaled_add_backward
#define RESIDUAL_MIX_NORM                                                                        \
    "residual_mix_norm", .setup = residual_mix_norm_setup, .forward = residual_mix_norm_forward, \
                         .backward = residual_mix_norm_backward
#define SCALED_ADD_NORM                                                                    \
    "scaled_add_norm", .setup = scaled_add_norm_setup, .forward = scaled_add_norm_forward, \
                       .backward = scaled_add_norm_backward
#define ADD_INTO "add_into", .setup = add_into_setup, .forward = add_into_forward
#define LINEAR "linear", .setup = linear_setup, .forward = linear_forward, .backward = linear_backward
#define HEAD "head", .setup = linear_setup, .forward = head_forward, .backward = linear_backward
#define CLEAR "clear", .setup = one_to_one_setup, .forward = clear_forward
#define COPY "copy", .setup = one_to_one_setup, .forward = copy_forward
#define SUM "sum_in_order", .setup = one_to_one_setup, .forward = sum_forward
#define ADD_TREE "add_tree", .setup = one_to_one_setup, .forward = add_tree_forward
#define CLIP "clip_by_norm", .setup = one_to_one_setup, .forward = clip_forward
#define LEAKY "leaky_relu_squared", .setup = leaky_setup, .forward = leaky_forward, .backward = leaky_backward
#define CROSS_ENTROPY \
    "cross_entropy", .setup = cross_entropy_setup, .forward = cross_entropy_forward, .backward = cross_entropy_backward
#define SOFTCAP "softcap", .setup = softcap_setup, .forward = softcap_forward
#define TERNARIZE "ternarize", .setup = weights_setup, .forward = ternarize_forward
#define TERNARIZE_BACKWARD \
    "ternarize_backward", .setup = ternarize_backward_setup, .forward = ternarize_backward_forward
#define FAKE_QUANTIZE "fake_quantize_rows", .setup = weights_setup, .forward = fake_quantize_forward
#define ADAM "adam_step", .setup = adam_setup, .forward = adam_forward
#define MUON_MOMENTUM "muon_momentum", .setup = muon_momentum_setup, .forward = muon_momentum_forward
#define NORMALIZE_ROWS "normalize_rows", .setup = matrix_setup, .forward = normalize_rows_forward
#define NEWTON_SCHULZ "newton_schulz", .setup = matrix_setup, .forward = newton_schulz_forward
#define MUON_APPLY "muon_apply", .setup = update_setup, .forward = muon_apply_forward
#define MOVING_AVERAGE "moving_average", .setup = update_setup, .forward = moving_average_forward
#define HESSIAN "hessian_accumulate", .setup = hessian_setup, .forward = hessian_forward
#define QUANTIZE "quantize_rows", .setup = quantize_setup, .forward = quantize_forward
#define GPTQ "gptq_quantize", .setup = gptq_setup, .forward = gptq_forward

const struct op_case pointwise_cases[] = {
    {EMBEDDING, .shape = "R37 D11 V5, ids repeat", .size = {37, 11, 5}},
    {BIGRAM, .shape = "B3 T7", .size = {3, 7, 1024, 61}},
    {SMEAR, .shape = "B2 T5 D7", .size = {2, 5, 7}},
    {SMEAR, .shape = "B3 T1 D9", .size = {3, 1, 9}},
    {SMEAR, .shape = "B1 T3 D700, two blocks of columns", .size = {1, 3, 700}},
    {RMS_NORM, .shape = "R5 D13", .size = {5, 13}},
    {RMS_NORM, .shape = "R3 D2", .size = {3, 2}},
    {RESIDUAL_MIX, .shape = "R5 D13", .size = {5, 13}},
    {SCALED_ADD, .shape = "R5 D13", .size = {5, 13}},
    {RESIDUAL_MIX_NORM, .shape = "R5 D13", .size = {5, 13}},
    {RESIDUAL_MIX_NORM, .shape = "R5 D13 with a skip", .size = {5, 13, 1}},
    {SCALED_ADD_NORM, .shape = "R5 D13", .size = {5, 13}},
    {ADD_INTO, .shape = "37", .size = {37}, .backward = add_into_backward},
    {LINEAR, .shape = "R9 out 7 in 5", .size = {9, 7, 5}},
    {LINEAR, .shape = "R9 out 7 in 5, dx accumulated", .size = {9, 7, 5, 1}},
    {HEAD, .shape = "R9 V7 D5", .size = {9, 7, 5}},
    {CLEAR, .shape = "37", .size = {37}},
    {COPY, .shape = "37", .size = {37}},
    {SUM, .shape = "37", .size = {37}},
    {ADD_TREE, .shape = "37", .size = {37}},
    {CLIP, .shape = "37", .size = {37}},
    {LEAKY, .shape = "131", .size = {131}},
    {CROSS_ENTROPY, .shape = "R5 V37 cap 30", .size = {5, 37, 30}},
    {CROSS_ENTROPY, .shape = "R3 V9 cap 2, saturated", .size = {3, 9, 2}},
    {SOFTCAP, .shape = "37 cap 30", .size = {37, 30}},
    {TERNARIZE, .shape = "7x13", .size = {7, 13}},
    {TERNARIZE_BACKWARD, .shape = "7x13", .size = {7, 13}},
    {FAKE_QUANTIZE, .shape = "7x13 int6", .size = {7, 13, 31}},
    {ADAM, .shape = "91", .size = {7, 13}},
    {MUON_MOMENTUM, .shape = "91", .size = {7, 13}},
    {NORMALIZE_ROWS, .shape = "7x13", .size = {7, 13}},
    {NEWTON_SCHULZ, .shape = "7x13, 5 steps", .size = {7, 13, 5}},
    {NEWTON_SCHULZ, .shape = "41x9, 4 steps", .size = {41, 9, 4}},
    {MUON_APPLY, .shape = "91", .size = {7, 13}},
    {MOVING_AVERAGE, .shape = "91", .size = {7, 13}},
    {HESSIAN, .shape = "R300 cols 101", .size = {300, 101}},
    {QUANTIZE, .shape = "7x13 int6", .size = {7, 13, 0, 31, 10000}},
    {QUANTIZE, .shape = "7x45 int8 group 32, percentile 99.9", .size = {7, 45, 32, 127, 9990}},
    {GPTQ, .shape = "41x150 int6", .size = {41, 150, 0, 31}},
    {GPTQ, .shape = "3x70 int5 group 32", .size = {3, 70, 32, 15}},

    {EMBEDDING, .shape = "R16384 D512 V1024", .bench = 1, .size = {16384, 512, 1024}},
    {BIGRAM, .shape = "R4M", .bench = 1, .size = {1024, 4096, 1024, 4096}},
    {SMEAR, .shape = "R16384 D512", .bench = 1, .size = {4, 4096, 512}},
    {RMS_NORM, .shape = "R16384 D512", .bench = 1, .size = {16384, 512}},
    {RESIDUAL_MIX, .shape = "R16384 D512", .bench = 1, .size = {16384, 512}},
    {SCALED_ADD, .shape = "R16384 D512", .bench = 1, .size = {16384, 512}},
    {RESIDUAL_MIX_NORM, .shape = "R16384 D512 with a skip", .bench = 1, .size = {16384, 512, 1}},
    {SCALED_ADD_NORM, .shape = "R16384 D512", .bench = 1, .size = {16384, 512}},
    {ADD_INTO, .shape = "8M", .bench = 1, .size = {8 << 20}},
    {LINEAR, .shape = "R2048 768x256", .bench = 1, .size = {2048, 768, 256}},
    {LINEAR, .shape = "R4096 1536x512", .bench = 1, .size = {4096, 1536, 512}},
    {LINEAR, .shape = "R4096 512x1536", .bench = 1, .size = {4096, 512, 1536}},
    {LEAKY, .shape = "8M", .bench = 1, .size = {8 << 20}},
    {CROSS_ENTROPY, .shape = "R8192 V1024", .bench = 1, .size = {8192, 1024, 30}},
    {SOFTCAP, .shape = "8M", .bench = 1, .size = {8 << 20, 30}},
    {TERNARIZE, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {TERNARIZE_BACKWARD, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {FAKE_QUANTIZE, .shape = "16384x512", .bench = 1, .size = {16384, 512, 31}},
    {ADAM, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {MUON_MOMENTUM, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {NORMALIZE_ROWS, .shape = "16384x512", .bench = 1, .size = {16384, 512}},
    {NEWTON_SCHULZ, .shape = "256x768", .bench = 1, .size = {256, 768, 5}},
    {NEWTON_SCHULZ, .shape = "1536x512", .bench = 1, .size = {1536, 512, 5}},
    {MUON_APPLY, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {MOVING_AVERAGE, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {HESSIAN, .shape = "R4096 cols 512", .bench = 1, .size = {4096, 512}},
    {QUANTIZE, .shape = "1536x512 max", .bench = 1, .size = {1536, 512, 0, 31, 10000}},
    {QUANTIZE, .shape = "1536x512 99.9 %", .bench = 1, .size = {1536, 512, 0, 31, 9990}},
    {GPTQ, .shape = "1536x512", .bench = 1, .size = {1536, 512, 0, 31}},
};
const size_t pointwise_case_count = sizeof pointwise_cases / sizeof *pointwise_cases;
