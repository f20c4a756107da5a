/* cmd_list: what there is: suites, the variants of one, options, strategies, presets, metrics, ops. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "harness/verbs.h"
#include "harness/yaml.h"
#include "model/parameters.h"

/* --- options -------------------------------------------------------------------------------------------------- */

static const char *type_name(enum option_type type) {
    static const char *const names[] = {
        [OPTION_INT] = "integer",   [OPTION_REAL] = "number", [OPTION_FLAG] = "flag",
        [OPTION_CHOICE] = "choice", [OPTION_TEXT] = "text",   [OPTION_LIST] = "list of integers",
    };
    return names[type];
}

static bool has_bounds(const struct option_row *row) {
    return row->type == OPTION_INT || row->type == OPTION_REAL || row->type == OPTION_LIST;
}

static const char *allowed_text(const struct option_row *row, char out[256]) {
    *out = 0;
    if (row->type == OPTION_CHOICE) snprintf(out, 256, "%s", row->choices);
    if (row->type == OPTION_FLAG) snprintf(out, 256, "on|off");
    if (has_bounds(row)) snprintf(out, 256, "%.10g to %.10g", row->low, row->high);
    return out;
}

static json_t *option_json(const struct option_row *row) {
    json_t *object = json_object();
    json_object_set_new(object, "key", json_text(row->key));
    json_object_set_new(object, "type", json_text(type_name(row->type)));
    json_object_set_new(object, "default", json_string(row->initial));
    json_object_set_new(object, "low", has_bounds(row) ? json_number(row->low) : json_null());
    json_object_set_new(object, "high", has_bounds(row) ? json_number(row->high) : json_null());
    json_object_set_new(object, "choices", json_text(row->choices));
    json_object_set_new(object, "stage", json_text(row->stage == STAGE_NONE ? NULL : stage_name(row->stage)));
    json_object_set_new(object, "help", json_text(row->help));
    json_object_set_new(object, "source", json_text(row->source));
    return object;
}

static void print_option(const struct option_row *row) {
    char allowed[256], help[1024];
    printf("%s%s%s  %s", terminal_style(stdout, STYLE_BOLD), row->key, terminal_style(stdout, STYLE_PLAIN),
           type_name(row->type));
    if (*allowed_text(row, allowed)) printf(", %s", allowed);
    printf(", default %s", *row->initial ? row->initial : "empty");
    if (row->stage != STAGE_NONE) printf("; from %s on", stage_name(row->stage));
    snprintf(help, sizeof help, "%s", row->help);
    if (*row->source) text_append(help, sizeof help, " [%s]", row->source);
    printf("\n    ");
    text_print(stdout, help, 4, 4);
}

static status list_options(const struct invocation *in) {
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    for (size_t i = 0; i < option_row_count; i++)
        if (list)
            json_array_append_new(list, option_json(&option_rows[i]));
        else
            print_option(&option_rows[i]);
    return list ? json_print(stdout, list) : NULL;
}

/* --- strategies, metrics, ops ------------------------------------------------------------------------------------- */

static json_t *strategy_json(const struct strategy_row *row) {
    json_t *object = json_object();
    json_object_set_new(object, "strategy", json_text(row->name));
    json_object_set_new(object, "settings", json_text(row->settings));
    json_object_set_new(object, "help", json_text(row->help));
    return object;
}

static void print_strategy(const struct strategy_row *row) {
    printf("%s%s%s  ", terminal_style(stdout, STYLE_BOLD), row->name, terminal_style(stdout, STYLE_PLAIN));
    text_print(stdout, row->help, strlen(row->name) + 2, 4);
    printf("    ");
    text_print(stdout, row->settings, 4, 4);
}

static status list_strategies(const struct invocation *in) {
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    for (size_t i = 0; i < strategy_row_count; i++) {
        const struct strategy_row *row = &strategy_rows[i];
        if (list)
            json_array_append_new(list, strategy_json(row));
        else
            print_strategy(row);
    }
    return list ? json_print(stdout, list) : NULL;
}

