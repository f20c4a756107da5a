/* shards: token files; see shards.h. */
#include "model/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "shards are read and written as they lie in memory");

enum { MAGIC = 20240520, VERSION = 1 };

struct header {
    int32_t magic, version, tokens, zeros[253];
};
_Static_assert(sizeof(struct header) == SHARD_HEADER_BYTES, "a header is 256 int32");

void shard_name(char *out, size_t size, const char *name, const char *split, size_t index) {
    snprintf(out, size, "%s_%s_%06zu.bin", name, split, index);
}

static status write_one(const char *path, const uint16_t *tokens, size_t count) {
    struct header header = {MAGIC, VERSION, (int32_t)count, {0}};
    struct file_writer *writer;
    TRY(file_writer_open(&writer, path));
    status s = file_writer_add(writer, &header, sizeof header);
    if (!s) s = file_writer_add(writer, tokens, count * sizeof *tokens);
    if (!s) return file_writer_commit(writer);
    file_writer_abandon(writer);
    return s;
}

status shards_write(const char *directory, const char *name, const char *split, const uint16_t *tokens, size_t count,
                    size_t most, size_t *shards) {
    *shards = 0;
    for (size_t start = 0; start < count; start += most) {
        char file[256], path[4096 + 256];
        shard_name(file, sizeof file, name, split, (*shards)++);
        snprintf(path, sizeof path, "%s/%s", directory, file);
        TRY(write_one(path, tokens + start, count - start < most ? count - start : most));
    }
    return NULL;
}

static status read_exactly(int fd, const char *path, void *out, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t got = read(fd, (char *)out + done, size - done);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return status_errno("%s: cannot be read", path);
        if (got == 0) return status_new(STATUS_DATA, "%s: ends %zu bytes too early", path, size - done);
        done += (size_t)got;
    }
    return NULL;
}

static status open_shard(const char *path, int *fd) {
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd >= 0) return NULL;
    if (errno == ENOENT) return status_new(STATUS_DATA, "%s: shard is missing; prepare the data again", path);
    return status_errno("%s: cannot be read", path);
}

static status check(const char *path, const struct header *header, size_t size) {
    if (header->magic != MAGIC)
        return status_new(STATUS_DATA, "%s: magic number %d, expected %d: no token shard", path, header->magic, MAGIC);
    if (header->version != VERSION)
        return status_new(STATUS_DATA, "%s: shard version %d, expected %d", path, header->version, VERSION);
    if (header->tokens < 0) return status_new(STATUS_DATA, "%s: token count %d", path, header->tokens);
    size_t expected = SHARD_HEADER_BYTES + (size_t)header->tokens * sizeof(uint16_t);
    if (size != expected)
        return status_new(STATUS_DATA, "%s: %zu bytes, expected %zu for the %d tokens of its header: %s", path, size,
                          expected, header->tokens, size < expected ? "truncated" : "too long");
    return NULL;
}

static status count_open(int fd, const char *path, size_t *tokens) {
    struct stat info;
    if (fstat(fd, &info) != 0) return status_errno("%s: cannot be read", path);
    if (info.st_size < SHARD_HEADER_BYTES)
        return status_new(STATUS_DATA, "%s: %lld bytes, less than a shard's header of %d: truncated", path,
                          (long long)info.st_size, SHARD_HEADER_BYTES);
    struct header header;
    TRY(read_exactly(fd, path, &header, sizeof header));
    TRY(check(path, &header, (size_t)info.st_size));
    *tokens = (size_t)header.tokens;
    return NULL;
}

status shard_count(const char *path, size_t *tokens) {
    int fd;
    TRY(open_shard(path, &fd));
    status s = count_open(fd, path, tokens);
    close(fd);
    return s;
}

status shard_read(const char *path, uint16_t *tokens, size_t count, char sha256[65]) {
    int fd;
    TRY(open_shard(path, &fd));
    struct header header;
    status s = read_exactly(fd, path, &header, sizeof header);
    if (!s) s = read_exactly(fd, path, tokens, count * sizeof *tokens);
    close(fd);
    if (s) return s;
    struct digest *digest = digest_new();
    digest_add(digest, &header, sizeof header);
    digest_add(digest, tokens, count * sizeof *tokens);
    digest_finish(digest, sha256);
    return NULL;
}
