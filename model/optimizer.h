/* optimizer: one step of Muon (linear weights) and Adam (everything else), piece by piece.
 *
 * Muon: K. Jordan 2024; Adam: arXiv 1412.6980. All rates share one multiplier. Where lanes share the work, each tensor
 * is one piece, the costliest first, so that the result is the same on any number of them. Where one call should do
 * much (batch_most), a piece is all that stands together in memory and is updated alike: Adam's tensors of one rate,
 * Muon's of one shape. It is one pass over memory, gaps included: these are 0 in weights, gradients and moments, and
 * Adam and Muon keep a 0 without gradient.
 *
 * With several ranks each piece belongs to one of them: that rank alone has its moments and updates its weights, which
 * the others then receive. A piece is never split, so that the bits do not depend on the number of ranks. */
#pragma once
#include "model/parameters.h"

enum { OPTIMIZER_MOST_RANKS = 8 };

/* Tensors from place `first` of parameters.by_offset on. */
struct piece {
    int first, count;
    size_t offset, span; /* reals of weights, gradients and update, gaps between the tensors included */
    double cost;
};

/* What does not change from step to step. Muon keeps one moment, Adam two: only Adam's tensors have a place in
 * `second`. A rank has memory for the moments of its own tensors; `whole` places are those of one rank alone, which
 * checkpoints are written in. */
struct optimizer {
    const struct config *config;         /* borrowed */
    const struct parameters *parameters; /* borrowed */
    const struct backend *ops;           /* borrowed */
    struct piece *pieces;                /* (piece_count) costliest first */
    int piece_count;
    int rank, ranks;
    int *owner;                                           /* (count) rank that has the tensor's moments */
    size_t *first_offset;                                 /* (count) into first, for own tensors; as they stand */
    size_t *second_offset;                                /* (count) into second, for own tensors of Adam; likewise */
    size_t *second_whole;                                 /* (count) the same for one rank alone */
    size_t first_total, second_total, second_whole_total; /* reals */
    size_t scratch_bytes;                                 /* what every lane must have */
};

/* What changes from step to step. */
struct update_settings {
    struct adam_settings embedding, adam;
    struct muon_settings muon;
};

/* All of it is the same at every step but for what the memory holds, so that a device may record the step. */
struct optimizer_step {
    struct lane *lanes;
    int lane_count;
    real *weights;                          /* (total); those of own tensors are updated */
    real *first, *second;                   /* (first_total), (second_total) */
    const real *gradients;                  /* (total), those of the master weights */
    real *update;                           /* (total) scratch for Muon's directions */
    const struct update_settings *settings; /* in the backend's memory */
};

status optimizer_create(struct optimizer *optimizer, const struct config *config, const struct parameters *parameters,
                        const struct backend *ops, int rank, int ranks);
void optimizer_destroy(struct optimizer *optimizer);
/* Of this step (from 0). */
struct update_settings optimizer_settings(const struct config *config, int64_t step, double multiplier);
void optimizer_apply(const struct optimizer *optimizer, const struct optimizer_step *step);

/* The rank that has the piece's moments. */
int piece_owner(const struct optimizer *optimizer, const struct piece *piece);

/* Linear from optim.muon_momentum_start to optim.muon_momentum over optim.muon_momentum_steps. */
double muon_momentum_at(const struct config *config, int64_t step);

/* Scales all gradients (in the host's memory) down so that their euclidean norm is at most `limit`; the norm is summed
 * in float64, tensor by tensor in order. Returns the norm before. */
double clip_gradients(const struct parameters *parameters, real *gradients, double limit);