static json_t *metric_json(const struct metric_row *row) {
    json_t *object = json_object();
    json_object_set_new(object, "metric", json_text(row->name));
    json_object_set_new(object, "unit", json_text(row->unit));
    json_object_set_new(object, "help", json_text(row->help));
    return object;
}

static status list_metrics(const struct invocation *in) {
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    for (size_t i = 0; i < metric_row_count; i++) {
        const struct metric_row *row = &metric_rows[i];
        if (list)
            json_array_append_new(list, metric_json(row));
        else
            printf("%s%s%s  %s\n    %s\n", terminal_style(stdout, STYLE_BOLD), row->name,
                   terminal_style(stdout, STYLE_PLAIN), row->unit, row->help);
    }
    return list ? json_print(stdout, list) : NULL;
}

static json_t *op_json(const struct op_row *row) {
    json_t *object = json_object();
    json_object_set_new(object, "op", json_text(row->name));
    json_object_set_new(object, "mathematics", json_text(row->mathematics));
    json_object_set_new(object, "shapes", json_text(row->shapes));
    json_object_set_new(object, "accumulation", json_text(row->accumulation));
    return object;
}

static status list_ops(const struct invocation *in) {
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    for (size_t i = 0; i < op_row_count; i++) {
        const struct op_row *row = &op_rows[i];
        if (list)
            json_array_append_new(list, op_json(row));
        else
            printf("%s%s%s\n    %s\n    shapes: %s\n    sums: %s\n", terminal_style(stdout, STYLE_BOLD), row->name,
                   terminal_style(stdout, STYLE_PLAIN), row->mathematics, row->shapes, row->accumulation);
    }
    return list ? json_print(stdout, list) : NULL;
}

/* --- presets -------------------------------------------------------------------------------------------------- */

static const struct table_column preset_columns[] = {
    {"preset", ALIGN_LEFT, COLUMN_WHOLE},  {"parameters", ALIGN_RIGHT, COLUMN_WHOLE},
    {"layers", ALIGN_RIGHT, COLUMN_WHOLE}, {"width", ALIGN_RIGHT, COLUMN_WHOLE},
    {"T", ALIGN_RIGHT, COLUMN_WHOLE},      {"batch tokens", ALIGN_RIGHT, COLUMN_WHOLE},
    {"steps", ALIGN_RIGHT, COLUMN_WHOLE},
};
enum { PRESET_COLUMNS = sizeof preset_columns / sizeof *preset_columns };

static status preset_figures(const char *name, struct config *config, size_t *elements) {
    char path[4096];
    snprintf(path, sizeof path, SUITES_FOLDER "/presets/%s.yaml", name);
    TRY(preset_load(path, config));
    struct parameters parameters;
    TRY(parameters_create(&parameters, config));
    *elements = parameters.elements;
    parameters_destroy(&parameters);
    return NULL;
}

static status add_preset(const char *name, struct table *table, json_t *list) {
    struct config config;
    size_t elements;
    TRY(preset_figures(name, &config, &elements));
    if (list) {
        json_t *object = json_object();
        json_object_set_new(object, "preset", json_text(name));
        json_object_set_new(object, "parameters", json_integer((json_int_t)elements));
        char value[512];
        for (size_t i = 0; i < option_row_count; i++)
            json_object_set_new(object, option_rows[i].key, json_string(option_text(&option_rows[i], &config, value)));
        json_array_append_new(list, object);
        return NULL;
    }
    char count[UNITS_CAPACITY];
    table_cell(table, "%s", name);
    table_cell(table, "%s", format_count((long long)elements, count));
    const int64_t figures[] = {config.model_layers, config.model_dim, config.train_sequence, config.train_batch_tokens,
                               config.train_steps};
    for (size_t i = 0; i < sizeof figures / sizeof *figures; i++) table_cell(table, "%lld", (long long)figures[i]);
    return NULL;
}

