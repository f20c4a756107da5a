/* rates: short measurements of products; see rates.h. */
#include "kernels/rates.h"

#include <stdlib.h>

#include "kernels/clock.h"

enum { SIDE = 512, SIDE_OF_DEVICE = 4096, ROUNDS = 5, LANES = 256 };

/* One lane's operands and how often it repeats its work in a round. */
struct work {
    const struct backend *ops;
    void *a[LANES], *b[LANES], *c[LANES], *scratch[LANES];
    size_t side, scratch_bytes;
    long repeats;
};

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void multiply(void *context, int piece, struct lane *lane) {
    struct work *w = context;
    for (long i = 0; i < w->repeats; i++)
        w->ops->linear_forward(lane, w->c[piece], w->a[piece], w->b[piece], w->side, w->side, w->side);
}

static double round_seconds(struct work *w, struct lane *lanes, int count) {
    double start = clock_seconds();
    w->ops->for_each(lanes, count, count, multiply, w);
    status_free(w->ops->finish(lanes));
    return clock_seconds() - start;
}

static double flops_of(size_t side) { return 2.0 * (double)side * (double)side * (double)side; }

/* Median over rounds of FLOP/s. */
static double measure(struct work *w, int count, double seconds) {
    struct lane lanes[LANES] = {0};
    double rates[ROUNDS];
    for (int i = 0; i < count; i++) lanes[i] = (struct lane){i, w->scratch[i], w->scratch_bytes};
    w->repeats = 1;
    round_seconds(w, lanes, count);
    double once = round_seconds(w, lanes, count);
    w->repeats = 1 + (long)(seconds / ROUNDS / (once > 1e-6 ? once : 1e-6));
    for (int r = 0; r < ROUNDS; r++)
        rates[r] = flops_of(w->side) * count * (double)w->repeats / round_seconds(w, lanes, count);
    qsort(rates, ROUNDS, sizeof *rates, by_value);
    return rates[ROUNDS / 2];
}

static void release(struct work *w, int count) {
    for (int i = 0; i < count; i++) {
        void *owned[] = {w->a[i], w->b[i], w->c[i], w->scratch[i]};
        for (int k = 0; k < 4; k++)
            if (owned[k]) w->ops->memory_free(owned[k]);
    }
}

static bool reserve(struct work *w, int count) {
    size_t bytes = sizeof(real) * w->side * w->side;
    w->scratch_bytes = w->ops->linear_scratch(w->side, w->side, w->side);
    for (int i = 0; i < count; i++) {
        void **operands[] = {&w->a[i], &w->b[i], &w->c[i], &w->scratch[i]};
        for (int k = 0; k < 4; k++) {
            status s = w->ops->memory_new(operands[k], k < 3 ? bytes : w->scratch_bytes, "a measurement");
            if (!s) continue;
            *operands[k] = NULL;
            status_free(s);
            return false;
        }
    }
    return true;
}

static double product_rate(const struct backend *ops, int lanes, double seconds, size_t side) {
    struct work w = {.ops = ops, .side = side};
    int count = lanes < LANES ? lanes : LANES;
    double rate = reserve(&w, count) ? measure(&w, count, seconds) : 0.0;
    release(&w, count);
    return rate;
}

/* A device that has done a product in no time is given a larger one. */
double measured_product_rate(const struct backend *ops, int lanes, double seconds) {
    size_t side = SIDE;
    double found = product_rate(ops, lanes, seconds, side);
    while (ops->device_memory && side < SIDE_OF_DEVICE && flops_of(2 * side) < found * seconds / ROUNDS) {
        side *= 2;
        found = product_rate(ops, lanes, seconds, side);
    }
    return found;
}
