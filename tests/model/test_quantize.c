/* quantize tests: what is stored how, errors against each other, GPTQ and its statistics, fallbacks, equal bits. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/half.h"
#include "model/quantize/calibrate.h"
#include "tests/model/quantised_toy.h"

static real *decoded(const struct quantised_toy *toy) {
    real *weights = malloc(toy->net.parameters.total * sizeof *weights);
    quantized_model_decode(&toy->model, weights);
    return weights;
}

/* Sum over the integer tensors of |w - decoded|^2. */
static double squared_error(const struct quantised_toy *toy) {
    real *weights = decoded(toy);
    double sum = 0;
    for (int i = 0; i < toy->model.count; i++) {
        const struct quantized_tensor *q = &toy->model.tensors[i];
        bool integers = q->parts[0].storage == STORED_INT;
        for (size_t k = q->tensor->offset; integers && k < q->tensor->offset + q->tensor->count; k++)
            sum += pow((double)(weights[k] - quantised_toy_weights()[k]), 2);
    }
    free(weights);
    return sum;
}

static double error_under(const char *settings) {
    struct quantised_toy toy;
    quantised_toy_make(&toy, settings, toy_backend(2));
    double error = squared_error(&toy);
    quantised_toy_free(&toy);
    return error;
}

static const struct quantized_tensor *tensor_named(const struct quantised_toy *toy, const char *name) {
    return &toy->model.tensors[parameters_find(&toy->net.parameters, name)];
}

static const struct quantized_part *named(const struct quantised_toy *toy, const char *name) {
    assert_int_equal(tensor_named(toy, name)->part_count, 1);
    return tensor_named(toy, name)->parts;
}

static void bits_follow_class_size_and_method(void **state) {
    (void)state;
    struct config config = toy_config("quant.bits=6 quant.bits_mamba=5 quant.bits_mlp=4");
    struct tensor tensor = {.linear = true, .count = 65537, .role = ROLE_MLP_FC, .class = CLASS_MLP};
    assert_int_equal(quantize_bits(&config, &tensor), 4);
    tensor.class = CLASS_MAMBA;
    assert_int_equal(quantize_bits(&config, &tensor), 5);
    tensor.class = CLASS_ATTENTION;
    assert_int_equal(quantize_bits(&config, &tensor), 6);
    tensor.count = 65536;
    assert_int_equal(quantize_bits(&config, &tensor), 0);
    struct tensor table = {.count = 65537, .role = ROLE_BIGRAM_TABLE, .class = CLASS_BIGRAM};
    assert_int_equal(quantize_bits(&config, &table), 6);
    struct tensor embedding = {.count = 65537, .role = ROLE_EMBEDDING, .class = CLASS_EMBEDDING};
    assert_int_equal(quantize_bits(&config, &embedding), 0);
    config.quant_embedding = EMBEDDING_INT8;
    assert_int_equal(quantize_bits(&config, &embedding), 8);
    struct tensor control = {.count = 65537, .role = ROLE_RESID_MIX, .class = CLASS_CONTROL};
    assert_int_equal(quantize_bits(&config, &control), 0);
    config.quant_method = METHOD_NONE;
    assert_int_equal(quantize_bits(&config, &table), 0);
    config.quant_method = METHOD_TERNARY; /* the linears are trits; the table is no linear */
    assert_int_equal(quantize_bits(&config, &tensor), 0);
    assert_int_equal(quantize_bits(&config, &table), 6);
}

static void each_tensor_is_stored_as_its_class_wants(void **state) {
    (void)state;
    struct quantised_toy toy;
    quantised_toy_make(&toy, "quant.strategy=int6-rowwise", toy_backend(1));
    assert_int_equal(named(&toy, "blocks.0.mlp.fc")->storage, STORED_INT);
    assert_int_equal(named(&toy, "blocks.0.mlp.fc")->bits, 6);
    assert_int_equal(named(&toy, "blocks.0.mlp.fc")->scale_count, 96);
    assert_int_equal(named(&toy, "blocks.0.mamba.in_proj")->storage, STORED_INT);
    assert_int_equal(named(&toy, "blocks.1.attn.q")->storage, STORED_F16);
    assert_int_equal(named(&toy, "tok_emb.weight")->storage, STORED_F16);
    assert_int_equal(named(&toy, "bigram.table")->storage, STORED_F16);
    assert_int_equal(named(&toy, "blocks.0.mamba.dt_bias")->storage, STORED_F32);
    quantised_toy_free(&toy);
}

