/* export_weights: a run's weights as a safetensors file that other programs read. */
#pragma once
#include "harness/store.h"

/* step 0: the initial weights, drawn again from the run's seed; any other: the trained ones, -1 or the run's last step
 * (no step between is kept). Every tensor in float32 as "param.NAME", as in the golden files; the metadata holds
 * "case", which says what it is, and every option. Written atomically. */
status export_weights(struct store *store, int64_t run, int64_t step, const char *path);
