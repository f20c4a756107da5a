/* address_space: what the libraries will take, held against RLIMIT_AS; see address_space.h. */
#include "harness/address_space.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernels/status.h"

/* OpenBLAS's buffer, the heap that malloc reserves for a thread, its stack. */
enum { MEGABYTE = 1 << 20, BYTES_OF_A_THREAD = (128 + 64 + 8) * MEGABYTE };

/* Nothing is set up yet that buffers a file. */
static size_t bytes_in_use(void) {
    char text[64] = "";
    int descriptor = open("/proc/self/statm", O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) return 0;
    ssize_t got = read(descriptor, text, sizeof text - 1);
    close(descriptor);
    return got > 0 ? strtoul(text, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

static size_t thread_count(char **environment) {
    static const char name[] = "OMP_NUM_THREADS=";
    long cores = sysconf(_SC_NPROCESSORS_ONLN), set = 0;
    for (; *environment; environment++)
        if (strncmp(*environment, name, sizeof name - 1) == 0) set = strtol(*environment + sizeof name - 1, NULL, 10);
    return set > 0 ? (size_t)set : cores > 0 ? (size_t)cores : 1;
}

void address_space_check(int argc, char **argv, char **environment) {
    struct rlimit limit;
    char line[256];
    (void)argc, (void)argv;
    if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return;
    size_t threads = thread_count(environment), needed = bytes_in_use() + (threads + 1) * BYTES_OF_A_THREAD;
    if (needed <= limit.rlim_cur) return;
    int length = snprintf(line, sizeof line,
                          "hinge: %zu threads need %zu MB of address space, the limit (ulimit -v) is %zu MB; raise it, "
                          "or set OMP_NUM_THREADS to fewer\n",
                          threads, needed / 1000000, (size_t)limit.rlim_cur / 1000000);
    ssize_t written = write(STDERR_FILENO, line, (size_t)length);
    (void)written;
    _exit(STATUS_SYSTEM);
}
