/* test_value_ops: what central differences do not show of embedding, loss, residual and gradient ops: exact integers,
 * values, draws, temperature, extreme logits, sums that are not finite, and the overlaps that kernels/ops.def allows.
 */
#include <float.h>

#include "kernels/kernels.h"
#include "tests/kernels/near.h"

enum { ROWS = 7, DIM = 19, COUNT = ROWS * DIM };

static void bigram_buckets_are_exact_and_start_from_zero(void **state) {
    (void)state;
    const int32_t ids[6] = {5, 1023, 0, 2147483647, 2147483647, 1};
    int32_t buckets[6];
    cpu_bigram_ids(NULL, buckets, ids, 2, 3, 4096);
    const uint64_t before[6] = {0, 5, 1023, 0, 2147483647, 2147483647};
    for (int i = 0; i < 6; i++) assert_int_equal(buckets[i], (before[i] * UINT64_C(92821) + (uint64_t)ids[i]) % 4096);
}

static void the_next_tokens_are_rows_in_turn_each_with_the_bucket_of_the_one_before(void **state) {
    (void)state;
    const int32_t tokens[2][3] = {{5, 0, 1023}, {7, 2147483647, 1}};
    int32_t ids[3] = {0}, buckets[3], length = 0;
    for (int position = 0; position < 5; position++) {
        const int32_t *next = tokens[position % 2], *before = tokens[(position + 1) % 2];
        cpu_next_tokens(NULL, &length, ids, buckets, tokens[0], 2, 3, 4096);
        assert_int_equal(length, position + 1);
        for (int s = 0; s < 3; s++) {
            assert_int_equal(ids[s], next[s]);
            assert_int_equal(buckets[s], bigram_bucket(position ? before[s] : 0, next[s], 4096));
        }
    }
}

/* Weights 1, 2, 1, 4, of which the largest is 1 after the maximum is taken away. */
static void a_draw_takes_the_first_token_whose_cumulative_weight_passes(void **state) {
    (void)state;
    const double uniforms[] = {0, 0.12, 0.13, 0.37, 0.38, 0.49, 0.51, 0.999}, temperature = 0.5;
    const int32_t expected[] = {0, 0, 1, 1, 2, 2, 3, 3}, length = 3;
    for (int i = 0; i < 8; i++) {
        real logits[8] = {0, (real)log(2), 0, (real)log(4), 9, 9, 9, 9};
        double drawn_by[4] = {-1, uniforms[i], -1, -1};
        int32_t tokens[4] = {-1, -1, -1, -1};
        for (int k = 0; k < 4; k++) logits[k] *= (real)temperature;
        cpu_draw_tokens(NULL, tokens, logits, drawn_by, &length, 2, 1, 4, temperature);
        assert_int_equal(tokens[1], expected[i]);
        assert_true(tokens[0] == -1 && tokens[2] == -1 && logits[3] == 1 && logits[4] == 9);
    }
}

static double plain_nll(const real *logits, size_t vocab, int32_t target, double cap, double temperature) {
    double most = -INFINITY, sum = 0;
    for (size_t i = 0; i < vocab; i++) most = fmax(most, cap * tanh((double)logits[i] / cap) / temperature);
    for (size_t i = 0; i < vocab; i++) sum += exp(cap * tanh((double)logits[i] / cap) / temperature - most);
    return most + log(sum) - cap * tanh((double)logits[target] / cap) / temperature;
}

static void check_cross_entropy(double size, double cap, double temperature) {
    real logits[COUNT], log_sum[ROWS];
    double nll[ROWS];
    int32_t targets[ROWS];
    normals(logits, COUNT, "logits", size);
    for (int r = 0; r < ROWS; r++) targets[r] = (3 * r + 1) % DIM;
    cpu_cross_entropy_forward(NULL, nll, log_sum, logits, targets, ROWS, DIM, cap, temperature);
    for (int r = 0; r < ROWS; r++) {
        double expected = plain_nll(logits + r * DIM, DIM, targets[r], cap, temperature);
        double allowed = 40 * ROUNDING * (1 + cap / temperature);
        if (!(fabs(nll[r] - expected) <= allowed)) fail_msg("nll %.10g, expected %.10g", nll[r], expected);
        double score = cap * tanh((double)logits[r * DIM + targets[r]] / cap) / temperature;
        assert_true(fabs((double)log_sum[r] - score - expected) <= allowed);
    }
}

