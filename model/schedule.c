/* schedule: builds the virtual layers and pairs the skips; see schedule.h. */
#include "model/schedule.h"

#include <math.h>
#include <stdlib.h>

static int by_value(const void *a, const void *b) {
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

static void append(struct schedule *schedule, int passes[], int physical) {
    schedule->layers[schedule->count++] =
        (struct virtual_layer){.physical = physical, .pass = passes[physical]++, .skip_source = -1};
}

static void lay_out(struct schedule *schedule, const struct config *config, bool repeats_on) {
    struct int_list repeated = config->recurrence_layers;
    qsort(repeated.values, (size_t)repeated.count, sizeof *repeated.values, by_value);
    int64_t last = repeats_on && repeated.count ? repeated.values[repeated.count - 1] : -1;
    int passes[PHYSICAL_CAPACITY] = {0};
    for (int layer = 0; layer < config->model_layers; layer++) {
        append(schedule, passes, layer);
        for (int64_t repeat = 0; layer == last && repeat < config->recurrence_repeats; repeat++)
            for (int i = 0; i < repeated.count; i++) append(schedule, passes, (int)repeated.values[i]);
    }
}

/* The last output pushed is the first popped. Under `published` a decoder layer j pops only while j is below the
 * number of skips that are left, which stops half way. */
static void pair_skips(struct schedule *schedule, const struct config *config) {
    int rows = schedule_skip_rows(config), left = schedule->count / 2;
    if (rows == 0) return;
    for (int j = 0, layer = left; layer < schedule->count && left > 0; j++, layer++) {
        if (config->model_skips == SKIPS_PUBLISHED && j >= left) return;
        schedule->layers[layer].skip_source = --left;
        schedule->layers[layer].skip_row = j < rows ? j : rows - 1;
    }
}

void schedule_build(struct schedule *schedule, const struct config *config, bool repeats_on) {
    schedule->count = 0;
    lay_out(schedule, config, repeats_on);
    pair_skips(schedule, config);
}

bool schedule_is_popped(const struct schedule *schedule, int layer) {
    for (int i = layer + 1; i < schedule->count; i++)
        if (schedule->layers[i].skip_source == layer) return true;
    return false;
}

int schedule_skip_rows(const struct config *config) {
    return config->model_skips == SKIPS_NONE ? 0 : (int)(config->model_layers / 2);
}

/* A product such as 0.07 * 100 may come out a rounding error above the whole number that is meant. */
int64_t schedule_recurrence_step(const struct config *config) {
    return (int64_t)ceil(config->recurrence_start * (double)config->train_steps - 1e-9);
}
