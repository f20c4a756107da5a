/* cmd_export: runs, steps or evaluations as CSV or JSON, or a run's weights as safetensors. Each column is a row of a
 * table (documented in results/README.md); a value that does not exist is an empty field, in JSON null. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/export_weights.h"
#include "harness/json_out.h"
#include "harness/report/caveats.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/verbs.h"
#include "model/files.h"

/* What a row of the export is taken from. */
struct source {
    const struct results *results;
    const char *read_with; /* the caveats of the suite */
    const struct result_run *run;
    const struct step_record *step;
    const char *kind; /* of the evaluation */
    const struct result_evaluation *evaluation;
};

enum value_type { VALUE_TEXT, VALUE_INT, VALUE_REAL };

struct value {
    enum value_type type;
    const char *text;
    int64_t integer;
    bool absent; /* of an integer */
    double real;
};

struct column {
    const char *name;
    struct value (*get)(const struct source *source);
};

/* --- values --------------------------------------------------------------------------------------------------- */

static struct value text(const char *value) { return (struct value){.type = VALUE_TEXT, .text = value}; }
static struct value integer(int64_t value) { return (struct value){.type = VALUE_INT, .integer = value}; }
static struct value real_number(double value) { return (struct value){.type = VALUE_REAL, .real = value}; }
static struct value optional(bool present, int64_t value) {
    return (struct value){.type = VALUE_INT, .integer = value, .absent = !present};
}
static struct value bpb(const struct result_evaluation *e) { return real_number(e->present ? e->value.bpb : NAN); }

static const char *backend_of(const struct results *results) {
    if (simulated_note(results)) return "simulated";
    return results->config.run_backend == BACKEND_CUDA ? "cuda" : "cpu";
}

#define COLUMN(stem, expression) \
    static struct value get_##stem(const struct source *s) { return expression; }

COLUMN(suite, text(s->results->suite))
COLUMN(read_with, text(s->read_with))
COLUMN(scale, text(s->results->scale))
COLUMN(backend, text(backend_of(s->results)))
COLUMN(variant, text(s->results->variants[s->run->variant].name))
COLUMN(seed, integer(s->run->seed))
COLUMN(run, integer(s->run->id))
COLUMN(status, text(s->run->status))
COLUMN(late, integer(s->run->late))
COLUMN(steps, integer(s->run->steps))
COLUMN(parameters, optional(s->run->parameter_count > 0, s->run->parameter_count))
COLUMN(train_seconds, real_number(s->run->train_seconds))
COLUMN(tokens_per_second, real_number(s->run->tokens_per_second))
COLUMN(loss_final, real_number(s->run->final_loss))
COLUMN(training_note, text(s->run->training_note))
COLUMN(bpb_raw, bpb(&s->run->raw))
COLUMN(bpb_averaged, bpb(&s->run->averaged))
COLUMN(bpb_artifact, bpb(&s->run->artifact))
COLUMN(strategy, text(s->run->strategy))
COLUMN(artifact_bytes, optional(s->run->sizes.bytes > 0, (int64_t)s->run->sizes.bytes))
COLUMN(artifact_raw_bytes, optional(s->run->sizes.bytes > 0, (int64_t)s->run->sizes.raw_bytes))
COLUMN(calibration_seconds, real_number(s->run->calibration_seconds))
COLUMN(quantise_seconds, real_number(s->run->quantise_seconds))
COLUMN(weights_sha256, text(s->run->weights_sha256))
COLUMN(trace_sha256, text(s->run->trace_sha256))
COLUMN(artifact_sha256, text(s->run->sizes.sha256))
COLUMN(key, text(s->run->key))
COLUMN(train_key, text(s->run->train_key))
COLUMN(started, text(s->run->started))
COLUMN(finished, text(s->run->finished))
COLUMN(error, text(s->run->error))
COLUMN(step, integer(s->step->step))
COLUMN(loss, real_number(s->step->loss))
COLUMN(multiplier, real_number(s->step->multiplier))
COLUMN(milliseconds, real_number(s->step->milliseconds))
COLUMN(step_tokens, integer(s->step->tokens))
COLUMN(evaluation, text(s->kind))
COLUMN(bpb, real_number(s->evaluation->value.bpb))
COLUMN(nll, real_number(s->evaluation->value.nll))
COLUMN(nll_per_token, real_number(s->evaluation->value.nll_per_token))
COLUMN(tokens, integer(s->evaluation->value.tokens))
COLUMN(bytes, integer(s->evaluation->value.bytes))
COLUMN(seconds, real_number(s->evaluation->value.seconds))
COLUMN(stage_key, text(s->evaluation->stage_key))
#undef COLUMN

