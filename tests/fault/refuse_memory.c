/* refuse_memory: preloaded into hinge, refuses its Nth allocation, as a machine without memory would.
 *
 * HINGE_REFUSE_AT=N; 0: none. HINGE_REFUSE_LOG=FILE gets "refused BYTES", or "end" and how many allocations there were.
 * Only those that the program's own code makes in main count: what libraries do without memory, CUDA's runtime among
 * them, which is linked in and begins before main, is theirs. Programs that hinge starts are left alone. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* glibc's own names of what is replaced here. */
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static atomic_long allocations;
static long refuse_at;
static int log_file = -1;
static uintptr_t code_begins, code_ends; /* the program's */

typedef int main_function(int argc, char **argv, char **environment);
typedef int start_function(main_function *main, int argc, char **argv, void (*init)(void), void (*finish)(void),
                           void (*loader_finish)(void), void *stack_end);
start_function __libc_start_main;
static main_function *real_main;
static atomic_bool in_main;

static void say(const char *what, size_t number) {
    char line[64];
    int length = snprintf(line, sizeof line, "%s %zu\n", what, number);
    if (log_file >= 0 && write(log_file, line, (size_t)length) != length) abort();
}

/* The program comes first. */
static int find_code(struct dl_phdr_info *info, size_t size, void *unused) {
    (void)size, (void)unused;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        code_begins = info->dlpi_addr + part->p_vaddr;
        code_ends = code_begins + part->p_memsz;
    }
    return 1;
}

__attribute__((constructor)) static void start(void) {
    const char *at = getenv("HINGE_REFUSE_AT"), *path = getenv("HINGE_REFUSE_LOG");
    if (!at || strcmp(program_invocation_short_name, "hinge") != 0) return;
    if (path) log_file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    dl_iterate_phdr(find_code, NULL);
    refuse_at = strtol(at, NULL, 10);
}

__attribute__((destructor)) static void end(void) { say("end", (size_t)allocations); }

static int counted_main(int argc, char **argv, char **environment) {
    in_main = true;
    return real_main(argc, argv, environment);
}

int __libc_start_main(main_function *main, int argc, char **argv, void (*init)(void), void (*finish)(void),
                      void (*loader_finish)(void), void *stack_end) {
    real_main = main;
    start_function *next = (start_function *)dlsym(RTLD_NEXT, "__libc_start_main");
    return next(counted_main, argc, argv, init, finish, loader_finish, stack_end);
}

static bool refused(const void *caller, size_t size) {
    if (!in_main || (uintptr_t)caller < code_begins || (uintptr_t)caller >= code_ends) return false;
    if (atomic_fetch_add(&allocations, 1) + 1 != refuse_at) return false;
    say("refused", size);
    errno = ENOMEM;
    return true;
}

#define UNLESS_REFUSED(size, allocation) (refused(__builtin_return_address(0), size) ? NULL : (allocation))
void *malloc(size_t size) { return UNLESS_REFUSED(size, __libc_malloc(size)); }
void *calloc(size_t count, size_t size) { return UNLESS_REFUSED(count * size, __libc_calloc(count, size)); }
void *realloc(void *old, size_t size) { return UNLESS_REFUSED(size, __libc_realloc(old, size)); }
void *aligned_alloc(size_t alignment, size_t size) { return UNLESS_REFUSED(size, __libc_memalign(alignment, size)); }
