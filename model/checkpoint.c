/* checkpoint: everything that decides the next step, in one file.
 *
 *   header | weights | first moments | second moments | average | losses | SHA-256 of all before, as hex
 *
 * Native byte order: a checkpoint resumes on the machine type whose bits it continues. */
#include <stdlib.h>
#include <string.h>

#include "model/files.h"
#include "model/ranks.h"
#include "model/trainer_state.h"

enum { VERSION = 2, DIGEST_BYTES = 64, PART_COUNT = 5, FIRST_MOMENTS = 1, SECOND_MOMENTS = 2, BLOCK_BYTES = 1 << 24 };

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
                            .second_total = t->optimizer.second_whole_total,
                            .average_total = t->average.weights ? t->net.parameters.total : 0,
                            .steps_done = t->steps_done,
                            .included = t->average.included,
                            .seconds = t->seconds};
    memcpy(header.magic, MAGIC, sizeof header.magic);
    strncpy(header.key, key, sizeof header.key - 1);
    return header;
}

/* The moments of several ranks stand in none of their memories as one; ranks.h gathers them. */
static void parts_of(const struct trainer *t, const struct header *header, struct part parts[PART_COUNT]) {
    parts[0] = (struct part){t->weights, header->total * sizeof(real), true};
    parts[FIRST_MOMENTS] = (struct part){t->first, header->total * sizeof(real), true};
    parts[SECOND_MOMENTS] = (struct part){t->second, header->second_total * sizeof(real), true};
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

/* first and second: gathered from several ranks, or NULL. */
static status write_content(const struct trainer *t, const char *key, const real *first, const real *second,
                            struct file_writer *writer, struct digest *digest) {
    struct header header = header_of(t, key);
    struct part parts[PART_COUNT];
    parts_of(t, &header, parts);
    if (first) {
        parts[FIRST_MOMENTS].data = (void *)first;
        parts[SECOND_MOMENTS].data = (void *)second;
        parts[FIRST_MOMENTS].on_backend = parts[SECOND_MOMENTS].on_backend = false;
    }
    TRY(add(writer, digest, &header, sizeof header));
    for (int i = 0; i < PART_COUNT; i++) TRY(add_part(t, writer, digest, &parts[i]));
    return NULL;
}

static status write_file(const struct trainer *t, const char *path, const char *key, const real *first,
                         const real *second) {
    struct file_writer *writer;
    char hex[DIGEST_BYTES + 1];
    TRY(file_writer_open(&writer, path));
    struct digest *digest = digest_new();
    status s = write_content(t, key, first, second, writer, digest);
    digest_finish(digest, hex);
    if (!s) s = file_writer_add(writer, hex, DIGEST_BYTES);
    if (!s) return file_writer_commit(writer);
    file_writer_abandon(writer);
    return s;
}

status trainer_save(const struct trainer *t, const char *path, const char *key) {
    if (t->comm->size == 1) return write_file(t, path, key, NULL, NULL);
    real *first, *second;
    TRY(ranks_gather_moments(t, &first, &second));
    status s = t->comm->rank == 0 ? write_file(t, path, key, first, second) : NULL;
    free(first), free(second);
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

static void put_part(struct trainer *t, const struct part *part, const unsigned char *from) {
    if (part->on_backend)
        t->ops->upload(t->lanes, part->data, from, part->bytes);
    else
        memcpy(part->data, from, part->bytes);
}

static status restore(struct trainer *t, const char *path, const char *key, const unsigned char *data, size_t size) {
    struct header header;
    struct part parts[PART_COUNT];
    if (size < sizeof header) return refused(path, "it is too short");
    memcpy(&header, data, sizeof header);
    TRY(check_header(t, path, key, &header));
    parts_of(t, &header, parts);
    TRY(check_content(path, parts, data, size));
    const unsigned char *at[PART_COUNT] = {data + sizeof header};
    for (int i = 1; i < PART_COUNT; i++) at[i] = at[i - 1] + parts[i - 1].bytes;
    for (int i = 0; i < PART_COUNT; i++)
        if (parts[i].bytes && i != FIRST_MOMENTS && i != SECOND_MOMENTS) put_part(t, &parts[i], at[i]);
    ranks_keep_moments(t, (const real *)at[FIRST_MOMENTS], (const real *)at[SECOND_MOMENTS]);
    t->steps_done = header.steps_done;
    t->average.included = header.included;
    t->seconds = header.seconds;
    return NULL;
}

status trainer_load(struct trainer *t, const char *path, const char *key) {
    unsigned char *data = NULL;
    size_t size = 0;
    TRY(ranks_share_file(t, t->comm->rank == 0 ? file_read(path, &data, &size) : NULL, &data, &size));
    status s = restore(t, path, key, data, size);
    free(data);
    return s;
}
