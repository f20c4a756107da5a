/* stages: claiming, heartbeats, steps and results of single stages. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness/store/internal.h"
#include "model/files.h"

void worker_current(struct worker *worker) {
    *worker = (struct worker){.pid = getpid()};
    gethostname(worker->host, sizeof worker->host - 1);
    snprintf(worker->name, sizeof worker->name, "%s:%lld:%lld", worker->host, (long long)worker->pid,
             (long long)process_start(worker->pid));
}

bool worker_is_sibling(const struct worker *other) {
    struct worker current;
    worker_current(&current);
    return strcmp(other->host, current.host) == 0 && process_parent(other->pid) == getppid();
}

/* --- claiming ----------------------------------------------------------------------------------------------------- */

static status unknown_stage(const char *key) { return status_new(STATUS_DATA, "stage %s is not in the database", key); }

static enum claim decide(enum stage_state state, bool dead) {
    switch (state) {
    case STAGE_DONE:
        return CLAIM_DONE;
    case STAGE_FAILED:
        return CLAIM_FAILED;
    case STAGE_RUNNING:
        return dead ? CLAIM_TAKEN_OVER : CLAIM_BUSY;
    default:
        return CLAIM_TAKEN;
    }
}

static status look(struct store *store, const char *key, enum claim *claim) {
    struct query q;
    bool row;
    char text[16];
    enum stage_state state = STAGE_PENDING;
    TRY(query_open(&q, store->db, "SELECT s.status, " DEAD_WORKER " FROM stages s WHERE s.key = ?", "sds", store->host,
                   store_oldest_heartbeat(), key));
    TRY(query_next(&q, &row));
    if (!row) return unknown_stage(key);
    query_text(&q, 0, text, sizeof text);
    bool dead = query_int(&q, 1);
    query_close(&q);
    stage_state_find(text, &state);
    *claim = decide(state, dead);
    return NULL;
}

static status take(struct store *store, const char *key, const struct worker *worker) {
    char now[32];
    store_now_text(now);
    return database_run(store->db,
                        "UPDATE stages SET status = 'running', worker = ?, host = ?, pid = ?, heartbeat = ?, "
                        "started = coalesce(started, ?), error = NULL WHERE key = ?",
                        "ssidss", worker->name, worker->host, worker->pid, store_now(), now, key);
}

status store_claim(struct store *store, const char *key, const struct worker *worker, enum claim *claim) {
    TRY(database_begin(store->db));
    status s = look(store, key, claim);
    if (!s && (*claim == CLAIM_TAKEN || *claim == CLAIM_TAKEN_OVER)) s = take(store, key, worker);
    return database_end(store->db, s);
}

status store_stage_holder(struct store *store, const char *key, struct stage_holder *holder) {
    struct query q;
    bool row;
    *holder = (struct stage_holder){0};
    TRY(query_open(&q, store->db,
                   "SELECT worker, host, pid, ? - heartbeat FROM stages WHERE key = ? AND status = 'running'", "ds",
                   store_now(), key));
    TRY(query_next(&q, &row));
    if (!row) return NULL;
    query_text(&q, 0, holder->worker.name, sizeof holder->worker.name);
    query_text(&q, 1, holder->worker.host, sizeof holder->worker.host);
    holder->worker.pid = query_int(&q, 2);
    holder->silent = query_real(&q, 3);
    query_close(&q);
    return NULL;
}

status store_batch_begin(struct store *store) { return database_begin(store->db); }
status store_batch_end(struct store *store, status s) { return database_end(store->db, s); }

status store_retry(struct store *store, const char *key) {
    return database_run(store->db,
                        "UPDATE stages SET status = 'pending', error = NULL WHERE key = ? AND "
                        "status = 'failed'",
                        "s", key);
}

status store_redo(struct store *store, const char *key) {
    return database_run(store->db, "UPDATE stages SET status = 'pending' WHERE key = ? AND status = 'done'", "s", key);
}

