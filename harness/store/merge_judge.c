/* merge_judge: what becomes of each suite, stage and run of the other database; see merge_parts.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/declaration.h"
#include "harness/store/merge_parts.h"

static const char tables[] =
    "CREATE TEMP TABLE IF NOT EXISTS fold_suites (there INTEGER PRIMARY KEY, here INTEGER, fresh INTEGER, "
    "refused INTEGER NOT NULL DEFAULT 0);"
    "CREATE TEMP TABLE IF NOT EXISTS fold_stages (there INTEGER PRIMARY KEY, here INTEGER, parent INTEGER, "
    "verdict TEXT NOT NULL, fresh INTEGER NOT NULL DEFAULT 0);"
    "CREATE INDEX IF NOT EXISTS temp.fold_stages_here ON fold_stages (here);"
    "CREATE INDEX IF NOT EXISTS temp.fold_stages_parent ON fold_stages (parent);"
    "CREATE TEMP TABLE IF NOT EXISTS fold_runs (there INTEGER PRIMARY KEY, here INTEGER, kind TEXT NOT NULL, "
    "fresh INTEGER NOT NULL DEFAULT 0);"
    "CREATE TEMP TABLE IF NOT EXISTS fold_copied (key TEXT PRIMARY KEY) WITHOUT ROWID;"
    "DELETE FROM fold_suites; DELETE FROM fold_stages; DELETE FROM fold_runs;";

__attribute__((format(printf, 2, 3))) static status refuse(struct merge *m, const char *format, ...) {
    struct merge_report *r = m->report;
    char **grown = realloc(r->refusals, ((size_t)r->refusal_count + 1) * sizeof *grown), *line = NULL;
    if (grown) r->refusals = grown;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&line, format, args);
    va_end(args);
    if (grown && length >= 0) {
        grown[r->refusal_count++] = line;
        return NULL;
    }
    if (length >= 0) free(line);
    return status_new(STATUS_SYSTEM, "out of memory");
}

/* --- suites ------------------------------------------------------------------------------------------------------- */

/* A suite that both have, and how a message names it. */
struct pair {
    int64_t there, here;
    char name[NAME_CAPACITY], scale[32], declared_at[32];
};

static status refuse_suite(struct merge *m, const struct pair *p, const char *why) {
    TRY(database_run(m->store->db, "UPDATE fold_suites SET refused = 1 WHERE there = ?", "i", p->there));
    return refuse(m, "%s: suite %s%s%s: %s", m->request->from, p->name, *p->scale ? " at scale " : "", p->scale, why);
}

/* As hinge run does: what is declared stays, and that another was tried is kept. */
static status refuse_declaration(struct merge *m, const struct pair *p, const char *difference) {
    char why[2400];
    snprintf(why, sizeof why, "was declared otherwise in %s on %s: %s; what is declared stays", store_path(m->store),
             p->declared_at, difference);
    if (m->writing) TRY(store_record_refusal(m->store, p->here, difference));
    return refuse_suite(m, p, why);
}

/* The first difference of two texts that a query gives, behind a word that may be empty. */
static status read_difference(struct query *q, int word, int before, int after, char *out, size_t size) {
    char context[NAME_CAPACITY], *was = query_copy(q, before), *is = query_copy(q, after);
    char *difference = malloc(size);
    status s = was && is && difference ? NULL : status_new(STATUS_SYSTEM, "out of memory");
    query_text(q, word, context, sizeof context);
    *out = 0;
    if (!s) declaration_difference(was, is, difference, size);
    if (!s && *difference) snprintf(out, size, "%s%s", context, difference);
    free(was);
    free(is);
    free(difference);
    return s;
}

/* Its head, its question, and the variants that both have. */
static const char differences[] =
    "SELECT '', h.head, t.head FROM main.suites h, there.suites t WHERE h.id = ?1 AND t.id = ?2 AND h.head <> t.head "
    "UNION ALL SELECT '', 'question: ' || h.question, 'question: ' || t.question FROM main.suites h, there.suites t "
    "WHERE h.id = ?1 AND t.id = ?2 AND h.question <> t.question "
    "UNION ALL SELECT * FROM (SELECT 'variant ' || h.name || ': ', h.declaration, t.declaration FROM main.variants h "
    "JOIN there.variants t ON t.name = h.name WHERE h.suite = ?1 AND t.suite = ?2 AND h.declaration <> t.declaration "
    "ORDER BY h.position)";

static status check_declaration(struct merge *m, const struct pair *p) {
    struct query q;
    bool row;
    char difference[1200];
    TRY(query_open(&q, m->store->db, differences, "ii", p->here, p->there));
    TRY(query_next(&q, &row));
    if (!row) return NULL;
    status s = read_difference(&q, 0, 1, 2, difference, sizeof difference);
    query_close(&q);
    TRY(s);
    return refuse_declaration(m, p, *difference ? difference : "its text differs");
}

