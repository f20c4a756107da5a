/* ops: the table of op rows and the backends of this program. */
#include <string.h>

#include "kernels/cpu/lanes.h"
#include "kernels/cpu/memory.h"
#include "kernels/cuda/backend.h"
#include "kernels/kernels.h"

const struct op_row op_rows[] = {
#define OP(name, arguments, mathematics, shapes, accumulation) {#name, mathematics, shapes, accumulation},
#define SCRATCH(name, arguments, ops)
#include "kernels/ops.def"
#undef OP
#undef SCRATCH
};
const size_t op_row_count = sizeof op_rows / sizeof *op_rows;

static const struct backend cpu = {
    .name = "cpu",
    .act_bytes = sizeof(real),
    .chunk_most = SIZE_MAX,
    .batch_most = 1,
    .device_count = cpu_device_count,
    .choose_device = cpu_choose_device,
    .open = cpu_open,
    .memory_new = cpu_memory_new,
    .memory_free = cpu_memory_free,
    .memory_left = cpu_memory_left,
    .upload = cpu_upload,
    .download = cpu_upload,
    .finish = cpu_finish,
    .replay = cpu_replay,
    .lane_count = cpu_lane_count,
    .limit_lanes = cpu_limit_lanes,
    .for_each = cpu_for_each,
#define OP(name, arguments, mathematics, shapes, accumulation) .name = cpu_##name,
#define SCRATCH(name, arguments, ops) .name = cpu_##name,
#include "kernels/ops.def"
#undef OP
#undef SCRATCH
};

/* It has no ops: whoever finds it draws figures instead (kernels/simulated). */
static const struct backend simulated = {
    .name = "simulated",
    .act_bytes = sizeof(real),
    .device_count = cpu_device_count,
    .choose_device = cpu_choose_device,
    .open = cpu_open,
    .lane_count = cpu_lane_count,
    .limit_lanes = cpu_limit_lanes,
    .for_each = cpu_for_each,
};

uint64_t recording_number(void) {
    static _Atomic uint64_t given;
    return ++given;
}

/* NULL in programs that kernels/cuda is not linked into. */
#pragma weak backend_cuda

const struct backend *backend_find(const char *name) {
    const struct backend *const known[] = {&cpu, &simulated, &backend_cuda};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (known[i] && strcmp(known[i]->name, name) == 0) return known[i];
    return NULL;
}
