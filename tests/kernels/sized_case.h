/* sized_case: what the rows share whose state is the op's own dimensions: their tensors, sizes and counted work. */
#pragma once
#include <string.h>

#include "kernels/random.h"
#include "tests/kernels/op_case.h"

static inline real *in(const struct op_run *run, int k) { return run->inputs[k].data; }
static inline real *din(const struct op_run *run, int k) { return run->inputs[k].gradient; }
static inline real *out(const struct op_run *run, int k) { return run->outputs[k].data; }
static inline real *dout(const struct op_run *run, int k) { return run->outputs[k].gradient; }

/* Dimensions of the row, so that forward and backward can read them; kept as the run's state. */
struct sizes {
    size_t n[8];
    bool bench;
    int32_t *ids, *more_ids;
    real *kept;
    double *doubles;
    int8_t *integers;
    uint16_t *scales;
};

static inline struct sizes *keep_sizes(struct op_run *run, const struct op_case *row) {
    struct sizes *s = op_memory(run, sizeof *s);
    memcpy(s->n, row->size, sizeof s->n);
    s->bench = row->bench;
    run->state = s;
    return s;
}

static inline void count_work(struct op_run *run, double flops, double reals, double backward_flops,
                              double backward_reals) {
    run->forward_flops = flops;
    run->forward_bytes = reals * sizeof(real);
    run->backward_flops = backward_flops;
    run->backward_bytes = backward_reals * sizeof(real);
}

static inline int32_t *random_ids(struct op_run *run, const char *name, size_t count, size_t bound) {
    int32_t *ids = op_memory(run, count * sizeof *ids);
    struct random_stream stream = random_stream(run->seed, name);
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)random_below(stream, i, bound);
    return ids;
}

/* Output k starts as input k; a timed row does it once. */
static inline void start_from_input(const struct op_run *run, int k) {
    const struct sizes *s = run->state;
    if (!s->bench) memcpy(out(run, k), in(run, k), run->inputs[k].count * sizeof(real));
}
