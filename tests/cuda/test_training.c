/* test_training: five steps on CUDA against five on the CPU; training again, in two parts, gives the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/trainer_state.h"
#include "tests/cuda/device_model.h"
#include "tests/model/toy.h"

/* Of a tensor of weights after a few steps, relative to its distance from the initial one. */
static const double WEIGHT_TOLERANCE = 0.1;

static void five_steps_have_the_losses_and_weights_of_the_cpu(void **state) {
    (void)state;
    for (int i = 0; i < DEVICE_SETTINGS; i++) {
        const struct outcome *cpu = trained_on_cpu(i), *device = trained_on_cuda(i);
        assert_memory_equal(device->first, cpu->first, cpu->total * sizeof *cpu->first);
        for (int step = 0; step < DEVICE_STEPS; step++)
            assert_close_to("a loss", device->loss[step], cpu->loss[step], LOSS_TOLERANCE);
        double apart = distance(device->weights, cpu->weights, cpu->total);
        double moved = distance(cpu->weights, cpu->first, cpu->total);
        if (!(apart <= WEIGHT_TOLERANCE * moved)) fail_msg("the weights are %g apart and moved by %g", apart, moved);
    }
}

static void expect_zeros(const struct trainer *t, const real *memory, size_t from, size_t to) {
    real gap[16];
    t->ops->download(t->lanes, gap, memory + from, (to - from) * sizeof *gap);
    for (size_t i = 0; i < to - from; i++) assert_true(gap[i] == 0);
}

/* One pass goes over the tensors of a kind and over the gaps between them. */
static void expect_gaps_of_zeros(const struct trainer *t) {
    const struct optimizer *o = &t->optimizer;
    for (int i = 0; i < t->net.parameters.count; i++) {
        const struct tensor *tensor = &t->net.parameters.tensors[i];
        size_t count = tensor->count, end = aligned_reals(count), first = o->first_offset[i];
        expect_zeros(t, t->weights, tensor->offset + count, tensor->offset + end);
        expect_zeros(t, t->average.weights, tensor->offset + count, tensor->offset + end);
        expect_zeros(t, t->first, first + count, first + end);
        if (tensor->optimizer != OPTIMIZER_MUON)
            expect_zeros(t, t->second, o->second_offset[i] + count, o->second_offset[i] + end);
    }
}

/* The first training, and the second's first half, have several micro-shards on the device at once. */
static void training_again_through_a_checkpoint_and_shard_by_shard_gives_the_same_bits(void **state) {
    (void)state;
    struct backend one_by_one = *cuda();
    one_by_one.filling_tokens = 1;
    static const char key[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    struct config config = device_config(0, "");
    struct step_record record;
    struct trainer *stopped, *resumed;
    assert_good(trainer_create(&stopped, &config, cuda(), toy_dataset(), 42));
    assert_true(trainer_lanes(trainer_network(stopped)) > 1);
    for (int step = 0; step < 2; step++) assert_good(trainer_step(stopped, &record));
    assert_good(trainer_save(stopped, toy_path("checkpoint"), key));
    trainer_destroy(stopped);
    assert_good(trainer_create(&resumed, &config, &one_by_one, toy_dataset(), 42));
    assert_int_equal(trainer_lanes(trainer_network(resumed)), 1);
    assert_good(trainer_load(resumed, toy_path("checkpoint"), key));
    while (!trainer_finished(resumed)) assert_good(trainer_step(resumed, &record));
    expect_gaps_of_zeros(resumed);
    struct outcome again = {0};
    const struct outcome *once = trained_on_cuda(0);
    outcome_take(&again, resumed);
    assert_string_equal(again.trace, once->trace);
    assert_memory_equal(again.weights, once->weights, once->total * sizeof *once->weights);
    assert_memory_equal(again.averaged, once->averaged, once->total * sizeof *once->averaged);
    outcome_free(&again);
    trainer_destroy(resumed);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(five_steps_have_the_losses_and_weights_of_the_cpu),
        cmocka_unit_test(training_again_through_a_checkpoint_and_shard_by_shard_gives_the_same_bits),
    };
    return cmocka_run_group_tests(tests, toy_folder_make, toy_folder_remove);
}
