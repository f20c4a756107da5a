/* csv: observations from a CSV file; see csv.h. */
#include "harness/stats/csv.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { COLUMN_VARIANT, COLUMN_SEED, COLUMN_VALUE, COLUMNS, MOST_FIELDS = 256 };
static const char *const column_names[COLUMNS] = {"variant", "seed", "value"};

/* The file's text is cut into fields in place. */
struct reader {
    const char *path;
    char *at;
    int line; /* of the record that was read last */
    int next_line;
    int field_count;
    char *fields[MOST_FIELDS];
    int place[COLUMNS]; /* of a column in a record */
};

static status wrong(const struct reader *r, const char *what, const char *found) {
    return status_new(STATUS_DATA, "%s:%d: %s%s%.80s%s", r->path, r->line, what, found ? ": '" : "", found ? found : "",
                      found ? "'" : "");
}

/* Reads a quoted field whose opening quote is at `from`; returns where it ends, or NULL when it never does. */
static char *unquote(struct reader *r, char *from) {
    char *to = from, *in = from + 1;
    for (;; in++) {
        if (!*in) return NULL;
        if (*in == '\n') r->next_line++;
        if (*in == '"' && *++in != '"') break;
        *to++ = *in;
    }
    if (to < in) *to = '\0';
    return in;
}

static status read_field(struct reader *r, char *end_of_field) {
    if (r->field_count == MOST_FIELDS) return wrong(r, "more than 256 fields", NULL);
    char *start = r->at, *end = start + strcspn(start, ",\r\n");
    if (*start == '"') {
        end = unquote(r, start);
        if (!end) return wrong(r, "a quoted field has no closing quote", NULL);
        if (!strchr(",\r\n", *end)) return wrong(r, "text behind a closing quote; a comma is expected", NULL);
    }
    r->fields[r->field_count++] = start;
    *end_of_field = *end;
    if (*end == '\r' && end[1] == '\n') {
        *end_of_field = '\n';
        *end++ = '\0';
    }
    r->at = *end ? end + 1 : end;
    *end = '\0';
    return NULL;
}

static status read_record(struct reader *r) {
    char end;
    r->field_count = 0;
    r->line = r->next_line;
    do TRY(read_field(r, &end));
    while (end == ',');
    r->next_line++;
    return NULL;
}

static status read_header(struct reader *r) {
    TRY(read_record(r));
    for (int c = 0; c < COLUMNS; c++) {
        r->place[c] = -1;
        for (int f = 0; f < r->field_count; f++) {
            if (strcmp(r->fields[f], column_names[c]) != 0) continue;
            if (r->place[c] >= 0) return wrong(r, "a column stands twice in the header", column_names[c]);
            r->place[c] = f;
        }
        if (r->place[c] < 0)
            return wrong(r, "the header needs the columns variant, seed and value; missing", column_names[c]);
    }
    return NULL;
}

static status parse_seed(const struct reader *r, const char *text, int64_t *seed) {
    char *end;
    errno = 0;
    *seed = strtoll(text, &end, 10);
    if (end == text || *end || errno) return wrong(r, "the seed must be a whole number", text);
    return NULL;
}

/* What is squared and cubed must neither overflow nor vanish. */
static bool is_usable(double value) {
    return value == 0.0 || !isfinite(value) || (fabs(value) >= CSV_LEAST && fabs(value) <= CSV_MOST);
}

static status parse_value(const struct reader *r, const char *text, struct observation *row) {
    char *end;
    errno = 0;
    row->value = strtod(text, &end);
    row->failed = !*text || strcasecmp(text, "failed") == 0;
    if (!row->failed && (end == text || *end))
        return wrong(r, "the value must be a number, or 'failed', or empty", text);
    if (errno == ERANGE || !is_usable(row->value))
        return wrong(r, "values from 1e-30 to 1e30 in size, and 0, can be compared; choose another unit for", text);
    if (row->failed) row->value = NAN;
    return NULL;
}

static status parse_record(const struct reader *r, size_t header_fields, struct observation *row) {
    if ((size_t)r->field_count != header_fields)
        return status_new(STATUS_DATA, "%s:%d: %d fields; the header has %zu", r->path, r->line, r->field_count,
                          header_fields);
    *row = (struct observation){.variant = r->fields[r->place[COLUMN_VARIANT]]};
    if (!*row->variant) return wrong(r, "the variant has no name", NULL);
    if (has_control(row->variant)) return wrong(r, "the variant's name holds a control character", NULL);
    TRY(parse_seed(r, r->fields[r->place[COLUMN_SEED]], &row->seed));
    return parse_value(r, r->fields[r->place[COLUMN_VALUE]], row);
}

/* At least as many as there are: CRLF counts twice, and so does a line within quotes. */
static size_t most_records(const char *text) {
    size_t records = 1;
    for (; *text; text++) records += *text == '\n' || *text == '\r';
    return records;
}

static status parse(struct reader *r, struct csv_observations *out) {
    out->rows = calloc(most_records(r->at), sizeof *out->rows);
    if (!out->rows) return status_new(STATUS_SYSTEM, "%s: out of memory", r->path);
    TRY(read_header(r));
    size_t fields = (size_t)r->field_count;
    while (*r->at) {
        TRY(read_record(r));
        bool empty = r->field_count == 1 && !*r->fields[0];
        if (!empty) TRY(parse_record(r, fields, &out->rows[out->count++]));
    }
    return NULL;
}

static status read_stream(FILE *file, const char *path, char **text) {
    size_t size = 0, capacity = 1 << 16, n;
    do {
        char *grown = realloc(*text, capacity);
        if (!grown) return status_new(STATUS_SYSTEM, "%s: out of memory", path);
        *text = grown;
        n = fread(*text + size, 1, capacity - 1 - size, file);
        size += n;
        capacity *= 2;
    } while (n);
    if (ferror(file)) return status_errno("%s: cannot be read", path);
    (*text)[size] = '\0';
    if (strlen(*text) != size) return status_new(STATUS_DATA, "%s: holds NUL bytes; a CSV text is expected", path);
    return NULL;
}

static status read_file(const char *path, char **text) {
    FILE *file = fopen(path, "rb");
    if (!file) return status_errno("%s: cannot be read", path);
    status failure = read_stream(file, path, text);
    fclose(file);
    return failure;
}

status csv_read(const char *path, struct csv_observations *out) {
    *out = (struct csv_observations){0};
    status failure = read_file(path, &out->text);
    if (!failure) {
        bool mark = strncmp(out->text, "\xEF\xBB\xBF", 3) == 0;
        struct reader r = {.path = path, .at = out->text + (mark ? 3 : 0), .next_line = 1};
        failure = parse(&r, out);
    }
    if (failure) csv_free(out);
    return failure;
}

void csv_free(struct csv_observations *csv) {
    free(csv->rows);
    free(csv->text);
    *csv = (struct csv_observations){0};
}
