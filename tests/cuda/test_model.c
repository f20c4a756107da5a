/* test_model: the whole model on CUDA against the CPU: golden tensors, training, scoring, sampling, quantising; and
 * everything twice with the same bits. Activations are bf16: 2^-9 of each is lost at every op. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/decoder.h"
#include "model/evaluation.h"
#include "model/golden.h"
#include "model/quantize/quantize.h"
#include "model/trainer.h"
#include "tests/model/toy.h"

/* Of a loss, whose rounding errors are independent over tokens. */
static const double LOSS_TOLERANCE = 2e-3;
/* Of a tensor of weights after a few steps, relative to its distance from the initial one. */
static const double WEIGHT_TOLERANCE = 0.1;

/* Recurrence, QAT and clipping begin within 5 steps; a whole micro-shard is one slice on the device. */
static const char *const settings[] = {
    "train.steps=5 train.warmdown=5 train.slice_tokens=0 recurrence.layers=0 recurrence.start=0.4 train.qat_below=0.7 "
    "train.quantise_above=500 optim.clip=1 optim.row_norm=on",
    "train.steps=5 train.slice_tokens=0 model.linear=ternary train.ema=0 model.skips=all attention.layers=0",
};
enum { SETTINGS = sizeof settings / sizeof *settings, STEPS = 5, WINDOWS = 6 };

static const struct backend *cuda(void) {
    static bool open;
    const struct backend *ops = backend_find("cuda");
    assert_non_null(ops);
    if (!open) assert_good(ops->open());
    open = true;
    return ops;
}

static struct config config_of(int i, const char *more) {
    char all[1024];
    snprintf(all, sizeof all, "%s %s", settings[i], more);
    return toy_config(all);
}

static void assert_near(const char *name, double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance * fabs(want))) fail_msg("%s: %.9g, but the CPU has %.9g", name, got, want);
}

/* --- golden files ---------------------------------------------------------------------------------------------------
 */

static void agrees(const char *path) {
    struct golden_result result;
    assert_good(golden_verify(path, cuda(), &result));
    for (int i = 0; i < result.count; i++)
        if (!(result.rows[i].error <= result.rows[i].tolerance))
            fail_msg("%s: %s is %g apart", path, result.rows[i].name, result.rows[i].error);
    if (!result.passed) fail_msg("%s: the loss is %.9g, expected %.9g", path, result.loss, result.expected_loss);
    assert_true(result.count > 100);
    golden_result_free(&result);
}

static void a_golden_model_with_recurrence_and_skips_agrees(void **state) {
    (void)state;
    agrees("tests/golden/all-skips.safetensors");
}

static void a_golden_model_without_rope_smear_and_bigrams_agrees(void **state) {
    (void)state;
    agrees("tests/golden/no-rope.safetensors");
}

/* --- training -------------------------------------------------------------------------------------------------------
 */

/* What a training leaves, on the host. */
struct outcome {
    double loss[STEPS];
    real *first, *weights, *averaged; /* (total) the initial weights first */
    size_t total;
};

static real *copied(const struct trainer *trainer, const real *weights) {
    real *host = calloc(trainer_network(trainer)->parameters.total, sizeof *host);
    trainer_copy_out(trainer, weights, host);
    return host;
}

static void train(struct outcome *out, int i, const struct backend *ops) {
    struct trainer *trainer;
    struct step_record record;
    struct config config = config_of(i, "");
    assert_good(trainer_create(&trainer, &config, ops, toy_dataset(), 42));
    out->total = trainer_network(trainer)->parameters.total;
    out->first = copied(trainer, trainer_weights(trainer));
    for (int step = 0; step < STEPS; step++) {
        assert_good(trainer_step(trainer, &record));
        out->loss[step] = record.loss;
    }
    out->weights = copied(trainer, trainer_weights(trainer));
    out->averaged = copied(trainer, trainer_averaged(trainer));
    trainer_destroy(trainer);
}

static void outcome_free(struct outcome *out) {
    free(out->first);
    free(out->weights);
    free(out->averaged);
}

static double distance(const real *a, const real *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sqrt(sum);
}

