/* kill_at: preloaded into hinge, ends it with SIGKILL at its Nth call that changes a file, a write after half its
 * bytes. fwrite is such a call, since what it hands to the kernel passes no symbol of the library.
 *
 * HINGE_KILL_AT=N; 0: never. With HINGE_KILL_FILE=TEXT only calls on files with TEXT in their names count.
 * HINGE_KILL_LOG=FILE gets a line: what was being done to which file when it was killed, or "end" and the number of
 * calls when it was not. Programs that hinge starts are left alone. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

ssize_t write(int descriptor, const void *data, size_t size);
ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t place);
int fsync(int descriptor);
int fdatasync(int descriptor);
int ftruncate(int descriptor, off_t size);
int ftruncate64(int descriptor, off64_t size);
int rename(const char *from, const char *to);
int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags);
int unlink(const char *path);
int remove(const char *path);
size_t fwrite(const void *data, size_t size, size_t count, FILE *stream);

static atomic_long calls;
static long kill_at;
static const char *only;
static int log_file = -1;

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static void say(const char *what, const char *path) {
    char line[PATH_MAX + 32];
    const char *slash = strrchr(path, '/');
    int length = snprintf(line, sizeof line, "%s %s\n", what, slash ? slash + 1 : path);
    if (log_file >= 0 && NEXT(write)(log_file, line, (size_t)length) != length) abort();
}

__attribute__((constructor)) static void start(void) {
    const char *at = getenv("HINGE_KILL_AT"), *path = getenv("HINGE_KILL_LOG");
    if (!at || strcmp(program_invocation_short_name, "hinge") != 0) return;
    kill_at = strtol(at, NULL, 10);
    only = getenv("HINGE_KILL_FILE");
    if (path) log_file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

__attribute__((destructor)) static void end(void) {
    char count[32];
    snprintf(count, sizeof count, "%ld", (long)calls);
    if (log_file >= 0) say("end", count);
}

static bool due(const char *path) {
    const char *slash = strrchr(path, '/');
    if (only && !strstr(slash ? slash : path, only)) return false;
    return atomic_fetch_add(&calls, 1) + 1 == kill_at;
}

static void end_here(const char *what, const char *path) {
    say(what, path);
    raise(SIGKILL);
}

/* Pipes and terminals are not counted. */
static bool file_of(int descriptor, char path[PATH_MAX]) {
    char link[64];
    struct stat info;
    if (!kill_at || fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode)) return false;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = '\0';
    return true;
}

ssize_t write(int descriptor, const void *data, size_t size) {
    char path[PATH_MAX];
    if (descriptor > STDERR_FILENO && file_of(descriptor, path) && due(path)) {
        if (NEXT(write)(descriptor, data, size / 2) < 0) abort();
        end_here("write", path);
    }
    return NEXT(write)(descriptor, data, size);
}

ssize_t pwrite64(int descriptor, const void *data, size_t size, off64_t place) {
    char path[PATH_MAX];
    if (file_of(descriptor, path) && due(path)) {
        if (NEXT(pwrite64)(descriptor, data, size / 2, place) < 0) abort();
        end_here("pwrite", path);
    }
    return NEXT(pwrite64)(descriptor, data, size, place);
}

#define ON_DESCRIPTOR(result, name, arguments, values)                     \
    result name arguments {                                                \
        char path[PATH_MAX];                                               \
        if (file_of(descriptor, path) && due(path)) end_here(#name, path); \
        return NEXT(name) values;                                          \
    }
ON_DESCRIPTOR(int, fsync, (int descriptor), (descriptor))
ON_DESCRIPTOR(int, fdatasync, (int descriptor), (descriptor))
ON_DESCRIPTOR(int, ftruncate, (int descriptor, off_t size), (descriptor, size))
ON_DESCRIPTOR(int, ftruncate64, (int descriptor, off64_t size), (descriptor, size))

int rename(const char *from, const char *to) {
    if (kill_at && due(to)) end_here("rename", to);
    return NEXT(rename)(from, to);
}

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
    if (kill_at && due(to)) end_here("rename", to);
    return NEXT(renameat2)(from_folder, from, to_folder, to, flags);
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *stream) {
    char path[PATH_MAX];
    if (stream != stdout && stream != stderr && file_of(fileno(stream), path) && due(path)) {
        size_t half = size * count / 2;
        if (NEXT(fwrite)(data, 1, half, stream) != half || fflush(stream) != 0) abort();
        end_here("write", path);
    }
    return NEXT(fwrite)(data, size, count, stream);
}

int remove(const char *path) {
    if (kill_at && due(path)) end_here("remove", path);
    return NEXT(remove)(path);
}

int unlink(const char *path) {
    if (kill_at && due(path)) end_here("unlink", path);
    return NEXT(unlink)(path);
}
