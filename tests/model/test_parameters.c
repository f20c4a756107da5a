/* test_parameters: the table of tensors, its layout, initial values and hash. */
#include <math.h>
#include <omp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cpu/lanes.h"
#include "kernels/random.h"
#include "model/parameters.h"
#include "model/safetensors.h"
#include "small_model.h"

static struct parameters table_of(const struct config *config) {
    struct parameters p;
    status s = parameters_create(&p, config);
    if (s) fail_msg("%s", status_text(s));
    return p;
}

static real *initialised(const struct parameters *p, uint64_t seed) {
    real *weights = calloc(p->total, sizeof *weights);
    assert_null(parameters_initialise(p, weights, seed));
    return weights;
}

static const struct tensor *named(const struct parameters *p, const char *name) {
    int index = parameters_find(p, name);
    if (index < 0) fail_msg("there is no %s", name);
    return &p->tensors[index];
}

static void the_published_preset_has_26216040_parameters(void **state) {
    (void)state;
    struct config config;
    config_defaults(&config);
    struct parameters p = table_of(&config);
    assert_int_equal(p.elements, 26216040);
    size_t sum = 0;
    for (int i = 0; i < p.count; i++) sum += p.tensors[i].count;
    assert_int_equal(sum, 26216040);
    parameters_destroy(&p);
}

static void untied_repeats_have_an_mlp_of_their_own(void **state) {
    (void)state;
    struct config config = small_config("recurrence.layers=1,3 recurrence.mlp=untied");
    struct parameters p = table_of(&config);
    assert_non_null(parameters_get(&p, 1, ROLE_MLP_REPEAT_FC));
    assert_non_null(parameters_get(&p, 3, ROLE_MLP_REPEAT_PROJ));
    assert_null(parameters_get(&p, 2, ROLE_MLP_REPEAT_FC));
    parameters_destroy(&p);
    config = small_config("recurrence.layers=1,3");
    p = table_of(&config);
    assert_null(parameters_get(&p, 1, ROLE_MLP_REPEAT_FC));
    parameters_destroy(&p);
}

static void parts_that_are_off_have_no_tensors(void **state) {
    (void)state;
    struct config config = small_config("model.smear=off model.bigram_buckets=0 model.skips=none");
    struct parameters p = table_of(&config);
    const char *const absent[] = {"smeargate.gate", "bigram.table",           "bigram.proj",
                                  "skip_weights",   "blocks.2.mamba.in_proj", "blocks.1.attn.q"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++) assert_int_equal(parameters_find(&p, absent[i]), -1);
    assert_int_equal(named(&p, "blocks.2.attn.q")->layer, 2);
    parameters_destroy(&p);
}

/* The golden file lists its parameters in the published order; ours has the same names and sizes. */
static void names_and_sizes_are_those_of_the_golden_files(void **state) {
    (void)state;
    struct safetensors file;
    assert_null(safetensors_read(&file, "tests/golden/untied-23.safetensors"));
    struct config config = small_config("model.vocab_size=61 model.dim=32 model.layers=8 model.mlp_mult=3 "
                                        "model.bigram_buckets=97 model.bigram_dim=12 attention.layers=4 "
                                        "attention.rope_dims=8 mamba.state=8 recurrence.layers=2,3 "
                                        "recurrence.mlp=untied");
    struct parameters p = table_of(&config);
    int found = 0;
    for (int i = 0; i < file.count; i++) {
        const struct stored_tensor *stored = &file.tensors[i];
        if (strncmp(stored->name, "param.", 6) != 0) continue;
        const struct tensor *t = named(&p, stored->name + 6);
        assert_int_equal(t->dims, stored->dims);
        for (int d = 0; d < t->dims; d++) assert_int_equal(t->shape[d], stored->shape[d]);
        found++;
    }
    assert_int_equal(found, p.count);
    parameters_destroy(&p);
    safetensors_free(&file);
}

static void tensors_stand_side_by_side_on_64_bytes(void **state) {
    (void)state;
    struct config config = small_config("recurrence.layers=1 recurrence.mlp=untied");
    struct parameters p = table_of(&config);
    size_t end = 0;
    for (int place = 0; place < p.count; place++) {
        const struct tensor *t = &p.tensors[p.by_offset[place]];
        assert_int_equal(t->offset * sizeof(float) % 64, 0);
        assert_true(t->offset >= end && t->offset < end + 16);
        assert_int_equal(t->count, t->shape[0] * t->shape[1]);
        assert_ptr_equal(parameters_get(&p, t->layer, t->role), t);
        assert_int_equal(parameters_find(&p, t->name), p.by_offset[place]);
        end = t->offset + t->count;
    }
    assert_true(p.total >= end && p.total < end + 16);
    parameters_destroy(&p);
}