/* --- builds ------------------------------------------------------------------------------------------------------- */

static status read_provenance(struct merge *m, const char *sql, int64_t environment, struct provenance *out) {
    struct query q;
    TRY(query_open(&q, m->store->db, sql, "i", environment));
    return store_read_provenance(&q, out);
}

/* Against everything that the suite has here; the next environment by its id, 0 when there is none. */
static status compare_builds(struct merge *m, const struct pair *p, const struct provenance *there, char *what,
                             size_t size) {
    struct provenance here;
    for (int64_t id = 0;;) {
        TRY(query_one_int(m->store->db, &id, NULL,
                          "SELECT min(s.environment) FROM main.runs r JOIN main.run_stages rs ON rs.run = r.id "
                          "JOIN main.stages s ON s.id = rs.stage WHERE r.suite = ? AND s.status = 'done' AND "
                          "s.environment > ?",
                          "ii", p->here, id));
        if (!id) return NULL;
        TRY(read_provenance(m, "SELECT name, value FROM main.provenance WHERE environment = ? ORDER BY position", id,
                            &here));
        if (provenance_differs(&here, there, false, what, size)) return NULL;
    }
}

/* The same rule as of hinge run: the results of two builds are not put together unless that is asked for. */
static status check_builds(struct merge *m, const struct pair *p) {
    struct provenance there;
    char what[2048] = "", why[2400], backend[32];
    TRY(store_declared_backend(m->store, p->name, p->scale, backend));
    if (m->request->mix_builds || strcmp(backend, "simulated") == 0) return NULL;
    for (int64_t id = 0; !*what;) {
        TRY(query_one_int(m->store->db, &id, NULL,
                          "SELECT min(t.environment) FROM there.runs r JOIN there.run_stages rs ON rs.run = r.id "
                          "JOIN there.stages t ON t.id = rs.stage LEFT JOIN main.stages s ON s.key = t.key "
                          "WHERE r.suite = ? AND t.status = 'done' AND s.status IS NOT 'done' AND t.environment > ?",
                          "ii", p->there, id));
        if (!id) return NULL;
        TRY(read_provenance(m, "SELECT name, value FROM there.provenance WHERE environment = ? ORDER BY position", id,
                            &there));
        TRY(compare_builds(m, p, &there, what, sizeof what));
    }
    snprintf(why, sizeof why, "was made there by another build than in %s: %s; --mix-builds takes it nevertheless",
             store_path(m->store), what);
    return refuse_suite(m, p, why);
}

static status next_pair(struct merge *m, struct pair *p, bool *found) {
    struct query q;
    TRY(query_open(&q, m->store->db,
                   "SELECT f.there, f.here, h.name, h.scale, h.declared_at FROM fold_suites f JOIN main.suites h ON "
                   "h.id = f.here WHERE f.there > ? ORDER BY f.there",
                   "i", p->there));
    TRY(query_next(&q, found));
    if (!*found) return NULL;
    p->there = query_int(&q, 0);
    p->here = query_int(&q, 1);
    query_text(&q, 2, p->name, sizeof p->name);
    query_text(&q, 3, p->scale, sizeof p->scale);
    query_text(&q, 4, p->declared_at, sizeof p->declared_at);
    query_close(&q);
    return NULL;
}

static status judge_suites(struct merge *m) {
    struct pair p = {0};
    TRY(database_run(m->store->db,
                     "INSERT INTO fold_suites (there, here, fresh) SELECT t.id, h.id, h.id IS NULL FROM there.suites t "
                     "LEFT JOIN main.suites h ON h.name = t.name AND h.scale = t.scale "
                     "WHERE ?1 IS NULL OR (t.name = ?1 AND t.scale = ?2)",
                     "ss", m->request->suite, m->request->scale));
    for (bool found = true;;) {
        TRY(next_pair(m, &p, &found));
        if (!found) return NULL;
        int before = m->report->refusal_count;
        TRY(check_declaration(m, &p));
        if (m->report->refusal_count == before) TRY(check_builds(m, &p));
    }
}

/* --- stages ------------------------------------------------------------------------------------------------------- */

/* Hashes where there are some, figures of evaluations to the last bit; times are each machine's own. */
#define SAME_RESULTS                                                                       \
    "t.weights_sha256 IS s.weights_sha256 AND t.averaged_sha256 IS s.averaged_sha256 AND " \
    "t.trace_sha256 IS s.trace_sha256 AND "                                                \
    "(SELECT sha256 || ' ' || bytes FROM there.artifacts WHERE stage = t.id) IS "          \
    "(SELECT sha256 || ' ' || bytes FROM main.artifacts WHERE stage = s.id) AND "          \
    "(SELECT nll FROM there.evaluations WHERE stage = t.id) IS "                           \
    "(SELECT nll FROM main.evaluations WHERE stage = s.id)"

