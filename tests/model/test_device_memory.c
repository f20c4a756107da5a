/* test_device_memory: all of model/ on a backend whose memory is not the host's, with the bits of the CPU backend.
 *
 * guarded.h ends the program where host code touches that memory, or where an op is given the host's. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/decoder.h"
#include "model/evaluation.h"
#include "model/files.h"
#include "model/golden.h"
#include "model/quantize/quantize.h"
#include "model/trainer.h"
#include "tests/model/guarded.h"
#include "tests/model/toy.h"

/* A device sums the gradient's norm over the whole arena, the CPU tensor by tensor: both in float64, so that the factor
 * is the same in float32, but not in float64. */
#ifdef HINGE_DOUBLE
#define CLIP(limit) "optim.clip=0"
#else
#define CLIP(limit) "optim.clip=" #limit
#endif

/* Everything that has a phase changes in these 8 steps; Muon's matrices of one shape go together. */
static const char *const settings[] = {
    "train.steps=8 recurrence.layers=0 recurrence.start=0.4 train.qat_below=0.5 optim.row_norm=on "
    "train.quantise_above=500 " CLIP(1),
    "train.steps=8 model.linear=ternary train.ema=0 train.swa=off train.slice_tokens=32 model.skips=all " CLIP(0.1),
    "train.steps=8 model.bigram_buckets=0 model.smear=off attention.rope_dims=0 attention.layers=0,2 "
    "train.quantise_above=500",
};
enum { SETTINGS = sizeof settings / sizeof *settings, WINDOWS = 13, MOST_PIECES = 8192 };
static const char KEY[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

static const struct backend *device(void) { return guarded_backend(64); }

static struct config config_of(int i, const char *more) {
    char all[1024];
    snprintf(all, sizeof all, "%s %s", settings[i], more);
    return toy_config(all);
}

/* Hashes of all that a training leaves. */
struct outcome {
    char trace[65], weights[65], averaged[65];
};

static void hash(const struct trainer *trainer, const real *weights, char hex[65]) {
    const struct parameters *p = &trainer_network(trainer)->parameters;
    real *host = calloc(p->total, sizeof *host);
    trainer_copy_out(trainer, weights, host);
    parameters_sha256(p, host, hex);
    free(host);
}

static struct outcome outcome_of(const struct trainer *trainer) {
    struct outcome outcome;
    trainer_trace_sha256(trainer, outcome.trace);
    hash(trainer, trainer_weights(trainer), outcome.weights);
    hash(trainer, trainer_averaged(trainer), outcome.averaged);
    return outcome;
}

static struct trainer *trainer_of(int i, const struct backend *ops) {
    struct trainer *trainer;
    struct config config = config_of(i, "");
    assert_good(trainer_create(&trainer, &config, ops, toy_dataset(), 42));
    return trainer;
}

static void run(struct trainer *trainer, int64_t until) {
    struct step_record record;
    while (trainer_steps_done(trainer) < until) assert_good(trainer_step(trainer, &record));
}

/* The weights of 8 steps of the CPU, for the tests of what comes after a training. */
static const real *trained(int i) {
    static real *all[SETTINGS];
    if (all[i]) return all[i];
    struct trainer *trainer = trainer_of(i, toy_backend(1));
    run(trainer, 8);
    all[i] = calloc(trainer_network(trainer)->parameters.total, sizeof **all);
    trainer_copy_out(trainer, trainer_weights(trainer), all[i]);
    trainer_destroy(trainer);
    return all[i];
}

static void training_has_the_same_bits(void **state) {
    (void)state;
    for (int i = 0; i < SETTINGS; i++) {
        struct trainer *cpu = trainer_of(i, toy_backend(2)), *other = trainer_of(i, device());
        run(cpu, 8);
        run(other, 8);
        struct outcome expected = outcome_of(cpu), got = outcome_of(other);
        assert_memory_equal(&got, &expected, sizeof got);
        trainer_destroy(cpu);
        trainer_destroy(other);
        assert_int_equal(guarded_pieces(), 0);
    }
}

static void a_checkpoint_goes_on_from_the_device_memory(void **state) {
    (void)state;
    struct trainer *cpu = trainer_of(0, toy_backend(1)), *first = trainer_of(0, device());
    struct trainer *second = trainer_of(0, device());
    run(cpu, 8);
    run(first, 5);
    assert_good(trainer_save(first, toy_path("checkpoint"), KEY));
    run(second, 2);
    assert_good(trainer_load(second, toy_path("checkpoint"), KEY));
    run(second, 8);
    struct outcome expected = outcome_of(cpu), got = outcome_of(second);
    assert_memory_equal(&got, &expected, sizeof got);
    trainer_destroy(cpu);
    trainer_destroy(first);
    trainer_destroy(second);
}

static void evaluation_and_learning_while_scoring_have_the_same_bits(void **state) {
    (void)state;
    static const char *const modes[] = {"eval.tail=keep train.slice_tokens=48", "eval.mode=sliding eval.stride=5",
                                        "eval.mode=ttt eval.ttt_chunk=64 eval.ttt_rate=0.01",
                                        "eval.mode=ttt eval.ttt_chunk=64 eval.ttt_optimizer=adamw eval.ttt_epochs=2"};
    struct dataset text = toy_scored(WINDOWS);
    for (int i = 0; i < SETTINGS; i++)
        for (size_t mode = 0; mode < sizeof modes / sizeof *modes; mode++) {
            struct evaluation cpu, other;
            struct config config = config_of(i, modes[mode]);
            assert_good(evaluate(&config, toy_backend(2), trained(i), &text, NULL, NULL, &cpu));
            assert_good(evaluate(&config, device(), trained(i), &text, NULL, NULL, &other));
            assert_true(cpu.nll == other.nll && cpu.nll > 0);
            assert_memory_equal(cpu.blocks, other.blocks, sizeof cpu.blocks);
            assert_int_equal(guarded_pieces(), 0);
        }
}

static void quantise(int i, const char *method, const struct backend *ops, real *weights, char notes[2048]) {
    struct network net;
    struct quantized_model model;
    struct config config = config_of(i, method);
    assert_good(network_create(&net, &config, ops, 1, (size_t)config.train_sequence));
    assert_good(quantize_model(&net, trained(i), toy_dataset(), 3, NULL, NULL, &model));
    quantized_model_decode(&model, weights);
    memcpy(notes, model.notes, sizeof model.notes);
    quantized_model_free(&model);
    network_destroy(&net);
}

static void calibrating_and_quantising_have_the_same_bits(void **state) {
    (void)state;
    static const char *const methods[] = {
        "quant.method=rowwise quant.clip=search quant.group=32",
        "quant.method=gptq quant.calibration=train train.slice_tokens=32",
        "quant.method=gptq quant.calibration=self quant.protect=recurrence-rows",
    };
    for (int i = 0; i < SETTINGS; i++)
        for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
            const char *method = i == 1 ? "quant.method=ternary" : methods[m];
            struct config config = config_of(i, method);
            struct parameters p;
            char notes[2][2048];
            assert_good(parameters_create(&p, &config));
            real *cpu = calloc(p.total, sizeof *cpu), *other = calloc(p.total, sizeof *other);
            quantise(i, method, toy_backend(2), cpu, notes[0]);
            quantise(i, method, device(), other, notes[1]);
            assert_memory_equal(cpu, other, p.total * sizeof *cpu);
            assert_string_equal(notes[0], notes[1]);
            free(cpu);
            free(other);
            parameters_destroy(&p);
            assert_int_equal(guarded_pieces(), 0);
        }
}

