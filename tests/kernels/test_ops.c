/* test_ops: every row of the op cases, held to the contract of kernels/ops.def.
 *
 * In float64, each backward agrees with central differences of its forward along random directions. In float32 the
 * same check runs with a step and a tolerance that its rounding allows. In both: forward writes all of each output,
 * backward adds or writes as the row says, nothing that an op only reads changes, and a second run has the same bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/random.h"
#include "tests/kernels/op_case.h"

enum { SEED = 7, DIRECTIONS = 3 };

#ifdef HINGE_DOUBLE
/* Truncation is step^2 times the third derivative, about 1e-10; rounding 1e-16/step, about 1e-11. */
static const double STEP = 1e-5, DEFAULT_TOLERANCE = 1e-6, ACCUMULATION_TOLERANCE = 1e-12;
static double tolerance_of(const struct op_case *row) {
    return row->tolerance > 0 ? row->tolerance : DEFAULT_TOLERANCE;
}
#else
/* float32: rounding 1e-7/step, about 1e-4 of each of the outputs summed; the float64 build is the sharp check. */
static const double STEP = 1e-3, ACCUMULATION_TOLERANCE = 1e-5;
static double tolerance_of(const struct op_case *row) { return row->tolerance > 0.03 ? row->tolerance : 0.03; }
#endif

static void fill(real *data, size_t count, real value) {
    for (size_t i = 0; i < count; i++) data[i] = value;
}

static void fill_random(real *data, size_t count, const char *name, uint64_t seed) {
    struct random_stream stream = random_stream(seed, name);
    for (size_t i = 0; i < count; i++) data[i] = (real)random_normal(stream, i);
}

static double dot(const real *a, const real *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)a[i] * (double)b[i];
    return sum;
}

static size_t first_not_finite(const real *data, size_t count) {
    size_t i = 0;
    while (i < count && isfinite(data[i])) i++;
    return i;
}

/* --- the scalar that is differentiated: sum of outputs times fixed random weights ------------------------------ */
static void weigh_outputs(struct op_run *run) {
    for (int k = 0; k < run->output_count; k++) {
        struct op_tensor *output = &run->outputs[k];
        fill_random(output->gradient, output->count, output->name, SEED + 1);
    }
}

static double weighted_sum(const struct op_run *run) {
    double sum = 0;
    for (int k = 0; k < run->output_count; k++)
        sum += dot(run->outputs[k].data, run->outputs[k].gradient, run->outputs[k].count);
    return sum;
}

static void run_backward(struct op_run *run, const struct op_case *row, real start) {
    for (int k = 0; k < run->input_count; k++) {
        struct op_tensor *input = &run->inputs[k];
        fill(input->gradient, input->count, input->accumulates ? start : (real)NAN);
    }
    weigh_outputs(run);
    row->backward(run);
    weigh_outputs(run); /* a case may turn the outputs' gradients into the inputs' in place */
}

/* --- checks ------------------------------------------------------------------------------------------------------ */
static void check_all_written(struct op_run *run, const struct op_case *row) {
    for (int k = 0; k < run->output_count; k++) fill(run->outputs[k].data, run->outputs[k].count, (real)NAN);
    row->forward(run);
    for (int k = 0; k < run->output_count; k++) {
        const struct op_tensor *output = &run->outputs[k];
        size_t bad = first_not_finite(output->data, output->count);
        if (bad < output->count) fail_msg("output %s is not written at %zu of %zu", output->name, bad, output->count);
    }
}

static double central_difference(struct op_run *run, const struct op_case *row, struct op_tensor *input,
                                 const real *direction) {
    real *kept = op_memory(run, input->count * sizeof *kept);
    memcpy(kept, input->data, input->count * sizeof *kept);
    double side[2];
    for (int s = 0; s < 2; s++) {
        for (size_t i = 0; i < input->count; i++) input->data[i] = kept[i] + (real)(s ? STEP : -STEP) * direction[i];
        row->forward(run);
        side[s] = weighted_sum(run);
    }
    memcpy(input->data, kept, input->count * sizeof *kept);
    return (side[1] - side[0]) / (2 * STEP);
}

