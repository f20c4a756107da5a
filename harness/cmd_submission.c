/* cmd_submission: the record folder of the competition for a run's variant: submission.json, one training log a seed in
 * the competition's lines, and a README that says whether the variant beats a baseline by 0.005 nats at p < 0.01. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/cmd_common.h"
#include "harness/json_out.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/verbs.h"
#include "model/files.h"

/* The record rule: better by at least so many nats per token at less than this p; and the cap on all bytes. */
static const double record_margin = 0.005, record_alpha = 0.01;
enum { RECORD_BYTES = 16000000 };

struct submission {
    struct results results; /* of the suite */
    int variant;
    const char *baseline;
    size_t code_bytes;
    char folder[4096]; /* temporary, until everything is written */
    int seeds;         /* finished ones of the variant */
    double loss, bpb;  /* means over them */
    size_t bytes;      /* of the largest artifact */
    struct comparison_table table;
};

static bool counts(const struct submission *s, const struct result_run *run) {
    return run->variant == s->variant && strcmp(run->status, "done") == 0 && run->artifact.present;
}

/* --- figures ------------------------------------------------------------------------------------------------------ */

static void add_up(struct submission *s) {
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (!counts(s, run)) continue;
        s->seeds++;
        s->loss += run->artifact.value.nll_per_token;
        s->bpb += run->artifact.value.bpb;
        if (run->sizes.bytes > s->bytes) s->bytes = run->sizes.bytes;
    }
    s->loss /= s->seeds;
    s->bpb /= s->seeds;
}

/* Nats per token of the stored artifact, variant and baseline alone: one comparison, so nothing to correct. */
static status compare_loss(struct submission *s) {
    struct observation *rows = calloc((size_t)s->results.run_count + 1, sizeof *rows);
    if (!rows) return status_new(STATUS_SYSTEM, "out of memory");
    size_t count = 0;
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        const char *name = s->results.variants[run->variant].name;
        if (run->variant != s->variant && strcmp(name, s->baseline) != 0) continue;
        bool failed = strcmp(run->status, "failed") == 0;
        if (!failed && !run->artifact.present) continue;
        rows[count++] =
            (struct observation){name, run->seed, failed ? NAN : run->artifact.value.nll_per_token, failed, run->late};
    }
    const struct design design = {.baseline = s->baseline,
                                  .test = TEST_PAIRED_T,
                                  .correction = CORRECT_NONE,
                                  .alpha = record_alpha,
                                  .margin = record_margin,
                                  .seed = s->results.design.seed};
    status failed = compare_variants(&design, rows, count, &s->table);
    free(rows);
    return failed;
}

static const struct comparison *comparison_of(const struct submission *s) {
    const char *name = s->results.variants[s->variant].name;
    for (int i = 1; i < s->table.count; i++)
        if (strcmp(s->table.rows[i].variant, name) == 0) return &s->table.rows[i];
    return NULL;
}

/* --- submission.json ---------------------------------------------------------------------------------------------- */

static json_t *seed_json(const struct result_run *run) {
    json_t *object = json_object();
    json_object_set_new(object, "run", json_integer(run->id));
    json_object_set_new(object, "val_loss", json_number(run->artifact.value.nll_per_token));
    json_object_set_new(object, "val_bpb", json_number(run->artifact.value.bpb));
    json_object_set_new(object, "artifact_bytes", json_integer((json_int_t)run->sizes.bytes));
    json_object_set_new(object, "artifact_sha256", json_text(run->sizes.sha256));
    return object;
}

static void print_json_file(FILE *out, const struct submission *s) {
    json_t *root = json_object(), *seeds = json_array(), *results = json_object();
    char name[32];
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (!counts(s, run)) continue;
        snprintf(name, sizeof name, "%" PRId64, run->seed);
        json_array_append_new(seeds, json_integer(run->seed));
        json_object_set_new(results, name, seed_json(run));
    }
    json_object_set_new(root, "name", json_text(s->results.variants[s->variant].name));
    json_object_set_new(root, "val_loss", json_number(s->loss));
    json_object_set_new(root, "val_bpb", json_number(s->bpb));
    json_object_set_new(root, "bytes_total", json_integer((json_int_t)(s->bytes + s->code_bytes)));
    json_object_set_new(root, "bytes_code", json_integer((json_int_t)s->code_bytes));
    json_object_set_new(root, "seeds", seeds);
    json_object_set_new(root, "seed_results", results);
    json_dumpf(root, out, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    fputc('\n', out);
    json_decref(root);
}

