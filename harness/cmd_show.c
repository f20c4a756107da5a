/* cmd_show: everything that is known of one run. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "harness/verbs.h"

struct shown {
    struct results results; /* of one run */
    struct run_details details;
};

static const struct result_run *shown_run(const struct shown *shown) { return &shown->results.runs[0]; }

static const struct {
    const char *name;
    size_t offset; /* in struct result_run */
} evaluations[] = {
    {"raw", offsetof(struct result_run, raw)},
    {"averaged", offsetof(struct result_run, averaged)},
    {"artifact", offsetof(struct result_run, artifact)},
};
enum { EVALUATIONS = sizeof evaluations / sizeof *evaluations };

static const struct result_evaluation *evaluation_of(const struct result_run *run, int index) {
    return (const struct result_evaluation *)((const char *)run + evaluations[index].offset);
}

/* --- text ----------------------------------------------------------------------------------------------------- */

static void heading(const char *text) {
    printf("\n%s%s%s\n", terminal_style(stdout, STYLE_BOLD), text, terminal_style(stdout, STYLE_PLAIN));
}

static void print_head(const struct shown *shown) {
    const struct result_run *run = shown_run(shown);
    char title[TITLE_CAPACITY], count[UNITS_CAPACITY], took[UNITS_CAPACITY];
    printf("run %" PRId64 " of %s: %s, seed %" PRId64 ", %s%s\n", run->id,
           suite_title(shown->results.suite, shown->results.scale, title), shown->results.variants[run->variant].name,
           run->seed, run->status, run->late ? " (late: added after the declaration)" : "");
    if (simulated_note(&shown->results)) printf("%s\n", simulated_note(&shown->results));
    if (*run->error) printf("error       %s\n", run->error);
    printf("key         %s\n", run->key);
    printf("parameters  %s\n", run->parameter_count ? format_count(run->parameter_count, count) : "-");
    printf("training    %" PRId64 " steps", run->steps);
    if (isfinite(run->train_seconds)) printf(", %s", format_duration(run->train_seconds, took));
    if (isfinite(run->tokens_per_second)) printf(", %.0f tokens/s", run->tokens_per_second);
    if (isfinite(run->final_loss)) printf(", last loss %.4f", run->final_loss);
    if (*run->training_note) printf("\n            %s", run->training_note);
    printf("\nweights     %s\ntrace       %s\n", *run->weights_sha256 ? run->weights_sha256 : "-",
           *run->trace_sha256 ? run->trace_sha256 : "-");
}

static const char *default_text(const char *key, char out[512]) {
    struct config defaults;
    config_defaults(&defaults);
    const struct option_row *row = option_find(key);
    return row ? option_text(row, &defaults, out) : "";
}