static void fp16_keeps_halves_and_controls_exactly(void **state) {
    (void)state;
    struct quantised_toy toy;
    quantised_toy_make(&toy, "quant.strategy=fp16", toy_backend(1));
    real *weights = decoded(&toy);
    for (int i = 0; i < toy.model.count; i++) {
        const struct tensor *tensor = toy.model.tensors[i].tensor;
        for (size_t k = tensor->offset; k < tensor->offset + tensor->count; k++) {
            real w = quantised_toy_weights()[k];
            real expected = tensor->class == CLASS_CONTROL ? (real)(float)w : half_to_real(half_from_double((double)w));
            assert_true(weights[k] == expected);
        }
    }
    free(weights);
    quantised_toy_free(&toy);
}

/* in_proj of the toy: z x 192 rows, B 8, C 8, dt a lambda 36, theta 2. */
static void expect_parts(const char *settings, const char *expected) {
    struct quantised_toy toy;
    char text[256] = "";
    quantised_toy_make(&toy, settings, toy_backend(2));
    const struct quantized_tensor *q = tensor_named(&toy, "blocks.0.mamba.in_proj");
    for (int p = 0; p < q->part_count; p++) {
        size_t used = strlen(text);
        const struct quantized_part *part = &q->parts[p];
        snprintf(text + used, sizeof text - used, "%zu+%zu %s/%zu ", part->first, part->rows,
                 part->storage == STORED_INT ? "int" : "fp16", part->group);
    }
    assert_string_equal(text, expected);
    quantised_toy_free(&toy);
}

static void rows_of_in_proj_are_stored_as_protection_and_groups_want(void **state) {
    (void)state;
    expect_parts("quant.strategy=int6-rowwise", "0+246 int/0 ");
    expect_parts("quant.strategy=int6-rowwise quant.group=32", "0+246 int/32 ");
    expect_parts("quant.strategy=int6-rowwise quant.group=32 quant.group_rows=bc",
                 "0+192 int/0 192+16 int/32 208+38 int/0 ");
    expect_parts("quant.strategy=int6-gptq quant.protect=recurrence-rows",
                 "0+192 int/0 192+8 fp16/0 200+8 int/0 208+36 fp16/0 244+2 int/0 ");
    expect_parts("quant.strategy=dsq-c quant.protect=recurrence-rows+control",
                 "0+192 int/0 192+8 fp16/0 200+8 int/64 208+36 fp16/0 244+2 int/0 ");
    expect_parts("quant.strategy=dsq-c mamba.rotary_fraction=0.5 quant.protect=none",
                 "0+192 int/0 192+16 int/64 208+38 int/0 ");
}

/* What is rounded in a part of its own is rounded as in the whole tensor; what is protected is what fp16 keeps. */
static void protected_rows_are_halves_and_the_others_as_without_protection(void **state) {
    (void)state;
    struct quantised_toy guarded, plain;
    quantised_toy_make(&guarded, "quant.strategy=int6-gptq quant.protect=recurrence-rows", toy_backend(2));
    quantised_toy_make(&plain, "quant.strategy=int6-gptq", toy_backend(1));
    real *a = decoded(&guarded), *b = decoded(&plain);
    const struct tensor *tensor = tensor_named(&plain, "blocks.0.mamba.in_proj")->tensor;
    for (size_t i = 0; i < tensor->count; i++) {
        size_t row = i / tensor->shape[1], at = tensor->offset + i;
        bool half = (row >= 192 && row < 200) || (row >= 208 && row < 244);
        real w = quantised_toy_weights()[at];
        assert_true(a[at] == (half ? half_to_real(half_from_double((double)w)) : b[at]));
    }
    free(a);
    free(b);
    quantised_toy_free(&guarded);
    quantised_toy_free(&plain);
}

