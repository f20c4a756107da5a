/* bench_ops: times every bench row against its own limit on this machine.
 *
 *   bench_ops [--json FILE] [WORD]     WORD: only ops whose name contains it
 *
 * The limit of a row is the larger of flops / product rate and bytes / memory bandwidth, both measured in this run, on
 * one thread, as an op runs on one. The bandwidth is the better of memcpy (2 accesses) and a += b (3 accesses); an op
 * that writes a large output without reading it first moves a third access for that, so that 2 in 3 is its best.
 * All times are medians. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/clock.h"
#include "kernels/cpu/blas.h"
#include "tests/kernels/op_case.h"

enum { SAMPLES = 5, PRODUCT_SIDE = 1024, COPY_REALS = 8 << 20 };
static const double SAMPLE_SECONDS = 0.02;

struct rates {
    double product, product_all_lanes; /* flop/s */
    double memory;                     /* bytes/s */
    int lanes;
};

struct timing {
    double seconds, flops, bytes, limit_seconds;
    const char *limit; /* what the limit is made of */
};

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median seconds of one call; short calls are repeated within a sample. */
static double median_seconds(void (*call)(void *), void *context) {
    double sample[SAMPLES];
    call(context);
    double start = clock_seconds();
    call(context);
    int repeats = 1 + (int)(SAMPLE_SECONDS / (clock_seconds() - start + 1e-9));
    for (int i = 0; i < SAMPLES; i++) {
        start = clock_seconds();
        for (int k = 0; k < repeats; k++) call(context);
        sample[i] = (clock_seconds() - start) / repeats;
    }
    qsort(sample, SAMPLES, sizeof *sample, ascending);
    return sample[SAMPLES / 2];
}

/* --- this machine's rates ---------------------------------------------------------------------------------------- */
static void one_product(void *context) {
    const size_t n = PRODUCT_SIDE;
    real *a = context;
    gemm_nn(n, n, n, 1, a, n, a + n * n, n, 0, a + 2 * n * n, n);
}

struct all_lanes {
    struct lane lanes[OP_CASE_TENSORS];
    real *matrices[OP_CASE_TENSORS];
    int count;
};

static void product_of_lane(void *context, int piece, struct lane *lane) {
    (void)lane;
    one_product(((struct all_lanes *)context)->matrices[piece]);
}

static void product_on_all_lanes(void *context) {
    struct all_lanes *all = context;
    backend_find("cpu")->for_each(all->lanes, all->count, all->count, product_of_lane, all);
}

static void copy_reals(void *context) {
    real *from = context;
    memcpy(from + COPY_REALS, from, COPY_REALS * sizeof *from);
}

static void add_reals(void *context) {
    real *from = context;
    cpu_add_into(NULL, from + COPY_REALS, from, COPY_REALS);
}

static double measure_memory(void) {
    struct op_run run = {0};
    real *memory = op_memory(&run, 2 * COPY_REALS * sizeof *memory);
    double copied = 2 * COPY_REALS * sizeof *memory / median_seconds(copy_reals, memory);
    double added = 3 * COPY_REALS * sizeof *memory / median_seconds(add_reals, memory);
    op_run_end(&run);
    return copied > added ? copied : added;
}

static struct rates measure_rates(void) {
    static struct all_lanes all;
    struct op_run run = {0};
    const size_t n = PRODUCT_SIDE;
    const double flops = 2.0 * (double)(n * n * n);
    int lanes = backend_find("cpu")->lane_count();
    all.count = lanes < OP_CASE_TENSORS ? lanes : OP_CASE_TENSORS;
    for (int i = 0; i < all.count; i++) all.matrices[i] = op_input(&run, "a, b, product", 3 * n * n, 1);
    struct rates rates = {.lanes = all.count};
    rates.product = flops / median_seconds(one_product, all.matrices[0]);
    rates.product_all_lanes = flops * all.count / median_seconds(product_on_all_lanes, &all);
    op_run_end(&run);
    rates.memory = measure_memory();
    return rates;
}

/* --- rows -------------------------------------------------------------------------------------------------------- */
struct timed_call {
    struct op_run *run;
    void (*function)(struct op_run *run);
};

