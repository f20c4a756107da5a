/* trainer: the training loop: 8 micro-shards, a fixed gradient tree, Muon and Adam, schedules, averages.
 *
 * Everything that decides the next step is in struct trainer_state, so a checkpoint of it resumes to the same bits. */
#pragma once
#include "model/data.h"
#include "model/network.h"

enum { MICRO_SHARDS = 8 };

struct step_record {
    int64_t step; /* from 0 */
    double loss;  /* mean nats per token of the step's batch */
    double multiplier;
    double milliseconds;
    int64_t tokens;
};

struct trainer; /* opaque */

status trainer_create(struct trainer **out, const struct config *config, const struct backend *ops,
                      const struct dataset *dataset, uint64_t seed);
/* One of several ranks: all create it with the same arguments and make the same calls in the same order. comm must
 * outlive the trainer. Every rank ends each step with the same weights, whose bits do not depend on their number;
 * trainer_save writes on rank 0, trainer_load reads there. */
struct comm;
status trainer_create_on(struct trainer **out, struct comm *comm, const struct config *config,
                         const struct backend *ops, const struct dataset *dataset, uint64_t seed);
void trainer_destroy(struct trainer *trainer);

/* Micro-shards that a trainer works on at once, given the network of its slices: one on each of the backend's lanes, or
 * as many as fill a device, unless they are many gigabytes, or shards are cut for want of memory. The bits do not
 * depend on it. */
int trainer_lanes(const struct network *net);

/* Bytes of the backend's memory that trainer_create will ask for, without asking: a device need not be there. */
status trainer_memory(const struct config *config, const struct backend *ops, size_t *bytes);

/* The largest train.slice_tokens with which trainer_memory is at most so many bytes; 0 when none is. */
size_t trainer_slice_within(const struct config *config, const struct backend *ops, size_t bytes);

/* One optimiser step. STATUS_DIVERGED when the loss or a gradient is not finite: the weights are those before the
 * step. */
status trainer_step(struct trainer *trainer, struct step_record *record);
bool trainer_finished(const struct trainer *trainer);
int64_t trainer_steps_done(const struct trainer *trainer);

const struct network *trainer_network(const struct trainer *trainer);

/* In the backend's memory. */
const real *trainer_weights(const struct trainer *trainer);
const real *trainer_averaged(const struct trainer *trainer); /* EMA, SWA, or the raw weights when neither is on */

/* One of these two to the host's memory: (parameters.total). */
void trainer_copy_out(const struct trainer *trainer, const real *weights, real *out);

/* SHA-256 of the float64 losses so far; the trace that reproduce compares. */
void trainer_trace_sha256(const struct trainer *trainer, char hex[65]);
const double *trainer_losses(const struct trainer *trainer); /* (steps_done) */

/* Written to a temporary file, synced, renamed, folder synced; guarded by a SHA-256. Loading refuses a file of another
 * key, version or size and leaves the trainer as it was. */
status trainer_save(const struct trainer *trainer, const char *path, const char *key);
status trainer_load(struct trainer *trainer, const char *path, const char *key);

/* The schedule's multiplier at a step (train.warmdown, decay_shape). */
double trainer_multiplier(const struct config *config, int64_t step);
