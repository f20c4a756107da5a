/* test_optimiser_ops: Adam, Muon and the moving average against plain loops in float64. */
#include <gsl/gsl_eigen.h>

#include "kernels/kernels.h"
#include "tests/kernels/near.h"

enum { COUNT = 101, MOST = 64 * 64 };

static void adam_follows_its_formula_over_several_steps(void **state) {
    (void)state;
    real w[COUNT], m[COUNT] = {0}, v[COUNT] = {0}, g[COUNT];
    double x[COUNT], first[COUNT] = {0}, second[COUNT] = {0};
    normals(w, COUNT, "w", 1);
    for (size_t i = 0; i < COUNT; i++) x[i] = (double)w[i];
    for (int step = 1; step <= 5; step++) {
        const struct adam_settings settings = adam_settings_at(0.02, 0.9, 0.95, 1e-8, step);
        normals(g, COUNT, step % 2 ? "odd g" : "even g", 0.1);
        cpu_adam_step(NULL, w, m, v, g, COUNT, &settings);
        for (size_t i = 0; i < COUNT; i++) {
            double d = (double)g[i];
            first[i] = 0.9 * first[i] + (1 - 0.9) * d;
            second[i] = 0.95 * second[i] + (1 - 0.95) * d * d;
            double m_hat = first[i] / (1 - pow(0.9, step)), v_hat = second[i] / (1 - pow(0.95, step));
            x[i] -= 0.02 * m_hat / (sqrt(v_hat) + 1e-8);
        }
    }
    assert_near("w", w, x, COUNT, 50 * ROUNDING);
    assert_near("m", m, first, COUNT, 50 * ROUNDING);
    assert_near("v", v, second, COUNT, 50 * ROUNDING);
}

static void adam_with_no_gradient_yet_stays_where_it_is(void **state) {
    (void)state;
    real w[3] = {1, 2, 3}, m[3] = {0}, v[3] = {0};
    const real g[3] = {0};
    const struct adam_settings settings = adam_settings_at(0.02, 0.9, 0.95, 1e-8, 1);
    cpu_adam_step(NULL, w, m, v, g, 3, &settings);
    for (int i = 0; i < 3; i++) assert_true(w[i] == (real)(i + 1));
}

static void muon_momentum_looks_ahead_by_nesterov(void **state) {
    (void)state;
    real momentum[COUNT], update[COUNT], g[COUNT];
    double m[COUNT], u[COUNT];
    normals(momentum, COUNT, "momentum", 1);
    normals(g, COUNT, "g", 1);
    for (size_t i = 0; i < COUNT; i++) {
        m[i] = 0.85 * (double)momentum[i] + (double)g[i];
        u[i] = (double)g[i] + 0.85 * m[i];
    }
    const struct muon_settings settings = muon_settings_of(0.85, 0, 0);
    cpu_muon_momentum(NULL, update, momentum, g, COUNT, &settings);
    assert_near("momentum", momentum, m, COUNT, 10 * ROUNDING);
    assert_near("update", update, u, COUNT, 10 * ROUNDING);
}

static void muon_decays_weights_apart_from_the_update(void **state) {
    (void)state;
    real w[COUNT], update[COUNT];
    double x[COUNT];
    normals(w, COUNT, "w", 1);
    normals(update, COUNT, "update", 1);
    for (size_t i = 0; i < COUNT; i++) x[i] = (double)w[i] * (1 - 0.5 * 0.04) - 0.5 * 1.7 * (double)update[i];
    const struct muon_settings settings = muon_settings_of(0, 0.5, 0.04);
    cpu_muon_apply(NULL, w, update, COUNT, &settings, 1.7);
    assert_near("w", w, x, COUNT, 10 * ROUNDING);
}

static void the_moving_average_keeps_decay_and_takes_the_rest(void **state) {
    (void)state;
    real average[COUNT], w[COUNT];
    double x[COUNT];
    normals(average, COUNT, "average", 1);
    normals(w, COUNT, "w", 1);
    for (size_t i = 0; i < COUNT; i++) x[i] = 0.997 * (double)average[i] + (1 - 0.997) * (double)w[i];
    cpu_moving_average(NULL, average, w, COUNT, 0.997);
    assert_near("average", average, x, COUNT, 10 * ROUNDING);
}

static void normalised_rows_have_norm_one_and_rows_of_zeros_stay(void **state) {
    (void)state;
    enum { ROWS = 5, COLS = 37 };
    real x[ROWS * COLS];
    double expected[ROWS * COLS];
    normals(x, ROWS * COLS, "x", 3);
    memset(x + 2 * COLS, 0, COLS * sizeof *x);
    for (size_t r = 0; r < ROWS; r++) {
        double sum = 0;
        for (size_t i = 0; i < COLS; i++) sum += (double)x[r * COLS + i] * (double)x[r * COLS + i];
        for (size_t i = 0; i < COLS; i++) expected[r * COLS + i] = (double)x[r * COLS + i] / (sqrt(sum) + 1e-7);
    }
    cpu_normalize_rows(NULL, x, ROWS, COLS);
    assert_near("x", x, expected, ROWS * COLS, 10 * ROUNDING);
}

/* --- Newton-Schulz ------------------------------------------------------------------------------------------------ */
static void multiply(double *c, const double *a, const double *b, size_t m, size_t n, size_t k, bool transpose_b) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < n; j++) {
            double sum = 0;
            for (size_t l = 0; l < k; l++) sum += a[i * k + l] * (transpose_b ? b[j * k + l] : b[l * n + j]);
            c[i * n + j] = sum;
        }
}

