/* declare: freezing a suite's declaration, adding what comes late, refusing what contradicts it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/declaration.h"
#include "harness/store/internal.h"
#include "model/files.h"

struct declaring {
    struct store *store;
    const struct plan *plan;
    const struct suite *suite;
    const struct dataset_list *datasets;
    int64_t id;            /* of the suite */
    bool known;            /* it was declared before */
    char difference[2400]; /* what contradicts the declaration */
};

status store_suite_id(struct store *store, const char *name, const char *scale, int64_t *id, bool *found) {
    return query_one_int(store->db, id, found, "SELECT id FROM suites WHERE name = ? AND scale = ?", "ss", name,
                         scale ? scale : "");
}

/* --- against what was declared ------------------------------------------------------------------------------------ */

static status contradiction(struct declaring *d, const char *what) {
    struct query q;
    bool row;
    char when[32] = "";
    TRY(query_open(&q, d->store->db, "SELECT declared_at FROM suites WHERE id = ?", "i", d->id));
    TRY(query_next(&q, &row));
    if (row) query_text(&q, 0, when, sizeof when);
    query_close(&q);
    snprintf(d->difference, sizeof d->difference, "%s", what);
    return status_new(STATUS_USAGE,
                      "%s: suite %s%s%s was declared otherwise on %s: %s; what is declared stays: give the changed "
                      "suite another name, or use another database (--db)",
                      d->suite->path, d->suite->name, *d->suite->scale ? " at scale " : "", d->suite->scale, when,
                      what);
}

static status compare_text(struct declaring *d, const char *context, const char *before, char *after) {
    char difference[600] = "out of memory", what[1200];
    if (before && after) declaration_difference(before, after, difference, sizeof difference);
    free(after);
    if (!*difference) return NULL;
    snprintf(what, sizeof what, "%s%s", context, difference);
    return contradiction(d, what);
}

static status compare_head(struct declaring *d) {
    struct query q;
    bool row;
    TRY(query_open(&q, d->store->db, "SELECT head FROM suites WHERE id = ?", "i", d->id));
    TRY(query_next(&q, &row));
    char *head = row ? query_copy(&q, 0) : NULL;
    query_close(&q);
    status s = compare_text(d, "", head, declaration_head(d->plan, d->datasets));
    free(head);
    return s;
}

/* Of its column, not of the head: databases from before it was held to what was declared have it there, too. */
static status compare_question(struct declaring *d) {
    struct query q;
    bool row;
    char before[sizeof d->suite->question] = "", what[sizeof d->difference];
    TRY(query_open(&q, d->store->db, "SELECT question FROM suites WHERE id = ?", "i", d->id));
    TRY(query_next(&q, &row));
    if (row) query_text(&q, 0, before, sizeof before);
    query_close(&q);
    if (strcmp(before, d->suite->question) == 0) return NULL;
    snprintf(what, sizeof what, "question was '%s' and is '%s'", before, d->suite->question);
    return contradiction(d, what);
}

static status compare_variant(struct declaring *d, const char *name, const char *before) {
    char context[NAME_CAPACITY + 32];
    int variant = suite_variant_find(d->suite, name);
    snprintf(context, sizeof context, "variant %s: ", name);
    if (variant >= 0) return compare_text(d, context, before, declaration_variant(d->suite, variant));
    snprintf(context, sizeof context, "variant %s is missing now", name);
    return contradiction(d, context);
}

static status compare_blocks(struct declaring *d) {
    struct query q;
    bool row = true;
    TRY(query_open(&q, d->store->db, "SELECT name, declaration FROM variants WHERE suite = ? ORDER BY position", "i",
                   d->id));
    for (;;) {
        TRY(query_next(&q, &row));
        if (!row) return NULL;
        char name[NAME_CAPACITY];
        char *before = query_copy(&q, 1);
        query_text(&q, 0, name, sizeof name);
        status s = compare_variant(d, name, before);
        free(before);
        if (s) query_close(&q);
        TRY(s);
    }
}

static bool has_seed(const struct suite *suite, int64_t seed) {
    for (int i = 0; i < suite->seed_count; i++)
        if (suite->seeds[i] == seed) return true;
    return false;
}

