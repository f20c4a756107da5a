/* process: other programs, called by argument vector, never through a shell. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/status.h"

/* Where PATH has the program; false when nowhere. */
bool program_find(const char *name, char path[4096]);

/* Runs argv[0] of PATH and collects its standard output (NUL-terminated; caller frees); standard error is dropped.
 * STATUS_SYSTEM when it cannot be started. The exit status goes to *code (128 + signal when it was killed). */
status program_output(const char *const *argv, char **output, int *code);

/* The same; what it says on standard error reaches the user. */
status program_answer(const char *const *argv, char **output, int *code);
