/* notices: what a reader must know beside the figures: runs that are gone, looks that came early, refused changes, and
 * trainings that were made again. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/store/internal.h"

static status out_of_memory(void) { return status_new(STATUS_SYSTEM, "out of memory"); }

/* --- peeks and refusals ------------------------------------------------------------------------------------------- */

static status load_peeks(struct store *store, int64_t suite, struct results *r) {
    struct query q;
    int64_t capacity = 0;
    TRY(query_one_int(store->db, &capacity, NULL, "SELECT count(*) FROM peeks WHERE suite = ?", "i", suite));
    r->peeks = calloc((size_t)capacity + 1, sizeof *r->peeks); /* one more, for the look that is being taken */
    if (!r->peeks) return out_of_memory();
    TRY(query_open(&q, store->db, "SELECT verb, at, done, declared FROM peeks WHERE suite = ? ORDER BY rowid", "i",
                   suite));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (!row || r->peek_count == capacity) continue;
        struct result_peek *peek = &r->peeks[r->peek_count++];
        query_text(&q, 0, peek->verb, sizeof peek->verb);
        query_text(&q, 1, peek->at, sizeof peek->at);
        peek->done = (int)query_int(&q, 2);
        peek->declared = (int)query_int(&q, 3);
    }
    return NULL;
}

static status load_refusals(struct store *store, int64_t suite, struct results *r) {
    struct query q;
    int64_t capacity = 0;
    TRY(query_one_int(store->db, &capacity, NULL, "SELECT count(*) FROM refusals WHERE suite = ?", "i", suite));
    r->refusals = calloc((size_t)capacity + 1, sizeof *r->refusals);
    if (!r->refusals) return out_of_memory();
    TRY(query_open(&q, store->db, "SELECT at, difference FROM refusals WHERE suite = ? ORDER BY rowid", "i", suite));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (row && r->refusal_count < capacity)
            r->refusals[r->refusal_count++] = (struct result_text){query_copy(&q, 0), query_copy(&q, 1)};
    }
    return NULL;
}

static status load_replicates(struct store *store, int64_t suite, struct results *r) {
    struct query q;
    bool row;
    TRY(query_open(&q, store->db,
                   "SELECT count(*), coalesce(sum(NOT equal), 0) FROM (SELECT min(m.equal) AS equal FROM replicates m "
                   "WHERE m.stage IN (SELECT s.stage FROM runs r JOIN run_stages s ON s.run = r.id AND s.part = ?1 "
                   "WHERE r.suite = ?2) GROUP BY m.stage)",
                   "ii", (int64_t)PART_TRAIN, suite));
    TRY(query_next(&q, &row));
    if (!row) return NULL;
    r->replicates = (int)query_int(&q, 0);
    r->replicates_differing = (int)query_int(&q, 1);
    query_close(&q);
    return NULL;
}

status store_load_notices(struct store *store, int64_t suite, struct results *results) {
    TRY(load_replicates(store, suite, results));
    TRY(load_peeks(store, suite, results));
    return load_refusals(store, suite, results);
}

static status record(struct store *store, const struct results *r, const struct result_peek *peek) {
    int64_t suite;
    bool found;
    TRY(store_suite_id(store, r->suite, r->scale, &suite, &found));
    if (!found) return NULL;
    return database_run(store->db,
                        "INSERT OR IGNORE INTO peeks (suite, done, verb, declared, at) VALUES (?, ?, ?, ?, ?)", "iisis",
                        suite, (int64_t)peek->done, peek->verb, (int64_t)peek->declared, peek->at);
}

status store_record_peek(const char *path, struct results *results, const char *verb) {
    struct store *store;
    struct result_peek peek = {.verb = ""};
    if (!results_peeked(results, &peek.done, &peek.declared)) return NULL;
    snprintf(peek.verb, sizeof peek.verb, "%s", verb);
    for (int i = 0; i < results->peek_count; i++)
        if (results->peeks[i].done == peek.done && strcmp(results->peeks[i].verb, verb) == 0) return NULL;
    store_now_text(peek.at);
    if (results->peeks) results->peeks[results->peek_count++] = peek;
    TRY(store_open(&store, path, STORE_WRITE));
    status s = record(store, results, &peek);
    store_close(store);
    return s;
}