static void cross_entropy_agrees_with_plain_loops_at_any_size_and_temperature(void **state) {
    (void)state;
    check_cross_entropy(3, 30, 1);
    check_cross_entropy(3, 30, 0.8);
    check_cross_entropy(1e6, 30, 1);
    check_cross_entropy(1e4, 1000, 0.05); /* exponents up to 20,000 */
    check_cross_entropy(1e-6, 30, 1);
}

static void equal_logits_cost_the_logarithm_of_their_number(void **state) {
    (void)state;
    real logits[1024] = {0}, log_sum;
    double nll;
    const int32_t target = 1023;
    cpu_cross_entropy_forward(NULL, &nll, &log_sum, logits, &target, 1, 1024, 30, 1);
    assert_true(fabs(nll - log(1024)) < 10 * ROUNDING);
}

static void the_loss_gradient_may_replace_the_logits(void **state) {
    (void)state;
    real logits[COUNT], gradient[COUNT], log_sum[ROWS];
    double nll[ROWS];
    const int32_t targets[ROWS] = {0, 18, 3, 9, 9, 1, 17};
    normals(logits, COUNT, "logits", 3);
    cpu_cross_entropy_forward(NULL, nll, log_sum, logits, targets, ROWS, DIM, 30, 1);
    cpu_cross_entropy_backward(NULL, gradient, logits, log_sum, targets, 0.25, ROWS, DIM, 30);
    cpu_cross_entropy_backward(NULL, logits, logits, log_sum, targets, 0.25, ROWS, DIM, 30);
    assert_memory_equal(logits, gradient, sizeof logits);
}

static void softcap_bends_logits_and_may_work_in_place(void **state) {
    (void)state;
    real logits[COUNT];
    double expected[COUNT];
    normals(logits, COUNT, "logits", 50);
    for (int i = 0; i < COUNT; i++) expected[i] = 30 * tanh((double)logits[i] / 30);
    cpu_softcap(NULL, logits, logits, COUNT, 30);
    assert_near("y", logits, expected, COUNT, 20 * ROUNDING);
}

static void rms_norm_may_work_in_place_and_gives_rows_of_mean_square_one(void **state) {
    (void)state;
    real x[COUNT], y[COUNT], inv[ROWS], again[ROWS];
    double expected[COUNT];
    normals(x, COUNT, "x", 5);
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int i = 0; i < DIM; i++) sum += (double)x[r * DIM + i] * (double)x[r * DIM + i];
        for (int i = 0; i < DIM; i++) expected[r * DIM + i] = (double)x[r * DIM + i] / sqrt(sum / DIM + 0x1p-23);
    }
    cpu_rms_norm_forward(NULL, y, inv, x, ROWS, DIM);
    cpu_rms_norm_forward(NULL, x, again, x, ROWS, DIM);
    assert_near("y", y, expected, COUNT, 20 * ROUNDING);
    assert_memory_equal(x, y, sizeof x);
    assert_memory_equal(inv, again, sizeof inv);
}

static void residual_ops_may_work_in_place(void **state) {
    (void)state;
    real x[COUNT], x0[COUNT], mix[2 * DIM], y[COUNT], dx[COUNT], dx0[COUNT] = {0}, dmix[2 * DIM] = {0}, dy[COUNT];
    normals(x, COUNT, "x", 1);
    normals(x0, COUNT, "x0", 1);
    normals(mix, 2 * DIM, "mix", 1);
    normals(dy, COUNT, "dy", 1);
    cpu_residual_mix_backward(NULL, dx, dx0, dmix, dy, x, x0, mix, ROWS, DIM);
    cpu_residual_mix_backward(NULL, dy, dx0, dmix, dy, x, x0, mix, ROWS, DIM);
    assert_memory_equal(dx, dy, sizeof dx);
    cpu_residual_mix_forward(NULL, y, x, x0, mix, ROWS, DIM);
    cpu_scaled_add_forward(NULL, dy, x, mix, x0, ROWS, DIM);
    cpu_scaled_add_forward(NULL, dx, x, mix, x0, ROWS, DIM);
    assert_memory_equal(dx, dy, sizeof dx);
    memcpy(dx, x, sizeof x);
    cpu_scaled_add_forward(NULL, dx, dx, mix, x0, ROWS, DIM);
    assert_memory_equal(dx, dy, sizeof dx);
    cpu_residual_mix_forward(NULL, x, x, x0, mix, ROWS, DIM);
    assert_memory_equal(x, y, sizeof x);
}

