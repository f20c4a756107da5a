/* weight_cases: rows for the ops on weights: ternary and fake quantisation, optimisers, GPTQ; see op_case.h. */
#include "tests/kernels/sized_case.h"

/* --- weights: size = rows, cols, qmax. The surrogate of ternarize_backward is checked in test_quantise_ops.c. ----- */
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

/* --- scale_rows: size = rows, cols. The gradient of what it writes comes in dw. ------------------------------------
 */
static void scale_rows_setup(struct op_run *run, const struct op_case *row) {
    struct sizes *s = keep_sizes(run, row);
    size_t count = s->n[0] * s->n[1];
    op_input(run, "w", count, 1);
    op_parameter(run, "scale", s->n[0], 1);
    op_output(run, "to", count);
    count_work(run, (double)count, 2.0 * (double)count, 3.0 * (double)count, 3.0 * (double)count);
}
static void scale_rows_forward(struct op_run *run) {
    const struct sizes *s = run->state;
    cpu_scale_rows(&run->lane, out(run, 0), in(run, 0), in(run, 1), s->n[0], s->n[1]);
}
static void scale_rows_backward(struct op_run *run) {
    const struct sizes *s = run->state;
    if (!s->bench) memcpy(din(run, 0), dout(run, 0), run->inputs[0].count * sizeof(real));
    cpu_scale_rows_backward(&run->lane, din(run, 0), din(run, 1), in(run, 0), in(run, 1), s->n[0], s->n[1]);
}

/* --- optimisers: size = rows, cols (count is their product), steps ------------------------------------------------ */
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
    const struct adam_settings settings = adam_settings_at(0.02, 0.9, 0.95, 1e-8, 3);
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
    const struct muon_settings settings = muon_settings_of(0, 0.025, 0.04);
    start_from_input(run, 0);
    cpu_muon_apply(&run->lane, out(run, 0), in(run, 1), s->n[0] * s->n[1], &settings, 1.2);
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
    const struct muon_settings settings = muon_settings_of(0.95, 0, 0);
    start_from_input(run, 0);
    cpu_muon_momentum(&run->lane, out(run, 1), out(run, 0), in(run, 1), s->n[0] * s->n[1], &settings);
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

/* --- quantisation: size = rows, cols, group, qmax, percentile in hundredths --------------------------------------- */
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
#define TERNARIZE "ternarize", .setup = weights_setup, .forward = ternarize_forward
#define TERNARIZE_BACKWARD \
    "ternarize_backward", .setup = ternarize_backward_setup, .forward = ternarize_backward_forward
#define SCALE_ROWS \
    "scale_rows", .setup = scale_rows_setup, .forward = scale_rows_forward, .backward = scale_rows_backward
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

const struct op_case weight_cases[] = {
    {TERNARIZE, .shape = "7x13", .size = {7, 13}},
    {TERNARIZE_BACKWARD, .shape = "7x13", .size = {7, 13}},
    {SCALE_ROWS, .shape = "7x13", .size = {7, 13}},
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

    {TERNARIZE, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {TERNARIZE_BACKWARD, .shape = "8M", .bench = 1, .size = {8192, 1024}},
    {SCALE_ROWS, .shape = "16384x512", .bench = 1, .size = {16384, 512}},
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
const size_t weight_case_count = sizeof weight_cases / sizeof *weight_cases;
