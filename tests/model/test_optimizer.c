/* optimizer tests: one optimiser step held against its formulas, written out in float64 over the gradient of the whole
 * batch at once. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/trainer_state.h"
#include "tests/model/toy.h"

enum { SEQUENCES = 16, TIME = 16 };

/* What the trainer's state should become. */
struct expected {
    double *weights, *first, *second; /* (total) */
    double *gradients;
};

static double *widened(const real *x, size_t count) {
    double *out = malloc(count * sizeof *out);
    for (size_t i = 0; i < count; i++) out[i] = (double)x[i];
    return out;
}

static double norm(const double *x, size_t count) {
    double sum = 0;
    for (size_t i = 0; i < count; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* The whole batch of a step as one slice. */
static double *whole_gradient(const struct trainer *t, int64_t step, bool repeats_on) {
    struct network net;
    struct workspace *ws;
    struct batch_plan plan;
    static int32_t ids[SEQUENCES * TIME], targets[SEQUENCES * TIME];
    static double nll[SEQUENCES * TIME];
    size_t total = t->net.parameters.total;
    assert_good(network_create(&net, &t->config, t->ops, SEQUENCES, TIME));
    real *gradients = calloc(total, sizeof *gradients),
         *effective = calloc(network_weight_reals(&net), sizeof *effective);
    assert_good(workspace_create(&ws, &net, true, 0));
    assert_good(batch_plan_create(&plan, &toy_dataset()->train, TIME, SEQUENCES, t->config.data_order, 42));
    batch_fill(&plan, step, ids, targets);
    network_effective(&net, t->lanes, 1, effective, t->weights, VIEW_MASTER);
    struct forward_request request = {.weights = effective,
                                      .ids = ids,
                                      .targets = targets,
                                      .sequences = SEQUENCES,
                                      .time = TIME,
                                      .repeats_on = repeats_on,
                                      .temperature = 1,
                                      .nll = nll};
    network_train(&net, ws, &request, gradients, 1.0 / (SEQUENCES * TIME));
    network_master_gradients(&net, t->lanes, 1, gradients, t->weights, effective);
    double *wide = widened(gradients, total);
    free(gradients);
    free(effective);
    batch_plan_destroy(&plan);
    workspace_destroy(ws);
    network_destroy(&net);
    return wide;
}

/* out (rows, cols) = a (rows, inner) b (inner, cols), b transposed on request. */
static void multiply(double *out, const double *a, const double *b, size_t rows, size_t inner, size_t cols,
                     bool transposed) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) {
            double sum = 0;
            for (size_t k = 0; k < inner; k++)
                sum += a[i * inner + k] * (transposed ? b[j * inner + k] : b[k * cols + j]);
            out[i * cols + j] = sum;
        }
}

/* X = 3.4445 X + (-4.7750 A + 2.0315 A^2) X with A = X X^T, five times, from G/(|G| + 1e-7); rows <= cols. */
static void orthogonalise(double *x, size_t rows, size_t cols) {
    double *a = malloc(rows * rows * sizeof *a), *aa = malloc(rows * rows * sizeof *aa);
    double *ax = malloc(rows * cols * sizeof *ax), length = norm(x, rows * cols) + 1e-7;
    for (size_t i = 0; i < rows * cols; i++) x[i] /= length;
    for (int step = 0; step < 5; step++) {
        multiply(a, x, x, rows, cols, rows, true);
        multiply(aa, a, a, rows, rows, rows, false);
        for (size_t i = 0; i < rows * rows; i++) a[i] = -4.7750 * a[i] + 2.0315 * aa[i];
        multiply(ax, a, x, rows, rows, cols, false);
        for (size_t i = 0; i < rows * cols; i++) x[i] = 3.4445 * x[i] + ax[i];
    }
    free(a);
    free(aa);
    free(ax);
}

static void orthogonalise_any(double *x, size_t rows, size_t cols) {
    if (rows <= cols) {
        orthogonalise(x, rows, cols);
        return;
    }
    double *turned = malloc(rows * cols * sizeof *turned);
    for (size_t i = 0; i < rows * cols; i++) turned[i % cols * rows + i / cols] = x[i];
    orthogonalise(turned, cols, rows);
    for (size_t i = 0; i < rows * cols; i++) x[i] = turned[i % cols * rows + i / cols];
    free(turned);
}