static void scaled_add_starts_from_x(void **state) {
    (void)state;
    real x[COUNT], branch[COUNT], scale[DIM], y[COUNT];
    double expected[COUNT];
    normals(x, COUNT, "x", 1);
    normals(branch, COUNT, "branch", 1);
    normals(scale, DIM, "scale", 1);
    for (int i = 0; i < COUNT; i++) expected[i] = (double)x[i] + (double)scale[i % DIM] * (double)branch[i];
    cpu_scaled_add_forward(NULL, y, x, scale, branch, ROWS, DIM);
    assert_near("y", y, expected, COUNT, 10 * ROUNDING);
}

/* Three ops, and the one that stands for them. */
static void a_blocks_entry_has_the_bits_of_its_parts(void **state) {
    (void)state;
    real x[COUNT], skip[COUNT], x0[COUNT], skip_scale[DIM], mix[2 * DIM], y[COUNT], normed[COUNT], inv[ROWS];
    real one_y[COUNT], one_normed[COUNT], one_inv[ROWS];
    const struct residual_inputs in = {.x = x, .skip = skip, .x0 = x0, .skip_scale = skip_scale, .mix = mix};
    normals(x, COUNT, "x", 1);
    normals(skip, COUNT, "skip", 1);
    normals(x0, COUNT, "x0", 1);
    normals(skip_scale, DIM, "skip scale", 1);
    normals(mix, 2 * DIM, "mix", 1);
    cpu_residual_mix_norm_forward(NULL, one_y, one_normed, one_inv, &in, ROWS, DIM);
    cpu_scaled_add_forward(NULL, y, x, skip_scale, skip, ROWS, DIM);
    cpu_residual_mix_forward(NULL, y, y, x0, mix, ROWS, DIM);
    cpu_rms_norm_forward(NULL, normed, inv, y, ROWS, DIM);
    assert_memory_equal(one_y, y, sizeof y);
    assert_memory_equal(one_normed, normed, sizeof normed);
    assert_memory_equal(one_inv, inv, sizeof inv);
    cpu_residual_mix_norm_forward(NULL, x, one_normed, one_inv, &in, ROWS, DIM);
    assert_memory_equal(x, y, sizeof y);
}

/* With nothing else to add up, and with all there is, against the ops that do it. */
static void a_blocks_entry_adds_up_what_its_sums_say(void **state) {
    (void)state;
    enum { DX, DX0, DSKIP, GRADIENTS };
    real x[COUNT], x0[COUNT], scale[DIM], mix[2 * DIM], dnormed[COUNT], normed[COUNT], inv[ROWS], more[COUNT];
    real plain[GRADIENTS][COUNT] = {0}, sum[GRADIENTS][COUNT], dmix[2 * DIM] = {0}, dscale[DIM] = {0};
    const struct residual_inputs in = {.x = x, .skip = normed, .x0 = x0, .skip_scale = scale, .mix = mix};
    struct residual_inputs of_itself = in;
    of_itself.skip = x;
    const struct residual_sums nothing_else = {0}, all = {.begins = true, .ends = true, .more = more};
    normals(x, COUNT, "x", 1), normals(x0, COUNT, "x0", 1), normals(scale, DIM, "scale", 1);
    normals(mix, 2 * DIM, "mix", 1), normals(dnormed, COUNT, "dnormed", 1), normals(more, COUNT, "more", 1);
    cpu_rms_norm_forward(NULL, normed, inv, x, ROWS, DIM);
    for (int skips_itself = 0; skips_itself < 2; skips_itself++) {
        normals(plain[DX], COUNT, "dx", 1), normals(sum[DX], COUNT, "dx", 1), normals(sum[DX0], COUNT, "dx0", 1);
        memset(plain[DX0], 0, sizeof plain[DX0]);
        struct residual_inputs skipping = skips_itself ? of_itself : in;
        cpu_residual_mix_norm_backward(NULL, sum[DX], sum[DX0], sum[DSKIP], dmix, dscale, dnormed, normed, inv,
                                       &skipping, &all, ROWS, DIM);
        real copy[COUNT];
        memcpy(copy, skipping.skip, sizeof copy);
        skipping.skip = copy; /* of the same values, it is not x */
        cpu_residual_mix_norm_backward(NULL, plain[DX], plain[DX0], plain[DSKIP], dmix, dscale, dnormed, normed, inv,
                                       &skipping, &nothing_else, ROWS, DIM);
        if (skips_itself) cpu_add_into(NULL, plain[DX], plain[DSKIP], COUNT);
        cpu_add_into(NULL, plain[DX], more, COUNT);
        cpu_add_into(NULL, plain[DX0], plain[DX], COUNT);
        assert_memory_equal(sum[DX0], plain[DX0], sizeof sum[DX0]);
        if (!skips_itself) assert_memory_equal(sum[DSKIP], plain[DSKIP], sizeof sum[DSKIP]);
    }
}

