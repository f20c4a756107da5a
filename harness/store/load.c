/* load: a suite's rows as the arrays of results.h. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/declaration.h"
#include "harness/store/internal.h"

/* What is loaded: a suite, or one run of it, in how much detail. */
struct loading {
    struct store *store;
    struct results *results;
    int64_t suite, run; /* run 0: all */
    enum results_detail detail;
};

#define COPY(q, column, field) query_text(q, column, field, sizeof(field))

static status out_of_memory(void) { return status_new(STATUS_SYSTEM, "out of memory"); }

static status count_rows(const struct loading *l, const char *sql, int *count) {
    int64_t value = 0;
    TRY(query_one_int(l->store->db, &value, NULL, sql, "i", l->suite));
    *count = (int)value;
    return NULL;
}

/* --- the suite ---------------------------------------------------------------------------------------------------- */

static status read_options(char *text, struct config *config) {
    config_defaults(config);
    for (char *line = text, *end; *line; line = end + 1) {
        end = strchrnul(line, '\n');
        bool last = !*end;
        *end = 0;
        char *equals = strchr(line, '=');
        if (equals) {
            *equals = 0;
            if (option_find(line)) TRY(config_set(config, line, equals + 1));
        }
        if (last) break;
    }
    return NULL;
}

static status read_suite(struct query *q, struct results *r) {
    char test[32], correction[32];
    COPY(q, 0, r->suite);
    COPY(q, 1, r->scale);
    COPY(q, 2, r->source);
    COPY(q, 3, r->question);
    COPY(q, 4, r->preset);
    COPY(q, 5, r->metric);
    COPY(q, 6, test);
    COPY(q, 7, correction);
    r->design.margin = query_real(q, 8);
    r->design.alpha = query_real(q, 9);
    r->design.seed = (uint64_t)query_int(q, 10);
    COPY(q, 11, r->declaration_sha256);
    COPY(q, 12, r->declared_at);
    COPY(q, 13, r->dataset);
    COPY(q, 14, r->dataset_sha256);
    r->unigram_bpb = query_real(q, 15) / log(2.0) / query_real(q, 16);
    r->declaration = query_copy(q, 17);
    char *options = query_copy(q, 18);
    status s = r->declaration && options ? read_options(options, &r->config) : out_of_memory();
    free(options);
    if (!s && !(test_find(test, &r->design.test) && correction_find(correction, &r->design.correction)))
        s = status_new(STATUS_DATA, "suite %s: test %s or correction %s is unknown to this program", r->suite, test,
                       correction);
    return s;
}

static status load_suite(const struct loading *l) {
    struct query q;
    bool row;
    TRY(query_open(&q, l->store->db,
                   "SELECT u.name, u.scale, u.path, u.question, u.preset, u.metric, u.test, u.correction, u.margin, "
                   "u.alpha, u.resampling_seed, u.declaration_sha256, u.declared_at, d.name, d.sha256, d.unigram_nll, "
                   "d.bytes_per_token, u.declaration, u.options FROM suites u JOIN datasets d ON d.sha256 = u.dataset "
                   "WHERE u.id = ?",
                   "i", l->suite));
    TRY(query_next(&q, &row));
    if (!row) return status_new(STATUS_DATA, "%s: a suite lacks its dataset", database_path(l->store->db));
    status s = read_suite(&q, l->results);
    query_close(&q);
    return s;
}

