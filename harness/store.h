/* store: one SQLite database and the folder of stored weights beside it; the only user of sqlite3.h.
 *
 *   DIR/hinge.db                    suites, runs, stages, steps, evaluations, artifacts, provenance (schema.sql)
 *   DIR/store/<2 hex>/<key>/        of a stage: weights.safetensors, averaged.safetensors, checkpoint, artifact.xz
 *
 * Every change is one transaction: a reader or a crash sees all of it or nothing. Several processes may work on one
 * database: a stage belongs to the worker that claimed it (pid, host, heartbeat) until it ends, or the worker dies. */
#pragma once
#include "harness/plan.h"
#include "harness/provenance.h"

#define STORE_VERSION 3 /* PRAGMA user_version; older databases are migrated, newer ones refused */

#define STORE_STALE_SECONDS 120.0 /* a heartbeat from another host older than this is a dead worker's */

struct store;

enum store_mode {
    STORE_READ, /* must exist; nothing is changed, but an older version is migrated */
    STORE_WRITE /* made when missing, migrated when older */
};

/* STATUS_DATA for a damaged, foreign or newer file, STATUS_SYSTEM for a folder that cannot be written or read: the file
 * is then as it was. */
status store_open(struct store **out, const char *path, enum store_mode mode);
/* For reading what there is: *out is NULL when the file is missing, or nothing was run in it, as while another process
 * is making it. */
status store_open_begun(struct store **out, const char *path);
void store_close(struct store *store); /* NULL is fine */
const char *store_path(const struct store *store);
/* STATUS_SYSTEM when the database was deleted or replaced since it was opened. What works on stages (claims, batches,
 * steps, results) fails so by itself. */
status store_check_file(const struct store *store);

/* Path of a stage's file; the folder is made when make is set. */
status store_file(const struct store *store, const char *key, const char *name, bool make, char path[4096]);

/* --- suites ------------------------------------------------------------------------------------------------- */

/* Registers the suite, its variants, seeds and runs with all their stages. The first time this freezes the declaration;
 * later, seeds and variants that were not declared are added and marked late. Anything else that differs is
 * STATUS_USAGE, says what differed, and changes nothing, but that it was tried is kept and shown with the results.
 * datasets as for plan_declaration. */
status store_declare(struct store *store, const struct plan *plan, const struct dataset_list *datasets);

/* What store_declare would say, without changing anything: NULL status when the suite is new or fits. */
status store_check_declaration(struct store *store, const struct plan *plan, const struct dataset_list *datasets);

/* The run.backend that the suite was declared with; "" for a suite that is not. */
status store_declared_backend(struct store *store, const char *suite, const char *scale, char backend[32]);

struct suite_summary {
    char name[NAME_CAPACITY], scale[32], path[4096], declared_at[32], last_activity[32];
    int runs, done, running, failed, interrupted, pending, late;
    int deleted; /* not among the runs */
    bool simulated;
};
status store_list_suites(struct store *store, struct suite_summary **rows, int *count); /* caller frees *rows */

/* --- results ------------------------------------------------------------------------------------------------ */

enum results_detail {
    RESULTS_FIGURES, /* no traces, evaluation blocks or classes of tensors: fast for thousands of runs */
    RESULTS_ALL
};

/* Everything of a suite as declared in the store. scale NULL or "": the suite as written. STATUS_USAGE naming the
 * suites that there are when it is not in the store. results_free frees. */
status store_load_results_at(struct store *store, const char *suite, const char *scale, enum results_detail detail,
                             struct results *results);
status store_load_results(struct store *store, const char *suite, const char *scale, struct results *results); /* ALL */

/* The same, of one run alone: results->runs[0] is it, variants and seeds are those of its suite. */
status store_load_run(struct store *store, int64_t run, struct results *results);

/* Notes that the results were shown by a verb, in the database at path and in the results, when that was a peek
 * (results_peeked) and it is not noted yet. */
status store_record_peek(const char *path, struct results *results, const char *verb);

/* Notes that the training of a run was made again: whether all bits are equal; step: the first that differs, -1: none.
 */
status store_record_replicate(const char *path, int64_t run, bool equal, int64_t step);

struct stage_record {
    enum run_part part;
    enum stage_kind kind;
    enum stage_state state;
    char key[65], parent[65], worker[128], started[32], finished[32], error[512];
    double seconds;
    int shared_by; /* runs of any suite that use it */
};

/* What `hinge show` lists beside the results. */
struct run_details {
    int option_count;
    struct result_text *options; /* every option of the run, in the order of the rows */
    int stage_count;
    struct stage_record *stages;
    int provenance_count;
    struct result_text *provenance; /* of its training; of its first finished stage when that is not done */
};
status store_run_details(struct store *store, int64_t run, struct run_details *details);
void run_details_free(struct run_details *details);

