/* slurm: the scripts, the vector and the call of sbatch; see slurm.h. */
#include "harness/launch/slurm.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "harness/cmd_common.h"
#include "harness/process.h"

/* Where tasks are not confined to the cores that they were given, each would take all of the machine's. */
const char slurm_task_script[] =
    "#!/bin/sh\n"
    "# One part of a suite. Arguments: the program, the folder of the parts, how many there are, and what hinge run "
    "takes.\n"
    "program=$1\n"
    "folder=$2\n"
    "parts=$3\n"
    "shift 3\n"
    "part=${SLURM_ARRAY_TASK_ID:?is set by sbatch --array}\n"
    "own=$folder/$part-of-$parts\n"
    "if [ -n \"${SLURM_CPUS_ON_NODE-}\" ]; then\n"
    "    export OMP_NUM_THREADS=\"${OMP_NUM_THREADS:-$SLURM_CPUS_ON_NODE}\"\n"
    "fi\n"
    "exec \"$program\" run \"$@\" --part \"$part/$parts\" --db \"$own/hinge.db\" >>\"$own/log\" 2>&1\n";

const char slurm_merge_script[] = "#!/bin/sh\n"
                                  "# Folds the parts of a suite together. Arguments: the program, the folder of the "
                                  "parts, and what hinge merge takes.\n"
                                  "program=$1\n"
                                  "folder=$2\n"
                                  "shift 2\n"
                                  "exec \"$program\" merge \"$@\" >>\"$folder/log\" 2>&1\n";

/* --- words -------------------------------------------------------------------------------------------------------- */

static bool make_room(struct words *words) {
    if (words->count + 2 <= words->capacity) return true;
    int capacity = words->capacity ? 2 * words->capacity : 32;
    char **grown = realloc(words->list, (size_t)capacity * sizeof *grown);
    if (!grown) return false;
    words->list = grown;
    words->capacity = capacity;
    return true;
}

void words_add(struct words *words, const char *format, ...) {
    char *word;
    va_list args;
    va_start(args, format);
    int length = vasprintf(&word, format, args);
    va_end(args);
    if (length >= 0 && make_room(words)) {
        words->list[words->count++] = word;
        words->list[words->count] = NULL;
        return;
    }
    words->failed = true;
    if (length >= 0) free(word);
}

void words_print(const struct words *words) {
    enum { CAPACITY = 4 * 4096 };
    char word[CAPACITY];
    for (int i = 0; i < words->count; i++) {
        *word = 0;
        append_word(word, sizeof word, words->list[i]);
        printf("%s%s", i ? " " : "", word);
    }
    putchar('\n');
}

void words_free(struct words *words) {
    for (int i = 0; i < words->count; i++) free(words->list[i]);
    free(words->list);
    *words = (struct words){0};
}

/* --- sbatch ------------------------------------------------------------------------------------------------------- */

status slurm_check(void) {
    char path[4096];
    if (program_find("sbatch", path)) return NULL;
    return status_new(STATUS_SYSTEM,
                      "there is no sbatch in PATH, so no Slurm to hand the suite to: on one machine hinge run SUITE "
                      "--jobs N needs none; on several, hinge run SUITE --part I/N --db FILE on each, and hinge merge "
                      "FILE... at the end");
}

static bool sets(const char *word, const char *flag) {
    size_t length = strlen(flag);
    return strncmp(word, flag, length) == 0 && (word[length] == 0 || word[length] == '=');
}

/* A value in a word of its own would stand where sbatch looks for the script. */
status slurm_check_flags(const char *const *words, int count) {
    static const char *const own[] = {"--array", "--dependency", "--parsable", "--wrap"};
    for (int i = 0; i < count; i++) {
        const char *word = words[i];
        if (word[0] != '-' || !word[1] || strcmp(word, "--") == 0)
            return status_new(STATUS_USAGE,
                              "'%s' is no flag of sbatch: what follows SUITE -- is given to it, each flag with its "
                              "value in one word, such as --partition=long or -plong",
                              word);
        for (size_t k = 0; k < sizeof own / sizeof *own; k++)
            if (sets(word, own[k])) return status_new(STATUS_USAGE, "%s is set by hinge submit itself", own[k]);
        if (strncmp(word, "-a", 2) == 0 || strncmp(word, "-d", 2) == 0)
            return status_new(STATUS_USAGE, "%.2s of sbatch is set by hinge submit itself", word);
    }
    return NULL;
}

status slurm_submit(const struct words *words, char job[32]) {
    char *output;
    int code;
    if (words->failed) return status_new(STATUS_SYSTEM, "out of memory for the words of sbatch");
    TRY(program_answer((const char *const *)words->list, &output, &code));
    snprintf(job, 32, "%.*s", (int)strspn(output, "0123456789"), output);
    status s = NULL;
    if (code != 0)
        s = status_new(STATUS_SYSTEM, "sbatch refused (status %d); what it said stands above", code);
    else if (!*job)
        s = status_new(STATUS_SYSTEM, "sbatch answered '%.60s' where a job's number was expected", output);
    free(output);
    return s;
}