/* For a direction of N(0,1) elements the derivative's spread is the gradient's norm: errors are relative to that. A
 * tensor whose gradient nearly vanishes beside the others' is held to a thousandth of theirs. */
static double error_scale(const struct op_run *run, const struct op_tensor *input) {
    double most = 0;
    for (int k = 0; k < run->input_count; k++) {
        const struct op_tensor *other = &run->inputs[k];
        most = fmax(most, sqrt(dot(other->gradient, other->gradient, other->count)));
    }
    return fmax(sqrt(dot(input->gradient, input->gradient, input->count)), 1e-3 * most);
}

static void check_derivative(struct op_run *run, const struct op_case *row, struct op_tensor *input) {
    real *direction = op_memory(run, input->count * sizeof *direction);
    const double scale = error_scale(run, input);
    for (uint64_t d = 0; d < DIRECTIONS; d++) {
        fill_random(direction, input->count, input->name, SEED + 100 + d);
        double expected = central_difference(run, row, input, direction);
        double found = dot(input->gradient, direction, input->count), error = fabs(found - expected) / scale;
        if (!(error <= tolerance_of(row)))
            fail_msg("d/d%s: backward %.10g, central difference %.10g, relative error %.2g, allowed %.2g", input->name,
                     found, expected, error, tolerance_of(row));
    }
}

static void check_gradients_written(const struct op_run *run) {
    for (int k = 0; k < run->input_count; k++) {
        const struct op_tensor *input = &run->inputs[k];
        size_t bad = first_not_finite(input->gradient, input->count);
        if (bad < input->count)
            fail_msg("gradient of %s is not %s at %zu of %zu", input->name,
                     input->accumulates ? "finite" : "written (or is it +=, an op_parameter?)", bad, input->count);
    }
}

/* Gradients that accumulate: starting from 1 instead of 0 must end 1 higher. */
static void check_accumulation(struct op_run *run, const struct op_case *row) {
    real *from_zero[OP_CASE_TENSORS] = {0};
    for (int k = 0; k < run->input_count; k++) {
        const struct op_tensor *input = &run->inputs[k];
        from_zero[k] = op_memory(run, input->count * sizeof(real));
        memcpy(from_zero[k], input->gradient, input->count * sizeof(real));
    }
    run_backward(run, row, 1);
    for (int k = 0; k < run->input_count; k++) {
        const struct op_tensor *input = &run->inputs[k];
        double shift = input->accumulates ? 1 : 0;
        for (size_t i = 0; i < input->count; i++) {
            double expected = (double)from_zero[k][i] + shift, found = (double)input->gradient[i];
            if (!(fabs(found - expected) <= ACCUMULATION_TOLERANCE * (1 + fabs(expected))))
                fail_msg("gradient of %s at %zu: %.10g after starting from %g, expected %.10g", input->name, i, found,
                         shift, expected);
        }
    }
}

/* A copy of everything an op may read, to compare afterwards. */
struct snapshot {
    real *inputs[OP_CASE_TENSORS], *outputs[OP_CASE_TENSORS];
};

static real *copy_of(struct op_run *run, const struct op_tensor *tensor) {
    real *copy = op_memory(run, tensor->count * sizeof *copy);
    return memcpy(copy, tensor->data, tensor->count * sizeof *copy);
}

static struct snapshot take_snapshot(struct op_run *run) {
    struct snapshot s = {0};
    for (int k = 0; k < run->input_count; k++) s.inputs[k] = copy_of(run, &run->inputs[k]);
    for (int k = 0; k < run->output_count; k++) s.outputs[k] = copy_of(run, &run->outputs[k]);
    return s;
}

static void check_same(const struct op_tensor *tensor, const real *before, const char *what) {
    if (memcmp(tensor->data, before, tensor->count * sizeof *before) != 0) fail_msg("%s %s", tensor->name, what);
}

