/* cmd_common: what several verbs do the same way: find a suite, take a run's number. */
#pragma once
#include "harness/cli.h"
#include "harness/json_out.h"
#include "harness/results.h"
#include "harness/suite.h"

enum { TITLE_CAPACITY = NAME_CAPACITY + 64 };

/* The file of a SUITE argument: a path, or the name of suites/NAME.yaml. Unknown: STATUS_USAGE naming the nearest. */
status suite_find(const char *argument, char path[4096]);

/* The suite's name in the database: the argument itself, or the name inside the file when it is a path. */
status suite_name(const char *argument, char name[NAME_CAPACITY]);

/* The name of scale for messages: "demo" or "demo (scale tiny)". */
const char *suite_title(const char *name, const char *scale, char out[TITLE_CAPACITY]);

/* Appends a word as a shell takes it: in quotes where it needs them. */
void append_word(char *out, size_t size, const char *word);

/* The suite's title and its question, in as many lines as they take. */
void print_question(const struct suite *suite);

/* The suite alone, from the first argument, --scale and --set. */
status load_suite(const struct invocation *in, struct suite *suite);

/* Notes in the database that the verb is about to show these results, when that is a peek (store.h), and says so the
 * first time; to be called when nothing but the showing is left that could fail. Where it cannot be written, standard
 * error says so and the results are shown all the same. */
void note_peek(const struct invocation *in, struct results *results);

/* What must be read with every figure (report/caveats.h): a line, where there is something to say; and as JSON. */
void print_caveats(const struct results *results);
json_t *caveats_json(const struct results *results);

/* The number of a run: the first argument, or any text. */
status run_number(const struct invocation *in, int64_t *run);
status run_number_of(const char *text, int64_t *run);
