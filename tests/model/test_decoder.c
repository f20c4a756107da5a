/* test_decoder: the recurrent form agrees with the parallel one, and its samples follow it. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/lanes.h"
#include "model/decoder.h"
#include "small_model.h"

static const char *const variants[] = {
    "",
    "model.layers=5 recurrence.layers=1,2 recurrence.repeats=2",
    "recurrence.layers=2,3 recurrence.mlp=untied model.skips=all",
    "attention.rope_dims=0",
    "mamba.groups=2 mamba.rotary_fraction=1",
    "mamba.rotary_fraction=0 model.skips=none",
    "model.smear=off",
    "model.bigram_buckets=0",
    "model.bigram_dim=40 attention.layers=0,2",
    "attention.layers=0,1,2,3 mamba.head_dim=256",
    "attention.layers= model.layers=1",
};
enum { VARIANTS = sizeof variants / sizeof *variants, TIME = 70, SEQUENCES = 2 };

/* The largest difference of any logit, at any position, from those of network_forward. */
static double worst_difference(struct small_model *m, struct decoder *decoder, bool repeats_on) {
    size_t vocab = (size_t)m->net.config.model_vocab_size;
    real *logits = malloc(SEQUENCES * vocab * sizeof *logits);
    struct forward_request request = small_request(m);
    request.logits = m->logits;
    request.repeats_on = repeats_on;
    network_forward(&m->net, m->ws, &request);
    double worst = 0;
    for (size_t t = 0; t < TIME; t++) {
        int32_t ids[SEQUENCES];
        for (size_t s = 0; s < SEQUENCES; s++) ids[s] = m->ids[s * TIME + t];
        decoder_step(decoder, m->weights, repeats_on, ids, logits);
        for (size_t s = 0; s < SEQUENCES; s++)
            for (size_t i = 0; i < vocab; i++)
                worst =
                    fmax(worst, fabs((double)logits[s * vocab + i] - (double)m->logits[(s * TIME + t) * vocab + i]));
    }
    free(logits);
    return worst;
}

static void the_decoder_gives_the_logits_of_the_parallel_form_at_every_position(void **state) {
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        struct small_model *m = small_model_new(variants[v], SEQUENCES, TIME);
        struct decoder *decoder;
        assert_null(decoder_create(&decoder, &m->net, SEQUENCES, TIME, 0));
        double worst = worst_difference(m, decoder, true);
        if (!(worst < (wide() ? 1e-10 : 2e-3))) fail_msg("\"%s\": a logit is %g off", variants[v], worst);
        decoder_destroy(decoder);
        small_model_free(m);
    }
}

static void a_reset_decoder_starts_anew_under_either_schedule(void **state) {
    (void)state;
    struct small_model *m =
        small_model_new("attention.layers=1 recurrence.layers=1,2 recurrence.repeats=2", SEQUENCES, TIME);
    struct decoder *decoder;
    assert_null(decoder_create(&decoder, &m->net, SEQUENCES, TIME, 0));
    for (int round = 0; round < 4; round++) {
        struct decoder *fresh;
        assert_null(decoder_create(&fresh, &m->net, SEQUENCES, TIME, 0));
        decoder_reset(decoder);
        double worst = worst_difference(m, decoder, round % 2);
        assert_true(worst < (wide() ? 1e-10 : 2e-3));
        assert_true(worst == worst_difference(m, fresh, round % 2));
        decoder_destroy(fresh);
    }
    decoder_destroy(decoder);
    small_model_free(m);
}

enum { SAMPLES = 19, LENGTH = 12 };

static void sample(const struct small_model *m, double temperature, uint64_t seed, int32_t *tokens) {
    status s = decoder_sample(&m->net, m->weights, true, SAMPLES, LENGTH, temperature, seed, NULL, NULL, tokens);
    if (s) fail_msg("%s", status_text(s));
}

static void samples_depend_on_the_seed_and_not_on_the_threads(void **state) {
    (void)state;
    struct small_model *m = small_model_new("recurrence.layers=1", 1, LENGTH);
    int32_t first[SAMPLES * LENGTH], second[SAMPLES * LENGTH];
    sample(m, 0.8, 1, first);
    for (int i = 0; i < SAMPLES * LENGTH; i++) assert_in_range(first[i], 0, 22);
    cpu_limit_lanes(1);
    sample(m, 0.8, 1, second);
    assert_memory_equal(first, second, sizeof first);
    sample(m, 0.8, 2, second);
    assert_memory_not_equal(first, second, sizeof first);
    assert_memory_not_equal(first, first + LENGTH, LENGTH * sizeof *first);
    small_model_free(m);
}