static status compare_seeds(struct declaring *d) {
    struct query q;
    bool row = true;
    int64_t missing = -1;
    TRY(query_open(&q, d->store->db, "SELECT seed FROM seeds WHERE suite = ? ORDER BY position", "i", d->id));
    while (row) {
        TRY(query_next(&q, &row));
        if (row && missing < 0 && !has_seed(d->suite, query_int(&q, 0))) missing = query_int(&q, 0);
    }
    if (missing < 0) return NULL;
    char what[64];
    snprintf(what, sizeof what, "seed %lld is missing now", (long long)missing);
    return contradiction(d, what);
}

static status compare(struct declaring *d) {
    TRY(store_suite_id(d->store, d->suite->name, d->suite->scale, &d->id, &d->known));
    if (!d->known) return NULL;
    TRY(compare_head(d));
    TRY(compare_blocks(d));
    TRY(compare_question(d));
    return compare_seeds(d);
}

/* --- adding ------------------------------------------------------------------------------------------------------- */

static status add_datasets(const struct declaring *d) {
    for (int i = 0; i < d->datasets->count; i++) {
        const struct dataset *row = &d->datasets->rows[i];
        TRY(database_run(d->store->db, "INSERT OR IGNORE INTO datasets VALUES (?, ?, ?, ?, ?, ?, ?)", "ssiiidd",
                         row->sha256, row->name, (int64_t)row->vocab_size, (int64_t)row->train.count,
                         (int64_t)row->validation.count, row->bytes_per_token, row->unigram_nll));
    }
    return NULL;
}

/* All options of a configuration as "key=value" lines; caller frees. */
static char *option_lines(const struct config *config) {
    char value[512], *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out) return NULL;
    for (size_t i = 0; i < option_row_count; i++)
        fprintf(out, "%s=%s\n", option_rows[i].key, option_text(&option_rows[i], config, value));
    fclose(out);
    return text;
}

static status insert_suite(struct declaring *d, const char *head, const char *declaration, const char *options) {
    char hash[65], now[32];
    const struct suite *s = d->suite;
    int baseline = suite_variant_find(s, s->design.baseline);
    if (!head || !declaration || !options) return status_new(STATUS_SYSTEM, "out of memory");
    bytes_sha256(declaration, strlen(declaration), hash);
    store_now_text(now);
    TRY(database_run(
        d->store->db,
        "INSERT INTO suites (name, scale, path, question, preset, settings, baseline, metric, margin, "
        "test, alpha, correction, resampling_seed, options, dataset, head, declaration, "
        "declaration_sha256, declared_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        "ssssssssdsdsissssss", s->name, s->scale, s->path, s->question, s->preset, s->settings, s->design.baseline,
        s->metric, s->design.margin, test_name(s->design.test), s->design.alpha, correction_name(s->design.correction),
        (int64_t)s->design.seed, options, datasets_find(d->datasets, s->variants[baseline].config.data_name)->sha256,
        head, declaration, hash, now));
    d->id = database_last_id(d->store->db);
    return NULL;
}

static status add_suite(struct declaring *d) {
    if (d->known)
        return database_run(d->store->db, "UPDATE suites SET path = ? WHERE id = ?", "si", d->suite->path, d->id);
    char *head = declaration_head(d->plan, d->datasets), *options = option_lines(&d->suite->config);
    char *declaration = plan_declaration(d->plan, d->datasets);
    status s = insert_suite(d, head, declaration, options);
    free(head);
    free(options);
    free(declaration);
    return s;
}

static status add_variants(const struct declaring *d) {
    for (int i = 0; i < d->suite->variant_count; i++) {
        const struct suite_variant *v = &d->suite->variants[i];
        char *declaration = declaration_variant(d->suite, i);
        if (!declaration) return status_new(STATUS_SYSTEM, "out of memory");
        status s =
            database_run(d->store->db,
                         "INSERT OR IGNORE INTO variants (suite, position, name, overrides, declaration, late) VALUES "
                         "(?1, (SELECT count(*) FROM variants WHERE suite = ?1), ?2, ?3, ?4, ?5)",
                         "isssi", d->id, v->name, v->overrides, declaration, (int64_t)d->known);
        free(declaration);
        TRY(s);
    }
    return NULL;
}

static status add_seeds(const struct declaring *d) {
    for (int i = 0; i < d->suite->seed_count; i++)
        TRY(database_run(d->store->db,
                         "INSERT OR IGNORE INTO seeds (suite, position, seed, late) VALUES "
                         "(?1, (SELECT count(*) FROM seeds WHERE suite = ?1), ?2, ?3)",
                         "iii", d->id, d->suite->seeds[i], (int64_t)d->known));
    return NULL;
}

