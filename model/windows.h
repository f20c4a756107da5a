/* windows: which stretches of the validation split an evaluation runs, and which of their targets it scores.
 *
 * Target j is the token j+1 of the stream. Every target below `scored` is scored by exactly one window, and the windows
 * score them in order. Standard and ttt: windows of T side by side. Sliding: a window starts every `stride` tokens; the
 * first scores all of its targets, each other the last `stride` of them (the last window what is left). */
#pragma once
#include <stddef.h>

#include "kernels/status.h"
#include "model/options.h"

struct window_plan {
    size_t time, step; /* T; distance between the starts of two windows */
    size_t scored;     /* targets */
    size_t count;      /* windows; only the last may be shorter than T */
};

struct window {
    size_t start, time; /* inputs: tokens start .. start+time-1 of the stream */
    size_t first;       /* targets first .. time-1 of the window are scored */
};

/* From train.sequence and the eval options. An error when nothing is left to score. */
status window_plan_create(struct window_plan *plan, const struct config *config, size_t stream_tokens);
struct window window_plan_at(const struct window_plan *plan, size_t index);