static void dsq_keeps_control_tensors_as_halves(void **state) {
    (void)state;
    static const char *const strategies[] = {"quant.strategy=dsq-a", "quant.strategy=dsq-b", "quant.strategy=dsq-c"};
    for (size_t i = 0; i < 3; i++) {
        struct quantised_toy toy;
        quantised_toy_make(&toy, strategies[i], toy_backend(2));
        assert_int_equal(named(&toy, "blocks.0.mamba.dt_bias")->storage, STORED_F16);
        assert_int_equal(named(&toy, "skip_weights")->storage, STORED_F16);
        assert_int_equal(named(&toy, "blocks.0.mlp.fc")->bits, i ? 5 : 6);
        assert_int_equal(tensor_named(&toy, "blocks.0.mamba.in_proj")->parts[0].bits, 6);
        quantised_toy_free(&toy);
    }
}

static void trits_decode_to_exactly_what_a_ternary_model_calculates_with(void **state) {
    (void)state;
    struct quantised_toy toy;
    quantised_toy_make(&toy, "model.linear=ternary quant.strategy=ternary", toy_backend(2));
    real *weights = decoded(&toy), *image = calloc(network_weight_reals(&toy.net), sizeof *image);
    struct lane lane = {0};
    network_effective(&toy.net, &lane, 1, image, quantised_toy_weights(), VIEW_MASTER);
    int linears = 0;
    for (int i = 0; i < toy.model.count; i++) {
        const struct tensor *tensor = toy.model.tensors[i].tensor;
        assert_int_equal(toy.model.tensors[i].parts[0].storage == STORED_TRITS, tensor->linear);
        linears += tensor->linear;
        for (size_t k = tensor->offset; tensor->linear && k < tensor->offset + tensor->count; k++)
            assert_true((float)weights[k] == (float)image[k]);
    }
    assert_true(linears >= 10);
    assert_int_equal(quantized_config(&toy.net.config).model_linear, LINEAR_FLOAT);
    toy.net.config.quant_method = METHOD_ROWWISE; /* rounds masters, which are made ternary afterwards */
    assert_int_equal(quantized_config(&toy.net.config).model_linear, LINEAR_TERNARY);
    free(weights);
    free(image);
    quantised_toy_free(&toy);
}

static void more_bits_and_finer_groups_give_less_error(void **state) {
    (void)state;
    double int8 = error_under("quant.strategy=int8-rowwise"),
           int6 = error_under("quant.strategy=int8-rowwise quant.bits=6");
    double grouped = error_under("quant.strategy=int8-rowwise quant.bits=6 quant.group=32");
    assert_true(int8 > 0);
    assert_true(int8 < int6 / 4);
    assert_true(grouped < int6);
}

static void the_clip_search_never_does_worse_than_the_maximum(void **state) {
    (void)state;
    assert_true(error_under("quant.strategy=int6-rowwise") <=
                error_under("quant.strategy=int6-rowwise quant.clip=max"));
    double searched = error_under("quant.strategy=int6-rowwise quant.bits=2");
    assert_true(searched < error_under("quant.strategy=int6-rowwise quant.bits=2 quant.clip=max"));
}

static void the_floor_holds_every_scale_at_one_over_qmax(void **state) {
    (void)state;
    struct quantised_toy toy;
    quantised_toy_make(&toy, "quant.strategy=int6-gptq-floored", toy_backend(2));
    int integers = 0;
    for (int i = 0; i < toy.model.count; i++)
        for (size_t k = 0; k < toy.model.tensors[i].parts[0].scale_count; k++, integers++)
            assert_true((double)half_to_real(toy.model.tensors[i].parts[0].scales[k]) >= 0.999 / 31);
    assert_true(integers > 0);
    assert_true(squared_error(&toy) > 2 * error_under("quant.strategy=int6-gptq"));
    quantised_toy_free(&toy);
}

/* tr((W - Q) H (W - Q)^T): what the layer's outputs lose on the calibration inputs. */
static double output_error(const struct tensor *tensor, const real *decoded_weights, const double *h) {
    size_t cols = tensor->shape[1];
    double sum = 0, *difference = malloc(cols * sizeof *difference);
    for (size_t r = 0; r < tensor->shape[0]; r++) {
        size_t row = tensor->offset + r * cols;
        for (size_t c = 0; c < cols; c++)
            difference[c] = (double)quantised_toy_weights()[row + c] - (double)decoded_weights[row + c];
        for (size_t i = 0; i < cols; i++)
            for (size_t j = i; j < cols; j++) sum += (i == j ? 1 : 2) * difference[i] * h[i * cols + j] * difference[j];
    }
    free(difference);
    return sum;
}

