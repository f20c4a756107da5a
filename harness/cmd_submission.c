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
#include "harness/provenance.h"
#include "harness/simulated.h"
#include "harness/store.h"
#include "harness/submission.h"
#include "harness/verbs.h"
#include "model/files.h"

/* Where the folder is made. */
struct record {
    const struct submission *submission;
    const char *code_path; /* of --code, or NULL */
    char folder[4096];     /* temporary, until everything is written */
};

/* --- figures ------------------------------------------------------------------------------------------------------ */

static void add_up(struct submission *s) {
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (!submission_counts(s, run)) continue;
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
        rows[count++] = (struct observation){.variant = name,
                                             .seed = run->seed,
                                             .value = failed ? NAN : run->artifact.value.nll_per_token,
                                             .failed = failed,
                                             .late = run->late};
    }
    const struct design design = {.baseline = s->baseline,
                                  .test = TEST_PAIRED_T,
                                  .correction = CORRECT_NONE,
                                  .alpha = RECORD_ALPHA,
                                  .margin = RECORD_MARGIN,
                                  .seed = s->results.design.seed};
    status failed = compare_variants(&design, rows, count, &s->table);
    free(rows);
    return failed;
}

/* --- the folder --------------------------------------------------------------------------------------------------- */

enum { PATH_CAPACITY = 4096 + 256 };

static status write_bytes(const struct record *r, const char *name, const void *bytes, size_t size) {
    char path[PATH_CAPACITY];
    snprintf(path, sizeof path, "%s/%s", r->folder, name);
    return file_write_atomic(path, bytes, size);
}

/* Prints one file: of the submission, or the log of one of its runs. */
static status write_file(const struct record *r, const char *name, void (*print)(FILE *out, const struct submission *s),
                         const struct result_run *run) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out) return status_new(STATUS_SYSTEM, "out of memory");
    if (run)
        submission_print_log(out, r->submission, run);
    else
        print(out, r->submission);
    status failed = fclose(out) == 0 ? write_bytes(r, name, text, size) : status_errno("%s", name);
    free(text);
    return failed;
}

static status copy_code(const struct record *r) {
    unsigned char *bytes;
    size_t size;
    if (!r->code_path) return NULL;
    TRY(file_read(r->code_path, &bytes, &size));
    status failed = write_bytes(r, r->submission->code, bytes, size);
    free(bytes);
    return failed;
}

static void log_name(const struct result_run *run, char name[64]) {
    snprintf(name, 64, "train_seed%" PRId64 ".log", run->seed);
}

static status write_files(const struct record *r) {
    const struct submission *s = r->submission;
    char name[64];
    for (int i = 0; i < s->results.run_count; i++) {
        if (!submission_counts(s, &s->results.runs[i])) continue;
        log_name(&s->results.runs[i], name);
        TRY(write_file(r, name, NULL, &s->results.runs[i]));
    }
    TRY(copy_code(r));
    TRY(write_file(r, "submission.json", submission_print_json, NULL));
    return write_file(r, "README.md", submission_print_readme, NULL);
}

static void remove_one(const struct record *r, const char *name) {
    char path[PATH_CAPACITY];
    snprintf(path, sizeof path, "%s/%s", r->folder, name);
    unlink(path);
}

static void remove_files(const struct record *r) {
    const struct submission *s = r->submission;
    char name[64];
    for (int i = 0; i < s->results.run_count; i++) {
        log_name(&s->results.runs[i], name);
        remove_one(r, name);
    }
    if (s->code) remove_one(r, s->code);
    remove_one(r, "submission.json");
    remove_one(r, "README.md");
    rmdir(r->folder);
}

/* All files in a folder beside it first, which then takes its name: a folder of that name is whole. */
static status write_folder(const struct submission *s, const char *code_path, const char *folder) {
    struct record r = {s, code_path, ""};
    if (access(folder, F_OK) == 0)
        return status_new(STATUS_USAGE, "%s is there already; give -o another folder, or remove it", folder);
    if (snprintf(r.folder, sizeof r.folder, "%s.XXXXXX", folder) >= (int)sizeof r.folder)
        return status_new(STATUS_USAGE, "-o: the path is too long");
    if (!mkdtemp(r.folder)) return status_errno("cannot make a folder beside %s", folder);
    status failed = write_files(&r);
    if (!failed && chmod(r.folder, 0755) != 0) failed = status_errno("%s", r.folder);
    if (!failed && rename(r.folder, folder) != 0) failed = status_errno("%s", folder);
    if (failed) remove_files(&r);
    return failed;
}

