/* comm: the ranks of one training behind one interface: a process alone, MPI, or NCCL.
 *
 * A training's gradient is always the sum of 8 micro-shards as one binary tree. With n ranks, rank r computes the
 * micro-shards r*8/n ..., adds them up as its part of the tree, and the tree's upper levels run across the ranks:
 * level by level, each rank exchanges its sum with the rank whose number differs in one bit, and both add. As x + y
 * and y + x have the same bits, every rank then holds the bits that one rank alone would have computed (the idea of
 * arXiv 2511.17826, applied to training). */
#pragma once
#include "kernels/kernels.h"

enum { COMM_MOST_RANKS = 8 };

struct comm {
    const char *name; /* "single", "mpi" or "nccl" */
    int rank, size;   /* size is 1, 2, 4 or 8 */
    const struct backend *ops;
    void *state;
    /* Each is called by the ranks concerned together, in the same order. Memory is the backend's; `lane` orders the
     * transfer behind the work handed to it. Errors name the call and the ranks. */
    status (*exchange)(struct comm *comm, struct lane *lane, int partner, const void *send, void *receive,
                       size_t bytes);
    status (*broadcast)(struct comm *comm, struct lane *lane, void *data, size_t bytes, int root);
    /* The same with the host's memory: orders, losses, the outcome of a step. */
    status (*broadcast_host)(struct comm *comm, void *data, size_t bytes, int root);
    status (*exchange_host)(struct comm *comm, int partner, const void *send, void *receive, size_t bytes);
    void (*close)(struct comm *comm);
};

/* This process alone. */
void comm_single(struct comm *comm, const struct backend *ops);

/* True where a launcher (mpirun, srun) started this process as one of several ranks. */
bool comm_launched(void);

/* Which of the ranks on its machine this process is, from 0. */
int comm_local_rank(void);

/* NCCL's version, such as 22803 for 2.28.3; an error says why there is none: in this build or on this machine. */
status comm_nccl_version(int *version);

/* The ranks that the launcher started; MPI, and NCCL between devices. Refused: a number of ranks that is not 1, 2, 4
 * or 8, and a build without MPI. With one rank, or none launched, the process alone. */
status comm_open(struct comm *comm, const struct backend *ops);
void comm_close(struct comm *comm);

/* The micro-shards of this rank: first, and how many of `shards`. */
static inline int comm_first_shard(const struct comm *comm, int shards) { return comm->rank * (shards / comm->size); }
static inline int comm_shard_count(const struct comm *comm, int shards) { return shards / comm->size; }

/* sum (count) becomes the tree's sum over all ranks, and finite[0] (of the backend's memory) says whether all of it is
 * finite; room (count) is overwritten. With one rank nothing changes. */
status comm_add_tree(struct comm *comm, struct lane *lane, real *sum, real *room, size_t count, int32_t *finite);
/* The same for one number of the host. */
status comm_add_tree_host(struct comm *comm, double *sum);
