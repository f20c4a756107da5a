/* test_network: the model as a whole: gradients, causality, slices, memory, views of the weights, counts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/random.h"
#include "model/tape.h"
#include "small_model.h"

/* What the golden files do not have, with a batch of 2 windows of the given length. */
struct variant {
    const char *settings;
    size_t time;
};
static const struct variant variants[] = {
    {"", 20},
    {"mamba.groups=2", 20},
    {"model.layers=5 recurrence.layers=1,2 recurrence.repeats=2 recurrence.mlp=untied", 20},
    {"model.layers=5 model.skips=all recurrence.layers=3 recurrence.repeats=3", 20},
    {"model.skips=none", 20},
    {"model.smear=off", 20},
    {"model.bigram_buckets=0", 20},
    {"attention.layers=0,2", 20},
    {"attention.layers=0,1,2,3 mamba.head_dim=256", 20},
    {"attention.layers=", 20},
    {"attention.rope_dims=0 mamba.rotary_fraction=0", 20},
    {"mamba.rotary_fraction=1 attention.kv_heads=4", 20},
    {"model.layers=1 attention.layers=", 20},
    {"recurrence.layers=2 mamba.expand=1", 1},
    {"mamba.chunk=64", 65},
    {"model.dim=8 attention.rope_dims=2 model.mlp_mult=1 model.bigram_dim=20", 300},
};
enum { VARIANTS = sizeof variants / sizeof *variants };

static double dot(const real *a, const double *b, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += (double)a[i] * b[i];
    return sum;
}

static void move(real *w, const real *from, const double *direction, double by, size_t count) {
    for (size_t i = 0; i < count; i++) w[i] = (real)((double)from[i] + by * direction[i]);
}

/* Central difference of the loss along a random direction of one tensor, against the gradient's product with it.
 * The step's own error is about 1e-6 of the slope where the loss bends most, the rounding's below 1e-16 * loss / h,
 * which is 1e-7. */
static void check_tensor(struct small_model *m, const struct tensor *t, const char *settings) {
    const double h = 3e-6;
    double *direction = malloc(t->count * sizeof *direction);
    real *kept = malloc(t->count * sizeof *kept), *w = m->weights + t->offset;
    memcpy(kept, w, t->count * sizeof *kept);
    for (size_t i = 0; i < t->count; i++) direction[i] = random_normal(random_stream(3, t->name), i);
    double expected = dot(m->gradients + t->offset, direction, t->count);
    move(w, kept, direction, h, t->count);
    double above = small_loss(m);
    move(w, kept, direction, -h, t->count);
    double slope = (above - small_loss(m)) / (2 * h);
    memcpy(w, kept, t->count * sizeof *kept);
    free(direction);
    free(kept);
    if (!(fabs(slope - expected) <= 1e-5 * fabs(slope) + 1e-6))
        fail_msg("%s: %s: the loss rises by %.12g, the gradient says %.12g", settings, t->name, slope, expected);
}

static void every_gradient_is_the_slope_of_the_loss(void **state) {
    (void)state;
    if (!wide()) skip();
    for (int v = 0; v < VARIANTS; v++) {
        struct small_model *m = small_model_new(variants[v].settings, 2, variants[v].time);
        small_gradients(m);
        for (int i = 0; i < m->net.parameters.count; i++)
            check_tensor(m, &m->net.parameters.tensors[i], variants[v].settings);
        small_model_free(m);
    }
}

static void gradients_of_two_sequences_are_the_sum_of_each_alone(void **state) {
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        struct small_model *m = small_model_new(variants[v].settings, 2, variants[v].time);
        size_t total = m->net.parameters.total;
        real *both = malloc(total * sizeof *both);
        small_gradients_of_acts(m);
        memcpy(both, m->gradients, total * sizeof *both);
        memset(m->gradients, 0, total * sizeof *both);
        for (size_t s = 0; s < 2; s++) {
            struct forward_request request = small_request(m);
            request.sequences = 1;
            request.ids += s * m->time;
            request.targets += s * m->time;
            network_train(&m->net, m->ws, &request, m->gradients, 1.0);
        }
        double error = relative_distance(both, m->gradients, total);
        if (!(error < (wide() ? 1e-12 : 1e-4))) fail_msg("%s: %g apart", variants[v].settings, error);
        free(both);
        small_model_free(m);
    }
}

