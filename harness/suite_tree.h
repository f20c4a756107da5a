/* suite_tree: the files of a suite or preset as one tree.
 *
 *   include: [common/scales, presets/tiny]   files NAME.yaml beside the including one, or else in suites/, laid below
 *                                            it: a key that is missing is taken over, two mappings are merged, later
 *                                            files lie over earlier ones and the file itself over all. A preset's
 *                                            options go into the suite's `set`. Cycles are refused.
 *   matrix:                                  every point of an axis with every point of the others: variants
 *     quant.bits: [4, 6]                     "bits4-rowwise", "bits4-gptq", "bits6-rowwise", "bits6-gptq".
 *     method: {rowwise: {quant.method: rowwise}, gptq: {quant.method: gptq}}
 *
 * A list crosses values of one option, named by the value (a number with the last part of the key before it); a
 * mapping crosses named sets of options. The crossed variants stand behind those of `variants`. */
#pragma once
#include "harness/suite.h"
#include "harness/yaml.h"

/* Reads a suite's file with all that it includes; its matrix is crossed into `variants`. The places in the tree point
 * into files. yaml_free frees the tree, in failure too. */
status suite_tree_read(const char *path, struct suite_files *files, struct yaml_node *root);

/* The same of a preset: options alone. */
status suite_tree_preset(const char *path, struct suite_files *files, struct yaml_node *root);

void suite_files_free(struct suite_files *files);

/* The path of NAME.yaml beside a file, or else in suites/, so that a suite can lie anywhere; where neither is, what is
 * named at the node (an include, a preset) is refused. */
status suite_file_find(const struct yaml_node *node, const char *what, const char *file, const char *name,
                       char path[4096]);
