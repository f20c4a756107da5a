/* test_suite: how options are laid over each other, and one line for every way in which a file can be wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/yaml.h"
#include "model/files.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

/* --- what is read ------------------------------------------------------------------------------------------------- */

static void a_suite_is_read_as_it_is_written(void **state) {
    (void)state;
    struct suite s = small_suite_good(small_suite);
    assert_string_equal(s.name, "small");
    assert_string_equal(s.question, "Is it so?");
    assert_string_equal(s.preset, "small");
    assert_string_equal(s.metric, "bpb.artifact");
    assert_string_equal(s.scale, "");
    assert_string_equal(s.settings, "");
    assert_int_equal(s.seed_count, 2);
    assert_int_equal(s.seeds[1], 2);
    assert_int_equal(s.variant_count, 2);
    assert_string_equal(s.variants[1].name, "wide");
    assert_string_equal(s.variants[1].overrides, "model.mlp_mult=2");
    assert_int_equal(s.variants[1].line, 11);
    assert_int_equal(s.variants[1].column, 3);
    assert_string_equal(s.design.baseline, "none");
    assert_int_equal(s.design.test, TEST_PAIRED_T);
    assert_int_equal(s.design.correction, CORRECT_HOLM);
    assert_true(s.design.alpha == 0.05 && s.design.margin == 0.01);
    assert_int_equal(s.config.model_mlp_mult, 1);
    assert_int_equal(s.variants[0].config.model_dim, 16);
    assert_int_equal(s.variants[1].config.model_mlp_mult, 2);
    suite_free(&s);
}

static void a_suite_lies_over_its_preset_and_a_variant_over_the_suite(void **state) {
    (void)state;
    char *yaml = small_replace(small_suite, "seeds:", "set: {model.mlp_mult: 3, train.steps: 9}\nseeds:");
    struct suite s = small_suite_good(yaml);
    assert_int_equal(s.config.model_mlp_mult, 3);
    assert_int_equal(s.variants[0].config.model_mlp_mult, 3);
    assert_int_equal(s.variants[1].config.model_mlp_mult, 2);
    assert_int_equal(s.variants[1].config.train_steps, 9);
    suite_free(&s);
    free(yaml);
}

static void a_strategy_applies_before_the_options_beside_it_wherever_it_stands(void **state) {
    (void)state;
    char *yaml = small_replace(small_suite, "{model.mlp_mult: 2}", "{quant.bits: 5, quant.strategy: int8-rowwise}");
    struct suite s = small_suite_good(yaml);
    assert_int_equal(s.variants[1].config.quant_bits, 5);
    assert_int_equal(s.variants[1].config.quant_method, METHOD_ROWWISE);
    suite_free(&s);
    free(yaml);
}

static const char with_scales[] =
    "name: small\npreset: small\nset: {train.steps: 9, model.mlp_mult: 3}\nseeds: [1, 2]\n"
    "baseline: none\nmetric: bpb.raw\nvariants:\n  none:\n  wide: {model.mlp_mult: 2}\n"
    "scales:\n  short: {preset: small, set: {train.steps: 4}, seeds: [5, 6, 7], margin: 0.5}\n"
    "  long: {set: {train.steps: 100}}\n";

static void a_scale_is_laid_over_the_suite(void **state) {
    (void)state;
    struct suite s;
    expect_good(small_load_with(&s, with_scales, "short", NULL));
    assert_string_equal(s.scale, "short");
    assert_string_equal(s.preset, "small + small");
    assert_int_equal(s.seed_count, 3);
    assert_int_equal(s.seeds[0], 5);
    assert_true(s.design.margin == 0.5);
    assert_int_equal(s.config.train_steps, 4);
    assert_int_equal(s.config.model_mlp_mult, 1); /* the scale's preset, over the suite's set */
    assert_int_equal(s.variants[1].config.model_mlp_mult, 2);
    assert_int_equal(s.scale_count, 2);
    assert_string_equal(s.scales[1], "long");
    suite_free(&s);
    expect_failure(small_load_with(&s, with_scales, "shirt", NULL), "scale \"shirt\"", "did you mean short?", NULL);
}

