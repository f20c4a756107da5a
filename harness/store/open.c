/* open: opening a store, its version and migration, its paths and clocks. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "harness/store/internal.h"
#include "model/files.h"

/* migrations[v] turns a database of version v into one of version v + 1. */
static const char *const migrations[STORE_VERSION] = {store_schema, store_schema_2, store_schema_3};

/* --- versions ----------------------------------------------------------------------------------------------------- */

/* One statement sees one state: another process may be making the tables. *version is 0 before it has. */
static status check_owner(struct store *store, int64_t *version) {
    int64_t application, tables;
    bool row;
    struct query q;
    const char *path = database_path(store->db);
    TRY(query_open(&q, store->db,
                   "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
                   "FROM pragma_user_version, pragma_application_id",
                   ""));
    TRY(query_next(&q, &row));
    *version = query_int(&q, 0);
    application = query_int(&q, 1);
    tables = query_int(&q, 2);
    query_close(&q);
    if (tables > 0 && application != APPLICATION_ID)
        return status_new(STATUS_DATA, "%s: a database of another program; name another file with --db", path);
    if (*version > STORE_VERSION)
        return status_new(STATUS_DATA,
                          "%s: has version %lld, this program reads up to version %d; use the newer hinge, or another "
                          "database with --db",
                          path, (long long)*version, STORE_VERSION);
    return NULL;
}

static status apply_migrations(struct store *store) {
    char finish[128];
    int64_t version;
    TRY(check_owner(store, &version)); /* again: another process may have been first */
    if (version == STORE_VERSION) return NULL;
    for (; version < STORE_VERSION; version++) TRY(database_script(store->db, migrations[version]));
    snprintf(finish, sizeof finish, "PRAGMA application_id = %d; PRAGMA user_version = %d", APPLICATION_ID,
             STORE_VERSION);
    return database_script(store->db, finish);
}

static status prepare_writing(struct store *store) {
    int64_t version;
    TRY(check_owner(store, &version));
    TRY(database_use_wal(store->db));
    TRY(database_script(store->db, "PRAGMA synchronous = FULL; PRAGMA cache_size = -65536"));
    if (version == STORE_VERSION) return NULL;
    TRY(database_begin(store->db));
    return database_end(store->db, apply_migrations(store));
}

/* An older database is migrated before it is read, which takes a writer. */
static status migrate_reading(struct store *store, int64_t version) {
    const char *path = database_path(store->db);
    struct database *writing;
    status s = database_open(&writing, path, true);
    if (!s) {
        database_close(store->db);
        store->db = writing;
        s = prepare_writing(store);
    }
    return status_context(s, "a database of version %lld, which must be brought to version %d before it is read",
                          (long long)version, STORE_VERSION);
}

/* *begun: whether anything was ever run in it. */
static status prepare_reading(struct store *store, bool *begun) {
    int64_t version;
    TRY(check_owner(store, &version));
    *begun = version > 0;
    return *begun && version < STORE_VERSION ? migrate_reading(store, version) : NULL;
}

/* --- opening ------------------------------------------------------------------------------------------------------ */

static void directory_of(const char *path, char out[4096]) {
    const char *slash = strrchr(path, '/');
    if (!slash)
        snprintf(out, 4096, ".");
    else
        snprintf(out, 4096, "%.*s", slash == path ? 1 : (int)(slash - path), path);
}

static status new_store(struct store **out, const char *path, enum store_mode mode) {
    struct store *store = *out = calloc(1, sizeof *store);
    if (!store) return status_new(STATUS_SYSTEM, "out of memory");
    directory_of(path, store->directory);
    gethostname(store->host, sizeof store->host - 1);
    if (mode == STORE_WRITE) TRY(make_directories(store->directory));
    return database_open(&store->db, path, mode == STORE_WRITE);
}

status store_open(struct store **out, const char *path, enum store_mode mode) {
    bool begun = true;
    status s = new_store(out, path, mode);
    if (!s) s = mode == STORE_WRITE ? prepare_writing(*out) : prepare_reading(*out, &begun);
    if (!s && !begun) s = status_new(STATUS_DATA, "%s: nothing was ever run in it", path);
    if (!s) return NULL;
    store_close(*out);
    *out = NULL;
    return s;
}

status store_open_as_it_is(struct store **out, const char *path) {
    status s = new_store(out, path, STORE_READ);
    if (!s) return NULL;
    store_close(*out);
    *out = NULL;
    return s;
}

status store_open_begun(struct store **out, const char *path) {
    bool begun = false;
    *out = NULL;
    if (access(path, F_OK) != 0 && errno == ENOENT) return NULL;
    status s = new_store(out, path, STORE_READ);
    if (!s) s = prepare_reading(*out, &begun);
    if (!s && begun) return NULL;
    store_close(*out);
    *out = NULL;
    return s;
}

void store_close(struct store *store) {
    if (!store) return;
    database_close(store->db);
    free(store);
}

const char *store_path(const struct store *store) { return database_path(store->db); }

status store_check_file(const struct store *store) { return database_check_file(store->db); }

status store_file(const struct store *store, const char *key, const char *name, bool make, char path[4096]) {
    char folder[4096];
    int length = snprintf(folder, sizeof folder, "%s/store/%.2s/%s", store->directory, key, key);
    if (length >= (int)sizeof folder || snprintf(path, 4096, "%s/%s", folder, name) >= 4096)
        return status_new(STATUS_SYSTEM, "%s: the path is too long", store->directory);
    return make ? make_directories(folder) : NULL;
}

/* --- clocks ------------------------------------------------------------------------------------------------------- */

double store_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void store_now_text(char out[32]) {
    struct tm parts;
    time_t now = time(NULL);
    gmtime_r(&now, &parts);
    strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

double store_oldest_heartbeat(void) { return store_now() - STORE_STALE_SECONDS; }
