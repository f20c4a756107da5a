/* trainer tests: schedules, learning, equal bits on any number of lanes, averages, QAT, divergence, memory. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/trainer_state.h"
#include "tests/model/toy.h"

/* Everything that has a phase changes in these 12 steps: recurrence from 5, QAT near the end, EMA, clipping. */
static const char BUSY[] =
    "recurrence.layers=0 recurrence.start=0.4 train.qat_below=0.5 optim.clip=1 optim.row_norm=on";

static struct trainer *new_trainer(const char *settings, int lanes) {
    struct trainer *trainer;
    struct config config = toy_config(settings);
    assert_good(trainer_create(&trainer, &config, toy_backend(lanes), toy_dataset(), 42));
    return trainer;
}

static struct step_record run(struct trainer *trainer, int steps) {
    struct step_record record = {0};
    for (int i = 0; i < steps; i++) assert_good(trainer_step(trainer, &record));
    return record;
}

static size_t bytes_of(const struct trainer *trainer) { return trainer->net.parameters.total * sizeof(real); }

static void the_multiplier_follows_its_definition(void **state) {
    (void)state;
    static const struct {
        int steps, warmdown, shape, step;
        double expected;
    } rows[] = {
        {100, 20, DECAY_LINEAR, 0, 1},
        {100, 20, DECAY_LINEAR, 80, 1},
        {100, 20, DECAY_LINEAR, 81, 0.95},
        {100, 20, DECAY_LINEAR, 99, 0.05},
        {100, 0, DECAY_LINEAR, 99, 1},
        {100, 200, DECAY_LINEAR, 0, 0.5},
        {100, 20, DECAY_COSINE, 80, 1},
        {100, 20, DECAY_COSINE, 90, 0.5},
        {100, 20, DECAY_COSINE, 95, 0.14644660940672624},
        {100, 20, DECAY_LINEAR, 100, 0},
        {1000, 3500, DECAY_LINEAR, 0, 1000.0 / 3500},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct config config = {
            .train_steps = rows[i].steps, .train_warmdown = rows[i].warmdown, .train_decay_shape = rows[i].shape};
        assert_float_equal(trainer_multiplier(&config, rows[i].step), rows[i].expected, 1e-12);
    }
}

static void a_structured_text_is_learnt_far_below_its_unigram_entropy(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("train.steps=60 train.warmdown=20 train.slice_tokens=32", 1);
    assert_true(fabs(run(trainer, 1).loss - log(TOY_VOCAB)) < 0.1);
    double loss = run(trainer, 59).loss;
    if (!(loss < 0.5 * TOY_UNIGRAM)) fail_msg("loss %g", loss);
    assert_true(trainer_finished(trainer));
    struct step_record record;
    assert_failure(trainer_step(trainer, &record), STATUS_USAGE, "finished");
    trainer_destroy(trainer);
}

static void the_bits_are_the_same_on_one_two_and_four_lanes(void **state) {
    (void)state;
    char first[65], hex[65], first_trace[65], trace[65];
    for (int lanes = 1; lanes <= 4; lanes *= 2) {
        struct trainer *trainer = new_trainer(BUSY, lanes);
        run(trainer, 12);
        parameters_sha256(&trainer->net.parameters, trainer_averaged(trainer), hex);
        trainer_trace_sha256(trainer, trace);
        if (lanes == 1) memcpy(first, hex, sizeof hex), memcpy(first_trace, trace, sizeof trace);
        assert_string_equal(hex, first);
        assert_string_equal(trace, first_trace);
        trainer_destroy(trainer);
    }
}

/* Bigrams that have not come up have no gradient and no moments: 0/0 at an epsilon of 0. */
static void the_least_epsilon_of_adam_keeps_the_weights_finite(void **state) {
    (void)state;
    char setting[64];
    snprintf(setting, sizeof setting, "optim.adam_epsilon=%g", option_find("optim.adam_epsilon")->low);
    struct trainer *trainer = new_trainer(setting, 1);
    run(trainer, 3);
    trainer_destroy(trainer);
}

