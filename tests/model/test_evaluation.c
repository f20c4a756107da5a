/* test_evaluation: in which context targets are scored, and what is made of their losses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"
#include "model/evaluation.h"
#include "model/windows.h"

static void expect_good(status s) {
    if (s) fail_msg("%s", status_text(s));
}

static void expect_failure(status s, enum status_kind kind, const char *word) {
    assert_non_null(s);
    assert_int_equal(status_kind(s), kind);
    if (!strstr(status_text(s), word)) fail_msg("no \"%s\" in: %s", word, status_text(s));
    status_free(s);
}

/* --- what is scored ----------------------------------------------------------------------------------------------- */

enum { VOCABULARY = 40, TOKENS = 301, TIME = 16 };

static uint16_t tokens[TOKENS];
static uint8_t token_bytes[VOCABULARY], token_space[VOCABULARY], token_boundary[VOCABULARY];
static const struct dataset dataset = {.name = "made up",
                                       .vocab_size = VOCABULARY,
                                       .validation = {tokens, TOKENS},
                                       .token_bytes = token_bytes,
                                       .token_space = token_space,
                                       .token_boundary = token_boundary};
static struct config config;
static real *weights;
static size_t weight_count;

static void set(const char *key, const char *value) { expect_good(config_set(&config, key, value)); }

/* A hybrid of two layers with weights large enough for the losses to differ from token to token. */
static void make_model(void) {
    static const char *const options[][2] = {
        {"model.vocab_size", "40"},     {"model.dim", "16"},         {"model.layers", "2"},
        {"model.bigram_buckets", "16"}, {"model.bigram_dim", "8"},   {"attention.layers", "1"},
        {"attention.heads", "2"},       {"attention.kv_heads", "1"}, {"attention.rope_dims", "4"},
        {"mamba.state", "4"},           {"mamba.head_dim", "8"},     {"mamba.chunk", "8"},
        {"recurrence.layers", "1"},     {"train.sequence", "16"},    {"train.slice_tokens", "48"},
        {"train.batch_tokens", "128"},  {"eval.tail", "keep"},
    };
    config_defaults(&config);
    for (size_t i = 0; i < sizeof options / sizeof *options; i++) set(options[i][0], options[i][1]);
    expect_good(config_check(&config));
    struct parameters parameters;
    expect_good(parameters_create(&parameters, &config));
    weight_count = parameters.total;
    weights = malloc(weight_count * sizeof *weights);
    struct random_stream random = random_stream(3, "test weights");
    for (size_t i = 0; i < weight_count; i++) weights[i] = (real)(0.3 * random_normal(random, i));
    parameters_destroy(&parameters);
}

static int make(void **state) {
    (void)state;
    struct random_stream random = random_stream(1, "test tokens");
    for (size_t i = 0; i < VOCABULARY; i++) {
        token_boundary[i] = i < 3;
        token_space[i] = i >= 3 && i % 3 == 0;
        token_bytes[i] = i < 3 ? 0 : (uint8_t)(1 + i % 5);
    }
    for (size_t i = 0; i < TOKENS; i++)
        tokens[i] =
            random_below(random, 2 * i, 9) ? (uint16_t)(3 + random_below(random, 2 * i + 1, VOCABULARY - 3)) : BOS_ID;
    make_model();
    return 0;
}

static int drop(void **state) {
    (void)state;
    free(weights);
    return 0;
}

static struct evaluation run(void) {
    struct evaluation out;
    expect_good(evaluate(&config, backend_find("cpu"), weights, &dataset, NULL, NULL, &out));
    return out;
}

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
    network_forward(net, ws,
                    &(struct forward_request){.weights = weights,
                                              .ids = ids,
                                              .targets = targets,
                                              .sequences = 1,
                                              .time = time,
                                              .repeats_on = true,
                                              .temperature = config.eval_temperature,
                                              .nll = nll});
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

static void expect_close(double a, double b, double tolerance) {
    if (!(fabs(a - b) <= tolerance * fabs(b))) fail_msg("%.15g is not %.15g", a, b);
}

/* Windows in batches of 3 against one at a time: float32 matrix products of other shapes, sums of 16 terms. */
static const double tolerance = sizeof(real) == 8 ? 1e-12 : 1e-5;

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
    real *masters = weights, *ternary = calloc(weight_count, sizeof *ternary);
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

static int one_lane(void) { return 1; }
static int three_lanes(void) { return 3; }

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

/* --- test-time training ------------------------------------------------------------------------------------------- */

static void set_ttt(const char *chunk, const char *optimizer, const char *rate, const char *epochs) {
    set("eval.mode", "ttt");
    set("eval.ttt_chunk", chunk);
    set("eval.ttt_optimizer", optimizer);
    set("eval.ttt_rate", rate);
    set("eval.ttt_epochs", epochs);
    expect_good(config_check(&config));
}

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
    real *w = malloc(weight_count * sizeof *w), *g = calloc(weight_count, sizeof *g);
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
        network_forward(&net, ws, &request);
        for (size_t i = 0; i < CHUNK; i++) sum += nll[i];
        network_backward(&net, ws, &request, g, 1.0 / CHUNK);
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
        cmocka_unit_test(a_callback_can_stop_it),
        cmocka_unit_test(its_progress_never_goes_back_and_ends_at_the_last_window),
        cmocka_unit_test(a_tokenizer_of_another_size_is_refused_with_the_figures),
        cmocka_unit_test(weights_that_are_not_finite_have_diverged),
    };
    return cmocka_run_group_tests(tests, make, drop);
}
