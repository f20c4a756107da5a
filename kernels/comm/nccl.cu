/* nccl: transfers of device memory between ranks, one device each, through NCCL on the device's stream. */
#include <nccl.h>
#include <stdlib.h>

#include "kernels/cuda/device.cuh"

extern "C" {
#include "kernels/comm/ways.h"
}

/* What comm_open had before: MPI's calls, for the host's memory and the end. */
struct nccl_state {
    ncclComm_t nccl;
    void (*close_mpi)(struct comm *comm);
};

static status check(const struct comm *comm, const char *call, ncclResult_t result) {
    if (result == ncclSuccess) return NULL;
    return status_new(STATUS_SYSTEM, "rank %d of %d: %s: %s", comm->rank, comm->size, call, ncclGetErrorString(result));
}

static struct nccl_state *state_of(struct comm *comm) { return static_cast<struct nccl_state *>(comm->state); }

static status nccl_exchange(struct comm *comm, struct lane *, int partner, const void *send, void *receive,
                            size_t bytes) {
    ncclComm_t nccl = state_of(comm)->nccl;
    ncclResult_t result = ncclGroupStart();
    if (result == ncclSuccess) result = ncclSend(send, bytes, ncclChar, partner, nccl, device_stream());
    if (result == ncclSuccess) result = ncclRecv(receive, bytes, ncclChar, partner, nccl, device_stream());
    ncclResult_t end = ncclGroupEnd();
    return check(comm, "NCCL's exchange", result == ncclSuccess ? end : result);
}

static status nccl_broadcast(struct comm *comm, struct lane *, void *data, size_t bytes, int root) {
    return check(comm, "ncclBroadcast",
                 ncclBroadcast(data, data, bytes, ncclChar, root, state_of(comm)->nccl, device_stream()));
}

static void nccl_close(struct comm *comm) {
    struct nccl_state *state = state_of(comm);
    ncclCommDestroy(state->nccl);
    void (*close_mpi)(struct comm *) = state->close_mpi;
    free(state);
    comm->state = NULL;
    close_mpi(comm);
}

static status connect(struct comm *comm, struct nccl_state *state) {
    ncclUniqueId id = {};
    status s = comm->rank == 0 ? check(comm, "ncclGetUniqueId", ncclGetUniqueId(&id)) : NULL;
    if (!s) s = comm->broadcast_host(comm, &id, sizeof id, 0);
    if (!s) s = check(comm, "ncclCommInitRank", ncclCommInitRank(&state->nccl, comm->size, id, comm->rank));
    return s;
}

/* See comm.h. */
extern "C" status comm_nccl_version(int *version) {
    ncclResult_t result = ncclGetVersion(version);
    return result == ncclSuccess ? NULL : status_new(STATUS_SYSTEM, "%s", ncclGetErrorString(result));
}

extern "C" status nccl_open(struct comm *comm) {
    struct nccl_state *state = static_cast<struct nccl_state *>(calloc(1, sizeof *state));
    if (!state) return status_new(STATUS_SYSTEM, "NCCL: out of memory");
    status s = connect(comm, state);
    if (s) {
        free(state);
        return s;
    }
    state->close_mpi = comm->close;
    comm->name = "nccl";
    comm->state = state;
    comm->exchange = nccl_exchange;
    comm->broadcast = nccl_broadcast;
    comm->close = nccl_close;
    return NULL;
}
