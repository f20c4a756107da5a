/* merge_parts: what the files of a merge share. The other database is attached as `there`; what becomes of its rows
 * stands in temporary tables:
 *
 *   fold_suites (there, here, fresh, refused)   fresh: not here before the merge
 *   fold_stages (there, here, parent, verdict, fresh)
 *   fold_runs   (there, here, kind, fresh)      kind: merged_name
 *   fold_copied (key)                           stages whose files are here
 *
 * Verdicts: same (done in both, equal), other (done in both, different), tainted (after such a one), ours (done here
 * alone), busy (done there, a worker is at it here), take, fail (failed there, not done or failed here), open. */
#pragma once
#include "harness/merge.h"
#include "harness/store/internal.h"

struct merge {
    struct store *store, *from;
    const struct merge_request *request;
    struct merge_report *report;
    bool writing; /* the files are here, and a transaction is open */
};

/* Opens the other database, holds it against what this program makes, and attaches it. */
status merge_open_source(struct merge *m);
void merge_close_source(struct merge *m);

/* Fills the temporary tables and the report from what both databases hold now. */
status merge_judge(struct merge *m);

/* Writes what the temporary tables say; inside a transaction. */
status merge_take(struct merge *m);