static void seeds_differ_and_the_same_seed_repeats(void **state) {
    (void)state;
    char hex[3][65];
    for (int i = 0; i < 3; i++) {
        struct trainer *trainer;
        struct config config = toy_config("");
        assert_good(trainer_create(&trainer, &config, toy_backend(1), toy_dataset(), i < 2 ? 1 : 2));
        run(trainer, 2);
        trainer_trace_sha256(trainer, hex[i]);
        trainer_destroy(trainer);
    }
    assert_string_equal(hex[0], hex[1]);
    assert_string_not_equal(hex[0], hex[2]);
}

static void slices_change_memory_and_rounding_only(void **state) {
    (void)state;
    struct trainer *small = new_trainer("train.slice_tokens=1", 1), *whole = new_trainer("train.slice_tokens=1024", 1);
    assert_int_equal(small->slice_sequences, 1);
    assert_int_equal(whole->slice_sequences, 2);
    for (int i = 0; i < 3; i++) assert_float_equal(run(small, 1).loss, run(whole, 1).loss, 1e-4);
    trainer_destroy(small);
    trainer_destroy(whole);
}

static void ema_starts_from_the_initial_weights_and_follows_its_formula(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("train.ema=0.9", 2);
    size_t total = trainer->net.parameters.total;
    double *expected = malloc(total * sizeof *expected);
    for (size_t i = 0; i < total; i++) expected[i] = (double)trainer->weights[i];
    assert_memory_equal(trainer_averaged(trainer), trainer->weights, bytes_of(trainer));
    for (int step = 0; step < 5; step++) {
        run(trainer, 1);
        for (size_t i = 0; i < total; i++) expected[i] = 0.9 * expected[i] + 0.1 * (double)trainer->weights[i];
    }
    for (size_t i = 0; i < total; i++) assert_true(fabs((double)trainer_averaged(trainer)[i] - expected[i]) < 1e-5);
    assert_memory_not_equal(trainer_averaged(trainer), trainer->weights, bytes_of(trainer));
    free(expected);
    trainer_destroy(trainer);
}

static void swa_is_the_mean_of_every_fiftieth_step_late_in_training(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("train.ema=0 train.steps=150 train.warmdown=200 train.batch_tokens=128 "
                                          "model.layers=1 attention.layers= model.dim=16",
                                          1);
    size_t total = trainer->net.parameters.total;
    double *expected = calloc(total, sizeof *expected);
    for (int done = 1; done <= 150; done++) {
        run(trainer, 1);
        if (done == 50) assert_ptr_equal(trainer_averaged(trainer), trainer->weights); /* multiplier 0.5 */
        if (done < 100 || done % 50) continue;
        for (size_t i = 0; i < total; i++) expected[i] += (double)trainer->weights[i] / 2;
    }
    assert_int_equal(trainer->average.included, 2);
    for (size_t i = 0; i < total; i++) assert_true(fabs((double)trainer_averaged(trainer)[i] - expected[i]) < 1e-5);
    free(expected);
    trainer_destroy(trainer);
}

static void without_averages_the_last_weights_are_used_and_no_memory(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("train.ema=0 train.swa=off", 1);
    run(trainer, 1);
    assert_ptr_equal(trainer_averaged(trainer), trainer_weights(trainer));
    assert_null(trainer->average.weights);
    trainer_destroy(trainer);
}

static void late_qat_begins_at_the_first_step_under_its_multiplier(void **state) {
    (void)state;
    static const char SHORT[] = "train.steps=6 train.warmdown=4 train.qat_bits=3 train.quantise_above=1500 ";
    char with[256];
    snprintf(with, sizeof with, "%s train.qat_below=0.8", SHORT);
    struct trainer *qat = new_trainer(with, 1), *plain = new_trainer(SHORT, 1);
    double multipliers[] = {1, 1, 1, 0.75, 0.5, 0.25};
    for (int step = 0; step < 6; step++) {
        struct step_record a = run(qat, 1), b = run(plain, 1);
        assert_float_equal(a.multiplier, multipliers[step], 1e-12);
        assert_int_equal(a.loss == b.loss, multipliers[step] >= 0.8);
    }
    trainer_destroy(qat);
    trainer_destroy(plain);
}

