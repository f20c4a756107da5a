/* small_store: see small_store.h. */
#include "tests/unit/small_store.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/store/database.h"
#include "tests/unit/small_suite.h"
#include "tests/unit/small_text.h"

struct store *open_store(enum store_mode mode) {
    struct store *store;
    expect_good(store_open(&store, small_path("r/hinge.db"), mode));
    return store;
}

void run_sql(const char *path, const char *sql) {
    struct database *db;
    expect_good(database_open(&db, path, true));
    expect_good(database_script(db, sql));
    database_close(db);
}

int64_t ask(const char *sql) {
    struct database *db;
    int64_t value = -1;
    expect_good(database_open(&db, small_path("r/hinge.db"), false));
    expect_good(query_one_int(db, &value, NULL, sql, ""));
    database_close(db);
    return value;
}

status declare(const char *yaml) {
    struct small_plan *p = small_plan_make(yaml);
    struct store *store = open_store(STORE_WRITE);
    status s = store_declare(store, &p->plan, &p->datasets);
    store_close(store);
    small_plan_free(p);
    return s;
}

struct results load(enum results_detail detail) {
    struct results results;
    struct store *store = open_store(STORE_READ);
    expect_good(store_load_results_at(store, "small", NULL, detail, &results));
    store_close(store);
    return results;
}

struct worker me(void) {
    struct worker worker;
    worker_current(&worker);
    return worker;
}

enum claim claim(struct store *store, const char *key, const struct worker *worker) {
    enum claim result;
    expect_good(store_claim(store, key, worker, &result));
    return result;
}
