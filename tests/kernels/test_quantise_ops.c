/* test_quantise_ops: half floats, ternary and fake-quantised weights, integer rows, Hessian and GPTQ, against plain
 * loops in float64. */
#include "kernels/half.h"
#include "kernels/kernels.h"
#include "tests/kernels/near.h"

/* --- half --------------------------------------------------------------------------------------------------------- */
/* A finite half by the definition of its fields. */
static double half_by_hand(uint16_t bits) {
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24);
    return bits & 0x8000 ? -magnitude : magnitude;
}

static void every_finite_half_reads_as_its_fields_say_and_back(void **state) {
    (void)state;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        if ((bits >> 10 & 31) == 31) continue;
        double value = half_by_hand((uint16_t)bits);
        assert_true((double)half_to_real((uint16_t)bits) == value);
        assert_int_equal(half_from_double(value), bits);
    }
}

static void halves_are_rounded_to_nearest_and_ties_to_even(void **state) {
    (void)state;
    assert_int_equal(half_from_double(1 + 0x1p-11), 0x3C00);
    assert_int_equal(half_from_double(1 + 3 * 0x1p-11), 0x3C02);
    assert_int_equal(half_from_double(1 + 0x1p-11 + 0x1p-40), 0x3C01);
    assert_int_equal(half_from_double(0x1p-25), 0);
    assert_int_equal(half_from_double(0x1.8p-25), HALF_LEAST);
    assert_int_equal(half_from_double(65519), HALF_LARGEST);
    assert_int_equal(half_from_double(65520), 0x7C00);
}

/* --- ternary ------------------------------------------------------------------------------------------------------ */
enum { COUNT = 83 };

static double mean_magnitude(const double *w) {
    double sum = 0;
    for (size_t i = 0; i < COUNT; i++) sum += fabs(w[i]);
    return sum / COUNT;
}

static void ternary_weights_are_minus_s_zero_or_s(void **state) {
    (void)state;
    real w[COUNT], out[COUNT];
    double x[COUNT], expected[COUNT];
    normals(w, COUNT, "w", 0.3);
    for (size_t i = 0; i < COUNT; i++) x[i] = (double)w[i];
    double s = mean_magnitude(x);
    for (size_t i = 0; i < COUNT; i++) expected[i] = x[i] > s / 2 ? s : x[i] < -s / 2 ? -s : 0;
    cpu_ternarize(NULL, out, w, COUNT);
    assert_near("out", out, expected, COUNT, 4 * ROUNDING);
}

/* out as a function of w when rounding counts as the identity around w0 (spec: "Q counts as W/s_w"). */
static double surrogate_loss(const double *w, const double *w0, const double *q0, const double *g) {
    double s = mean_magnitude(w), s0 = mean_magnitude(w0), sum = 0;
    for (size_t i = 0; i < COUNT; i++) sum += g[i] * s * (q0[i] + w[i] / s - w0[i] / s0);
    return sum;
}

static void the_ternary_gradient_is_that_of_its_surrogate(void **state) {
    (void)state;
    real w[COUNT], effective[COUNT], dw[COUNT];
    double x[COUNT], q[COUNT], g[COUNT], moved[COUNT], expected[COUNT];
    normals(w, COUNT, "w", 0.3);
    normals(dw, COUNT, "g", 1);
    w[40] = 0; /* |w| has no slope there: the central difference gives 0, as sign(0) does */
    cpu_ternarize(NULL, effective, w, COUNT);
    for (size_t i = 0; i < COUNT; i++) x[i] = moved[i] = (double)w[i], g[i] = (double)dw[i];
    for (size_t i = 0; i < COUNT; i++) q[i] = (double)effective[i] / mean_magnitude(x);
    for (size_t i = 0; i < COUNT; i++) {
        const double step = 1e-6;
        moved[i] = x[i] + step;
        double above = surrogate_loss(moved, x, q, g);
        moved[i] = x[i] - step;
        expected[i] = (above - surrogate_loss(moved, x, q, g)) / (2 * step);
        moved[i] = x[i];
    }
    cpu_ternarize_backward(NULL, dw, w, effective, COUNT);
    assert_near("dw", dw, expected, COUNT, 1e-8 + 100 * ROUNDING);
}

