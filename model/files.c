/* files: atomic writes, whole reads and SHA-256 (libcrypto's EVP); see files.h. */
#include "model/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

struct file_writer {
    int descriptor;
    size_t written; /* bytes */
    char path[PATH_MAX], temporary[PATH_MAX + 32];
};

/* One name for every writer of a path, so that what a killed one left is overwritten by the next. The lock makes
 * writers wait for each other; who got it for a file that has meanwhile been renamed or removed tries again. */
static int open_locked(const char *temporary) {
    for (;;) {
        struct stat held, named;
        int descriptor = open(temporary, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
        if (descriptor < 0) return -1;
        while (flock(descriptor, LOCK_EX) != 0 && errno == EINTR) continue;
        if (fstat(descriptor, &held) == 0 && stat(temporary, &named) == 0 && held.st_ino == named.st_ino)
            return descriptor;
        close(descriptor);
    }
}

/* What stood under the path before still does: nothing is renamed before all is written and synced. */
static status not_replaced(const struct file_writer *writer, const char *what) {
    int saved = errno;
    const char *advice = status_advice(saved);
    return status_new(STATUS_SYSTEM, "%s: %s: %s%s%s", writer->path, what, strerror(saved), advice,
                      *advice ? ": the file that was there before is whole" : "");
}

status file_writer_open(struct file_writer **out, const char *path) {
    struct file_writer *writer = calloc(1, sizeof *writer);
    if (!writer) return status_new(STATUS_SYSTEM, "%s: out of memory", path);
    snprintf(writer->path, sizeof writer->path, "%s", path);
    snprintf(writer->temporary, sizeof writer->temporary, "%s.tmp", path);
    writer->descriptor = open_locked(writer->temporary);
    if (writer->descriptor < 0 || ftruncate(writer->descriptor, 0) != 0) {
        status s = not_replaced(writer, "cannot be written");
        if (writer->descriptor >= 0) close(writer->descriptor);
        free(writer);
        return s;
    }
    *out = writer;
    return NULL;
}

static status cannot_write(const struct file_writer *writer, size_t left) {
    char what[96];
    snprintf(what, sizeof what, "writing stopped after %zu bytes, %zu more were to follow", writer->written, left);
    return not_replaced(writer, what);
}

status file_writer_add(struct file_writer *writer, const void *data, size_t size) {
    const unsigned char *bytes = data;
    while (size > 0) {
        ssize_t done = write(writer->descriptor, bytes, size);
        if (done < 0 && errno == EINTR) continue;
        if (done < 0) return cannot_write(writer, size);
        bytes += done, size -= (size_t)done, writer->written += (size_t)done;
    }
    return NULL;
}

void file_writer_abandon(struct file_writer *writer) {
    unlink(writer->temporary);
    close(writer->descriptor);
    free(writer);
}

/* A rename lasts only when the folder that holds the name has reached the disk too. */
static status sync_folder(const char *path) {
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + 1 : 1, slash ? path : ".");
    int descriptor = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0) return status_errno("%s: cannot be opened", folder);
    int failed = fsync(descriptor) != 0 && errno != EINVAL; /* EINVAL: a file system without it */
    status s = failed ? status_errno("%s: cannot be synced", folder) : NULL;
    close(descriptor);
    return s;
}

static status rename_synced(const struct file_writer *writer) {
    if (fsync(writer->descriptor) != 0) return not_replaced(writer, "cannot be synced");
    if (rename(writer->temporary, writer->path) != 0) return not_replaced(writer, "cannot be replaced");
    return NULL;
}

status file_writer_commit(struct file_writer *writer) {
    status s = rename_synced(writer);
    if (s) {
        file_writer_abandon(writer);
        return s;
    }
    s = sync_folder(writer->path);
    close(writer->descriptor);
    free(writer);
    return s;
}

status file_write_atomic(const char *path, const void *data, size_t size) {
    struct file_writer *writer;
    TRY(file_writer_open(&writer, path));
    status s = file_writer_add(writer, data, size);
    if (!s) return file_writer_commit(writer);
    file_writer_abandon(writer);
    return s;
}

/* --- copies ------------------------------------------------------------------------------------------------------- */

/* Whatever refuses a further name leaves the copy to be made. */
static bool give_name(const char *from, const char *path) {
    char temporary[PATH_MAX + 32];
    snprintf(temporary, sizeof temporary, "%s.link.tmp", path);
    unlink(temporary); /* of one that was killed */
    if (link(from, temporary) != 0) return false;
    bool done = rename(temporary, path) == 0;
    unlink(temporary); /* still there when both were names of one file already */
    return done;
}

static status copy_bytes(int descriptor, const char *from, struct file_writer *writer) {
    enum { BLOCK = 1 << 16 };
    static _Thread_local unsigned char block[BLOCK];
    for (;;) {
        ssize_t got = read(descriptor, block, BLOCK);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return status_errno("%s: reading failed", from);
        if (got == 0) return NULL;
        TRY(file_writer_add(writer, block, (size_t)got));
    }
}