/* Each sequence alone through the parallel form: a cold sample takes its likeliest token. */
static void a_cold_sample_takes_the_likeliest_token(void **state) {
    (void)state;
    struct small_model *m = small_model_new("", 1, LENGTH);
    int32_t tokens[SAMPLES * LENGTH];
    size_t vocab = (size_t)m->net.config.model_vocab_size;
    sample(m, 0.001, 1, tokens);
    for (size_t s = 0; s < SAMPLES; s++) {
        struct forward_request request = small_request(m);
        request.ids = tokens + s * LENGTH;
        request.logits = m->logits;
        network_forward(&m->net, m->ws, &request);
        for (size_t t = 1; t < LENGTH; t++) {
            const real *logits = m->logits + (t - 1) * vocab;
            real highest = logits[0];
            for (size_t i = 1; i < vocab; i++) highest = logits[i] > highest ? logits[i] : highest;
            assert_true((double)highest - (double)logits[tokens[s * LENGTH + t]] < 0.02);
        }
    }
    small_model_free(m);
}

/* The second token of many sequences that start alike follows the softmax at the temperature. */
static void sampled_frequencies_follow_the_softmax(void **state) {
    (void)state;
    enum { COUNT = 4000 };
    struct small_model *m = small_model_new("model.vocab_size=3 model.dim=8 attention.rope_dims=2", 1, 1);
    static int32_t tokens[COUNT * 2];
    assert_null(decoder_sample(&m->net, m->weights, true, COUNT, 2, 2.0, 5, NULL, NULL, tokens));
    double counts[3][3] = {{0}}, starts[3] = {0};
    for (int i = 0; i < COUNT; i++) {
        counts[tokens[2 * i]][tokens[2 * i + 1]]++;
        starts[tokens[2 * i]]++;
    }
    for (int32_t start = 0; start < 3; start++) {
        struct forward_request request = small_request(m);
        request.ids = &start;
        request.targets = NULL;
        request.logits = m->logits;
        network_forward(&m->net, m->ws, &request);
        assert_true(fabs(starts[start] / COUNT - 1.0 / 3) < 0.03);
        double total = 0;
        for (int i = 0; i < 3; i++) total += exp((double)m->logits[i] / 2.0);
        for (int i = 0; i < 3; i++)
            assert_true(fabs(counts[start][i] / starts[start] - exp((double)m->logits[i] / 2.0) / total) < 0.05);
    }
    small_model_free(m);
}

struct stopper {
    size_t done, reports, stop_at; /* the report that stops it */
};

static bool stop_sampling(void *context, size_t done, size_t total) {
    struct stopper *s = context;
    assert_true(done >= s->done && done < total);
    s->done = done;
    return ++s->reports == s->stop_at;
}

static void sampling_reports_as_it_goes_and_can_be_stopped(void **state) {
    (void)state;
    enum { LONG = 100 };
    struct small_model *m = small_model_new("", 1, LONG);
    int32_t *tokens = malloc(SAMPLES * LONG * sizeof *tokens);
    struct stopper all = {0}, third = {.stop_at = 3};
    assert_null(decoder_sample(&m->net, m->weights, true, SAMPLES, LONG, 1, 1, stop_sampling, &all, tokens));
    assert_true(all.reports >= 7);
    status s = decoder_sample(&m->net, m->weights, true, SAMPLES, LONG, 1, 1, stop_sampling, &third, tokens);
    assert_non_null(s);
    assert_int_equal(status_kind(s), STATUS_INTERRUPTED);
    assert_non_null(strstr(status_text(s), "of 1900 tokens"));
    assert_int_equal(third.reports, 3);
    status_free(s);
    free(tokens);
    small_model_free(m);
}

static void more_capacity_takes_more_bytes_only_with_attention(void **state) {
    (void)state;
    struct small_model *m = small_model_new("attention.layers= attention.rope_dims=0", 1, 4);
    assert_int_equal(decoder_bytes(&m->net, 2, 10), decoder_bytes(&m->net, 2, 10000));
    small_model_free(m);
    m = small_model_new("", 1, 4);
    assert_true(decoder_bytes(&m->net, 2, 10) < decoder_bytes(&m->net, 2, 10000));
    small_model_free(m);
}

int main(void) {
    omp_set_num_threads(3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_decoder_gives_the_logits_of_the_parallel_form_at_every_position),
        cmocka_unit_test(a_reset_decoder_starts_anew_under_either_schedule),
        cmocka_unit_test(samples_depend_on_the_seed_and_not_on_the_threads),
        cmocka_unit_test(a_cold_sample_takes_the_likeliest_token),
        cmocka_unit_test(sampled_frequencies_follow_the_softmax),
        cmocka_unit_test(sampling_reports_as_it_goes_and_can_be_stopped),
        cmocka_unit_test(more_capacity_takes_more_bytes_only_with_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