static void tiny_ternary_weights_use_the_least_scale_and_pass_gradients_on(void **state) {
    (void)state;
    real w[4] = {(real)1e-7, (real)-1e-7, (real)9e-6, 0}, out[4], dw[4] = {1, 2, 3, 4};
    const double expected[4] = {0, 0, 1e-5, 0};
    cpu_ternarize(NULL, out, w, 4);
    assert_near("out", out, expected, 4, 1e-12);
    cpu_ternarize_backward(NULL, dw, w, out, 4);
    for (int i = 0; i < 4; i++) assert_true(dw[i] == (real)(i + 1));
}

/* --- fake quantisation: the scale is a power of two, so that all of it is exact ----------------------------------- */
static void fake_quantised_rows_round_ties_to_even_and_keep_zeros(void **state) {
    (void)state;
    const real w[12] = {31, -2.5, 1.5, 0.5, 0, 0, 0, 0, -15.5, 7.75, 0.25, -0.75};
    const real expected[12] = {31, -2, 2, 0, 0, 0, 0, 0, -15.5, 8, 0, -1};
    real out[12];
    cpu_fake_quantize_rows(NULL, out, w, 3, 4, 31, false);
    for (size_t i = 0; i < 12; i++) assert_true(out[i] == expected[i]);
    assert_memory_equal(out + 4, w + 4, 4 * sizeof *w);
}

static void the_scale_floor_makes_small_rows_coarse(void **state) {
    (void)state;
    const real w[4] = {(real)0.01, (real)-0.02, (real)0.09, (real)0.05};
    const double expected[4] = {0, -1.0 / 31, 3.0 / 31, 2.0 / 31};
    real out[4];
    cpu_fake_quantize_rows(NULL, out, w, 1, 4, 31, true);
    assert_near("out", out, expected, 4, 4 * ROUNDING);
}

/* --- integer rows ------------------------------------------------------------------------------------------------- */
static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double sorted_percentile(const real *w, size_t count, double percentile) {
    double *sorted = malloc(count * sizeof *sorted);
    for (size_t i = 0; i < count; i++) sorted[i] = fabs((double)w[i]);
    qsort(sorted, count, sizeof *sorted, ascending);
    double rank = percentile / 100 * (double)(count - 1);
    size_t low = (size_t)rank, high = low + 1 < count ? low + 1 : low;
    double value = sorted[low] + (rank - (double)low) * (sorted[high] - sorted[low]);
    free(sorted);
    return value;
}

static void check_group(const int8_t *q, uint16_t scale, const real *w, size_t count, int qmax, double percentile) {
    const double s = half_by_hand(scale), wanted = sorted_percentile(w, count, percentile) / qmax;
    assert_int_equal(scale, half_from_double(wanted));
    for (size_t i = 0; i < count; i++) {
        double x = (double)w[i] / s, rounded = fmax(-qmax, fmin(qmax, rint(x)));
        bool near_tie = fabs(fabs(x - floor(x)) - 0.5) < 1e-4; /* w/s is rounded in real */
        if (q[i] != (int)rounded && !near_tie) fail_msg("q at %zu: %d, expected %g", i, q[i], rounded);
    }
}

static void check_quantize(size_t rows, size_t cols, size_t group, int qmax, double percentile) {
    enum { MOST = 1200 };
    real w[MOST];
    int8_t q[MOST];
    uint16_t scales[MOST];
    size_t width = group ? group : cols, groups = (cols + width - 1) / width;
    normals(w, rows * cols, "w", 0.04);
    for (size_t i = 0; i < rows * cols; i += 3) w[i] = w[0]; /* equal magnitudes, too */
    cpu_quantize_rows(NULL, q, scales, w, rows, cols, group, qmax, percentile, false);
    for (size_t r = 0; r < rows; r++)
        for (size_t k = 0; k < groups; k++) {
            size_t start = k * width, count = cols - start < width ? cols - start : width, at = r * cols + start;
            check_group(q + at, scales[r * groups + k], w + at, count, qmax, percentile);
        }
}