static void leaky_relu_squared_may_work_in_place_backward(void **state) {
    (void)state;
    real x[COUNT], dy[COUNT], dx[COUNT];
    normals(x, COUNT, "x", 1);
    normals(dy, COUNT, "dy", 1);
    cpu_leaky_relu_squared_backward(NULL, dx, dy, x, COUNT);
    cpu_leaky_relu_squared_backward(NULL, dy, dy, x, COUNT);
    assert_memory_equal(dx, dy, sizeof dx);
}

static void products_with_an_epilogue_have_the_bits_of_their_parts(void **state) {
    (void)state;
    enum { OUT = 5 };
    real x[COUNT], w[OUT * DIM], h[ROWS * OUT], y[ROWS * OUT], one_h[ROWS * OUT], one_y[ROWS * OUT];
    normals(x, COUNT, "x", 1);
    normals(w, OUT * DIM, "w", 1);
    cpu_linear_leaky_relu_squared_forward(NULL, one_h, one_y, x, w, ROWS, OUT, DIM);
    cpu_linear_forward(NULL, h, x, w, ROWS, OUT, DIM);
    cpu_leaky_relu_squared_forward(NULL, y, h, ROWS * OUT);
    assert_memory_equal(one_h, h, sizeof h);
    assert_memory_equal(one_y, y, sizeof y);
    real d[COUNT], dz[COUNT], z[COUNT], one_d[COUNT], one_dz[COUNT];
    normals(z, COUNT, "z", 1);
    cpu_linear_backward_input(NULL, d, y, w, ROWS, OUT, DIM, false);
    cpu_silu_gate_backward(NULL, d, dz, d, x, z, DIM, ROWS, DIM);
    cpu_linear_silu_gate_backward(NULL, one_d, one_dz, y, w, x, z, DIM, ROWS, OUT, DIM);
    assert_memory_equal(one_d, d, sizeof d);
    assert_memory_equal(one_dz, dz, sizeof dz);
    cpu_linear_backward_input(NULL, d, y, w, ROWS, OUT, DIM, false);
    cpu_leaky_relu_squared_backward(NULL, d, d, z, COUNT);
    cpu_linear_leaky_relu_squared_backward(NULL, one_d, y, w, z, ROWS, OUT, DIM);
    assert_memory_equal(one_d, d, sizeof d);
}

/* --- whole gradients ---------------------------------------------------------------------------------------------- */
static void the_tree_adds_neighbours_first(void **state) {
    (void)state;
    enum { PARTS = 8, SIZE = 5000 }; /* more than one block */
    static real data[PARTS][SIZE], expected[SIZE];
    real *parts[PARTS];
    int32_t finite = -1;
    for (int p = 0; p < PARTS; p++) {
        parts[p] = data[p];
        normals(data[p], SIZE, (const char[]){(char)('a' + p), 0}, p % 3 ? 1 : 1e4);
    }
    for (int i = 0; i < SIZE; i++)
        expected[i] = ((data[0][i] + data[1][i]) + (data[2][i] + data[3][i])) +
                      ((data[4][i] + data[5][i]) + (data[6][i] + data[7][i]));
    cpu_add_tree(NULL, parts, PARTS, SIZE, &finite);
    assert_memory_equal(data[0], expected, sizeof expected);
    assert_int_equal(finite, 1);
}

static void a_tree_of_one_part_is_that_part(void **state) {
    (void)state;
    real x[COUNT], expected[COUNT], *parts[1] = {x};
    int32_t finite = -1;
    normals(x, COUNT, "x", 1);
    memcpy(expected, x, sizeof x);
    cpu_add_tree(NULL, parts, 1, COUNT, &finite);
    assert_memory_equal(x, expected, sizeof x);
    assert_int_equal(finite, 1);
}

/* Whether the sum is finite when the second part holds `value` at `place`, in any part of the loop. */
static int32_t finite_with(real first, real second, size_t place) {
    enum { SIZE = 4099 };
    static real a[SIZE], b[SIZE];
    real *parts[2] = {a, b};
    int32_t finite = -1;
    memset(a, 0, sizeof a);
    memset(b, 0, sizeof b);
    a[place] = first;
    b[place] = second;
    cpu_add_tree(NULL, parts, 2, SIZE, &finite);
    return finite;
}