static void the_command_line_wins_over_all_and_is_recorded(void **state) {
    (void)state;
    struct suite s;
    expect_good(small_load_with(&s, small_suite, NULL, "model.mlp_mult=4"));
    assert_int_equal(s.config.model_mlp_mult, 4);
    assert_int_equal(s.variants[0].config.model_mlp_mult, 4);
    assert_int_equal(s.variants[1].config.model_mlp_mult, 4);
    assert_string_equal(s.variants[1].overrides, "model.mlp_mult=2");
    assert_string_equal(s.settings, "model.mlp_mult=4");
    suite_free(&s);
    expect_failure(small_load_with(&s, small_suite, NULL, "model.mlp_mult"), "--set model.mlp_mult", "key=value", NULL);
    expect_failure(small_load_with(&s, small_suite, NULL, "model.mlp_mul=2"), "--set", "model.mlp_mult", NULL);
}

/* What a strategy sets is declared by its name. */
static bool declares(const struct suite_variant *variant, const char *key) {
    char setting[128];
    snprintf(setting, sizeof setting, "%s=", key);
    return strstr(variant->overrides, setting) ||
           (strncmp(key, "quant.", 6) == 0 && strstr(variant->overrides, "quant.strategy="));
}

/* Else the difference from the baseline would be that of another option, too, which nobody asked for. */
static void assert_variants_differ_in_what_they_declare(const struct suite *s) {
    const struct suite_variant *baseline = &s->variants[suite_variant_find(s, s->design.baseline)];
    for (int v = 0; v < s->variant_count; v++)
        for (size_t i = 0; i < option_row_count; i++) {
            char own[512], base[512];
            option_text(&option_rows[i], &s->variants[v].config, own);
            option_text(&option_rows[i], &baseline->config, base);
            if (strcmp(own, base) != 0 && !declares(&s->variants[v], option_rows[i].key))
                fail_msg("%s --scale %s: %s has %s %s, the baseline %s", s->name, s->scale, s->variants[v].name,
                         option_rows[i].key, own, base);
        }
}

static void every_suite_of_the_repository_loads_at_every_scale(void **state) {
    (void)state;
    char **names, path[4096];
    size_t count = yaml_names("suites", &names);
    assert_true(count > 0);
    for (size_t i = 0; i < count; i++) {
        struct suite written, scaled;
        snprintf(path, sizeof path, "suites/%s.yaml", names[i]);
        expect_good(suite_load(&written, &(struct suite_request){.path = path}));
        assert_string_equal(written.name, names[i]);
        assert_true(written.variant_count >= 3 && written.seed_count >= 3 && written.scale_count > 0);
        for (int k = 0; k < written.scale_count; k++) {
            expect_good(suite_load(&scaled, &(struct suite_request){.path = path, .scale = written.scales[k]}));
            assert_int_equal(scaled.variant_count, written.variant_count);
            assert_true(scaled.seed_count >= 2);
            assert_variants_differ_in_what_they_declare(&scaled);
            suite_free(&scaled);
        }
        suite_free(&written);
    }
    names_free(names, count);
}

/* --- include and matrix ------------------------------------------------------------------------------------------- */

static void put(const char *name, const char *text) { small_write(small_path(name), text, strlen(text)); }

static void a_matrix_crosses_its_axes_into_named_variants(void **state) {
    (void)state;
    char *yaml = small_replace(small_suite, "variants:",
                               "matrix:\n  quant.bits: [4, 6]\n"
                               "  method: {rowwise: {quant.method: rowwise}, gptq: {quant.method: gptq}}\nvariants:");
    struct suite s = small_suite_good(yaml);
    const char *const names[] = {"none", "wide", "bits4-rowwise", "bits4-gptq", "bits6-rowwise", "bits6-gptq"};
    assert_int_equal(s.variant_count, 6);
    for (int i = 0; i < 6; i++) assert_string_equal(s.variants[i].name, names[i]);
    assert_string_equal(s.variants[2].overrides, "quant.bits=4 quant.method=rowwise");
    assert_int_equal(s.variants[4].config.quant_bits, 6);
    assert_int_equal(s.variants[4].config.quant_method, METHOD_ROWWISE);
    assert_int_equal(s.variants[5].config.quant_method, METHOD_GPTQ);
    suite_free(&s);
    free(yaml);
}