static void rows_are_quantised_as_sorting_and_rounding_say(void **state) {
    (void)state;
    const double percentiles[] = {0, 37.5, 50, 90, 99.9, 99.999, 100};
    for (size_t i = 0; i < sizeof percentiles / sizeof *percentiles; i++) {
        check_quantize(3, 301, 0, 31, percentiles[i]);
        check_quantize(3, 301, 64, 127, percentiles[i]);
        check_quantize(5, 32, 32, 1, percentiles[i]);
        check_quantize(4, 1, 0, 7, percentiles[i]);
    }
}

static void a_row_of_zeros_gets_a_scale_that_can_be_divided_by(void **state) {
    (void)state;
    const real w[5] = {0};
    int8_t q[5];
    uint16_t scale;
    cpu_quantize_rows(NULL, q, &scale, w, 1, 5, 0, 31, 100, false);
    assert_int_equal(scale, HALF_LEAST);
    for (int i = 0; i < 5; i++) assert_int_equal(q[i], 0);
}

static void huge_weights_get_a_finite_scale(void **state) {
    (void)state;
    const real w[2] = {(real)1e9, (real)-1e9};
    int8_t q[2];
    uint16_t scale;
    cpu_quantize_rows(NULL, q, &scale, w, 1, 2, 0, 31, 100, false);
    assert_int_equal(scale, HALF_LARGEST);
    assert_int_equal(q[0], 31);
    assert_int_equal(q[1], -31);
}

static void the_published_floor_bounds_the_stored_scale(void **state) {
    (void)state;
    const real w[3] = {(real)0.1, (real)0.02, (real)-0.05};
    int8_t q[3];
    uint16_t scale;
    cpu_quantize_rows(NULL, q, &scale, w, 1, 3, 0, 31, 100, true);
    assert_int_equal(scale, half_from_double(1.0 / 31));
    assert_int_equal(q[0], 3);
    assert_int_equal(q[1], 1);
    assert_int_equal(q[2], -2);
}

/* --- Hessian ------------------------------------------------------------------------------------------------------ */
static void the_hessian_is_the_sum_of_outer_products_in_its_upper_triangle(void **state) {
    (void)state;
    enum { ROWS = 300, COLS = 130 };
    real *x = malloc(ROWS * COLS * sizeof *x);
    double *h = calloc(COLS * COLS, sizeof *h);
    normals(x, ROWS * COLS, "x", 1);
    h[COLS + 1] = 5;
    cpu_hessian_accumulate(NULL, h, x, ROWS, COLS);
    for (size_t i = 0; i < COLS; i++)
        for (size_t j = 0; j < COLS; j++) {
            double sum = i == 1 && j == 1 ? 5 : 0;
            for (size_t r = 0; r < ROWS && i <= j; r++) sum += (double)x[r * COLS + i] * (double)x[r * COLS + j];
            assert_true(fabs(h[i * COLS + j] - sum) <= 1000 * ROUNDING * (1 + fabs(sum)));
        }
    free(x);
    free(h);
}

/* --- GPTQ --------------------------------------------------------------------------------------------------------- */
struct gptq_problem {
    size_t rows, cols, group, groups;
    int qmax, info;
    real *w;
    double *h;
    uint16_t *scales;
    int8_t *q, *rounded; /* by GPTQ, by plain rounding with the same scales */
};

/* h = x^T x of correlated columns, each mixed with its neighbour, and of unequal size. */
static double column_size(size_t i) { return 1 + (double)(i % 5); }