static status load_variants(const struct loading *l) {
    struct query q;
    struct results *r = l->results;
    int capacity;
    TRY(count_rows(l, "SELECT count(*) FROM variants WHERE suite = ?", &capacity));
    r->variants = calloc((size_t)capacity + 1, sizeof *r->variants);
    if (!r->variants) return out_of_memory();
    TRY(query_open(
        &q, l->store->db,
        "SELECT v.name, v.late, v.overrides, v.name = u.baseline, v.declaration FROM variants v JOIN suites u ON "
        "u.id = v.suite WHERE v.suite = ? ORDER BY v.position",
        "i", l->suite));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (!row || r->variant_count == capacity) continue;
        struct result_variant *v = &r->variants[r->variant_count++];
        COPY(&q, 0, v->name);
        v->late = query_int(&q, 1);
        COPY(&q, 2, v->overrides);
        char *declaration = query_copy(&q, 4);
        if (declaration) declaration_family(declaration, v->family, sizeof v->family);
        free(declaration);
        if (query_int(&q, 3)) r->design.baseline = v->name;
    }
    return NULL;
}

static status load_seeds(const struct loading *l) {
    struct query q;
    struct results *r = l->results;
    int capacity;
    TRY(count_rows(l, "SELECT count(*) FROM seeds WHERE suite = ?", &capacity));
    r->seeds = calloc((size_t)capacity + 1, sizeof *r->seeds);
    if (!r->seeds) return out_of_memory();
    TRY(query_open(&q, l->store->db, "SELECT seed FROM seeds WHERE suite = ? ORDER BY position", "i", l->suite));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (row && r->seed_count < capacity) r->seeds[r->seed_count++] = query_int(&q, 0);
    }
    return NULL;
}

/* --- runs --------------------------------------------------------------------------------------------------------- */

static struct result_run empty_run(void) {
    return (struct result_run){.final_loss = NAN,
                               .train_seconds = NAN,
                               .tokens_per_second = NAN,
                               .quantise_seconds = NAN,
                               .calibration_seconds = NAN,
                               .status = "pending"};
}

static void read_run(struct query *q, struct result_run *run) {
    *run = empty_run();
    run->id = query_int(q, 0);
    run->variant = (int)query_int(q, 1);
    run->seed = query_int(q, 2);
    run->late = query_int(q, 3);
    COPY(q, 4, run->key);
    COPY(q, 5, run->strategy);
}

static status load_runs(const struct loading *l) {
    struct query q;
    struct results *r = l->results;
    int capacity;
    TRY(count_rows(l, "SELECT count(*) FROM runs WHERE suite = ?", &capacity));
    r->runs = calloc((size_t)capacity + 1, sizeof *r->runs);
    if (!r->runs) return out_of_memory();
    TRY(query_open(&q, l->store->db,
                   "SELECT r.id, v.position, r.seed, r.late, r.key, o.value FROM runs r JOIN variants v ON "
                   "v.id = r.variant JOIN seeds s ON s.suite = r.suite AND s.seed = r.seed LEFT JOIN run_options o ON "
                   "o.run = r.id AND o.name = 'quant.strategy' WHERE r.suite = ?1 AND (?2 = 0 OR r.id = ?2) "
                   "ORDER BY s.position, v.position",
                   "ii", l->suite, l->run));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (row && r->run_count < capacity) read_run(&q, &r->runs[r->run_count++]);
    }
    return NULL;
}

static struct result_evaluation *evaluation_of(struct result_run *run, enum run_part part) {
    return part == PART_RAW ? &run->raw : part == PART_AVERAGED ? &run->averaged : &run->artifact;
}

/* Columns of the query in load_stages. */
enum {
    C_RUN,
    C_PART,
    C_KEY,
    C_STATUS,
    C_ERROR,
    C_STARTED,
    C_FINISHED,
    C_SECONDS,
    C_STEPS,
    C_PARAMETERS,
    C_LOSS,
    C_RATE,
    C_WEIGHTS,
    C_TRACE,
    C_QUANTISE,
    C_CALIBRATION,
    C_BPB,
    C_NLL,
    C_NLL_TOKEN,
    C_BYTES,
    C_TOKENS,
    C_EVAL_SECONDS,
    C_SIZE,
    C_RAW_SIZE,
    C_SHA,
    C_NOTES,
    C_NODE
};

