/* program: runs gnuplot and LaTeX in a folder, by argument vector, with their output kept in a log. */
#pragma once
#include <sys/types.h>

#include "kernels/status.h"

/* STATUS_SYSTEM naming the Debian package when PATH lacks argv[0], and when it cannot be started. The log is written
 * inside the folder; *code is the exit status, 128 + signal when it was killed. */
status program_start(const char *const argv[], const char *package, const char *folder, const char *log, pid_t *child);
status program_wait(pid_t child, int *code);

/* Both at once. */
status program_run(const char *const argv[], const char *package, const char *folder, const char *log, int *code);
