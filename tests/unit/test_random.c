/* test_random: Philox against its published answers, and the distributions drawn from it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/random.h"

enum { DRAWS = 200000 };

/* kat_vectors of Random123, philox4x32 with 10 rounds. */
static const struct {
    uint32_t counter[4], key[2], out[4];
} known[] = {
    {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
    {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
     {0xffffffff, 0xffffffff},
     {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
    {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
     {0xa4093822, 0x299f31d0},
     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
};

static void a_block_is_philox_4x32_10(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct random_stream s = {{known[i].key[0], known[i].key[1]}};
        uint32_t out[4];
        random_block(s, known[i].counter, out);
        assert_memory_equal(out, known[i].out, sizeof out);
    }
}

static void seed_and_consumer_both_choose_the_stream(void **state) {
    (void)state;
    struct random_stream a = random_stream(1, "data.order"), again = random_stream(1, "data.order");
    struct random_stream other_seed = random_stream(2, "data.order"), other_name = random_stream(1, "data.orders");
    assert_memory_equal(&a, &again, sizeof a);
    assert_true(random_bits(a, 0) != random_bits(other_seed, 0));
    assert_true(random_bits(a, 0) != random_bits(other_name, 0));
}

static void a_draw_depends_on_all_bits_of_its_index(void **state) {
    (void)state;
    struct random_stream s = random_stream(1, "index");
    uint64_t zero = random_bits(s, 0);
    for (int bit = 0; bit < 64; bit++) assert_true(random_bits(s, UINT64_C(1) << bit) != zero);
}

static void uniform_draws_fill_the_unit_interval_evenly(void **state) {
    (void)state;
    struct random_stream s = random_stream(3, "uniform");
    size_t bins[10] = {0};
    for (size_t i = 0; i < DRAWS; i++) {
        double u = random_uniform(s, i);
        assert_true(u >= 0 && u < 1);
        bins[(size_t)(u * 10)]++;
    }
    /* Each bin is binomial(n, 0.1): five standard deviations. */
    for (int b = 0; b < 10; b++) assert_true(fabs((double)bins[b] - DRAWS * 0.1) < 5 * sqrt(DRAWS * 0.09));
}

static void normal_draws_have_the_moments_of_a_standard_normal(void **state) {
    (void)state;
    struct random_stream s = random_stream(4, "normal");
    double moment[5] = {0};
    for (size_t i = 0; i < DRAWS; i++) {
        double x = random_normal(s, i), power = 1;
        for (int k = 1; k <= 4; k++) moment[k] += (power *= x) / DRAWS;
    }
    /* Five standard errors: sqrt((m_2k - m_k^2)/n) with the moments 1, 3, 15, 105 of a normal. */
    const double expected[5] = {1, 0, 1, 0, 3}, variance[5] = {0, 1, 2, 15, 96};
    for (int k = 1; k <= 4; k++) assert_true(fabs(moment[k] - expected[k]) < 5 * sqrt(variance[k] / DRAWS));
}

static void neighbouring_normal_draws_do_not_correlate(void **state) {
    (void)state;
    struct random_stream s = random_stream(5, "normal");
    double sum = 0;
    for (size_t i = 0; i < DRAWS; i++) sum += random_normal(s, i) * random_normal(s, i + 1);
    assert_true(fabs(sum / DRAWS) < 5 / sqrt(DRAWS));
}

static void bounded_draws_stay_below_and_reach_every_value(void **state) {
    (void)state;
    struct random_stream s = random_stream(6, "below");
    size_t seen[7] = {0};
    for (size_t i = 0; i < DRAWS; i++) {
        uint64_t x = random_below(s, i, 7);
        assert_true(x < 7);
        seen[x]++;
    }
    for (int k = 0; k < 7; k++) assert_true(fabs((double)seen[k] - DRAWS / 7.0) < 5 * sqrt(DRAWS * 6.0 / 49.0));
    assert_int_equal(random_below(s, 0, 1), 0);
}

static void a_permutation_holds_every_number_once(void **state) {
    (void)state;
    enum { N = 1000 };
    uint32_t order[N], again[N];
    bool seen[N] = {false};
    random_permutation(random_stream(7, "order"), order, N);
    random_permutation(random_stream(7, "order"), again, N);
    assert_memory_equal(order, again, sizeof order);
    size_t moved = 0;
    for (size_t i = 0; i < N; i++) {
        assert_true(order[i] < N && !seen[order[i]]);
        seen[order[i]] = true;
        moved += order[i] != i;
    }
    assert_true(moved > N - 20);
}

static void all_permutations_of_three_are_equally_likely(void **state) {
    (void)state;
    enum { TRIALS = 6000 };
    size_t seen[3][3] = {{0}};
    for (uint64_t seed = 0; seed < TRIALS; seed++) {
        uint32_t order[3];
        random_permutation(random_stream(seed, "order"), order, 3);
        seen[order[0]][order[1]]++;
    }
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            if (a != b) assert_true(fabs((double)seen[a][b] - TRIALS / 6.0) < 5 * sqrt(TRIALS * 5.0 / 36.0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_block_is_philox_4x32_10),
        cmocka_unit_test(seed_and_consumer_both_choose_the_stream),
        cmocka_unit_test(a_draw_depends_on_all_bits_of_its_index),
        cmocka_unit_test(uniform_draws_fill_the_unit_interval_evenly),
        cmocka_unit_test(normal_draws_have_the_moments_of_a_standard_normal),
        cmocka_unit_test(neighbouring_normal_draws_do_not_correlate),
        cmocka_unit_test(bounded_draws_stay_below_and_reach_every_value),
        cmocka_unit_test(a_permutation_holds_every_number_once),
        cmocka_unit_test(all_permutations_of_three_are_equally_likely),
    };
    return cmocka_run_group_tests_name("random", tests, NULL, NULL);
}
