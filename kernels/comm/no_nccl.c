/* no_nccl: what a build without NCCL says when several devices should work on one training. */
#include "kernels/comm/ways.h"

#ifndef HINGE_NCCL
bool comm_has_nccl(void) { return false; }

status nccl_open(struct comm *comm) {
    return status_new(STATUS_SYSTEM,
                      "%d ranks on devices need NCCL, and this build has none; put nccl.h and libnccl "
                      "where the CUDA toolkit is and build again",
                      comm->size);
}
#endif
