/* listing: short answers: which suites there are, what one run is made of. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "harness/store/internal.h"

#define COPY(q, column, field) query_text(q, column, field, sizeof(field))

/* --- suites ------------------------------------------------------------------------------------------------------- */

static void read_summary(struct query *q, struct suite_summary *s) {
    *s = (struct suite_summary){0};
    COPY(q, 0, s->name);
    COPY(q, 1, s->scale);
    COPY(q, 2, s->path);
    COPY(q, 3, s->declared_at);
    COPY(q, 4, s->last_activity);
    int *counts[] = {&s->runs, &s->done, &s->failed, &s->running, &s->interrupted, &s->late};
    for (int i = 0; i < 6; i++) *counts[i] = (int)query_int(q, 5 + i);
    s->simulated = query_int(q, 11);
    s->deleted = (int)query_int(q, 12) - s->runs;
    s->pending = s->runs - s->done - s->failed - s->running - s->interrupted;
}

/* Every variant has a run of every seed. A run counts once: failed before running before interrupted before done before
 * pending, as in load.c. */
static const char summaries[] =
    "WITH parts AS (SELECT r.suite, r.id, r.late, s.finished, CASE WHEN s.status = 'running' AND " DEAD_WORKER
    " THEN 'interrupted' ELSE s.status END AS state FROM runs r JOIN run_stages rs ON rs.run = r.id "
    "JOIN stages s ON s.id = rs.stage), "
    "states AS (SELECT suite, id, late, max(finished) AS finished, sum(state = 'failed') AS failed, "
    "sum(state = 'running') AS running, sum(state = 'interrupted') AS interrupted, sum(state = 'done') AS done, "
    "count(*) AS parts FROM parts GROUP BY id) "
    "SELECT u.name, u.scale, u.path, u.declared_at, coalesce(max(t.finished), ''), count(t.id), "
    "coalesce(sum(t.done = t.parts), 0), coalesce(sum(t.failed > 0), 0), "
    "coalesce(sum(t.failed = 0 AND t.running > 0), 0), "
    "coalesce(sum(t.failed = 0 AND t.running = 0 AND t.interrupted > 0), 0), coalesce(sum(t.late), 0), "
    "instr(char(10) || u.options, char(10) || 'run.backend=simulated' || char(10)) > 0, "
    "(SELECT count(*) FROM variants v WHERE v.suite = u.id) * (SELECT count(*) FROM seeds e WHERE e.suite = u.id) "
    "FROM suites u LEFT JOIN states t ON t.suite = u.id GROUP BY u.id ORDER BY u.id";

status store_list_suites(struct store *store, struct suite_summary **rows, int *count) {
    struct query q;
    int64_t capacity = 0;
    *rows = NULL;
    *count = 0;
    TRY(query_one_int(store->db, &capacity, NULL, "SELECT count(*) FROM suites", ""));
    *rows = calloc((size_t)capacity + 1, sizeof **rows);
    if (!*rows) return status_new(STATUS_SYSTEM, "out of memory");
    TRY(query_open(&q, store->db, summaries, "sd", store->host, store_oldest_heartbeat()));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (row && *count < capacity) read_summary(&q, &(*rows)[(*count)++]);
    }
    return NULL;
}

/* --- one run ------------------------------------------------------------------------------------------------------ */

void run_details_free(struct run_details *details) {
    result_texts_free(details->options, details->option_count);
    result_texts_free(details->provenance, details->provenance_count);
    free(details->stages);
    *details = (struct run_details){0};
}

/* Rows of (name, value); the query has been opened. */
static status read_texts(struct query *q, struct result_text **texts, int *count) {
    for (bool row = true; row;) {
        TRY(query_next(q, &row));
        if (!row) continue;
        struct result_text *grown = realloc(*texts, ((size_t)*count + 1) * sizeof *grown);
        if (!grown) {
            query_close(q);
            return status_new(STATUS_SYSTEM, "out of memory");
        }
        *texts = grown;
        grown[(*count)++] = (struct result_text){query_copy(q, 0), query_copy(q, 1)};
    }
    return NULL;
}