status store_held_stage(struct store *store, const char *key, const struct worker *worker, int64_t *id) {
    bool found;
    TRY(query_one_int(store->db, id, &found,
                      "SELECT id FROM stages WHERE key = ? AND worker = ? AND status = 'running'", "ss", key,
                      worker->name));
    if (found) return NULL;
    return status_new(STATUS_DIFFERS, "stage %.12s was taken over by another worker", key);
}

status store_heartbeat(struct store *store, const char *key, const struct worker *worker) {
    TRY(database_run(store->db, "UPDATE stages SET heartbeat = ? WHERE key = ? AND worker = ? AND status = 'running'",
                     "dss", store_now(), key, worker->name));
    if (database_changes(store->db)) return NULL;
    return status_new(STATUS_DIFFERS, "stage %.12s was taken over by another worker", key);
}

status store_age(struct store *store, double *seconds) {
    struct query q;
    bool row;
    TRY(query_open(&q, store->db, "SELECT ? - max(heartbeat) FROM stages", "d", store_now()));
    TRY(query_next(&q, &row));
    *seconds = row ? query_real(&q, 0) : (double)NAN;
    query_close(&q);
    return NULL;
}

static status release(struct store *store, const char *key, const struct worker *worker, enum stage_state state,
                      const char *error) {
    char now[32];
    int64_t id;
    store_now_text(now);
    TRY(store_held_stage(store, key, worker, &id));
    return database_run(store->db, "UPDATE stages SET status = ?, error = ?, finished = ? WHERE id = ?", "sssi",
                        stage_state_name(state), error, state == STAGE_FAILED ? now : NULL, id);
}

status store_release(struct store *store, const char *key, const struct worker *worker, enum stage_state state,
                     const char *error) {
    TRY(database_begin(store->db));
    return database_end(store->db, release(store, key, worker, state, error));
}

status store_stage_state(struct store *store, const char *key, enum stage_state *state, double *seconds, bool *known) {
    struct query q;
    char text[16];
    *state = STAGE_PENDING;
    *seconds = NAN;
    TRY(query_open(&q, store->db,
                   "SELECT CASE WHEN s.status = 'running' AND " DEAD_WORKER
                   " THEN 'interrupted' ELSE s.status END, s.seconds FROM stages s WHERE s.key = ?",
                   "sds", store->host, store_oldest_heartbeat(), key));
    TRY(query_next(&q, known));
    if (!*known) return NULL;
    query_text(&q, 0, text, sizeof text);
    *seconds = query_real(&q, 1);
    query_close(&q);
    stage_state_find(text, state);
    return NULL;
}

/* --- steps -------------------------------------------------------------------------------------------------------- */

static status put_steps(struct store *store, const char *key, const struct worker *worker, int64_t first,
                        const struct step_record *steps, size_t count) {
    int64_t id;
    TRY(store_held_stage(store, key, worker, &id));
    TRY(database_run(store->db, "DELETE FROM steps WHERE stage = ? AND step >= ?", "ii", id, first));
    for (size_t i = 0; i < count; i++)
        TRY(database_run(store->db, "INSERT INTO steps VALUES (?, ?, ?, ?, ?, ?)", "iidddi", id, steps[i].step,
                         steps[i].loss, steps[i].multiplier, steps[i].milliseconds, steps[i].tokens));
    return database_run(store->db, "UPDATE stages SET heartbeat = ? WHERE id = ?", "di", store_now(), id);
}

status store_put_steps(struct store *store, const char *key, const struct worker *worker, int64_t first,
                       const struct step_record *steps, size_t count) {
    TRY(database_begin(store->db));
    return database_end(store->db, put_steps(store, key, worker, first, steps, count));
}

/* The rows of a stage, whose number is not known before they are read. */
struct step_list {
    struct step_record *rows;
    size_t count, capacity;
};

static status next_step(struct step_list *list, struct step_record **row) {
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 64;
        struct step_record *grown = realloc(list->rows, capacity * sizeof *grown);
        if (!grown) return status_new(STATUS_SYSTEM, "out of memory for %zu steps", capacity);
        list->rows = grown;
        list->capacity = capacity;
    }
    *row = &list->rows[list->count++];
    return NULL;
}