/* --- the training log --------------------------------------------------------------------------------------------- */

static void print_validation(FILE *out, const char *label, const struct evaluation *e) {
    fprintf(out, "%s val_loss:%.4f val_bpb:%.4f eval_time:%.0fms\n", label, e->nll_per_token, e->bpb,
            1000 * e->seconds);
}

static void print_log(FILE *out, const struct submission *s, const struct result_run *run) {
    double elapsed = 0;
    char label[TEXT_CAPACITY + 32];
    fprintf(out, "seed:%" PRId64 " model_params:%" PRId64 " iterations:%zu\n", run->seed, run->parameter_count,
            run->step_count);
    for (size_t i = 0; i < run->step_count; i++) {
        const struct step_record *step = &run->trace[i];
        elapsed += step->milliseconds;
        fprintf(out, "step:%" PRId64 "/%zu train_loss:%.4f train_time:%.0fms step_avg:%.2fms\n", step->step + 1,
                run->step_count, step->loss, elapsed, elapsed / (double)(i + 1));
    }
    if (run->raw.present) print_validation(out, "raw", &run->raw.value);
    if (run->averaged.present) print_validation(out, "averaged", &run->averaged.value);
    fprintf(out, "Serialized model %s+xz: %zu bytes\nCode size: %zu bytes\nTotal submission size: %zu bytes\n",
            run->strategy, run->sizes.bytes, s->code_bytes, run->sizes.bytes + s->code_bytes);
    snprintf(label, sizeof label, "final_%s_xz_roundtrip", run->strategy);
    print_validation(out, label, &run->artifact.value);
    fprintf(out, "%s_exact val_loss:%.8f val_bpb:%.8f\n", label, run->artifact.value.nll_per_token,
            run->artifact.value.bpb);
}

/* --- README.md ---------------------------------------------------------------------------------------------------- */

static void print_claim(FILE *out, const struct submission *s) {
    const struct comparison *c = comparison_of(s);
    const char *name = s->results.variants[s->variant].name;
    if (!c || c->pairs < 2) {
        fprintf(out,
                "**No claim.** A test needs two seeds that %s and the baseline `%s` share; there %s %zu. Run more "
                "seeds.\n",
                name, s->baseline, c && c->pairs == 1 ? "is" : "are", c ? c->pairs : 0);
        return;
    }
    bool holds = c->delta < 0 && c->p_margin < record_alpha;
    fprintf(out,
            "**%s.** Over %zu seeds, paired, the loss of `%s` minus that of `%s` is %+.5f nats per token (%g %% "
            "interval %+.5f to %+.5f).\n",
            holds ? "The rule is met" : "The rule is not met", c->pairs, name, s->baseline, c->delta,
            100 * (1 - record_alpha), c->ci_low, c->ci_high);
    if (c->delta < 0)
        fprintf(out, "One-sided paired t test of an improvement of more than %g nats: p = %.3g; required p < %g.\n",
                record_margin, c->p_margin, record_alpha);
    else
        fprintf(out, "The variant is not better, so no test of an improvement of more than %g nats applies.\n",
                record_margin);
    if (c->summary.failed)
        fprintf(out, "%zu failed seeds of the variant could not enter the test.\n", c->summary.failed);
    if (c->late) fprintf(out, "Some of these runs were added after the declaration was frozen.\n");
}