static status add_stages(const struct declaring *d) {
    for (int i = 0; i < d->plan->stage_count; i++) {
        const struct plan_stage *stage = &d->plan->stages[i];
        const char *data = d->suite->variants[stage->variant].config.data_name;
        TRY(database_run(d->store->db,
                         "INSERT OR IGNORE INTO stages (key, kind, parent, seed, dataset, backend, numerics) VALUES "
                         "(?, ?, (SELECT id FROM stages WHERE key = ?), ?, ?, ?, ?)",
                         "sssissi", stage->key, stage_name(stage->kind),
                         stage->parent < 0 ? NULL : d->plan->stages[stage->parent].key, stage->seed,
                         datasets_find(d->datasets, data)->sha256, d->plan->ops->name, (int64_t)NUMERICS_REVISION));
    }
    return NULL;
}

/* Each statement inserts a row of VALUES: for INSERT ... SELECT, SQLite keeps a savepoint, which costs the more the
 * longer the transaction is. */
static status add_run(const struct declaring *d, const struct plan_run *run) {
    const struct suite_variant *v = &d->suite->variants[run->variant];
    char value[512];
    TRY(database_run(d->store->db,
                     "INSERT OR IGNORE INTO runs (suite, variant, seed, key, late) VALUES (?1, "
                     "(SELECT id FROM variants WHERE suite = ?1 AND name = ?4), ?2, ?3, "
                     "max((SELECT late FROM variants WHERE suite = ?1 AND name = ?4), "
                     "(SELECT late FROM seeds WHERE suite = ?1 AND seed = ?2)))",
                     "iiss", d->id, run->seed, run->key, v->name));
    if (!database_changes(d->store->db)) return NULL; /* known from an earlier call */
    int64_t id = database_last_id(d->store->db);
    for (size_t i = 0; i < option_row_count; i++)
        TRY(database_run(d->store->db, "INSERT INTO run_options VALUES (?, ?, ?)", "iss", id, option_rows[i].key,
                         option_text(&option_rows[i], &v->config, value)));
    for (int part = 0; part < PART_COUNT; part++)
        TRY(database_run(d->store->db, "INSERT INTO run_stages VALUES (?, ?, (SELECT id FROM stages WHERE key = ?))",
                         "iis", id, (int64_t)part, d->plan->stages[run->stages[part]].key));
    return NULL;
}

static status declare(struct declaring *d) {
    TRY(compare(d));
    TRY(add_datasets(d));
    TRY(add_suite(d));
    TRY(add_variants(d));
    TRY(add_seeds(d));
    TRY(add_stages(d));
    for (int i = 0; i < d->plan->run_count; i++) TRY(add_run(d, &d->plan->runs[i]));
    return NULL;
}

status store_declared_backend(struct store *store, const char *suite, const char *scale, char backend[32]) {
    static const char key[] = "\nrun.backend=";
    struct query q;
    bool row;
    *backend = 0;
    TRY(query_open(&q, store->db, "SELECT char(10) || options FROM suites WHERE name = ? AND scale = ?", "ss", suite,
                   scale));
    TRY(query_next(&q, &row));
    char *options = row ? query_copy(&q, 0) : NULL, *found = options ? strstr(options, key) : NULL;
    if (found) snprintf(backend, 32, "%.*s", (int)strcspn(found + sizeof key - 1, "\n"), found + sizeof key - 1);
    free(options);
    query_close(&q);
    return NULL;
}

status store_check_declaration(struct store *store, const struct plan *plan, const struct dataset_list *datasets) {
    struct declaring d = {.store = store, .plan = plan, .suite = plan->suite, .datasets = datasets};
    return compare(&d);
}

status store_declare(struct store *store, const struct plan *plan, const struct dataset_list *datasets) {
    struct declaring d = {.store = store, .plan = plan, .suite = plan->suite, .datasets = datasets};
    TRY(database_begin(store->db));
    status s = database_end(store->db, declare(&d));
    if (!s || !*d.difference) return s;
    status unnoted = store_record_refusal(store, d.id, d.difference);
    if (unnoted) status_free(unnoted);
    return s;
}
