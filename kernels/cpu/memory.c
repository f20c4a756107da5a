/* memory: the CPU backend's memory is the host's, so most of a device's duties are plain copies or nothing. */
#include "kernels/cpu/memory.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ALIGNMENT = 256 };

int cpu_device_count(void) { return 1; }

void cpu_choose_device(int number) { (void)number; }

status cpu_open(void) { return NULL; }

status cpu_memory_new(void **out, size_t bytes, const char *what) {
    size_t whole = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *out = aligned_alloc(ALIGNMENT, whole ? whole : ALIGNMENT);
    if (!*out) return status_new(STATUS_SYSTEM, "no memory for %s: %.1f MB", what, (double)bytes / 1e6);
    memset(*out, 0, whole);
    return NULL;
}

void cpu_memory_free(void *memory) { free(memory); }

size_t cpu_memory_left(void) { return (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE); }

void cpu_upload(struct lane *lane, void *to, const void *from, size_t bytes) {
    (void)lane;
    memcpy(to, from, bytes);
}

status cpu_finish(struct lane *lane) {
    (void)lane;
    return NULL;
}

void cpu_replay(struct lane *lane, uint64_t key, void (*work)(void *), void *context) {
    (void)lane, (void)key;
    work(context);
}

void cpu_clear(struct lane *lane, void *x, size_t bytes) {
    (void)lane;
    memset(x, 0, bytes);
}

void cpu_copy(struct lane *lane, void *to, const void *from, size_t bytes) {
    (void)lane;
    memcpy(to, from, bytes);
}
