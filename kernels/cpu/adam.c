/* adam: Adam with bias correction (arXiv 1412.6980), and the moving average of the weights. */
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

void cpu_adam_step(struct lane *lane, real *w, real *m, real *v, const real *g, size_t count,
                   const struct adam_settings *settings) {
    (void)lane;
    const double correction1 = 1 - pow(settings->beta1, (double)settings->step);
    const double correction2 = 1 - pow(settings->beta2, (double)settings->step);
    const real beta1 = (real)settings->beta1, new1 = (real)(1 - settings->beta1);
    const real beta2 = (real)settings->beta2, new2 = (real)(1 - settings->beta2);
    const real rate = (real)(settings->rate / correction1), epsilon = (real)settings->epsilon;
    const real root = (real)(1 / sqrt(correction2));
#pragma omp simd
    for (size_t i = 0; i < count; i++) {
        real first = beta1 * m[i] + new1 * g[i], second = beta2 * v[i] + new2 * g[i] * g[i];
        m[i] = first;
        v[i] = second;
        w[i] -= rate * first / (real_sqrt(second) * root + epsilon);
    }
}

void cpu_moving_average(struct lane *lane, real *average, const real *w, size_t count, double decay) {
    (void)lane;
    const real keep = (real)decay, take = (real)(1 - decay);
#pragma omp simd
    for (size_t i = 0; i < count; i++) average[i] = keep * average[i] + take * w[i];
}