static status list_presets(const struct invocation *in) {
    char **names;
    size_t count = yaml_names(SUITES_FOLDER "/presets", &names);
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    struct table *table = table_new(preset_columns, PRESET_COLUMNS);
    status failed = NULL;
    for (size_t i = 0; i < count && !failed; i++) failed = add_preset(names[i], table, list);
    if (!failed && list)
        failed = json_print(stdout, list);
    else if (list)
        json_decref(list);
    else if (!failed)
        table_print(table, stdout, 0);
    table_free(table);
    names_free(names, count);
    return failed;
}

/* --- suites --------------------------------------------------------------------------------------------------- */

static const struct table_column suite_columns[] = {
    {"suite", ALIGN_LEFT, COLUMN_WHOLE},
    {"variants", ALIGN_RIGHT, COLUMN_WHOLE},
    {"seeds", ALIGN_RIGHT, COLUMN_WHOLE},
    {"scales", ALIGN_LEFT, COLUMN_CUT},
};
enum { SUITE_COLUMNS = sizeof suite_columns / sizeof *suite_columns };

static json_t *scales_json(const struct suite *suite) {
    json_t *scales = json_array();
    for (int i = 0; i < suite->scale_count; i++) json_array_append_new(scales, json_text(suite->scales[i]));
    return scales;
}

static json_t *suite_json(const struct suite *suite) {
    json_t *object = json_object(), *variants = json_array(), *seeds = json_array();
    json_object_set_new(object, "suite", json_text(suite->name));
    json_object_set_new(object, "file", json_text(suite->path));
    json_object_set_new(object, "question", json_text(suite->question));
    json_object_set_new(object, "preset", json_text(suite->preset));
    json_object_set_new(object, "scales", scales_json(suite));
    json_object_set_new(object, "baseline", json_text(suite->design.baseline));
    json_object_set_new(object, "metric", json_text(suite->metric));
    for (int i = 0; i < suite->seed_count; i++) json_array_append_new(seeds, json_integer(suite->seeds[i]));
    json_object_set_new(object, "seeds", seeds);
    for (int i = 0; i < suite->variant_count; i++) {
        json_t *variant = json_object();
        json_object_set_new(variant, "variant", json_text(suite->variants[i].name));
        json_object_set_new(variant, "overrides", json_string(suite->variants[i].overrides));
        json_array_append_new(variants, variant);
    }
    json_object_set_new(object, "variants", variants);
    return object;
}

static void suite_cells(struct table *table, const struct suite *suite) {
    char scales[512] = "";
    for (int i = 0; i < suite->scale_count; i++)
        text_append(scales, sizeof scales, "%s%s", i ? " " : "", suite->scales[i]);
    table_cell(table, "%s", suite->name);
    table_cell(table, "%d", suite->variant_count);
    table_cell(table, "%d", suite->seed_count);
    table_cell(table, "%s", scales);
    table_note(table, suite->question);
}

/* A suite that cannot be read is listed with its error: the others are still of use. */
static void add_suite(const char *name, struct table *table, json_t *list) {
    char path[4096];
    snprintf(path, sizeof path, SUITES_FOLDER "/%s.yaml", name);
    struct suite suite = {0};
    status failed = suite_load(&suite, &(struct suite_request){.path = path});
    if (failed && list) {
        json_array_append_new(list, json_pack("{s:s, s:s}", "suite", name, "error", status_text(failed)));
    } else if (failed) {
        table_cell(table, "%s", name);
        for (int i = 1; i < SUITE_COLUMNS; i++) table_cell(table, "-");
        table_note(table, status_text(failed));
    } else if (list) {
        json_array_append_new(list, suite_json(&suite));
    } else {
        suite_cells(table, &suite);
    }
    status_free(failed);
    suite_free(&suite);
}

