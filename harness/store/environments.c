/* environments: what made a stage, before and after it ends, and whether a suite's stages come from one build. */
#include <stdio.h>
#include <string.h>

#include "harness/store/internal.h"
#include "model/files.h"

status store_put_environment(struct store *store, const struct provenance *provenance, int64_t *id) {
    char hash[65];
    bool found;
    struct digest *digest = digest_new();
    for (int i = 0; i < provenance->count; i++) {
        digest_add(digest, provenance->rows[i].name, strlen(provenance->rows[i].name) + 1);
        digest_add(digest, provenance->rows[i].value, strlen(provenance->rows[i].value) + 1);
    }
    digest_finish(digest, hash);
    TRY(query_one_int(store->db, id, &found, "SELECT id FROM environments WHERE sha256 = ?", "s", hash));
    if (found) return NULL;
    TRY(database_run(store->db, "INSERT INTO environments (sha256) VALUES (?)", "s", hash));
    *id = database_last_id(store->db);
    for (int i = 0; i < provenance->count; i++)
        TRY(database_run(store->db, "INSERT INTO provenance VALUES (?, ?, ?, ?)", "iiss", *id, (int64_t)i,
                         provenance->rows[i].name, provenance->rows[i].value));
    return NULL;
}

static status begin(struct store *store, const char *key, const struct worker *worker,
                    const struct provenance *provenance) {
    int64_t id, environment;
    TRY(store_held_stage(store, key, worker, &id));
    TRY(store_put_environment(store, provenance, &environment));
    return database_run(store->db, "UPDATE stages SET environment = ? WHERE id = ?", "ii", environment, id);
}

status store_begin(struct store *store, const char *key, const struct worker *worker,
                   const struct provenance *provenance) {
    TRY(database_begin(store->db));
    return database_end(store->db, begin(store, key, worker, provenance));
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

status store_read_provenance(struct query *q, struct provenance *provenance) {
    *provenance = (struct provenance){0};
    for (bool row = true; row;) {
        TRY(query_next(q, &row));
        if (!row || provenance->count == PROVENANCE_CAPACITY) continue;
        struct provenance_row *to = &provenance->rows[provenance->count++];
        query_text(q, 0, to->name, sizeof to->name);
        query_text(q, 1, to->value, sizeof to->value);
    }
    return NULL;
}

status store_stage_environment(struct store *store, const char *key, struct provenance *provenance) {
    struct query q;
    TRY(query_open(&q, store->db,
                   "SELECT p.name, p.value FROM provenance p JOIN stages s ON s.environment = p.environment "
                   "WHERE s.key = ? ORDER BY p.position",
                   "s", key));
    return store_read_provenance(&q, provenance);
}

/* --- one build per suite ------------------------------------------------------------------------------------------ */

static status read_environment(struct store *store, int64_t environment, struct provenance *provenance) {
    struct query q;
    TRY(query_open(&q, store->db, "SELECT name, value FROM provenance WHERE environment = ? ORDER BY position", "i",
                   environment));
    return store_read_provenance(&q, provenance);
}

/* Looks at the environments that came since the last call: as long as all are of this build, so is every stage. */
static status look_for_other_builds(struct store *store, const struct provenance *now) {
    struct query q;
    struct provenance provenance;
    char what[2048];
    TRY(query_open(&q, store->db, "SELECT id FROM environments WHERE id > ? ORDER BY id", "i", store->environments));
    for (bool row = true;;) {
        TRY(query_next(&q, &row));
        if (!row) return NULL;
        store->environments = query_int(&q, 0);
        status s = read_environment(store, store->environments, &provenance);
        if (s) query_close(&q);
        TRY(s);
        store->other_builds |= provenance_differs(&provenance, now, false, what, sizeof what);
    }
}

/* Of a suite's stages. */
struct environment_use {
    int64_t environment, stages, running;
};

static status check_environment(struct store *store, const char *suite, const struct environment_use *use,
                                const struct provenance *now) {
    struct provenance before;
    char what[2048], running[64] = "";
    TRY(read_environment(store, use->environment, &before));
    if (!provenance_differs(&before, now, false, what, sizeof what)) return NULL;
    if (use->running) snprintf(running, sizeof running, " (it is at work on %lld now)", (long long)use->running);
    return status_new(STATUS_USAGE,
                      "suite %s: %lld of its stages were made by another build: %s%s; the results of two builds are "
                      "not put together: go on with that build, begin afresh in another database (--db), or say "
                      "--mix-builds when the change cannot matter",
                      suite, (long long)use->stages, what, running);
}

static status check_environments(struct store *store, const char *suite, const char *scale,
                                 const struct provenance *now) {
    struct query q;
    TRY(query_open(&q, store->db,
                   "SELECT s.environment, count(DISTINCT s.id), "
                   "count(DISTINCT CASE WHEN s.status = 'running' THEN s.id END) "
                   "FROM suites u JOIN runs r ON r.suite = u.id "
                   "JOIN run_stages rs ON rs.run = r.id JOIN stages s ON s.id = rs.stage "
                   "WHERE u.name = ? AND u.scale = ? AND s.environment IS NOT NULL AND "
                   "(s.status = 'done' OR (s.status = 'running' AND NOT " DEAD_WORKER ")) GROUP BY s.environment",
                   "sssd", suite, scale, store->host, store_oldest_heartbeat()));
    for (bool row = true;;) {
        TRY(query_next(&q, &row));
        if (!row) return NULL;
        const struct environment_use use = {query_int(&q, 0), query_int(&q, 1), query_int(&q, 2)};
        status s = check_environment(store, suite, &use, now);
        if (s) query_close(&q);
        TRY(s);
    }
}

status store_check_build(struct store *store, const char *suite, const char *scale, const struct provenance *now) {
    TRY(look_for_other_builds(store, now));
    return store->other_builds ? check_environments(store, suite, scale, now) : NULL;
}
