/* test_decoding: what is done token by token on CUDA against the CPU: decoding, sampling, and quantising by samples. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"
#include "model/decoder.h"
#include "model/quantize/quantize.h"
#include "tests/cuda/device_model.h"
#include "tests/model/toy.h"

static const real *trained(int i) { return trained_on_cpu(i)->weights; }

/* Logits of every position, (time, sequences, V), for tokens that are given. */
static real *decoded(const struct network *net, const real *weights, size_t sequences, size_t time) {
    struct decoder *decoder;
    size_t wide = sequences * (size_t)net->config.model_vocab_size;
    real *logits = malloc(time * wide * sizeof *logits);
    assert_good(decoder_create(&decoder, net, sequences, time, 0));
    for (size_t t = 0; t < time; t++) {
        int32_t ids[8];
        for (size_t s = 0; s < sequences; s++) ids[s] = (int32_t)((7 * t + 13 * s) % TOY_VOCAB);
        decoder_step(decoder, weights, true, ids, logits + t * wide);
    }
    assert_good(net->ops->finish(decoder_lane(decoder)));
    decoder_destroy(decoder);
    return logits;
}

/* In the backend's memory, with their acts. */
static real *effective_weights(const struct network *net, const real *host) {
    struct lane lane = {0};
    void *weights;
    assert_good(net->ops->memory_new(&weights, network_weight_reals(net) * sizeof(real), "a test"));
    net->ops->upload(&lane, weights, host, net->parameters.total * sizeof(real));
    network_round(net, &lane, weights);
    return weights;
}

static void decoding_gives_the_logits_of_the_cpu(void **state) {
    (void)state;
    enum { SEQUENCES = 3, TIME = 16 };
    struct network host, device;
    struct config config = device_config(0, "");
    assert_good(network_create(&host, &config, toy_backend(1), 1, TIME));
    assert_good(network_create(&device, &config, cuda(), 1, TIME));
    size_t count = SEQUENCES * TIME * TOY_VOCAB;
    real *weights = effective_weights(&device, trained(0)), *on_host = effective_weights(&host, trained(0));
    real *expected = decoded(&host, on_host, SEQUENCES, TIME), *got = decoded(&device, weights, SEQUENCES, TIME);
    real *zeros = calloc(count, sizeof *zeros);
    assert_true(distance(got, expected, count) <= 2e-2 * distance(expected, zeros, count));
    free(zeros);
    free(expected);
    free(got);
    cuda()->memory_free(weights);
    host.ops->memory_free(on_host);
    network_destroy(&host);
    network_destroy(&device);
}

/* Replays of one recorded step draw what reading the same tokens one by one, and drawing on the host, leads to. */
static void recorded_sampling_draws_what_decoding_step_by_step_leads_to(void **state) {
    (void)state;
    enum { SEQUENCES = 3, TIME = 16 };
    const double temperature = 0.8;
    struct network device;
    struct decoder *decoder;
    struct config config = device_config(0, "");
    int32_t tokens[SEQUENCES * TIME];
    real logits[SEQUENCES * TOY_VOCAB];
    assert_good(network_create(&device, &config, cuda(), 1, TIME));
    real *weights = effective_weights(&device, trained(0));
    assert_good(decoder_sample(&device, weights, true, SEQUENCES, TIME, temperature, 5, NULL, NULL, tokens));
    assert_good(decoder_create(&decoder, &device, SEQUENCES, TIME, 0));
    for (int32_t t = 1; t < TIME; t++) {
        int32_t ids[SEQUENCES], drawn[SEQUENCES];
        double uniforms[SEQUENCES];
        for (int s = 0; s < SEQUENCES; s++) {
            char name[64];
            snprintf(name, sizeof name, "calibration sequence %d", s);
            ids[s] = tokens[s * TIME + t - 1];
            uniforms[s] = random_uniform(random_stream(5, name), (uint64_t)t);
        }
        decoder_step(decoder, weights, true, ids, logits);
        cpu_draw_tokens(NULL, drawn, logits, uniforms, &t, 1, SEQUENCES, TOY_VOCAB, temperature);
        for (int s = 0; s < SEQUENCES; s++) assert_int_equal(tokens[s * TIME + t], drawn[s]);
    }
    decoder_destroy(decoder);
    cuda()->memory_free(weights);
    network_destroy(&device);
}

static real *quantised(const char *method, const struct backend *ops, size_t *total) {
    struct network net;
    struct quantized_model model;
    struct config config = device_config(0, method);
    assert_good(network_create(&net, &config, ops, 1, (size_t)config.train_sequence));
    assert_good(quantize_model(&net, trained(0), toy_dataset(), 3, NULL, NULL, &model));
    *total = net.parameters.total;
    real *weights = calloc(*total, sizeof *weights);
    quantized_model_decode(&model, weights);
    quantized_model_free(&model);
    network_destroy(&net);
    return weights;
}

/* Rowwise rounding sees the same weights; GPTQ sees statistics that are a little different, so the error it leaves is
 * compared, not its integers. */
static void quantising_agrees(void **state) {
    (void)state;
    static const char *const methods[] = {"quant.method=rowwise quant.clip=search",
                                          "quant.method=gptq quant.calibration=self quant.calibration_sequences=3"};
    for (size_t m = 0; m < sizeof methods / sizeof *methods; m++) {
        size_t total;
        real *cpu = quantised(methods[m], toy_backend(1), &total), *device = quantised(methods[m], cuda(), &total);
        struct backend narrow = *cuda(); /* a tensor at a time, not eight */
        narrow.filling_tokens = 0;
        real *again = quantised(methods[m], &narrow, &total);
        assert_memory_equal(device, again, total * sizeof *device);
        if (m == 0) assert_memory_equal(device, cpu, total * sizeof *cpu);
        assert_close_to(methods[m], distance(device, trained(0), total), distance(cpu, trained(0), total), 0.1);
        free(cpu);
        free(device);
        free(again);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_gives_the_logits_of_the_cpu),
        cmocka_unit_test(recorded_sampling_draws_what_decoding_step_by_step_leads_to),
        cmocka_unit_test(quantising_agrees),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