static void read_training(struct query *q, struct result_run *run) {
    COPY(q, C_KEY, run->train_key);
    COPY(q, C_STARTED, run->started);
    COPY(q, C_NODE, run->node);
    COPY(q, C_NOTES, run->training_note);
    run->steps = query_int(q, C_STEPS);
    if (query_null(q, C_SECONDS)) return;
    run->parameter_count = query_int(q, C_PARAMETERS);
    run->train_seconds = query_real(q, C_SECONDS);
    run->final_loss = query_real(q, C_LOSS);
    run->tokens_per_second = query_real(q, C_RATE);
    COPY(q, C_WEIGHTS, run->weights_sha256);
    COPY(q, C_TRACE, run->trace_sha256);
}

static void read_quantised(struct query *q, struct result_run *run) {
    run->quantise_seconds = query_real(q, C_QUANTISE);
    run->calibration_seconds = query_real(q, C_CALIBRATION);
    run->sizes.bytes = (size_t)query_int(q, C_SIZE);
    run->sizes.raw_bytes = (size_t)query_int(q, C_RAW_SIZE);
    COPY(q, C_SHA, run->sizes.sha256);
    COPY(q, C_NOTES, run->artifact_notes);
}

static void read_evaluated(struct query *q, struct result_evaluation *e) {
    COPY(q, C_KEY, e->stage_key);
    e->present = !query_null(q, C_BPB);
    if (!e->present) return;
    e->value.bpb = query_real(q, C_BPB);
    e->value.nll = query_real(q, C_NLL);
    e->value.nll_per_token = query_real(q, C_NLL_TOKEN);
    e->value.bytes = query_int(q, C_BYTES);
    e->value.tokens = query_int(q, C_TOKENS);
    e->value.seconds = query_real(q, C_EVAL_SECONDS);
}

/* A run is what the worst of its stages is; it is done when all are. */
static void add_status(struct query *q, struct result_run *run, int *done) {
    char text[16], finished[32];
    enum stage_state state = STAGE_PENDING, before;
    COPY(q, C_STATUS, text);
    stage_state_find(text, &state);
    stage_state_find(run->status, &before);
    if (state == STAGE_DONE) ++*done;
    if (state == STAGE_FAILED && before != STAGE_FAILED) COPY(q, C_ERROR, run->error);
    bool worse = state == STAGE_FAILED || (state == STAGE_RUNNING && before != STAGE_FAILED) ||
                 (state == STAGE_INTERRUPTED && before == STAGE_PENDING);
    if (worse) snprintf(run->status, sizeof run->status, "%s", stage_state_name(state));
    COPY(q, C_FINISHED, finished);
    if (strcmp(finished, run->finished) > 0) memcpy(run->finished, finished, sizeof finished);
    if (*done == PART_COUNT) snprintf(run->status, sizeof run->status, "%s", stage_state_name(STAGE_DONE));
}

static void read_stage(struct query *q, struct result_run *run, int *done) {
    enum run_part part = (enum run_part)query_int(q, C_PART);
    add_status(q, run, done);
    if (part == PART_TRAIN) read_training(q, run);
    if (part == PART_QUANTISE) read_quantised(q, run);
    if (run_part_kind(part) == STAGE_EVALUATE) read_evaluated(q, evaluation_of(run, part));
}