static void a_matrix_alone_is_a_suite(void **state) {
    (void)state;
    struct suite s = small_suite_good("name: small\npreset: small\nseeds: [1, 2]\nbaseline: none\nmetric: bpb.raw\n"
                                      "matrix:\n  skips: {none: {model.skips: none}, all: {model.skips: all}}\n");
    assert_int_equal(s.variant_count, 2);
    assert_string_equal(s.design.baseline, "none");
    suite_free(&s);
}

static void a_suite_lies_over_what_it_includes(void **state) {
    (void)state;
    expect_good(make_directories(small_path("common")));
    put("common/base.yaml", "margin: 0.5\nset: {train.steps: 3, model.mlp_mult: 4}\nvariants: {wide: {train.ema: 0}, "
                            "long: {train.steps: 5}}\nscales: {short: {set: {train.steps: 2}}}\n");
    expect_good(make_directories(small_path("presets")));
    put("presets/bare.yaml", "include: small\nmodel.smear: off\n");
    char *yaml = small_replace(small_suite, "preset: small\n",
                               "preset: bare\ninclude: [common/base, presets/small]\nset: {train.steps: 7}\n");
    struct suite s;
    expect_good(small_load_with(&s, yaml, NULL, NULL));
    assert_true(s.design.margin == 0.01);
    assert_int_equal(s.config.train_steps, 7);    /* its own set over both includes */
    assert_int_equal(s.config.model_mlp_mult, 1); /* the later include over the earlier */
    assert_false(s.config.model_smear);           /* what its preset adds to the one that it includes */
    assert_int_equal(s.variant_count, 3);
    assert_string_equal(s.variants[0].name, "wide");
    assert_string_equal(s.variants[0].overrides, "train.ema=0 model.mlp_mult=2");
    assert_string_equal(s.variants[1].name, "long");
    assert_string_equal(s.scales[0], "short");
    suite_free(&s);
    free(yaml);
}

static void a_mistake_in_an_included_file_names_that_file(void **state) {
    (void)state;
    struct suite s;
    char *yaml = small_replace(small_suite, "preset: small", "preset: small\ninclude: base");
    put("base.yaml", "set:\n  train.step: 3\n");
    expect_failure(small_load(&s, yaml), "base.yaml:2:3: ", "train.steps", NULL);
    put("base.yaml", "margin: 1\nmargins: 2\n");
    expect_failure(small_load(&s, yaml), "base.yaml:2:1: margins: unknown key", NULL);
    put("base.yaml", "variants:\n  odd: {attention.heads: 3}\n");
    expect_failure(small_load(&s, yaml), "base.yaml:2:3: variant odd: ", "attention.heads", NULL);
    free(yaml);
}

static void includes_in_a_circle_are_refused(void **state) {
    (void)state;
    struct suite s;
    char *yaml = small_replace(small_suite, "preset: small", "preset: small\ninclude: base");
    put("base.yaml", "include: suite\n");
    expect_failure(small_load(&s, yaml), "base.yaml:1:10: include: ", "suite.yaml includes itself", NULL);
    put("base.yaml", "include: ./base\n");
    expect_failure(small_load(&s, yaml), "base.yaml:1:10: include: ", "base.yaml includes itself", NULL);
    free(yaml);
}

/* --- what is refused ---------------------------------------------------------------------------------------------- */

