/* small_store: the results database r/hinge.db in the test's folder, for the tests of the store. */
#pragma once
#include "harness/store.h"

struct store *open_store(enum store_mode mode);
void run_sql(const char *path, const char *sql);
int64_t ask(const char *sql); /* the one number that it gives */

/* Declares the suite of small_suite.h's kind, in a store that is made where there is none. */
status declare(const char *yaml);
/* What the store has of the suite "small"; the caller frees. */
struct results load(enum results_detail detail);

struct worker me(void); /* this process */
enum claim claim(struct store *store, const char *key, const struct worker *worker);
