/* comm: the process alone, the choice among the ways to communicate, and the tree across ranks. */
#include "kernels/comm/comm.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/comm/ways.h"

static status single_exchange(struct comm *comm, struct lane *lane, int partner, const void *send, void *receive,
                              size_t bytes) {
    (void)partner;
    comm->ops->copy(lane, receive, send, bytes);
    return NULL;
}

static status single_broadcast(struct comm *comm, struct lane *lane, void *data, size_t bytes, int root) {
    (void)comm, (void)lane, (void)data, (void)bytes, (void)root;
    return NULL;
}

static status single_broadcast_host(struct comm *comm, void *data, size_t bytes, int root) {
    (void)comm, (void)data, (void)bytes, (void)root;
    return NULL;
}

static status single_exchange_host(struct comm *comm, int partner, const void *send, void *receive, size_t bytes) {
    (void)comm, (void)partner;
    memcpy(receive, send, bytes);
    return NULL;
}

static void single_close(struct comm *comm) { (void)comm; }

void comm_single(struct comm *comm, const struct backend *ops) {
    *comm = (struct comm){.name = "single",
                          .size = 1,
                          .ops = ops,
                          .exchange = single_exchange,
                          .broadcast = single_broadcast,
                          .broadcast_host = single_broadcast_host,
                          .exchange_host = single_exchange_host,
                          .close = single_close};
}

/* The number in the first of the variables that is set; 0 when none is. */
static int number_of(const char *const *variables, size_t count) {
    for (size_t i = 0; i < count; i++) {
        const char *value = getenv(variables[i]);
        if (value) return atoi(value);
    }
    return 0;
}

/* Open MPI's and Slurm's own words. */
bool comm_launched(void) {
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_SIZE"};
    return number_of(variables, 3) > 1;
}

int comm_local_rank(void) {
    static const char *const variables[] = {"OMPI_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID", "MPI_LOCALRANKID"};
    return number_of(variables, 3);
}

static status check_size(const struct comm *comm) {
    int size = comm->size;
    if (size >= 1 && size <= COMM_MOST_RANKS && (size & (size - 1)) == 0) return NULL;
    return status_new(STATUS_USAGE,
                      "%d ranks were launched; a training's 8 micro-shards can be split among 1, 2, 4 or 8 ranks",
                      size);
}

status comm_open(struct comm *comm, const struct backend *ops) {
    comm_single(comm, ops);
    if (!comm_launched()) return NULL;
    TRY(mpi_open(comm));
    status s = check_size(comm);
    if (!s && ops->device_memory && comm->size > 1) s = nccl_open(comm);
    if (s) comm_close(comm);
    return s;
}

void comm_close(struct comm *comm) {
    if (comm->close) comm->close(comm);
    comm_single(comm, comm->ops);
}

status comm_add_tree(struct comm *comm, struct lane *lane, real *sum, real *room, size_t count, int32_t *finite) {
    for (int distance = 1; distance < comm->size; distance *= 2) {
        TRY(comm->exchange(comm, lane, comm->rank ^ distance, sum, room, count * sizeof *sum));
        real *const parts[] = {sum, room};
        comm->ops->add_tree(lane, parts, 2, count, finite);
    }
    return NULL;
}

status comm_add_tree_host(struct comm *comm, double *sum) {
    for (int distance = 1; distance < comm->size; distance *= 2) {
        double other;
        /* cppcheck-suppress returnDanglingLifetime // a status does not point to what was received */
        TRY(comm->exchange_host(comm, comm->rank ^ distance, sum, &other, sizeof other));
        *sum += other;
    }
    return NULL;
}