static void five_steps_have_the_losses_and_weights_of_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < SETTINGS; i++) {
        struct outcome cpu, device;
        train(&cpu, i, toy_backend(1));
        train(&device, i, cuda());
        assert_memory_equal(device.first, cpu.first, cpu.total * sizeof *cpu.first);
        for (int step = 0; step < STEPS; step++)
            assert_near("a loss", device.loss[step], cpu.loss[step], LOSS_TOLERANCE);
        double apart = distance(device.weights, cpu.weights, cpu.total);
        double moved = distance(cpu.weights, cpu.first, cpu.total);
        if (!(apart <= WEIGHT_TOLERANCE * moved)) fail_msg("the weights are %g apart and moved by %g", apart, moved);
        outcome_free(&cpu);
        outcome_free(&device);
    }
}

static void training_twice_gives_the_same_bits(void **state) {
    (void)state;
    struct outcome first, second;
    train(&first, 0, cuda());
    train(&second, 0, cuda());
    assert_memory_equal(first.loss, second.loss, sizeof first.loss);
    assert_memory_equal(first.weights, second.weights, first.total * sizeof *first.weights);
    assert_memory_equal(first.averaged, second.averaged, first.total * sizeof *first.averaged);
    outcome_free(&first);
    outcome_free(&second);
}