static void print_options(const struct run_details *details, bool all) {
    static const struct table_column columns[] = {
        {"option", ALIGN_LEFT, COLUMN_WHOLE}, {"value", ALIGN_LEFT, COLUMN_CUT}, {"default", ALIGN_LEFT, COLUMN_CUT}};
    struct table *table = table_new(columns, 3);
    for (int i = 0; i < details->option_count; i++) {
        const struct result_text *option = &details->options[i];
        char initial[512];
        default_text(option->name, initial);
        if (!all && strcmp(option->value, initial) == 0) continue;
        table_cell(table, "%s", option->name);
        table_cell(table, "%s", *option->value ? option->value : "(empty)");
        table_cell(table, "%s", *initial ? initial : "(empty)");
    }
    heading(all ? "options" : "options that differ from their defaults");
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_stages(const struct run_details *details) {
    static const struct table_column columns[] = {
        {"stage", ALIGN_LEFT, COLUMN_WHOLE},    {"state", ALIGN_LEFT, COLUMN_WHOLE},
        {"time", ALIGN_RIGHT, COLUMN_WHOLE},    {"shared by", ALIGN_RIGHT, COLUMN_WHOLE},
        {"finished", ALIGN_LEFT, COLUMN_WHOLE}, {"key", ALIGN_LEFT, COLUMN_CUT},
    };
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    char took[UNITS_CAPACITY];
    for (int i = 0; i < details->stage_count; i++) {
        const struct stage_record *stage = &details->stages[i];
        table_cell(table, "%s", run_part_name(stage->part));
        table_cell(table, "%s", stage_state_name(stage->state));
        table_cell(table, "%s", isfinite(stage->seconds) ? format_duration(stage->seconds, took) : "-");
        table_cell(table, "%d", stage->shared_by);
        table_cell(table, "%s", *stage->finished ? stage->finished : "-");
        table_cell(table, "%.16s", stage->key);
    }
    heading("stages");
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_evaluations(const struct result_run *run) {
    static const struct table_column columns[] = {
        {"evaluation", ALIGN_LEFT, COLUMN_WHOLE},  {"bpb", ALIGN_RIGHT, COLUMN_WHOLE},
        {"nats/token", ALIGN_RIGHT, COLUMN_WHOLE}, {"tokens", ALIGN_RIGHT, COLUMN_WHOLE},
        {"bytes", ALIGN_RIGHT, COLUMN_WHOLE},      {"time", ALIGN_RIGHT, COLUMN_WHOLE},
    };
    struct table *table = table_new(columns, sizeof columns / sizeof *columns);
    char text[UNITS_CAPACITY];
    for (int i = 0; i < EVALUATIONS; i++) {
        const struct result_evaluation *evaluation = evaluation_of(run, i);
        if (!evaluation->present) continue;
        table_cell(table, "%s", evaluations[i].name);
        table_number(table, evaluation->value.bpb, 6);
        table_number(table, evaluation->value.nll_per_token, 6);
        table_cell(table, "%s", format_count(evaluation->value.tokens, text));
        table_cell(table, "%s", format_count(evaluation->value.bytes, text));
        table_cell(table, "%s", format_duration(evaluation->value.seconds, text));
    }
    heading("evaluations");
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_classes(const struct artifact_sizes *sizes) {
    static const struct table_column columns[] = {{"class", ALIGN_LEFT, COLUMN_WHOLE},
                                                  {"parameters", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"bytes before xz", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"bits/parameter", ALIGN_RIGHT, COLUMN_WHOLE}};
    struct table *table = table_new(columns, 4);
    char text[UNITS_CAPACITY];
    for (int c = 0; c < CLASS_COUNT; c++) {
        size_t parameters = sizes->class_parameters[c];
        table_cell(table, "%s", tensor_class_name(c));
        table_cell(table, "%s", format_count((long long)parameters, text));
        table_cell(table, "%s", format_count((long long)sizes->class_bytes[c], text));
        table_number(table, parameters ? 8.0 * (double)sizes->class_bytes[c] / (double)parameters : NAN, 2);
    }
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_artifact(const struct result_run *run) {
    const struct artifact_sizes *sizes = &run->sizes;
    if (!sizes->bytes) return;
    char bytes[UNITS_CAPACITY], raw[UNITS_CAPACITY], cap[UNITS_CAPACITY], calibrated[UNITS_CAPACITY],
        took[UNITS_CAPACITY];
    heading("artifact");
    printf("  %s, %s bytes (%s before xz; cap %s), calibrated in %s, quantised in %s\n  sha256 %s\n", run->strategy,
           format_count((long long)sizes->bytes, bytes), format_count((long long)sizes->raw_bytes, raw),
           format_count(ARTIFACT_CAP_BYTES, cap), format_duration(run->calibration_seconds, calibrated),
           format_duration(run->quantise_seconds, took), sizes->sha256);
    print_classes(sizes);
    for (const char *line = run->artifact_notes; *line;) {
        size_t length = strcspn(line, "\n");
        printf("  note: %.*s\n", (int)length, line);
        line += length + (line[length] == '\n');
    }
}

static void print_provenance(const struct run_details *details) {
    static const struct table_column columns[] = {{"", ALIGN_LEFT, COLUMN_WHOLE}, {"", ALIGN_LEFT, COLUMN_CUT}};
    struct table *table = table_new(columns, 2);
    for (int i = 0; i < details->provenance_count; i++) {
        table_cell(table, "%s", details->provenance[i].name);
        table_cell(table, "%s", details->provenance[i].value);
    }
    heading("provenance");
    table_print(table, stdout, 2);
    table_free(table);
}

/* --- JSON ----------------------------------------------------------------------------------------------------- */

static json_t *texts_json(const struct result_text *texts, int count) {
    json_t *object = json_object();
    for (int i = 0; i < count; i++)
        json_object_set_new(object, texts[i].name, json_string_nocheck(texts[i].value ? texts[i].value : ""));
    return object;
}

static json_t *stages_json(const struct run_details *details) {
    json_t *list = json_array();
    for (int i = 0; i < details->stage_count; i++) {
        const struct stage_record *stage = &details->stages[i];
        json_t *object = json_object();
        json_object_set_new(object, "stage", json_text(run_part_name(stage->part)));
        json_object_set_new(object, "state", json_text(stage_state_name(stage->state)));
        json_object_set_new(object, "key", json_text(stage->key));
        json_object_set_new(object, "parent", json_text(stage->parent));
        json_object_set_new(object, "shared_by", json_integer(stage->shared_by));
        json_object_set_new(object, "seconds", json_number(stage->seconds));
        json_object_set_new(object, "worker", json_text(stage->worker));
        json_object_set_new(object, "started", json_text(stage->started));
        json_object_set_new(object, "finished", json_text(stage->finished));
        json_object_set_new(object, "error", json_text(stage->error));
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *evaluations_json(const struct result_run *run) {
    json_t *all = json_object();
    for (int i = 0; i < EVALUATIONS; i++) {
        const struct result_evaluation *evaluation = evaluation_of(run, i);
        if (!evaluation->present) continue;
        json_t *object = json_object();
        json_object_set_new(object, "bpb", json_number(evaluation->value.bpb));
        json_object_set_new(object, "nll", json_number(evaluation->value.nll));
        json_object_set_new(object, "nll_per_token", json_number(evaluation->value.nll_per_token));
        json_object_set_new(object, "tokens", json_integer(evaluation->value.tokens));
        json_object_set_new(object, "bytes", json_integer(evaluation->value.bytes));
        json_object_set_new(object, "seconds", json_number(evaluation->value.seconds));
        json_object_set_new(all, evaluations[i].name, object);
    }
    return all;
}

static json_t *artifact_json(const struct result_run *run) {
    const struct artifact_sizes *sizes = &run->sizes;
    if (!sizes->bytes) return json_null();
    json_t *object = json_object(), *classes = json_object();
    json_object_set_new(object, "strategy", json_text(run->strategy));
    json_object_set_new(object, "bytes", json_integer((json_int_t)sizes->bytes));
    json_object_set_new(object, "raw_bytes", json_integer((json_int_t)sizes->raw_bytes));
    json_object_set_new(object, "sha256", json_text(sizes->sha256));
    json_object_set_new(object, "quantise_seconds", json_number(run->quantise_seconds));
    json_object_set_new(object, "calibration_seconds", json_number(run->calibration_seconds));
    for (int c = 0; c < CLASS_COUNT; c++)
        json_object_set_new(classes, tensor_class_name(c),
                            json_pack("{s:I, s:I}", "parameters", (json_int_t)sizes->class_parameters[c], "bytes",
                                      (json_int_t)sizes->class_bytes[c]));
    json_object_set_new(object, "classes", classes);
    json_object_set_new(object, "notes", json_text(run->artifact_notes));
    return object;
}

static json_t *shown_json(const struct shown *shown) {
    const struct result_run *run = shown_run(shown);
    const struct run_details *details = &shown->details;
    json_t *object = json_object();
    json_object_set_new(object, "run", json_integer(run->id));
    json_object_set_new(object, "suite", json_text(shown->results.suite));
    json_object_set_new(object, "scale", json_text(shown->results.scale));
    json_object_set_new(object, "variant", json_text(shown->results.variants[run->variant].name));
    json_object_set_new(object, "seed", json_integer(run->seed));
    json_object_set_new(object, "status", json_text(run->status));
    json_object_set_new(object, "late", json_boolean(run->late));
    json_object_set_new(object, "error", json_text(run->error));
    json_object_set_new(object, "key", json_text(run->key));
    json_object_set_new(object, "parameters", run->parameter_count ? json_integer(run->parameter_count) : json_null());
    json_object_set_new(object, "steps", json_integer(run->steps));
    json_object_set_new(object, "train_seconds", json_number(run->train_seconds));
    json_object_set_new(object, "tokens_per_second", json_number(run->tokens_per_second));
    json_object_set_new(object, "training_note", json_text(run->training_note));
    json_object_set_new(object, "weights_sha256", json_text(run->weights_sha256));
    json_object_set_new(object, "trace_sha256", json_text(run->trace_sha256));
    json_object_set_new(object, "options", texts_json(details->options, details->option_count));
    json_object_set_new(object, "stages", stages_json(details));
    json_object_set_new(object, "evaluations", evaluations_json(run));
    json_object_set_new(object, "artifact", artifact_json(run));
    json_object_set_new(object, "provenance", texts_json(details->provenance, details->provenance_count));
    return object;
}

/* --- the verb ------------------------------------------------------------------------------------------------- */

static status print_shown(const struct invocation *in, const struct shown *shown) {
    if (cli_switch(in, "json")) return json_print(stdout, shown_json(shown));
    print_head(shown);
    print_options(&shown->details, cli_switch(in, "all"));
    print_stages(&shown->details);
    print_evaluations(shown_run(shown));
    print_artifact(shown_run(shown));
    print_provenance(&shown->details);
    return NULL;
}

static status run(const struct invocation *in) {
    struct shown shown = {0};
    struct store *store;
    int64_t number;
    TRY(run_number(in, &number));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failed = store_load_run(store, number, &shown.results);
    if (!failed) failed = store_run_details(store, number, &shown.details);
    store_close(store);
    if (!failed) failed = print_shown(in, &shown);
    run_details_free(&shown.details);
    results_free(&shown.results);
    return failed;
}

static const struct flag_row flags[] = {
    {.name = "all", .type = FLAG_SWITCH, .help = "print every option, also those at their defaults"},
    FLAG_ROW_DB,
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {"hinge show 3", "hinge show 3 --json", NULL};

const struct verb verb_show = {
    .name = "show",
    .purpose = "everything known of one run: options, stages, hashes, evaluations, artifact",
    .arguments = "RUN",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
