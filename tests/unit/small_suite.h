/* small_suite: suites, datasets and plans for the tests of the harness: a model that trains in milliseconds. */
#pragma once
#include "harness/plan.h"

/* The preset "small" of these tests and a suite of two variants, "none" and "wide", with two seeds. */
extern const char small_preset[], small_suite[];

/* Writes presets/small.yaml and suite.yaml into the test's folder and loads the suite; path is the test's own. */
status small_load(struct suite *suite, const char *yaml);
status small_load_with(struct suite *suite, const char *yaml, const char *scale, const char *setting);
struct suite small_suite_good(const char *yaml); /* fails the test when it does not load */

/* A dataset without files, of the preset's vocabulary, under that name and hash. */
struct dataset_list small_datasets(const char *name, const char *sha256);

struct small_plan {
    struct suite suite;
    struct dataset_list datasets;
    struct plan plan;
};
/* At a stable address: the plan points into it. */
struct small_plan *small_plan_make(const char *yaml);
void small_plan_free(struct small_plan *p);

/* The text with every occurrence of `from` replaced; fails the test when there is none. The caller frees. */
char *small_replace(const char *text, const char *from, const char *to);
