/* fuzz: hands libFuzzer's inputs over as files, and counts the memory that reading them takes; see fuzz.h. */
#include "tests/fault/fuzz.h"

#include <fcntl.h>
#include <sanitizer/allocator_interface.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/files.h"

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char input[64], scratch[64];
static const char *seed_folder;

/* --- memory ------------------------------------------------------------------------------------------------------- */

static atomic_bool counting;
static atomic_size_t held, most_held;
static size_t spare; /* HINGE_FUZZ_SPARE overrides the target's */

static void on_malloc(const volatile void *pointer, size_t size) {
    (void)pointer;
    if (!counting) return;
    size_t now = atomic_fetch_add(&held, size) + size;
    if (now > most_held) most_held = now;
}

/* What was there before the count began may be freed during it. */
static void on_free(const volatile void *pointer) {
    if (!counting || !pointer) return;
    size_t size = __sanitizer_get_allocated_size(pointer);
    held = held > size ? held - size : 0;
}

static void check_bound(size_t file_size) {
    size_t bound = spare + fuzz_target.factor * file_size;
    if (most_held <= bound) return;
    fprintf(stderr, "reading %zu bytes held %zu bytes of memory at once; declared are %zu + %zu a byte: %zu\n",
            file_size, (size_t)most_held, spare, fuzz_target.factor, bound);
    abort();
}

/* --- inputs ------------------------------------------------------------------------------------------------------- */

static void put(const char *path, const void *data, size_t size) {
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool written = descriptor >= 0 && write(descriptor, data, size) == (ssize_t)size;
    if (descriptor >= 0) close(descriptor);
    if (written) return;
    perror(path);
    _exit(1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    unsigned char *prepared = fuzz_target.prepare ? fuzz_target.prepare(data, &size) : NULL;
    put(input, prepared ? prepared : data, size);
    free(prepared);
    held = most_held = 0;
    counting = true;
    fuzz_target.read(input);
    counting = false;
    check_bound(size);
    return 0;
}

/* --- start and end ------------------------------------------------------------------------------------------------ */

const char *fuzz_scratch(void) { return scratch; }

void fuzz_need(status s) {
    if (!s) return;
    fprintf(stderr, "%s\n", status_text(s));
    _exit(1);
}

void fuzz_seed(const char *name, int flags, const void *data, size_t size) {
    char path[4096];
    size_t front = flags >= 0;
    unsigned char *bytes = malloc(front + size + 1);
    snprintf(path, sizeof path, "%s/%s", seed_folder, name);
    if (!bytes) _exit(1);
    bytes[0] = (unsigned char)flags;
    memcpy(bytes + front, data, size);
    put(path, bytes, front + size);
    free(bytes);
}

void fuzz_seed_file(const char *name, int flags, const char *path) {
    unsigned char *data;
    size_t size;
    fuzz_need(file_read(path, &data, &size));
    fuzz_seed(name, flags, data, size);
    free(data);
}

static void remove_files(void) {
    unlink(input);
    unlink(scratch);
}

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(input, sizeof input, "%s/hinge-fuzz-%d", folder, (int)getpid());
    snprintf(scratch, sizeof scratch, "%s/hinge-fuzz-%d-scratch", folder, (int)getpid());
    atexit(remove_files);
    char hex[65];
    const char *spare_text = getenv("HINGE_FUZZ_SPARE");
    spare = spare_text ? strtoul(spare_text, NULL, 10) : fuzz_target.spare;
    bytes_sha256("", 0, hex); /* the library's tables are no input's doing */
    if (fuzz_target.open) fuzz_target.open();
    seed_folder = getenv("HINGE_FUZZ_SEEDS");
    if (seed_folder) {
        fuzz_target.seeds();
        exit(0);
    }
    __sanitizer_install_malloc_and_free_hooks(on_malloc, on_free);
    return 0;
}