static void those_updated_alike_stand_next_to_each_other_in_the_tables_order(void **state) {
    (void)state;
    struct config config = small_config("recurrence.layers=1 recurrence.mlp=untied");
    struct parameters p = table_of(&config);
    int groups = 1;
    for (int place = 1; place < p.count; place++) {
        const struct tensor *t = &p.tensors[p.by_offset[place]], *before = &p.tensors[p.by_offset[place - 1]];
        bool alike = updated_alike(t, before);
        groups += !alike;
        assert_int_equal(alike,
                         t->optimizer == before->optimizer &&
                             (t->optimizer != OPTIMIZER_MUON || memcmp(t->shape, before->shape, sizeof t->shape) == 0));
        assert_true(!alike || p.by_offset[place] > p.by_offset[place - 1]);
        for (int earlier = 0; !alike && earlier < place; earlier++)
            assert_false(updated_alike(t, &p.tensors[p.by_offset[earlier]]));
    }
    assert_true(groups > 4 && groups < p.count / 2);
    parameters_destroy(&p);
}

static void every_linear_weight_goes_to_muon_and_nothing_else_does(void **state) {
    (void)state;
    struct config config = small_config("recurrence.layers=1 recurrence.mlp=untied");
    struct parameters p = table_of(&config);
    for (int i = 0; i < p.count; i++) {
        const struct tensor *t = &p.tensors[i];
        assert_int_equal(t->linear, t->optimizer == OPTIMIZER_MUON);
        assert_int_equal(t->role == ROLE_EMBEDDING, t->optimizer == OPTIMIZER_ADAM_EMBEDDING);
        assert_int_equal(t->class == CLASS_CONTROL,
                         !t->linear && t->role != ROLE_EMBEDDING && t->role != ROLE_BIGRAM_TABLE);
    }
    parameters_destroy(&p);
}

static void check_orthogonal(const struct tensor *t, const real *w) {
    size_t rows = t->shape[0], cols = t->shape[1];
    bool tall = rows > cols;
    size_t low = tall ? cols : rows, high = tall ? rows : cols;
    for (size_t a = 0; a < low; a++)
        for (size_t b = 0; b <= a; b++) {
            double sum = 0;
            for (size_t i = 0; i < high; i++)
                sum += (double)(tall ? w[i * cols + a] : w[a * cols + i]) *
                       (double)(tall ? w[i * cols + b] : w[b * cols + i]);
            if (!(fabs(sum - (a == b)) < 1e-5)) fail_msg("%s: product of %zu and %zu is %g", t->name, a, b, sum);
        }
}

static void orthogonal_weights_have_orthonormal_rows_or_columns(void **state) {
    (void)state;
    struct config config = small_config("");
    struct parameters p = table_of(&config);
    real *w = initialised(&p, 3);
    int tall = 0, broad = 0;
    for (int i = 0; i < p.count; i++) {
        const struct tensor *t = &p.tensors[i];
        if (t->init != INIT_ORTHOGONAL) continue;
        check_orthogonal(t, w + t->offset);
        tall += t->shape[0] > t->shape[1];
        broad += t->shape[0] < t->shape[1];
    }
    assert_true(tall > 0 && broad > 0);
    free(w);
    parameters_destroy(&p);
}

/* R = Q^T A, so the sign of each q_j . a_j is that of R's diagonal; LAPACK leaves it to chance. */
static void orthogonal_weights_come_from_a_decomposition_with_a_positive_diagonal(void **state) {
    (void)state;
    struct config config = small_config("");
    struct parameters p = table_of(&config);
    real *w = initialised(&p, 3);
    const struct tensor *t = named(&p, "blocks.0.mlp.fc");
    assert_int_equal(t->shape[0], 32);
    struct random_stream stream = random_stream(3, "init blocks.0.mlp.fc");
    for (size_t column = 0; column < 16; column++) {
        double diagonal = 0;
        for (size_t row = 0; row < 32; row++)
            diagonal += (double)w[t->offset + row * 16 + column] * random_normal(stream, column * 32 + row);
        assert_true(diagonal > 0.1);
    }
    free(w);
    parameters_destroy(&p);
}

static void moments(const real *w, size_t count, double *mean, double *deviation) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < count; i++) sum += (double)w[i], squares += (double)w[i] * (double)w[i];
    *mean = sum / (double)count;
    *deviation = sqrt(squares / (double)count - *mean * *mean);
}

static void normal_tensors_have_their_deviation(void **state) {
    (void)state;
    struct config config = small_config("model.vocab_size=1024 model.dim=64 model.bigram_buckets=2048");
    struct parameters p = table_of(&config);
    real *w = initialised(&p, 3);
    double mean, deviation;
    moments(w + named(&p, "tok_emb.weight")->offset, 1024 * 64, &mean, &deviation);
    assert_true(fabs(mean) < 1e-4 && fabs(deviation - 0.005) < 1e-4);
    moments(w + named(&p, "bigram.table")->offset, 2048 * 6, &mean, &deviation);
    assert_true(fabs(mean) < 5e-4 && fabs(deviation - 0.01) < 5e-4);
    free(w);
    parameters_destroy(&p);
}

