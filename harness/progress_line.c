/* progress_line: what the runner reports, drawn on standard error. */
#include "harness/progress_line.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "harness/interrupt.h"
#include "harness/terminal.h"
#include "harness/units.h"
#include "kernels/clock.h"

static const double seconds_between_plain_lines = 10;

struct progress_line {
    int jobs;
    bool terminal, drawn, announced_stop;
    double last_printed;
    struct runner_progress *workers; /* (jobs): the last report of each; run 0 before the first */
};

static const char *unit_of(enum run_part part) {
    switch (run_part_kind(part)) {
    case STAGE_TRAIN:
        return "step";
    case STAGE_EVALUATE:
        return "window";
    default:
        return "";
    }
}

/* "train · step 120/600" or "quantise · 34 %". */
static void put_stage(char *out, size_t size, const struct runner_progress *p) {
    const char *part = run_part_name(p->part), *unit = unit_of(p->part);
    if (p->stage_ended)
        text_append(out, size, "%s done", part);
    else if (p->total <= 0)
        text_append(out, size, "%s", part);
    else if (*unit)
        text_append(out, size, "%s · %s %" PRId64 "/%" PRId64, part, unit, p->done, p->total);
    else
        text_append(out, size, "%s · %.0f %%", part, 100.0 * (double)p->done / (double)p->total);
}

static void put_full(const struct runner_progress *p, char *out, size_t size) {
    char run_left[UNITS_CAPACITY], suite_left[UNITS_CAPACITY];
    snprintf(out, size, "run %d of %d · %s · seed %" PRId64 " · ", p->run, p->run_count, p->variant, p->seed);
    put_stage(out, size, p);
    if (isfinite(p->loss)) text_append(out, size, " · loss %.4f", p->loss);
    if (isfinite(p->tokens_per_second)) text_append(out, size, " · %.0f tokens/s", p->tokens_per_second);
    text_append(out, size, " · left: run %s, suite %s", format_duration(p->run_seconds_left, run_left),
                format_duration(p->suite_seconds_left, suite_left));
}

/* What a narrow line does without, the least needed first; the time left stays. */
enum { WITHOUT_RATE = 1, WITHOUT_LOSS, WITHOUT_RUN, LEAST_LINE = WITHOUT_RUN };

static void put_short(const struct runner_progress *p, int without, char *out, size_t size) {
    char run_left[UNITS_CAPACITY], suite_left[UNITS_CAPACITY];
    snprintf(out, size, "%d/%d ", p->run, p->run_count);
    if (without < WITHOUT_RUN) text_append(out, size, "%s %" PRId64 " ", p->variant, p->seed);
    put_stage(out, size, p);
    if (without < WITHOUT_LOSS && isfinite(p->loss)) text_append(out, size, " · %.3f", p->loss);
    if (without < WITHOUT_RATE && isfinite(p->tokens_per_second))
        text_append(out, size, " · %.0f tok/s", p->tokens_per_second);
    text_append(out, size, " · ");
    if (without < WITHOUT_RUN) text_append(out, size, "%s, ", format_duration(p->run_seconds_left, run_left));
    text_append(out, size, "%s left", format_duration(p->suite_seconds_left, suite_left));
}

/* What nearly every full line has room in. With less, all lines are short: two forms in turn are hard to read. */
enum { FULL_COLUMNS = 120 };

const char *progress_text(const struct runner_progress *progress, size_t columns, char *out, size_t size) {
    put_full(progress, out, size);
    if (columns >= FULL_COLUMNS && text_columns(out) <= columns) return out;
    put_short(progress, 0, out, size);
    for (int without = WITHOUT_RATE; without <= LEAST_LINE && text_columns(out) > columns; without++)
        put_short(progress, without, out, size);
    return out;
}

/* Several workers share the line: "9 runs · suite 3 min left | none 42 train · step 3/9 | no-rope 42 ...". */
static void put_workers(const struct progress_line *line, const struct runner_progress *latest, char *out,
                        size_t size) {
    char left[UNITS_CAPACITY];
    snprintf(out, size, "%d runs · suite %s left", latest->run_count,
             format_duration(latest->suite_seconds_left, left));
    for (int w = 0; w < line->jobs; w++) {
        const struct runner_progress *p = &line->workers[w];
        if (!p->run) continue;
        text_append(out, size, " | %s %" PRId64 " ", p->variant, p->seed);
        put_stage(out, size, p);
    }
}

static void erase(struct progress_line *line) {
    if (line->drawn) fputs("\r\033[K", stderr);
    line->drawn = false;
}

/* Columns that a line may take without wrapping; a file takes any. */
static size_t line_columns(const struct progress_line *line) {
    int width = terminal_width(stderr);
    return !line->terminal ? SIZE_MAX : width > 1 ? (size_t)width - 1 : 1;
}

static void draw(struct progress_line *line, const char *text) {
    fprintf(stderr, "\r%.*s\033[K", (int)text_prefix(text, line_columns(line)), text);
    fflush(stderr);
    line->drawn = true;
}

static void on_progress(void *context, const struct runner_progress *progress) {
    struct progress_line *line = context;
    char text[2048];
    if (progress->worker >= 0 && progress->worker < line->jobs) line->workers[progress->worker] = *progress;
    bool due = progress->stage_ended || clock_seconds() - line->last_printed >= seconds_between_plain_lines;
    if (!line->terminal && !due) return;
    line->last_printed = clock_seconds();
    if (line->terminal && line->jobs > 1)
        put_workers(line, progress, text, sizeof text);
    else
        progress_text(progress, line_columns(line), text, sizeof text);
    if (line->terminal)
        draw(line, text);
    else
        fprintf(stderr, "%s\n", text);
}

static void on_message(void *context, const char *text) {
    erase(context);
    fprintf(stderr, "hinge: %s\n", text);
}

static bool on_stop(void *context) {
    struct progress_line *line = context;
    if (!interrupt_requested()) return false;
    if (!line->announced_stop) {
        line->announced_stop = true;
        on_message(line, "stopping after this step; Ctrl-C again ends at once");
    }
    return true;
}

struct progress_line *progress_line_new(int jobs) {
    struct progress_line *line = calloc(1, sizeof *line);
    if (!line) return NULL;
    *line = (struct progress_line){.jobs = jobs, .terminal = terminal_is(stderr), .last_printed = clock_seconds()};
    line->workers = calloc((size_t)jobs, sizeof *line->workers);
    if (!line->workers) {
        free(line);
        return NULL;
    }
    return line;
}

struct runner_callbacks progress_line_callbacks(struct progress_line *line) {
    return (struct runner_callbacks){.context = line, .progress = on_progress, .message = on_message, .stop = on_stop};
}

void progress_line_free(struct progress_line *line) {
    if (!line) return;
    erase(line);
    free(line->workers);
    free(line);
}
