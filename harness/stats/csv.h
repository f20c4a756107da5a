/* csv: observations from a CSV file with the columns variant, seed and value, in any order; further columns are
 * ignored. Fields may be quoted as in RFC 4180; lines end in LF, CRLF or CR; a UTF-8 byte order mark is
 * skipped.
 *
 * A value that is empty, "failed", "nan" or infinite is a failed seed. */
#pragma once
#include "harness/stats/stats.h"

struct csv_observations {
    struct observation *rows; /* names point into text */
    size_t count;
    char *text;
};

#define CSV_LEAST 1e-30 /* of a value's size, unless it is 0 */
#define CSV_MOST 1e30

/* Failures name file and line, and what was expected there. Nothing is left allocated then. */
status csv_read(const char *path, struct csv_observations *out);
void csv_free(struct csv_observations *csv);