static status read_steps(struct query *q, struct step_list *list) {
    for (bool row = true; row;) {
        struct step_record *step = NULL;
        TRY(query_next(q, &row));
        if (!row) continue;
        status s = next_step(list, &step);
        if (s) query_close(q);
        TRY(s);
        *step = (struct step_record){.step = query_int(q, 0),
                                     .loss = query_real(q, 1),
                                     .multiplier = query_real(q, 2),
                                     .milliseconds = query_real(q, 3),
                                     .tokens = query_int(q, 4)};
    }
    return NULL;
}

status store_steps(struct store *store, const char *key, struct step_record **steps, size_t *count) {
    struct query q;
    int64_t id;
    bool found;
    struct step_list list = {0};
    *steps = NULL;
    *count = 0;
    TRY(query_one_int(store->db, &id, &found, "SELECT id FROM stages WHERE key = ?", "s", key));
    if (!found) return unknown_stage(key);
    TRY(query_open(&q, store->db,
                   "SELECT step, loss, multiplier, milliseconds, tokens FROM steps WHERE stage = ? ORDER BY step", "i",
                   id));
    status s = read_steps(&q, &list);
    if (s) {
        free(list.rows);
        return s;
    }
    *steps = list.rows;
    *count = list.count;
    return NULL;
}

status store_count_steps(struct store *store, const char *key, int64_t below, int64_t *count) {
    return query_one_int(store->db, count, NULL,
                         "SELECT count(*) FROM steps WHERE stage = (SELECT id FROM stages WHERE key = ?) AND step < ?",
                         "si", key, below);
}

status store_step_totals(struct store *store, const char *key, double *seconds, int64_t *tokens) {
    struct query q;
    bool row;
    TRY(query_open(&q, store->db,
                   "SELECT coalesce(sum(milliseconds), 0) / 1000.0, coalesce(sum(tokens), 0) FROM steps "
                   "WHERE stage = (SELECT id FROM stages WHERE key = ?)",
                   "s", key));
    TRY(query_next(&q, &row));
    *seconds = query_real(&q, 0);
    *tokens = query_int(&q, 1);
    query_close(&q);
    return NULL;
}

/* --- results ------------------------------------------------------------------------------------------------------ */

static status put_evaluation(struct store *store, int64_t stage, const struct evaluation *e) {
    TRY(database_run(store->db, "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?, ?, ?, ?, ?)", "idddiid", stage,
                     e->bpb, e->nll, e->nll_per_token, e->bytes, e->tokens, e->seconds));
    for (int i = 0; i < EVALUATION_BLOCKS; i++)
        if (e->blocks[i].tokens)
            TRY(database_run(store->db, "INSERT OR REPLACE INTO evaluation_blocks VALUES (?, ?, ?, ?, ?)", "iidii",
                             stage, (int64_t)i, e->blocks[i].nll, e->blocks[i].bytes, e->blocks[i].tokens));
    return NULL;
}

static status put_artifact(struct store *store, int64_t stage, const struct artifact_sizes *a) {
    TRY(database_run(store->db, "INSERT OR REPLACE INTO artifacts VALUES (?, ?, ?, ?)", "iiis", stage,
                     (int64_t)a->bytes, (int64_t)a->raw_bytes, a->sha256));
    for (int i = 0; i < CLASS_COUNT; i++)
        TRY(database_run(store->db, "INSERT OR REPLACE INTO artifact_classes VALUES (?, ?, ?, ?)", "isii", stage,
                         tensor_class_name((enum tensor_class)i), (int64_t)a->class_bytes[i],
                         (int64_t)a->class_parameters[i]));
    return NULL;
}

static const char *or_null(const char *text) { return *text ? text : NULL; }

static const char *value_of(const struct provenance *p, const char *name) {
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->rows[i].name, name) == 0) return p->rows[i].value;
    return NULL;
}

/* The machine, or the drawn one of the simulated backend. */
static void name_node(const struct provenance *provenance, const struct worker *worker, char node[64]) {
    const char *drawn = value_of(provenance, "simulated node");
    snprintf(node, 64, "%s%.40s", drawn ? "simulated node " : "", drawn ? drawn : worker->host);
}