static int compare_ids(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

/* Runs by their id, as the rows of later queries name them. */
struct run_index {
    struct result_run *runs;
    int count;
    struct run_slot {
        int64_t id;
        int position;
    } * slots;
};

static status index_runs(struct results *r, struct run_index *index) {
    *index = (struct run_index){r->runs, r->run_count, calloc((size_t)r->run_count + 1, sizeof *index->slots)};
    if (!index->slots) return out_of_memory();
    for (int i = 0; i < r->run_count; i++) index->slots[i] = (struct run_slot){r->runs[i].id, i};
    qsort(index->slots, (size_t)r->run_count, sizeof *index->slots, compare_ids);
    return NULL;
}

static struct result_run *find_run(const struct run_index *index, int64_t id) {
    struct run_slot *slot = bsearch(&id, index->slots, (size_t)index->count, sizeof *slot, compare_ids);
    return slot ? &index->runs[slot->position] : NULL;
}

static status load_stages(const struct loading *l, const struct run_index *index) {
    struct query q;
    int64_t current = -1;
    int done = 0;
    TRY(query_open(&q, l->store->db,
                   "SELECT r.id, rs.part, s.key, CASE WHEN s.status = 'running' AND " DEAD_WORKER
                   " THEN 'interrupted' ELSE s.status END, s.error, s.started, s.finished, s.seconds, "
                   "coalesce(s.steps, (SELECT max(step) + 1 FROM steps WHERE stage = s.id)), "
                   "s.parameter_count, s.final_loss, s.tokens_per_second, s.weights_sha256, s.trace_sha256, "
                   "s.quantise_seconds, s.calibration_seconds, e.bpb, e.nll, e.nll_per_token, e.bytes, e.tokens, "
                   "e.seconds, a.bytes, a.raw_bytes, a.sha256, n.text, s.node "
                   "FROM runs r JOIN run_stages rs ON rs.run = r.id JOIN stages s ON s.id = rs.stage "
                   "LEFT JOIN evaluations e ON e.stage = s.id LEFT JOIN artifacts a ON a.stage = s.id "
                   "LEFT JOIN stage_notes n ON n.stage = s.id "
                   "WHERE r.suite = ?3 AND (?4 = 0 OR r.id = ?4) ORDER BY r.id, rs.part",
                   "sdii", l->store->host, store_oldest_heartbeat(), l->suite, l->run));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        if (!row) continue;
        if (query_int(&q, C_RUN) != current) done = 0;
        current = query_int(&q, C_RUN);
        struct result_run *run = find_run(index, current);
        if (run) read_stage(&q, run, &done);
    }
    return NULL;
}

static status load_classes(const struct loading *l, const struct run_index *index) {
    struct query q;
    TRY(query_open(&q, l->store->db,
                   "SELECT r.id, c.class, c.bytes, c.parameters FROM runs r JOIN run_stages rs ON rs.run = r.id AND "
                   "rs.part = ?1 JOIN artifact_classes c ON c.stage = rs.stage WHERE r.suite = ?2 AND "
                   "(?3 = 0 OR r.id = ?3)",
                   "iii", (int64_t)PART_QUANTISE, l->suite, l->run));
    for (bool row = true; row;) {
        char name[32];
        TRY(query_next(&q, &row));
        struct result_run *run = row ? find_run(index, query_int(&q, 0)) : NULL;
        if (!run) continue;
        COPY(&q, 1, name);
        for (int i = 0; i < CLASS_COUNT; i++)
            if (strcmp(tensor_class_name((enum tensor_class)i), name) == 0) {
                run->sizes.class_bytes[i] = (size_t)query_int(&q, 2);
                run->sizes.class_parameters[i] = (size_t)query_int(&q, 3);
            }
    }
    return NULL;
}

/* --- provenance --------------------------------------------------------------------------------------------------- */

static status add_provenance(struct results *r, const char *name, const char *value) {
    struct result_text *last = r->provenance_count ? &r->provenance[r->provenance_count - 1] : NULL;
    if (last && strcmp(last->name, name) == 0) {
        char *joined;
        if (asprintf(&joined, "%s; %s", last->value, value) < 0) return out_of_memory();
        free(last->value);
        last->value = joined;
        return NULL;
    }
    struct result_text *grown = realloc(r->provenance, ((size_t)r->provenance_count + 1) * sizeof *grown);
    if (!grown) return out_of_memory();
    r->provenance = grown;
    grown[r->provenance_count++] = (struct result_text){strdup(name), strdup(value)};
    return NULL;
}

