/* merge_source: the other database of a merge: whose it is, of which version, whether it is whole. */
#include <string.h>

#include "harness/store/merge_parts.h"

static status check_version(const struct merge *m) {
    struct query q;
    bool row;
    const char *path = m->request->from;
    TRY(query_open(&q, m->from->db,
                   "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
                   "FROM pragma_user_version, pragma_application_id",
                   ""));
    TRY(query_next(&q, &row));
    const int64_t version = query_int(&q, 0), application = query_int(&q, 1), tables = query_int(&q, 2);
    query_close(&q);
    if (tables == 0) return status_new(STATUS_DATA, "%s: nothing was ever run in it: nothing can be merged", path);
    if (application != APPLICATION_ID)
        return status_new(STATUS_DATA, "%s: a database of another program, not of hinge: it cannot be merged", path);
    if (version == STORE_VERSION) return NULL;
    return status_new(STATUS_DATA, "%s: has version %lld, this program merges version %d; %s", path, (long long)version,
                      STORE_VERSION,
                      version < STORE_VERSION ? "hinge status --db FILE brings an older one up to date"
                                              : "use the newer hinge");
}

/* A damaged page may as well end the look for it. */
static status check_pages(const struct merge *m) {
    struct query q;
    bool row;
    char found[512] = "ok";
    TRY(query_open(&q, m->from->db, "SELECT * FROM pragma_integrity_check(1)", ""));
    TRY(query_next(&q, &row));
    if (row) query_text(&q, 0, found, sizeof found);
    query_close(&q);
    if (strcmp(found, "ok") == 0) return NULL;
    return status_new(STATUS_DATA, "%s: is damaged, and nothing of it was merged: %s", m->request->from, found);
}

/* The first text that the query finds is what is wrong. */
static status find_fault(const struct merge *m, const char *sql, const char *what) {
    struct query q;
    bool row;
    char found[256];
    TRY(query_open(&q, m->store->db, sql, ""));
    TRY(query_next(&q, &row));
    if (!row) return NULL;
    query_text(&q, 0, found, sizeof found);
    query_close(&q);
    return status_new(STATUS_DATA,
                      "%s: %s %.100s: the file is damaged or was changed by hand; nothing of it was merged",
                      m->request->from, what, found);
}

/* Keys become names of folders. */
static status check_content(const struct merge *m) {
    TRY(find_fault(m,
                   "SELECT name FROM (SELECT type, name, sql FROM main.sqlite_master WHERE name NOT LIKE 'sqlite\\_%' "
                   "ESCAPE '\\' EXCEPT SELECT type, name, sql FROM there.sqlite_master)",
                   "its tables are not those of this version:"));
    TRY(find_fault(m, "SELECT name FROM there.sqlite_master WHERE type IN ('trigger', 'view')", "it has a foreign"));
    return find_fault(m,
                      "SELECT key FROM there.stages WHERE typeof(key) <> 'text' OR length(key) <> 64 OR "
                      "key GLOB '*[^0-9a-f]*'",
                      "a stage has no content key but");
}

static status check_and_attach(struct merge *m) {
    if (database_same_file(m->store->db, m->from->db))
        return status_new(STATUS_USAGE, "%s: is the database that it would be merged into (--db)", m->request->from);
    TRY(check_version(m));
    if (!m->request->checked) TRY(check_pages(m));
    TRY(database_attach(m->store->db, m->from->db, "there"));
    status s = check_content(m);
    if (s) status_free(database_detach(m->store->db, "there"));
    return s;
}

status merge_open_source(struct merge *m) {
    TRY(store_open_as_it_is(&m->from, m->request->from));
    status s = check_and_attach(m);
    if (!s) return NULL;
    store_close(m->from);
    m->from = NULL;
    return s;
}

void merge_close_source(struct merge *m) {
    status_free(database_detach(m->store->db, "there"));
    store_close(m->from);
}