static void check_inputs_kept(const struct op_run *run, const struct snapshot *before) {
    for (int k = 0; k < run->input_count; k++)
        check_same(&run->inputs[k], before->inputs[k], "is an input, and was changed");
}

static void check_outputs_same(const struct op_run *run, const struct snapshot *before, const char *what) {
    for (int k = 0; k < run->output_count; k++) check_same(&run->outputs[k], before->outputs[k], what);
}

static void check_backward(struct op_run *run, const struct op_case *row) {
    struct snapshot before = take_snapshot(run);
    run_backward(run, row, 0);
    check_inputs_kept(run, &before);
    check_outputs_same(run, &before, "is an output, and backward changed it");
    check_gradients_written(run);
    for (int k = 0; k < run->input_count; k++) check_derivative(run, row, &run->inputs[k]);
    row->forward(run);
    check_accumulation(run, row);
}

/* Of the test that runs; freed by its teardown, also when it fails. */
static struct op_run current;

static void row_keeps_the_contract(void **state) {
    const struct op_case *row = *state;
    op_run_start(&current, row, SEED);
    struct snapshot start = take_snapshot(&current);
    check_all_written(&current, row);
    check_inputs_kept(&current, &start);
    struct snapshot first = take_snapshot(&current);
    row->forward(&current);
    check_outputs_same(&current, &first, "has other bits in a second run");
    if (row->backward) check_backward(&current, row);
}

static int end_run(void **state) {
    (void)state;
    op_run_end(&current);
    return 0;
}

/* --- the list of tests -------------------------------------------------------------------------------------------- */
static bool is_op_of(const char *name, const char *stem) {
    static const char *const endings[] = {"", "_forward", "_backward", "_backward_input", "_backward_weight"};
    size_t length = strlen(stem);
    if (strncmp(name, stem, length) != 0) return false;
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (strcmp(name + length, endings[i]) == 0) return true;
    return false;
}

static bool has_case(const char *name, const struct op_case *cases, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (!cases[i].bench && is_op_of(name, cases[i].op)) return true;
    return false;
}

static void every_op_has_a_case(void **state) {
    (void)state;
    for (size_t i = 0; i < op_row_count; i++) {
        const char *name = op_rows[i].name;
        if (!has_case(name, sequence_cases, sequence_case_count) &&
            !has_case(name, pointwise_cases, pointwise_case_count) && !has_case(name, weight_cases, weight_case_count))
            fail_msg("op %s has no row in sequence_cases, pointwise_cases or weight_cases", name);
    }
}

static size_t add_tests(struct CMUnitTest *tests, const struct op_case *cases, size_t count) {
    size_t added = 0;
    for (size_t i = 0; i < count; i++) {
        if (cases[i].bench) continue;
        char *name = NULL;
        if (asprintf(&name, "%s %s %s", cases[i].op, cases[i].shape,
                     cases[i].backward ? "keeps its contract and agrees with central differences"
                                       : "keeps its contract") < 0)
            abort();
        tests[added++] = (struct CMUnitTest){.name = name,
                                             .test_func = row_keeps_the_contract,
                                             .teardown_func = end_run,
                                             .initial_state = (void *)&cases[i]};
    }
    return added;
}

int main(void) {
    size_t most = 1 + sequence_case_count + pointwise_case_count + weight_case_count, count = 0;
    struct CMUnitTest *tests = calloc(most, sizeof *tests);
    if (!tests) abort();
    tests[count++] = (struct CMUnitTest){.name = "every op has a case", .test_func = every_op_has_a_case};
    count += add_tests(tests + count, sequence_cases, sequence_case_count);
    count += add_tests(tests + count, pointwise_cases, pointwise_case_count);
    count += add_tests(tests + count, weight_cases, weight_case_count);
    int failed = _cmocka_run_group_tests("ops", tests, count, NULL, NULL);
    for (size_t i = 1; i < count; i++) free((void *)tests[i].name);
    free(tests);
    return failed;
}