static void the_layers_repeat_from_their_step_on(void **state) {
    (void)state;
    struct trainer *repeated = new_trainer("recurrence.layers=0 recurrence.start=0.25", 1), *plain = new_trainer("", 1);
    for (int step = 0; step < 5; step++) assert_int_equal(run(repeated, 1).loss == run(plain, 1).loss, step < 3);
    trainer_destroy(repeated);
    trainer_destroy(plain);
}

static void ternary_models_train_too(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("model.linear=ternary train.steps=30 train.warmdown=10", 1);
    double first = run(trainer, 1).loss, last = run(trainer, 29).loss;
    if (!(last < first - 1)) fail_msg("from %g to %g", first, last);
    trainer_destroy(trainer);
}

static void a_loss_that_is_not_finite_stops_before_the_weights_change(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("", 2);
    struct step_record record;
    run(trainer, 3);
    trainer->weights[trainer->net.parameters.tensors[0].offset] = (real)NAN;
    real *before = malloc(2 * bytes_of(trainer));
    memcpy(before, trainer->weights, bytes_of(trainer));
    memcpy(before + trainer->net.parameters.total, trainer->first, bytes_of(trainer));
    assert_failure(trainer_step(trainer, &record), STATUS_DIVERGED, "step 3: the loss is");
    assert_memory_equal(before, trainer->weights, bytes_of(trainer));
    assert_memory_equal(before + trainer->net.parameters.total, trainer->first, bytes_of(trainer));
    assert_int_equal(trainer_steps_done(trainer), 3);
    free(before);
    trainer_destroy(trainer);
}

static void the_announced_memory_is_what_is_taken(void **state) {
    (void)state;
    for (int lanes = 1; lanes <= 4; lanes *= 4) {
        size_t announced;
        struct config config = toy_config(BUSY);
        assert_good(trainer_memory(&config, toy_backend(lanes), &announced));
        struct trainer *trainer = new_trainer(BUSY, lanes);
        assert_int_equal(trainer->workspace_count, lanes);
        assert_int_equal(announced, trainer->arena.used + trainer->host.used +
                                        (size_t)lanes * workspace_bytes(&trainer->net, true));
        assert_true(trainer->arena.used > 12 * bytes_of(trainer));
        trainer_destroy(trainer);
    }
}

static void overflow_a_mix(struct lane *lane, real *dx, real *dx0, real *dskip, real *dmix, real *dskip_scale,
                           const real *dnormed, const real *normed, const real *inv, const struct residual_inputs *in,
                           const struct residual_sums *sums, size_t rows, size_t dim) {
    cpu_residual_mix_norm_backward(lane, dx, dx0, dskip, dmix, dskip_scale, dnormed, normed, inv, in, sums, rows, dim);
    dmix[dim - 1] = (real)INFINITY;
}

static void a_gradient_that_is_not_finite_stops_before_the_weights_change(void **state) {
    (void)state;
    struct backend overflowing = *toy_backend(2);
    struct trainer *trainer = new_trainer("model.skips=none", 2);
    struct step_record record;
    char before[65], after[65];
    run(trainer, 2);
    overflowing.residual_mix_norm_backward = overflow_a_mix;
    trainer->net.ops = &overflowing;
    parameters_sha256(&trainer->net.parameters, trainer->weights, before);
    assert_failure(trainer_step(trainer, &record), STATUS_DIVERGED,
                   "step 2: the gradient of blocks.0.resid_mix is not finite");
    parameters_sha256(&trainer->net.parameters, trainer->weights, after);
    assert_string_equal(before, after);
    assert_int_equal(trainer_steps_done(trainer), 2);
    trainer->net.ops = trainer->ops;
    run(trainer, 1);
    trainer_destroy(trainer);
}

/* --- what a device may record ---------------------------------------------------------------------------------------
 */

/* What is called under each key; it must be called with the same arguments each time. */
static struct recording {
    uint64_t key, calls, arguments; /* arguments: a hash */
    int times;
} recordings[8], *open_recording;
static int calls_outside;

