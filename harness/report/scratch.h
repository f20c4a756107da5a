/* scratch: the folder in which a report is made, beside the place where it goes; nothing half-made is seen there. */
#pragma once
#include "kernels/status.h"

struct scratch {
    char folder[4096]; /* OUTPUT/.SLUG.XXXXXX */
    int lock;          /* held while anybody works in it, programs that were started included */
};

/* Makes a fresh folder, and removes those of the same name whose makers were killed. */
status scratch_make(struct scratch *scratch, const char *output, const char *slug);

/* Puts the folder in the place of another of that name, in one step; the other is then the scratch. */
status scratch_put(const struct scratch *scratch, const char *final);
void scratch_take_back(const struct scratch *scratch, const char *final); /* undoes it */

void scratch_end(struct scratch *scratch); /* removes what is left of it */

/* A descriptor whose closing ends the lock, which one process holds at a time; below 0: not to be had. */
int folder_lock(const char *folder);

void folder_remove(const char *path); /* as rm -rf */
