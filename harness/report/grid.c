/* grid: one table as LaTeX and CSV; see grid.h. */
#include "harness/report/grid.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { NAME_CHARACTERS = 26, HASH_DIGITS = 10 };

static void add_headings(struct grid *g) {
    for (int c = 0; c < g->count; c++)
        text_add(&g->latex, "%s%s", g->columns[c].heading, c + 1 < g->count ? " & " : " \\\\\n\\midrule\n");
}

/* The bottom of the table, and under it the note: as wide as the page, without making a narrow table wider. */
static void add_foot(struct grid *g) {
    text_add(&g->latex, "\\bottomrule\n");
    if (!*g->read_with) return;
    text_add(&g->latex, "\\addlinespace[0.4ex]\n\\multicolumn{%d}{@{}l@{}}{\\makebox[0pt][l]{\\parbox[t]{\\textwidth}",
             g->count);
    text_add(&g->latex, "{\\raggedright\\footnotesize Read with: ");
    text_latex(&g->latex, g->read_with);
    text_add(&g->latex, ".}}} \\\\\n");
}

void grid_start(struct grid *g, const struct grid_column *columns, int count, bool is_long, const char *read_with) {
    *g = (struct grid){.columns = columns,
                       .count = count,
                       .is_long = is_long,
                       .read_with = read_with,
                       .name_characters = NAME_CHARACTERS};
    text_add(&g->latex, is_long ? "\\begin{longtable*}{@{}" : "\\begin{tabular}{@{}");
    for (int c = 0; c < count; c++) text_add(&g->latex, "%s", columns[c].alignment);
    text_add(&g->latex, "@{}}\n\\toprule\n");
    add_headings(g);
    if (is_long) {
        text_add(&g->latex, "\\endhead\n");
        add_foot(g);
        text_add(&g->latex, "\\endlastfoot\n");
    }
    for (int c = 0; c < count; c++) text_add(&g->csv, "%s,", columns[c].csv);
    text_add(&g->csv, "read_with\n");
}

static void end_cell(struct grid *g) {
    bool last = ++g->at == g->count;
    text_add(&g->latex, last ? " \\\\" : " & ");
    text_add(&g->csv, ",");
    if (!last) return;
    g->ends[g->rows % GRID_LAST_ROWS] = g->latex.size;
    text_add(&g->latex, " \n"); /* room for a star */
    text_csv(&g->csv, g->read_with);
    text_add(&g->csv, "\n");
    g->at = 0;
    if (++g->rows == GRID_PAPER_ROWS) g->paper_size = g->latex.size;
}

static void latex_of(struct grid *g, const struct text *plain) { text_latex(&g->latex, text_of(plain)); }

void grid_text(struct grid *g, const char *utf8) { grid_brief(g, utf8, utf8); }

void grid_brief(struct grid *g, const char *paper, const char *csv) {
    text_latex(&g->latex, paper);
    text_csv(&g->csv, csv);
    end_cell(g);
}

/* The cell of two values ends in 0 or 1. */
static void end_late_cell(struct grid *g, bool late) {
    if (late) text_add(&g->latex, " (late)");
    text_add(&g->csv, ",%d", late);
    end_cell(g);
}

void grid_text_late(struct grid *g, const char *utf8, bool late) {
    text_latex(&g->latex, utf8);
    text_csv(&g->csv, utf8);
    end_late_cell(g, late);
}

void grid_name(struct grid *g, const char *utf8) {
    struct text brief = {0};
    text_short(&brief, utf8, g->name_characters);
    latex_of(g, &brief);
    text_free(&brief);
    text_csv(&g->csv, utf8);
    end_cell(g);
}

void grid_variant(struct grid *g, const char *utf8, bool late) {
    struct text brief = {0};
    text_short(&brief, utf8, g->name_characters);
    latex_of(g, &brief);
    text_free(&brief);
    text_csv(&g->csv, utf8);
    end_late_cell(g, late);
}

static void csv_value(struct grid *g, double value) {
    if (isfinite(value)) text_add(&g->csv, "%.12g", value);
}

static void add_number(struct text *t, double value, int decimals) {
    if (decimals)
        text_number(t, value, decimals);
    else
        text_integer(t, value);
}

void grid_number(struct grid *g, double value, int decimals) {
    struct text plain = {0};
    add_number(&plain, value, decimals);
    latex_of(g, &plain);
    text_free(&plain);
    csv_value(g, value);
    end_cell(g);
}

void grid_integer(struct grid *g, double value) {
    struct text plain = {0};
    text_integer(&plain, value < 0 ? -value : value);
    text_add(&g->latex, "%s%s", value < 0 ? "$-$" : "", text_of(&plain)); /* "16,000,000": never broken */
    text_free(&plain);
    csv_value(g, value);
    end_cell(g);
}

void grid_p(struct grid *g, double p) {
    if (!isfinite(p))
        text_add(&g->latex, "--");
    else if (p < 0.0001)
        text_add(&g->latex, "$<$0.0001");
    else
        text_add(&g->latex, "%.4f", p);
    csv_value(g, p);
    end_cell(g);
}

void grid_interval(struct grid *g, double low, double high, int decimals) {
    struct text plain = {0};
    if (isfinite(low)) {
        add_number(&plain, low, decimals);
        text_add(&plain, " to ");
        add_number(&plain, high, decimals);
    } else {
        text_add(&plain, "–");
    }
    latex_of(g, &plain);
    text_free(&plain);
    csv_value(g, low);
    text_add(&g->csv, ",");
    csv_value(g, high);
    end_cell(g);
}

void grid_hash(struct grid *g, const char *hex) {
    if (*hex)
        text_add(&g->latex, "\\texttt{%.*s}", HASH_DIGITS, hex);
    else
        text_add(&g->latex, "--");
    text_csv(&g->csv, hex);
    end_cell(g);
}

void grid_rule(struct grid *g) { text_add(&g->latex, "\\addlinespace\n"); }

void grid_free(struct grid *g) {
    text_free(&g->latex);
    text_free(&g->csv);
}

/* A suite of thousands of runs has its rows in the CSV. */
static void cut_paper(struct grid *g, const char *name) {
    if (!g->is_long || g->rows <= GRID_PAPER_ROWS || g->latex.failed) return;
    g->latex.data[g->latex.size = g->paper_size] = '\0';
    text_add(&g->latex, "\\multicolumn{%d}{@{}l}{\\emph{%d further rows are in %s.csv.}} \\\\\n", g->count,
             g->rows - GRID_PAPER_ROWS, name);
}

/* A page that has but the last row of a table looks lost: a star behind a row keeps the next on its page. */
static void keep_last_rows(struct grid *g) {
    if (!g->is_long || g->rows > GRID_PAPER_ROWS || g->latex.failed) return;
    for (int row = g->rows - GRID_LAST_ROWS; row < g->rows - 1; row++)
        if (row >= 0) g->latex.data[g->ends[row % GRID_LAST_ROWS]] = '*';
}

status grid_write(struct grid *g, const char *folder, const char *name) {
    char path[8192];
    keep_last_rows(g);
    cut_paper(g, name);
    if (!g->is_long) add_foot(g);
    text_add(&g->latex, g->is_long ? "\\end{longtable*}\n" : "\\end{tabular}%%\n");
    snprintf(path, sizeof path, "%s/%s.tex", folder, name);
    status failure = text_write(&g->latex, path);
    snprintf(path, sizeof path, "%s/%s.csv", folder, name);
    if (!failure) failure = text_write(&g->csv, path);
    grid_free(g);
    return failure;
}
