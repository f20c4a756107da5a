/* test_evaluation: in which context targets are scored, and what is made of their losses. */
#include "tests/model/scored_model.h"

/* Bytes of a target by the written rule, apart from the code under test. */
static unsigned bytes_of(size_t target) {
    uint16_t id = tokens[target + 1], previous = tokens[target];
    if (id < 3) return 0;
    return 1 + id % 5 + (id % 3 == 0 && previous >= 3);
}

/* Losses of one window run alone. */
static void window_losses(const struct network *net, struct workspace *ws, size_t start, size_t time, double *nll) {
    int32_t ids[TIME], targets[TIME];
    for (size_t t = 0; t < time; t++) {
        ids[t] = tokens[start + t];
        targets[t] = tokens[start + t + 1];
    }
    real *seen = calloc(network_weight_reals(net), sizeof *seen);
    network_effective(net, workspace_lane(ws), 1, seen, weights, VIEW_MASTER);
    network_forward(net, ws,
                    &(struct forward_request){.weights = seen,
                                              .ids = ids,
                                              .targets = targets,
                                              .sequences = 1,
                                              .time = time,
                                              .repeats_on = true,
                                              .temperature = config.eval_temperature,
                                              .nll = nll});
    free(seen);
}

/* The loss of every target in a window of its own: the context that the mode promises, worked out by hand. */
static double expected_nll(size_t stride, size_t scored) {
    struct network net;
    struct workspace *ws;
    expect_good(network_create(&net, &config, backend_find("cpu"), 1, TIME));
    expect_good(workspace_create(&ws, &net, false, 0));
    double sum = 0, nll[TIME];
    for (size_t j = 0; j < scored; j++) {
        size_t window = j < TIME ? 0 : (j - TIME) / stride + 1, start = window * stride;
        window_losses(&net, ws, start, j - start + 1, nll); /* causal: what follows j does not matter */
        sum += nll[j - start];
    }
    workspace_destroy(ws);
    network_destroy(&net);
    return sum;
}

static void standard_mode_sums_the_losses_of_windows_side_by_side(void **state) {
    (void)state;
    struct evaluation out = run();
    assert_int_equal(out.tokens, TOKENS - 1);
    expect_close(out.nll, expected_nll(TIME, TOKENS - 1), tolerance);
}

static void a_dropped_tail_is_not_scored(void **state) {
    (void)state;
    set("eval.tail", "drop");
    struct evaluation out = run();
    set("eval.tail", "keep");
    assert_int_equal(out.tokens, (TOKENS - 1) / TIME * TIME);
    expect_close(out.nll, expected_nll(TIME, (TOKENS - 1) / TIME * TIME), tolerance);
}

static void sliding_mode_scores_each_token_in_its_longer_context(void **state) {
    (void)state;
    set("eval.mode", "sliding");
    set("eval.stride", "5");
    struct evaluation out = run();
    assert_int_equal(out.tokens, TOKENS - 1);
    expect_close(out.nll, expected_nll(5, TOKENS - 1), tolerance);
    set("eval.mode", "standard");
}

static void bits_per_byte_divides_by_the_bytes_of_the_targets(void **state) {
    (void)state;
    struct evaluation out = run();
    int64_t bytes = 0;
    for (size_t j = 0; j < TOKENS - 1; j++) bytes += bytes_of(j);
    assert_int_equal(out.bytes, bytes);
    expect_close(out.bpb, out.nll / log(2.0) / (double)bytes, 1e-15);
    expect_close(out.nll_per_token, out.nll / (TOKENS - 1), 1e-15);
}

static void the_blocks_are_contiguous_even_and_add_up(void **state) {
    (void)state;
    struct evaluation out = run();
    double nll = 0;
    size_t target = 0;
    for (int i = 0; i < EVALUATION_BLOCKS; i++) {
        int64_t bytes = 0;
        for (int64_t k = 0; k < out.blocks[i].tokens; k++) bytes += bytes_of(target++);
        assert_int_equal(out.blocks[i].bytes, bytes);
        assert_in_range(out.blocks[i].tokens, (TOKENS - 1) / EVALUATION_BLOCKS, (TOKENS - 1) / EVALUATION_BLOCKS + 1);
        nll += out.blocks[i].nll;
    }
    assert_int_equal(target, TOKENS - 1);
    expect_close(nll, out.nll, 1e-13);
}

static void a_model_of_zeros_pays_the_logarithm_of_the_vocabulary(void **state) {
    (void)state;
    real *zeros = calloc(weight_count, sizeof *zeros);
    struct evaluation out;
    expect_good(evaluate(&config, backend_find("cpu"), zeros, &dataset, NULL, NULL, &out));
    expect_close(out.nll_per_token, log(VOCABULARY), 1e-6);
    free(zeros);
}

static void temperature_divides_the_logits(void **state) {
    (void)state;
    double at_one = run().nll;
    set("eval.temperature", "2");
    double at_two = run().nll, expected = expected_nll(TIME, TOKENS - 1);
    set("eval.temperature", "1");
    expect_close(at_two, expected, tolerance);
    assert_true(fabs(at_two - at_one) > 1e-3 * at_one);
}

static void a_ternary_model_is_scored_with_its_ternary_weights(void **state) {
    (void)state;
    double of_floats = run().nll;
    set("model.linear", "ternary");
    double nll = run().nll;
    struct network net;
    struct workspace *ws;
    expect_good(network_create(&net, &config, backend_find("cpu"), 1, TIME));
    expect_good(workspace_create(&ws, &net, false, 0));
    real *masters = weights, *ternary = calloc(network_weight_reals(&net), sizeof *ternary);
    network_effective(&net, workspace_lane(ws), 1, ternary, masters, VIEW_MASTER);
    workspace_destroy(ws);
    network_destroy(&net);
    set("model.linear", "float");
    weights = ternary;
    double by_hand = run().nll;
    weights = masters;
    free(ternary);
    assert_true(nll == by_hand && nll != of_floats);
}

