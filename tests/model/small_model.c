/* small_model: builds the small models of this folder's tests; see small_model.h. */
#include "small_model.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/random.h"

static const char *const base = "model.vocab_size=23 model.dim=16 model.layers=4 model.mlp_mult=2 "
                                "model.bigram_buckets=13 model.bigram_dim=6 attention.layers=2 attention.heads=4 "
                                "attention.kv_heads=2 attention.rope_dims=4 mamba.state=4 mamba.head_dim=8 "
                                "mamba.chunk=16 train.sequence=64 train.batch_tokens=512";

static void must(status s) {
    if (s) fail_msg("%s", status_text(s));
}

static void set_all(struct config *config, const char *settings) {
    char *copy = strdup(settings), *rest = copy;
    for (char *word; (word = strsep(&rest, " "));) {
        char *value = strchr(word, '=');
        if (!value) continue;
        *value++ = 0;
        must(config_set(config, word, value));
    }
    free(copy);
}

struct config small_config(const char *settings) {
    struct config config;
    config_defaults(&config);
    set_all(&config, base);
    set_all(&config, settings);
    must(config_check(&config));
    return config;
}

static void randomise(struct small_model *m) {
    struct parameters *p = &m->net.parameters;
    must(parameters_initialise(p, m->weights, 5));
    for (int i = 0; i < p->count; i++) {
        const struct tensor *t = &p->tensors[i];
        struct random_stream stream = random_stream(11, t->name);
        double scale = t->linear ? 1 / sqrt((double)t->shape[1]) : 0.3;
        for (size_t j = 0; j < t->count; j++) {
            real *w = &m->weights[t->offset + j];
            *w = (real)((t->linear ? 0 : (double)*w) + scale * random_normal(stream, j));
        }
    }
}

struct small_model *small_model_new(const char *settings, size_t sequences, size_t time) {
    struct small_model *m = calloc(1, sizeof *m);
    struct config config = small_config(settings);
    size_t rows = sequences * time, vocab = (size_t)config.model_vocab_size;
    must(network_create(&m->net, &config, backend_find("cpu"), sequences, time));
    must(workspace_create(&m->ws, &m->net, true, 0));
    m->sequences = sequences, m->time = time;
    m->weights = calloc(network_weight_reals(&m->net), sizeof *m->weights);
    m->gradients = calloc(m->net.parameters.total, sizeof *m->gradients);
    m->ids = malloc(rows * sizeof *m->ids);
    m->targets = malloc(rows * sizeof *m->targets);
    m->nll = malloc(rows * sizeof *m->nll);
    m->logits = malloc(rows * vocab * sizeof *m->logits);
    randomise(m);
    for (size_t i = 0; i < rows; i++) {
        m->ids[i] = (int32_t)random_below(random_stream(1, "ids"), i, vocab);
        m->targets[i] = (int32_t)random_below(random_stream(1, "targets"), i, vocab);
    }
    network_round(&m->net, workspace_lane(m->ws), m->weights);
    return m;
}

void small_model_free(struct small_model *m) {
    void *owned[] = {m->weights, m->gradients, m->ids, m->targets, m->nll, m->logits};
    for (size_t i = 0; i < sizeof owned / sizeof *owned; i++) free(owned[i]);
    workspace_destroy(m->ws);
    network_destroy(&m->net);
    free(m);
}

struct forward_request small_request(const struct small_model *m) {
    network_round(&m->net, workspace_lane(m->ws), m->weights);
    return (struct forward_request){.weights = m->weights,
                                    .ids = m->ids,
                                    .targets = m->targets,
                                    .sequences = m->sequences,
                                    .time = m->time,
                                    .repeats_on = true,
                                    .temperature = 1.0,
                                    .nll = m->nll};
}

double small_loss(struct small_model *m) {
    struct forward_request request = small_request(m);
    network_forward(&m->net, m->ws, &request);
    double sum = 0;
    for (size_t i = 0; i < m->sequences * m->time; i++) sum += m->nll[i];
    return sum;
}

void small_gradients_of_acts(struct small_model *m) {
    struct forward_request request = small_request(m);
    memset(m->gradients, 0, m->net.parameters.total * sizeof *m->gradients);
    network_train(&m->net, m->ws, &request, m->gradients, 1.0);
}

void small_gradients(struct small_model *m) {
    small_gradients_of_acts(m);
    network_master_gradients(&m->net, workspace_lane(m->ws), 1, m->gradients, m->weights, m->weights);
}

double relative_distance(const real *a, const real *b, size_t count) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)b[i] * (double)b[i];
    }
    return norm > 0 ? sqrt(difference / norm) : sqrt(difference);
}