static void a_checkpoint_resumes_to_the_same_bits(void **state) {
    (void)state;
    static const char key[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct config config = config_of(0, "");
    struct step_record record;
    struct trainer *whole, *resumed;
    assert_good(trainer_create(&whole, &config, cuda(), toy_dataset(), 42));
    assert_good(trainer_create(&resumed, &config, cuda(), toy_dataset(), 42));
    for (int step = 0; step < STEPS; step++) {
        if (step == 2) assert_good(trainer_save(whole, toy_path("checkpoint"), key));
        assert_good(trainer_step(whole, &record));
    }
    assert_good(trainer_load(resumed, toy_path("checkpoint"), key));
    while (!trainer_finished(resumed)) assert_good(trainer_step(resumed, &record));
    char expected[65], got[65];
    trainer_trace_sha256(whole, expected);
    trainer_trace_sha256(resumed, got);
    assert_string_equal(got, expected);
    real *a = copied(whole, trainer_weights(whole)), *b = copied(resumed, trainer_weights(resumed));
    assert_memory_equal(a, b, trainer_network(whole)->parameters.total * sizeof *a);
    free(a);
    free(b);
    trainer_destroy(whole);
    trainer_destroy(resumed);
}

/* --- after training -------------------------------------------------------------------------------------------------
 */

static const real *trained(int i) {
    static struct outcome all[SETTINGS];
    if (!all[i].weights) train(&all[i], i, toy_backend(1));
    return all[i].weights;
}

static const struct dataset *scored_text(void) {
    static uint8_t bytes[TOY_VOCAB], none[TOY_VOCAB];
    static struct dataset dataset;
    memset(bytes, 1, sizeof bytes);
    dataset = *toy_dataset();
    dataset.validation = (struct token_stream){dataset.train.tokens, WINDOWS * 16 + 6};
    dataset.token_bytes = bytes;
    dataset.token_space = dataset.token_boundary = none;
    return &dataset;
}

static void scoring_and_learning_while_scoring_agree(void **state) {
    (void)state;
    static const char *const modes[] = {"eval.tail=keep", "eval.mode=ttt eval.ttt_chunk=32 eval.ttt_optimizer=adamw"};
    for (int i = 0; i < SETTINGS; i++)
        for (size_t mode = 0; mode < sizeof modes / sizeof *modes; mode++) {
            struct evaluation cpu, device, again;
            struct config config = config_of(i, modes[mode]);
            assert_good(evaluate(&config, toy_backend(1), trained(i), scored_text(), NULL, NULL, &cpu));
            assert_good(evaluate(&config, cuda(), trained(i), scored_text(), NULL, NULL, &device));
            assert_good(evaluate(&config, cuda(), trained(i), scored_text(), NULL, NULL, &again));
            assert_near(modes[mode], device.nll, cpu.nll, LOSS_TOLERANCE);
            assert_true(device.nll == again.nll);
        }
}

/* Logits of every position, (time, sequences, V), for tokens that are given. */
static real *decoded(const struct network *net, const real *weights, size_t sequences, size_t time) {
    struct decoder *decoder;
    size_t wide = sequences * (size_t)net->config.model_vocab_size;
    real *logits = malloc(time * wide * sizeof *logits);
    assert_good(decoder_create(&decoder, net, sequences, time, 0));
    for (size_t t = 0; t < time; t++) {
        int32_t ids[8];
        for (size_t s = 0; s < sequences; s++) ids[s] = (int32_t)((7 * t + 13 * s) % TOY_VOCAB);
        decoder_step(decoder, weights, true, ids, logits + t * wide);
    }
    assert_good(net->ops->finish(decoder_lane(decoder)));
    decoder_destroy(decoder);
    return logits;
}

static void decoding_gives_the_logits_of_the_cpu(void **state) {
    (void)state;
    enum { SEQUENCES = 3, TIME = 16 };
    struct network host, device;
    struct config config = config_of(0, "");
    struct lane lane = {0};
    assert_good(network_create(&host, &config, toy_backend(1), 1, TIME));
    assert_good(network_create(&device, &config, cuda(), 1, TIME));
    size_t bytes = host.parameters.total * sizeof(real), count = SEQUENCES * TIME * TOY_VOCAB;
    void *weights;
    assert_good(cuda()->memory_new(&weights, bytes, "a test"));
    cuda()->upload(&lane, weights, trained(0), bytes);
    real *expected = decoded(&host, trained(0), SEQUENCES, TIME), *got = decoded(&device, weights, SEQUENCES, TIME);
    real *zeros = calloc(count, sizeof *zeros);
    assert_true(distance(got, expected, count) <= 2e-2 * distance(expected, zeros, count));
    free(zeros);
    free(expected);
    free(got);
    cuda()->memory_free(weights);
    network_destroy(&host);
    network_destroy(&device);
}

static real *quantised(const char *method, const struct backend *ops, size_t *total) {
    struct network net;
    struct quantized_model model;
    struct config config = config_of(0, method);
    assert_good(network_create(&net, &config, ops, 1, (size_t)config.train_sequence));
    assert_good(quantize_model(&net, trained(0), toy_dataset(), 3, NULL, NULL, &model));
    *total = net.parameters.total;
    real *weights = calloc(*total, sizeof *weights);
    quantized_model_decode(&model, weights);
    quantized_model_free(&model);
    network_destroy(&net);
    return weights;
}

/* Rowwise rounding sees the same weights; GPTQ sees statistics that are a little different, so the error it leaves is
 * compared, not its integers. */
static void quantising_agrees(void **state) {
    (void)state;
    static const char *const methods[] = {"quant.method=rowwise quant.clip=search",
                                          "quant.method=gptq quant.calibration=self quant.calibration_sequences=3"};
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        size_t total;
        real *cpu = quantised(methods[m], toy_backend(1), &total), *device = quantised(methods[m], cuda(), &total);
        real *again = quantised(methods[m], cuda(), &total);
        assert_memory_equal(device, again, total * sizeof *device);
        if (m == 0) assert_memory_equal(device, cpu, total * sizeof *cpu);
        assert_near(methods[m], distance(device, trained(0), total), distance(cpu, trained(0), total), 0.1);
        free(cpu);
        free(device);
        free(again);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_golden_model_with_recurrence_and_skips_agrees),
        cmocka_unit_test(a_golden_model_without_rope_smear_and_bigrams_agrees),
        cmocka_unit_test(five_steps_have_the_losses_and_weights_of_the_cpu),
        cmocka_unit_test(training_twice_gives_the_same_bits),
        cmocka_unit_test(a_checkpoint_resumes_to_the_same_bits),
        cmocka_unit_test(scoring_and_learning_while_scoring_agree),
        cmocka_unit_test(decoding_gives_the_logits_of_the_cpu),
        cmocka_unit_test(quantising_agrees),
    };
    return cmocka_run_group_tests(tests, toy_folder_make, toy_folder_remove);
}
