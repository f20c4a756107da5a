/* slurm: sbatch by argument vector, with two fixed scripts; no name ever becomes part of a text that a shell reads. */
#pragma once
#include <stdbool.h>

#include "kernels/status.h"

/* A part of a suite: arguments are the program, the folder of the parts, how many there are, and what hinge run takes.
 * What folds them in: the program, the same folder, and what hinge merge takes. */
extern const char slurm_task_script[], slurm_merge_script[];

/* An argument vector that grows; the list ends with NULL. */
struct words {
    int count, capacity;
    char **list;
    bool failed; /* there was no memory for one of them */
};
__attribute__((format(printf, 2, 3))) void words_add(struct words *words, const char *format, ...);
void words_print(const struct words *words); /* on standard output, as a shell would take them */
void words_free(struct words *words);

/* STATUS_SYSTEM, saying what to do instead, where there is no sbatch. */
status slurm_check(void);

/* STATUS_USAGE for words that are no flags of sbatch, or that the program sets itself. */
status slurm_check_flags(const char *const *words, int count);

/* Calls sbatch, whose words are all there, and takes the job's number from its answer. */
status slurm_submit(const struct words *words, char job[32]);