static void a_later_token_changes_nothing_before_it(void **state) {
    (void)state;
    enum { TIME = 70, CHANGED = 33 };
    struct small_model *m = small_model_new("model.skips=all recurrence.layers=1,2 attention.layers=0,2", 1, TIME);
    size_t vocab = (size_t)m->net.config.model_vocab_size;
    real *before = malloc(TIME * vocab * sizeof *before);
    struct forward_request request = small_request(m);
    request.logits = before;
    network_forward(&m->net, m->ws, &request);
    m->ids[CHANGED] = (m->ids[CHANGED] + 1) % (int32_t)vocab;
    request.logits = m->logits;
    network_forward(&m->net, m->ws, &request);
    assert_memory_equal(before, m->logits, CHANGED * vocab * sizeof *before);
    for (size_t t = CHANGED; t < TIME; t++)
        assert_true(relative_distance(before + t * vocab, m->logits + t * vocab, vocab) > 1e-6);
    free(before);
    small_model_free(m);
}

static void a_workspace_takes_exactly_the_bytes_announced(void **state) {
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        struct small_model *m = small_model_new(variants[v].settings, 2, variants[v].time);
        assert_int_equal(m->ws->arena.used, workspace_bytes(&m->net, true));
        struct workspace *evaluation;
        assert_null(workspace_create(&evaluation, &m->net, false, 0));
        assert_int_equal(evaluation->arena.used, workspace_bytes(&m->net, false));
        assert_true(workspace_bytes(&m->net, false) < workspace_bytes(&m->net, true));
        workspace_destroy(evaluation);
        small_model_free(m);
    }
}

static void evaluation_gives_the_bits_of_training(void **state) {
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        struct small_model *m = small_model_new(variants[v].settings, 2, variants[v].time);
        size_t rows = 2 * m->time;
        struct workspace *evaluation;
        assert_null(workspace_create(&evaluation, &m->net, false, 0));
        struct forward_request request = small_request(m);
        for (int repeats_on = 0; repeats_on < 2; repeats_on++) {
            double *nll = malloc(rows * sizeof *nll);
            request.repeats_on = repeats_on;
            request.nll = m->nll;
            network_forward(&m->net, m->ws, &request);
            request.nll = nll;
            network_forward(&m->net, evaluation, &request);
            assert_memory_equal(nll, m->nll, rows * sizeof *nll);
            free(nll);
        }
        workspace_destroy(evaluation);
        small_model_free(m);
    }
}

static void repeats_change_the_loss_only_while_they_are_on(void **state) {
    (void)state;
    struct small_model *m = small_model_new("recurrence.layers=1 recurrence.repeats=2", 1, 12);
    struct small_model *none = small_model_new("", 1, 12);
    struct forward_request request = small_request(m);
    request.repeats_on = false;
    network_forward(&m->net, m->ws, &request);
    small_loss(none);
    assert_memory_equal(m->nll, none->nll, 12 * sizeof *m->nll);
    small_loss(m);
    assert_true(fabs(m->nll[11] - none->nll[11]) > 1e-6);
    small_model_free(m);
    small_model_free(none);
}

static void a_large_vocabulary_does_not_enlarge_the_logits(void **state) {
    (void)state;
    struct small_model *m = small_model_new("model.vocab_size=20000", 1, 300);
    assert_int_equal(m->ws->head_block, HEAD_ROWS);
    small_gradients(m);
    real norm = 0;
    for (size_t i = 0; i < m->net.parameters.total; i++) norm += m->gradients[i] * m->gradients[i];
    assert_true(isfinite(norm) && norm > 0);
    small_model_free(m);
}

static void training_gives_the_losses_of_the_forward_pass(void **state) {
    (void)state;
    enum { TIME = HEAD_ROWS + 44 };
    struct small_model *m = small_model_new("", 1, TIME);
    double before[TIME];
    small_loss(m);
    memcpy(before, m->nll, sizeof before);
    memset(m->nll, 0, sizeof before);
    small_gradients(m);
    assert_memory_equal(before, m->nll, sizeof before);
    small_model_free(m);
}

static void gradients_are_added_to_what_is_there_and_scaled(void **state) {
    (void)state;
    struct small_model *m = small_model_new("", 1, 9);
    size_t total = m->net.parameters.total;
    real *once = malloc(total * sizeof *once);
    small_gradients_of_acts(m);
    memcpy(once, m->gradients, total * sizeof *once);
    struct forward_request request = small_request(m);
    network_train(&m->net, m->ws, &request, m->gradients, 0.5);
    for (size_t i = 0; i < total; i++) once[i] *= (real)1.5;
    assert_true(relative_distance(m->gradients, once, total) < 1e-5);
    free(once);
    small_model_free(m);
}