/* Values that differ between the stages stand side by side. */
static status load_provenance(const struct loading *l) {
    struct query q;
    status s = NULL;
    TRY(query_open(&q, l->store->db,
                   "SELECT p.name, p.value FROM provenance p WHERE p.environment IN (SELECT DISTINCT s.environment "
                   "FROM runs r JOIN run_stages rs ON rs.run = r.id JOIN stages s ON s.id = rs.stage "
                   "WHERE r.suite = ?1 AND (?2 = 0 OR r.id = ?2)) GROUP BY p.name, p.value "
                   "ORDER BY min(p.position), p.name, min(p.environment)",
                   "ii", l->suite, l->run));
    for (bool row = true; row && !s;) {
        TRY(query_next(&q, &row));
        char *name = row ? query_copy(&q, 0) : NULL, *value = row ? query_copy(&q, 1) : NULL;
        if (row) s = name && value ? add_provenance(l->results, name, value) : out_of_memory();
        free(name);
        free(value);
    }
    if (s) query_close(&q);
    return s;
}

/* --- entries ------------------------------------------------------------------------------------------------------ */

static status load(const struct loading *l) {
    struct run_index index;
    TRY(load_suite(l));
    TRY(load_variants(l));
    TRY(load_seeds(l));
    TRY(store_restore_seeds(l->results));
    TRY(store_load_notices(l->store, l->suite, l->results));
    TRY(results_plan_looks(l->results));
    TRY(load_runs(l));
    struct result_run empty = empty_run();
    if (!l->run) TRY(store_restore_runs(l->results, &empty));
    TRY(index_runs(l->results, &index));
    status s = load_stages(l, &index);
    if (!s && l->detail == RESULTS_ALL) s = load_classes(l, &index);
    free(index.slots);
    TRY(s);
    TRY(load_provenance(l));
    for (int i = 0; i < l->results->run_count; i++) l->results->closed_early |= !run_ended(&l->results->runs[i]);
    return l->detail == RESULTS_ALL ? store_load_detail(l->store, l->results) : NULL;
}

static status load_all(const struct loading *l) {
    *l->results = (struct results){.unigram_bpb = NAN};
    status s = load(l);
    if (s) results_free(l->results);
    return s;
}

static status no_such_suite(struct store *store, const char *suite, const char *scale) {
    struct query q;
    char known[600] = "";
    TRY(query_open(&q, store->db, "SELECT name, scale FROM suites ORDER BY id LIMIT 20", ""));
    for (bool row = true; row;) {
        char name[NAME_CAPACITY], at[32];
        TRY(query_next(&q, &row));
        if (!row) continue;
        COPY(&q, 0, name);
        COPY(&q, 1, at);
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s%s%s%s", used ? ", " : "", name, *at ? " (--scale " : "", at,
                 *at ? ")" : "");
    }
    return status_new(STATUS_USAGE, "%s: has no results of suite %s%s%s; it has: %s", store_path(store), suite,
                      scale && *scale ? " at scale " : "", scale ? scale : "", *known ? known : "none");
}

status store_load_results_at(struct store *store, const char *suite, const char *scale, enum results_detail detail,
                             struct results *results) {
    bool found;
    struct loading l = {.store = store, .results = results, .detail = detail};
    *results = (struct results){0};
    TRY(store_suite_id(store, suite, scale, &l.suite, &found));
    return found ? load_all(&l) : no_such_suite(store, suite, scale);
}

status store_load_results(struct store *store, const char *suite, const char *scale, struct results *results) {
    return store_load_results_at(store, suite, scale, RESULTS_ALL, results);
}

status store_load_run(struct store *store, int64_t run, struct results *results) {
    bool found;
    struct loading l = {.store = store, .results = results, .run = run, .detail = RESULTS_ALL};
    *results = (struct results){0};
    TRY(query_one_int(store->db, &l.suite, &found, "SELECT suite FROM runs WHERE id = ?", "i", run));
    if (found) return load_all(&l);
    return status_new(STATUS_USAGE, "%s: has no run %lld; hinge status lists them", store_path(store), (long long)run);
}
