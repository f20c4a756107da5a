/* adam: Adam with bias correction (arXiv 1412.6980), and the moving average of the weights. */
#include "kernels/cpu/vector_math.h"
#include "kernels/kernels.h"

void cpu_adam_step(struct lane *lane, real *w, real *m, real *v, const real *g, size_t count,
                   const struct adam_settings *settings) {
    (void)lane;
    const real beta1 = (real)settings->beta1, new1 = (real)settings->new1;
    const real beta2 = (real)settings->beta2, new2 = (real)settings->new2;
    const real rate = (real)settings->rate, root = (real)settings->root, epsilon = (real)settings->epsilon;
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