static void note_call(const void *to, const void *from, size_t count) {
    const uint64_t words[] = {(uint64_t)(uintptr_t)to, (uint64_t)(uintptr_t)from, count};
    if (!open_recording) {
        calls_outside++;
        return;
    }
    open_recording->calls++;
    for (int i = 0; i < 3; i++) open_recording->arguments = (open_recording->arguments ^ words[i]) * 0x100000001b3u;
}

static void noted_tree(struct lane *lane, real *const *parts, int count, size_t size, int32_t *finite) {
    note_call(parts[0], finite, size);
    cpu_add_tree(lane, parts, count, size, finite);
}
static void noted_adam(struct lane *lane, real *w, real *m, real *v, const real *g, size_t count,
                       const struct adam_settings *settings) {
    note_call(w, settings, count);
    cpu_adam_step(lane, w, m, v, g, count, settings);
}
static void noted_momentum(struct lane *lane, real *update, real *momentum, const real *g, size_t count,
                           const struct muon_settings *settings) {
    note_call(update, settings, count);
    cpu_muon_momentum(lane, update, momentum, g, count, settings);
}
static void noted_apply(struct lane *lane, real *w, const real *update, size_t count,
                        const struct muon_settings *settings, double scale) {
    note_call(w, settings, count);
    cpu_muon_apply(lane, w, update, count, settings, scale);
}
static void noted_average(struct lane *lane, real *average, const real *w, size_t count, double decay) {
    note_call(average, w, count);
    cpu_moving_average(lane, average, w, count, decay);
}

static void recorded_replay(struct lane *lane, uint64_t key, void (*work)(void *), void *context) {
    (void)lane;
    struct recording *r = recordings;
    while (r->times && r->key != key) r++;
    const struct recording before = *r;
    *r = (struct recording){.key = key, .times = before.times + 1};
    open_recording = r;
    work(context);
    open_recording = NULL;
    if (before.times) assert_true(r->calls == before.calls && r->arguments == before.arguments);
}

static struct trainer *recorded_trainer(const char *settings) {
    static struct backend ops;
    struct trainer *trainer;
    struct config config = toy_config(settings);
    ops = *toy_backend(1);
    ops.replay = recorded_replay;
    ops.add_tree = noted_tree;
    ops.adam_step = noted_adam;
    ops.muon_momentum = noted_momentum;
    ops.muon_apply = noted_apply;
    ops.moving_average = noted_average;
    memset(recordings, 0, sizeof recordings);
    calls_outside = 0;
    assert_good(trainer_create(&trainer, &config, &ops, toy_dataset(), 42));
    return trainer;
}

/* Passes: plain, with repeats from step 5, with QAT too from step 10 on; and the update. */
static void a_step_is_a_pass_and_an_update_that_are_the_same_until_the_schedule_changes(void **state) {
    (void)state;
    struct trainer *trainer = recorded_trainer(BUSY);
    int times[4] = {0}, passes = 0, updates = 0;
    run(trainer, 12);
    for (int i = 0; i < 4; i++) times[i] = recordings[i].times;
    for (int i = 0; i < 4; i++) *(times[i] == 12 ? &updates : &passes) += times[i];
    assert_int_equal(updates, 12);
    assert_int_equal(passes, 12);
    assert_true(times[3] > 0 && recordings[4].times == 0);
    assert_int_equal(calls_outside, 0);
    trainer_destroy(trainer);
}

/* The weights of SWA are not those of every step. */
static void a_snapshot_is_taken_outside_what_is_recorded(void **state) {
    (void)state;
    struct trainer *trainer = recorded_trainer("train.ema=0 train.steps=50 train.warmdown=500 train.batch_tokens=128 "
                                               "model.layers=1 attention.layers= model.dim=16");
    run(trainer, 49);
    assert_int_equal(calls_outside, 0);
    run(trainer, 1);
    assert_true(calls_outside > 0);
    assert_int_equal(trainer->average.included, 1);
    trainer_destroy(trainer);
}

