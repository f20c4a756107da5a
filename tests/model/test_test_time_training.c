/* test_test_time_training: what an evaluation that learns may know when it scores, and what it learns. */
#include "tests/model/scored_model.h"

static void at_rate_0_it_is_standard_to_the_bit(void **state) {
    (void)state;
    struct evaluation standard = run();
    static const char *const optimizers[] = {"sgd", "adamw"};
    for (int i = 0; i < 2; i++) {
        set_ttt("48", optimizers[i], "0", "2");
        set("eval.ttt_decay", "0.5");
        struct evaluation out = run();
        assert_memory_equal(&out.nll, &standard.nll, sizeof out.nll);
        assert_memory_equal(out.blocks, standard.blocks, sizeof out.blocks);
        assert_int_equal(out.bytes, standard.bytes);
        set("eval.ttt_chunk", "32"); /* two of three windows a parcel: other shapes */
        expect_close(run().nll, standard.nll, tolerance);
    }
    set("eval.ttt_decay", "0");
    set("eval.mode", "standard");
}

/* 64 targets, so that each block of the result is the score of one. */
static struct evaluation run_token_by_token(const char *stride) {
    struct config kept = config;
    set("train.sequence", "4");
    set("train.slice_tokens", "8");
    set("eval.tokens", "64");
    if (stride) {
        set("eval.mode", "sliding");
        set("eval.stride", stride);
    } else {
        set_ttt("16", "adamw", "0.01", "2");
    }
    struct evaluation out = run();
    config = kept;
    assert_int_equal(out.tokens, EVALUATION_BLOCKS);
    for (int i = 0; i < EVALUATION_BLOCKS; i++) assert_int_equal(out.blocks[i].tokens, 1);
    return out;
}

/* Token k is the target of score k-1 and an input from score k on. What stands in other windows of the same chunk
 * cannot depend on it either; what is scored in later chunks does, because the weights learnt from it. */
static void no_token_influences_a_score_before_it_was_scored_itself(void **state) {
    (void)state;
    struct evaluation before = run_token_by_token(NULL);
    for (size_t k = 1; k <= EVALUATION_BLOCKS; k += 7) { /* every place in a chunk and in a window */
        uint16_t kept = tokens[k];
        tokens[k] = (uint16_t)(3 + (kept + 7) % (VOCABULARY - 3));
        struct evaluation after = run_token_by_token(NULL);
        tokens[k] = kept;
        size_t scored = k - 1, chunk_end = scored / 16 * 16 + 16;
        for (size_t j = 0; j < scored; j++)
            if (after.blocks[j].nll != before.blocks[j].nll) fail_msg("token %zu changes score %zu", k, j);
        assert_true(after.blocks[scored].nll != before.blocks[scored].nll);
        for (size_t j = (k / 4 + 1) * 4; j < chunk_end; j++) assert_true(after.blocks[j].nll == before.blocks[j].nll);
        for (size_t j = chunk_end; j < EVALUATION_BLOCKS; j++)
            if (after.blocks[j].nll == before.blocks[j].nll) fail_msg("token %zu was not learnt for score %zu", k, j);
    }
}

/* The last score that token k touches is that of the last target in its last window. */
static void in_sliding_windows_no_token_influences_a_score_before_its_own(void **state) {
    static const char *const strides[] = {"1", "2", "3", "4"};
    (void)state;
    for (size_t s = 0; s < sizeof strides / sizeof *strides; s++) {
        struct evaluation before = run_token_by_token(strides[s]);
        for (size_t k = 1; k <= EVALUATION_BLOCKS; k += 5) {
            uint16_t kept = tokens[k];
            tokens[k] = (uint16_t)(3 + (kept + 7) % (VOCABULARY - 3));
            struct evaluation after = run_token_by_token(strides[s]);
            tokens[k] = kept;
            for (size_t j = 0; j < k - 1; j++)
                if (after.blocks[j].nll != before.blocks[j].nll)
                    fail_msg("stride %s: token %zu changes score %zu", strides[s], k, j);
            assert_true(after.blocks[k - 1].nll != before.blocks[k - 1].nll);
            for (size_t j = k + 4; j < EVALUATION_BLOCKS; j++) assert_true(after.blocks[j].nll == before.blocks[j].nll);
        }
    }
}

