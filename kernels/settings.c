/* settings: what the optimisers' ops read of a step, calculated once for all of them; see kernels.h. */
#include <math.h>

#include "kernels/kernels.h"

struct adam_settings adam_settings_at(double rate, double beta1, double beta2, double epsilon, int64_t step) {
    const double correction1 = 1 - pow(beta1, (double)step), correction2 = 1 - pow(beta2, (double)step);
    return (struct adam_settings){.beta1 = beta1,
                                  .new1 = 1 - beta1,
                                  .beta2 = beta2,
                                  .new2 = 1 - beta2,
                                  .rate = rate / correction1,
                                  .root = 1 / sqrt(correction2),
                                  .epsilon = epsilon};
}

struct muon_settings muon_settings_of(double momentum, double rate, double decay) {
    return (struct muon_settings){.momentum = momentum, .rate = rate, .keep = 1 - rate * decay};
}
