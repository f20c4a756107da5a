/* arena: bump allocation out of one block; see arena.h. */
#include "kernels/arena.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

enum { ALIGNMENT = 64, RED_ZONE = 64 };

static size_t padded(size_t bytes) { return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT + RED_ZONE; }

status arena_create(struct arena *arena, size_t bytes, const char *what) {
    size_t size = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    *arena = (struct arena){aligned_alloc(ALIGNMENT, size ? size : ALIGNMENT), size, 0};
    if (!arena->base)
        return status_new(STATUS_SYSTEM, "%s needs %.1f MB of memory, which this machine refused", what,
                          (double)size / 1e6);
    memset(arena->base, 0, size);
    ASAN_POISON_MEMORY_REGION(arena->base, size);
    return NULL;
}

void arena_destroy(struct arena *arena) {
    if (arena->base) ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->size);
    free(arena->base);
    *arena = (struct arena){0};
}

void *arena_take(struct arena *arena, size_t bytes) {
    size_t start = arena->used;
    arena->used += padded(bytes);
    if (!arena->base) return NULL;
    if (arena->used > arena->size) abort();
    ASAN_UNPOISON_MEMORY_REGION(arena->base + start, bytes);
    return arena->base + start;
}

real *arena_reals(struct arena *arena, size_t count) { return arena_take(arena, count * sizeof(real)); }