/* Nor at its own score: over all values that token k could have, the probabilities that it is given add up to 1. */
static void what_a_token_is_given_is_a_distribution_that_does_not_know_it(void **state) {
    static const char *const strides[] = {NULL, "1", "3"}; /* NULL: test-time training */
    (void)state;
    for (size_t s = 0; s < sizeof strides / sizeof *strides; s++)
        for (size_t k = 2; k <= EVALUATION_BLOCKS; k += 29) {
            const uint16_t kept = tokens[k];
            double sum = 0;
            for (tokens[k] = 0; tokens[k] < VOCABULARY; tokens[k]++)
                sum += exp(-run_token_by_token(strides[s]).blocks[k - 1].nll);
            tokens[k] = kept;
            expect_close(sum, 1, tolerance);
        }
}

/* Two chunks of three windows each, SGD once in between, worked out with the network alone. */
static double expected_after_sgd(double rate, double decay) {
    enum { CHUNK = 3 * TIME };
    struct network net;
    struct workspace *ws;
    int32_t ids[2 * CHUNK], targets[2 * CHUNK];
    double nll[CHUNK], sum = 0;
    expect_good(network_create(&net, &config, backend_find("cpu"), 3, TIME));
    expect_good(workspace_create(&ws, &net, true, 0));
    real *w = calloc(network_weight_reals(&net), sizeof *w), *g = calloc(weight_count, sizeof *g);
    memcpy(w, weights, weight_count * sizeof *w);
    for (size_t i = 0; i < 2 * CHUNK; i++) ids[i] = tokens[i], targets[i] = tokens[i + 1];
    for (int chunk = 0; chunk < 2; chunk++) {
        struct forward_request request = {.weights = w,
                                          .ids = ids + chunk * CHUNK,
                                          .targets = targets + chunk * CHUNK,
                                          .sequences = 3,
                                          .time = TIME,
                                          .repeats_on = true,
                                          .temperature = 1,
                                          .nll = nll};
        network_round(&net, workspace_lane(ws), w);
        network_train(&net, ws, &request, g, 1.0 / CHUNK);
        for (size_t i = 0; i < CHUNK; i++) sum += nll[i];
        network_master_gradients(&net, workspace_lane(ws), 1, g, w, w);
        for (size_t i = 0; i < weight_count; i++)
            w[i] = (real)((double)w[i] * (1 - rate * decay) - rate * (double)g[i]);
    }
    free(w);
    free(g);
    workspace_destroy(ws);
    network_destroy(&net);
    return sum;
}

static void sgd_is_a_step_along_the_mean_gradient_of_the_chunk(void **state) {
    (void)state;
    double before;
    set("eval.tokens", "96");
    before = run().nll;
    for (int slice = 16; slice <= 48; slice += 32) { /* three parcels a chunk, or one */
        char text[16];
        snprintf(text, sizeof text, "%d", slice);
        set("train.slice_tokens", text);
        set_ttt("48", "sgd", "0.5", "1");
        set("eval.ttt_decay", "0.1");
        double nll = run().nll;
        expect_close(nll, expected_after_sgd(0.5, 0.1), tolerance);
        assert_true(fabs(nll - before) > 100 * tolerance * before);
    }
    set("eval.ttt_decay", "0");
    set("eval.tokens", "0");
    set("eval.mode", "standard");
}