static const char verdicts[] =
    "INSERT INTO fold_stages (there, here, parent, verdict) SELECT t.id, s.id, t.parent, CASE "
    "WHEN t.status = 'done' AND s.status = 'done' THEN CASE WHEN " SAME_RESULTS " THEN 'same' ELSE 'other' END "
    "WHEN s.status = 'done' THEN 'ours' "
    "WHEN s.status = 'running' AND NOT " DEAD_WORKER " THEN CASE WHEN t.status = 'done' THEN 'busy' ELSE 'open' END "
    "WHEN t.status = 'done' THEN 'take' "
    "WHEN t.status = 'failed' AND s.status IS NOT 'failed' THEN 'fail' ELSE 'open' END "
    "FROM there.stages t LEFT JOIN main.stages s ON s.key = t.key WHERE t.id IN (SELECT rs.stage FROM fold_suites u "
    "JOIN there.runs r ON r.suite = u.there JOIN there.run_stages rs ON rs.run = r.id WHERE NOT u.refused)";

/* What followed from another result is another result, whether there is one here yet or not. */
static const char taint[] =
    "WITH RECURSIVE after (id) AS (SELECT there FROM fold_stages WHERE verdict = 'other' UNION "
    "SELECT f.there FROM after JOIN fold_stages f ON f.parent = after.id) "
    "UPDATE fold_stages SET verdict = 'tainted' WHERE verdict <> 'other' AND there IN (SELECT id FROM after)";

/* What ended there since the files were brought is for the next merge. */
static const char leave[] =
    "UPDATE fold_stages SET verdict = 'open' WHERE verdict = 'take' AND there IN (SELECT t.id FROM there.stages t "
    "WHERE t.key NOT IN (SELECT key FROM fold_copied))";

/* What there follows from a stage that is neither equal here nor taken would here stand behind another one. */
static const char keep_together[] =
    "WITH RECURSIVE sound (id) AS (SELECT there FROM fold_stages WHERE verdict = 'same' OR (verdict = 'take' AND "
    "parent IS NULL) UNION SELECT f.there FROM sound JOIN fold_stages f ON f.parent = sound.id WHERE f.verdict = "
    "'take') "
    "UPDATE fold_stages SET verdict = 'open' WHERE (verdict = 'take' AND there NOT IN (SELECT id FROM sound)) OR "
    "(verdict = 'fail' AND parent IS NOT NULL AND parent NOT IN (SELECT id FROM sound))";

static status judge_stages(struct merge *m) {
    TRY(database_run(m->store->db, verdicts, "sd", m->store->host, store_oldest_heartbeat()));
    if (m->writing) TRY(database_run(m->store->db, leave, ""));
    TRY(database_run(m->store->db, taint, ""));
    return database_run(m->store->db, keep_together, "");
}

/* --- runs --------------------------------------------------------------------------------------------------------- */

static const char *const kinds[MERGED_KINDS] = {"new",    "completed", "already here", "unfinished",
                                                "failed", "busy",      "refused"};

const char *merged_name(enum merged kind) { return kinds[kind]; }

#define STAGES_OF_RUN \
    "FROM there.run_stages rs JOIN fold_stages f ON f.there = rs.stage WHERE rs.run = t.id AND f.verdict "

static const char fates[] =
    "INSERT INTO fold_runs (there, here, kind) SELECT t.id, h.id, CASE "
    "WHEN u.refused OR h.key <> t.key OR EXISTS (SELECT 1 " STAGES_OF_RUN "IN ('other', 'tainted')) THEN 'refused' "
    "WHEN (SELECT count(*) FROM main.run_stages rs JOIN main.stages s ON s.id = rs.stage WHERE rs.run = h.id AND "
    "s.status = 'done') = ?1 THEN 'already here' "
    "WHEN EXISTS (SELECT 1 " STAGES_OF_RUN "= 'busy') THEN 'busy' "
    "WHEN (SELECT count(*) " STAGES_OF_RUN "IN ('same', 'ours', 'take')) = ?1 THEN "
    "CASE WHEN h.id IS NULL THEN 'new' ELSE 'completed' END "
    "WHEN EXISTS (SELECT 1 FROM there.run_stages rs JOIN there.stages x ON x.id = rs.stage WHERE rs.run = t.id AND "
    "x.status = 'failed') THEN 'failed' ELSE 'unfinished' END "
    "FROM there.runs t JOIN fold_suites u ON u.there = t.suite JOIN there.variants v ON v.id = t.variant "
    "LEFT JOIN main.variants w ON w.suite = u.here AND w.name = v.name "
    "LEFT JOIN main.runs h ON h.variant = w.id AND h.seed = t.seed";

