/* cmd_merge: folds what other databases hold into this one. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "harness/json_out.h"
#include "harness/merge.h"
#include "harness/units.h"
#include "harness/verbs.h"

/* "12 runs: 8 new, 4 already here; 48 stages taken". */
static void describe(const struct merge_report *report, char *out, size_t size) {
    int runs = 0;
    *out = 0;
    for (int i = 0; i < MERGED_KINDS; i++) runs += report->runs[i];
    text_append(out, size, "%d run%s", runs, runs == 1 ? "" : "s");
    for (int i = 0, told = 0; i < MERGED_KINDS; i++)
        if (report->runs[i])
            text_append(out, size, "%s%d %s", told++ ? ", " : ": ", report->runs[i], merged_name((enum merged)i));
    text_append(out, size, "; %d stage%s taken", report->stages, report->stages == 1 ? "" : "s");
    if (report->files_missing) text_append(out, size, ", %d files of them missing there", report->files_missing);
}

/* What is told at the end: the first of all refusals, and how many there were. */
struct refusals {
    int count;
    status first;
};

static void keep(struct refusals *all, status s) {
    if (all->count++ == 0)
        all->first = s;
    else
        status_free(s);
}

static json_t *report_json(const char *file, const struct merge_report *report, const char *refused) {
    json_t *out = json_object(), *runs = json_object(), *refusals = json_array();
    json_object_set_new(out, "file", json_text(file));
    json_object_set_new(out, "refused", json_text(refused));
    for (int i = 0; i < MERGED_KINDS; i++)
        json_object_set_new(runs, merged_name((enum merged)i), json_integer(report->runs[i]));
    json_object_set_new(out, "runs", runs);
    json_object_set_new(out, "stages", json_integer(report->stages));
    json_object_set_new(out, "files_missing", json_integer(report->files_missing));
    for (int i = 0; i < report->refusal_count; i++) json_array_append_new(refusals, json_text(report->refusals[i]));
    json_object_set_new(out, "refusals", refusals);
    return out;
}

static void print_report(const char *file, const struct merge_report *report, const char *refused) {
    char line[1024];
    describe(report, line, sizeof line);
    if (refused)
        printf("refused: %s\n", refused);
    else
        printf("%s: %s\n", file, line);
    for (int i = 0; i < report->refusal_count; i++) printf("refused: %s\n", report->refusals[i]);
}

/* A file that cannot be taken does not keep the others from being taken; a machine that refuses does. */
static status merge_file(struct store *store, const struct merge_request *request, struct refusals *all, json_t *list) {
    struct merge_report report;
    status s = store_merge(store, request, &report);
    if (s && status_kind(s) == STATUS_SYSTEM && access(request->from, R_OK) == 0) return s;
    if (list)
        json_array_append_new(list, report_json(request->from, &report, s ? status_text(s) : NULL));
    else
        print_report(request->from, &report, s ? status_text(s) : NULL);
    if (s) keep(all, s);
    for (int i = 0; i < report.refusal_count; i++) keep(all, status_new(STATUS_DIFFERS, "%s", report.refusals[i]));
    merge_report_free(&report);
    return NULL;
}

static status merge_files(const struct invocation *in, struct store *store, struct refusals *all, json_t *list) {
    for (int i = 0; i < in->count; i++) {
        const struct merge_request request = {
            .from = in->arguments[i], .mix_builds = cli_switch(in, "mix-builds"), .dry_run = cli_switch(in, "dry-run")};
        TRY(merge_file(store, &request, all, list));
    }
    return NULL;
}

static status end(struct refusals *all) {
    if (all->count < 2) return all->first;
    status s =
        status_new(status_kind(all->first), "%d refusals, the first of them: %s", all->count, status_text(all->first));
    status_free(all->first);
    return s;
}

static status run(const struct invocation *in) {
    struct store *store;
    struct refusals all = {0};
    TRY(store_open(&store, cli_text(in, "db"), cli_switch(in, "dry-run") ? STORE_READ : STORE_WRITE));
    json_t *list = cli_switch(in, "json") ? json_array() : NULL;
    status s = merge_files(in, store, &all, list);
    store_close(store);
    if (list && !s)
        s = json_print(stdout, list);
    else
        json_decref(list);
    if (!s) return end(&all);
    status_free(all.first);
    return s;
}

static const struct flag_row flags[] = {
    FLAG_ROW_DB,
    {.name = "mix-builds", .type = FLAG_SWITCH, .help = "also what another build of hinge made of a suite"},
    {.name = "dry-run", .type = FLAG_SWITCH, .help = "say what would be taken and change nothing"},
    FLAG_ROW_JSON,
    FLAGS_END,
};

static const char *const examples[] = {
    "hinge merge results/part1.db results/part2.db",
    "hinge merge /elsewhere/hinge.db --dry-run",
    "hinge merge results/hinge.db.parts/*/*/hinge.db",
    NULL,
};

const struct verb verb_merge = {
    .name = "merge",
    .purpose = "fold the finished runs of other databases, with their files, into this one; repeating is harmless",
    .arguments = "FILE...",
    .least = 1,
    .most = CLI_ARGUMENTS,
    .flags = flags,
    .examples = examples,
    .run = run,
};