static void a_tokenizer_of_another_size_is_refused(void **state) {
    (void)state;
    struct trainer *trainer;
    struct config config = toy_config("model.vocab_size=65");
    assert_failure(trainer_create(&trainer, &config, toy_backend(1), toy_dataset(), 1), STATUS_USAGE,
                   "model.vocab_size = 65");
}

static void a_text_shorter_than_a_window_is_refused(void **state) {
    (void)state;
    struct trainer *trainer;
    struct config config = toy_config("");
    struct dataset dataset = *toy_dataset();
    dataset.train.count = 10;
    assert_failure(trainer_create(&trainer, &config, toy_backend(1), &dataset, 1), STATUS_DATA, "10 tokens");
}

static void a_run_by_the_clock_ends_by_the_clock(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer("train.seconds=1e-9 recurrence.layers=0", 1);
    assert_float_equal(run(trainer, 1).multiplier, 1, 0);
    assert_true(trainer_finished(trainer));
    trainer->config.train_seconds = 1.25 * trainer->seconds; /* a quarter of a step is left of a warmdown of 6 */
    assert_float_equal(run(trainer, 1).multiplier, 0.25 / 6, 1e-9);
    trainer_destroy(trainer);
}

#ifndef __SANITIZE_ADDRESS__
/* glibc's own names, so that the program's allocations can be counted on their way through. A library's are its own
 * affair: on some processors OpenBLAS takes memory for small products. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);
extern const char __executable_start[], etext[];     /* the linker's: where the program's own code lies */
__attribute__((noinline)) void *malloc(size_t size); /* inlined, its caller would be the caller's caller */
static long allocations;

static void count_for(const char *caller) { allocations += caller >= __executable_start && caller < etext; }

#define COUNTED(allocate) (count_for(__builtin_return_address(0)), allocate)
void *malloc(size_t size) { return COUNTED(__libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return COUNTED(__libc_calloc(count, size)); }
void *realloc(void *old, size_t size) { return COUNTED(__libc_realloc(old, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return COUNTED(__libc_memalign(alignment, size)); }

static void a_step_allocates_nothing(void **state) {
    (void)state;
    struct trainer *trainer = new_trainer(BUSY, 1);
    run(trainer, 1);
    long before = allocations;
    run(trainer, 11);
    assert_int_equal(allocations, before);
    void *volatile one = malloc(1);
    free(one);
    assert_true(allocations > before);
    trainer_destroy(trainer);
}
#endif

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_multiplier_follows_its_definition),
        cmocka_unit_test(a_structured_text_is_learnt_far_below_its_unigram_entropy),
        cmocka_unit_test(the_bits_are_the_same_on_one_two_and_four_lanes),
        cmocka_unit_test(the_least_epsilon_of_adam_keeps_the_weights_finite),
        cmocka_unit_test(seeds_differ_and_the_same_seed_repeats),
        cmocka_unit_test(slices_change_memory_and_rounding_only),
        cmocka_unit_test(ema_starts_from_the_initial_weights_and_follows_its_formula),
        cmocka_unit_test(swa_is_the_mean_of_every_fiftieth_step_late_in_training),
        cmocka_unit_test(without_averages_the_last_weights_are_used_and_no_memory),
        cmocka_unit_test(late_qat_begins_at_the_first_step_under_its_multiplier),
        cmocka_unit_test(the_layers_repeat_from_their_step_on),
        cmocka_unit_test(ternary_models_train_too),
        cmocka_unit_test(a_loss_that_is_not_finite_stops_before_the_weights_change),
        cmocka_unit_test(the_announced_memory_is_what_is_taken),
        cmocka_unit_test(a_gradient_that_is_not_finite_stops_before_the_weights_change),
        cmocka_unit_test(a_step_is_a_pass_and_an_update_that_are_the_same_until_the_schedule_changes),
        cmocka_unit_test(a_snapshot_is_taken_outside_what_is_recorded),
        cmocka_unit_test(a_tokenizer_of_another_size_is_refused),
        cmocka_unit_test(a_text_shorter_than_a_window_is_refused),
        cmocka_unit_test(a_run_by_the_clock_ends_by_the_clock),
#ifndef __SANITIZE_ADDRESS__
        cmocka_unit_test(a_step_allocates_nothing),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