/* The result that differs, of the stage x of either side. */
#define RESULT_OF(schema, x)                                                                                     \
    "CASE WHEN t.weights_sha256 IS NOT s.weights_sha256 THEN 'weights ' || " x ".weights_sha256 "                \
    "WHEN t.averaged_sha256 IS NOT s.averaged_sha256 THEN 'averaged weights ' || " x ".averaged_sha256 "         \
    "WHEN t.trace_sha256 IS NOT s.trace_sha256 THEN 'losses ' || " x ".trace_sha256 "                            \
    "WHEN t.kind = 'quantise' THEN (SELECT 'an artifact ' || sha256 || ' of ' || bytes || ' bytes' FROM " schema \
    ".artifacts WHERE stage = " x ".id) "                                                                        \
    "ELSE (SELECT printf('%.17g', nll) || ' nats' FROM " schema ".evaluations WHERE stage = " x ".id) END"

/* Of the run's stages that differ, the first: SQLite takes the other columns from the row of the minimum. */
static const char conflicts[] = "SELECT z.name, z.scale, v.name, r.seed, min(rs.part), coalesce(" RESULT_OF(
    "there", "t") ", r.key), "
                  "coalesce(" RESULT_OF(
                      "main",
                      "s") ", h.key), h.key IS NOT NULL AND h.key <> r.key "
                           "FROM fold_runs f JOIN there.runs r ON r.id = f.there JOIN fold_suites u ON u.there = "
                           "r.suite AND NOT u.refused "
                           "JOIN there.suites z ON z.id = r.suite JOIN there.variants v ON v.id = r.variant "
                           "LEFT JOIN main.runs h ON h.id = f.here "
                           "LEFT JOIN (SELECT p.run, p.part, g.there, g.here FROM there.run_stages p JOIN fold_stages "
                           "g ON g.there = p.stage "
                           "WHERE g.verdict = 'other') rs ON rs.run = r.id "
                           "LEFT JOIN there.stages t ON t.id = rs.there LEFT JOIN main.stages s ON s.id = rs.here "
                           "WHERE f.kind = 'refused' GROUP BY r.id ORDER BY r.id";

static status tell_conflict(struct merge *m, const struct query *q) {
    char suite[NAME_CAPACITY], scale[32], variant[NAME_CAPACITY], there[160], here[160];
    query_text(q, 0, suite, sizeof suite);
    query_text(q, 1, scale, sizeof scale);
    query_text(q, 2, variant, sizeof variant);
    query_text(q, 5, there, sizeof there);
    query_text(q, 6, here, sizeof here);
    const char *what = query_int(q, 7) ? "is the run with the key" : run_part_name((enum run_part)query_int(q, 4));
    return refuse(m, "%s: suite %s%s%s, %s seed %lld: %s %s %s, and in %s %s; the run here stays as it is",
                  m->request->from, suite, *scale ? " at scale " : "", scale, variant, (long long)query_int(q, 3), what,
                  query_int(q, 7) ? "" : "made", there, store_path(m->store), here);
}

static status tell_conflicts(struct merge *m) {
    struct query q;
    TRY(query_open(&q, m->store->db, conflicts, ""));
    for (bool row = true; row;) {
        TRY(query_next(&q, &row));
        status s = row ? tell_conflict(m, &q) : NULL;
        if (s) query_close(&q);
        TRY(s);
    }
    return NULL;
}

static status count_kinds(struct merge *m) {
    for (int i = 0; i < MERGED_KINDS; i++) {
        int64_t count = 0;
        TRY(query_one_int(m->store->db, &count, NULL, "SELECT count(*) FROM fold_runs WHERE kind = ?", "s", kinds[i]));
        m->report->runs[i] = (int)count;
    }
    return NULL;
}

static status judge_runs(struct merge *m) {
    int64_t stages = 0;
    TRY(database_run(m->store->db, fates, "i", (int64_t)PART_COUNT));
    TRY(tell_conflicts(m));
    TRY(query_one_int(m->store->db, &stages, NULL, "SELECT count(*) FROM fold_stages WHERE verdict = 'take'", ""));
    m->report->stages = (int)stages;
    return count_kinds(m);
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

void merge_report_free(struct merge_report *report) {
    for (int i = 0; i < report->refusal_count; i++) free(report->refusals[i]);
    free(report->refusals);
    *report = (struct merge_report){0};
}

status merge_judge(struct merge *m) {
    int missing = m->report->files_missing;
    merge_report_free(m->report);
    m->report->files_missing = missing;
    TRY(database_script(m->store->db, tables));
    TRY(judge_suites(m));
    TRY(judge_stages(m));
    return judge_runs(m);
}
