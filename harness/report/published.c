/* published: reads the published figures and sets them beside the means of the same variants; see published.h. */
#include "harness/report/published.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/report/grid.h"

enum { BPB_RAW, BPB_ARTIFACT, MILLISECONDS, BYTES, FIGURES };

struct published_row {
    const char *suites, *variant, *note; /* into the line */
    double figures[FIGURES];             /* NAN: not published */
};

static status read_row(char *line, const char *path, int number, struct published_row *row) {
    char *rest = line, *fields[3 + FIGURES];
    line[strcspn(line, "\r\n")] = 0;
    for (int i = 0; i < 3 + FIGURES; i++)
        if (!(fields[i] = strsep(&rest, ",")))
            return status_new(STATUS_DATA, "%s:%d: %d fields; expected %d", path, number, i, 3 + FIGURES);
    if (rest) return status_new(STATUS_DATA, "%s:%d: more than %d fields", path, number, 3 + FIGURES);
    *row = (struct published_row){.suites = fields[0], .variant = fields[1], .note = fields[2 + FIGURES]};
    for (int i = 0; i < FIGURES; i++) {
        char *end;
        row->figures[i] = *fields[2 + i] ? strtod(fields[2 + i], &end) : NAN;
        if (*fields[2 + i] && (*end || !isfinite(row->figures[i])))
            return status_new(STATUS_DATA, "%s:%d: \"%s\" is not a number", path, number, fields[2 + i]);
    }
    return NULL;
}

static bool names_suite(const char *suites, const char *suite) {
    size_t length = strlen(suite);
    for (const char *at = suites; (at = strstr(at, suite)); at += length)
        if ((at == suites || at[-1] == ' ') && (at[length] == ' ' || !at[length])) return true;
    return false;
}

static int find_variant(const struct analysis *a, const struct published_row *row) {
    if (!names_suite(row->suites, a->results->suite)) return -1;
    for (int v = 0; v < a->results->variant_count; v++)
        if (strcmp(a->results->variants[v].name, row->variant) == 0) return v;
    return -1;
}

static void add_row(struct grid *g, const struct analysis *a, const struct published_row *row, int variant) {
    const struct variant_figures *f = &a->variants[variant];
    const double ours[FIGURES] = {f->raw.mean, f->artifact.mean, analysis_step_milliseconds(a, variant), f->bytes.mean};
    grid_variant(g, row->variant, a->results->variants[variant].late);
    for (int i = 0; i < FIGURES; i++) {
        if (i == BYTES) {
            grid_integer(g, row->figures[i]);
            grid_integer(g, ours[i]);
            continue;
        }
        int decimals = i == MILLISECONDS ? 0 : a->bpb_decimals;
        grid_number(g, row->figures[i], decimals);
        grid_number(g, ours[i], decimals);
    }
    grid_text(g, row->note);
}

/* The first line holds the names of the columns. */
static status read_rows(FILE *file, const char *path, const struct analysis *a, struct grid *g, int *rows) {
    char *line = NULL;
    size_t capacity = 0;
    status failed = NULL;
    for (int number = 1; !failed && getline(&line, &capacity, file) >= 0; number++) {
        struct published_row row;
        if (number == 1) continue;
        failed = read_row(line, path, number, &row);
        int variant = failed ? -1 : find_variant(a, &row);
        if (variant < 0) continue;
        add_row(g, a, &row, variant);
        ++*rows;
    }
    free(line);
    return failed;
}

static status write_table(FILE *file, const char *path, const struct analysis *a, const char *folder) {
    static const struct grid_column columns[] = {
        {"variant", "l", "variant,late"}, {"BPB raw", "r", "published_bpb_raw"},
        {"ours", "r", "bpb_raw"},         {"BPB artifact", "r", "published_bpb_artifact"},
        {"ours", "r", "bpb_artifact"},    {"ms/step", "r", "published_milliseconds"},
        {"ours", "r", "milliseconds"},    {"bytes", "r", "published_bytes"},
        {"ours", "r", "artifact_bytes"},  {"note", "l", "note"},
    };
    struct grid g;
    int rows = 0;
    grid_start(&g, columns, sizeof columns / sizeof *columns, false, a->caveats);
    status failed = read_rows(file, path, a, &g, &rows);
    if (!failed && rows) return grid_write(&g, folder, "published");
    grid_free(&g);
    return failed;
}

status published_write(const struct analysis *a, const char *folder) {
    char path[4096 + 32];
    const char *source = a->results->source, *slash = strrchr(source, '/');
    snprintf(path, sizeof path, "%.*spublished-figures.csv", slash ? (int)(slash - source + 1) : 0, source);
    FILE *file = fopen(path, "r");
    if (!file) return errno == ENOENT ? NULL : status_errno("%s", path);
    status failed = write_table(file, path, a, folder);
    fclose(file);
    return failed;
}
