/* test_scoring: bits per byte on CUDA against the CPU, also learning while scoring, and in rounds that are recorded. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/evaluation.h"
#include "tests/cuda/device_model.h"
#include "tests/model/toy.h"

static const real *trained(int i) { return trained_on_cpu(i)->weights; }

static void scoring_and_learning_while_scoring_agree(void **state) {
    (void)state;
    static const char *const modes[] = {"eval.tail=keep", "eval.mode=ttt eval.ttt_chunk=32 eval.ttt_optimizer=adamw"};
    struct dataset text = toy_scored(6);
    for (int i = 0; i < DEVICE_SETTINGS; i++)
        for (size_t mode = 0; mode < sizeof modes / sizeof *modes; mode++) {
            struct evaluation cpu, device, again;
            struct config config = device_config(i, modes[mode]);
            assert_good(evaluate(&config, toy_backend(1), trained(i), &text, NULL, NULL, &cpu));
            assert_good(evaluate(&config, cuda(), trained(i), &text, NULL, NULL, &device));
            assert_good(evaluate(&config, cuda(), trained(i), &text, NULL, NULL, &again));
            assert_close_to(modes[mode], device.nll, cpu.nll, LOSS_TOLERANCE);
            assert_true(device.nll == again.nll);
        }
}

/* Of windows of 16 tokens, as many at a time as lanes. */
static struct evaluation scored_on(size_t lanes) {
    struct backend narrow = *cuda();
    struct dataset text = toy_scored(34);
    struct config config = device_config(0, "train.slice_tokens=16 eval.tail=keep eval.mode=ttt eval.ttt_chunk=64");
    struct evaluation out;
    narrow.filling_tokens = lanes * 16;
    assert_good(evaluate(&config, &narrow, trained(0), &text, NULL, NULL, &out));
    return out;
}

/* Rounds are recorded, and replayed with what the model learnt from the round before: four windows of a chunk one after
 * the other, or together. */
static void rounds_of_an_evaluation_have_the_bits_of_windows_one_by_one(void **state) {
    (void)state;
    struct evaluation alone = scored_on(1), together = scored_on(4);
    assert_memory_equal(&alone.nll, &together.nll, sizeof alone.nll);
    assert_memory_equal(alone.blocks, together.blocks, sizeof alone.blocks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scoring_and_learning_while_scoring_agree),
        cmocka_unit_test(rounds_of_an_evaluation_have_the_bits_of_windows_one_by_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
