/* merge: the order of a merge: look, bring the files, then all rows in one transaction; see harness/merge.h. */
#include "harness/merge.h"

#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "harness/store/merge_parts.h"
#include "model/files.h"

/* --- files -------------------------------------------------------------------------------------------------------- */

static bool same_file(const char *a, const char *b) {
    struct stat first, second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

/* What is not there is made again when something needs it, as in any database that lost a file. */
static status bring_file(struct merge *m, const char *key, const char *name) {
    char from[4096], to[4096];
    bool missing;
    TRY(store_file(m->from, key, name, false, from));
    if (access(from, F_OK) != 0) {
        m->report->files_missing++;
        return NULL;
    }
    TRY(store_file(m->store, key, name, true, to));
    if (same_file(from, to)) return NULL;
    status s = file_copy_atomic(from, to, &missing);
    if (!s || !missing) return s;
    status_free(s);
    m->report->files_missing++;
    return NULL;
}

static status bring_stage(struct merge *m, const char *key, const char *kind) {
    if (strcmp(kind, "train") == 0) {
        TRY(bring_file(m, key, "weights.safetensors"));
        TRY(bring_file(m, key, "averaged.safetensors"));
    }
    if (strcmp(kind, "quantise") == 0) TRY(bring_file(m, key, "artifact.xz"));
    return NULL;
}

static status next_stage(struct merge *m, int64_t *id, char key[65], char kind[16], bool *found) {
    struct query q;
    TRY(query_open(
        &q, m->store->db,
        "SELECT f.there, t.key, CASE WHEN t.backend = 'simulated' THEN '' ELSE t.kind END FROM fold_stages f "
        "JOIN there.stages t ON t.id = f.there WHERE f.verdict = 'take' AND f.there > ? ORDER BY f.there",
        "i", *id));
    TRY(query_next(&q, found));
    if (!*found) return NULL;
    *id = query_int(&q, 0);
    query_text(&q, 1, key, 65);
    query_text(&q, 2, kind, 16);
    query_close(&q);
    return NULL;
}

/* Before the transaction, which would keep others from the database for as long as the copies take; files that no row
 * names yet harm nobody. */
static status bring_files(struct merge *m) {
    char key[65], kind[16];
    int64_t id = 0;
    TRY(database_script(m->store->db, "DELETE FROM fold_copied"));
    for (bool found = true;;) {
        TRY(next_stage(m, &id, key, kind, &found));
        if (!found) break;
        TRY(bring_stage(m, key, kind));
    }
    return database_script(m->store->db,
                           "INSERT INTO fold_copied SELECT t.key FROM fold_stages f JOIN there.stages t ON "
                           "t.id = f.there WHERE f.verdict = 'take'");
}

/* Left here by a worker that ended: its stage is done now. */
static status remove_checkpoints(struct merge *m) {
    char key[65], kind[16], path[4096];
    int64_t id = 0;
    for (bool found = true;;) {
        TRY(next_stage(m, &id, key, kind, &found));
        if (!found) return NULL;
        if (strcmp(kind, "train") != 0) continue;
        TRY(store_file(m->store, key, "checkpoint", false, path));
        unlink(path);
        TRY(store_file(m->store, key, "checkpoint.tmp", false, path));
        unlink(path);
    }
}

/* --- all ---------------------------------------------------------------------------------------------------------- */

static status take(struct merge *m) {
    TRY(merge_judge(m));
    return merge_take(m);
}

static status fold(struct merge *m) {
    TRY(bring_files(m));
    TRY(database_begin(m->store->db));
    m->writing = true;
    TRY(database_end(m->store->db, take(m)));
    return remove_checkpoints(m);
}

status store_merge(struct store *store, const struct merge_request *request, struct merge_report *report) {
    struct merge m = {.store = store, .request = request, .report = report};
    *report = (struct merge_report){0};
    TRY(merge_open_source(&m));
    status s = merge_judge(&m);
    if (!s && !request->dry_run) s = fold(&m);
    merge_close_source(&m);
    if (s) merge_report_free(report);
    return s;
}
