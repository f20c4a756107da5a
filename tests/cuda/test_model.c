/* test_model: the whole model on CUDA, forward and backward, against golden tensors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/golden.h"
#include "tests/cuda/device_model.h"
#include "tests/model/toy.h"

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

static void a_plain_golden_model_agrees(void **state) {
    (void)state;
    agrees("tests/golden/plain.safetensors");
}

static void a_golden_model_with_recurrence_agrees(void **state) {
    (void)state;
    agrees("tests/golden/hinge-34x2.safetensors");
}

static void a_golden_model_with_untied_recurrence_agrees(void **state) {
    (void)state;
    agrees("tests/golden/untied-23.safetensors");
}

static void a_golden_model_with_all_skips_agrees(void **state) {
    (void)state;
    agrees("tests/golden/all-skips.safetensors");
}

static void a_golden_model_without_rope_smear_and_bigrams_agrees(void **state) {
    (void)state;
    agrees("tests/golden/no-rope.safetensors");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_golden_model_agrees),
        cmocka_unit_test(a_golden_model_with_recurrence_agrees),
        cmocka_unit_test(a_golden_model_with_untied_recurrence_agrees),
        cmocka_unit_test(a_golden_model_with_all_skips_agrees),
        cmocka_unit_test(a_golden_model_without_rope_smear_and_bigrams_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