static const struct column run_columns[] = {
    {"suite", get_suite},
    {"scale", get_scale},
    {"backend", get_backend},
    {"variant", get_variant},
    {"seed", get_seed},
    {"run", get_run},
    {"status", get_status},
    {"late", get_late},
    {"steps", get_steps},
    {"parameters", get_parameters},
    {"train_seconds", get_train_seconds},
    {"tokens_per_second", get_tokens_per_second},
    {"loss_final", get_loss_final},
    {"training_note", get_training_note},
    {"bpb_raw", get_bpb_raw},
    {"bpb_averaged", get_bpb_averaged},
    {"bpb_artifact", get_bpb_artifact},
    {"strategy", get_strategy},
    {"artifact_bytes", get_artifact_bytes},
    {"artifact_raw_bytes", get_artifact_raw_bytes},
    {"calibration_seconds", get_calibration_seconds},
    {"quantise_seconds", get_quantise_seconds},
    {"weights_sha256", get_weights_sha256},
    {"trace_sha256", get_trace_sha256},
    {"artifact_sha256", get_artifact_sha256},
    {"key", get_key},
    {"train_key", get_train_key},
    {"started", get_started},
    {"finished", get_finished},
    {"error", get_error},
    {"read_with", get_read_with},
    {NULL, NULL},
};

static const struct column step_columns[] = {
    {"suite", get_suite},
    {"scale", get_scale},
    {"backend", get_backend},
    {"variant", get_variant},
    {"seed", get_seed},
    {"run", get_run},
    {"step", get_step},
    {"loss", get_loss},
    {"multiplier", get_multiplier},
    {"milliseconds", get_milliseconds},
    {"tokens", get_step_tokens},
    {"read_with", get_read_with},
    {NULL, NULL},
};

static const struct column evaluation_columns[] = {
    {"suite", get_suite},
    {"scale", get_scale},
    {"backend", get_backend},
    {"variant", get_variant},
    {"seed", get_seed},
    {"run", get_run},
    {"evaluation", get_evaluation},
    {"bpb", get_bpb},
    {"nll", get_nll},
    {"nll_per_token", get_nll_per_token},
    {"tokens", get_tokens},
    {"bytes", get_bytes},
    {"seconds", get_seconds},
    {"stage_key", get_stage_key},
    {"read_with", get_read_with},
    {NULL, NULL},
};

/* --- writing -------------------------------------------------------------------------------------------------- */

struct writer {
    FILE *stream;
    const struct column *columns;
    bool json;
    long rows;
};

static void csv_text(FILE *stream, const char *value) {
    if (!value[strcspn(value, ",\"\r\n")]) {
        fputs(value, stream);
        return;
    }
    fputc('"', stream);
    for (; *value; value++) {
        if (*value == '"') fputc('"', stream);
        fputc(*value, stream);
    }
    fputc('"', stream);
}

static void csv_real(FILE *stream, double value) {
    char text[32];
    if (isfinite(value)) fputs(shortest_real(value, text), stream);
}

static void write_csv(struct writer *writer, const struct source *source) {
    for (const struct column *column = writer->columns; column->name; column++) {
        struct value value = column->get(source);
        if (column != writer->columns) fputc(',', writer->stream);
        if (value.type == VALUE_TEXT) csv_text(writer->stream, value.text);
        if (value.type == VALUE_REAL) csv_real(writer->stream, value.real);
        if (value.type == VALUE_INT && !value.absent) fprintf(writer->stream, "%" PRId64, value.integer);
    }
    fputc('\n', writer->stream);
}