static status copy_file(int descriptor, const char *from, const char *path) {
    struct file_writer *writer;
    TRY(file_writer_open(&writer, path));
    status s = copy_bytes(descriptor, from, writer);
    if (!s) return file_writer_commit(writer);
    file_writer_abandon(writer);
    return s;
}

status file_copy_atomic(const char *from, const char *path, bool *missing) {
    struct stat info;
    int descriptor = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    *missing = descriptor < 0 && errno == ENOENT;
    if (descriptor < 0) return status_errno("%s: cannot be read", from);
    status s = NULL;
    if (fstat(descriptor, &info) != 0 || !S_ISREG(info.st_mode))
        s = status_new(STATUS_DATA, "%s: is not a regular file", from);
    else if (give_name(from, path))
        s = sync_folder(path);
    else
        s = copy_file(descriptor, from, path);
    close(descriptor);
    return s;
}

/* --- reading ------------------------------------------------------------------------------------------------------ */

static status read_all(int descriptor, const char *path, unsigned char *data, size_t size) {
    for (size_t have = 0; have < size;) {
        ssize_t got = read(descriptor, data + have, size - have);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return status_errno("%s: reading failed", path);
        if (got == 0) return status_new(STATUS_DATA, "%s: ends after %zu of %zu bytes", path, have, size);
        have += (size_t)got;
    }
    return NULL;
}

static status read_descriptor(int descriptor, const char *path, unsigned char **data, size_t *size) {
    struct stat info;
    if (fstat(descriptor, &info) != 0) return status_errno("%s", path);
    if (!S_ISREG(info.st_mode)) return status_new(STATUS_DATA, "%s: is not a regular file", path);
    *size = (size_t)info.st_size;
    *data = malloc(*size + 1);
    if (!*data)
        return status_new(STATUS_SYSTEM, "%s: needs %zu bytes of memory, which this machine refused", path, *size);
    status s = read_all(descriptor, path, *data, *size);
    if (s) {
        free(*data);
        *data = NULL;
        return s;
    }
    (*data)[*size] = '\0';
    return NULL;
}

status file_read(const char *path, unsigned char **data, size_t *size) {
    *data = NULL;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe without a writer does not block */
    if (descriptor < 0) return status_errno("%s: cannot be read", path);
    status s = read_descriptor(descriptor, path, data, size);
    close(descriptor);
    return s;
}

static status make_directory(const char *path) {
    struct stat info;
    if (mkdir(path, 0777) == 0) return NULL;
    int saved = errno;
    if (saved == EEXIST && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) return NULL;
    errno = saved == EEXIST ? ENOTDIR : saved;
    return status_errno("%s: cannot be made", path);
}

status make_directories(const char *path) {
    char prefix[PATH_MAX];
    if (strlen(path) >= sizeof prefix) return status_new(STATUS_SYSTEM, "%.60s...: the path is too long", path);
    memcpy(prefix, path, strlen(path) + 1);
    for (char *c = prefix + 1; *path && *c; c++) {
        if (*c != '/') continue;
        *c = '\0';
        TRY(make_directory(prefix));
        *c = '/';
    }
    return make_directory(prefix);
}

/* --- SHA-256 ----------------------------------------------------------------------------------------------------- */

/* The library's own state under our name. */
static EVP_MD_CTX *state_of(struct digest *digest) { return (EVP_MD_CTX *)digest; }

/* A hash fails only where the machine has not a few hundred bytes left. What is on disk is whole at any moment; a hash
 * that is silently wrong would not be found again. */
static void must(bool good) {
    if (good) return;
    fputs("hinge: no memory for a SHA-256; the same command goes on when there is some\n", stderr);
    _Exit(STATUS_SYSTEM);
}

struct digest *digest_new(void) {
    EVP_MD_CTX *state = EVP_MD_CTX_new();
    must(state && EVP_DigestInit_ex(state, EVP_sha256(), NULL));
    return (struct digest *)state;
}

void digest_add(struct digest *digest, const void *data, size_t size) {
    must(EVP_DigestUpdate(state_of(digest), data, size));
}

void digest_finish(struct digest *digest, char hex[65]) {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned length;
    must(EVP_DigestFinal_ex(state_of(digest), bytes, &length) && length == 32);
    EVP_MD_CTX_free(state_of(digest));
    for (unsigned i = 0; i < length; i++) snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

void bytes_sha256(const void *data, size_t size, char hex[65]) {
    struct digest *digest = digest_new();
    digest_add(digest, data, size);
    digest_finish(digest, hex);
}

status file_sha256(const char *path, char hex[65]) {
    enum { BLOCK = 1 << 16 };
    FILE *file = fopen(path, "rbe");
    if (!file) return status_errno("%s: cannot be read", path);
    struct digest *digest = digest_new();
    static _Thread_local unsigned char block[BLOCK];
    size_t got;
    while ((got = fread(block, 1, BLOCK, file)) > 0) digest_add(digest, block, got);
    status s = ferror(file) ? status_errno("%s: reading failed", path) : NULL;
    digest_finish(digest, hex);
    fclose(file);
    return s;
}
