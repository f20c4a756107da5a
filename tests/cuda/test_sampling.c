/* test_sampling: the tokens that a decoder reads and draws, on CUDA against the CPU's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/random.h"
#include "tests/cuda/device_case.h"

static struct lane host_lane;

static int32_t *random_ids(const char *name, size_t count) {
    struct random_stream stream = random_stream(3, name);
    int32_t *ids = malloc(count * sizeof *ids);
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)random_below(stream, i, 1024);
    return ids;
}

static void check_reading(size_t rows, size_t sequences, size_t buckets) {
    enum { STEPS = 5 };
    struct device_case c;
    case_begin(&c, 0);
    size_t bytes = sequences * sizeof(int32_t);
    int32_t *tokens = random_ids("tokens", rows * sequences), *ids = random_ids("ids", sequences), length = 0;
    int32_t *found = calloc(sequences, sizeof *found);
    int32_t *device_tokens = device_copy(&c, tokens, rows * bytes), *device_ids = device_copy(&c, ids, bytes);
    int32_t *device_length = device_copy(&c, &length, sizeof length), *device_found = device_copy(&c, found, bytes);
    for (int i = 0; i < STEPS; i++) {
        cpu_next_tokens(&host_lane, &length, ids, found, tokens, rows, sequences, buckets);
        cuda_next_tokens(&c.lane, device_length, device_ids, device_found, device_tokens, rows, sequences, buckets);
        assert_same("length", host_bytes(&c, device_length, sizeof length), &length, sizeof length);
        assert_same("ids", host_bytes(&c, device_ids, bytes), ids, bytes);
        assert_same("buckets", host_bytes(&c, device_found, bytes), found, bytes);
    }
    free(tokens), free(ids), free(found);
    case_end(&c);
}

static void the_tokens_read_are_the_cpus(void **state) {
    (void)state;
    check_reading(7, 5, 4093);
    check_reading(1, 64, 97);
    check_reading(3, 300, 0);
}

static void check_draws(size_t rows, size_t sequences, size_t vocab, double temperature) {
    struct device_case c;
    case_begin(&c, 0);
    const int32_t length = (int32_t)rows + 1;
    size_t cells = rows * sequences, count = sequences * vocab;
    real *logits = random_reals("logits", count, 5);
    double *uniforms = malloc(cells * sizeof *uniforms);
    for (size_t i = 0; i < cells; i++) uniforms[i] = random_uniform(random_stream(4, "uniforms"), i);
    int32_t *tokens = random_ids("tokens", cells);
    int32_t *device_tokens = device_copy(&c, tokens, cells * sizeof *tokens);
    real *weights = device_reals(&c, logits, count);
    cuda_draw_tokens(&c.lane, device_tokens, weights, device_copy(&c, uniforms, cells * sizeof *uniforms),
                     device_copy(&c, &length, sizeof length), rows, sequences, vocab, temperature);
    cpu_draw_tokens(&host_lane, tokens, logits, uniforms, &length, rows, sequences, vocab, temperature);
    assert_same("tokens", host_bytes(&c, device_tokens, cells * sizeof *tokens), tokens, cells * sizeof *tokens);
    assert_close("weights", host_reals(&c, weights, count), logits, count, FLOAT_TOLERANCE);
    free(logits), free(uniforms), free(tokens);
    case_end(&c);
}

static void the_tokens_drawn_are_the_cpus(void **state) {
    (void)state;
    check_draws(2, 3, 1, 1);
    check_draws(4, 64, 1024, 0.8);
    check_draws(1, 5, 700, 0.01);
    check_draws(3, 9, 37, 50);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_tokens_read_are_the_cpus),
        cmocka_unit_test(the_tokens_drawn_are_the_cpus),
    };
    return cmocka_run_group_tests_name("sampling on CUDA", tests, NULL, NULL);
}
