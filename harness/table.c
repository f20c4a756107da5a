/* table: measures its cells by display width, cuts what may be cut, prints. */
#include "harness/table.h"

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "harness/terminal.h"

enum { GAP = 2, NOTE_INDENT = 4, LEAST_WIDTH = 8, TABLE_COLUMNS = 32 };

static const size_t LEFT_OUT = SIZE_MAX; /* the width of such a column */

struct table {
    const struct table_column *columns;
    int column_count, cell_count, capacity;
    char **cells;
    int note_count;
    struct note *notes; /* in the order of their rows */
};

struct note {
    int row;
    char *text;
};

struct table *table_new(const struct table_column *columns, int count) {
    struct table *table = count <= TABLE_COLUMNS ? calloc(1, sizeof *table) : NULL;
    if (table) *table = (struct table){.columns = columns, .column_count = count};
    return table;
}

void table_free(struct table *table) {
    if (!table) return;
    for (int i = 0; i < table->cell_count; i++) free(table->cells[i]);
    for (int i = 0; i < table->note_count; i++) free(table->notes[i].text);
    free(table->notes);
    free(table->cells);
    free(table);
}

static void add_cell(struct table *table, char *text) {
    if (table->cell_count == table->capacity) {
        int capacity = table->capacity ? 2 * table->capacity : 64;
        char **cells = realloc(table->cells, (size_t)capacity * sizeof *cells);
        if (!cells) {
            free(text);
            return;
        }
        table->cells = cells;
        table->capacity = capacity;
    }
    table->cells[table->cell_count++] = text;
}

void table_cell(struct table *table, const char *format, ...) {
    if (!table) return;
    va_list args;
    va_start(args, format);
    char *text = NULL;
    if (vasprintf(&text, format, args) < 0) text = NULL;
    va_end(args);
    add_cell(table, text);
}

double without_signed_zero(double value, int decimals) { return fabs(value) < 0.5 * pow(10, -decimals) ? 0 : value; }

void table_number(struct table *table, double value, int decimals) {
    if (isfinite(value))
        table_cell(table, "%.*f", decimals, without_signed_zero(value, decimals));
    else
        table_cell(table, "-");
}

void table_note(struct table *table, const char *text) {
    if (!table) return;
    struct note *notes = realloc(table->notes, ((size_t)table->note_count + 1) * sizeof *notes);
    if (!notes) return;
    table->notes = notes;
    notes[table->note_count++] = (struct note){(table->cell_count - 1) / table->column_count, strdup(text)};
}

static const char *cell_text(const struct table *table, int index) {
    return index < table->cell_count && table->cells[index] ? table->cells[index] : "";
}

static void measure(const struct table *table, size_t widths[TABLE_COLUMNS]) {
    for (int c = 0; c < table->column_count; c++) widths[c] = text_columns(table->columns[c].heading);
    for (int i = 0; i < table->cell_count; i++) {
        size_t width = text_columns(cell_text(table, i));
        int c = i % table->column_count;
        if (width > widths[c]) widths[c] = width;
    }
}

static size_t line_width(const struct table *table, const size_t widths[TABLE_COLUMNS]) {
    size_t total = 0;
    for (int c = 0; c < table->column_count; c++)
        if (widths[c] != LEFT_OUT) total += widths[c] + (c ? GAP : 0);
    return total;
}

static int widest_to_cut(const struct table *table, const size_t widths[TABLE_COLUMNS]) {
    int widest = -1;
    for (int c = 0; c < table->column_count; c++)
        if (table->columns[c].room == COLUMN_CUT && widths[c] > LEAST_WIDTH &&
            (widest < 0 || widths[c] > widths[widest]))
            widest = c;
    return widest;
}

static int last_to_leave(const struct table *table, const size_t widths[TABLE_COLUMNS]) {
    int last = table->column_count - 1;
    while (last >= 0 && (table->columns[last].room != COLUMN_OPTIONAL || widths[last] == LEFT_OUT)) last--;
    return last;
}

/* Leaves columns out, then takes characters off the widest that may be cut, until the line fits or nothing can give. */
static void shrink(const struct table *table, size_t widths[TABLE_COLUMNS], size_t limit) {
    while (line_width(table, widths) > limit) {
        int last = last_to_leave(table, widths), widest = widest_to_cut(table, widths);
        if (last >= 0)
            widths[last] = LEFT_OUT;
        else if (widest >= 0)
            widths[widest]--;
        else
            return;
    }
}

static void print_padding(FILE *stream, size_t count) { fprintf(stream, "%*s", (int)count, ""); }

static void print_cell(FILE *stream, const char *text, size_t width, enum table_align align, bool last) {
    bool cut = text_columns(text) > width;
    size_t bytes = text_prefix(text, cut ? width - 1 : width);
    size_t padding = cut ? 0 : width - text_columns(text);
    if (align == ALIGN_RIGHT) print_padding(stream, padding);
    fwrite(text, 1, bytes, stream);
    if (cut) fputs("…", stream);
    if (align == ALIGN_LEFT && !last) print_padding(stream, padding);
}

static void print_line(const struct table *table, FILE *stream, int indent, const size_t *widths, int first) {
    print_padding(stream, (size_t)indent);
    for (int c = 0; c < table->column_count; c++) {
        if (widths[c] == LEFT_OUT) continue;
        if (c) print_padding(stream, GAP);
        const char *text = first < 0 ? table->columns[c].heading : cell_text(table, first + c);
        print_cell(stream, text, widths[c], table->columns[c].align, c == table->column_count - 1);
    }
    fputc('\n', stream);
}

static void print_notes(const struct table *table, FILE *stream, size_t indent, int row) {
    for (int i = 0; i < table->note_count; i++) {
        if (table->notes[i].row != row || !table->notes[i].text) continue;
        print_padding(stream, indent);
        text_print(stream, table->notes[i].text, indent, indent);
    }
}

static bool has_headings(const struct table *table) {
    for (int c = 0; c < table->column_count; c++)
        if (*table->columns[c].heading) return true;
    return false;
}

static void print_left_out(const struct table *table, FILE *stream, int indent, const size_t *widths) {
    int count = 0;
    for (int c = 0; c < table->column_count; c++) {
        if (widths[c] != LEFT_OUT) continue;
        if (!count++) print_padding(stream, (size_t)indent);
        fprintf(stream, "%s%s", count == 1 ? "(too narrow here for: " : ", ", table->columns[c].heading);
    }
    if (count) fputs(")\n", stream);
}

void table_print(const struct table *table, FILE *stream, int indent) {
    if (!table) return;
    size_t widths[TABLE_COLUMNS];
    measure(table, widths);
    shrink(table, widths, (size_t)(terminal_width(stream) - indent));
    if (has_headings(table)) {
        fputs(terminal_style(stream, STYLE_BOLD), stream);
        print_line(table, stream, indent, widths, -1);
        fputs(terminal_style(stream, STYLE_PLAIN), stream);
    }
    for (int i = 0; i < table->cell_count; i += table->column_count) {
        print_line(table, stream, indent, widths, i);
        print_notes(table, stream, (size_t)indent + NOTE_INDENT, i / table->column_count);
    }
    print_left_out(table, stream, indent, widths);
}
