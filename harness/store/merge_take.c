/* merge_take: writes what a merge takes, table by table; see merge_parts.h.
 *
 * Rows refer to each other by numbers that are each database's own: what is added gets new ones, and the temporary
 * tables then hold both. */
#include "harness/store/merge_parts.h"

#define TAKEN "f.verdict IN ('take', 'fail')"
#define IDS_HERE "(SELECT f.here FROM fold_stages f WHERE " TAKEN ")"
#define OF_TAKEN "t JOIN fold_stages f ON f.there = t.stage WHERE " TAKEN

static const char suites[] =
    "INSERT OR IGNORE INTO main.datasets SELECT * FROM there.datasets WHERE sha256 IN (SELECT t.dataset FROM "
    "there.stages t JOIN fold_stages f ON f.there = t.id UNION SELECT t.dataset FROM there.suites t JOIN "
    "fold_suites u ON u.there = t.id WHERE NOT u.refused);"

    "INSERT INTO main.suites (name, scale, path, question, preset, settings, baseline, metric, margin, test, alpha, "
    "correction, resampling_seed, options, dataset, head, declaration, declaration_sha256, declared_at) "
    "SELECT name, scale, path, question, preset, settings, baseline, metric, margin, test, alpha, correction, "
    "resampling_seed, options, dataset, head, declaration, declaration_sha256, declared_at FROM there.suites t "
    "JOIN fold_suites u ON u.there = t.id WHERE u.fresh ORDER BY t.id;"

    "UPDATE fold_suites SET here = (SELECT h.id FROM there.suites t JOIN main.suites h ON h.name = t.name AND "
    "h.scale = t.scale WHERE t.id = fold_suites.there) WHERE fresh;"

    "INSERT INTO main.variants (suite, position, name, overrides, declaration, late) SELECT u.here, (SELECT count(*) "
    "FROM main.variants h WHERE h.suite = u.here) + row_number() OVER (PARTITION BY u.here ORDER BY t.position) - 1, "
    "t.name, t.overrides, t.declaration, CASE WHEN u.fresh THEN t.late ELSE 1 END FROM there.variants t "
    "JOIN fold_suites u ON u.there = t.suite WHERE NOT u.refused AND NOT EXISTS (SELECT 1 FROM main.variants h WHERE "
    "h.suite = u.here AND h.name = t.name);"

    "INSERT INTO main.seeds (suite, position, seed, late) SELECT u.here, (SELECT count(*) FROM main.seeds h WHERE "
    "h.suite = u.here) + row_number() OVER (PARTITION BY u.here ORDER BY t.position) - 1, t.seed, "
    "CASE WHEN u.fresh THEN t.late ELSE 1 END FROM there.seeds t JOIN fold_suites u ON u.there = t.suite WHERE NOT "
    "u.refused AND NOT EXISTS (SELECT 1 FROM main.seeds h WHERE h.suite = u.here AND h.seed = t.seed);"

    "INSERT OR IGNORE INTO main.peeks (suite, done, verb, declared, at) SELECT u.here, t.done, t.verb, t.declared, "
    "t.at FROM there.peeks t JOIN fold_suites u ON u.there = t.suite WHERE NOT u.refused ORDER BY t.rowid;"

    "INSERT OR IGNORE INTO main.refusals (suite, difference, at) SELECT u.here, t.difference, t.at "
    "FROM there.refusals t JOIN fold_suites u ON u.there = t.suite WHERE NOT u.refused ORDER BY t.rowid;";

static const char stages[] =
    "INSERT INTO main.stages (key, kind, seed, dataset, backend, numerics) SELECT t.key, t.kind, t.seed, t.dataset, "
    "t.backend, t.numerics FROM there.stages t JOIN fold_stages f ON f.there = t.id WHERE f.here IS NULL ORDER BY t.id;"

    "UPDATE fold_stages SET fresh = 1, here = (SELECT h.id FROM there.stages t JOIN main.stages h ON h.key = t.key "
    "WHERE t.id = fold_stages.there) WHERE here IS NULL;"

    "UPDATE main.stages AS h SET parent = p.here FROM fold_stages f JOIN fold_stages p ON p.there = f.parent "
    "WHERE f.here = h.id AND f.fresh;";