static void fill_hessian(struct gptq_problem *p) {
    size_t samples = 2 * p->cols;
    double *x = calloc(samples * p->cols, sizeof *x);
    struct random_stream stream = random_stream(5, "x");
    for (size_t r = 0; r < samples; r++)
        for (size_t i = 0; i < p->cols; i++) {
            double own = random_normal(stream, r * p->cols + i), before = i ? x[r * p->cols + i - 1] : 0;
            x[r * p->cols + i] = own + 0.9 * before;
        }
    for (size_t i = 0; i < p->cols; i++)
        for (size_t j = i; j < p->cols; j++)
            for (size_t r = 0; r < samples; r++)
                p->h[i * p->cols + j] += x[r * p->cols + i] * x[r * p->cols + j] * column_size(i) * column_size(j);
    free(x);
}

static struct gptq_problem new_problem(size_t rows, size_t cols, size_t group, int qmax) {
    struct gptq_problem p = {.rows = rows, .cols = cols, .group = group, .qmax = qmax};
    p.groups = group ? (cols + group - 1) / group : 1;
    p.w = calloc(rows * cols, sizeof *p.w);
    p.h = calloc(cols * cols, sizeof *p.h);
    p.scales = calloc(rows * p.groups, sizeof *p.scales);
    p.q = calloc(rows * cols, 1);
    p.rounded = calloc(rows * cols, 1);
    normals(p.w, rows * cols, "w", 0.05);
    fill_hessian(&p);
    cpu_quantize_rows(NULL, p.rounded, p.scales, p.w, rows, cols, group, qmax, 100, false);
    return p;
}

static void free_problem(struct gptq_problem *p) {
    free(p->w), free(p->h), free(p->scales), free(p->q), free(p->rounded);
}

static void run_gptq(struct gptq_problem *p, double damping) {
    struct lane lane = {.scratch_bytes = cpu_gptq_scratch(p->rows, p->cols)};
    double *before = malloc(p->cols * p->cols * sizeof *before);
    memcpy(before, p->h, p->cols * p->cols * sizeof *before);
    assert_int_equal(posix_memalign(&lane.scratch, 64, lane.scratch_bytes), 0);
    memset(lane.scratch, 0xff, lane.scratch_bytes);
    cpu_gptq_quantize(&lane, p->q, p->scales, p->w, p->h, p->rows, p->cols, p->group, p->qmax, damping, &p->info);
    assert_memory_equal(before, p->h, p->cols * p->cols * sizeof *before);
    free(before);
    free(lane.scratch);
}

static double scale_of(const struct gptq_problem *p, size_t r, size_t c) {
    return half_by_hand(p->scales[r * p->groups + (p->group ? c / p->group : 0)]);
}

static double hessian_at(const struct gptq_problem *p, size_t i, size_t j) {
    return p->h[i < j ? i * p->cols + j : j * p->cols + i];
}

/* sum over rows of e^T H e, e = w - q s: what GPTQ minimises. */
static double weighted_error(const struct gptq_problem *p, const int8_t *q) {
    double sum = 0;
    for (size_t r = 0; r < p->rows; r++)
        for (size_t i = 0; i < p->cols; i++)
            for (size_t j = 0; j < p->cols; j++) {
                double a = (double)p->w[r * p->cols + i] - q[r * p->cols + i] * scale_of(p, r, i);
                double b = (double)p->w[r * p->cols + j] - q[r * p->cols + j] * scale_of(p, r, j);
                sum += a * hessian_at(p, i, j) * b;
            }
    return sum;
}

/* Gauss-Jordan, without pivoting: a is positive definite. */
static void invert(double *a, size_t n) {
    for (size_t k = 0; k < n; k++) {
        double pivot = 1 / a[k * n + k];
        a[k * n + k] = 1;
        for (size_t j = 0; j < n; j++) a[k * n + j] *= pivot;
        for (size_t i = 0; i < n; i++) {
            if (i == k) continue;
            double factor = a[i * n + k];
            a[i * n + k] = 0;
            for (size_t j = 0; j < n; j++) a[i * n + j] -= factor * a[k * n + j];
        }
    }
}

