/* test_golden: the model against the golden files, and that the check can fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "model/files.h"
#include "model/golden.h"
#include "model/safetensors.h"

static void agrees(const char *path) {
    struct golden_result result;
    status s = golden_verify(path, backend_find("cpu"), &result);
    if (s) fail_msg("%s", status_text(s));
    for (int i = 0; i < result.count; i++)
        if (!(result.rows[i].error <= result.tensor_tolerance))
            fail_msg("%s: %s is %g apart", path, result.rows[i].name, result.rows[i].error);
    assert_true(result.count > 100);
    assert_string_equal(result.rows[0].name, "logits");
    assert_true(result.passed);
    golden_result_free(&result);
}

static void a_plain_model_agrees(void **state) {
    (void)state;
    agrees("tests/golden/plain.safetensors");
}
static void hinge_recurrence_agrees(void **state) {
    (void)state;
    agrees("tests/golden/hinge-34x2.safetensors");
}
static void untied_recurrence_agrees(void **state) {
    (void)state;
    agrees("tests/golden/untied-23.safetensors");
}
static void all_skips_agree(void **state) {
    (void)state;
    agrees("tests/golden/all-skips.safetensors");
}
static void a_model_without_rope_smear_and_bigrams_agrees(void **state) {
    (void)state;
    agrees("tests/golden/no-rope.safetensors");
}

/* A copy of plain.safetensors in a folder of its own. */
struct copy {
    char folder[64], path[96];
    unsigned char *bytes;
    size_t size;
};

static struct copy copy_begin(void) {
    struct copy c = {.folder = "/tmp/hinge-golden-XXXXXX"};
    assert_non_null(mkdtemp(c.folder));
    snprintf(c.path, sizeof c.path, "%s/copy.safetensors", c.folder);
    assert_null(file_read("tests/golden/plain.safetensors", &c.bytes, &c.size));
    return c;
}

/* Verifies the copy as it is now. */
static status verify(const struct copy *c, struct golden_result *result) {
    assert_null(file_write_atomic(c->path, c->bytes, c->size));
    return golden_verify(c->path, backend_find("cpu"), result);
}

static void copy_end(struct copy *c) {
    unlink(c->path);
    rmdir(c->folder);
    free(c->bytes);
}

/* Where a text of the header stands. */
static unsigned char *find(const struct copy *c, const char *text) {
    unsigned char *at = memmem(c->bytes, c->size, text, strlen(text));
    assert_non_null(at);
    return at;
}

/* Where a tensor's data stands. */
static unsigned char *data_of(const struct copy *c, const char *name) {
    struct safetensors file;
    assert_null(safetensors_read(&file, "tests/golden/plain.safetensors"));
    const struct stored_tensor *t = safetensors_find(&file, name);
    assert_non_null(t);
    size_t offset = (size_t)((const unsigned char *)t->data - file.buffer);
    safetensors_free(&file);
    return c->bytes + offset;
}

static void one_wrong_gradient_is_found(void **state) {
    (void)state;
    struct copy c = copy_begin();
    struct golden_result result;
    float value;
    memcpy(&value, data_of(&c, "grad.blocks.3.mamba.D"), sizeof value);
    value = value * 1.5f + 0.01f;
    memcpy(data_of(&c, "grad.blocks.3.mamba.D"), &value, sizeof value);
    assert_null(verify(&c, &result));
    assert_false(result.passed);
    for (int i = 0; i < result.count; i++) {
        bool wrong = result.rows[i].error > result.tensor_tolerance;
        assert_int_equal(wrong, strcmp(result.rows[i].name, "blocks.3.mamba.D") == 0);
    }
    golden_result_free(&result);
    copy_end(&c);
}

static void a_wrong_loss_is_found(void **state) {
    (void)state;
    struct copy c = copy_begin();
    struct golden_result result;
    double loss;
    memcpy(&loss, data_of(&c, "loss"), sizeof loss);
    loss *= 1 + 3e-5;
    memcpy(data_of(&c, "loss"), &loss, sizeof loss);
    assert_null(verify(&c, &result));
    assert_false(result.passed);
    golden_result_free(&result);
    copy_end(&c);
}

static void a_value_that_is_not_finite_does_not_pass(void **state) {
    (void)state;
    struct copy c = copy_begin();
    struct golden_result result;
    const float nan = __builtin_nanf("");
    memcpy(data_of(&c, "grad.skip_weights"), &nan, sizeof nan);
    assert_null(verify(&c, &result));
    assert_false(result.passed);
    golden_result_free(&result);
    copy_end(&c);
}

static void refused(struct copy *c, const char *part) {
    struct golden_result result;
    status s = verify(c, &result);
    assert_non_null(s);
    assert_null(result.rows);
    if (!strstr(status_text(s), part) || !strstr(status_text(s), c->path)) fail_msg("%s", status_text(s));
    status_free(s);
    copy_end(c);
}

static void another_schedule_is_refused(void **state) {
    (void)state;
    struct copy c = copy_begin();
    find(&c, "0,1,2,3,4,5,6,7")[14] = '6';
    refused(&c, "the schedule is 0,1,2,3,4,5,6,7");
}

static void an_unknown_option_is_refused(void **state) {
    (void)state;
    struct copy c = copy_begin();
    memcpy(find(&c, "mamba.state"), "mamba.stale", 11);
    refused(&c, "mamba.state");
}

static void a_missing_tensor_is_refused(void **state) {
    (void)state;
    struct copy c = copy_begin();
    memcpy(find(&c, "grad.blocks.5.mamba.D"), "gone", 4);
    refused(&c, "\"grad.blocks.5.mamba.D\" is missing");
}

static void a_parameter_that_the_model_does_not_have_is_refused(void **state) {
    (void)state;
    struct copy c = copy_begin();
    memcpy(find(&c, "grad.blocks.5.mamba.D\""), "param.bocks.5.mamba.D", 21);
    refused(&c, "\"param.bocks.5.mamba.D\" is not one of this model's");
}

static void a_token_beyond_the_vocabulary_is_refused(void **state) {
    (void)state;
    struct copy c = copy_begin();
    data_of(&c, "input_ids")[4 * 7] = 61;
    refused(&c, "input_ids[7] is 61");
}

static void a_file_that_does_not_exist_is_refused(void **state) {
    (void)state;
    struct golden_result result;
    status s = golden_verify("/nowhere/x.safetensors", backend_find("cpu"), &result);
    assert_non_null(s);
    assert_non_null(strstr(status_text(s), "/nowhere/x.safetensors"));
    status_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_model_agrees),
        cmocka_unit_test(hinge_recurrence_agrees),
        cmocka_unit_test(untied_recurrence_agrees),
        cmocka_unit_test(all_skips_agree),
        cmocka_unit_test(a_model_without_rope_smear_and_bigrams_agrees),
        cmocka_unit_test(one_wrong_gradient_is_found),
        cmocka_unit_test(a_wrong_loss_is_found),
        cmocka_unit_test(a_value_that_is_not_finite_does_not_pass),
        cmocka_unit_test(another_schedule_is_refused),
        cmocka_unit_test(an_unknown_option_is_refused),
        cmocka_unit_test(a_missing_tensor_is_refused),
        cmocka_unit_test(a_parameter_that_the_model_does_not_have_is_refused),
        cmocka_unit_test(a_token_beyond_the_vocabulary_is_refused),
        cmocka_unit_test(a_file_that_does_not_exist_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