static json_t *value_json(struct value value) {
    if (value.type == VALUE_TEXT) return json_text(value.text);
    if (value.type == VALUE_REAL) return json_number(value.real);
    return value.absent ? json_null() : json_integer(value.integer);
}

static void write_json(struct writer *writer, const struct source *source) {
    json_t *object = json_object();
    for (const struct column *column = writer->columns; column->name; column++)
        json_object_set_new(object, column->name, value_json(column->get(source)));
    fputs(writer->rows ? ",\n" : "\n", writer->stream);
    json_dumpf(object, writer->stream, JSON_COMPACT | JSON_REAL_PRECISION(17));
    json_decref(object);
}

static void write_row(struct writer *writer, const struct source *source) {
    if (writer->json)
        write_json(writer, source);
    else
        write_csv(writer, source);
    writer->rows++;
}

static void write_head(struct writer *writer) {
    if (writer->json) {
        fputc('[', writer->stream);
        return;
    }
    for (const struct column *column = writer->columns; column->name; column++)
        fprintf(writer->stream, "%s%s", column == writer->columns ? "" : ",", column->name);
    fputc('\n', writer->stream);
}

static void write_tail(struct writer *writer) {
    if (writer->json) fputs("\n]\n", writer->stream);
}

/* --- what there is to export ---------------------------------------------------------------------------------- */

static void export_run(struct writer *writer, const struct source *of) { write_row(writer, of); }

static void export_steps(struct writer *writer, const struct source *of) {
    struct source source = *of;
    for (size_t i = 0; i < of->run->step_count; i++) {
        source.step = &of->run->trace[i];
        write_row(writer, &source);
    }
}

static void export_evaluations(struct writer *writer, const struct source *of) {
    const struct source sources[] = {
        {.kind = "raw", .evaluation = &of->run->raw},
        {.kind = "averaged", .evaluation = &of->run->averaged},
        {.kind = "artifact", .evaluation = &of->run->artifact},
    };
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        struct source source = sources[i];
        source.results = of->results;
        source.read_with = of->read_with;
        source.run = of->run;
        if (source.evaluation->present) write_row(writer, &source);
    }
}

static const struct topic {
    const char *name;
    const struct column *columns;
    enum results_detail detail;
    void (*export)(struct writer *writer, const struct source *of);
} topics[] = {
    {"runs", run_columns, RESULTS_FIGURES, export_run},
    {"steps", step_columns, RESULTS_ALL, export_steps},
    {"evaluations", evaluation_columns, RESULTS_FIGURES, export_evaluations},
};
enum { TOPICS = sizeof topics / sizeof *topics };

static status find_topic(const char *name, const struct topic **topic) {
    const char *names[TOPICS + 1] = {[TOPICS] = "weights"};
    for (int i = 0; i < TOPICS; i++) {
        names[i] = topics[i].name;
        if (strcmp(topics[i].name, name) != 0) continue;
        *topic = &topics[i];
        return NULL;
    }
    const char *near = nearest_word(name, names, TOPICS + 1);
    return status_new(STATUS_USAGE, "export takes runs, steps, evaluations or weights, not '%s'%s%s", name,
                      near ? "; nearest is " : "", near ? near : "");
}

static status export_suite(const struct invocation *in, struct store *store, const char *suite, const char *scale,
                           const struct topic *topic, struct writer *writer) {
    struct results results = {0};
    struct text caveats = {0};
    TRY(store_load_results_at(store, suite, scale, topic->detail, &results));
    note_peek(in, &results);
    caveats_line(&results, &caveats);
    const char *read_with = caveats.size ? text_of(&caveats) : "";
    for (int i = 0; i < results.run_count; i++)
        topic->export(writer, &(struct source){.results = &results, .read_with = read_with, .run = &results.runs[i]});
    text_free(&caveats);
    results_free(&results);
    return NULL;
}