/* The configuration of a stored run. */
status store_run_config(struct store *store, int64_t run, struct config *config);

/* --- stages: used by plan and runner -------------------------------------------------------------------------- */

struct worker {
    char name[128], host[64]; /* name is unique: host:pid:start of the process */
    int64_t pid;
};
void worker_current(struct worker *worker);
bool worker_is_sibling(const struct worker *other); /* it was started by the process that started this one */

enum claim { CLAIM_TAKEN, CLAIM_TAKEN_OVER, CLAIM_BUSY, CLAIM_DONE, CLAIM_FAILED };

/* Takes a stage for the worker unless it is done, failed, or held by a live worker. A worker of this host is dead when
 * its process is gone, one of another host when its heartbeat is old, or lies as far in the future because a clock was
 * set back; its stage is taken over. */
status store_claim(struct store *store, const char *key, const struct worker *worker, enum claim *claim);

/* Who holds a stage; name is "" when nobody does. silent: seconds since its last sign of life. */
struct stage_holder {
    struct worker worker;
    double silent;
};
status store_stage_holder(struct store *store, const char *key, struct stage_holder *holder);

/* Everything between the two is one transaction, for work that ends faster than a disk writes: end keeps it when s is
 * NULL, else undoes it, and returns s. Other writers wait. */
status store_batch_begin(struct store *store);
status store_batch_end(struct store *store, status s);

/* A failed stage becomes pending again; others stay as they are. */
status store_retry(struct store *store, const char *key);

/* A finished stage whose files are lost or damaged becomes pending again. */
status store_redo(struct store *store, const char *key);

/* Records what works on a stage from now on; store_stage_environment reads it (no rows: unknown). A stage whose parts
 * were made by two builds would be neither's. */
status store_begin(struct store *store, const char *key, const struct worker *worker,
                   const struct provenance *provenance);
status store_stage_environment(struct store *store, const char *key, struct provenance *provenance);

/* STATUS_USAGE, saying what differs, when a stage of the suite was made by another build than this, or is at work in
 * one; now: of this process, the same at every call. In one transaction with a claim, no other build can begin between
 * the two. Fast as long as the whole database is of one build. */
status store_check_build(struct store *store, const char *suite, const char *scale, const struct provenance *now);

/* Seconds by which the latest heartbeat of the database lies before now; negative: in the future, the clock was set
 * back. NAN when there is none. */
status store_age(struct store *store, double *seconds);

/* STATUS_DIFFERS when another worker took the stage over meanwhile. */
status store_heartbeat(struct store *store, const char *key, const struct worker *worker);

/* state and seconds of a stage; false in *known when the store has never seen it. */
status store_stage_state(struct store *store, const char *key, enum stage_state *state, double *seconds, bool *known);

/* Steps from first on are replaced; the others are kept. */
status store_put_steps(struct store *store, const char *key, const struct worker *worker, int64_t first,
                       const struct step_record *steps, size_t count);
/* The stored trace. Caller frees *steps. */
status store_steps(struct store *store, const char *key, struct step_record **steps, size_t *count);

/* Stored steps below a step; seconds and tokens of all stored steps. */
status store_count_steps(struct store *store, const char *key, int64_t below, int64_t *count);
status store_step_totals(struct store *store, const char *key, double *seconds, int64_t *tokens);

/* What a finished stage leaves; only the members of its kind are read. */
struct stage_result {
    double seconds, work; /* work: counted floating-point operations */
    int64_t parameter_count, steps;
    double final_loss, tokens_per_second;
    char weights_sha256[65], averaged_sha256[65], trace_sha256[65]; /* train; average: weights_sha256 */
    const struct evaluation *evaluation;
    const struct artifact_sizes *sizes;
    const char *notes;
    double quantise_seconds, calibration_seconds;
    const struct provenance *provenance;
};
/* Marks the stage done with its results, in one transaction; STATUS_DIFFERS when it was taken over. */
status store_finish(struct store *store, const char *key, const struct worker *worker,
                    const struct stage_result *result);
/* STAGE_FAILED with the reason, STAGE_INTERRUPTED or STAGE_PENDING. */
status store_release(struct store *store, const char *key, const struct worker *worker, enum stage_state state,
                     const char *error);
/* The hashes of what a stage left: a training's raw and averaged weights, an averaging's as `weights`; "" when absent.
 */
status store_weights_sha256(struct store *store, const char *key, char weights[65], char averaged[65]);

/* STATUS_DATA when a file is not the artifact that the stage left. */
status store_check_artifact(struct store *store, const char *key, const char *path);

/* Seconds that a stage of this kind and work should take on this host, backend and number of lanes, by the finished
 * ones nearest to it in work; NAN when there is none within a factor of 10. */
status store_predict_seconds(struct store *store, enum stage_kind kind, const char *backend, int lanes, double work,
                             double *seconds);
