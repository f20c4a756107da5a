/* methods: what was done, in prose generated from the configuration and the runs. LaTeX. */
#pragma once
#include "harness/report/analysis.h"
#include "harness/report/text.h"

void methods_write(const struct analysis *a, struct text *latex);
