/* arena: bump allocation out of one block; see arena.h. */
#include "kernels/arena.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
static const bool checked = true;
#else
static const bool checked = false;
#define ASAN_POISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#define ASAN_UNPOISON_MEMORY_REGION(start, size) ((void)(start), (void)(size))
#endif

enum { ALIGNMENT = 256, RED_ZONE = 64, HUGE_PAGE = 2 << 20 };

static size_t rounded_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

/* Some machines promise more memory than they have and end the process that believes them: so this asks first. */
static double machine_bytes(void) { return (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE); }

static void *huge_page_memory(size_t size) {
    void *memory = aligned_alloc(HUGE_PAGE, size);
#ifdef MADV_HUGEPAGE
    if (memory) madvise(memory, size, MADV_HUGEPAGE); /* only speed depends on it */
#endif
    return memory;
}

status arena_create(struct arena *arena, size_t bytes, const char *what) {
    *arena = (struct arena){0};
    if ((double)bytes > machine_bytes())
        return status_new(STATUS_SYSTEM, "%s needs %.1f MB of memory, this machine has %.1f MB", what,
                          (double)bytes / 1e6, machine_bytes() / 1e6);
    size_t unit = bytes < HUGE_PAGE ? ALIGNMENT : HUGE_PAGE, size = rounded_up(bytes ? bytes : 1, unit);
    void *memory = unit == HUGE_PAGE ? huge_page_memory(size) : aligned_alloc(ALIGNMENT, size);
    if (!memory)
        return status_new(STATUS_SYSTEM, "%s needs %.1f MB of memory, which this machine refused", what,
                          (double)size / 1e6);
    *arena = (struct arena){.base = memory, .size = size};
    memset(memory, 0, size);
    ASAN_POISON_MEMORY_REGION(memory, size);
    return NULL;
}

static bool on_device(const struct arena *arena) { return arena->ops && arena->ops->device_memory; }

status arena_create_for(struct arena *arena, const struct backend *ops, size_t bytes, const char *what) {
    *arena = (struct arena){.ops = ops};
    void *memory = NULL;
    status s = on_device(arena) ? ops->memory_new(&memory, bytes, what) : arena_create(arena, bytes, what);
    if (memory) *arena = (struct arena){.base = memory, .size = bytes};
    arena->ops = s ? NULL : ops;
    return s;
}

struct arena_piece {
    void *memory;
    struct arena_piece *before;
};

/* NULL where the memory for it is refused. */
static void *own_piece(struct arena *arena, size_t bytes) {
    struct arena_piece *piece = malloc(sizeof *piece);
    if (!piece) return NULL;
    status refused = arena->ops->memory_new(&piece->memory, bytes, "a piece of an arena");
    if (refused) {
        status_free(refused);
        free(piece);
        return NULL;
    }
    piece->before = arena->pieces;
    arena->pieces = piece;
    return piece->memory;
}

static void free_pieces(struct arena *arena) {
    while (arena->pieces) {
        struct arena_piece *piece = arena->pieces;
        arena->pieces = piece->before;
        arena->ops->memory_free(piece->memory);
        free(piece);
    }
}

void arena_destroy(struct arena *arena) {
    if (on_device(arena)) {
        free_pieces(arena);
        if (arena->base) arena->ops->memory_free(arena->base);
    } else {
        if (arena->base) ASAN_UNPOISON_MEMORY_REGION(arena->base, arena->size);
        free(arena->base);
    }
    *arena = (struct arena){0};
}

void *arena_take(struct arena *arena, size_t bytes) {
    size_t start = arena->used;
    arena->used += rounded_up(bytes + RED_ZONE, ALIGNMENT);
    if (!arena->base) return NULL;
    if (arena->used > arena->size) abort();
    void *own = on_device(arena) && checked ? own_piece(arena, bytes) : NULL;
    if (own) return own;
    if (!on_device(arena)) ASAN_UNPOISON_MEMORY_REGION(arena->base + start, bytes);
    return arena->base + start;
}

real *arena_reals(struct arena *arena, size_t count) { return arena_take(arena, count * sizeof(real)); }

act *arena_acts(struct arena *arena, size_t count) {
    return arena_take(arena, count * (arena->ops ? arena->ops->act_bytes : sizeof(act)));
}
