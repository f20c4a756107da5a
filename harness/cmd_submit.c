/* cmd_submit: hands a suite to Slurm: an array job whose tasks do a part each, and a job that folds them in. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/cmd_common.h"
#include "harness/cmd_plan.h"
#include "harness/launch/parts.h"
#include "harness/launch/slurm.h"
#include "harness/sequential.h"
#include "harness/simulated.h"
#include "harness/units.h"
#include "harness/verbs.h"
#include "model/files.h"

/* What is about to be submitted. */
struct submission_plan {
    const struct invocation *in;
    struct prepared *prepared;
    struct parts parts;
    int tasks;     /* parts that the suite falls into */
    int runs_open; /* to be done now */
    int open_count;
    int *open; /* those parts that have any of them, ascending */
    char program[4096], task_script[4096], merge_script[4096];
};

/* --- which parts -------------------------------------------------------------------------------------------------- */

static status find_open_parts(struct submission_plan *p, const bool *needed, int *parts_of) {
    const struct plan *plan = &p->prepared->plan;
    bool *open = calloc((size_t)p->tasks + 1, sizeof *open);
    p->open = calloc((size_t)p->tasks + 1, sizeof *p->open);
    plan_number_parts(plan, p->tasks, parts_of);
    for (int i = 0; open && i < plan->run_count; i++) {
        if (needed[i]) open[parts_of[plan->runs[i].stages[PART_TRAIN]]] = true;
        p->runs_open += needed[i];
    }
    for (int part = 1; open && p->open && part <= p->tasks; part++)
        if (open[part]) p->open[p->open_count++] = part;
    bool good = open && p->open;
    free(open);
    return good ? NULL : status_new(STATUS_SYSTEM, "out of memory");
}

static status choose_parts(struct submission_plan *p) {
    const struct plan *plan = &p->prepared->plan;
    bool *needed = calloc((size_t)plan->run_count + 1, sizeof *needed);
    int *parts_of = calloc((size_t)plan->stage_count + 1, sizeof *parts_of);
    const char *database = access(p->parts.database, F_OK) == 0 ? p->parts.database : NULL;
    status s =
        needed && parts_of ? sequential_needed(database, plan, needed) : status_new(STATUS_SYSTEM, "out of memory");
    if (!s) s = find_open_parts(p, needed, parts_of);
    free(needed);
    free(parts_of);
    return s;
}

static void count_tasks(struct submission_plan *p) {
    int trainings = plan_trainings(&p->prepared->plan), asked = PARTS_MOST;
    if (cli_text(p->in, "tasks")) asked = (int)cli_int(p->in, "tasks");
    p->tasks = trainings < asked ? trainings : asked;
}

/* --- the words of sbatch ------------------------------------------------------------------------------------------ */

static void add_user_flags(const struct submission_plan *p, struct words *words) {
    for (int i = 1; i < p->in->count; i++) words_add(words, "%s", p->in->arguments[i]);
}

/* "1,3,5" */
static void add_array(const struct submission_plan *p, struct words *words) {
    char list[8 * PARTS_MOST] = "";
    size_t used = 0;
    for (int i = 0; i < p->open_count; i++)
        used += (size_t)snprintf(list + used, sizeof list - used, "%s%d", i ? "," : "", p->open[i]);
    words_add(words, "--array=%s", list);
}

static void add_run(const struct submission_plan *p, const char *suite, const char *data, struct words *words) {
    const char *settings[CLI_REPEATS];
    int count = cli_repeated(p->in, "set", settings);
    words_add(words, "%s", suite);
    words_add(words, "--data=%s", data);
    if (cli_text(p->in, "scale")) words_add(words, "--scale=%s", cli_text(p->in, "scale"));
    for (int i = 0; i < count; i++) words_add(words, "--set=%s", settings[i]);
    if (!suite_simulated(&p->prepared->suite)) words_add(words, "--device=%s", p->prepared->plan.ops->name);
    if (cli_text(p->in, "jobs")) words_add(words, "--jobs=%s", cli_text(p->in, "jobs"));
    words_add(words, "--checkpoint=%s", cli_text(p->in, "checkpoint"));
    if (cli_switch(p->in, "retry")) words_add(words, "--retry");
    if (cli_switch(p->in, "mix-builds")) words_add(words, "--mix-builds");
}

/* Slurm's own words on a task go nowhere unless the user says --output: each task writes its log itself, since in the
 * pattern that Slurm makes of a path some letters mean something else. */
static void begin_words(const struct submission_plan *p, const char *name, struct words *words) {
    words_add(words, "sbatch");
    words_add(words, "--job-name=%s", name);
    words_add(words, "--output=/dev/null");
    add_user_flags(p, words);
    words_add(words, "--parsable");
}

