/* ways: how ranks can communicate, for comm.c. Each fills the calls of a comm that is already comm_single's. */
#pragma once
#include "kernels/comm/comm.h"

/* Sets rank and size. Without MPI in this build: an error that says how to build with it. */
status mpi_open(struct comm *comm);
/* After mpi_open, through which the ranks agree on NCCL's identifier; transfers of device memory go through NCCL. */
status nccl_open(struct comm *comm);
