/* table: the CUDA backend, as kernels/ops.c finds it in programs that it is linked into. */
#include "kernels/cuda/backend.h"

const struct backend backend_cuda = {
    .name = "cuda",
    .act_bytes = 2,
    .device_memory = true,
    .scan_makes_vectors = true,
    .chunk_most = 64,
    .batch_most = 64,
    .filling_tokens = CUDA_FILLING_TOKENS,
    .device_count = cuda_device_count,
    .choose_device = cuda_choose_device,
    .open = cuda_open,
    .libraries = cuda_libraries,
    .memory_new = cuda_memory_new,
    .memory_free = cuda_memory_free,
    .memory_left = cuda_memory_left,
    .upload = cuda_upload,
    .download = cuda_download,
    .finish = cuda_finish,
    .replay = cuda_replay,
    .lane_count = cuda_lane_count,
    .limit_lanes = cuda_limit_lanes,
    .for_each = cuda_for_each,
#define OP(name, arguments, mathematics, shapes, accumulation) .name = cuda_##name,
#define SCRATCH(name, arguments, ops) .name = cuda_##name,
#include "kernels/ops.def"
#undef OP
#undef SCRATCH
};