static void damped_hessian(const struct gptq_problem *p, double damping, double *a) {
    size_t n = p->cols;
    double mean = 0;
    for (size_t i = 0; i < n; i++) mean += p->h[i * n + i] / (double)n;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++) a[i * n + j] = hessian_at(p, i, j);
    for (size_t i = 0; i < n; i++) a[i * n + i] = a[i * n + i] == 0 ? 1 : a[i * n + i] + damping * mean;
}

/* The column still to do with the largest diagonal of h; the first of equals. */
static size_t next_column(const struct gptq_problem *p, const bool *done) {
    size_t best = p->cols;
    for (size_t i = 0; i < p->cols; i++)
        if (!done[i] && (best == p->cols || p->h[i * p->cols + i] > p->h[best * p->cols + best])) best = i;
    return best;
}

/* Optimal brain quantisation as it is derived: after each column, the inverse Hessian of the columns left. */
static void plain_gptq(const struct gptq_problem *p, double damping, int8_t *q) {
    size_t n = p->cols;
    double *inverse = malloc(n * n * sizeof *inverse), *w = malloc(p->rows * n * sizeof *w);
    bool *done = calloc(n, sizeof *done);
    damped_hessian(p, damping, inverse);
    invert(inverse, n);
    for (size_t i = 0; i < p->rows * n; i++) w[i] = p->h[i % n * n + i % n] == 0 ? 0 : (double)p->w[i];
    for (size_t k = 0; k < n; k++) {
        size_t c = next_column(p, done);
        double pivot = inverse[c * n + c];
        done[c] = true;
        for (size_t r = 0; r < p->rows; r++) {
            double s = scale_of(p, r, c), x = fmax(-p->qmax, fmin(p->qmax, rint(w[r * n + c] / s)));
            double error = w[r * n + c] - x * s;
            q[r * n + c] = (int8_t)x;
            for (size_t j = 0; j < n; j++)
                if (!done[j]) w[r * n + j] -= error * inverse[c * n + j] / pivot;
        }
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < n && !done[i]; j++)
                if (!done[j]) inverse[i * n + j] -= inverse[i * n + c] * inverse[c * n + j] / pivot;
    }
    free(inverse), free(w), free(done);
}

static void check_against_plain_gptq(struct gptq_problem *p) {
    int8_t *expected = calloc(p->rows * p->cols, 1);
    run_gptq(p, 0.01);
    assert_int_equal(p->info, 0);
    plain_gptq(p, 0.01, expected);
    for (size_t i = 0; i < p->rows * p->cols; i++)
        if (p->q[i] != expected[i])
            fail_msg("row %zu column %zu: %d, expected %d", i / p->cols, i % p->cols, p->q[i], expected[i]);
    free(expected);
}

static void gptq_agrees_with_one_column_at_a_time_over_several_blocks(void **state) {
    (void)state;
    struct gptq_problem p = new_problem(35, 150, 0, 31);
    check_against_plain_gptq(&p);
    free_problem(&p);
}

static void gptq_uses_the_scale_of_each_columns_own_group(void **state) {
    (void)state;
    struct gptq_problem p = new_problem(5, 70, 32, 7);
    check_against_plain_gptq(&p);
    free_problem(&p);
}

static void gptq_sets_columns_that_no_input_reaches_to_zero(void **state) {
    (void)state;
    struct gptq_problem p = new_problem(4, 20, 0, 31);
    for (size_t i = 0; i < p.cols; i++) p.h[i < 3 ? i * p.cols + 3 : 3 * p.cols + i] = 0;
    check_against_plain_gptq(&p);
    for (size_t r = 0; r < p.rows; r++) assert_int_equal(p.q[r * p.cols + 3], 0);
    free_problem(&p);
}