status store_record_refusal(struct store *store, int64_t suite, const char *difference) {
    char now[32];
    store_now_text(now);
    return database_run(store->db, "INSERT OR IGNORE INTO refusals (suite, difference, at) VALUES (?, ?, ?)", "iss",
                        suite, difference, now);
}

status store_record_replicate(const char *path, int64_t run, bool equal, int64_t step) {
    struct store *store;
    char now[32];
    store_now_text(now);
    TRY(store_open(&store, path, STORE_WRITE));
    status s = database_run(store->db,
                            "INSERT OR IGNORE INTO replicates (stage, at, host, equal, step) SELECT stage, ?1, ?2, ?3, "
                            "nullif(?4, -1) FROM run_stages WHERE run = ?5 AND part = ?6",
                            "ssiiii", now, store->host, (int64_t)equal, step, run, (int64_t)PART_TRAIN);
    store_close(store);
    return s;
}

/* --- what was declared and is not there --------------------------------------------------------------------------- */

static int place_of_seed(const struct results *r, int64_t seed) {
    for (int s = 0; s < r->seed_count; s++)
        if (r->seeds[s] == seed) return s;
    return -1;
}

status store_restore_seeds(struct results *r) {
    static const char key[] = "\nseeds:";
    const char *line = r->declaration ? strstr(r->declaration, key) : NULL;
    if (!line) return NULL;
    char *end;
    for (const char *at = line + strlen(key); *at == ' '; at = end) {
        int64_t seed = strtoll(at, &end, 10);
        if (end == at) break;
        if (place_of_seed(r, seed) >= 0) continue;
        int64_t *grown = realloc(r->seeds, ((size_t)r->seed_count + 1) * sizeof *grown);
        if (!grown) return out_of_memory();
        r->seeds = grown;
        r->seeds[r->seed_count++] = seed;
    }
    return NULL;
}

static bool is_declared_seed(const struct results *r, int seed) {
    static const char key[] = "\nseeds:";
    char text[32];
    const char *line = r->declaration ? strstr(r->declaration, key) : NULL;
    snprintf(text, sizeof text, " %lld", (long long)r->seeds[seed]);
    size_t length = line ? strcspn(line + 1, "\n") + 1 : 0;
    for (const char *at = line; at && (at = strstr(at, text)) && (size_t)(at - line) < length; at++) {
        char next = at[strlen(text)];
        if (next == ' ' || next == '\n' || next == '\0') return true;
    }
    return false;
}

/* Seed by seed, variants in order: what is there, and in between what should be: every variant has a run of every seed,
 * late ones too. */
static void merge(struct results *r, const bool *declared, const struct result_run *there, int count,
                  const struct result_run *empty) {
    int at = 0;
    r->run_count = 0;
    for (int s = 0; s < r->seed_count; s++)
        for (int v = 0; v < r->variant_count; v++) {
            if (at < count && there[at].seed == r->seeds[s] && there[at].variant == v) {
                r->runs[r->run_count++] = there[at++];
            } else {
                struct result_run *gone = &r->runs[r->run_count++];
                *gone = *empty;
                gone->variant = v;
                gone->seed = r->seeds[s];
                gone->late = !declared[s] || r->variants[v].late;
                snprintf(gone->status, sizeof gone->status, "deleted");
            }
        }
}

status store_restore_runs(struct results *r, const struct result_run *empty) {
    size_t cells = (size_t)r->seed_count * (size_t)r->variant_count;
    struct result_run *there = r->runs, *all = calloc(cells + 1, sizeof *all);
    bool *declared = calloc((size_t)r->seed_count + 1, sizeof *declared);
    if (all && declared) {
        for (int s = 0; s < r->seed_count; s++) declared[s] = is_declared_seed(r, s);
        r->runs = all;
        merge(r, declared, there, r->run_count, empty);
        free(there);
    } else {
        free(all);
    }
    free(declared);
    return all && declared ? NULL : out_of_memory();
}
