/* cmd_verify: holds the model against golden files: loss, logits and every gradient. */
#include <math.h>
#include <string.h>

#include "harness/device.h"
#include "harness/json_out.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/verbs.h"
#include "model/golden.h"

static double loss_error(const struct golden_result *result) {
    return fabs(result->loss - result->expected_loss) / fmax(fabs(result->expected_loss), 1e-300);
}

static double excess(const struct golden_row *row) { return row->error / row->tolerance; }

/* Index of the row that is nearest to what is allowed, or furthest above it; NaN counts as furthest. */
static int worst_row(const struct golden_result *result) {
    int worst = 0;
    for (int i = 1; i < result->count; i++)
        if (!(excess(&result->rows[i]) <= excess(&result->rows[worst]))) worst = i;
    return worst;
}

static json_t *result_json(const char *path, const struct golden_result *result) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "file", json_text(path));
    json_object_set_new(root, "passed", json_boolean(result->passed));
    json_object_set_new(root, "loss", json_number(result->loss));
    json_object_set_new(root, "expected_loss", json_number(result->expected_loss));
    json_object_set_new(root, "loss_relative_error", json_number(loss_error(result)));
    json_object_set_new(root, "loss_tolerance", json_number(result->loss_tolerance));
    json_object_set_new(root, "tensor_tolerance", json_number(result->tensor_tolerance));
    for (int i = 0; i < result->count; i++) {
        json_t *row = json_object();
        json_object_set_new(row, "tensor", json_text(result->rows[i].name));
        json_object_set_new(row, "relative_l2", json_number(result->rows[i].error));
        json_object_set_new(row, "allowed", json_number(result->rows[i].tolerance));
        json_array_append_new(rows, row);
    }
    json_object_set_new(root, "tensors", rows);
    return root;
}

static void print_rows(const struct golden_result *result) {
    static const struct table_column columns[] = {{"tensor", ALIGN_LEFT, COLUMN_CUT},
                                                  {"relative L2", ALIGN_RIGHT, COLUMN_WHOLE}};
    struct table *table = table_new(columns, 2);
    for (int i = 0; i < result->count; i++) {
        table_cell(table, "%s", result->rows[i].name);
        table_cell(table, "%.2e", result->rows[i].error);
    }
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_result(const char *path, const struct golden_result *result, bool all) {
    const struct golden_row *worst = &result->rows[worst_row(result)];
    printf("%s\n", path);
    printf("  loss             %.8f, expected %.8f, relative error %.1e (allowed %.0e)\n", result->loss,
           result->expected_loss, loss_error(result), result->loss_tolerance);
    printf("  logits           relative L2 error %.1e (allowed %.0e)\n", result->rows[0].error,
           result->tensor_tolerance);
    printf("  worst of %3d     relative L2 error %.1e in %s (allowed %.1e)\n", result->count, worst->error, worst->name,
           worst->tolerance);
    printf("  %s%s%s\n", terminal_style(stdout, result->passed ? STYLE_GOOD : STYLE_BAD),
           result->passed ? "agrees" : "DIFFERS", terminal_style(stdout, STYLE_PLAIN));
    if (all) print_rows(result);
}

static status verify_file(const struct invocation *in, const struct backend *ops, const char *path, json_t *list,
                          bool *passed) {
    struct golden_result result;
    TRY(golden_verify(path, ops, &result));
    *passed = result.passed;
    if (list)
        json_array_append_new(list, result_json(path, &result));
    else
        print_result(path, &result, cli_switch(in, "all"));
    golden_result_free(&result);
    return NULL;
}

static status verify_files(const struct invocation *in, json_t *list, int *differing, const char **example) {
    const struct backend *ops;
    TRY(device_find(cli_text(in, "device"), &ops));
    TRY(ops->open());
    for (int i = 0; i < in->count; i++) {
        bool passed = false;
        TRY(verify_file(in, ops, in->arguments[i], list, &passed));
        if (passed) continue;
        *example = in->arguments[i];
        ++*differing;
    }
    return NULL;
}

static status run(const struct invocation *in) {
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    int differing = 0;
    const char *example = "";
    status failed = verify_files(in, list, &differing, &example);
    if (failed) {
        json_decref(list);
        return failed;
    }
    if (list) TRY(json_print(stdout, list));
    if (differing == 0) return NULL;
    return status_new(STATUS_DIFFERS, "%s: %d of %d files differ from what they record by more than allowed", example,
                      differing, in->count);
}

static const struct flag_row flags[] = {
    {.name = "all", .type = FLAG_SWITCH, .help = "print the error of every tensor"},
    {.name = "device",
     .type = FLAG_CHOICE,
     .value_name = DEVICE_WORDS,
     .initial = "cpu",
     .help = "where to calculate; cuda, with activations in bf16, is allowed more"},
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge verify tests/golden/plain.safetensors",
    "hinge verify --json tests/golden/*.safetensors",
    NULL,
};

const struct verb verb_verify = {
    .name = "verify",
    .purpose = "hold the model against golden files: loss, logits and every gradient",
    .arguments = "FILE...",
    .least = 1,
    .most = CLI_ARGUMENTS,
    .flags = flags,
    .examples = examples,
    .run = run,
};