static void it_learns_and_leaves_the_weights_of_the_caller_alone(void **state) {
    (void)state;
    double standard = run().nll, sum = 0, after = 0;
    for (size_t i = 0; i < weight_count; i++) sum += (double)weights[i];
    static const char *const optimizers[] = {"sgd", "adamw"}, *const rates[] = {"0.3", "0.01"};
    for (int i = 0; i < 2; i++) {
        set_ttt("16", optimizers[i], rates[i], "2");
        double nll = run().nll;
        if (!(nll < 0.97 * standard)) fail_msg("%s: %g, without learning %g", optimizers[i], nll, standard);
    }
    set("eval.mode", "standard");
    for (size_t i = 0; i < weight_count; i++) after += (double)weights[i];
    assert_true(sum == after);
}

/* A partial last chunk with a tail behind it, ternary masters, more parcels than partial gradients. */
static void learning_gives_the_same_bits_on_any_number_of_lanes(void **state) {
    (void)state;
    struct backend one = *backend_find("cpu"), three = one;
    one.lane_count = one_lane;
    three.lane_count = three_lanes;
    set("train.slice_tokens", "16");
    set("model.linear", "ternary");
    static const char *const chunks[] = {"16", "80", "160"};
    for (int i = 0; i < 3; i++) {
        struct evaluation first, second;
        set_ttt(chunks[i], "adamw", "0.01", "2");
        expect_good(evaluate(&config, &one, weights, &dataset, NULL, NULL, &first));
        expect_good(evaluate(&config, &three, weights, &dataset, NULL, NULL, &second));
        assert_int_equal(first.tokens, TOKENS - 1);
        assert_memory_equal(first.blocks, second.blocks, sizeof first.blocks);
    }
    set("model.linear", "float");
    set("train.slice_tokens", "48");
    set("eval.mode", "standard");
}

/* Nine windows and a tail in chunks of five: the four before the tail are in its chunk, however work is cut. */
static void what_is_learnt_does_not_depend_on_the_slices(void **state) {
    (void)state;
    double nll[2];
    set("eval.tokens", "149");
    set_ttt("80", "sgd", "0.5", "1");
    for (int i = 0; i < 2; i++) {
        set("train.slice_tokens", i ? "48" : "16");
        nll[i] = run().nll;
    }
    expect_close(nll[0], nll[1], tolerance);
    set("eval.tokens", "0");
    set("eval.mode", "standard");
}

/* Eighteen windows and a tail: a chunk that they do not fill has nothing behind it. */
static void only_a_whole_chunk_is_learnt_from(void **state) {
    (void)state;
    double standard = run().nll;
    set_ttt("288", "sgd", "0.5", "1");
    assert_true(run().nll != standard);
    set_ttt("304", "sgd", "0.5", "1");
    expect_close(run().nll, standard, tolerance);
    set("eval.mode", "standard");
}

static void a_rate_that_is_too_high_is_named(void **state) {
    (void)state;
    struct evaluation out;
    set_ttt("16", "sgd", "100", "3");
    set("eval.ttt_decay", "10");
    status s = evaluate(&config, backend_find("cpu"), weights, &dataset, NULL, NULL, &out);
    set("eval.ttt_decay", "0");
    set("eval.mode", "standard");
    expect_failure(s, STATUS_DIVERGED, "eval.ttt_rate");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_rate_0_it_is_standard_to_the_bit),
        cmocka_unit_test(no_token_influences_a_score_before_it_was_scored_itself),
        cmocka_unit_test(in_sliding_windows_no_token_influences_a_score_before_its_own),
        cmocka_unit_test(what_a_token_is_given_is_a_distribution_that_does_not_know_it),
        cmocka_unit_test(sgd_is_a_step_along_the_mean_gradient_of_the_chunk),
        cmocka_unit_test(it_learns_and_leaves_the_weights_of_the_caller_alone),
        cmocka_unit_test(learning_gives_the_same_bits_on_any_number_of_lanes),
        cmocka_unit_test(what_is_learnt_does_not_depend_on_the_slices),
        cmocka_unit_test(only_a_whole_chunk_is_learnt_from),
        cmocka_unit_test(a_rate_that_is_too_high_is_named),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
