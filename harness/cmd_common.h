/* cmd_common: what several verbs do the same way: find a suite, prepare its plan, take a run's number. */
#pragma once
#include "harness/cli.h"
#include "harness/plan.h"
#include "harness/store.h"
#include "harness/suite.h"

#define SUITES_FOLDER "suites"
enum { TITLE_CAPACITY = NAME_CAPACITY + 64 };

/* The file of a SUITE argument: a path, or the name of suites/NAME.yaml. Unknown: STATUS_USAGE naming the nearest. */
status suite_find(const char *argument, char path[4096]);

/* Names of the *.yaml files of a folder, without the ending, sorted. Caller frees with names_free. A folder that cannot
 * be read has none. */
size_t yaml_names(const char *folder, char ***names);
void names_free(char **names, size_t count);

/* The suite's name in the database: the argument itself, or the name inside the file when it is a path. */
status suite_name(const char *argument, char name[NAME_CAPACITY]);

/* The name of scale for messages: "demo" or "demo (scale tiny)". */
const char *suite_title(const char *name, const char *scale, char out[TITLE_CAPACITY]);

/* A suite with everything that planning it needs. The parts point into each other: do not copy it. */
struct prepared {
    struct suite suite;
    struct dataset_list datasets;
    struct plan plan;
    struct store *store; /* opened for reading; NULL when there is no database yet */
    struct plan_estimate estimate;
};

/* From the first argument and --scale, --set, --db, --data. prepared_free takes a half-filled one, too. */
status prepare(const struct invocation *in, struct prepared *prepared);
void prepared_free(struct prepared *prepared);

/* The suite alone, from the first argument, --scale and --set. */
status load_suite(const struct invocation *in, struct suite *suite);

/* The number of a run: the first argument. */
status run_number(const struct invocation *in, int64_t *run);

/* A sentence on what cannot come out significant; returns false, with text "", when all is well. */
bool significance_warning(const struct prepared *prepared, char text[512]);
