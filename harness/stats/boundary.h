/* boundary: where a t statistic that is looked at several times must stop, computed and not simulated.
 *
 * Armitage, McPherson & Rowe (1969) integrate the distribution of what has not stopped, look by look. Theirs is the
 * normal case. Here the variance is estimated anew at each look, and the recursion is over the angle
 *
 *   tan(angle) = t / sqrt(n - 1)
 *
 * Why one number is enough: normal differences without effect lie in no preferred direction, so that given the angle
 * after n of them, the direction of the first m is uniform on what is left of a sphere, whatever came later. The angles
 * at the looks are therefore a Markov chain, and what must be carried is one function of the angle: the probability
 * that no earlier look has stopped. It is kept as Chebyshev polynomials and integrated by Gauss and Legendre's rule
 * over the two angles that lead from one look to the one before. No limit for large n and no known variance is used.
 * Boundaries are within 1e-6 of an independent computation (tests/unit/fixtures/looks_reference.py). */
#pragma once
#include <stddef.h>

#include "kernels/status.h"

/* boundary[k], count of them: |t| with n[k] - 1 degrees of freedom at which look k stops, such that under the null the
 * first to stop is look k with probability spent[k] - spent[k - 1], both sides together. n ascends from 2 on, spent
 * ascends. */
status boundary_of_t(const size_t *n, const double *spent, int count, double *boundary);
