/* declaration: the canonical text of what a suite decided before its first run, in three parts.
 *
 * The head (baseline, metric, margin, test, alpha, correction, numerics, backend, datasets, common options), the seeds,
 * and one block for each variant with what it changes in the common options. */
#pragma once
#include "harness/plan.h"

char *declaration_head(const struct plan *plan,
                       const struct dataset_list *datasets);       /* caller frees; NULL: no memory */
char *declaration_variant(const struct suite *suite, int variant); /* the same */

/* The family that a variant's block names; "" when it names none. */
void declaration_family(const char *block, char *out, size_t size);

/* The first line that differs between two texts of equal layout, as "train.steps was 10 and is 5"; "" when none does.
 */
void declaration_difference(const char *before, const char *after, char *out, size_t size);