static status list_suites(const struct invocation *in) {
    char **names;
    size_t count = yaml_names(SUITES_FOLDER, &names);
    if (count == 0) {
        names_free(names, count);
        return status_new(STATUS_USAGE,
                          "there is no suite here: %s/*.yaml is empty; run hinge in the folder that has %s/",
                          SUITES_FOLDER, SUITES_FOLDER);
    }
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    struct table *table = table_new(suite_columns, SUITE_COLUMNS);
    for (size_t i = 0; i < count; i++) add_suite(names[i], table, list);
    if (!list) table_print(table, stdout, 0);
    table_free(table);
    names_free(names, count);
    return list ? json_print(stdout, list) : NULL;
}

static void print_variants(const struct suite *suite) {
    static const struct table_column columns[] = {{"variant", ALIGN_LEFT, COLUMN_WHOLE},
                                                  {"what differs", ALIGN_LEFT, COLUMN_CUT}};
    struct table *table = table_new(columns, 2);
    for (int i = 0; i < suite->variant_count; i++) {
        const struct suite_variant *variant = &suite->variants[i];
        bool baseline = strcmp(variant->name, suite->design.baseline) == 0;
        table_cell(table, "%s", variant->name);
        table_cell(table, "%s%s%s", baseline ? "(baseline)" : "", baseline && *variant->overrides ? " " : "",
                   variant->overrides);
    }
    table_print(table, stdout, 2);
    table_free(table);
}

static status list_variants(const struct invocation *in) {
    struct suite suite = {0};
    TRY(load_suite(in, &suite));
    status failed = NULL;
    if (cli_switch(in, "json")) {
        failed = json_print(stdout, suite_json(&suite));
    } else {
        print_question(&suite);
        print_variants(&suite);
        printf("\npreset  %s\nseeds  ", suite.preset);
        for (int i = 0; i < suite.seed_count; i++) printf(" %lld", (long long)suite.seeds[i]);
        printf("\nscales ");
        for (int i = 0; i < suite.scale_count; i++) printf(" %s", suite.scales[i]);
        putchar('\n');
    }
    suite_free(&suite);
    return failed;
}

/* --- the verb ------------------------------------------------------------------------------------------------- */

static const struct topic {
    const char *flag;
    status (*list)(const struct invocation *in);
} topics[] = {{"options", list_options},
              {"strategies", list_strategies},
              {"presets", list_presets},
              {"metrics", list_metrics},
              {"ops", list_ops}};

static status run(const struct invocation *in) {
    for (size_t i = 0; i < sizeof topics / sizeof *topics; i++)
        if (cli_switch(in, topics[i].flag))
            return in->count ? status_new(STATUS_USAGE, "list --%s lists all of them, and takes no '%s'",
                                          topics[i].flag, in->arguments[0])
                             : topics[i].list(in);
    return in->count ? list_variants(in) : list_suites(in);
}

static const struct flag_row flags[] = {
    {.name = "options", .type = FLAG_SWITCH, .help = "every option: type, bounds, default, stage, help, source"},
    {.name = "strategies", .type = FLAG_SWITCH, .help = "the named quantisation strategies"},
    {.name = "presets", .type = FLAG_SWITCH, .help = "the presets and their sizes"},
    {.name = "metrics", .type = FLAG_SWITCH, .help = "what a suite can declare as its metric"},
    {.name = "ops", .type = FLAG_SWITCH, .help = "the ops of a backend: mathematics, shapes, order of sums"},
    FLAG_ROW_SCALE,
    FLAG_ROW_SET,
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge list", "hinge list demo --scale tiny", "hinge list --options", "hinge list --presets --json", NULL,
};

const struct verb verb_list = {
    .name = "list",
    .purpose = "suites, or the variants of one; options, strategies, presets, metrics, ops",
    .arguments = "[SUITE]",
    .least = 0,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
