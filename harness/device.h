/* device: which backend a suite runs on, and questions to a device that leave this process without it: what a driver
 * holds does not survive a fork, and workers are forks. */
#pragma once
#include "harness/suite.h"
#include "kernels/kernels.h"

/* The words of --device; auto: cuda where a device opens, else cpu. */
#define DEVICE_WORDS "cpu|cuda|auto"
#define FLAG_ROW_DEVICE                                                                       \
    {                                                                                         \
        .name = "device", .type = FLAG_CHOICE, .value_name = DEVICE_WORDS, .initial = "auto", \
        .help = "where to calculate; auto: on a GPU when there is one that works"             \
    }

/* The backend of that word, not opened. cuda in a build without it: STATUS_USAGE that says how to build it; a device
 * that does not open is no error here, unless the word is auto, which then is cpu. */
status device_find(const char *word, const struct backend **ops);

/* Decides on the word and the suite's run.backend together, and sets what follows from it for all variants: run.backend
 * and an open train.slice_tokens. Simulated suites stay what they are. */
status device_for_suite(struct suite *suite, const char *word, const struct backend **ops);

/* What a machine's devices have to offer. */
struct device_room {
    int devices;
    size_t bytes_free; /* of the first */
};

/* Opens the backend in a process of its own: what there is, or why it cannot be used. */
status device_probe(const struct backend *ops, struct device_room *room);

/* Runs function(context, result) in a process of its own, after the backend was opened there, and brings `bytes` of
 * result back. */
typedef status (*device_work)(void *context, void *result);
status device_apart(const struct backend *ops, device_work work, void *context, void *result, size_t bytes);