static status task_words(const struct submission_plan *p, struct words *words) {
    char suite[4096], data[4096];
    TRY(absolute_path(p->prepared->suite.path, suite));
    TRY(absolute_path(cli_text(p->in, "data"), data));
    begin_words(p, "hinge", words);
    add_array(p, words);
    words_add(words, "%s", p->task_script);
    words_add(words, "%s", p->program);
    words_add(words, "%s", p->parts.folder);
    words_add(words, "%d", p->tasks);
    add_run(p, suite, data, words);
    return NULL;
}

static status merge_words(const struct submission_plan *p, const char *job, struct words *words) {
    char path[4096];
    begin_words(p, "hinge-merge", words);
    words_add(words, "--dependency=afterany:%s", job);
    words_add(words, "%s", p->merge_script);
    words_add(words, "%s", p->program);
    words_add(words, "%s", p->parts.folder);
    words_add(words, "--db=%s", p->parts.database);
    if (cli_switch(p->in, "mix-builds")) words_add(words, "--mix-builds");
    for (int i = 0; i < p->open_count; i++) {
        TRY(parts_database(&p->parts, p->open[i], p->tasks, path));
        words_add(words, "%s", path);
    }
    return NULL;
}

/* --- before and after --------------------------------------------------------------------------------------------- */

static status find_paths(struct submission_plan *p) {
    ssize_t length = readlink("/proc/self/exe", p->program, sizeof p->program - 1);
    if (length < 0) return status_errno("the path of this program cannot be found");
    p->program[length] = 0;
    TRY(parts_find(&p->parts, cli_text(p->in, "db"), &p->prepared->plan, cli_switch(p->in, "mix-builds")));
    TRY(parts_file(&p->parts, "task.sh", p->task_script));
    return parts_file(&p->parts, "merge.sh", p->merge_script);
}

/* Another build than the one that began is refused here, not by every task. */
static status check_build(const struct submission_plan *p, struct store *store) {
    struct provenance now;
    const struct suite *suite = &p->prepared->suite;
    if (cli_switch(p->in, "mix-builds") || suite_simulated(suite)) return NULL;
    provenance_collect(&now, p->prepared->plan.ops);
    return store_check_build(store, suite->name, suite->scale, &now);
}

static status update_store(const struct submission_plan *p, struct store *store) {
    const struct plan *plan = &p->prepared->plan;
    TRY(store_declare(store, plan, plan->datasets));
    TRY(check_build(p, store));
    TRY(parts_collect(&p->parts, store));
    for (int i = 0; cli_switch(p->in, "retry") && i < plan->stage_count; i++)
        TRY(store_retry(store, plan->stages[i].key));
    return NULL;
}

/* The suite is declared here, before any task runs, and what earlier tasks did is folded in. */
static status update(const struct submission_plan *p) {
    struct store *store;
    TRY(store_open(&store, p->parts.database, STORE_WRITE));
    status s = update_store(p, store);
    store_close(store);
    return s;
}

static status make_parts(const struct submission_plan *p) {
    for (int i = 0; i < p->open_count; i++) TRY(parts_prepare(&p->parts, p->open[i], p->tasks));
    TRY(file_write_atomic(p->task_script, slurm_task_script, strlen(slurm_task_script)));
    return file_write_atomic(p->merge_script, slurm_merge_script, strlen(slurm_merge_script));
}

/* How a user folds the parts in. */
static void print_merge(const struct submission_plan *p) {
    char database[4 * 4096] = "", folder[4 * 4096] = "";
    append_word(database, sizeof database, p->parts.database);
    append_word(folder, sizeof folder, p->parts.folder);
    printf("hinge merge --db %s%s %s/*/hinge.db", database, cli_switch(p->in, "mix-builds") ? " --mix-builds" : "",
           folder);
}

static void print_after(const struct submission_plan *p, const char *job, const char *merge_job) {
    char title[TITLE_CAPACITY];
    const struct suite *suite = &p->prepared->suite;
    printf("%s on %s: %d of %d runs in %d task%s: job %s\n", suite_title(suite->name, suite->scale, title),
           suite_simulated(suite) ? "no device (simulated)" : p->prepared->plan.ops->name, p->runs_open,
           p->prepared->plan.run_count, p->open_count, p->open_count == 1 ? "" : "s", job);
    if (*merge_job)
        printf("job %s then folds them into %s\n", merge_job, p->parts.database);
    else
        printf("when it has ended: "), print_merge(p), putchar('\n');
    printf("logs: %s/*/log\n", p->parts.folder);
    printf("next: %sthe same hinge submit again goes on with what is missing\n",
           suite->looks.count ? "this is what the next look needs; " : "");
}