static void gptq_beats_rowwise_where_the_inputs_are_known(void **state) {
    (void)state;
    struct quantised_toy gptq, rowwise;
    struct calibration calibration;
    quantised_toy_make(&gptq, "quant.strategy=int6-gptq quant.bits=4", toy_backend(2));
    quantised_toy_make(&rowwise, "quant.strategy=int6-rowwise quant.clip=max quant.bits=4", toy_backend(2));
    assert_good(calibrate(&gptq.net, quantised_toy_weights(), NULL, 3, NULL, NULL, &calibration));
    real *a = decoded(&gptq), *b = decoded(&rowwise);
    int compared = 0;
    for (int i = 0; i < gptq.model.count; i++) {
        const double *h = calibration_hessian(&calibration, i);
        if (!h) continue;
        double less = output_error(gptq.model.tensors[i].tensor, a, h);
        double more = output_error(gptq.model.tensors[i].tensor, b, h);
        if (!(less < 0.7 * more)) fail_msg("%s: %g against %g", gptq.model.tensors[i].tensor->name, less, more);
        compared++;
    }
    assert_int_equal(compared, 6); /* two MLPs and a mixer, of two matrices each */
    assert_string_equal(gptq.model.notes, "");
    free(a);
    free(b);
    calibration_free(&calibration);
    quantised_toy_free(&gptq);
    quantised_toy_free(&rowwise);
}

struct naive {
    int tensor;
    double *h;
};

static void accumulate_naively(void *context, int tensor, const real *x, size_t rows, size_t cols) {
    struct naive *naive = context;
    for (size_t r = 0; tensor == naive->tensor && r < rows; r++)
        for (size_t i = 0; i < cols; i++)
            for (size_t j = i; j < cols; j++)
                naive->h[i * cols + j] += (double)x[r * cols + i] * (double)x[r * cols + j];
}

/* Layer 0 runs twice, so both of its passes must be in H. */
static void the_hessian_is_the_sum_over_all_inputs_and_passes(void **state) {
    (void)state;
    struct network net = quantised_toy_network("quant.calibration=train train.slice_tokens=64", toy_backend(2));
    struct calibration calibration;
    assert_good(calibrate(&net, quantised_toy_weights(), toy_dataset(), 3, NULL, NULL, &calibration));
    struct naive naive = {.tensor = parameters_find(&net.parameters, "blocks.0.mlp.fc")};
    const size_t cols = net.parameters.tensors[naive.tensor].shape[1];
    naive.h = calloc(cols * cols, sizeof *naive.h);
    struct batch_plan plan;
    int32_t ids[12 * 32], targets[12 * 32];
    assert_good(batch_plan_create(&plan, &toy_dataset()->train, 32, 12, DATA_SHUFFLED, 3));
    batch_fill(&plan, 0, ids, targets);
    struct workspace *ws;
    assert_good(workspace_create(&ws, &net, false, 0));
    real *seen = calloc(network_weight_reals(&net), sizeof *seen);
    network_effective(&net, workspace_lane(ws), 1, seen, quantised_toy_weights(), VIEW_MASTER);
    for (size_t i = 0; i < 12; i++) {
        struct forward_request request = {.weights = seen,
                                          .ids = ids + 32 * i,
                                          .sequences = 1,
                                          .time = 32,
                                          .repeats_on = true,
                                          .temperature = 1,
                                          .tap = accumulate_naively,
                                          .tap_context = &naive};
        network_forward(&net, ws, &request);
    }
    const double *h = calibration_hessian(&calibration, naive.tensor);
    for (size_t i = 0; i < cols; i++)
        for (size_t j = i; j < cols; j++)
            assert_true(fabs(h[i * cols + j] - naive.h[i * cols + j] / 12) < 1e-3 * naive.h[0] / 12);
    workspace_destroy(ws);
    free(seen);
    batch_plan_destroy(&plan);
    free(naive.h);
    calibration_free(&calibration);
    network_destroy(&net);
}

