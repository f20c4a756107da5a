/* cmd_run: does what a suite asks for and the database does not have yet. */
#include <stdio.h>
#include <unistd.h>

#include "harness/cmd_common.h"
#include "harness/cmd_plan.h"
#include "harness/interrupt.h"
#include "harness/launch/ranks.h"
#include "harness/progress_line.h"
#include "harness/runner.h"
#include "harness/units.h"
#include "harness/verbs.h"

static void announce(const struct prepared *prepared) {
    char title[TITLE_CAPACITY], left[UNITS_CAPACITY], memory[UNITS_CAPACITY], warning[512], part[64] = "";
    const struct plan_estimate *e = &prepared->estimate;
    int to_do = 0;
    for (int kind = STAGE_TRAIN; kind < STAGE_KINDS; kind++) to_do += e->stages[kind] - e->done[kind];
    if (prepared->plan.parts) snprintf(part, sizeof part, ", part %d of %d", prepared->plan.part, prepared->plan.parts);
    fprintf(stderr, "%s%s: %d runs, %d done; %d stages to do",
            suite_title(prepared->suite.name, prepared->suite.scale, title), part, e->runs, e->runs_done, to_do);
    if (to_do)
        fprintf(stderr, ", about %s for %d job%s, %s of memory a job", format_duration(e->seconds_left, left), e->jobs,
                e->jobs == 1 ? "" : "s", format_bytes((double)memory_peak(&e->memory), memory));
    fputc('\n', stderr);
    if (to_do && significance_warning(prepared, warning)) fprintf(stderr, "warning: %s\n", warning);
}

enum { COMMAND_CAPACITY = 4 * 4096 };

/* "hinge VERB SUITE --scale S --db FILE": the command that reads what this one made. */
static const char *command(const struct invocation *in, const char *verb, const struct suite *suite,
                           char out[COMMAND_CAPACITY]) {
    *out = 0;
    text_append(out, COMMAND_CAPACITY, "hinge %s ", verb);
    append_word(out, COMMAND_CAPACITY, suite->name);
    if (*suite->scale) text_append(out, COMMAND_CAPACITY, " --scale ");
    if (*suite->scale) append_word(out, COMMAND_CAPACITY, suite->scale);
    if (cli_given(in, "db")) text_append(out, COMMAND_CAPACITY, " --db ");
    if (cli_given(in, "db")) append_word(out, COMMAND_CAPACITY, cli_text(in, "db"));
    return out;
}

static void print_next(const struct invocation *in, const struct prepared *prepared) {
    char first[COMMAND_CAPACITY] = "", second[COMMAND_CAPACITY];
    if (prepared->plan.parts) {
        append_word(first, sizeof first, cli_text(in, "db"));
        printf("next: the other parts, and hinge merge %s --db FILE\n", first);
        return;
    }
    printf("next: %s, %s\n", command(in, "compare", &prepared->suite, first),
           command(in, "report", &prepared->suite, second));
}

static void print_summary(const struct invocation *in, const struct prepared *prepared,
                          const struct runner_summary *s) {
    char took[UNITS_CAPACITY];
    printf("%d of %d runs done, %d failed; %d stages done now, %d before; %s\n", s->done, s->runs, s->failed,
           s->stages_run, s->stages_reused, format_duration(s->seconds, took));
    print_next(in, prepared);
}

static status run_plan(const struct invocation *in, const struct prepared *prepared, struct runner_summary *summary) {
    int jobs = prepared->estimate.jobs;
    struct progress_line *line = progress_line_new(jobs);
    if (!line) return status_new(STATUS_SYSTEM, "out of memory");
    const struct runner_request request = {
        .database = cli_text(in, "db"),
        .plan = &prepared->plan,
        .whole = prepared->plan.parts ? &prepared->whole : NULL,
        .jobs = jobs,
        .checkpoint_seconds = cli_real(in, "checkpoint"),
        .retry_failed = cli_switch(in, "retry"),
        .mix_builds = cli_switch(in, "mix-builds"),
        .callbacks = progress_line_callbacks(line),
    };
    interrupt_install();
    status failed = runner_run(&request, summary);
    progress_line_free(line);
    return failed;
}

