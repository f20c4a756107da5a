/* internal: what the files of the store share. */
#pragma once
#include "harness/store.h"
#include "harness/store/database.h"

struct store {
    struct database *db;
    char directory[4096]; /* of the database: stored files lie below it */
    char host[64];
    int64_t environments; /* looked at by store_check_build: those up to this id */
    bool other_builds;    /* among them are some of other builds than this */
};

/* Texts of schema.sql and of those that follow it, built into the program. */
extern const char store_schema[], store_schema_2[], store_schema_3[];

double store_now(void);              /* Unix seconds */
void store_now_text(char out[32]);   /* ISO 8601, UTC, whole seconds */
double store_oldest_heartbeat(void); /* of a worker on another host that still counts as alive */

/* SQL that is true for a running stage `s` whose worker is gone; takes host and oldest heartbeat as "sd". A heartbeat
 * from further in the future than it may be old was given by a clock that has been set back since. */
#define DEAD_WORKER                                                 \
    "(CASE WHEN s.host = ? THEN NOT worker_alive(s.worker, s.pid) " \
    "ELSE s.heartbeat - ? NOT BETWEEN 0 AND 2 * " SQL_OF(STORE_STALE_SECONDS) " END)"
#define SQL_OF(number) SQL_TEXT(number)
#define SQL_TEXT(number) #number

/* Opens a database for reading whatever its version is. */
status store_open_as_it_is(struct store **out, const char *path);

/* Id of a suite; *found false when it is not stored. */
status store_suite_id(struct store *store, const char *name, const char *scale, int64_t *id, bool *found);

/* "Hing": tells our databases from those of other programs. */
#define APPLICATION_ID 0x48696e67

/* Peeks and refused changes of a suite. */
status store_load_notices(struct store *store, int64_t suite, struct results *results);
status store_record_refusal(struct store *store, int64_t suite, const char *difference);

/* Seeds and runs that were declared, or added late, and are not in the store any more: runs as empty with the state
 * "deleted". */
status store_restore_seeds(struct results *results);
status store_restore_runs(struct results *results, const struct result_run *empty);

/* Id of the stage if this worker holds it; STATUS_DIFFERS when it was taken over. */
status store_held_stage(struct store *store, const char *key, const struct worker *worker, int64_t *id);

/* The rows (name, value) of an opened query. */
status store_read_provenance(struct query *q, struct provenance *provenance);

/* Id of the row of these circumstances, made when it is new. */
status store_put_environment(struct store *store, const struct provenance *provenance, int64_t *id);

/* Fills in the traces and evaluation blocks of runs that are loaded otherwise; what was read before a failure is freed
 * with the results. */
status store_load_detail(struct store *store, struct results *results);
