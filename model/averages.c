/* averages: EMA and SWA; see averages.h. */
#include "model/averages.h"

enum { BLOCK = 1 << 16 };

bool average_wanted(const struct config *config) { return config->train_ema > 0 || config->train_swa; }

void average_start(struct average *average, const struct config *config, const struct backend *ops, struct lane *lane,
                   const real *weights, size_t total) {
    average->included = 0;
    if (config->train_ema <= 0) return;
    ops->copy(lane, average->weights, weights, total * sizeof *weights);
    average->included = 1;
}

struct job {
    const struct backend *ops;
    real *average;
    const real *weights;
    size_t total, block;
    double decay;
};

static void blend_block(void *context, int piece, struct lane *lane) {
    const struct job *job = context;
    size_t start = (size_t)piece * job->block, left = job->total - start, count = left < job->block ? left : job->block;
    job->ops->moving_average(lane, job->average + start, job->weights + start, count, job->decay);
}

static void blend(struct average *average, const struct backend *ops, struct lane *lanes, int lane_count,
                  const real *weights, size_t total, double decay) {
    struct job job = {ops, average->weights, weights, total, ops->device_memory ? total : BLOCK, decay};
    ops->for_each(lanes, lane_count, (int)((total + job.block - 1) / job.block), blend_block, &job);
}

void average_follow(struct average *average, const struct config *config, const struct backend *ops, struct lane *lanes,
                    int lane_count, const real *weights, size_t total) {
    if (config->train_ema > 0) blend(average, ops, lanes, lane_count, weights, total, config->train_ema);
}

void average_snapshot(struct average *average, const struct config *config, const struct backend *ops,
                      struct lane *lanes, int lane_count, const real *weights, size_t total, int64_t step,
                      double multiplier) {
    if (!config->train_swa || config->train_ema > 0) return;
    if (multiplier >= SWA_BELOW || (step + 1) % SWA_EVERY != 0) return;
    blend(average, ops, lanes, lane_count, weights, total, (double)average->included / (double)(average->included + 1));
    average->included++;
}