/* Blocks of logits are larger on a device, so the bits are not the same. */
static void a_golden_file_agrees(void **state) {
    (void)state;
    struct golden_result result;
    assert_good(golden_verify("tests/golden/hinge-34x2.safetensors", device(), &result));
    assert_true(result.passed && result.count > 100);
    golden_result_free(&result);
    assert_int_equal(guarded_pieces(), 0);
}

static size_t little(void) { return 1000000; }

static void a_training_that_does_not_fit_is_refused_with_the_slice_that_does(void **state) {
    (void)state;
    struct backend small = *device();
    struct trainer *trainer;
    struct config config = toy_config("train.slice_tokens=0 train.batch_tokens=4096");
    small.memory_left = little;
    size_t slice = trainer_slice_within(&config, &small, little()), bytes;
    assert_int_equal(slice, 0); /* eight gradients alone need more */
    assert_failure(trainer_create(&trainer, &config, &small, toy_dataset(), 1), STATUS_SYSTEM,
                   "of which 1 MB are free, whatever the slice");
    assert_good(trainer_memory(&config, &small, &bytes));
    assert_int_equal(trainer_slice_within(&config, &small, bytes), 512);
    slice = trainer_slice_within(&config, &small, bytes - 1);
    assert_int_equal(slice, 256);
    assert_int_equal(guarded_pieces(), 0);
}

/* --- announced memory --------------------------------------------------------------------------------------------- */

/* What is held of the device's memory, and the most that ever was; without the pieces that AddressSanitizer's arenas
 * have beside their block. */
