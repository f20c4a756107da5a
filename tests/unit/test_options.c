/* test_options: rows, text to values and back, strategies, and the checks between options. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/options.h"

static void assert_refused(status s, const char *first, const char *second) {
    assert_non_null(s);
    assert_int_equal(status_kind(s), STATUS_USAGE);
    if (!strstr(status_text(s), first) || !strstr(status_text(s), second)) fail_msg("message: %s", status_text(s));
    assert_null(strchr(status_text(s), '\n'));
    status_free(s);
}

static void set(struct config *config, const char *key, const char *value) {
    status s = config_set(config, key, value);
    if (s) fail_msg("%s", status_text(s));
}

static void the_defaults_pass_the_check(void **state) {
    (void)state;
    struct config config;
    config_defaults(&config);
    assert_null(config_check(&config));
    assert_int_equal(config.model_dim, 512);
    assert_true(config.model_smear);
    assert_float_equal(config.optim_adam_epsilon, 1e-8, 0);
    assert_int_equal(config.attention_layers.count, 1);
    assert_int_equal(config.attention_layers.values[0], 4);
}

static void every_row_reads_back_its_own_text(void **state) {
    (void)state;
    struct config config, copy;
    config_defaults(&config);
    for (size_t i = 0; i < option_row_count; i++) {
        char text[512], again[512];
        config_defaults(&copy);
        option_text(&option_rows[i], &config, text);
        set(&copy, option_rows[i].key, text);
        assert_string_equal(option_text(&option_rows[i], &copy, again), text);
        assert_memory_equal(&copy, &config, sizeof config);
    }
}

static void keys_are_unique(void **state) {
    (void)state;
    for (size_t i = 0; i < option_row_count; i++) assert_ptr_equal(option_find(option_rows[i].key), &option_rows[i]);
}

static void every_row_says_what_it_is_and_where_it_comes_from(void **state) {
    (void)state;
    for (size_t i = 0; i < option_row_count; i++) {
        if (strlen(option_rows[i].help) < 3) fail_msg("%s has no help", option_rows[i].key);
        if (strlen(option_rows[i].source) < 3) fail_msg("%s has no source", option_rows[i].key);
    }
}

static void awkward_reals_survive_as_text(void **state) {
    (void)state;
    const double values[] = {0.1, 1.0 / 3, 2e-17, 0.30000000000000004, 9.999999999999999};
    const struct option_row *row = option_find("optim.muon_rate");
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        struct config config;
        char text[512];
        config_defaults(&config);
        config.optim_muon_rate = values[i];
        option_text(row, &config, text);
        config.optim_muon_rate = 0;
        set(&config, row->key, text);
        assert_true(config.optim_muon_rate == values[i]);
    }
    struct config config = {.optim_muon_rate = 0.1};
    char text[512];
    assert_string_equal(option_text(row, &config, text), "0.1");
}

/* The enums of options.h are written beside the rows; this holds the two against each other. */
static void enums_agree_with_the_choices(void **state) {
    (void)state;
    static const struct {
        const char *key, *choice;
        int value;
    } cases[] = {
        {"data.order", "sequential", DATA_SEQUENTIAL},
        {"data.order", "shuffled", DATA_SHUFFLED},
        {"model.skips", "published", SKIPS_PUBLISHED},
        {"model.skips", "all", SKIPS_ALL},
        {"model.skips", "none", SKIPS_NONE},
        {"model.linear", "float", LINEAR_FLOAT},
        {"model.linear", "ternary", LINEAR_TERNARY},
        {"recurrence.mlp", "shared", REPEAT_SHARED},
        {"recurrence.mlp", "untied", REPEAT_UNTIED},
        {"train.decay_shape", "linear", DECAY_LINEAR},
        {"train.decay_shape", "cosine", DECAY_COSINE},
        {"train.qat_scale_floor", "none", FLOOR_NONE},
        {"train.qat_scale_floor", "published", FLOOR_PUBLISHED},
        {"quant.scale_floor", "none", FLOOR_NONE},
        {"quant.scale_floor", "published", FLOOR_PUBLISHED},
        {"quant.method", "none", METHOD_NONE},
        {"quant.method", "rowwise", METHOD_ROWWISE},
        {"quant.method", "gptq", METHOD_GPTQ},
        {"quant.method", "ternary", METHOD_TERNARY},
        {"quant.group_rows", "all", GROUP_ALL},
        {"quant.group_rows", "bc", GROUP_BC},
        {"quant.protect", "none", PROTECT_NONE},
        {"quant.protect", "recurrence-rows", PROTECT_RECURRENCE_ROWS},
        {"quant.protect", "control", PROTECT_CONTROL},
        {"quant.protect", "recurrence-rows+control", PROTECT_BOTH},
        {"quant.clip", "max", CLIP_MAX},
        {"quant.clip", "search", CLIP_SEARCH},
        {"quant.embedding", "fp16", EMBEDDING_FP16},
        {"quant.embedding", "int8", EMBEDDING_INT8},
        {"quant.calibration", "self", CALIBRATION_SELF},
        {"quant.calibration", "train", CALIBRATION_TRAIN},
        {"quant.calibration", "none", CALIBRATION_NONE},
        {"eval.mode", "standard", EVAL_STANDARD},
        {"eval.mode", "sliding", EVAL_SLIDING},
        {"eval.mode", "ttt", EVAL_TTT},
        {"eval.ttt_optimizer", "sgd", TTT_SGD},
        {"eval.ttt_optimizer", "adamw", TTT_ADAMW},
        {"eval.tail", "drop", TAIL_DROP},
        {"eval.tail", "keep", TAIL_KEEP},
        {"run.backend", "cpu", BACKEND_CPU},
        {"run.backend", "simulated", BACKEND_SIMULATED},
        {"run.backend", "cuda", BACKEND_CUDA},
        {"run.backend", "auto", BACKEND_AUTO},
    };
    size_t choices = 0, named = sizeof cases / sizeof *cases;
    for (size_t i = 0; i < named; i++) {
        struct config config;
        config_defaults(&config);
        set(&config, cases[i].key, cases[i].choice);
        assert_int_equal(*(int *)((char *)&config + option_find(cases[i].key)->offset), cases[i].value);
    }
    for (size_t i = 0; i < option_row_count; i++)
        for (const char *c = option_rows[i].choices; c; c = strchr(c, '|') ? strchr(c, '|') + 1 : NULL) choices++;
    assert_int_equal(choices, named);
}