/* --- the verb ----------------------------------------------------------------------------------------------------- */

static status find_variant(struct submission *s, int64_t number) {
    for (int i = 0; i < s->results.run_count; i++) {
        const struct result_run *run = &s->results.runs[i];
        if (run->id != number) continue;
        s->variant = run->variant;
        if (submission_counts(s, run)) return NULL;
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

static bool is_taken(const char *name) {
    return !strcmp(name, "README.md") || !strcmp(name, "submission.json") || !strncmp(name, "train_seed", 10);
}

static status measure_code(const char *path, struct submission *s) {
    struct stat file;
    s->code_bytes = provenance_code_bytes();
    if (!path) return NULL;
    if (stat(path, &file) != 0) return status_errno("--code %s", path);
    s->code = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
    if (!S_ISREG(file.st_mode) || is_taken(s->code) || strlen(s->code) > 200)
        return status_new(STATUS_USAGE,
                          "--code %s: give one file, such as an archive of the sources, and no name that the folder "
                          "has already",
                          path);
    s->code_bytes = (size_t)file.st_size;
    return NULL;
}

static status load_revision(struct store *store, int64_t number, struct submission *s) {
    struct run_details details;
    TRY(store_run_details(store, number, &details));
    for (int i = 0; i < details.provenance_count; i++)
        if (strcmp(details.provenance[i].name, "revision") == 0)
            snprintf(s->revision, sizeof s->revision, "%s", details.provenance[i].value);
    run_details_free(&details);
    return NULL;
}

static status load(struct store *store, int64_t number, struct submission *s) {
    struct results alone = {0};
    TRY(store_load_run(store, number, &alone));
    status failed = store_load_results(store, alone.suite, alone.scale, &s->results);
    results_free(&alone);
    if (!failed) failed = store_run_config(store, number, &s->config);
    return failed ? failed : load_revision(store, number, s);
}

static const char *given(const struct invocation *in, const char *flag) {
    return cli_text(in, flag) ? cli_text(in, flag) : "";
}

static status make(const struct invocation *in, int64_t number, struct submission *s) {
    if (simulated_note(&s->results))
        return status_new(STATUS_USAGE, "run %" PRId64 " is simulated: only a trained model can be submitted", number);
    TRY(find_variant(s, number));
    TRY(find_baseline(in, s));
    TRY(measure_code(cli_text(in, "code"), s));
    s->author = given(in, "author");
    s->github_id = given(in, "github-id");
    add_up(s);
    TRY(compare_loss(s));
    TRY(write_folder(s, cli_text(in, "code"), cli_text(in, "output")));
    printf("%s: %s, %d seed%s, val_loss %.5f, val_bpb %.5f, %zu bytes\n", cli_text(in, "output"),
           s->results.variants[s->variant].name, s->seeds, s->seeds == 1 ? "" : "s", s->loss, s->bpb,
           s->bytes + s->code_bytes);
    submission_print_claim(stdout, s);
    if (submission_of_other_code(s))
        printf("Another code: revision %s is counted, %s trained the run; build that one, or give its archive with "
               "--code.\n",
               provenance_revision(), s->revision);
    return NULL;
}

static status run(const struct invocation *in) {
    int64_t number;
    struct store *store;
    struct submission submission = {0};
    TRY(run_number(in, &number));
    if (!cli_text(in, "output")) return status_new(STATUS_USAGE, "submission needs -o DIR, a folder to make");
    TRY(store_open(&store, cli_text(in, "db"), STORE_READ));
    status failed = load(store, number, &submission);
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
     .help = "an archive of the code: copied into the folder, its size counts (default: the size of the sources)"},
    {.name = "author", .type = FLAG_TEXT, .value_name = "NAME", .help = "for submission.json"},
    {.name = "github-id", .type = FLAG_TEXT, .value_name = "ID", .help = "for submission.json"},
    FLAG_ROW_DB,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge submission 3 -o reports/out/record",
    "hinge submission 3 -o reports/out/record --baseline none --code hinge.tar.xz --author Me",
    NULL,
};

const struct verb verb_submission = {
    .name = "submission",
    .purpose = "the record folder of openai/parameter-golf for a run's variant: figures, logs, claim",
    .arguments = "RUN",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
