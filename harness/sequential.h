/* sequential: a suite with declared looks is run batch by batch; after each, the variants whose comparison is decided
 * get no further seeds. A decided variant's other runs stay pending: they are not needed. */
#pragma once
#include "harness/runner.h"

/* Calls work with the request's plan cut to the runs of each batch, until no comparison is open. Without looks, once
 * with the whole plan. Of a part, until a look needs runs of other parts that the database does not have; then it says
 * so. */
status sequential_run(const struct runner_request *request,
                      status (*work)(const struct runner_request *request, void *context), void *context);

/* Which runs of a whole plan, in its order, are to be done now by what a database has (NULL: nothing): those of the
 * first batch that is not complete; without looks, all that have not ended. */
status sequential_needed(const char *database, const struct plan *plan, bool *needed);
