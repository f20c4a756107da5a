/* bus_error: a handler of SIGBUS, from calls that a handler may make; see bus_error.h. */
#include "harness/bus_error.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/status.h"

static void say(const char *text) {
    ssize_t written = write(STDERR_FILENO, text, strlen(text));
    (void)written;
}

/* One byte at a time: it happens once, and a handler has no streams. */
static bool next_line(int file, char *line, size_t size) {
    size_t used = 0;
    char c;
    while (read(file, &c, 1) == 1 && c != '\n')
        if (used + 1 < size) line[used++] = c;
    line[used] = '\0';
    return used > 0;
}

/* A line of proc(5)'s maps: "start-end rights offset device inode path", in hexadecimal. */
static bool covers(const char *line, uintptr_t address) {
    char *end;
    uintptr_t start = strtoull(line, &end, 16);
    return start <= address && *end == '-' && address < strtoull(end + 1, NULL, 16);
}

/* The file that is mapped there; "" when none is. */
static void find_file(uintptr_t address, char *path, size_t size) {
    char line[PATH_MAX + 128];
    int maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    *path = '\0';
    while (maps >= 0 && next_line(maps, line, sizeof line)) {
        if (!covers(line, address)) continue;
        const char *name = strchr(line, '/');
        if (name && strlen(name) < size) memcpy(path, name, strlen(name) + 1);
        break;
    }
    if (maps >= 0) close(maps);
}

/* BUS_ADRERR: the system had no page for an address that is mapped. Anything else ends the program as it always did,
 * once the handler returns and it happens again. */
static void on_bus_error(int number, siginfo_t *info, void *context) {
    char path[PATH_MAX];
    (void)context;
    signal(number, SIG_DFL);
    if (info->si_code != BUS_ADRERR) return;
    find_file((uintptr_t)info->si_addr, path, sizeof path);
    if (!*path) return;
    say("hinge: ");
    say(path);
    say(": cannot be changed: its disk is full, a quota used up, or the file was cut short; make room, or have the "
        "quota raised, and repeat: everything committed so far is kept\n");
    _Exit(STATUS_SYSTEM);
}

void bus_error_install(void) {
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigemptyset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
