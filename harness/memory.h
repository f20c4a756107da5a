/* memory: the bytes that each stage of a variant holds at its peak, known before anything runs. */
#pragma once
#include "kernels/kernels.h"
#include "model/data.h"
#include "model/options.h"

struct memory_use {
    size_t process;             /* the program, its libraries and the text, without any stage */
    size_t stages[STAGE_KINDS]; /* what a stage holds beside that, at its peak */
    size_t device;              /* of a device's own memory, the most that any stage holds; 0 on a CPU */
};

/* Raises use->stages to what the stages of a model of this config hold, from the same layouts that they allocate by:
 * lanes are those of ops, files are held whole while they are written or read. A training that goes on from its
 * checkpoint holds that file besides, for a moment. */
status memory_of_stages(const struct config *config, const struct backend *ops, const struct dataset *dataset,
                        struct memory_use *use);

/* Of this process now, after a product on every lane: the BLAS library has its buffers then. 0 where it is unknown. */
size_t memory_of_process(const struct backend *ops);

size_t memory_peak(const struct memory_use *use);
