/* cmd_plan: what a suite would do, what is done already, the time and memory it takes, and what it could show. */
#include "harness/cmd_plan.h"
#include "harness/cmd_common.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>

#include "harness/json_out.h"
#include "harness/simulated.h"
#include "harness/table.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "harness/verbs.h"
#include "model/trainer.h"

/* Each as its part of the time until all jobs have ended, so that they add up to about that. */
static double seconds_of_kind(const struct plan *plan, enum stage_kind kind, int jobs) {
    double sum = 0;
    for (int i = 0; i < plan->stage_count; i++)
        if (plan->stages[i].kind == kind && plan->stages[i].state != STAGE_DONE) sum += plan->stages[i].seconds;
    return sum / jobs;
}

static double run_seconds_left(const struct plan *plan, const struct plan_run *run) {
    double sum = 0;
    for (int part = 0; part < PART_COUNT; part++) {
        const struct plan_stage *stage = &plan->stages[run->stages[part]];
        if (stage->state != STAGE_DONE) sum += stage->seconds;
    }
    return sum;
}

struct variant_totals {
    int runs, done, failed, trainings;
    double seconds_left;
};

/* What variants share is counted with the first of them, so that the columns add up to the totals above. */
static struct variant_totals totals_of(const struct plan *plan, int variant, int jobs) {
    struct variant_totals totals = {0};
    for (int i = 0; i < plan->run_count; i++) {
        if (plan->runs[i].variant != variant) continue;
        int states[STAGE_STATES] = {0};
        for (int part = 0; part < PART_COUNT; part++) states[plan->stages[plan->runs[i].stages[part]].state]++;
        totals.runs++;
        totals.done += states[STAGE_DONE] == PART_COUNT;
        totals.failed += states[STAGE_FAILED] > 0;
    }
    for (int i = 0; i < plan->stage_count; i++) {
        if (plan->stages[i].variant != variant) continue;
        totals.trainings += plan->stages[i].kind == STAGE_TRAIN;
        if (plan->stages[i].state != STAGE_DONE) totals.seconds_left += plan->stages[i].seconds / jobs;
    }
    return totals;
}