static void bad_values_are_refused_with_key_value_and_bounds(void **state) {
    (void)state;
    static const char *const cases[][4] = {
        {"train.steps", "abc", "train.steps = \"abc\"", "integer from 1 to 100000000"},
        {"train.steps", "0", "train.steps = \"0\"", "from 1 to"},
        {"train.steps", "12x", "12x", "integer"},
        {"train.steps", "", "train.steps", "integer"},
        {"train.steps", "99999999999999999999", "train.steps", "integer"},
        {"model.softcap", "nan", "model.softcap", "a number from 1 to 1000"},
        {"optim.adam_epsilon", "0", "optim.adam_epsilon = \"0\"", "from 1e-20 to 1"},
        {"train.ema", "1", "train.ema", "from 0 to 0.999999"},
        {"model.smear", "maybe", "model.smear", "on or off"},
        {"model.skips", "publish", "model.skips", "published|all|none"},
        {"attention.layers", "3,,4", "attention.layers", "commas"},
        {"attention.layers", "3,", "attention.layers", "commas"},
        {"attention.layers", "3 4", "attention.layers", "commas"},
        {"attention.layers", "300", "attention.layers", "from 0 to 255"},
        {"data.name", "a\nb", "data.name", "control"},
        {"quant.strategy", "int5", "quant.strategy", "int6-gptq-floored"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config, before;
        config_defaults(&config);
        before = config;
        assert_refused(config_set(&config, cases[i][0], cases[i][1]), cases[i][2], cases[i][3]);
        assert_memory_equal(&config, &before, sizeof config);
    }
}

static void an_unknown_key_names_the_nearest(void **state) {
    (void)state;
    struct config config;
    config_defaults(&config);
    assert_refused(config_set(&config, "train.stpes", "1"), "\"train.stpes\"", "train.steps");
    assert_refused(config_set(&config, "recurence.layers", "1"), "nearest", "recurrence.layers");
    assert_refused(config_set(&config, "zzzzzzzzzzzz", "1"), "zzzz", "hinge list --options");
    assert_string_equal(option_nearest("warmdown"), "train.warmdown");
    assert_null(option_nearest("entirely different words"));
}

static void edit_distance_counts_a_swap_once(void **state) {
    (void)state;
    assert_int_equal(edit_distance("", ""), 0);
    assert_int_equal(edit_distance("abc", ""), 3);
    assert_int_equal(edit_distance("stpes", "steps"), 1);
    assert_int_equal(edit_distance("kitten", "sitting"), 3);
}

static void lists_are_sorted_so_that_order_changes_no_key(void **state) {
    (void)state;
    struct config config;
    char text[512];
    config_defaults(&config);
    set(&config, "recurrence.layers", "4, 3");
    assert_string_equal(option_text(option_find("recurrence.layers"), &config, text), "3,4");
    set(&config, "recurrence.layers", "");
    assert_int_equal(config.recurrence_layers.count, 0);
}

static void options_that_contradict_each_other_are_named(void **state) {
    (void)state;
    static const char *const cases[][6] = {
        {"attention.heads", "7", NULL, NULL, "attention.heads = 7", "model.dim = 512"},
        {"attention.kv_heads", "3", NULL, NULL, "attention.kv_heads = 3", "attention.heads = 8"},
        {"attention.rope_dims", "63", NULL, NULL, "attention.rope_dims = 63", "odd"},
        {"attention.rope_dims", "66", NULL, NULL, "attention.rope_dims = 66", "64"},
        {"attention.layers", "8", NULL, NULL, "attention.layers", "layer 8"},
        {"attention.layers", "4,4", NULL, NULL, "attention.layers", "twice"},
        {"recurrence.layers", "3,9", NULL, NULL, "recurrence.layers", "layer 9"},
        {"recurrence.layers", "3,3", NULL, NULL, "recurrence.layers", "twice"},
        {"mamba.head_dim", "60", NULL, NULL, "mamba.head_dim = 60", "1024"},
        {"mamba.groups", "3", NULL, NULL, "mamba.groups = 3", "16"},
        {"mamba.state", "2", NULL, NULL, "mamba.rotary_fraction = 0.5", "mamba.state = 2"},
        {"train.batch_tokens", "524280", NULL, NULL, "train.batch_tokens = 524280", "32768"},
        {"quant.bits_mlp", "1", NULL, NULL, "quant.bits_mlp = 1", "2 to 8"},
        {"quant.group", "48", NULL, NULL, "quant.group = 48", "64"},
        {"quant.group_rows", "bc", NULL, NULL, "quant.group_rows = bc", "quant.group = 0"},
        {"quant.strategy", "ternary", NULL, NULL, "quant.method = ternary", "model.linear"},
        {"eval.mode", "ttt", "eval.ttt_chunk", "5000", "eval.ttt_chunk = 5000", "4096"},
        {"eval.mode", "sliding", "eval.stride", "5000", "eval.stride = 5000", "4096"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct config config;
        config_defaults(&config);
        set(&config, cases[i][0], cases[i][1]);
        if (cases[i][2]) set(&config, cases[i][2], cases[i][3]);
        assert_refused(config_check(&config), cases[i][4], cases[i][5]);
    }
}

static void ternary_storage_rounds_no_rows_that_could_be_protected(void **state) {
    (void)state;
    struct config config;
    config_defaults(&config);
    set(&config, "model.linear", "ternary");
    set(&config, "quant.strategy", "ternary");
    set(&config, "quant.protect", "control");
    assert_null(config_check(&config));
    set(&config, "quant.protect", "recurrence-rows");
    assert_refused(config_check(&config), "quant.protect = recurrence-rows", "quant.method = ternary");
}

static void mixers_that_are_absent_are_not_checked(void **state) {
    (void)state;
    struct config config;
    config_defaults(&config);
    set(&config, "attention.layers", "");
    set(&config, "attention.heads", "7");
    assert_null(config_check(&config));
    config_defaults(&config);
    set(&config, "model.layers", "2");
    set(&config, "attention.layers", "0,1");
    set(&config, "mamba.groups", "3");
    assert_null(config_check(&config));
}

static void the_default_options_are_those_of_the_default_strategy(void **state) {
    (void)state;
    struct config config, again;
    config_defaults(&config);
    again = config;
    set(&again, "quant.strategy", option_find("quant.strategy")->initial);
    assert_memory_equal(&config, &again, sizeof config);
}

static void a_strategy_leaves_no_trace_of_the_one_before(void **state) {
    (void)state;
    for (size_t i = 0; i < strategy_row_count; i++) {
        struct config direct, detour;
        config_defaults(&direct);
        detour = direct;
        set(&direct, "quant.strategy", strategy_rows[i].name);
        for (size_t j = 0; j < strategy_row_count; j++) set(&detour, "quant.strategy", strategy_rows[j].name);
        set(&detour, "quant.group", "64");
        set(&detour, "quant.strategy", strategy_rows[i].name);
        assert_memory_equal(&direct, &detour, sizeof direct);
        if (direct.quant_method == METHOD_TERNARY) set(&direct, "model.linear", "ternary");
        assert_null(config_check(&direct));
    }
}

static void a_setting_after_the_strategy_refines_it(void **state) {
    (void)state;
    struct config config;
    config_defaults(&config);
    set(&config, "quant.strategy", "int8-rowwise");
    assert_int_equal(config.quant_method, METHOD_ROWWISE);
    assert_int_equal(config.quant_bits, 8);
    set(&config, "quant.bits", "7");
    assert_int_equal(config.quant_bits, 7);
    assert_string_equal(config.quant_strategy, "int8-rowwise");
}

static void reals_are_as_short_as_they_can_be(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{30, "30"},      {10000, "10000"},  {0.025, "0.025"}, {-1.5, "-1.5"},
                 {1e-8, "1e-08"}, {1e300, "1e+300"}, {0, "0"},         {0.1 + 0.2, "0.30000000000000004"}};
    char text[32];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_string_equal(shortest_real(cases[i].value, text), cases[i].text);
        assert_true(strtod(text, NULL) == cases[i].value);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reals_are_as_short_as_they_can_be),
        cmocka_unit_test(the_defaults_pass_the_check),
        cmocka_unit_test(every_row_reads_back_its_own_text),
        cmocka_unit_test(keys_are_unique),
        cmocka_unit_test(every_row_says_what_it_is_and_where_it_comes_from),
        cmocka_unit_test(awkward_reals_survive_as_text),
        cmocka_unit_test(enums_agree_with_the_choices),
        cmocka_unit_test(bad_values_are_refused_with_key_value_and_bounds),
        cmocka_unit_test(an_unknown_key_names_the_nearest),
        cmocka_unit_test(edit_distance_counts_a_swap_once),
        cmocka_unit_test(lists_are_sorted_so_that_order_changes_no_key),
        cmocka_unit_test(options_that_contradict_each_other_are_named),
        cmocka_unit_test(ternary_storage_rounds_no_rows_that_could_be_protected),
        cmocka_unit_test(mixers_that_are_absent_are_not_checked),
        cmocka_unit_test(the_default_options_are_those_of_the_default_strategy),
        cmocka_unit_test(a_strategy_leaves_no_trace_of_the_one_before),
        cmocka_unit_test(a_setting_after_the_strategy_refines_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