static struct {
    size_t held, most;
    int count;
    struct {
        void *memory;
        size_t bytes;
    } pieces[MOST_PIECES];
} meter;

static status metered_new(void **out, size_t bytes, const char *what) {
    TRY(device()->memory_new(out, bytes, what));
    if (strcmp(what, "a piece of an arena") == 0) bytes = 0;
    assert_true(meter.count < MOST_PIECES);
    meter.pieces[meter.count].memory = *out;
    meter.pieces[meter.count++].bytes = bytes;
    meter.held += bytes;
    if (meter.held > meter.most) meter.most = meter.held;
    return NULL;
}

static void metered_free(void *memory) {
    int i = meter.count - 1;
    while (i >= 0 && meter.pieces[i].memory != memory) i--;
    assert_true(i >= 0);
    meter.held -= meter.pieces[i].bytes;
    meter.pieces[i] = meter.pieces[--meter.count];
    device()->memory_free(memory);
}

static const struct backend *metered(void) {
    static struct backend backend;
    backend = *device();
    backend.memory_new = metered_new;
    backend.memory_free = metered_free;
    meter.held = meter.most = 0;
    meter.count = 0;
    return &backend;
}

static void assert_announced(size_t announced, const char *what) {
    if (meter.most != announced) fail_msg("%s: %zu bytes taken, %zu announced", what, meter.most, announced);
    assert_int_equal(meter.held, 0);
}

static void an_evaluation_takes_the_memory_that_it_announces(void **state) {
    (void)state;
    static const char *const modes[] = {"train.slice_tokens=48", "eval.mode=sliding eval.stride=5",
                                        "eval.mode=ttt eval.ttt_chunk=64 eval.ttt_optimizer=adamw"};
    struct dataset text = toy_scored(WINDOWS);
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        struct evaluation out;
        size_t announced;
        struct config config = config_of(0, modes[i]);
        const struct backend *ops = metered();
        assert_good(evaluation_memory(&config, ops, &text, &announced));
        assert_good(evaluate(&config, ops, trained(0), &text, NULL, NULL, &out));
        assert_announced(announced, modes[i]);
    }
}

static void quantising_takes_the_memory_that_it_announces(void **state) {
    (void)state;
    static const char *const methods[] = {
        "quant.method=rowwise quant.clip=search",
        "quant.method=gptq quant.calibration=train",
        "quant.method=gptq quant.calibration=self",
    };
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        struct network net;
        struct quantized_model model;
        size_t announced;
        struct config config = config_of(0, methods[i]);
        assert_good(network_create(&net, &config, metered(), 1, (size_t)config.train_sequence));
        assert_good(quantize_memory(&net, &announced));
        assert_good(quantize_model(&net, trained(0), toy_dataset(), 3, NULL, NULL, &model));
        quantized_model_free(&model);
        network_destroy(&net);
        assert_announced(announced, methods[i]);
    }
}

/* The test of the test. */
static void the_guard_ends_who_touches_its_memory(void **state) {
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        pid_t child = fork();
        if (child == 0) {
            const struct backend *ops = device();
            struct lane lane = {0};
            void *memory;
            real host[4] = {0};
            signal(SIGSEGV, SIG_DFL);
            signal(SIGABRT, SIG_DFL);
            if (ops->memory_new(&memory, 64, "a test")) _exit(1);
            ops->clear(&lane, memory, 64);
            if (!freopen("/dev/null", "w", stderr)) _exit(1);
            if (kind == 0)
                *(volatile real *)memory = 1;
            else
                ops->moving_average(&lane, memory, host, 4, 0.5);
            _exit(0);
        }
        int outcome;
        assert_int_equal(waitpid(child, &outcome, 0), child);
        assert_true(!WIFEXITED(outcome) || WEXITSTATUS(outcome) > 1); /* a sanitiser exits in place of the signal */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_guard_ends_who_touches_its_memory),
        cmocka_unit_test(training_has_the_same_bits),
        cmocka_unit_test(a_checkpoint_goes_on_from_the_device_memory),
        cmocka_unit_test(evaluation_and_learning_while_scoring_have_the_same_bits),
        cmocka_unit_test(calibrating_and_quantising_have_the_same_bits),
        cmocka_unit_test(a_golden_file_agrees),
        cmocka_unit_test(an_evaluation_takes_the_memory_that_it_announces),
        cmocka_unit_test(quantising_takes_the_memory_that_it_announces),
        cmocka_unit_test(a_training_that_does_not_fit_is_refused_with_the_slice_that_does),
    };
    return cmocka_run_group_tests(tests, toy_folder_make, toy_folder_remove);
}
