/* bench_store: a database of 10,000 runs x 1,000 steps: what making it costs, and what each question to it takes.
 *
 *   bench_store [RUNS [STEPS]]
 *
 * The runs are simulated, ten variants over RUNS / 10 seeds, in a folder under TMPDIR (about 0.6 GB) that is removed.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/report/report.h"
#include "harness/runner.h"
#include "harness/simulated.h"
#include "kernels/clock.h"

enum { VARIANTS = 10 };

struct bench {
    int runs, steps;
    char folder[512], database[600], suite[600];
};

/* --- the questions ------------------------------------------------------------------------------------------------ */

static status make_runs(const struct bench *b) {
    struct suite suite;
    struct dataset_list datasets;
    struct plan plan;
    struct runner_summary summary;
    TRY(suite_load(&suite, &(struct suite_request){.path = b->suite}));
    TRY(datasets_open(&datasets, &suite, "none"));
    TRY(plan_create(&plan, &suite, &datasets, backend_find("simulated")));
    const struct runner_request request = {.database = b->database, .plan = &plan, .jobs = 1};
    status s = runner_run(&request, &summary);
    plan_free(&plan);
    datasets_close(&datasets);
    suite_free(&suite);
    return s;
}

static status list_suites(const struct bench *b) {
    struct store *store;
    struct suite_summary *rows;
    int count;
    TRY(store_open(&store, b->database, STORE_READ));
    status s = store_list_suites(store, &rows, &count);
    if (!s) free(rows);
    store_close(store);
    return s;
}

static status load(const struct bench *b, enum results_detail detail, struct results *results) {
    struct store *store;
    TRY(store_open(&store, b->database, STORE_READ));
    status s = store_load_results_at(store, "bench", NULL, detail, results);
    store_close(store);
    return s;
}

static status compare_by(const struct bench *b, bool thorough) {
    struct results results;
    struct observation *observations;
    struct comparison_table table;
    size_t count;
    TRY(load(b, RESULTS_FIGURES, &results));
    TRY(results_observations(&results, results.metric, &observations, &count));
    results.design.thorough = thorough;
    status s = compare_variants(&results.design, observations, count, &table);
    if (!s) comparison_table_free(&table);
    free(observations);
    results_free(&results);
    return s;
}

static status compare(const struct bench *b) { return compare_by(b, false); }
static status compare_json(const struct bench *b) { return compare_by(b, true); }

static status load_traces(const struct bench *b) {
    struct results results;
    TRY(load(b, RESULTS_ALL, &results));
    results_free(&results);
    return NULL;
}

static status report(const struct bench *b) {
    struct results results;
    char pdf[4096];
    TRY(load(b, RESULTS_ALL, &results));
    struct report_request request = {.results = &results, .output_directory = b->folder, .templates = "reports"};
    status s = report_write(&request, pdf);
    results_free(&results);
    return s;
}

/* --- around them -------------------------------------------------------------------------------------------------- */

static const struct question {
    const char *name;
    status (*ask)(const struct bench *b);
    double most_seconds; /* at 10,000 runs of 1,000 steps on a machine that does nothing else; 0: not limited */
} questions[] = {
    {"run (plan, store)", make_runs, 0}, {"status", list_suites, 0.5},        {"compare", compare, 1},
    {"compare --json", compare_json, 1}, {"load all traces", load_traces, 0}, {"report (figures, PDF)", report, 10},
};

static status write_suite(const struct bench *b) {
    FILE *out = fopen(b->suite, "w");
    if (!out) return status_errno("%s", b->suite);
    fprintf(out, "name: bench\npreset: tiny\nbaseline: v0\nmetric: bpb.artifact\nmargin: 0.002\nseeds: [0");
    for (int seed = 1; seed < b->runs / VARIANTS; seed++) fprintf(out, ", %d", seed);
    fprintf(out, "]\nset: {run.backend: simulated, simulated.trace: %d}\nvariants:\n", b->steps);
    for (int v = 0; v < VARIANTS; v++) fprintf(out, "  v%d: {simulated.stream: %d}\n", v, v);
    return fclose(out) == 0 ? NULL : status_errno("%s", b->suite);
}

static status ask_all(const struct bench *b) {
    TRY(write_suite(b));
    printf("%d runs x %d steps\n%-24s %9s %9s %9s\n", b->runs, b->steps, "", "seconds", "CPU", "allowed");
    for (size_t i = 0; i < sizeof questions / sizeof *questions; i++) {
        double start = clock_seconds(), most = questions[i].most_seconds;
        clock_t used = clock();
        TRY(status_context(questions[i].ask(b), "%s", questions[i].name));
        double seconds = clock_seconds() - start;
        printf("%-24s %9.2f %9.2f", questions[i].name, seconds, (double)(clock() - used) / CLOCKS_PER_SEC);
        if (most > 0) printf(" %9.1f", most);
        if (most > 0 && seconds > most) printf("  over the limit of %g s", most);
        putchar('\n');
        fflush(stdout);
    }
    return NULL;
}

static void remove_folder(const char *path) {
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char inside[1200];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        snprintf(inside, sizeof inside, "%s/%s", path, entry->d_name);
        if (entry->d_type == DT_DIR)
            remove_folder(inside);
        else
            unlink(inside);
    }
    if (folder) closedir(folder);
    rmdir(path);
}

int main(int argc, char **argv) {
    struct bench b = {.runs = argc > 1 ? atoi(argv[1]) : 10000, .steps = argc > 2 ? atoi(argv[2]) : 1000};
    const char *temporary = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
    if (b.runs < 2 * VARIANTS || b.steps < 1) {
        fprintf(stderr, "usage: bench_store [RUNS [STEPS]], at least %d runs\n", 2 * VARIANTS);
        return 2;
    }
    snprintf(b.folder, sizeof b.folder, "%.400s/hinge-bench-XXXXXX", temporary);
    if (!mkdtemp(b.folder)) return perror(b.folder), 4;
    snprintf(b.database, sizeof b.database, "%s/hinge.db", b.folder);
    snprintf(b.suite, sizeof b.suite, "%s/bench.yaml", b.folder);
    status s = ask_all(&b);
    remove_folder(b.folder);
    if (!s) return 0;
    fprintf(stderr, "bench_store: %s\n", status_text(s));
    int code = status_kind(s);
    status_free(s);
    return code;
}