/* The small suite with one text replaced, and what the message must hold. */
static const struct mistake {
    const char *from, *to, *words[4];
} mistakes[] = {
    {"seeds: [1, 2]", "seed: [1, 2]", {"suite.yaml:4:1: seed: unknown key", "did you mean seeds?"}},
    {"{model.mlp_mult: 2}", "{model.mlp_mul: 2}", {"suite.yaml:11:10: ", "model.mlp_mul", "model.mlp_mult"}},
    {"{model.mlp_mult: 2}", "{model.mlp_mult: two}", {"suite.yaml:11:26: ", "model.mlp_mult", "two"}},
    {"{model.mlp_mult: 2}", "{model.mlp_mult: 17}", {"suite.yaml:11:26: ", "model.mlp_mult", "17", "16"}},
    {"{model.mlp_mult: 2}", "{model.mlp_mult: {a: 2}}", {"suite.yaml:11:", "model.mlp_mult: options are written flat"}},
    {"{model.mlp_mult: 2}", "{model.mlp_mult: }", {"suite.yaml:11:", "model.mlp_mult: needs a value"}},
    {"{model.mlp_mult: 2}", "[1]", {"suite.yaml:11:", "wide: expected a mapping, found a list"}},
    {"{model.mlp_mult: 2}", "{attention.heads: 3}", {"suite.yaml:11:3: variant wide: ", "attention.heads", "3"}},
    {"{model.mlp_mult: 2}", "{recurrence.layers: [2]}", {"suite.yaml:11:3: variant wide: ", "recurrence.layers", "2"}},
    {"  wide: {model.mlp_mult: 2}", "  none: {}", {"suite.yaml:11:3: none: given twice", "line 10"}},
    {"variants:\n  none: {}\n  wide: {model.mlp_mult: 2}", "variants: {}", {"suite.yaml:9:", "variants: empty"}},
    {"variants:\n  none: {}\n  wide: {model.mlp_mult: 2}", "", {"suite.yaml: variants: missing"}},
    {"name: small\n", "", {"suite.yaml: name: missing"}},
    {"name: small\n", "name: \"\"\n", {"suite.yaml:1:8: name: needs a value"}},
    {"name: small\n", "name: \"a\\nb\"\n", {"suite.yaml:1:8: name: holds a control character"}},
    {"baseline: none\n", "baseline: nine\n", {"suite.yaml:5:11: baseline: no variant", "nine", "did you mean none?"}},
    {"baseline: none\n", "", {"suite.yaml: baseline: missing"}},
    {"metric: bpb.artifact", "metric: bpb.artefact", {"suite.yaml:6:9: metric: unknown", "did you mean bpb.artifact?"}},
    {"margin: 0.01", "margin: -1", {"suite.yaml:7:9: margin: -1 is out of bounds", "0 to"}},
    {"margin: 0.01", "margin: much", {"suite.yaml:7:9: margin: \"much\" is not a number"}},
    {"paired-t", "pared-t", {"suite.yaml:8:14: kind: unknown test", "did you mean paired-t?"}},
    {"correction: holm", "correction: hulm", {"suite.yaml:8:", "unknown correction", "did you mean holm?"}},
    {"alpha: 0.05", "alpha: 5", {"suite.yaml:8:", "alpha: 5 is out of bounds"}},
    {"alpha: 0.05", "beta: 5", {"suite.yaml:8:24: beta: unknown key"}},
    {"seeds: [1, 2]", "seeds: [1]", {"suite.yaml:4:", "paired-t needs at least two seeds, found 1"}},
    {"seeds: [1, 2]", "seeds: []", {"suite.yaml:4:", "at least two seeds, found 0"}},
    {"seeds: [1, 2]", "seeds: [1, 2, 1]", {"suite.yaml:4:15: seeds: 1 is given twice"}},
    {"seeds: [1, 2]", "seeds: [1, -2]", {"suite.yaml:4:12: seeds: \"-2\" is no seed"}},
    {"seeds: [1, 2]", "seeds: [1, 99999999999999999999]", {"suite.yaml:4:12: seeds: "}},
    {"seeds: [1, 2]", "seeds: 1", {"suite.yaml:4:8: seeds: expected a list"}},
    {"preset: small", "preset: smaller", {"suite.yaml:3:9: preset smaller", "presets/smaller.yaml"}},
    {"preset: small", "preset: ../small", {"suite.yaml:3:9: preset: a name, not a path"}},
    {"preset: small", "preset: small\nset: [1]", {"suite.yaml:4:", "set: expected a mapping"}},
    {"preset: small", "preset: small\npreset: small", {"suite.yaml:4:1: preset: given twice", "line 3"}},
    {"preset: small", "preset: [", {"suite.yaml:", "not valid YAML"}},
    {"preset: small", "preset: small\ninclude: sute", {"suite.yaml:4:10: include: there is no", "did you mean suite?"}},
    {"preset: small", "preset: small\ninclude: {a: 1}", {"suite.yaml:4:", "include: a file's name"}},
    {"preset: small", "preset: small\ninclude: /etc/x", {"suite.yaml:4:10: include: a file's name"}},
    {"preset: small", "preset: small\nmatrix: {}", {"suite.yaml:4:", "matrix: 0 axes; allowed: 1 to 8"}},
    {"preset: small", "preset: small\nmatrix: {quant.bits: 4}", {"suite.yaml:4:10: quant.bits: an axis is a list"}},
    {"preset: small", "preset: small\nmatrix: {quant.bits: []}", {"suite.yaml:4:10: quant.bits: an axis is a list"}},
    {"preset: small", "preset: small\nmatrix: {quant.bit: [4]}", {"suite.yaml:4:10: ", "quant.bit", "quant.bits"}},
    {"preset: small", "preset: small\nmatrix: {quant.bits: [4, 9]}", {"suite.yaml:4:26: ", "quant.bits", "9"}},
    {"preset: small", "preset: small\nmatrix: {quant.bits: [[4]]}", {"suite.yaml:4:", "expected single values"}},
    {"preset: small", "preset: small\nmatrix: {a: {b: 4}}", {"suite.yaml:4:17: b: expected a mapping"}},
    {"preset: small", "preset: small\nmatrix: {a: {wide: {}}}", {"suite.yaml:4:1: wide: the matrix", "on line 12"}},
    {"preset: small",
     "preset: small\nmatrix: {quant.bits: [4], b: {c: {quant.bits: 5}}}",
     {"suite.yaml:4:35: quant.bits: two axes"}},
    {"preset: small",
     "preset: small\nmatrix: {quant.bits: [4, 5, 4]}",
     {"suite.yaml:4:29: quant.bits: 4 stands twice"}},
};

