/* bench_plan: what `hinge plan` predicts against what `hinge run` takes, time and memory, for short suites of each
 * size.
 *
 * A row is planned and run ROUNDS times, each time on an empty database; the medians are printed. Times on a machine
 * that does something else besides are not worth much, so both are taken right after one another.
 * Usage: bench_plan [tiny|demo|laptop|small ...]; the text that `hinge data prepare` makes must be there. */
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/clock.h"
#include "kernels/status.h"

enum { ROUNDS = 3, PATH = 512 };

static const struct bench_row {
    const char *preset;
    int steps, jobs;
} rows[] = {{"tiny", 16, 1}, {"tiny", 16, 2}, {"demo", 8, 1}, {"demo", 8, 2}, {"laptop", 4, 1}, {"small", 1, 1}};

struct figures {
    double seconds, bytes;
};

/* --- a suite ------------------------------------------------------------------------------------------------------ */

static status write_suite(const struct bench_row *row, const char *path) {
    FILE *file = fopen(path, "w");
    if (!file) return status_errno("%s", path);
    fprintf(file,
            "name: bench\nquestion: How long?\npreset: %s\nseeds: [1, 2]\nbaseline: plain\nmetric: bpb.raw\n"
            "set: {train.steps: %d, eval.tokens: 8192, quant.calibration_sequences: 8}\n"
            "variants:\n  plain: {}\n  repeated: {recurrence.layers: [1, 2], recurrence.repeats: 1}\n",
            row->preset, row->steps);
    return fclose(file) == 0 ? NULL : status_errno("%s", path);
}

/* --- plan and run ------------------------------------------------------------------------------------------------- */

static int start(const char *verb, const char *suite, const char *database, int jobs, const char *flag, int out,
                 pid_t *pid) {
    char number[16];
    snprintf(number, sizeof number, "%d", jobs);
    *pid = fork();
    if (*pid != 0) return *pid < 0 ? -1 : 0;
    int nowhere = open("/dev/null", O_WRONLY);
    dup2(out < 0 ? nowhere : out, STDOUT_FILENO);
    dup2(nowhere, STDERR_FILENO);
    execl("build/hinge", "hinge", verb, suite, "--db", database, "--jobs", number, flag, (char *)NULL);
    _exit(127);
}

static status planned(const char *suite, const char *database, int jobs, struct figures *out) {
    int ends[2], code;
    pid_t pid;
    if (pipe(ends) != 0 || start("plan", suite, database, jobs, "--json", ends[1], &pid) != 0)
        return status_errno("plan");
    close(ends[1]);
    FILE *stream = fdopen(ends[0], "r");
    json_error_t error;
    json_t *root = stream ? json_loadf(stream, 0, &error) : NULL, *estimate = json_object_get(root, "estimate");
    if (stream) fclose(stream);
    waitpid(pid, &code, 0);
    *out = (struct figures){json_number_value(json_object_get(estimate, "seconds_total")),
                            json_number_value(json_object_get(estimate, "memory_bytes"))};
    json_decref(root);
    return code == 0 ? NULL : status_new(STATUS_SYSTEM, "hinge plan %s failed", suite);
}

static status seen(const char *suite, const char *database, int jobs, struct figures *out) {
    int code;
    pid_t pid;
    struct rusage usage;
    double begin = clock_seconds();
    if (start("run", suite, database, jobs, NULL, -1, &pid) != 0 || wait4(pid, &code, 0, &usage) < 0)
        return status_errno("run");
    *out = (struct figures){clock_seconds() - begin, 1024.0 * (double)usage.ru_maxrss};
    return code == 0 ? NULL : status_new(STATUS_SYSTEM, "hinge run %s failed", suite);
}

/* --- a row -------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double values[ROUNDS]) {
    qsort(values, ROUNDS, sizeof *values, by_value);
    return values[ROUNDS / 2];
}

static void print_row(const struct bench_row *row, const struct figures *plans, const struct figures *runs) {
    double columns[6][ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        columns[0][i] = plans[i].seconds;
        columns[1][i] = runs[i].seconds;
        columns[2][i] = runs[i].seconds / plans[i].seconds;
        columns[3][i] = plans[i].bytes / 1e6;
        columns[4][i] = runs[i].bytes / 1e6;
        columns[5][i] = runs[i].bytes / plans[i].bytes;
    }
    printf("%-8s %5d %4d %10.2f %10.2f %8.2f", row->preset, row->steps, row->jobs, median(columns[0]),
           median(columns[1]), median(columns[2]));
    printf(" %12.1f %10.1f %8.2f\n", median(columns[3]), median(columns[4]), median(columns[5]));
}

static status bench(const struct bench_row *row, const char *folder) {
    char suite[PATH], database[PATH];
    struct figures plans[ROUNDS], runs[ROUNDS];
    snprintf(suite, sizeof suite, "%s/%s.yaml", folder, row->preset);
    TRY(write_suite(row, suite));
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(database, sizeof database, "%s/%s-%d-%d/hinge.db", folder, row->preset, row->jobs, i);
        TRY(planned(suite, database, row->jobs, &plans[i]));
        TRY(seen(suite, database, row->jobs, &runs[i]));
    }
    print_row(row, plans, runs);
    fflush(stdout);
    return NULL;
}

static bool wanted(const char *preset, int argc, char **argv) {
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], preset) == 0) return true;
    return argc == 1;
}

static status bench_all(const char *folder, int argc, char **argv) {
    char presets[PATH_MAX], link[PATH];
    snprintf(link, sizeof link, "%s/presets", folder);
    if (!realpath("suites/presets", presets) || symlink(presets, link) != 0) return status_errno("%s", link);
    printf("%-8s %5s %4s %10s %10s %8s %12s %10s %8s\n", "preset", "steps", "jobs", "plan s", "run s", "ratio",
           "plan MB", "run MB", "ratio");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (wanted(rows[i].preset, argc, argv)) TRY(bench(&rows[i], folder));
    return NULL;
}

static void remove_folder(const char *folder) {
    pid_t pid = fork();
    if (pid == 0) {
        execlp("rm", "rm", "-rf", folder, (char *)NULL);
        _exit(127);
    }
    if (pid > 0) waitpid(pid, NULL, 0);
}

int main(int argc, char **argv) {
    char folder[] = "/tmp/hinge-bench-XXXXXX";
    if (!mkdtemp(folder)) return 1;
    status s = bench_all(folder, argc, argv);
    remove_folder(folder);
    if (!s) return 0;
    fprintf(stderr, "bench_plan: %s\n", status_text(s));
    return (int)status_kind(s);
}
