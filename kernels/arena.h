/* arena: one block of memory per kind, sized before the first step; nothing is allocated after that.
 *
 *   base                          used                      size
 *   | tensor | pad | tensor | pad | free ...                 |
 *
 * Every piece starts on 256 bytes. Sizing and filling use the same code: an arena with base NULL only counts, so a
 * layout function is run once to measure and once to place. Under AddressSanitizer the host's padding is poisoned, and
 * each piece of a device's arena is an allocation of its own, so that who checks its accesses knows the bounds; where
 * the device has no room for that, it lies in the block like everywhere else, and only its bounds are not checked. */
#pragma once
#include "kernels/kernels.h"

struct arena_piece;

struct arena {
    unsigned char *base; /* NULL while counting */
    size_t size, used;
    const struct backend *ops;  /* whose memory it is; NULL: the host's */
    struct arena_piece *pieces; /* allocations of their own; the last first */
};

/* Zeroed memory of the host; what names it in the message when the machine has not that much. */
status arena_create(struct arena *arena, size_t bytes, const char *what);

/* Zeroed memory of a backend. An arena that counts for it has the same ops: struct arena counting = {.ops = ops}. */
status arena_create_for(struct arena *arena, const struct backend *ops, size_t bytes, const char *what);
void arena_destroy(struct arena *arena);

/* Bytes from the arena, or NULL while counting. Overrunning an arena that was counted is a bug: it aborts. */
void *arena_take(struct arena *arena, size_t bytes);
real *arena_reals(struct arena *arena, size_t count);
act *arena_acts(struct arena *arena, size_t count); /* as wide as the backend's */
