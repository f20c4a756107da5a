/* backend: the members of struct backend (kernels/kernels.h) that are no ops, for CUDA; in plain C. */
#pragma once
#include "kernels/kernels.h"

extern const struct backend backend_cuda;

int cuda_device_count(void);
/* Counted from 0, and from the last on again; else 0. */
void cuda_choose_device(int number);

status cuda_open(void);
/* "cuBLASLt 13.0.2, CUDA 13.0" */
const char *cuda_libraries(void);
status cuda_memory_new(void **out, size_t bytes, const char *what);
void cuda_memory_free(void *memory);
size_t cuda_memory_left(void);
void cuda_upload(struct lane *lane, void *to, const void *from, size_t bytes);
void cuda_download(struct lane *lane, void *to, const void *from, size_t bytes);
status cuda_finish(struct lane *lane);
void cuda_replay(struct lane *lane, uint64_t key, void (*work)(void *), void *context);
/* As many as a training has micro-shards: each lane of a for_each has a stream. */
enum { CUDA_STREAMS = 8 };
/* Ops of so many tokens fill any device of today; those of fewer leave room for the next micro-shard's. */
enum { CUDA_FILLING_TOKENS = 65536 };
int cuda_lane_count(void); /* 1: whose work does not fill the device knows by filling_tokens, and takes more */
void cuda_limit_lanes(int lanes);
/* Piece i on lane i modulo their number, each lane's in order on a stream of its own; no other call of a backend's
 * function comes between but those of the pieces themselves. */
void cuda_for_each(struct lane *lanes, int lane_count, int pieces, piece_function function, void *context);
