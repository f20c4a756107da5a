/* suite_families: comparisons that are corrected together, as a suite declares them. Without families all are one.
 *
 *   families:
 *     size: [int4, int8]      corrected over two comparisons
 *     rope: [no-rope]         one comparison alone */
#pragma once
#include "harness/suite.h"
#include "harness/yaml.h"

/* Fills in the families of the variants; NULL node: none were declared. Every variant but the baseline must be in just
 * one. Needs variants and baseline. */
status suite_read_families(const struct yaml_node *families, struct suite *suite);

/* Comparisons in the largest family of a suite. */
int suite_largest_family(const struct suite *suite);
