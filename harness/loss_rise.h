/* loss_rise: whether a training ended worse than it once was: it blew up, and its figures are those of no trained
 * model.
 *
 * The softcap bounds every logit, so the loss of a training that blows up stays finite: nothing else stops it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* nats per token: far above what a batch, QAT or the start of recurrence does to a fifth's mean */
#define LOSS_RISE 0.25
enum {
    LOSS_RISE_STEPS = 20, /* of shorter trainings nothing is said: their fifths are a few batches */
    LOSS_RISE_TEXT = 160  /* characters of loss_rise_text, with its NUL */
};

struct loss_rise {
    double last, lowest; /* mean loss over the last fifth of the steps, and the lowest over a fifth; nats per token */
    int64_t from, to;    /* the steps of the lowest: from..to-1 */
};

/* true: last is more than LOSS_RISE above lowest. losses (steps). */
bool losses_rose(const double *losses, int64_t steps, struct loss_rise *out);

/* "the loss rose: 7.79 nats per token over the last fifth of the steps, 2.41 over steps 320 to 639". */
void loss_rise_text(const struct loss_rise *rise, char out[LOSS_RISE_TEXT]);