static void nll_and_logits_agree_at_any_temperature(void **state) {
    (void)state;
    struct small_model *m = small_model_new("", 1, 7);
    struct forward_request request = small_request(m);
    size_t vocab = (size_t)m->net.config.model_vocab_size;
    request.temperature = 0.7;
    request.logits = m->logits;
    network_forward(&m->net, m->ws, &request);
    for (size_t t = 0; t < 7; t++) {
        double sum = 0;
        for (size_t i = 0; i < vocab; i++) sum += exp((double)m->logits[t * vocab + i] / 0.7);
        double nll = log(sum) - (double)m->logits[t * vocab + (size_t)m->targets[t]] / 0.7;
        assert_true(fabs(nll - m->nll[t]) < 1e-5);
    }
    small_model_free(m);
}

struct tapped {
    const struct network *net;
    int calls[256];
    bool wrong;
};

static void count_tap(void *context, int tensor_index, const real *x, size_t rows, size_t cols) {
    struct tapped *tapped = context;
    const struct tensor *t = &tapped->net->parameters.tensors[tensor_index];
    tapped->calls[tensor_index]++;
    if (!t->linear || cols != t->shape[1] || rows != 10 || !isfinite(x[rows * cols - 1])) tapped->wrong = true;
}

static void the_tap_sees_the_input_of_every_linear_layer_on_every_pass(void **state) {
    (void)state;
    struct small_model *m = small_model_new("recurrence.layers=1,2 recurrence.repeats=2 recurrence.mlp=untied", 2, 5);
    struct tapped tapped = {.net = &m->net};
    struct forward_request request = small_request(m);
    request.targets = NULL;
    request.tap = count_tap;
    request.tap_context = &tapped;
    network_forward(&m->net, m->ws, &request);
    assert_false(tapped.wrong);
    for (int i = 0; i < m->net.parameters.count; i++) {
        const struct tensor *t = &m->net.parameters.tensors[i];
        bool untied = t->role == ROLE_MLP_REPEAT_FC || t->role == ROLE_MLP_REPEAT_PROJ;
        bool mlp = t->role == ROLE_MLP_FC || t->role == ROLE_MLP_PROJ;
        bool repeated = t->layer == 1 || t->layer == 2;
        int expected = !t->linear ? 0 : untied ? 2 : repeated && !mlp ? 3 : 1;
        if (tapped.calls[i] != expected) fail_msg("%s: %d calls", t->name, tapped.calls[i]);
    }
    small_model_free(m);
}

static void ternary_weights_take_three_values_and_other_tensors_are_copied(void **state) {
    (void)state;
    struct small_model *m = small_model_new("model.linear=ternary", 1, 4);
    real *effective = calloc(network_weight_reals(&m->net), sizeof *effective);
    network_effective(&m->net, workspace_lane(m->ws), 1, effective, m->weights, VIEW_QAT);
    for (int i = 0; i < m->net.parameters.count; i++) {
        const struct tensor *t = &m->net.parameters.tensors[i];
        const real *w = m->weights + t->offset, *e = effective + t->offset;
        double scale = 0;
        for (size_t j = 0; j < t->count; j++) scale += fabs((double)w[j]) / (double)t->count;
        for (size_t j = 0; j < t->count; j++) {
            double size = fabs((double)e[j]);
            if (!t->linear)
                assert_true(e[j] == w[j]);
            else
                assert_true(size == 0 || fabs(size - scale) < 1e-5 * scale);
        }
    }
    free(effective);
    small_model_free(m);
}

/* Of a branch's scale: row by row what the projection's weights and their gradient, of diag(scale) w, give. */
static void check_scale_gradient(const struct small_model *m, const struct tensor *scale, const real *before) {
    enum tensor_role role = scale->role == ROLE_MLP_SCALE         ? ROLE_MLP_PROJ
                            : is_attention(&m->net, scale->layer) ? ROLE_ATTN_PROJ
                                                                  : ROLE_MAMBA_OUT_PROJ;
    const struct tensor *w = parameters_get(&m->net.parameters, scale->layer, role);
    for (size_t r = 0; r < w->shape[0]; r++) {
        double sum = 0;
        for (size_t i = r * w->shape[1]; i < (r + 1) * w->shape[1]; i++)
            sum += (double)m->weights[w->offset + i] * (double)before[w->offset + i];
        assert_true(fabs((double)m->gradients[scale->offset + r] - sum) < 1e-4 * (1 + fabs(sum)));
    }
}