/* --- submitting --------------------------------------------------------------------------------------------------- */

static status submit_words(status made, struct words *words, char job[32]) {
    status s = made ? made : slurm_submit(words, job);
    words_free(words);
    return s;
}

static status submit_merge(const struct submission_plan *p, const char *job, char merge_job[32]) {
    struct words words = {0};
    if (cli_switch(p->in, "no-merge")) return NULL;
    status s = submit_words(merge_words(p, job, &words), &words, merge_job);
    return status_context(s, "the tasks were submitted as job %s, but not what folds them in (hinge merge does)", job);
}

static void print_nothing(const struct submission_plan *p) {
    char title[TITLE_CAPACITY];
    const struct suite *suite = &p->prepared->suite;
    printf("%s: all %d runs have ended, or are not needed; nothing is submitted\n",
           suite_title(suite->name, suite->scale, title), p->prepared->plan.run_count);
}

static status submit(struct submission_plan *p) {
    char job[32], merge_job[32] = "";
    struct words words = {0};
    TRY(update(p));
    TRY(choose_parts(p));
    if (!p->open_count) {
        print_nothing(p);
        return NULL;
    }
    TRY(make_parts(p));
    TRY(submit_words(task_words(p, &words), &words, job));
    TRY(submit_merge(p, job, merge_job));
    print_after(p, job, merge_job);
    return NULL;
}

static status print_words(status made, struct words *words) {
    if (!made) words_print(words);
    words_free(words);
    return made;
}

static status print_all(struct submission_plan *p) {
    struct words words = {0};
    TRY(choose_parts(p));
    if (!p->open_count) {
        print_nothing(p);
        return NULL;
    }
    TRY(print_words(task_words(p, &words), &words));
    if (!cli_switch(p->in, "no-merge")) TRY(print_words(merge_words(p, "JOB", &words), &words));
    printf("\n%s:\n%s\n%s:\n%s", p->task_script, slurm_task_script, p->merge_script, slurm_merge_script);
    return NULL;
}

static status run(const struct invocation *in) {
    struct prepared prepared;
    struct submission_plan *p = calloc(1, sizeof *p);
    if (!p) return status_new(STATUS_SYSTEM, "out of memory");
    p->in = in;
    p->prepared = &prepared;
    status s = slurm_check_flags(in->arguments + 1, in->count - 1);
    if (!s && !cli_switch(in, "dry-run")) s = slurm_check();
    if (!s) s = prepare_plan(in, &prepared);
    if (s) {
        free(p);
        return s;
    }
    count_tasks(p);
    s = find_paths(p);
    if (!s) s = cli_switch(in, "dry-run") ? print_all(p) : submit(p);
    prepared_free(&prepared);
    free(p->open);
    free(p);
    return s;
}

static const struct flag_row flags[] = {
    {.name = "tasks",
     .type = FLAG_INT,
     .value_name = "N",
     .low = 1,
     .high = PARTS_MOST,
     .help = "parts of the suite, each the runs of every Nth training; as many as there are trainings when not given"},
    FLAG_ROWS_OF_A_SUITE,
    FLAG_ROW_CHECKPOINT,
    FLAG_ROW_RETRY,
    FLAG_ROW_MIX_BUILDS,
    {.name = "no-merge", .type = FLAG_SWITCH, .help = "submit no job that folds the parts in; hinge merge does"},
    {.name = "dry-run", .type = FLAG_SWITCH, .help = "print what sbatch would be given, word by word, and the scripts"},
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge submit recurrence --scale small",
    "hinge submit recurrence --tasks 8 --device cuda -- --partition=gpu --gpus=1 --time=4:00:00",
    "hinge submit demo --dry-run",
    NULL,
};

const struct verb verb_submit = {
    .name = "submit",
    .purpose = "hand a suite to Slurm as an array of parts, and a job that folds them in; again: what is missing",
    .arguments = "SUITE",
    .least = 1,
    .most = CLI_ARGUMENTS,
    .flags = flags,
    .notes =
        "What follows -- is given to sbatch, each flag with its value in one word. Each task writes a database of its "
        "own, FILE.parts/*/I-of-N/hinge.db beside FILE of --db. All machines must see the folders of the program, the "
        "suite, its data and the database, and the merge opens FILE on one of them. A suite with declared looks is "
        "submitted look by look: each call hands over what the next look needs, of the variants that are still open. "
        "One "
        "machine needs none of this.",
    .examples = examples,
    .run = run,
};
