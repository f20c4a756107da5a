/* merge_text: what a merge did, in words; for the verbs that merge. */
#pragma once
#include "harness/merge.h"

/* "12 runs: 8 new, 4 already here; 48 stages taken". */
void merge_describe(const struct merge_report *report, char *out, size_t size);
