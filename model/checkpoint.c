/* checkpoint: everything that decides the next step, in one file.
 *
 *   header | weights | first moments | second moments | average | losses | SHA-256 of all before, as hex
 *
 * Native byte order: a checkpoint resumes on the machine type whose bits it continues. */
#include <stdlib.h>
#include <string.h>

#include "model/files.h"
#include "model/trainer_state.h"

enum { VERSION = 1, DIGEST_BYTES = 64, PART_COUNT = 5, BLOCK_BYTES = 1 << 24 };

struct header {
    char magic[8];
    uint32_t version, real_bytes;
    char key[72];
    uint64_t total, second_total, average_total; /* reals */
    int64_t steps_done, included;
    double seconds;
};

struct part {
    void *data;
    size_t bytes;
    bool on_backend; /* in its memory; else the host's */
};

static const char MAGIC[8] = {'H', 'I', 'N', 'G', 'E', 'C', 'K', 'P'};

static struct header header_of(const struct trainer *t, const char *key) {
    struct header header = {.version = VERSION,
                            .real_bytes = sizeof(real),
                            .total = t->net.parameters.total,
                            .second_total = t->optimizer.second_total,
                            .average_total = t->average.weights ? t->net.parameters.total : 0,
                            .steps_done = t->steps_done,
                            .included = t->average.included,
                            .seconds = t->seconds};
    memcpy(header.magic, MAGIC, sizeof header.magic);
    strncpy(header.key, key, sizeof header.key - 1);
    return header;
}

static void parts_of(const struct trainer *t, const struct header *header, struct part parts[PART_COUNT]) {
    parts[0] = (struct part){t->weights, header->total * sizeof(real), true};
    parts[1] = (struct part){t->first, header->total * sizeof(real), true};
    parts[2] = (struct part){t->second, header->second_total * sizeof(real), true};
    parts[3] = (struct part){t->average.weights, header->average_total * sizeof(real), true};
    parts[4] = (struct part){t->losses, (size_t)header->steps_done * sizeof(double), false};
}

/* --- saving ------------------------------------------------------------------------------------------------------ */

static status add(struct file_writer *writer, struct digest *digest, const void *data, size_t bytes) {
    if (bytes == 0) return NULL;
    digest_add(digest, data, bytes);
    return file_writer_add(writer, data, bytes);
}

/* Through the host's memory, a block at a time. */
static status add_part(const struct trainer *t, struct file_writer *writer, struct digest *digest,
                       const struct part *part) {
    if (!part->on_backend || !t->ops->device_memory) return add(writer, digest, part->data, part->bytes);
    unsigned char *block = malloc(BLOCK_BYTES);
    status s = block ? NULL : status_new(STATUS_SYSTEM, "checkpoint: out of memory");
    for (size_t start = 0; start < part->bytes && !s; start += BLOCK_BYTES) {
        size_t left = part->bytes - start, bytes = left < BLOCK_BYTES ? left : BLOCK_BYTES;
        t->ops->download(t->lanes, block, (unsigned char *)part->data + start, bytes);
        s = add(writer, digest, block, bytes);
    }
    free(block);
    return s ? s : t->ops->finish(t->lanes);
}

static status write_content(const struct trainer *t, const char *key, struct file_writer *writer,
                            struct digest *digest) {
    struct header header = header_of(t, key);
    struct part parts[PART_COUNT];
    parts_of(t, &header, parts);
    TRY(add(writer, digest, &header, sizeof header));
    for (int i = 0; i < PART_COUNT; i++) TRY(add_part(t, writer, digest, &parts[i]));
    return NULL;
}

status trainer_save(const struct trainer *t, const char *path, const char *key) {
    struct file_writer *writer;
    char hex[DIGEST_BYTES + 1];
    TRY(file_writer_open(&writer, path));
    struct digest *digest = digest_new();
    status s = write_content(t, key, writer, digest);
    digest_finish(digest, hex);
    if (!s) s = file_writer_add(writer, hex, DIGEST_BYTES);
    if (!s) return file_writer_commit(writer);
    file_writer_abandon(writer);
    return s;
}

/* --- loading ----------------------------------------------------------------------------------------------------- */

static status refused(const char *path, const char *problem) {
    return status_new(STATUS_DATA, "%s: not a checkpoint of this training: %s; remove it to begin again", path,
                      problem);
}

static status check_header(const struct trainer *t, const char *path, const char *key, const struct header *header) {
    struct header own = header_of(t, key);
    if (memcmp(header->magic, own.magic, sizeof own.magic) != 0) return refused(path, "it begins with other bytes");
    if (header->version != own.version) return refused(path, "it is of another version");
    if (header->real_bytes != own.real_bytes) return refused(path, "its numbers have another width");
    if (memcmp(header->key, own.key, sizeof own.key) != 0) return refused(path, "it has another key");
    if (header->total != own.total || header->second_total != own.second_total ||
        header->average_total != own.average_total)
        return refused(path, "its model has another size");
    if (header->steps_done < 0 || (uint64_t)header->steps_done > t->loss_capacity)
        return refused(path, "its step lies outside the training");
    return NULL;
}

static status check_content(const char *path, const struct part parts[PART_COUNT], const unsigned char *data,
                            size_t size) {
    char hex[DIGEST_BYTES + 1];
    size_t wanted = sizeof(struct header) + DIGEST_BYTES;
    for (int i = 0; i < PART_COUNT; i++) wanted += parts[i].bytes;
    if (size != wanted) return refused(path, "it has another length");
    bytes_sha256(data, size - DIGEST_BYTES, hex);
    if (memcmp(hex, data + size - DIGEST_BYTES, DIGEST_BYTES) != 0)
        return refused(path, "its content does not match its SHA-256");
    return NULL;
}

static status restore(struct trainer *t, const char *path, const char *key, const unsigned char *data, size_t size) {
    struct header header;
    struct part parts[PART_COUNT];
    if (size < sizeof header) return refused(path, "it is too short");
    memcpy(&header, data, sizeof header);
    TRY(check_header(t, path, key, &header));
    parts_of(t, &header, parts);
    TRY(check_content(path, parts, data, size));
    const unsigned char *at = data + sizeof header;
    for (int i = 0; i < PART_COUNT; at += parts[i].bytes, i++)
        if (parts[i].bytes && parts[i].on_backend)
            t->ops->upload(t->lanes, parts[i].data, at, parts[i].bytes);
        else if (parts[i].bytes)
            memcpy(parts[i].data, at, parts[i].bytes);
    t->steps_done = header.steps_done;
    t->average.included = header.included;
    t->seconds = header.seconds;
    return NULL;
}

status trainer_load(struct trainer *t, const char *path, const char *key) {
    unsigned char *data;
    size_t size;
    TRY(file_read(path, &data, &size));
    status s = restore(t, path, key, data, size);
    free(data);
    return s;
}
