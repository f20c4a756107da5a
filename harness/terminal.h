/* terminal: what a stream can show: colours, width, and how wide a UTF-8 text is on it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum style { STYLE_PLAIN, STYLE_BOLD, STYLE_DIM, STYLE_GOOD, STYLE_BAD, STYLE_WARN };

/* The escape sequence that starts a style, "" where the stream is no terminal or NO_COLOR is set. STYLE_PLAIN ends. */
const char *terminal_style(FILE *stream, enum style style);

bool terminal_is(FILE *stream);
int terminal_width(FILE *stream); /* columns; 100 when it is no terminal */

/* Columns that a UTF-8 text takes; wide and combining characters count as they show. A broken byte counts as one. */
size_t text_columns(const char *text);

/* Bytes of the longest prefix that takes at most `columns`. */
size_t text_prefix(const char *text, size_t columns);

/* The text and a line's end, broken at spaces where the stream is full (80 columns when it is no terminal). `taken`
 * columns of the first line are in use already, the others begin with `indent` spaces. */
void text_print(FILE *stream, const char *text, size_t taken, size_t indent);