static void print_readme(FILE *out, const struct submission *s) {
    const struct result_variant *v = &s->results.variants[s->variant];
    size_t total = s->bytes + s->code_bytes;
    fprintf(out, "# %s\n\n%s\n\nWhat differs from the suite's options: %s\n\n", v->name, s->results.question,
            *v->overrides ? v->overrides : "nothing");
    fprintf(out,
            "| seed | val_loss | val_bpb | artifact bytes | training log |\n| ---: | ---: | ---: | ---: | --- |\n");
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (counts(s, run))
            fprintf(out, "| %" PRId64 " | %.5f | %.5f | %zu | train_seed%" PRId64 ".log |\n", run->seed,
                    run->artifact.value.nll_per_token, run->artifact.value.bpb, run->sizes.bytes, run->seed);
    }
    fprintf(out, "\nMean val_loss %.5f, mean val_bpb %.5f, of the artifact as it was read back.\n", s->loss, s->bpb);
    fprintf(out, "Largest artifact %zu bytes + code %zu bytes = %zu bytes: %s the cap of %d.\n\n", s->bytes,
            s->code_bytes, total, total <= RECORD_BYTES ? "within" : "ABOVE", RECORD_BYTES);
    fprintf(out, "## Significance\n\nThe rule: better by at least %g nats per token at p < %g.\n\n", record_margin,
            record_alpha);
    print_claim(out, s);
    fprintf(out, "\nSuite %s%s%s, declaration sha256 %s, dataset %s sha256 %s.\n", s->results.suite,
            *s->results.scale ? " at scale " : "", s->results.scale, s->results.declaration_sha256, s->results.dataset,
            s->results.dataset_sha256);
}

/* --- the folder --------------------------------------------------------------------------------------------------- */

static status write_text(const struct submission *s, const char *name, char *text, size_t size) {
    char path[4096 + 64];
    snprintf(path, sizeof path, "%s/%s", s->folder, name);
    return file_write_atomic(path, text, size);
}

/* Prints one file: of the submission, or the log of one of its runs. */
static status write_file(const struct submission *s, const char *name,
                         void (*print)(FILE *out, const struct submission *s), const struct result_run *run) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return status_new(STATUS_SYSTEM, "out of memory");
    if (run)
        print_log(out, s, run);
    else
        print(out, s);
    status failed = fclose(out) == 0 ? write_text(s, name, text, size) : status_errno("%s", name);
    free(text);
    return failed;
}

static void log_name(const struct result_run *run, char name[64]) {
    snprintf(name, 64, "train_seed%" PRId64 ".log", run->seed);
}

static status write_files(const struct submission *s) {
    char name[64];
    for (int i = 0; i < s->results.run_count; i++) {
        if (!counts(s, &s->results.runs[i])) continue;
        log_name(&s->results.runs[i], name);
        TRY(write_file(s, name, NULL, &s->results.runs[i]));
    }
    TRY(write_file(s, "submission.json", print_json_file, NULL));
    return write_file(s, "README.md", print_readme, NULL);
}

static void remove_files(const struct submission *s) {
    char path[4096 + 64], name[64];
    for (int i = 0; i < s->results.run_count; i++) {
        log_name(&s->results.runs[i], name);
        snprintf(path, sizeof path, "%s/%s", s->folder, name);
        unlink(path);
    }
    for (int i = 0; i < 2; i++) {
        snprintf(path, sizeof path, "%s/%s", s->folder, i ? "README.md" : "submission.json");
        unlink(path);
    }
    rmdir(s->folder);
}

/* All files in a folder beside it first, which then takes its name: a folder of that name is whole. */
static status write_folder(struct submission *s, const char *folder) {
    if (access(folder, F_OK) == 0)
        return status_new(STATUS_USAGE, "%s is there already; give -o another folder, or remove it", folder);
    if (snprintf(s->folder, sizeof s->folder, "%s.XXXXXX", folder) >= (int)sizeof s->folder)
        return status_new(STATUS_USAGE, "-o: the path is too long");
    if (!mkdtemp(s->folder)) return status_errno("cannot make a folder beside %s", folder);
    status failed = write_files(s);
    if (!failed && chmod(s->folder, 0755) != 0) failed = status_errno("%s", s->folder);
    if (!failed && rename(s->folder, folder) != 0) failed = status_errno("%s", folder);
    if (failed) remove_files(s);
    return failed;
}