static void queries_keys_and_values_share_one_hessian(void **state) {
    (void)state;
    struct config config =
        toy_config("model.layers=1 attention.layers=0 attention.kv_heads=4 train.quantise_above=1000 "
                   "attention.rope_dims=0 quant.calibration=train quant.calibration_sequences=1");
    struct network net;
    struct calibration calibration;
    assert_good(network_create(&net, &config, toy_backend(1), 1, 16));
    real *weights = calloc(net.parameters.total, sizeof *weights);
    assert_good(parameters_initialise(&net.parameters, weights, 1));
    assert_good(calibrate(&net, weights, toy_dataset(), 3, NULL, NULL, &calibration));
    const double *q = calibration_hessian(&calibration, parameters_find(&net.parameters, "blocks.0.attn.q"));
    assert_ptr_equal(q, calibration_hessian(&calibration, parameters_find(&net.parameters, "blocks.0.attn.k")));
    assert_ptr_equal(q, calibration_hessian(&calibration, parameters_find(&net.parameters, "blocks.0.attn.v")));
    double trace = 0; /* of normalised inputs: 32 for each of the 16 tokens */
    for (size_t i = 0; i < 32; i++) trace += q[i * 32 + i];
    assert_float_equal(trace, 16 * 32, 0.1);
    free(weights);
    calibration_free(&calibration);
    network_destroy(&net);
}

static void the_bits_are_the_same_on_one_two_and_four_lanes(void **state) {
    (void)state;
    struct quantised_toy first, toy;
    quantised_toy_make(&first, "quant.strategy=int6-gptq", toy_backend(1));
    for (int lanes = 2; lanes <= 4; lanes += 2) {
        quantised_toy_make(&toy, "quant.strategy=int6-gptq", toy_backend(lanes));
        for (int i = 0; i < toy.model.count; i++) {
            const struct quantized_part *part = toy.model.tensors[i].parts;
            if (part->storage != STORED_INT) continue;
            assert_memory_equal(part->integers, first.model.tensors[i].parts[0].integers, part->count);
        }
        quantised_toy_free(&toy);
    }
    quantised_toy_free(&first);
}

static void integers_stay_within_their_bits(void **state) {
    (void)state;
    struct quantised_toy toy;
    quantised_toy_make(&toy, "quant.strategy=int6-gptq quant.bits=3 quant.embedding=int8", toy_backend(2));
    int highest = 0;
    for (int i = 0; i < toy.model.count; i++) {
        const struct quantized_part *q = toy.model.tensors[i].parts;
        for (size_t k = 0; q->storage == STORED_INT && q->bits == 3 && k < q->count; k++)
            if (abs(q->integers[k]) > highest) highest = abs(q->integers[k]);
    }
    assert_int_equal(highest, 3);
    assert_int_equal(named(&toy, "tok_emb.weight")->bits, 8);
    quantised_toy_free(&toy);
}

static double accepted_damping;

static void refuse_small_damping(struct lane *lane, int8_t *q, const uint16_t *scales, const real *w, const double *h,
                                 size_t rows, size_t cols, size_t group, int qmax, double damping, int *info) {
    *info = 1;
    if (damping >= accepted_damping) cpu_gptq_quantize(lane, q, scales, w, h, rows, cols, group, qmax, damping, info);
}

static void an_indefinite_hessian_is_damped_more_then_given_up_and_noted(void **state) {
    (void)state;
    struct backend stubborn = *toy_backend(1);
    stubborn.gptq_quantize = refuse_small_damping;
    struct quantised_toy toy;
    accepted_damping = 0.05;
    quantised_toy_make(&toy, "quant.strategy=int6-gptq", &stubborn);
    assert_non_null(strstr(toy.model.notes, "blocks.0.mlp.fc: gptq with damping 0.1\n"));
    quantised_toy_free(&toy);
    accepted_damping = 1e9;
    quantised_toy_make(&toy, "quant.strategy=int6-gptq", &stubborn);
    assert_non_null(
        strstr(toy.model.notes, "blocks.0.mlp.fc: the Hessian is not positive definite even with damping 10"));
    assert_true(squared_error(&toy) == error_under("quant.strategy=int6-rowwise quant.clip=max"));
    quantised_toy_free(&toy);
}