static void read_stage(struct query *q, struct stage_record *s) {
    char state[16];
    *s = (struct stage_record){.part = (enum run_part)query_int(q, 0), .seconds = query_real(q, 7)};
    s->kind = run_part_kind(s->part);
    COPY(q, 1, s->key);
    COPY(q, 2, state);
    stage_state_find(state, &s->state);
    COPY(q, 3, s->worker);
    COPY(q, 4, s->started);
    COPY(q, 5, s->finished);
    COPY(q, 6, s->error);
    COPY(q, 8, s->parent);
    s->shared_by = (int)query_int(q, 9);
}

static status load_stages(struct store *store, int64_t run, struct run_details *d) {
    struct query q;
    d->stages = calloc(PART_COUNT, sizeof *d->stages);
    if (!d->stages) return status_new(STATUS_SYSTEM, "out of memory");
    TRY(query_open(&q, store->db,
                   "SELECT rs.part, s.key, CASE WHEN s.status = 'running' AND " DEAD_WORKER
                   " THEN 'interrupted' ELSE s.status END, s.worker, s.started, s.finished, s.error, s.seconds, "
                   "p.key, (SELECT count(*) FROM run_stages o WHERE o.stage = s.id) FROM run_stages rs "
                   "JOIN stages s ON s.id = rs.stage LEFT JOIN stages p ON p.id = s.parent WHERE rs.run = ? "
                   "ORDER BY rs.part",
                   "sdi", store->host, store_oldest_heartbeat(), run));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (row && d->stage_count < PART_COUNT) read_stage(&q, &d->stages[d->stage_count++]);
    }
    return NULL;
}

static int row_position(const char *name) {
    const struct option_row *row = option_find(name);
    return row ? (int)(row - option_rows) : (int)option_row_count;
}

static int by_row(const void *a, const void *b) {
    return row_position(((const struct result_text *)a)->name) - row_position(((const struct result_text *)b)->name);
}

static status load_details(struct store *store, int64_t run, struct run_details *d) {
    struct query q;
    TRY(query_open(&q, store->db, "SELECT name, value FROM run_options WHERE run = ?", "i", run));
    TRY(read_texts(&q, &d->options, &d->option_count));
    if (d->option_count) qsort(d->options, (size_t)d->option_count, sizeof *d->options, by_row);
    TRY(load_stages(store, run, d));
    TRY(query_open(&q, store->db,
                   "SELECT name, value FROM provenance WHERE environment = (SELECT s.environment FROM run_stages rs "
                   "JOIN stages s ON s.id = rs.stage WHERE rs.run = ? AND s.environment IS NOT NULL "
                   "ORDER BY rs.part LIMIT 1) ORDER BY position",
                   "i", run));
    return read_texts(&q, &d->provenance, &d->provenance_count);
}

status store_run_details(struct store *store, int64_t run, struct run_details *details) {
    int64_t id;
    bool found;
    *details = (struct run_details){0};
    TRY(query_one_int(store->db, &id, &found, "SELECT id FROM runs WHERE id = ?", "i", run));
    if (!found) return status_new(STATUS_USAGE, "%s: has no run %lld", store_path(store), (long long)run);
    status s = load_details(store, run, details);
    if (s) run_details_free(details);
    return s;
}

status store_run_config(struct store *store, int64_t run, struct config *config) {
    struct run_details details;
    TRY(store_run_details(store, run, &details));
    status s = NULL;
    config_defaults(config);
    for (int i = 0; i < details.option_count && !s; i++) /* in the order of the rows: quant.strategy before its parts */
        s = config_set(config, details.options[i].name, details.options[i].value);
    run_details_free(&details);
    return status_context(s, "run %lld", (long long)run);
}
