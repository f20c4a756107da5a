/* no_nccl: what a program without NCCL says when several devices should work on one training; the library's stand-in
 * for kernels/comm/nccl.cu, taken where that is not linked. */
#include "kernels/comm/ways.h"

status comm_nccl_version(int *version) {
    *version = 0;
    return status_new(STATUS_SYSTEM, "not in this build");
}

status nccl_open(struct comm *comm) {
    return status_new(STATUS_SYSTEM,
                      "%d ranks on devices need NCCL, and this build has none; put nccl.h and libnccl "
                      "where the CUDA toolkit is and build again",
                      comm->size);
}
