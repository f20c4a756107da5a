/* mpi: ranks as processes of MPI; memory of a device goes through the host's. */
#include "kernels/comm/ways.h"

#ifndef HINGE_MPI
status mpi_open(struct comm *comm) {
    (void)comm;
    return status_new(STATUS_SYSTEM, "several ranks were launched, but this build has no MPI; install libopenmpi-dev "
                                     "and build again");
}
#else
#include <limits.h>
#include <mpi.h>
#include <stdlib.h>

/* MPI counts in int. */
static const size_t PIECE = (size_t)1 << 30;

enum { TAG = 1 };

static status failure(const struct comm *comm, const char *call, int code) {
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    MPI_Error_string(code, text, &length);
    return status_new(STATUS_SYSTEM, "rank %d of %d: %s: %s", comm->rank, comm->size, call, text);
}

static status mpi_exchange_host(struct comm *comm, int partner, const void *send, void *receive, size_t bytes) {
    for (size_t at = 0; at < bytes; at += PIECE) {
        int count = (int)(bytes - at < PIECE ? bytes - at : PIECE);
        int code = MPI_Sendrecv((const char *)send + at, count, MPI_BYTE, partner, TAG, (char *)receive + at, count,
                                MPI_BYTE, partner, TAG, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
        if (code != MPI_SUCCESS) return failure(comm, "MPI_Sendrecv", code);
    }
    return NULL;
}

static status mpi_broadcast_host(struct comm *comm, void *data, size_t bytes, int root) {
    for (size_t at = 0; at < bytes; at += PIECE) {
        int count = (int)(bytes - at < PIECE ? bytes - at : PIECE);
        int code = MPI_Bcast((char *)data + at, count, MPI_BYTE, root, MPI_COMM_WORLD);
        if (code != MPI_SUCCESS) return failure(comm, "MPI_Bcast", code);
    }
    return NULL;
}

static status mpi_exchange(struct comm *comm, struct lane *lane, int partner, const void *send, void *receive,
                           size_t bytes) {
    (void)lane;
    return mpi_exchange_host(comm, partner, send, receive, bytes);
}

static status mpi_broadcast(struct comm *comm, struct lane *lane, void *data, size_t bytes, int root) {
    (void)lane;
    return mpi_broadcast_host(comm, data, bytes, root);
}

static void mpi_close(struct comm *comm) {
    (void)comm;
    MPI_Finalize();
}

status mpi_open(struct comm *comm) {
    int code = MPI_Init(NULL, NULL);
    if (code != MPI_SUCCESS) return failure(comm, "MPI_Init", code);
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &comm->size);
    comm->name = "mpi";
    comm->exchange = mpi_exchange;
    comm->broadcast = mpi_broadcast;
    comm->exchange_host = mpi_exchange_host;
    comm->broadcast_host = mpi_broadcast_host;
    comm->close = mpi_close;
    return NULL;
}
#endif