static void only_ternary_linear_layers_and_scales_change_their_gradients(void **state) {
    (void)state;
    struct small_model *m = small_model_new("model.linear=ternary", 1, 4);
    size_t total = m->net.parameters.total;
    real *master = malloc(total * sizeof *master), *before = malloc(total * sizeof *before);
    memcpy(master, m->weights, total * sizeof *master);
    network_effective(&m->net, workspace_lane(m->ws), 1, m->weights, master, VIEW_MASTER);
    small_gradients_of_acts(m);
    memcpy(before, m->gradients, total * sizeof *before);
    network_master_gradients(&m->net, workspace_lane(m->ws), 1, m->gradients, master, m->weights);
    for (int i = 0; i < m->net.parameters.count; i++) {
        const struct tensor *t = &m->net.parameters.tensors[i];
        if (t->role == ROLE_MIXER_SCALE || t->role == ROLE_MLP_SCALE) {
            check_scale_gradient(m, t, before);
            continue;
        }
        double distance = relative_distance(m->gradients + t->offset, before + t->offset, t->count);
        if (t->linear ? !(distance > 1e-7) : distance != 0) fail_msg("%s: changed by %g", t->name, distance);
    }
    free(master);
    free(before);
    small_model_free(m);
}

static void late_qat_rounds_large_linear_weights_alone(void **state) {
    (void)state;
    struct small_model *m =
        small_model_new("model.dim=256 model.layers=2 attention.layers=1 train.qat_bits=3 model.bigram_dim=300", 1, 2);
    real *effective = calloc(network_weight_reals(&m->net), sizeof *effective);
    network_effective(&m->net, workspace_lane(m->ws), 1, effective, m->weights, VIEW_QAT);
    int rounded = 0;
    for (int i = 0; i < m->net.parameters.count; i++) {
        const struct tensor *t = &m->net.parameters.tensors[i];
        bool same = memcmp(m->weights + t->offset, effective + t->offset, t->count * sizeof(real)) == 0;
        assert_true(same == !(t->linear && t->count > (size_t)m->net.config.train_quantise_above));
        rounded += !same;
    }
    assert_true(rounded > 3);
    network_effective(&m->net, workspace_lane(m->ws), 1, effective, m->weights, VIEW_MASTER);
    assert_memory_equal(effective, m->weights, m->net.parameters.total * sizeof *effective);
    free(effective);
    small_model_free(m);
}

static void flops_are_those_counted_by_hand(void **state) {
    (void)state;
    struct config config = small_config("model.bigram_buckets=0 recurrence.layers=2");
    struct network net;
    assert_null(network_create(&net, &config, backend_find("cpu"), 1, 64));
    /* Mamba: D_in 32, 4 heads, in_proj 64+8+12+1 = 85 wide; attention: q 16, k and v 8, proj 16; MLP 2*32*16. */
    double mamba = 2 * (85 * 16 + 16 * 32), attention = 2 * (16 + 8 + 8 + 16) * 16, mlp = 2 * 2 * 32 * 16;
    double ssd = 4 * 2 * (16 * (4 + 8) + 2 * 4 * 8), scores = 2 * 2 * 16 * 32.5, head = 2 * 23 * 16;
    double plain = 3 * (mamba + ssd) + attention + scores + 4 * mlp + head;
    assert_true(network_forward_flops(&net, false, 64) == plain);
    assert_true(network_forward_flops(&net, true, 64) == plain + attention + scores + mlp);
    double ssd_back = 4 * 2 * (16 * (3 * 4 + 2 * 8) + 4 * 4 * 8);
    double training = 3 * (3 * mamba + attention + 4 * mlp + head) + 3 * (ssd + ssd_back) + 3.5 * scores;
    assert_true(network_training_flops(&net, false, 64) == training);
    network_destroy(&net);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_gradient_is_the_slope_of_the_loss),
        cmocka_unit_test(gradients_of_two_sequences_are_the_sum_of_each_alone),
        cmocka_unit_test(a_later_token_changes_nothing_before_it),
        cmocka_unit_test(a_workspace_takes_exactly_the_bytes_announced),
        cmocka_unit_test(evaluation_gives_the_bits_of_training),
        cmocka_unit_test(repeats_change_the_loss_only_while_they_are_on),
        cmocka_unit_test(a_large_vocabulary_does_not_enlarge_the_logits),
        cmocka_unit_test(training_gives_the_losses_of_the_forward_pass),
        cmocka_unit_test(gradients_are_added_to_what_is_there_and_scaled),
        cmocka_unit_test(nll_and_logits_agree_at_any_temperature),
        cmocka_unit_test(the_tap_sees_the_input_of_every_linear_layer_on_every_pass),
        cmocka_unit_test(ternary_weights_take_three_values_and_other_tensors_are_copied),
        cmocka_unit_test(only_ternary_linear_layers_and_scales_change_their_gradients),
        cmocka_unit_test(late_qat_rounds_large_linear_weights_alone),
        cmocka_unit_test(flops_are_those_counted_by_hand),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