static void expect_muon(struct expected *e, const struct config *config, const struct tensor *tensor, int64_t step,
                        double multiplier) {
    size_t rows = tensor->shape[0], cols = tensor->shape[1], at = tensor->offset;
    double beta = 0.85 + 0.14 * (double)step / 500, *update = malloc(tensor->count * sizeof *update);
    for (size_t i = 0; i < tensor->count; i++) {
        e->first[at + i] = beta * e->first[at + i] + e->gradients[at + i];
        update[i] = e->gradients[at + i] + beta * e->first[at + i];
    }
    for (size_t r = 0; r < rows && config->optim_row_norm; r++) {
        double length = norm(update + r * cols, cols) + 1e-7;
        for (size_t c = 0; c < cols; c++) update[r * cols + c] /= length;
    }
    orthogonalise_any(update, rows, cols);
    double rate = 0.025 * multiplier, scale = sqrt(fmax(1, (double)rows / (double)cols));
    for (size_t i = 0; i < tensor->count; i++)
        e->weights[at + i] = e->weights[at + i] * (1 - rate * 0.04) - rate * scale * update[i];
    free(update);
}

static void expect_adam(struct expected *e, const struct tensor *tensor, int64_t step, double multiplier) {
    double rate = multiplier * (tensor->role == ROLE_EMBEDDING ? 0.05 : 0.02), t = (double)step + 1;
    for (size_t i = tensor->offset; i < tensor->offset + tensor->count; i++) {
        double g = e->gradients[i];
        e->first[i] = 0.9 * e->first[i] + 0.1 * g;
        e->second[i] = 0.95 * e->second[i] + 0.05 * g * g;
        e->weights[i] -= rate * (e->first[i] / (1 - pow(0.9, t))) / (sqrt(e->second[i] / (1 - pow(0.95, t))) + 1e-8);
    }
}

static void expect_step(struct expected *e, const struct trainer *t, int64_t step) {
    const struct parameters *p = &t->net.parameters;
    double multiplier = trainer_multiplier(&t->config, step), clip = t->config.optim_clip;
    free(e->gradients);
    e->gradients = whole_gradient(t, step, step >= 1);
    double length = norm(e->gradients, p->total);
    for (size_t i = 0; i < p->total && clip > 0 && length > clip; i++) e->gradients[i] *= clip / length;
    for (int i = 0; i < p->count; i++)
        if (p->tensors[i].linear)
            expect_muon(e, &t->config, &p->tensors[i], step, multiplier);
        else
            expect_adam(e, &p->tensors[i], step, multiplier);
}

/* How far `got` is from `wanted`, over how far it came from `before`. */
static double distance(const struct tensor *tensor, const real *got, const double *wanted, const double *before) {
    double miss = 0, way = 0;
    for (size_t i = tensor->offset; i < tensor->offset + tensor->count; i++) {
        miss += pow((double)got[i] - wanted[i], 2);
        way += pow(wanted[i] - (before ? before[i] : 0), 2);
    }
    return way > 0 ? sqrt(miss / way) : sqrt(miss);
}

/* Rounding of the gradient is enlarged by Newton-Schulz (at most 3.4445^5) and by Adam where gradients are near 0. */
static const double UPDATE_TOLERANCE = 2e-2, MOMENT_TOLERANCE = 1e-3;

static void compare(const struct trainer *t, const struct expected *e, const double *before) {
    for (int i = 0; i < t->net.parameters.count; i++) {
        const struct tensor *tensor = &t->net.parameters.tensors[i];
        double update = distance(tensor, t->weights, e->weights, before);
        double moment = distance(tensor, t->first, e->first, NULL);
        if (!(update < UPDATE_TOLERANCE)) fail_msg("%s: the update is off by %g of itself", tensor->name, update);
        if (!(moment < MOMENT_TOLERANCE)) fail_msg("%s: the moment is off by %g of itself", tensor->name, moment);
    }
}