static status export_all(const struct invocation *in, struct store *store, const struct topic *topic,
                         struct writer *writer) {
    struct suite_summary *suites = NULL;
    int count = 0;
    TRY(store_list_suites(store, &suites, &count));
    status failed = NULL;
    for (int i = 0; i < count && !failed; i++)
        failed = export_suite(in, store, suites[i].name, suites[i].scale, topic, writer);
    free(suites);
    return failed;
}

static status export_rows(const struct invocation *in, const struct topic *topic, struct writer *writer) {
    char name[NAME_CAPACITY] = "";
    struct store *store;
    if (in->count > 1) TRY(suite_name(in->arguments[1], name));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    write_head(writer);
    status failed = *name ? export_suite(in, store, name, cli_text(in, "scale"), topic, writer)
                          : export_all(in, store, topic, writer);
    write_tail(writer);
    store_close(store);
    return failed;
}

static status weights_flags(const struct invocation *in) {
    if (in->count < 2) return status_new(STATUS_USAGE, "export weights takes a RUN, a number of hinge status SUITE");
    if (!cli_given(in, "output"))
        return status_new(STATUS_USAGE, "export weights writes a binary file: say which with -o FILE.safetensors");
    if (cli_given(in, "format") || cli_given(in, "json") || cli_given(in, "scale"))
        return status_new(STATUS_USAGE,
                          "--format, --json and --scale are not for weights: they are one run's safetensors file");
    return NULL;
}

static status run_weights(const struct invocation *in) {
    int64_t run;
    struct store *store;
    TRY(weights_flags(in));
    TRY(run_number_of(in->arguments[1], &run));
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failed =
        export_weights(store, run, cli_given(in, "step") ? cli_int(in, "step") : -1, cli_text(in, "output"));
    store_close(store);
    return failed;
}

/* Collected in memory first: a failure half-way prints nothing and leaves no half file. */
static status run_rows(const struct invocation *in) {
    const struct topic *topic = NULL;
    char *buffer = NULL;
    size_t size = 0;
    TRY(find_topic(in->arguments[0], &topic));
    struct writer writer = {.stream = open_memstream(&buffer, &size),
                            .columns = topic->columns,
                            .json = cli_switch(in, "json") || strcmp(cli_text(in, "format"), "json") == 0};
    if (!writer.stream) return status_new(STATUS_SYSTEM, "out of memory");
    status failed = export_rows(in, topic, &writer);
    if (fclose(writer.stream) != 0 && !failed) failed = status_errno("cannot collect the rows");
    const char *path = cli_text(in, "output");
    if (!failed && path)
        failed = file_write_atomic(path, buffer, size);
    else if (!failed)
        fwrite(buffer, 1, size, stdout);
    free(buffer);
    return failed;
}

static status run(const struct invocation *in) {
    if (strcmp(in->arguments[0], "weights") == 0) return run_weights(in);
    if (cli_given(in, "step")) return status_new(STATUS_USAGE, "--step is for export weights alone");
    return run_rows(in);
}

static const struct flag_row flags[] = {
    {.name = "format", .type = FLAG_CHOICE, .value_name = "csv|json", .initial = "csv", .help = "how rows are written"},
    {.name = "output",
     .letter = 'o',
     .type = FLAG_TEXT,
     .value_name = "FILE",
     .help = "write to a file instead of standard output"},
    {.name = "step",
     .type = FLAG_INT,
     .value_name = "N",
     .low = 0,
     .high = 1e9,
     .help = "weights: 0 for the initial ones; without it the trained ones"},
    FLAG_ROW_SCALE,
    FLAG_ROW_DB,
    {.name = "json", .type = FLAG_SWITCH, .help = "the same as --format json"},
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge export runs",
    "hinge export steps demo --scale tiny --format json -o steps.json",
    "hinge export weights 3 --step 0 -o initial.safetensors",
    NULL,
};

const struct verb verb_export = {
    .name = "export",
    .purpose = "runs, steps or evaluations as CSV or JSON (columns: results/README.md), or a run's weights",
    .arguments = "WHAT [SUITE|RUN]",
    .least = 1,
    .most = 2,
    .flags = flags,
    .examples = examples,
    .run = run,
};