static void gptq_without_any_input_gives_zeros(void **state) {
    (void)state;
    struct gptq_problem p = new_problem(4, 20, 0, 31);
    memset(p.h, 0, p.cols * p.cols * sizeof *p.h);
    memset(p.q, 55, p.rows * p.cols);
    run_gptq(&p, 0.01);
    assert_int_equal(p.info, 0);
    for (size_t i = 0; i < p.rows * p.cols; i++) assert_int_equal(p.q[i], 0);
    free_problem(&p);
}

static void gptq_with_a_diagonal_hessian_is_plain_rounding(void **state) {
    (void)state;
    struct gptq_problem p = new_problem(9, 140, 0, 31);
    for (size_t i = 0; i < p.cols; i++)
        for (size_t j = i + 1; j < p.cols; j++) p.h[i * p.cols + j] = 0;
    run_gptq(&p, 0.01);
    assert_int_equal(p.info, 0);
    for (size_t i = 0; i < p.rows * p.cols; i++) assert_int_equal(p.q[i], p.rounded[i]);
    free_problem(&p);
}

static void gptq_beats_rounding_by_far_where_inputs_correlate(void **state) {
    (void)state;
    struct gptq_problem p = new_problem(16, 64, 0, 7);
    run_gptq(&p, 0.01);
    double gptq = weighted_error(&p, p.q), rounding = weighted_error(&p, p.rounded);
    if (!(gptq < 0.5 * rounding)) fail_msg("error %g with GPTQ, %g with rounding", gptq, rounding);
    free_problem(&p);
}

static void gptq_refuses_a_hessian_that_is_not_positive_definite(void **state) {
    (void)state;
    for (int spoil = 0; spoil < 2; spoil++) {
        struct gptq_problem p = new_problem(3, 20, 0, 31);
        memset(p.q, 55, p.rows * p.cols);
        p.h[5 * p.cols + 9] = spoil ? (double)NAN : 100 * p.h[9 * p.cols + 9];
        run_gptq(&p, 0.01);
        assert_true(p.info > 0);
        for (size_t i = 0; i < p.rows * p.cols; i++) assert_int_equal(p.q[i], 55);
        free_problem(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_finite_half_reads_as_its_fields_say_and_back),
        cmocka_unit_test(halves_are_rounded_to_nearest_and_ties_to_even),
        cmocka_unit_test(ternary_weights_are_minus_s_zero_or_s),
        cmocka_unit_test(the_ternary_gradient_is_that_of_its_surrogate),
        cmocka_unit_test(tiny_ternary_weights_use_the_least_scale_and_pass_gradients_on),
        cmocka_unit_test(fake_quantised_rows_round_ties_to_even_and_keep_zeros),
        cmocka_unit_test(the_scale_floor_makes_small_rows_coarse),
        cmocka_unit_test(rows_are_quantised_as_sorting_and_rounding_say),
        cmocka_unit_test(a_row_of_zeros_gets_a_scale_that_can_be_divided_by),
        cmocka_unit_test(huge_weights_get_a_finite_scale),
        cmocka_unit_test(the_published_floor_bounds_the_stored_scale),
        cmocka_unit_test(the_hessian_is_the_sum_of_outer_products_in_its_upper_triangle),
        cmocka_unit_test(gptq_agrees_with_one_column_at_a_time_over_several_blocks),
        cmocka_unit_test(gptq_uses_the_scale_of_each_columns_own_group),
        cmocka_unit_test(gptq_sets_columns_that_no_input_reaches_to_zero),
        cmocka_unit_test(gptq_without_any_input_gives_zeros),
        cmocka_unit_test(gptq_with_a_diagonal_hessian_is_plain_rounding),
        cmocka_unit_test(gptq_beats_rounding_by_far_where_inputs_correlate),
        cmocka_unit_test(gptq_refuses_a_hessian_that_is_not_positive_definite),
    };
    return cmocka_run_group_tests_name("quantise ops", tests, NULL, NULL);
}