static void call_op(void *context) {
    struct timed_call *call = context;
    call->function(call->run);
}

static struct timing time_call(struct op_run *run, void (*function)(struct op_run *run), double flops, double bytes,
                               const struct rates *rates) {
    struct timed_call call = {run, function};
    double by_product = flops / rates->product, by_memory = bytes / rates->memory;
    bool products = by_product > by_memory;
    return (struct timing){.seconds = median_seconds(call_op, &call),
                           .flops = flops,
                           .bytes = bytes,
                           .limit_seconds = products ? by_product : by_memory,
                           .limit = products ? "products" : "memory"};
}

static void print_timing(const struct op_case *row, const char *pass, const struct timing *t) {
    printf("%-22s %-28.28s %-8s %10.3f %8.1f %7.1f %6.0f %%  %s\n", row->op, row->shape, pass, t->seconds * 1e3,
           t->flops / t->seconds / 1e9, t->bytes / t->seconds / 1e9, 100 * t->limit_seconds / t->seconds, t->limit);
    fflush(stdout);
}

static json_t *timing_json(const struct op_case *row, const char *pass, const struct timing *t) {
    return json_pack("{s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:s}", "op", row->op, "shape", row->shape, "pass", pass,
                     "milliseconds", t->seconds * 1e3, "gflops", t->flops / t->seconds / 1e9, "gbytes_per_second",
                     t->bytes / t->seconds / 1e9, "share_of_limit", t->limit_seconds / t->seconds, "limit", t->limit);
}

static void fill_output_gradients(struct op_run *run) {
    for (int k = 0; k < run->output_count; k++)
        for (size_t i = 0; i < run->outputs[k].count; i++) run->outputs[k].gradient[i] = (real)(i % 7) / 7 - (real)0.4;
}

static void time_row(const struct op_case *row, const struct rates *rates, json_t *list) {
    struct op_run run;
    op_run_start(&run, row, 1);
    fill_output_gradients(&run);
    struct timing t = time_call(&run, row->forward, run.forward_flops, run.forward_bytes, rates);
    print_timing(row, "forward", &t);
    json_array_append_new(list, timing_json(row, "forward", &t));
    if (row->backward) {
        t = time_call(&run, row->backward, run.backward_flops, run.backward_bytes, rates);
        print_timing(row, "backward", &t);
        json_array_append_new(list, timing_json(row, "backward", &t));
    }
    op_run_end(&run);
}

static void time_rows(const struct op_case *cases, size_t count, const char *word, const struct rates *rates,
                      json_t *list) {
    for (size_t i = 0; i < count; i++)
        if (cases[i].bench && (!word || strstr(cases[i].op, word))) time_row(&cases[i], rates, list);
}

static void print_head(const struct rates *rates) {
    printf("%s products: %.1f GFLOP/s on one lane, %.1f on all %d; memory %.1f GB/s on one lane\n\n", REAL_NAME,
           rates->product / 1e9, rates->product_all_lanes / 1e9, rates->lanes, rates->memory / 1e9);
    printf("%-22s %-28s %-8s %10s %8s %7s %8s  %s\n", "op", "shape", "pass", "ms", "GFLOP/s", "GB/s", "share", "limit");
}

int main(int argc, char **argv) {
    const char *word = NULL, *file = NULL;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0 && i + 1 < argc)
            file = argv[++i];
        else
            word = argv[i];
    }
    struct rates rates = measure_rates();
    json_t *list = json_array();
    print_head(&rates);
    time_rows(sequence_cases, sequence_case_count, word, &rates, list);
    time_rows(pointwise_cases, pointwise_case_count, word, &rates, list);
    time_rows(weight_cases, weight_case_count, word, &rates, list);
    json_t *report =
        json_pack("{s:f, s:f, s:i, s:f, s:o}", "product_flops", rates.product, "product_flops_all_lanes",
                  rates.product_all_lanes, "lanes", rates.lanes, "memory_bytes", rates.memory, "ops", list);
    bool failed = file && json_dump_file(report, file, JSON_INDENT(1)) != 0;
    if (failed) fprintf(stderr, "cannot write %s\n", file);
    json_decref(report);
    return failed;
}
