/* guarded: the CPU backend as if its memory were a device's: only inside ops, upload and download can it be touched,
 * and ops get nothing but this memory. Whoever reads or writes it from the host dies of SIGSEGV; an op that is given
 * the host's memory aborts with its name. The bits are those of the CPU backend on one lane. */
#pragma once
#ifdef __cplusplus
extern "C" {
#endif
#include "kernels/kernels.h"

/* It takes so many matrices at once (batch_most). */
const struct backend *guarded_backend(size_t batch_most);

/* Pieces of memory that are not freed yet. */
int guarded_pieces(void);
#ifdef __cplusplus
}
#endif
