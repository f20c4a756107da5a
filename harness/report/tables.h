/* tables: every table of a report, as .tex and .csv. */
#pragma once
#include "harness/report/analysis.h"

/* Writes design, significance, spread, gap, timings, classes, variants, runs and provenance into the folder. */
status tables_write(const struct analysis *a, const char *folder);