/* x (n,m), n <= m, as the formula is written. */
static void plain_newton_schulz(double *x, size_t n, size_t m, int steps) {
    double a[MOST], square[MOST], next[MOST], sum = 0;
    for (size_t i = 0; i < n * m; i++) sum += x[i] * x[i];
    for (size_t i = 0; i < n * m; i++) x[i] /= sqrt(sum) + 1e-7;
    for (int step = 0; step < steps; step++) {
        multiply(a, x, x, n, n, m, true);
        multiply(square, a, a, n, n, n, false);
        for (size_t i = 0; i < n * n; i++) a[i] = -4.7750 * a[i] + 2.0315 * square[i];
        multiply(next, a, x, n, m, n, false);
        for (size_t i = 0; i < n * m; i++) x[i] = 3.4445 * x[i] + next[i];
    }
}

static void transpose(double *to, const double *from, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++) to[j * rows + i] = from[i * cols + j];
}

static void run_newton_schulz(real *x, size_t rows, size_t cols, int steps) {
    struct lane lane = {.scratch_bytes = cpu_newton_schulz_scratch(1, rows, cols)};
    assert_int_equal(posix_memalign(&lane.scratch, 64, lane.scratch_bytes), 0);
    memset(lane.scratch, 0xff, lane.scratch_bytes);
    cpu_newton_schulz(&lane, &x, 1, rows, cols, steps);
    free(lane.scratch);
}

static void check_newton_schulz(size_t rows, size_t cols, int steps) {
    real x[MOST];
    double wide[MOST], expected[MOST];
    normals(x, rows * cols, "g", 2);
    for (size_t i = 0; i < rows * cols; i++) expected[i] = (double)x[i];
    if (rows > cols) {
        transpose(wide, expected, rows, cols);
        plain_newton_schulz(wide, cols, rows, steps);
        transpose(expected, wide, cols, rows);
    } else {
        plain_newton_schulz(expected, rows, cols, steps);
    }
    run_newton_schulz(x, rows, cols, steps);
    assert_near("x", x, expected, rows * cols, 1000 * ROUNDING);
}

static void newton_schulz_agrees_with_plain_loops_wide_tall_and_square(void **state) {
    (void)state;
    for (int steps = 0; steps <= 5; steps++) {
        check_newton_schulz(17, 53, steps);
        check_newton_schulz(53, 17, steps);
        check_newton_schulz(33, 33, steps);
        check_newton_schulz(1, 9, steps);
    }
}

/* Bounds of the singular values of x (rows, cols), from the eigenvalues of x^T x or x x^T, whichever is smaller. */
static void singular_values(const real *x, size_t rows, size_t cols, double *least, double *most) {
    size_t n = rows < cols ? rows : cols, m = rows < cols ? cols : rows;
    double wide[MOST], gram[MOST], full[MOST];
    for (size_t i = 0; i < rows * cols; i++) full[i] = (double)x[i];
    if (rows > cols)
        transpose(wide, full, rows, cols);
    else
        memcpy(wide, full, sizeof full);
    multiply(gram, wide, wide, n, n, m, true);
    gsl_matrix_view view = gsl_matrix_view_array(gram, n, n);
    gsl_vector *values = gsl_vector_alloc(n);
    gsl_eigen_symm_workspace *workspace = gsl_eigen_symm_alloc(n);
    gsl_eigen_symm(&view.matrix, values, workspace);
    *least = sqrt(fmax(gsl_vector_min(values), 0));
    *most = sqrt(gsl_vector_max(values));
    gsl_eigen_symm_free(workspace);
    gsl_vector_free(values);
}

static void newton_schulz_brings_singular_values_near_one(void **state) {
    (void)state;
    const size_t shapes[][2] = {{20, 60}, {60, 20}, {30, 45}};
    for (size_t k = 0; k < 3; k++) {
        real x[MOST];
        double least, most;
        normals(x, shapes[k][0] * shapes[k][1], "g", 1e-3);
        run_newton_schulz(x, shapes[k][0], shapes[k][1], 5);
        singular_values(x, shapes[k][0], shapes[k][1], &least, &most);
        if (!(least > 0.6 && most < 1.3)) fail_msg("singular values in [%g, %g]", least, most);
    }
}

static void newton_schulz_leaves_a_zero_update_zero(void **state) {
    (void)state;
    real x[7 * 5] = {0};
    run_newton_schulz(x, 7, 5, 5);
    for (size_t i = 0; i < 35; i++) assert_true(x[i] == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(adam_follows_its_formula_over_several_steps),
        cmocka_unit_test(adam_with_no_gradient_yet_stays_where_it_is),
        cmocka_unit_test(muon_momentum_looks_ahead_by_nesterov),
        cmocka_unit_test(muon_decays_weights_apart_from_the_update),
        cmocka_unit_test(the_moving_average_keeps_decay_and_takes_the_rest),
        cmocka_unit_test(normalised_rows_have_norm_one_and_rows_of_zeros_stay),
        cmocka_unit_test(newton_schulz_agrees_with_plain_loops_wide_tall_and_square),
        cmocka_unit_test(newton_schulz_brings_singular_values_near_one),
        cmocka_unit_test(newton_schulz_leaves_a_zero_update_zero),
    };
    return cmocka_run_group_tests_name("optimiser ops", tests, NULL, NULL);
}
