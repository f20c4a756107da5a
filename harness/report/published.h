/* published: published figures beside ours, from published-figures.csv in the folder of the suite's file.
 *
 * Columns: suites (names that the row belongs to, separated by spaces), variant, bpb_raw, bpb_artifact, milliseconds (a
 * step), bytes (of the artifact), note. No field is quoted or holds a comma; an empty one was not published. */
#pragma once
#include "harness/report/analysis.h"

/* Writes published.tex and published.csv when the file has figures for variants of this suite. STATUS_DATA with file
 * and line for a row that cannot be read. */
status published_write(const struct analysis *a, const char *folder);