static void a_step_is_what_its_formulas_say(void **state) {
    (void)state;
    static const char *const settings[] = {"", "optim.row_norm=on", "optim.clip=0.3", "model.linear=ternary",
                                           "data.order=sequential recurrence.mlp=untied"};
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        char all[256];
        snprintf(all, sizeof all, "train.warmdown=20 recurrence.layers=0,1 recurrence.start=0.05 %s", settings[i]);
        struct config config = toy_config(all);
        struct trainer *t;
        struct step_record record;
        assert_good(trainer_create(&t, &config, toy_backend(2), toy_dataset(), 42));
        size_t total = t->net.parameters.total;
        struct expected e = {.first = calloc(total, sizeof(double)), .second = calloc(total, sizeof(double))};
        for (int64_t step = 0; step < 3; step++) {
            double *before = widened(t->weights, total);
            e.weights = widened(t->weights, total);
            expect_step(&e, t, step);
            assert_good(trainer_step(t, &record));
            compare(t, &e, before);
            free(before);
            free(e.weights);
        }
        free(e.first);
        free(e.second);
        free(e.gradients);
        trainer_destroy(t);
    }
}

static void the_momentum_rises_linearly_to_its_end(void **state) {
    (void)state;
    struct config config = toy_config("");
    assert_float_equal(muon_momentum_at(&config, 0), 0.85, 1e-12);
    assert_float_equal(muon_momentum_at(&config, 250), 0.92, 1e-12);
    assert_float_equal(muon_momentum_at(&config, 500), 0.99, 0);
    assert_float_equal(muon_momentum_at(&config, 100000), 0.99, 0);
    config.optim_muon_momentum_steps = 0;
    assert_float_equal(muon_momentum_at(&config, 0), 0.99, 0);
}

static void clipping_scales_to_the_limit_and_leaves_small_gradients_alone(void **state) {
    (void)state;
    struct tensor tensors[] = {{.count = 1, .offset = 0}, {.count = 1, .offset = 2}};
    struct parameters parameters = {.count = 2, .tensors = tensors, .total = 4};
    real g[4] = {3, 0, 4, 0};
    assert_float_equal(clip_gradients(&parameters, g, 5), 5, 1e-12);
    assert_float_equal(g[0], 3, 0);
    assert_float_equal(clip_gradients(&parameters, g, 1), 5, 1e-12);
    assert_float_equal(g[0], 0.6, 1e-6);
    assert_float_equal(g[2], 0.8, 1e-6);
}

/* --- one pass over all that is updated alike ---------------------------------------------------------------------- */

static struct { int adam, momentum, apply; } calls;

static void counted_adam(struct lane *lane, real *w, real *m, real *v, const real *g, size_t count,
                         const struct adam_settings *settings) {
    calls.adam++;
    cpu_adam_step(lane, w, m, v, g, count, settings);
}
static void counted_momentum(struct lane *lane, real *update, real *momentum, const real *g, size_t count,
                             const struct muon_settings *settings) {
    calls.momentum++;
    cpu_muon_momentum(lane, update, momentum, g, count, settings);
}
static void counted_apply(struct lane *lane, real *w, const real *update, size_t count,
                          const struct muon_settings *settings, double scale) {
    calls.apply++;
    cpu_muon_apply(lane, w, update, count, settings, scale);
}

/* A CPU that counts its calls and takes so many matrices at once. */
static const struct backend *counting(size_t batch_most) {
    static struct backend ops;
    ops = *toy_backend(1);
    ops.batch_most = batch_most;
    ops.adam_step = counted_adam;
    ops.muon_momentum = counted_momentum;
    ops.muon_apply = counted_apply;
    return &ops;
}

static int shapes_of_muon(const struct parameters *p) {
    int shapes = 0;
    for (int place = 0; place < p->count; place++) {
        const struct tensor *t = &p->tensors[p->by_offset[place]];
        shapes +=
            t->optimizer == OPTIMIZER_MUON && (place == 0 || !updated_alike(t, &p->tensors[p->by_offset[place - 1]]));
    }
    return shapes;
}

static void expect_gaps_of_zeros(const struct trainer *t) {
    const struct optimizer *o = &t->optimizer;
    for (int i = 0; i < t->net.parameters.count; i++) {
        const struct tensor *tensor = &t->net.parameters.tensors[i];
        for (size_t at = tensor->count; at < aligned_reals(tensor->count); at++) {
            assert_true(t->weights[tensor->offset + at] == 0 && t->first[o->first_offset[i] + at] == 0);
            if (tensor->optimizer != OPTIMIZER_MUON) assert_true(t->second[o->second_offset[i] + at] == 0);
        }
    }
}