static void print_variants(const struct plan *plan, int jobs) {
    static const struct table_column columns[] = {
        {"variant", ALIGN_LEFT, COLUMN_CUT},          {"runs", ALIGN_RIGHT, COLUMN_WHOLE},
        {"done", ALIGN_RIGHT, COLUMN_WHOLE},          {"failed", ALIGN_RIGHT, COLUMN_WHOLE},
        {"own trainings", ALIGN_RIGHT, COLUMN_WHOLE}, {"time left", ALIGN_RIGHT, COLUMN_WHOLE},
    };
    struct table *table = table_new(columns, (int)(sizeof columns / sizeof *columns));
    char left[UNITS_CAPACITY];
    for (int v = 0; v < plan->suite->variant_count; v++) {
        struct variant_totals totals = totals_of(plan, v, jobs);
        table_cell(table, "%s", plan->suite->variants[v].name);
        table_cell(table, "%d", totals.runs);
        table_cell(table, "%d", totals.done);
        table_cell(table, "%d", totals.failed);
        table_cell(table, "%d", totals.trainings);
        table_cell(table, "%s", format_duration(totals.seconds_left, left));
    }
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_runs(const struct plan *plan) {
    static const struct table_column columns[] = {
        {"variant", ALIGN_LEFT, COLUMN_CUT},      {"seed", ALIGN_RIGHT, COLUMN_WHOLE},
        {"train", ALIGN_LEFT, COLUMN_WHOLE},      {"raw", ALIGN_LEFT, COLUMN_WHOLE},
        {"average", ALIGN_LEFT, COLUMN_WHOLE},    {"averaged", ALIGN_LEFT, COLUMN_WHOLE},
        {"quantise", ALIGN_LEFT, COLUMN_WHOLE},   {"artifact", ALIGN_LEFT, COLUMN_WHOLE},
        {"time left", ALIGN_RIGHT, COLUMN_WHOLE},
    };
    struct table *table = table_new(columns, (int)(sizeof columns / sizeof *columns));
    char left[UNITS_CAPACITY];
    for (int i = 0; i < plan->run_count; i++) {
        const struct plan_run *run = &plan->runs[i];
        table_cell(table, "%s", plan->suite->variants[run->variant].name);
        table_cell(table, "%" PRId64, run->seed);
        for (int part = 0; part < PART_COUNT; part++)
            table_cell(table, "%s", stage_state_name(plan->stages[run->stages[part]].state));
        table_cell(table, "%s", format_duration(run_seconds_left(plan, run), left));
    }
    table_print(table, stdout, 2);
    table_free(table);
}

static void print_stages(const struct prepared *prepared) {
    static const struct table_column columns[] = {{"stage", ALIGN_LEFT, COLUMN_WHOLE},
                                                  {"all", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"done", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"to do", ALIGN_RIGHT, COLUMN_WHOLE},
                                                  {"time left", ALIGN_RIGHT, COLUMN_WHOLE}};
    const struct plan_estimate *e = &prepared->estimate;
    struct table *table = table_new(columns, 5);
    char left[UNITS_CAPACITY];
    for (int kind = STAGE_TRAIN; kind < STAGE_KINDS; kind++) {
        table_cell(table, "%s", stage_name(kind));
        table_cell(table, "%d", e->stages[kind]);
        table_cell(table, "%d", e->done[kind]);
        table_cell(table, "%d", e->stages[kind] - e->done[kind]);
        table_cell(table, "%s", format_duration(seconds_of_kind(&prepared->plan, kind, e->jobs), left));
    }
    table_print(table, stdout, 2);
    table_free(table);
}

enum { LABEL_COLUMNS = 10, LINE_CAPACITY = 512 };

/* "label     text", the text in as many lines as it takes. */
static void print_labelled(const char *label, const char *text) {
    printf("%-*s", LABEL_COLUMNS, label);
    text_print(stdout, text, LABEL_COLUMNS, LABEL_COLUMNS);
}

static void print_warning(const char *text) {
    printf("%swarning%s   ", terminal_style(stdout, STYLE_WARN), terminal_style(stdout, STYLE_PLAIN));
    text_print(stdout, text, LABEL_COLUMNS, LABEL_COLUMNS);
}

static void print_time(const struct plan_estimate *e) {
    char left[UNITS_CAPACITY], total[UNITS_CAPACITY], line[LINE_CAPACITY] = "";
    text_append(line, sizeof line, "about %s left of %s, ", format_duration(e->seconds_left, left),
                format_duration(e->seconds_total, total));
    if (e->jobs == 1)
        text_append(line, sizeof line, "one job at a time");
    else
        text_append(line, sizeof line, "%d jobs at a time", e->jobs);
    if (e->runs_done == e->runs)
        text_append(line, sizeof line, "; everything is done");
    else if (e->measured)
        text_append(line, sizeof line, ", from the rates of stored stages");
    else if (!isfinite(e->gflops))
        text_append(line, sizeof line, ": no like stage is stored, and none can be timed now");
    else
        text_append(line, sizeof line,
                    ", from counted operations and a training slice of %zu tokens timed now: %.0f %% of %.0f GFLOP/s",
                    e->slice_tokens, 100 * e->efficiency, e->gflops);
    if (e->efficiency > 1) text_append(line, sizeof line, "; other work on this machine makes this uncertain");
    print_labelled("time", line);
}

/* How long a training is, and how high its rates are. */
struct training {
    int64_t steps, tokens, full_rates; /* steps at full rates */
    double first;                      /* multiplier of the first step's rates */
};

static struct training training_of(const struct config *c) {
    int64_t full = c->train_steps - c->train_warmdown;
    return (struct training){.steps = c->train_steps,
                             .tokens = c->train_steps * c->train_batch_tokens,
                             .full_rates = full > 0 ? full : 0,
                             .first = trainer_multiplier(c, 0)};
}

static bool same_training(const struct training *a, const struct training *b) {
    return a->steps == b->steps && a->tokens == b->tokens && a->full_rates == b->full_rates && a->first == b->first;
}

static const struct config *baseline_config(const struct suite *suite) {
    return &suite->variants[suite_variant_find(suite, suite->design.baseline)].config;
}

/* Full rates for long are what small batches blow up under (suites/stability.yaml). */
static void print_training(const struct suite *suite) {
    const struct config *c = baseline_config(suite);
    struct training t = training_of(c);
    char steps[UNITS_CAPACITY], tokens[UNITS_CAPACITY], full[UNITS_CAPACITY], line[LINE_CAPACITY] = "";
    text_append(line, sizeof line, "%s%s step%s of %s tokens", c->train_seconds > 0 ? "at most " : "",
                format_count(t.steps, steps), t.steps == 1 ? "" : "s", format_count(c->train_batch_tokens, tokens));
    if (c->train_seconds > 0) /* and then the clock says when the rates fall */
        text_append(line, sizeof line, " or %g s", c->train_seconds);
    else if (t.full_rates == t.steps)
        text_append(line, sizeof line, "; full rates to the end");
    else if (t.full_rates > 0)
        text_append(line, sizeof line, "; full rates for %s of them, then down to 0", format_count(t.full_rates, full));
    else
        text_append(line, sizeof line, "; rates from %.3g of the full ones down to 0", t.first);
    bool others = false;
    for (int v = 0; v < suite->variant_count; v++) {
        struct training other = training_of(&suite->variants[v].config);
        others |= !same_training(&t, &other);
    }
    if (others) text_append(line, sizeof line, " (the baseline)");
    print_labelled("training", line);
}

/* What the program and the text take, and what each kind of stage adds while it runs. */
static void print_memory(const struct memory_use *use) {
    char peak[UNITS_CAPACITY], bytes[UNITS_CAPACITY], line[LINE_CAPACITY] = "";
    text_append(line, sizeof line, "%s a job: %s of program and text, and to ",
                format_bytes((double)memory_peak(use), peak), format_bytes((double)use->process, bytes));
    for (int kind = STAGE_TRAIN; kind < STAGE_KINDS; kind++)
        text_append(line, sizeof line, "%s%s %s", kind == STAGE_TRAIN ? "" : ", ", stage_name(kind),
                    format_bytes((double)use->stages[kind], bytes));
    print_labelled("memory", line);
}

static void print_device(const struct prepared *prepared) {
    char needs[UNITS_CAPACITY], available[UNITS_CAPACITY], line[LINE_CAPACITY + 512] = "";
    if (!prepared->plan.ops->device_memory) return;
    text_append(line, sizeof line, "%s: %s of its memory a job; ", prepared->plan.ops->name,
                format_bytes((double)prepared->estimate.memory.device, needs));
    if (*prepared->device_problem)
        text_append(line, sizeof line, "it cannot be used here: %s", prepared->device_problem);
    else
        text_append(line, sizeof line, "%s are free%s", format_bytes((double)prepared->room.bytes_free, available),
                    prepared->room.devices > 1 ? " on each of the devices" : "");
    print_labelled("device", line);
    status refused = *prepared->device_problem ? NULL : prepared_check_device(prepared);
    if (refused) print_warning(status_text(refused));
    status_free(refused);
}

static void print_power(const struct prepared *prepared) {
    const struct design *design = &prepared->suite.design;
    const struct plan_estimate *e = &prepared->estimate;
    char line[LINE_CAPACITY] = "", warning[512];
    text_append(line, sizeof line, "%s of %s against %s, %s over %d comparison%s, alpha %g", test_name(design->test),
                prepared->suite.metric, design->baseline, correction_name(design->correction), e->family,
                e->family == 1 ? "" : "s", design->alpha);
    if (design->margin > 0) text_append(line, sizeof line, ", margin %g", design->margin);
    print_labelled("test", line);
    if (e->attainable_p > 0)
        printf("smallest  p = %.4g with %d seeds, before correction\n", e->attainable_p, prepared->suite.seed_count);
    if (!significance_warning(prepared, warning)) return;
    print_warning(warning);
}

void plan_print(const struct prepared *prepared, bool each_run) {
    const struct suite *suite = &prepared->suite;
    const struct plan_estimate *e = &prepared->estimate;
    print_question(suite);
    if (prepared->plan.parts)
        printf("runs      %d of %d in part %d of %d, %d done\n", e->runs, prepared->whole.run_count,
               prepared->plan.part, prepared->plan.parts, e->runs_done);
    else
        printf("runs      %d variants x %d seeds = %d, %d done\n", suite->variant_count, suite->seed_count, e->runs,
               e->runs_done);
    if (*suite->settings) print_labelled("set", suite->settings);
    if (suite_simulated(suite)) print_labelled("backend", "simulated: figures are drawn, nothing is trained");
    if (!suite_simulated(suite)) print_training(suite);
    print_time(e);
    if (!suite_simulated(suite)) print_memory(&e->memory);
    print_device(prepared);
    print_power(prepared);
    putchar('\n');
    print_stages(prepared);
    putchar('\n');
    if (each_run)
        print_runs(&prepared->plan);
    else
        print_variants(&prepared->plan, e->jobs);
}

static json_t *stages_json(const struct plan_estimate *e) {
    json_t *stages = json_object();
    for (int kind = STAGE_TRAIN; kind < STAGE_KINDS; kind++)
        json_object_set_new(stages, stage_name(kind),
                            json_pack("{s:i, s:i}", "all", e->stages[kind], "done", e->done[kind]));
    return stages;
}

static json_t *run_json(const struct plan *plan, const struct plan_run *run) {
    json_t *object = json_object(), *stages = json_object();
    json_object_set_new(object, "variant", json_text(plan->suite->variants[run->variant].name));
    json_object_set_new(object, "seed", json_integer(run->seed));
    json_object_set_new(object, "key", json_text(run->key));
    for (int part = 0; part < PART_COUNT; part++) {
        const struct plan_stage *stage = &plan->stages[run->stages[part]];
        json_t *entry = json_object();
        json_object_set_new(entry, "key", json_text(stage->key));
        json_object_set_new(entry, "state", json_text(stage_state_name(stage->state)));
        json_object_set_new(entry, "seconds", json_number(stage->seconds));
        json_object_set_new(entry, "shared_by", json_integer(stage->uses));
        json_object_set_new(stages, run_part_name(part), entry);
    }
    json_object_set_new(object, "stages", stages);
    json_object_set_new(object, "seconds_left", json_number(run_seconds_left(plan, run)));
    return object;
}

static json_t *memory_json(const struct memory_use *use) {
    json_t *object = json_pack("{s:I}", "process", (json_int_t)use->process);
    for (int kind = STAGE_TRAIN; kind < STAGE_KINDS; kind++)
        json_object_set_new(object, stage_name(kind), json_integer((json_int_t)use->stages[kind]));
    return object;
}

static json_t *estimate_json(const struct plan_estimate *e) {
    json_t *object = json_object();
    json_object_set_new(object, "runs", json_integer(e->runs));
    json_object_set_new(object, "runs_done", json_integer(e->runs_done));
    json_object_set_new(object, "stages", stages_json(e));
    json_object_set_new(object, "jobs", json_integer(e->jobs));
    json_object_set_new(object, "seconds_total", json_number(e->seconds_total));
    json_object_set_new(object, "seconds_left", json_number(e->seconds_left));
    json_object_set_new(object, "from_stored_rates", json_boolean(e->measured));
    json_object_set_new(object, "gflops", json_number(e->gflops));
    json_object_set_new(object, "training_efficiency", json_number(e->efficiency));
    json_object_set_new(object, "memory_bytes", json_integer((json_int_t)memory_peak(&e->memory)));
    json_object_set_new(object, "memory", memory_json(&e->memory));
    json_object_set_new(object, "comparisons", json_integer(e->family));
    json_object_set_new(object, "attainable_p", json_number(e->attainable_p));
    json_object_set_new(object, "needed_seeds", json_integer((json_int_t)e->needed_seeds));
    json_object_set_new(object, "can_be_significant", json_boolean(e->can_be_significant));
    return object;
}

static json_t *training_json(const struct suite *suite) {
    struct training t = training_of(baseline_config(suite));
    json_t *object = json_object();
    json_object_set_new(object, "steps", json_integer(t.steps));
    json_object_set_new(object, "tokens", json_integer(t.tokens));
    json_object_set_new(object, "steps_at_full_rates", json_integer(t.full_rates));
    json_object_set_new(object, "first_multiplier", json_number(t.first));
    return object;
}

/* Bytes of a job, bytes that are free, whether all jobs fit, and why the device cannot be used; null for a CPU. */
static json_t *device_json(const struct prepared *prepared) {
    if (!prepared->plan.ops->device_memory) return json_null();
    json_t *object = json_object();
    json_object_set_new(object, "backend", json_text(prepared->plan.ops->name));
    json_object_set_new(object, "memory_bytes", json_integer((json_int_t)prepared->estimate.memory.device));
    json_object_set_new(object, "free_bytes", json_integer((json_int_t)prepared->room.bytes_free));
    json_object_set_new(object, "devices", json_integer(prepared->room.devices));
    status refused = prepared_check_device(prepared);
    json_object_set_new(object, "fits", json_boolean(!refused));
    status_free(refused);
    json_object_set_new(object, "problem",
                        *prepared->device_problem ? json_text(prepared->device_problem) : json_null());
    return object;
}

status plan_print_json(const struct prepared *prepared) {
    const struct suite *suite = &prepared->suite;
    json_t *root = json_object(), *runs = json_array();
    json_object_set_new(root, "suite", json_text(suite->name));
    json_object_set_new(root, "scale", json_text(suite->scale));
    json_object_set_new(root, "simulated", json_boolean(suite_simulated(suite)));
    json_object_set_new(root, "question", json_text(suite->question));
    json_object_set_new(root, "settings", json_text(suite->settings));
    json_object_set_new(root, "baseline", json_text(suite->design.baseline));
    json_object_set_new(root, "metric", json_text(suite->metric));
    json_object_set_new(root, "test", json_text(test_name(suite->design.test)));
    json_object_set_new(root, "correction", json_text(correction_name(suite->design.correction)));
    json_object_set_new(root, "alpha", json_number(suite->design.alpha));
    json_object_set_new(root, "margin", json_number(suite->design.margin));
    json_object_set_new(root, "training", training_json(suite));
    json_object_set_new(root, "estimate", estimate_json(&prepared->estimate));
    json_object_set_new(root, "device", device_json(prepared));
    for (int i = 0; i < prepared->plan.run_count; i++)
        json_array_append_new(runs, run_json(&prepared->plan, &prepared->plan.runs[i]));
    json_object_set_new(root, "runs", runs);
    return json_print(stdout, root);
}

static status run(const struct invocation *in) {
    struct prepared prepared;
    TRY(prepare(in, &prepared));
    status failed = NULL;
    if (cli_switch(in, "json"))
        failed = plan_print_json(&prepared);
    else
        plan_print(&prepared, cli_switch(in, "runs"));
    prepared_free(&prepared);
    return failed;
}

static const struct flag_row flags[] = {
    FLAG_ROWS_OF_A_SUITE,
    FLAG_ROW_PART,
    {.name = "runs", .type = FLAG_SWITCH, .help = "the state of each run instead of a line for each variant"},
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge plan demo",
    "hinge plan demo --runs",
    "hinge plan recurrence --scale laptop --jobs 2",
    "hinge plan suites/rope.yaml --scale tiny --set train.steps=50",
    NULL,
};

const struct verb verb_plan = {
    .name = "plan",
    .purpose = "what a suite would do: runs, stages done, time, memory, attainable p",
    .arguments = "SUITE",
    .least = 1,
    .most = 1,
    .flags = flags,
    .examples = examples,
    .run = run,
};