static const char results[] =
    "INSERT OR IGNORE INTO main.environments (sha256) SELECT DISTINCT e.sha256 FROM there.environments e "
    "JOIN there.stages t ON t.environment = e.id JOIN fold_stages f ON f.there = t.id WHERE " TAKEN ";"

    "INSERT OR IGNORE INTO main.provenance SELECT h.id, p.position, p.name, p.value FROM there.provenance p "
    "JOIN there.environments e ON e.id = p.environment JOIN main.environments h ON h.sha256 = e.sha256;"

    "UPDATE main.stages AS h SET status = t.status, worker = t.worker, host = t.host, pid = t.pid, "
    "heartbeat = t.heartbeat, started = t.started, finished = t.finished, error = t.error, seconds = t.seconds, "
    "work = t.work, steps = t.steps, parameter_count = t.parameter_count, final_loss = t.final_loss, "
    "tokens_per_second = t.tokens_per_second, weights_sha256 = t.weights_sha256, averaged_sha256 = t.averaged_sha256, "
    "trace_sha256 = t.trace_sha256, quantise_seconds = t.quantise_seconds, "
    "calibration_seconds = t.calibration_seconds, node = t.node, environment = (SELECT x.id FROM main.environments x "
    "JOIN there.environments e ON e.sha256 = x.sha256 WHERE e.id = t.environment) "
    "FROM fold_stages f JOIN there.stages t ON t.id = f.there WHERE f.here = h.id AND " TAKEN ";"

    "DELETE FROM main.steps WHERE stage IN " IDS_HERE ";"
    "DELETE FROM main.evaluation_blocks WHERE stage IN " IDS_HERE ";"
    "DELETE FROM main.evaluations WHERE stage IN " IDS_HERE ";"
    "DELETE FROM main.artifact_classes WHERE stage IN " IDS_HERE ";"
    "DELETE FROM main.artifacts WHERE stage IN " IDS_HERE ";"
    "DELETE FROM main.stage_notes WHERE stage IN " IDS_HERE ";"

    "INSERT INTO main.steps SELECT f.here, t.step, t.loss, t.multiplier, t.milliseconds, t.tokens "
    "FROM there.steps " OF_TAKEN ";"
    "INSERT INTO main.evaluations SELECT f.here, t.bpb, t.nll, t.nll_per_token, t.bytes, t.tokens, t.seconds "
    "FROM there.evaluations " OF_TAKEN ";"
    "INSERT INTO main.evaluation_blocks SELECT f.here, t.block, t.nll, t.bytes, t.tokens "
    "FROM there.evaluation_blocks " OF_TAKEN ";"
    "INSERT INTO main.artifacts SELECT f.here, t.bytes, t.raw_bytes, t.sha256 FROM there.artifacts " OF_TAKEN ";"
    "INSERT INTO main.artifact_classes SELECT f.here, t.class, t.bytes, t.parameters "
    "FROM there.artifact_classes " OF_TAKEN ";"
    "INSERT INTO main.stage_notes SELECT f.here, t.text FROM there.stage_notes " OF_TAKEN ";"

    "INSERT OR IGNORE INTO main.replicates SELECT f.here, t.at, t.host, t.equal, t.step FROM there.replicates t "
    "JOIN fold_stages f ON f.there = t.stage WHERE f.verdict IN ('take', 'same');";

/* Runs that are refused are not here before are added, too: this database can do them itself. */
static const char runs[] =
    "INSERT INTO main.runs (suite, variant, seed, key, late) SELECT u.here, w.id, t.seed, t.key, CASE WHEN u.fresh "
    "THEN t.late ELSE max(w.late, e.late) END FROM there.runs t JOIN fold_suites u ON u.there = t.suite AND NOT "
    "u.refused "
    "JOIN fold_runs f ON f.there = t.id AND f.here IS NULL JOIN there.variants v ON v.id = t.variant "
    "JOIN main.variants w ON w.suite = u.here AND w.name = v.name "
    "JOIN main.seeds e ON e.suite = u.here AND e.seed = t.seed ORDER BY t.id;"

    "UPDATE fold_runs SET fresh = 1, here = (SELECT h.id FROM there.runs t JOIN fold_suites u ON u.there = t.suite AND "
    "NOT u.refused JOIN there.variants v ON v.id = t.variant JOIN main.variants w ON w.suite = u.here AND "
    "w.name = v.name JOIN main.runs h ON h.variant = w.id AND h.seed = t.seed WHERE t.id = fold_runs.there) "
    "WHERE here IS NULL;"

    "INSERT INTO main.run_options SELECT f.here, t.name, t.value FROM there.run_options t "
    "JOIN fold_runs f ON f.there = t.run WHERE f.fresh AND f.here IS NOT NULL;"

    "INSERT INTO main.run_stages SELECT f.here, t.part, g.here FROM there.run_stages t JOIN fold_runs f ON "
    "f.there = t.run JOIN fold_stages g ON g.there = t.stage WHERE f.fresh AND f.here IS NOT NULL;";

status merge_take(struct merge *m) {
    struct database *db = m->store->db;
    TRY(database_script(db, suites));
    TRY(database_script(db, stages));
    TRY(database_script(db, results));
    return database_script(db, runs);
}