static void a_device_updates_all_that_is_alike_in_one_pass_with_the_same_bits(void **state) {
    (void)state;
    enum { STEPS = 4 };
    static const char SETTINGS[] = "recurrence.layers=0,1 recurrence.mlp=untied optim.row_norm=on optim.clip=0.3 "
                                   "model.skips=all";
    struct config config = toy_config(SETTINGS);
    struct trainer *lanes, *device;
    struct step_record record;
    assert_good(trainer_create(&lanes, &config, toy_backend(2), toy_dataset(), 42));
    assert_good(trainer_create(&device, &config, counting(64), toy_dataset(), 42));
    memset(&calls, 0, sizeof calls);
    for (int step = 0; step < STEPS; step++) {
        assert_good(trainer_step(lanes, &record));
        assert_good(trainer_step(device, &record));
    }
    int shapes = shapes_of_muon(&device->net.parameters);
    assert_int_equal(calls.adam, 2 * STEPS);
    assert_int_equal(calls.momentum, shapes * STEPS);
    assert_int_equal(calls.apply, shapes * STEPS);
    assert_memory_equal(device->weights, lanes->weights, device->net.parameters.total * sizeof(real));
    assert_memory_equal(device->first, lanes->first, device->optimizer.first_total * sizeof(real));
    assert_memory_equal(device->second, lanes->second, device->optimizer.second_total * sizeof(real));
    expect_gaps_of_zeros(device);
    trainer_destroy(lanes);
    trainer_destroy(device);
}

static void more_matrices_than_a_batch_are_cut_but_adams_tensors_never_are(void **state) {
    (void)state;
    struct config config = toy_config("");
    struct parameters p;
    struct optimizer o;
    assert_good(parameters_create(&p, &config));
    assert_good(optimizer_create(&o, &config, &p, counting(2), 0, 1));
    int adam = 0;
    for (int i = 0; i < o.piece_count; i++)
        if (p.tensors[p.by_offset[o.pieces[i].first]].optimizer == OPTIMIZER_MUON)
            assert_true(o.pieces[i].count <= 2);
        else
            adam++;
    assert_int_equal(adam, 2);
    optimizer_destroy(&o);
    parameters_destroy(&p);
}

/* Moments of a piece stand as its weights do, in the memory of whichever rank has it; each rank knows the others'. */
static void expect_pieces_whole(const struct optimizer *o, int *owned) {
    const struct parameters *p = o->parameters;
    for (const struct piece *piece = o->pieces; piece < o->pieces + o->piece_count; piece++) {
        int first = p->by_offset[piece->first];
        bool adam = p->tensors[first].optimizer != OPTIMIZER_MUON;
        owned[first] += piece_owner(o, piece) == o->rank;
        for (int i = 0; i < piece->count && piece_owner(o, piece) == o->rank; i++) {
            int index = p->by_offset[piece->first + i];
            size_t behind = p->tensors[index].offset - piece->offset;
            assert_int_equal(o->owner[index], o->rank);
            assert_int_equal(o->first_offset[index] - o->first_offset[first], behind);
            assert_true(behind + p->tensors[index].count <= piece->span);
            if (adam) assert_int_equal(o->second_offset[index] - o->second_offset[first], behind);
        }
    }
}

static void a_piece_is_one_pass_on_any_rank(void **state) {
    (void)state;
    struct config config = toy_config("recurrence.layers=0,1 recurrence.mlp=untied model.skips=all");
    for (int ranks = 1; ranks <= OPTIMIZER_MOST_RANKS; ranks *= 2)
        for (size_t batch = 1; batch <= 64; batch *= 64) {
            struct parameters p;
            int owned[128] = {0}, pieces = 0;
            assert_good(parameters_create(&p, &config));
            for (int rank = 0; rank < ranks; rank++) {
                struct optimizer o;
                assert_good(optimizer_create(&o, &config, &p, counting(batch), rank, ranks));
                expect_pieces_whole(&o, owned);
                pieces = o.piece_count;
                optimizer_destroy(&o);
            }
            for (int i = 0; i < p.count; i++) pieces -= owned[i];
            assert_int_equal(pieces, 0);
            parameters_destroy(&p);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_step_is_what_its_formulas_say),
        cmocka_unit_test(the_momentum_rises_linearly_to_its_end),
        cmocka_unit_test(clipping_scales_to_the_limit_and_leaves_small_gradients_alone),
        cmocka_unit_test(a_device_updates_all_that_is_alike_in_one_pass_with_the_same_bits),
        cmocka_unit_test(more_matrices_than_a_batch_are_cut_but_adams_tensors_never_are),
        cmocka_unit_test(a_piece_is_one_pass_on_any_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