static void the_bits_do_not_depend_on_the_number_of_lanes(void **state) {
    (void)state;
    struct backend one = *backend_find("cpu"), three = one;
    struct evaluation first, second;
    one.lane_count = one_lane;
    three.lane_count = three_lanes;
    expect_good(evaluate(&config, &one, weights, &dataset, NULL, NULL, &first));
    expect_good(evaluate(&config, &three, weights, &dataset, NULL, NULL, &second));
    assert_memory_equal(&first.nll, &second.nll, sizeof first.nll);
    assert_memory_equal(first.blocks, second.blocks, sizeof first.blocks);
}

static bool stop_half_way(void *context, size_t done, size_t total) {
    *(size_t *)context = done;
    return 2 * done >= total;
}

static int recorded, unrecorded;
static uint64_t recording;

static void count_replays(struct lane *lane, uint64_t key, void (*work)(void *), void *context) {
    (void)lane;
    if (key && recorded++) assert_true(key == recording);
    if (key) recording = key;
    unrecorded += !key;
    work(context);
}

/* A device that one parcel fills, or two, three, or more than there are. */
static void a_device_runs_parcels_side_by_side_in_rounds_that_it_may_record(void **state) {
    (void)state;
    static const struct {
        size_t filling;
        int full, others; /* rounds: of 18 parcels of a window, then of one of a short window */
    } rows[] = {{1, 18, 1}, {2 * TIME, 9, 1}, {3 * TIME, 0, 7}, {100 * TIME, 0, 4}};
    set("train.slice_tokens", "16");
    const struct evaluation expected = run();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct evaluation out;
        struct backend device = *backend_find("cpu");
        device.device_memory = true;
        device.filling_tokens = rows[i].filling;
        device.replay = count_replays;
        recorded = unrecorded = 0;
        expect_good(evaluate(&config, &device, weights, &dataset, NULL, NULL, &out));
        assert_memory_equal(&out.nll, &expected.nll, sizeof out.nll);
        assert_memory_equal(out.blocks, expected.blocks, sizeof out.blocks);
        assert_int_equal(recorded, rows[i].full);
        assert_int_equal(unrecorded, rows[i].others);
    }
    set("train.slice_tokens", "48");
}

static void a_callback_can_stop_it(void **state) {
    (void)state;
    struct evaluation out;
    size_t done = 0;
    set("train.slice_tokens", "16");
    status s = evaluate(&config, backend_find("cpu"), weights, &dataset, stop_half_way, &done, &out);
    set("train.slice_tokens", "48");
    expect_failure(s, STATUS_INTERRUPTED, "of 19 windows");
    assert_true(done >= 10 && done < 19);
}

static bool only_forwards(void *context, size_t done, size_t total) {
    size_t *last = context;
    assert_true(done >= *last && done <= total);
    *last = done;
    return false;
}

static void its_progress_never_goes_back_and_ends_at_the_last_window(void **state) {
    (void)state;
    static const char *const modes[] = {"standard", "sliding", "ttt"};
    struct evaluation out;
    set_ttt("48", "sgd", "0.1", "2");
    set("train.slice_tokens", "16");
    set("eval.stride", "16");
    for (int i = 0; i < 3; i++) {
        size_t done = 0;
        set("eval.mode", modes[i]);
        expect_good(evaluate(&config, backend_find("cpu"), weights, &dataset, only_forwards, &done, &out));
        assert_int_equal(done, 19);
    }
    set("train.slice_tokens", "48");
    set("eval.mode", "standard");
}

static void a_tokenizer_of_another_size_is_refused_with_the_figures(void **state) {
    (void)state;
    struct evaluation out;
    struct dataset other = dataset;
    other.vocab_size = 41;
    expect_failure(evaluate(&config, backend_find("cpu"), weights, &other, NULL, NULL, &out), STATUS_DATA, "41 pieces");
}

static void weights_that_are_not_finite_have_diverged(void **state) {
    (void)state;
    struct evaluation out;
    real *broken = calloc(weight_count, sizeof *broken);
    for (size_t i = 0; i < weight_count; i++) broken[i] = (real)NAN;
    expect_failure(evaluate(&config, backend_find("cpu"), broken, &dataset, NULL, NULL, &out), STATUS_DIVERGED, "nan");
    free(broken);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standard_mode_sums_the_losses_of_windows_side_by_side),
        cmocka_unit_test(a_dropped_tail_is_not_scored),
        cmocka_unit_test(sliding_mode_scores_each_token_in_its_longer_context),
        cmocka_unit_test(bits_per_byte_divides_by_the_bytes_of_the_targets),
        cmocka_unit_test(the_blocks_are_contiguous_even_and_add_up),
        cmocka_unit_test(a_model_of_zeros_pays_the_logarithm_of_the_vocabulary),
        cmocka_unit_test(temperature_divides_the_logits),
        cmocka_unit_test(a_ternary_model_is_scored_with_its_ternary_weights),
        cmocka_unit_test(the_bits_do_not_depend_on_the_number_of_lanes),
        cmocka_unit_test(a_device_runs_parcels_side_by_side_in_rounds_that_it_may_record),
        cmocka_unit_test(a_callback_can_stop_it),
        cmocka_unit_test(its_progress_never_goes_back_and_ends_at_the_last_window),
        cmocka_unit_test(a_tokenizer_of_another_size_is_refused_with_the_figures),
        cmocka_unit_test(weights_that_are_not_finite_have_diverged),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