/* --- the verb ----------------------------------------------------------------------------------------------------- */

static status find_variant(struct submission *s, int64_t number) {
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (run->id != number) continue;
        s->variant = run->variant;
        if (counts(s, run)) return NULL;
        return status_new(STATUS_USAGE, "run %" PRId64 " is %s: only a finished run can be submitted", number,
                          run->status);
    }
    return status_new(STATUS_USAGE, "run %" PRId64 " is not in %s", number, s->results.suite);
}

static status find_baseline(const struct invocation *in, struct submission *s) {
    const char *names[s->results.variant_count];
    char allowed[1024];
    s->baseline = cli_text(in, "baseline") ? cli_text(in, "baseline") : s->results.design.baseline;
    if (strcmp(s->baseline, s->results.variants[s->variant].name) == 0)
        return status_new(STATUS_USAGE, "%s is the run's own variant: give another with --baseline NAME", s->baseline);
    for (int i = 0; i < s->results.variant_count; i++) {
        names[i] = s->results.variants[i].name;
        if (strcmp(names[i], s->baseline) == 0) return NULL;
    }
    return status_new(STATUS_USAGE, "--baseline: no variant is called \"%s\"; %s", s->baseline,
                      allowed_words(s->baseline, names, (size_t)s->results.variant_count, allowed));
}

static status measure_code(const struct invocation *in, struct submission *s) {
    struct stat file;
    const char *path = cli_text(in, "code");
    if (stat(path ? path : "/proc/self/exe", &file) != 0) return status_errno("%s", path ? path : "hinge");
    s->code_bytes = (size_t)file.st_size;
    return NULL;
}

static status load(struct store *store, int64_t number, struct results *results) {
    struct results alone = {0};
    TRY(store_load_run(store, number, &alone));
    status failed = store_load_results(store, alone.suite, alone.scale, results);
    results_free(&alone);
    return failed;
}

static status make(const struct invocation *in, int64_t number, struct submission *s) {
    if (simulated_note(&s->results))
        return status_new(STATUS_USAGE, "run %" PRId64 " is simulated: only a trained model can be submitted", number);
    TRY(find_variant(s, number));
    TRY(find_baseline(in, s));
    TRY(measure_code(in, s));
    add_up(s);
    TRY(compare_loss(s));
    TRY(write_folder(s, cli_text(in, "output")));
    printf("%s: %s, %d seed%s, val_loss %.5f, val_bpb %.5f, %zu bytes\n", cli_text(in, "output"),
           s->results.variants[s->variant].name, s->seeds, s->seeds == 1 ? "" : "s", s->loss, s->bpb,
           s->bytes + s->code_bytes);
    print_claim(stdout, s);
    return NULL;
}

static status run(const struct invocation *in) {
    int64_t number;
    struct store *store;
    struct submission submission = {0};
    TRY(run_number(in, &number));
    if (!cli_text(in, "output")) return status_new(STATUS_USAGE, "submission needs -o DIR, a folder to make");
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failed = load(store, number, &submission.results);
    store_close(store);
    if (!failed) failed = make(in, number, &submission);
    comparison_table_free(&submission.table);
    results_free(&submission.results);
    return failed;
}

static const struct flag_row flags[] = {
    {.name = "output", .letter = 'o', .type = FLAG_TEXT, .value_name = "DIR", .help = "the folder to make"},
    {.name = "baseline",
     .type = FLAG_TEXT,
     .value_name = "NAME",
     .help = "the variant to beat instead of the suite's baseline"},
    {.name = "code",
     .type = FLAG_TEXT,
     .value_name = "FILE",
     .help = "the code whose size counts instead of this program"},
    FLAG_ROW_DB,
    FLAGS_END,
};

static const char *const examples[] = {"hinge submission 3 -o reports/out/record", NULL};

const struct verb verb_submission = {
    .name = "submission",
    .purpose = "the record folder of the competition for a run's variant: figures, logs, claim",
    .arguments = "RUN",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
