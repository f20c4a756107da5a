/* sizes: what each variant's artifacts take, by how much they are larger than the baseline's, and what is left of the
 * cap. */
#pragma once
#include "harness/report/analysis.h"

/* Writes sizes.tex and sizes.csv. */
status sizes_write(const struct analysis *a, const char *folder);
