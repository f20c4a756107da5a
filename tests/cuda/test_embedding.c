/* test_embedding: lookups, their gradients, bigrams and smear on CUDA against the CPU's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/random.h"
#include "tests/cuda/device_case.h"

static struct lane host_lane;

static int32_t *random_ids(size_t count, size_t bound) {
    struct random_stream stream = random_stream(3, "ids");
    int32_t *ids = malloc(count * sizeof *ids + 1);
    for (size_t i = 0; i < count; i++) ids[i] = (int32_t)random_below(stream, i, bound);
    return ids;
}

struct lookup {
    size_t rows, dim, entries;
    int frequent; /* of every `frequent` rows all but one have id 1; 0: all ids alike */
};

static void check_embedding(struct lookup s) {
    struct device_case c;
    case_begin(&c, cuda_embedding_scratch(s.rows, s.dim, s.entries));
    size_t count = s.rows * s.dim, table_count = s.entries * s.dim;
    int32_t *ids = random_ids(s.rows, s.entries);
    for (size_t r = 0; r < s.rows && s.frequent; r++) ids[r] = r % (size_t)s.frequent ? 1 : ids[r];
    real *table = random_reals("table", table_count, 1), *dx = random_acts("dx", count, 1);
    real *want = malloc(count * sizeof *want);
    int32_t *device_ids = device_copy(&c, ids, s.rows * sizeof *ids);
    act *x = device_poisoned_acts(&c, count), *device_dx = device_acts(&c, dx, count);
    real *device_table = device_reals(&c, table, table_count), *again = device_reals(&c, table, table_count);

    cpu_embedding_forward(&host_lane, want, ids, table, s.rows, s.dim);
    cuda_embedding_forward(&c.lane, x, device_ids, device_table, s.rows, s.dim);
    assert_rounded("x", host_acts(&c, x, count), want, count);

    cpu_embedding_backward(&host_lane, table, ids, dx, s.rows, s.dim, s.entries);
    cuda_embedding_backward(&c.lane, device_table, device_ids, device_dx, s.rows, s.dim, s.entries);
    cuda_embedding_backward(&c.lane, again, device_ids, device_dx, s.rows, s.dim, s.entries);
    real *got = host_reals(&c, device_table, table_count);
    assert_same("dtable, twice", host_reals(&c, again, table_count), got, table_count * sizeof *got);
    assert_close("dtable", got, table, table_count, FLOAT_TOLERANCE);
    free(ids), free(table), free(dx), free(want);
    case_end(&c);
}

static void lookups_and_their_gradients_agree_with_the_cpu(void **state) {
    (void)state;
    const struct lookup shapes[] = {{1, 8, 1, 0},     {37, 11, 5, 0},   {600, 24, 1100, 0},
                                    {1100, 16, 3, 0}, {513, 40, 70, 5}, {300, 520, 9, 20}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check_embedding(shapes[i]);
}

/* In the order of the rows, a large number swallows a small one before it, but not one behind its negative. */
static void rows_of_one_token_are_added_in_a_fixed_order(void **state) {
    (void)state;
    struct device_case c;
    case_begin(&c, cuda_embedding_scratch(3, 1, 2));
    const int32_t ids[3] = {1, 1, 1};
    const real rows[3] = {0x1p30f, -0x1p30f, 1}, zeros[2] = {0, 0};
    real *dtable = device_reals(&c, zeros, 2);
    cuda_embedding_backward(&c.lane, dtable, device_copy(&c, ids, sizeof ids), device_acts(&c, rows, 3), 3, 1, 2);
    real *got = host_reals(&c, dtable, 2);
    assert_true(got[0] == 0 && got[1] == 1);
    free(got);
    case_end(&c);
}

static void bigrams_are_the_cpus(void **state) {
    (void)state;
    enum { BATCH = 3, TIME = 101, COUNT = BATCH * TIME };
    struct device_case c;
    case_begin(&c, 0);
    int32_t *ids = random_ids(COUNT, INT32_MAX), want[COUNT];
    int32_t *buckets = device_copy(&c, ids, COUNT * sizeof *ids);
    cpu_bigram_ids(&host_lane, want, ids, BATCH, TIME, 4093);
    cuda_bigram_ids(&c.lane, buckets, device_copy(&c, ids, COUNT * sizeof *ids), BATCH, TIME, 4093);
    assert_same("buckets", host_bytes(&c, buckets, sizeof want), want, sizeof want);
    free(ids);
    case_end(&c);
}

static void check_smear(size_t batch, size_t time, size_t dim) {
    struct device_case c;
    size_t rows = batch * time, count = rows * dim;
    case_begin(&c, cuda_rows_scratch(rows, dim));
    real *x = random_acts("x", count, 1), *dy = random_acts("dy", count, 1), *gate = random_reals("gate", dim, 1);
    real *want = malloc(count * sizeof *want), *dgate = random_reals("dgate", dim, 1);
    act *device_x = device_acts(&c, x, count), *device_dy = device_acts(&c, dy, count);
    act *y = device_poisoned_acts(&c, count), *dx = device_poisoned_acts(&c, count);
    real *device_gate = device_reals(&c, gate, dim), *sums = device_reals(&c, dgate, dim),
         *again = device_reals(&c, dgate, dim);

    cpu_smear_forward(&host_lane, want, x, gate, batch, time, dim);
    cuda_smear_forward(&c.lane, y, device_x, device_gate, batch, time, dim);
    assert_rounded("y", host_acts(&c, y, count), want, count);

    cpu_smear_backward(&host_lane, want, dgate, dy, x, gate, batch, time, dim);
    cuda_smear_backward(&c.lane, dx, sums, device_dy, device_x, device_gate, batch, time, dim);
    cuda_smear_backward(&c.lane, dx, again, device_dy, device_x, device_gate, batch, time, dim);
    assert_rounded("dx", host_acts(&c, dx, count), want, count);
    real *got = host_reals(&c, sums, dim);
    assert_same("dgate, twice", host_reals(&c, again, dim), got, dim * sizeof *got);
    assert_close("dgate", got, dgate, dim, FLOAT_TOLERANCE);
    free(x), free(dy), free(gate), free(want), free(dgate);
    case_end(&c);
}

static void smear_agrees_with_the_cpu(void **state) {
    (void)state;
    check_smear(2, 5, 7);
    check_smear(3, 1, 9);
    check_smear(2, 70, 264);
    check_smear(1, 33, 40);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lookups_and_their_gradients_agree_with_the_cpu),
        cmocka_unit_test(rows_of_one_token_are_added_in_a_fixed_order),
        cmocka_unit_test(bigrams_are_the_cpus),
        cmocka_unit_test(smear_agrees_with_the_cpu),
    };
    return cmocka_run_group_tests_name("embedding on CUDA", tests, NULL, NULL);
}
