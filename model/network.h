/* network: the model as a composition of ops, forward and backward, over one slice of a batch.
 *
 * A slice is `sequences` x `time` tokens on one lane. The network owns no weights: it reads *effective* weights (the
 * master weights, or their ternary or fake-quantised image, made once a step by network_effective) and adds
 * gradients of what the linear layers read, which network_master_gradients turns into those of the master weights.
 *
 * Weights, gradients, ids, targets, nll and logits are all in the backend's memory (kernels.h). A network itself has
 * none of it, so that its sizes are known without a device. */
#pragma once
#include "kernels/arena.h"
#include "kernels/kernels.h"
#include "model/parameters.h"
#include "model/schedule.h"

struct network {
    struct config config;
    const struct backend *ops;
    struct parameters parameters;
    struct schedule plain, repeated; /* without and with recurrence */
    size_t max_sequences, time;      /* the largest slice that a workspace holds */
    size_t workspace_bytes[2];       /* without and with a tape */
};

/* One lane's memory: the tape of every virtual layer, and scratch. Opaque but for its lane. */
struct workspace;

status network_create(struct network *net, const struct config *config, const struct backend *ops, size_t max_sequences,
                      size_t time);
void network_destroy(struct network *net);

/* training: with a tape for backward; without it layers share their buffers. The size is exact. */
size_t workspace_bytes(const struct network *net, bool training);
status workspace_create(struct workspace **out, const struct network *net, bool training, int lane_index);
void workspace_destroy(struct workspace *ws);
struct lane *workspace_lane(struct workspace *ws);

/* Lanes for slices of the network's size: those of the machine, or, of a device, as many as fill it while their
 * workspaces stay small; at most that many of a device. */
int network_lanes(const struct network *net, bool training, int most);

/* Called with the input rows of each linear layer while a forward pass runs (calibration). */
typedef void (*tap_function)(void *context, int tensor_index, const act *x, size_t rows, size_t cols);

/* Called in a backward pass with what the gradient of a q_gain is summed from (verification): the prepared q and its
 * gradient, (sequences*time, heads, head_dim). */
typedef void (*gain_tap_function)(void *context, int tensor_index, const act *q, const act *dq,
                                  const struct attention_shape *shape);

struct forward_request {
    const real *weights;    /* effective, with their acts */
    const int32_t *ids;     /* (sequences, time) */
    const int32_t *targets; /* (sequences, time), or NULL for no loss */
    size_t sequences, time; /* at most what the network was created for; any time >= 1 */
    bool repeats_on;
    double temperature;         /* 1.0 in training */
    double *nll;                /* (sequences*time) out, when targets are given */
    real *logits;               /* (sequences*time, V) out after the softcap, or NULL */
    tap_function tap;           /* or NULL */
    gain_tap_function gain_tap; /* or NULL; network_train */
    void *tap_context;
};

void network_forward(const struct network *net, struct workspace *ws, const struct forward_request *request);

/* Forward and backward, with targets and no logits at temperature 1 on a training workspace: gradients += scale *
 * d(sum of nll)/d(weights). The head goes both ways block by block, so that logits are made once and never kept. */
void network_train(const struct network *net, struct workspace *ws, const struct forward_request *request,
                   real *gradients, double scale);

enum weight_view { VIEW_MASTER, VIEW_QAT }; /* ternary is a property of the config, in both */

/* effective = the weights as the forward pass sees them, before the scale of a branch; runs over tensors through
 * for_each. The lanes are those of workspaces, or have as much scratch (network_view_scratch). */
void network_effective(const struct network *net, struct lane *lanes, int lane_count, real *effective,
                       const real *master, enum weight_view view);
/* In place: from the gradients that network_train left, or the sum of many. */
void network_master_gradients(const struct network *net, struct lane *lanes, int lane_count, real *gradients,
                              const real *master, const real *effective);

size_t network_view_scratch(const struct network *net);

/* A buffer of effective weights has so many reals: the tensors, and behind them the same as acts, which the linear
 * layers read. Of the projections that end a branch the acts are diag(scale) w, with the branch's scale, so that
 * x + scale (w h) is one product. network_effective writes the acts too, network_round only them. */
size_t network_weight_reals(const struct network *net);
void network_round(const struct network *net, struct lane *lane, real *effective);
const act *network_weight_acts(const struct network *net, const real *effective, const struct tensor *tensor);

/* Floating-point operations of one token at this time length, counted op by op (multiply and add are 2). */
double network_forward_flops(const struct network *net, bool repeats_on, size_t time);
double network_training_flops(const struct network *net, bool repeats_on, size_t time); /* forward and backward */
