/* averages: the weights that are evaluated instead of the last ones: a moving average (EMA) or, when that is off,
 * the mean of snapshots late in training (SWA, arXiv 1803.05407). */
#pragma once
#include "model/parameters.h"

enum { SWA_EVERY = 50 };
#define SWA_BELOW 0.4 /* the multiplier under which snapshots are taken */

struct average {
    real *weights;    /* (total); NULL when neither is on */
    int64_t included; /* snapshots in the mean; 1 from the start for EMA */
};

/* Does this config average at all? */
bool average_wanted(const struct config *config);

/* EMA starts from the initial weights; SWA from nothing. */
void average_start(struct average *average, const struct config *config, const struct backend *ops, struct lane *lane,
                   const real *weights, size_t total);

/* EMA after a step; nothing for SWA. The same ops with the same arguments each time. Elements are independent: blocks
 * of them run on any lane. */
void average_follow(struct average *average, const struct config *config, const struct backend *ops, struct lane *lanes,
                    int lane_count, const real *weights, size_t total);

/* SWA after `step` (from 0), made with this multiplier; nothing for EMA. */
void average_snapshot(struct average *average, const struct config *config, const struct backend *ops,
                      struct lane *lanes, int lane_count, const real *weights, size_t total, int64_t step,
                      double multiplier);
