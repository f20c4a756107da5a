/* memory: the members of struct backend (kernels/kernels.h) that are about memory, for the CPU. */
#pragma once
#include "kernels/kernels.h"

int cpu_device_count(void);
void cpu_choose_device(int number);
status cpu_open(void);
status cpu_memory_new(void **out, size_t bytes, const char *what);
void cpu_memory_free(void *memory);
size_t cpu_memory_left(void);
void cpu_upload(struct lane *lane, void *to, const void *from, size_t bytes); /* serves as download too */
status cpu_finish(struct lane *lane);
void cpu_replay(struct lane *lane, uint64_t key, void (*work)(void *), void *context);