static void the_tree_tells_a_sum_that_is_not_finite(void **state) {
    (void)state;
    const real most = (real)(sizeof(real) == 4 ? 0x1.fffffep127 : DBL_MAX);
    const size_t places[4] = {0, 17, 4095, 4098};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(finite_with(1, (real)INFINITY, places[i]), 0);
        assert_int_equal(finite_with((real)NAN, 1, places[i]), 0);
        assert_int_equal(finite_with((real)INFINITY, -(real)INFINITY, places[i]), 0);
        assert_int_equal(finite_with(most, most, places[i]), 0);
        assert_int_equal(finite_with(most, -most, places[i]), 1);
    }
}

static void a_long_gradient_is_cut_to_the_limit_and_a_short_one_left_alone(void **state) {
    (void)state;
    real g[COUNT], kept[COUNT];
    double norm = 0, after = 0;
    normals(g, COUNT, "g", 3);
    memcpy(kept, g, sizeof g);
    for (int i = 0; i < COUNT; i++) norm += (double)g[i] * (double)g[i];
    norm = sqrt(norm);
    cpu_clip_by_norm(NULL, g, COUNT, 1.001 * norm);
    assert_memory_equal(g, kept, sizeof g);
    cpu_clip_by_norm(NULL, g, COUNT, 0.25);
    for (int i = 0; i < COUNT; i++) after += (double)g[i] * (double)g[i];
    assert_true(fabs(sqrt(after) - 0.25) < 0.25 * COUNT * ROUNDING);
    for (int i = 0; i < COUNT; i++)
        assert_true(fabs((double)g[i] - (double)kept[i] * 0.25 / norm) <= 4 * ROUNDING * fabs((double)g[i]));
}

static void the_norm_is_taken_in_float64(void **state) {
    (void)state;
    real g[3] = {(real)3e30, 0, (real)-4e30};
    cpu_clip_by_norm(NULL, g, 3, 5);
    assert_true(fabs((double)g[0] - 3) < 1e-5 && g[1] == 0 && fabs((double)g[2] + 4) < 1e-5);
}

static void a_sum_in_order_adds_to_what_is_there(void **state) {
    (void)state;
    const double x[4] = {1, -0.5, 0x1p-30, 4};
    double sum = 10;
    cpu_sum_in_order(NULL, &sum, x, 4);
    assert_true(sum == 14.5 + 0x1p-30);
    cpu_sum_in_order(NULL, &sum, x, 0);
    assert_true(sum == 14.5 + 0x1p-30);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bigram_buckets_are_exact_and_start_from_zero),
        cmocka_unit_test(the_next_tokens_are_rows_in_turn_each_with_the_bucket_of_the_one_before),
        cmocka_unit_test(a_draw_takes_the_first_token_whose_cumulative_weight_passes),
        cmocka_unit_test(cross_entropy_agrees_with_plain_loops_at_any_size_and_temperature),
        cmocka_unit_test(equal_logits_cost_the_logarithm_of_their_number),
        cmocka_unit_test(the_loss_gradient_may_replace_the_logits),
        cmocka_unit_test(softcap_bends_logits_and_may_work_in_place),
        cmocka_unit_test(rms_norm_may_work_in_place_and_gives_rows_of_mean_square_one),
        cmocka_unit_test(residual_ops_may_work_in_place),
        cmocka_unit_test(scaled_add_starts_from_x),
        cmocka_unit_test(a_blocks_entry_has_the_bits_of_its_parts),
        cmocka_unit_test(a_blocks_entry_adds_up_what_its_sums_say),
        cmocka_unit_test(leaky_relu_squared_may_work_in_place_backward),
        cmocka_unit_test(products_with_an_epilogue_have_the_bits_of_their_parts),
        cmocka_unit_test(the_tree_adds_neighbours_first),
        cmocka_unit_test(a_tree_of_one_part_is_that_part),
        cmocka_unit_test(the_tree_tells_a_sum_that_is_not_finite),
        cmocka_unit_test(a_long_gradient_is_cut_to_the_limit_and_a_short_one_left_alone),
        cmocka_unit_test(the_norm_is_taken_in_float64),
        cmocka_unit_test(a_sum_in_order_adds_to_what_is_there),
    };
    return cmocka_run_group_tests_name("value ops", tests, NULL, NULL);
}
