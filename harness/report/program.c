/* program: posix_spawn in another folder; see program.h. */
#include "harness/report/program.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness/process.h"

extern char **environ;

static int spawn_in(const char *path, const char *const argv[], const char *folder, const char *log, pid_t *child) {
    posix_spawn_file_actions_t actions;
    if (posix_spawn_file_actions_init(&actions) != 0) return ENOMEM;
    posix_spawn_file_actions_addchdir_np(&actions, folder);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, log, O_WRONLY | O_CREAT | O_TRUNC, 0644);
    posix_spawn_file_actions_adddup2(&actions, STDOUT_FILENO, STDERR_FILENO);
    int failed = posix_spawn(child, path, &actions, NULL, (char *const *)argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return failed;
}

status program_start(const char *const argv[], const char *package, const char *folder, const char *log, pid_t *child) {
    char path[4096];
    if (!program_find(argv[0], path))
        return status_new(STATUS_SYSTEM, "%s is missing; install the Debian package %s (apt-get install %s)", argv[0],
                          package, package);
    errno = spawn_in(path, argv, folder, log, child);
    return errno ? status_errno("cannot start %s with its log in %s/%s", path, folder, log) : NULL;
}

status program_wait(pid_t child, int *code) {
    int state = 0;
    while (waitpid(child, &state, 0) < 0)
        if (errno != EINTR) return status_errno("cannot wait for process %d", (int)child);
    *code = WIFEXITED(state) ? WEXITSTATUS(state) : 128 + WTERMSIG(state);
    return NULL;
}

status program_run(const char *const argv[], const char *package, const char *folder, const char *log, int *code) {
    pid_t child;
    TRY(program_start(argv, package, folder, log, &child));
    return program_wait(child, code);
}
