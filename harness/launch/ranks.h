/* ranks: several processes that a launcher (mpirun, srun) started work on one training.
 *
 * Rank 0 runs the suite as one process would: it alone reads and writes the database, evaluates and quantises. The
 * others follow its orders, so that every call of a trainer is made by all ranks together. */
#pragma once
#include "harness/plan.h"
#include "kernels/comm/comm.h"

enum order_kind { ORDER_CREATE, ORDER_LOAD, ORDER_STEP, ORDER_SAVE, ORDER_DESTROY, ORDER_END };

/* On rank 0, before it makes the call itself; stage is an index into the plan's stages. Nothing to do with comm NULL
 * or one rank. */
status ranks_order(struct comm *comm, enum order_kind kind, int stage);

/* After a call that may fail on one rank alone (memory): every rank learns of it. Returns s, or an error that says that
 * another rank failed. */
status ranks_agree(struct comm *comm, status s);

/* On the other ranks: does what rank 0 orders, until ORDER_END. Ctrl-C is rank 0's to answer. */
status ranks_follow(struct comm *comm, const struct plan *plan);
