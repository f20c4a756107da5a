/* suite_looks: seeds in batches and the looks between them, as a suite declares them:
 *
 *   seeds: {first: 3, step: 2, most: 11}     seeds 1 to 11, looked at after 3, 5, 7, 9 and 11
 *   looks: obrien-fleming                    or pocock, or {spending: pocock} */
#pragma once
#include "harness/suite.h"
#include "harness/yaml.h"

/* Fills suite->seeds and suite->looks from the mapping. */
status suite_read_batches(const struct yaml_node *seeds, struct suite *suite);

/* The spending function; NULL node: none was declared. STATUS_USAGE when looks and batches are not declared together.
 */
status suite_read_spending(const char *path, const struct yaml_node *looks, struct suite *suite);