static void all_equal(const struct parameters *p, const real *w, const char *name, double value) {
    const struct tensor *t = named(p, name);
    for (size_t i = 0; i < t->count; i++)
        if (w[t->offset + i] != (real)value) fail_msg("%s[%zu] is %g", name, i, (double)w[t->offset + i]);
}

static void constants_and_zeros_are_those_of_the_specification(void **state) {
    (void)state;
    struct config config = small_config("attention.q_gain=1.5");
    struct parameters p = table_of(&config);
    real *w = initialised(&p, 3);
    all_equal(&p, w, "smeargate.gate", 3);
    all_equal(&p, w, "skip_weights", 1);
    all_equal(&p, w, "bigram.proj", 0);
    all_equal(&p, w, "blocks.2.attn.q_gain", 1.5);
    all_equal(&p, w, "blocks.2.attn.proj", 0);
    all_equal(&p, w, "blocks.1.mlp.proj", 0);
    all_equal(&p, w, "blocks.1.mamba.D", 1);
    all_equal(&p, w, "blocks.1.mamba.B_bias", 1);
    all_equal(&p, w, "blocks.1.mamba.C_norm", 1);
    all_equal(&p, w, "blocks.1.mixer_scale", 1);
    const real *mix = w + named(&p, "blocks.3.resid_mix")->offset;
    for (size_t i = 0; i < 32; i++) assert_true(mix[i] == (i < 16));
    free(w);
    parameters_destroy(&p);
}

static void dt_bias_is_the_inverse_softplus_of_steps_between_a_thousandth_and_a_tenth(void **state) {
    (void)state;
    struct config config = small_config("model.dim=256 mamba.head_dim=1");
    struct parameters p = table_of(&config);
    real *w = initialised(&p, 3);
    const struct tensor *t = named(&p, "blocks.0.mamba.dt_bias");
    double mean = 0;
    for (size_t i = 0; i < t->count; i++) {
        double delta = log1p(exp((double)w[t->offset + i]));
        assert_true(delta > 0.000999 && delta < 0.1001);
        mean += log(delta) / (double)t->count;
    }
    assert_true(fabs(mean - log(0.01)) < 0.2);
    free(w);
    parameters_destroy(&p);
}

static void the_hash_depends_on_the_seed_alone_and_on_every_value(void **state) {
    (void)state;
    struct config config = small_config("");
    struct parameters p = table_of(&config);
    real *w = initialised(&p, 7);
    char first[65], second[65];
    parameters_sha256(&p, w, first);
    free(w);
    cpu_limit_lanes(1);
    w = initialised(&p, 7);
    parameters_sha256(&p, w, second);
    assert_string_equal(first, second);
    w[p.tensors[p.count - 1].offset] += (real)0.25;
    parameters_sha256(&p, w, second);
    assert_string_not_equal(first, second);
    free(w);
    w = initialised(&p, 8);
    parameters_sha256(&p, w, second);
    assert_string_not_equal(first, second);
    assert_int_equal(strlen(second), 64);
    free(w);
    parameters_destroy(&p);
}

/* Each tensor has its own stream, so another layer changes nothing in those that both models have. */
static void a_further_layer_does_not_change_the_others(void **state) {
    (void)state;
    struct config small = small_config("model.layers=3"), large = small_config("model.layers=5");
    struct parameters a = table_of(&small), b = table_of(&large);
    real *wa = initialised(&a, 7), *wb = initialised(&b, 7);
    const struct tensor *ta = named(&a, "blocks.1.mamba.in_proj"), *tb = named(&b, "blocks.1.mamba.in_proj");
    assert_memory_equal(wa + ta->offset, wb + tb->offset, ta->count * sizeof *wa);
    free(wa);
    free(wb);
    parameters_destroy(&a);
    parameters_destroy(&b);
}

int main(void) {
    omp_set_num_threads(3);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_published_preset_has_26216040_parameters),
        cmocka_unit_test(untied_repeats_have_an_mlp_of_their_own),
        cmocka_unit_test(parts_that_are_off_have_no_tensors),
        cmocka_unit_test(names_and_sizes_are_those_of_the_golden_files),
        cmocka_unit_test(tensors_stand_side_by_side_on_64_bytes),
        cmocka_unit_test(those_updated_alike_stand_next_to_each_other_in_the_tables_order),
        cmocka_unit_test(every_linear_weight_goes_to_muon_and_nothing_else_does),
        cmocka_unit_test(orthogonal_weights_have_orthonormal_rows_or_columns),
        cmocka_unit_test(orthogonal_weights_come_from_a_decomposition_with_a_positive_diagonal),
        cmocka_unit_test(normal_tensors_have_their_deviation),
        cmocka_unit_test(constants_and_zeros_are_those_of_the_specification),
        cmocka_unit_test(dt_bias_is_the_inverse_softplus_of_steps_between_a_thousandth_and_a_tenth),
        cmocka_unit_test(the_hash_depends_on_the_seed_alone_and_on_every_value),
        cmocka_unit_test(a_further_layer_does_not_change_the_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
