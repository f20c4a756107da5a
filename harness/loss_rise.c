/* loss_rise: whether a training ended worse than it once was; see loss_rise.h. */
#include "harness/loss_rise.h"

#include <inttypes.h>
#include <stdio.h>

enum { FIFTHS = 5 };

static double mean(const double *losses, int64_t from, int64_t to) {
    double sum = 0;
    for (int64_t i = from; i < to; i++) sum += losses[i];
    return sum / (double)(to - from);
}

bool losses_rose(const double *losses, int64_t steps, struct loss_rise *out) {
    *out = (struct loss_rise){0};
    if (steps < LOSS_RISE_STEPS) return false;
    for (int64_t i = 0; i < FIFTHS; i++) {
        int64_t from = i * steps / FIFTHS, to = (i + 1) * steps / FIFTHS;
        out->last = mean(losses, from, to);
        if (i == 0 || out->last < out->lowest) out->lowest = out->last, out->from = from, out->to = to;
    }
    return out->last - out->lowest > LOSS_RISE;
}

void loss_rise_text(const struct loss_rise *rise, char out[LOSS_RISE_TEXT]) {
    snprintf(out, LOSS_RISE_TEXT,
             "the loss rose: %.2f nats per token over the last fifth of the steps, %.2f over steps %" PRId64
             " to %" PRId64,
             rise->last, rise->lowest, rise->from, rise->to - 1);
}
