/* progress_line: the runner's callbacks as one line on standard error, redrawn on a terminal; in a file, a plain line
 * at the end of every stage and now and then. Ctrl-C asks the runner to stop. */
#pragma once
#include "harness/runner.h"

struct progress_line;

struct progress_line *progress_line_new(int jobs); /* NULL when out of memory */
struct runner_callbacks progress_line_callbacks(struct progress_line *line);
void progress_line_free(struct progress_line *line); /* takes the line off the terminal; NULL is fine */

/* The text of one line: "run 2 of 9 · none · seed 42 · train · step 120/600 · ...", or with less than 120 columns, or
 * where that is too wide, "2/9 none 42 train · step 120/600 · ...", without the rate, the loss, at last the run where
 * it is still too wide, for the time that the suite has left ends the line. Returns out. */
const char *progress_text(const struct runner_progress *progress, size_t columns, char *out, size_t size);
