/* schedule: which physical layer runs at each virtual position, and which skip reaches it.
 *
 * With recurrence on, the sorted recurrence.layers R are inserted `repeats` times after layer max(R):
 * L=8, R={3,4}, repeats=2 gives 0 1 2 3 4 3 4 3 4 5 6 7. The first half of the virtual layers pushes skips, the
 * second half pops them. */
#pragma once
#include "model/options.h"

/* Bounds of options.def: 256 layers, and a list of LIST_CAPACITY of them repeated 16 times. */
enum { PHYSICAL_CAPACITY = 256, SCHEDULE_CAPACITY = PHYSICAL_CAPACITY + LIST_CAPACITY * 16 };

struct virtual_layer {
    int physical;
    int pass;        /* 0 the first time that this physical layer runs, then 1, 2, ... */
    int skip_source; /* virtual layer whose output is added before this one; -1: none */
    int skip_row;    /* row of skip_weights that scales it */
};

struct schedule {
    int count;
    struct virtual_layer layers[SCHEDULE_CAPACITY];
};

/* repeats_on: false before recurrence.start. */
void schedule_build(struct schedule *schedule, const struct config *config, bool repeats_on);

/* Does a later layer add the output of this one? */
bool schedule_is_popped(const struct schedule *schedule, int layer);

/* Rows of skip_weights: min(floor(L/2), ceil(L/2)); 0 without skips. */
int schedule_skip_rows(const struct config *config);

/* First step at which the layers repeat. */
int64_t schedule_recurrence_step(const struct config *config);
