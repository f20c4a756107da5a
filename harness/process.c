/* process: posix_spawn with a pipe. */
#include "harness/process.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

bool program_find(const char *name, char path[4096]) {
    const char *folders = getenv("PATH");
    while (folders && *folders) {
        size_t length = strcspn(folders, ":");
        int written = snprintf(path, 4096, "%.*s/%s", (int)length, folders, name);
        if (length && written < 4096 && access(path, X_OK) == 0) return true;
        folders += length + (folders[length] == ':');
    }
    return false;
}

/* Everything that can be read from the descriptor. */
static status collect(int descriptor, char **output) {
    FILE *stream = fdopen(descriptor, "r");
    char *text = NULL;
    size_t capacity = 0;
    if (!stream) {
        close(descriptor);
        return status_errno("cannot read from a pipe");
    }
    ssize_t length = getdelim(&text, &capacity, EOF, stream);
    fclose(stream);
    if (length < 0) {
        free(text);
        text = strdup("");
    }
    *output = text;
    return text ? NULL : status_new(STATUS_SYSTEM, "out of memory");
}

static int spawn(const char *const *argv, int write_end, bool quiet, pid_t *child) {
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0) return ENOMEM;
    posix_spawn_file_actions_adddup2(&actions, write_end, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    if (quiet) posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    int failed = posix_spawnp(child, argv[0], &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

static status run(const char *const *argv, bool quiet, char **output, int *code) {
    int ends[2], state = 0;
    pid_t child;
    *output = NULL;
    if (pipe2(ends, O_CLOEXEC) != 0) return status_errno("cannot make a pipe");
    int failed = spawn(argv, ends[1], quiet, &child);
    close(ends[1]);
    if (failed) {
        close(ends[0]);
        errno = failed;
        return status_errno("cannot start %s", argv[0]);
    }
    status unread = collect(ends[0], output);
    while (waitpid(child, &state, 0) < 0 && errno == EINTR) continue;
    *code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return unread;
}

status program_output(const char *const *argv, char **output, int *code) { return run(argv, true, output, code); }

status program_answer(const char *const *argv, char **output, int *code) { return run(argv, false, output, code); }
