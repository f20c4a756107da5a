/* op_case: tensors and memory of one run of an op; see op_case.h. */
#include "tests/kernels/op_case.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "kernels/random.h"

struct op_block {
    struct op_block *next;
    void *memory;
};

enum { CACHE_LINE = 64, HUGE_PAGE = 2 << 20 };

/* Exactly as many bytes as asked for, so that AddressSanitizer sees the first one beyond; large ones on huge pages, as
 * the arenas of training are. */
void *op_memory(struct op_run *run, size_t bytes) {
    struct op_block *block = malloc(sizeof *block);
    size_t alignment = bytes < HUGE_PAGE ? CACHE_LINE : HUGE_PAGE;
    if (!block || posix_memalign(&block->memory, alignment, bytes ? bytes : 1) != 0) {
        fprintf(stderr, "no memory for a test tensor of %zu bytes\n", bytes);
        abort();
    }
    if (alignment == HUGE_PAGE) madvise(block->memory, bytes, MADV_HUGEPAGE);
    memset(block->memory, 0, bytes);
    block->next = run->blocks;
    run->blocks = block;
    return block->memory;
}

static struct op_tensor new_tensor(struct op_run *run, const char *name, size_t count) {
    real *data = op_memory(run, count * sizeof *data), *gradient = op_memory(run, count * sizeof *gradient);
    return (struct op_tensor){.name = name, .count = count, .data = data, .gradient = gradient};
}

static int next_place(int *count) {
    if (*count == OP_CASE_TENSORS) abort();
    return (*count)++;
}

real *op_input(struct op_run *run, const char *name, size_t count, double scale) {
    struct op_tensor *tensor = &run->inputs[next_place(&run->input_count)];
    struct random_stream stream = random_stream(run->seed, name);
    *tensor = new_tensor(run, name, count);
    for (size_t i = 0; i < count; i++) tensor->data[i] = (real)(scale * random_normal(stream, i));
    return tensor->data;
}

real *op_parameter(struct op_run *run, const char *name, size_t count, double scale) {
    real *data = op_input(run, name, count, scale);
    run->inputs[run->input_count - 1].accumulates = true;
    return data;
}

real *op_output(struct op_run *run, const char *name, size_t count) {
    struct op_tensor *tensor = &run->outputs[next_place(&run->output_count)];
    *tensor = new_tensor(run, name, count);
    return tensor->data;
}

void op_run_start(struct op_run *run, const struct op_case *row, uint64_t seed) {
    *run = (struct op_run){.seed = seed};
    row->setup(run, row);
}

void op_run_end(struct op_run *run) {
    while (run->blocks) {
        struct op_block *next = run->blocks->next;
        free(run->blocks->memory);
        free(run->blocks);
        run->blocks = next;
    }
}
