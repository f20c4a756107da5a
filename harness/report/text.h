/* text: growing text, and foreign text made harmless for LaTeX, gnuplot and CSV.
 *
 * A buffer that runs out of memory stays as it was and remembers; text_write reports it. Texts are UTF-8; broken bytes
 * and control characters become '?' and spaces. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

struct text {
    char *data; /* NUL-terminated once something was added; NULL before */
    size_t size, capacity;
    bool failed;
};

void text_free(struct text *t);
void text_bytes(struct text *t, const char *bytes, size_t n);
__attribute__((format(printf, 2, 3))) void text_add(struct text *t, const char *format, ...);
const char *text_of(const struct text *t); /* never NULL */

/* As LaTeX text: every special character escaped, breaks allowed inside long words, characters that the document's
 * fonts lack written as U+XXXX. */
void text_latex(struct text *t, const char *utf8);
void text_gnuplot(struct text *t, const char *utf8); /* a single-quoted string, in which gnuplot expands nothing */
void text_csv(struct text *t, const char *utf8);     /* one field, quoted where RFC 4180 asks for it */

/* How wide a text comes out on paper and in figures, in letters of common width: [U+6F22] is eight. */
size_t text_width(const char *utf8);

/* As wide as so many letters at most; what is wider loses its middle to an ellipsis. */
void text_short(struct text *t, const char *utf8, size_t letters);

/* Letters, digits, '.', '_' and '-' are kept, the rest becomes '-': a file name that needs no quoting and
 * starts with neither '-' nor '.'. */
void text_slug(struct text *t, const char *utf8);

/* What the files of a suite's report, at a scale or "", are called: "demo", "demo@laptop". Where the name had to be
 * changed for that, digits of its hash follow, so that no two suites share a file. */
void text_file_name(struct text *t, const char *suite, const char *scale);

/* Figures as plain UTF-8 ("−0.0123"); an en dash for NAN, "∞" for a number without bound. */
void text_number(struct text *t, double value, int decimals);
void text_integer(struct text *t, double value); /* "16,000,000" */
void text_p(struct text *t, double p);           /* "= 0.0123", "< 0.0001" */

/* "1, 5 … 37 (by 4)": progressions of four or more shortened. */
void text_progressions(struct text *t, const int64_t *values, size_t count);

status text_write(const struct text *t, const char *path);