static void without_statistics_gptq_is_rowwise_and_says_so(void **state) {
    (void)state;
    struct quantised_toy toy;
    quantised_toy_make(&toy, "quant.strategy=int6-gptq quant.calibration=none", toy_backend(1));
    assert_non_null(strstr(toy.model.notes, "rowwise"));
    assert_true(squared_error(&toy) == error_under("quant.strategy=int6-rowwise quant.clip=max"));
    quantised_toy_free(&toy);
}

static bool stop_at_once(void *context, const char *what, double fraction) {
    (void)what;
    assert_true(fraction >= 0 && fraction <= 1);
    return --*(int *)context == 0;
}

static void it_can_be_stopped_at_every_report(void **state) {
    (void)state;
    struct network net = quantised_toy_network("quant.strategy=int6-gptq", toy_backend(1));
    struct quantized_model model;
    for (int reports = 1; reports <= 5; reports++) {
        int left = reports;
        assert_failure(quantize_model(&net, quantised_toy_weights(), NULL, 3, stop_at_once, &left, &model),
                       STATUS_INTERRUPTED, "stopped");
    }
    network_destroy(&net);
}

static void calibration_on_the_text_needs_the_text(void **state) {
    (void)state;
    struct network net = quantised_toy_network("quant.calibration=train", toy_backend(1));
    struct quantized_model model;
    assert_failure(quantize_model(&net, quantised_toy_weights(), NULL, 3, NULL, NULL, &model), STATUS_USAGE,
                   "quant.calibration");
    network_destroy(&net);
}

static void ternary_models_are_calibrated_by_what_they_calculate_with(void **state) {
    (void)state;
    struct network ternary = quantised_toy_network("model.linear=ternary quant.calibration=train", toy_backend(1));
    struct network plain = quantised_toy_network("quant.calibration=train", toy_backend(1));
    struct calibration a, b;
    assert_good(calibrate(&ternary, quantised_toy_weights(), toy_dataset(), 3, NULL, NULL, &a));
    assert_good(calibrate(&plain, quantised_toy_weights(), toy_dataset(), 3, NULL, NULL, &b));
    int last = parameters_find(&plain.parameters, "blocks.1.mlp.proj");
    assert_true(calibration_hessian(&a, last)[0] != calibration_hessian(&b, last)[0]);
    calibration_free(&a);
    calibration_free(&b);
    network_destroy(&ternary);
    network_destroy(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_follow_class_size_and_method),
        cmocka_unit_test(each_tensor_is_stored_as_its_class_wants),
        cmocka_unit_test(fp16_keeps_halves_and_controls_exactly),
        cmocka_unit_test(rows_of_in_proj_are_stored_as_protection_and_groups_want),
        cmocka_unit_test(protected_rows_are_halves_and_the_others_as_without_protection),
        cmocka_unit_test(dsq_keeps_control_tensors_as_halves),
        cmocka_unit_test(trits_decode_to_exactly_what_a_ternary_model_calculates_with),
        cmocka_unit_test(more_bits_and_finer_groups_give_less_error),
        cmocka_unit_test(the_clip_search_never_does_worse_than_the_maximum),
        cmocka_unit_test(the_floor_holds_every_scale_at_one_over_qmax),
        cmocka_unit_test(gptq_beats_rowwise_where_the_inputs_are_known),
        cmocka_unit_test(the_hessian_is_the_sum_over_all_inputs_and_passes),
        cmocka_unit_test(queries_keys_and_values_share_one_hessian),
        cmocka_unit_test(the_bits_are_the_same_on_one_two_and_four_lanes),
        cmocka_unit_test(integers_stay_within_their_bits),
        cmocka_unit_test(an_indefinite_hessian_is_damped_more_then_given_up_and_noted),
        cmocka_unit_test(without_statistics_gptq_is_rowwise_and_says_so),
        cmocka_unit_test(it_can_be_stopped_at_every_report),
        cmocka_unit_test(calibration_on_the_text_needs_the_text),
        cmocka_unit_test(ternary_models_are_calibrated_by_what_they_calculate_with),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
