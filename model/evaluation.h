/* evaluation: bits per byte of a model on the validation split.
 *
 * BPB = (sum nll / ln 2) / sum bytes over the scored tokens, summed in float64 in token order, whatever the batch,
 * threads or ranks.
 *
 * eval.mode = ttt learns while it scores, and legally: a chunk of windows is scored whole, then the weights are updated
 * on it, then the next chunk is scored; the last one is not learnt from. The caller's weights stay as they are. */
#pragma once
#include "model/data.h"
#include "model/network.h"

enum { EVALUATION_BLOCKS = 64 };

struct evaluation_block {
    double nll; /* nats */
    int64_t bytes, tokens;
};

struct evaluation {
    double bpb, nll, nll_per_token; /* nll: sum in nats */
    int64_t bytes, tokens;
    double seconds;
    struct evaluation_block
        blocks[EVALUATION_BLOCKS]; /* contiguous parts of the scored tokens, for the cluster bootstrap */
};

/* (done, total) windows; returning true stops with STATUS_INTERRUPTED. */
typedef bool (*evaluation_progress)(void *context, size_t done, size_t total);

/* weights: master weights, the host's; ternary models are ternarised inside. config's eval.* options decide what is
 * scored. */
status evaluate(const struct config *config, const struct backend *ops, const real *weights,
                const struct dataset *dataset, evaluation_progress progress, void *context, struct evaluation *out);

/* Bytes of the backend's memory that evaluate takes beside the weights and the text; what ttt learns with is among
 * them. */
status evaluation_memory(const struct config *config, const struct backend *ops, const struct dataset *dataset,
                         size_t *bytes);