static void every_mistake_is_one_line_with_its_place(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof mistakes / sizeof *mistakes; i++) {
        const struct mistake *m = &mistakes[i];
        struct suite s;
        char *yaml = small_replace(small_suite, m->from, m->to);
        status failed = small_load(&s, yaml);
        if (!failed) fail_msg("accepted: %s", m->to);
        assert_int_equal(status_kind(failed), STATUS_USAGE);
        assert_null(strchr(status_text(failed), '\n'));
        expect_failure(failed, m->words[0], m->words[1], m->words[2], m->words[3], NULL);
        assert_null(s.variants);
        free(yaml);
    }
}

static void an_empty_file_and_a_missing_one_are_refused(void **state) {
    (void)state;
    struct suite s;
    expect_failure(small_load(&s, ""), "suite.yaml", "no YAML text", NULL);
    expect_failure(small_load(&s, "just text"), "suite.yaml:1:1", "expected a mapping", NULL);
    expect_failure(suite_load(&s, &(struct suite_request){.path = "/nowhere/x.yaml"}), "/nowhere/x.yaml", NULL);
}

static void a_mistake_in_a_preset_names_the_preset(void **state) {
    (void)state;
    struct config config;
    const char wrong[] = "model.dim: 16\nmodel.layer: 2\n";
    small_write(small_path("wrong.yaml"), wrong, sizeof wrong - 1);
    expect_failure(preset_load(small_path("wrong.yaml"), &config), "wrong.yaml:2:1", "model.layers", NULL);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)
    const struct CMUnitTest tests[] = {
        TEST(a_suite_is_read_as_it_is_written),
        TEST(a_suite_lies_over_its_preset_and_a_variant_over_the_suite),
        TEST(a_strategy_applies_before_the_options_beside_it_wherever_it_stands),
        TEST(a_scale_is_laid_over_the_suite),
        TEST(the_command_line_wins_over_all_and_is_recorded),
        TEST(every_suite_of_the_repository_loads_at_every_scale),
        TEST(a_matrix_crosses_its_axes_into_named_variants),
        TEST(a_matrix_alone_is_a_suite),
        TEST(a_suite_lies_over_what_it_includes),
        TEST(a_mistake_in_an_included_file_names_that_file),
        TEST(includes_in_a_circle_are_refused),
        TEST(every_mistake_is_one_line_with_its_place),
        TEST(an_empty_file_and_a_missing_one_are_refused),
        TEST(a_mistake_in_a_preset_names_the_preset),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