/* A database that cannot be written is refused before anything is announced; the workers open it by themselves. */
static status reopen_for_writing(const struct invocation *in, struct prepared *prepared) {
    store_close(prepared->store);
    prepared->store = NULL;
    TRY(store_open(&prepared->store, cli_text(in, "db"), STORE_WRITE));
    store_close(prepared->store);
    prepared->store = NULL;
    return NULL;
}

static status run_prepared(const struct invocation *in, struct prepared *prepared) {
    if (cli_switch(in, "dry-run")) {
        plan_print(prepared, false);
        return NULL;
    }
    struct runner_summary summary = {0};
    TRY(prepared_check_device(prepared));
    TRY(reopen_for_writing(in, prepared));
    announce(prepared);
    TRY(run_plan(in, prepared, &summary));
    print_summary(in, prepared, &summary);
    if (summary.failed == 0) return NULL;
    char why[COMMAND_CAPACITY];
    return status_new(STATUS_DIVERGED, "%d of %d runs failed; %s says why, --retry tries them again", summary.failed,
                      summary.runs, command(in, "status", &prepared->suite, why));
}

/* What an older program made, or one that ended while it made it, is brought up to date before it is read. */
static status update(const struct invocation *in) {
    struct store *store;
    if (cli_switch(in, "dry-run") || access(cli_text(in, "db"), F_OK) != 0) return NULL;
    TRY(store_open(&store, cli_text(in, "db"), STORE_WRITE));
    store_close(store);
    return NULL;
}

/* Rank 0 runs the suite; the others follow it until it is done. */
static status run_on_ranks(const struct invocation *in, struct prepared *prepared, struct comm *comm) {
    if (comm->rank != 0) return ranks_follow(comm, &prepared->plan);
    prepared->plan.comm = comm;
    status failed = run_prepared(in, prepared);
    status ended = ranks_order(comm, ORDER_END, 0);
    if (!failed) return ended;
    status_free(ended);
    return failed;
}

static status launch(const struct invocation *in, struct prepared *prepared) {
    if (!comm_launched()) return run_prepared(in, prepared);
    if (cli_int(in, "jobs") > 1)
        return status_new(STATUS_USAGE, "--jobs works with one rank; several ranks share each training instead");
    if (prepared->plan.ops->device_memory) {
        prepared->plan.ops->choose_device(comm_local_rank());
        TRY(prepared->plan.ops->open());
    }
    struct comm comm;
    TRY(comm_open(&comm, prepared->plan.ops));
    status failed = run_on_ranks(in, prepared, &comm);
    comm_close(&comm);
    return failed;
}

static status run(const struct invocation *in) {
    struct prepared prepared;
    TRY(update(in));
    TRY(prepare(in, &prepared));
    status failed = launch(in, &prepared);
    prepared_free(&prepared);
    return failed;
}

static const struct flag_row flags[] = {
    FLAG_ROWS_OF_A_SUITE,
    FLAG_ROW_PART,
    FLAG_ROW_CHECKPOINT,
    FLAG_ROW_RETRY,
    FLAG_ROW_MIX_BUILDS,
    {.name = "dry-run", .type = FLAG_SWITCH, .help = "print the plan and change nothing"},
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge run suites/demo.yaml",
    "hinge run demo --scale tiny --jobs 2",
    "hinge run recurrence --set train.steps=200 --dry-run",
    "mpirun -np 4 hinge run recurrence",
    "hinge run recurrence --part 2/8 --db results/part2.db",
    NULL,
};

const struct verb verb_run = {
    .name = "run",
    .purpose = "do what a suite asks for and is not done yet; Ctrl-C stops, repeat to go on",
    .arguments = "SUITE",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