static status put_figures(struct store *store, int64_t stage, const struct stage_result *r, int64_t environment,
                          const char *node) {
    char now[32];
    store_now_text(now);
    return database_run(
        store->db,
        "UPDATE stages SET status = 'done', error = NULL, finished = ?, seconds = ?, work = ?, steps = ?, "
        "parameter_count = ?, final_loss = ?, tokens_per_second = ?, weights_sha256 = ?, averaged_sha256 = ?, "
        "trace_sha256 = ?, quantise_seconds = ?, calibration_seconds = ?, environment = ?, node = ? WHERE id = ?",
        "sddiiddsssddisi", now, r->seconds, r->work, r->steps, r->parameter_count, r->final_loss, r->tokens_per_second,
        or_null(r->weights_sha256), or_null(r->averaged_sha256), or_null(r->trace_sha256), r->quantise_seconds,
        r->calibration_seconds, environment, node, stage);
}

static status finish(struct store *store, const char *key, const struct worker *worker, const struct stage_result *r) {
    int64_t id, environment;
    TRY(store_held_stage(store, key, worker, &id));
    TRY(store_put_environment(store, r->provenance, &environment));
    if (r->evaluation) TRY(put_evaluation(store, id, r->evaluation));
    if (r->sizes) TRY(put_artifact(store, id, r->sizes));
    if (r->notes && *r->notes)
        TRY(database_run(store->db, "INSERT OR REPLACE INTO stage_notes VALUES (?, ?)", "is", id, r->notes));
    char node[64];
    name_node(r->provenance, worker, node);
    return put_figures(store, id, r, environment, node);
}

status store_finish(struct store *store, const char *key, const struct worker *worker,
                    const struct stage_result *result) {
    TRY(database_begin(store->db));
    return database_end(store->db, finish(store, key, worker, result));
}

status store_weights_sha256(struct store *store, const char *key, char weights[65], char averaged[65]) {
    struct query q;
    bool row;
    TRY(query_open(&q, store->db, "SELECT weights_sha256, averaged_sha256 FROM stages WHERE key = ?", "s", key));
    TRY(query_next(&q, &row));
    if (!row) return unknown_stage(key);
    query_text(&q, 0, weights, 65);
    query_text(&q, 1, averaged, 65);
    query_close(&q);
    return NULL;
}

status store_check_artifact(struct store *store, const char *key, const char *path) {
    struct query q;
    bool row;
    char stored[65] = "", found[65];
    TRY(query_open(&q, store->db, "SELECT a.sha256 FROM artifacts a JOIN stages s ON s.id = a.stage WHERE s.key = ?",
                   "s", key));
    TRY(query_next(&q, &row));
    if (row) query_text(&q, 0, stored, sizeof stored);
    query_close(&q);
    TRY(file_sha256(path, found));
    if (strcmp(stored, found) == 0) return NULL;
    return status_new(STATUS_DATA, "%s: has the hash %.12s, stored was %.12s: the file is damaged", path, found,
                      stored);
}

/* The five stages nearest in work on a logarithmic scale, each scaled to the work asked for. */
status store_predict_seconds(struct store *store, enum stage_kind kind, const char *backend, int lanes, double work,
                             double *seconds) {
    struct query q;
    bool row;
    TRY(query_open(&q, store->db,
                   "SELECT avg(seconds / work) FROM (SELECT seconds, work FROM stages s WHERE status = 'done' AND "
                   "kind = ?1 AND host = ?2 AND backend = ?4 AND work BETWEEN ?3 / 10 AND ?3 * 10 AND "
                   "EXISTS (SELECT 1 FROM provenance p WHERE p.environment = s.environment AND p.name = 'threads' "
                   "AND CAST(p.value AS INTEGER) = ?5) ORDER BY max(work / ?3, ?3 / work) LIMIT 5)",
                   "ssdsi", stage_name(kind), store->host, work, backend, (int64_t)lanes));
    TRY(query_next(&q, &row));
    *seconds = row ? query_real(&q, 0) * work : (double)NAN;
    query_close(&q);
    return NULL;
}
