/* data: loading a dataset and holding its files against its manifest; see data.h. */
#include "model/data.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "model/files.h"
#include "model/manifest.h"
#include "model/options.h"
#include "model/shards.h"
#include "model/tokenizer.h"

enum { PATH = 4096 + MANIFEST_FILE_NAME, IDS = UINT16_MAX + 1 };

static const char space_mark[] = "\u2581";
enum { SPACE_MARK_BYTES = sizeof space_mark - 1 };

static void file_path(char out[PATH], const struct dataset *d, const struct manifest_file *file) {
    snprintf(out, PATH, "%s/%s", d->directory, file->name);
}

/* --- token tables ------------------------------------------------------------------------------------------------ */

/* Bytes of text that a piece stands for, where each U+2581 inside is one space. */
static size_t text_bytes(const char *piece) {
    size_t bytes = strlen(piece);
    for (const char *p = piece; (p = strstr(p, space_mark)); p += SPACE_MARK_BYTES) bytes -= SPACE_MARK_BYTES - 1;
    return bytes;
}

static status describe_piece(struct dataset *d, size_t id, struct piece piece) {
    d->token_boundary[id] = piece.control || piece.unknown || piece.unused;
    if (d->token_boundary[id]) return NULL;
    if (piece.byte) {
        d->token_bytes[id] = 1;
        return NULL;
    }
    d->token_space[id] = !strncmp(piece.text, space_mark, SPACE_MARK_BYTES);
    size_t bytes = text_bytes(piece.text) - d->token_space[id];
    if (bytes > UINT8_MAX)
        return status_new(STATUS_DATA, "tokenizer: piece %zu stands for %zu bytes, at most %d can be counted", id,
                          bytes, UINT8_MAX);
    d->token_bytes[id] = (uint8_t)bytes;
    return NULL;
}

status dataset_token_tables(struct dataset *d, const struct tokenizer *tokenizer) {
    d->vocab_size = tokenizer_vocab_size(tokenizer);
    if (d->vocab_size > IDS)
        return status_new(STATUS_DATA, "tokenizer: %zu pieces, but shards hold ids of at most %d", d->vocab_size,
                          UINT16_MAX);
    d->token_bytes = calloc(d->vocab_size, 1);
    d->token_space = calloc(d->vocab_size, 1);
    d->token_boundary = calloc(d->vocab_size, 1);
    if (!d->token_bytes || !d->token_space || !d->token_boundary)
        return status_new(STATUS_SYSTEM, "no memory left for the tables of %zu tokens", d->vocab_size);
    for (size_t id = 0; id < d->vocab_size; id++) TRY(describe_piece(d, id, tokenizer_piece(tokenizer, id)));
    return NULL;
}

size_t dataset_bytes(const struct dataset *d, const uint16_t *tokens, size_t count, uint16_t previous) {
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++) {
        bytes += token_byte_count(d, tokens[i], previous);
        previous = tokens[i];
    }
    return bytes;
}

/* --- files against the manifest ---------------------------------------------------------------------------------- */

/* Fills a file's row that was not measured yet, or holds what was found against it. */
static status hold(struct manifest_file *file, const char *path, size_t size, size_t tokens, const char sha256[65]) {
    if (!file->sha256[0]) {
        file->size = size;
        file->tokens = tokens;
        memcpy(file->sha256, sha256, sizeof file->sha256);
        return NULL;
    }
    if (size != file->size || tokens != file->tokens)
        return status_new(STATUS_DATA, "%s: %zu bytes and %zu tokens, the manifest says %zu and %zu: prepare it again",
                          path, size, tokens, file->size, file->tokens);
    if (strcmp(sha256, file->sha256))
        return status_new(STATUS_DATA, "%s: SHA-256 %s, the manifest says %s: the file was changed; prepare it again",
                          path, sha256, file->sha256);
    return NULL;
}

static status load_tokenizer(struct dataset *d, struct manifest *m) {
    char path[PATH], sha256[65];
    struct stat info;
    file_path(path, d, &m->tokenizer);
    if (stat(path, &info) != 0) return status_errno("%s: tokenizer cannot be read", path);
    TRY(file_sha256(path, sha256));
    TRY(hold(&m->tokenizer, path, (size_t)info.st_size, 0, sha256));
    struct tokenizer *tokenizer;
    TRY(tokenizer_load(&tokenizer, path));
    status s = dataset_token_tables(d, tokenizer);
    tokenizer_free(tokenizer);
    if (!s && m->sha256[0] && d->vocab_size != m->vocab_size)
        s = status_new(STATUS_DATA, "tokenizer of %zu pieces, the manifest says %zu", d->vocab_size, m->vocab_size);
    return s ? status_context(s, "%s", path) : NULL;
}

/* Counts the ids of a shard; one beyond the vocabulary is refused with its place. */
static status count_ids(const struct dataset *d, const char *path, const uint16_t *tokens, size_t count,
                        uint64_t counts[IDS]) {
    unsigned highest = 0;
    for (size_t i = 0; i < count; i++) highest = tokens[i] > highest ? tokens[i] : highest;
    if (highest < d->vocab_size) {
        for (size_t i = 0; i < count; i++) counts[tokens[i]]++;
        return NULL;
    }
    size_t place = 0;
    while (tokens[place] < d->vocab_size) place++;
    return status_new(STATUS_DATA, "%s: token %zu has id %u, but the tokenizer has %zu pieces: not its tokenizer", path,
                      place, tokens[place], d->vocab_size);
}

static status load_shard(const struct dataset *d, struct manifest_file *file, uint16_t *tokens, size_t count,
                         uint64_t counts[IDS]) {
    char path[PATH], sha256[65];
    file_path(path, d, file);
    TRY(shard_read(path, tokens, count, sha256));
    TRY(hold(file, path, SHARD_HEADER_BYTES + count * sizeof *tokens, count, sha256));
    return count_ids(d, path, tokens, count, counts);
}

static status load_shards(const struct dataset *d, struct manifest_split *split, const size_t *shard_tokens,
                          uint16_t *tokens, uint64_t counts[IDS]) {
    for (size_t i = 0; i < split->shard_count; i++) {
        TRY(load_shard(d, &split->shards[i], tokens, shard_tokens[i], counts));
        tokens += shard_tokens[i];
    }
    return NULL;
}

static status count_shards(const struct dataset *d, const struct manifest_split *split, size_t *shard_tokens,
                           size_t *total) {
    *total = 0;
    for (size_t i = 0; i < split->shard_count; i++) {
        char path[PATH];
        file_path(path, d, &split->shards[i]);
        TRY(shard_count(path, &shard_tokens[i]));
        *total += shard_tokens[i];
    }
    return *total ? NULL : status_new(STATUS_DATA, "%s: a split without tokens", d->directory);
}

/* stream takes ownership of the tokens even when the load fails. */
static status load_split(const struct dataset *d, struct manifest_split *split, struct token_stream *stream,
                         uint64_t counts[IDS]) {
    size_t *shard_tokens = calloc(split->shard_count + 1, sizeof *shard_tokens);
    if (!shard_tokens) return status_new(STATUS_SYSTEM, "no memory left for %zu shards", split->shard_count);
    uint16_t *tokens = NULL;
    status s = count_shards(d, split, shard_tokens, &stream->count);
    if (!s) tokens = malloc(stream->count * sizeof *tokens);
    if (!s && !tokens)
        s = status_new(STATUS_SYSTEM, "%s: no memory left for %zu tokens of 2 bytes", d->directory, stream->count);
    stream->tokens = tokens;
    if (!s) s = load_shards(d, split, shard_tokens, tokens, counts);
    free(shard_tokens);
    return s;
}

/* --- statistics -------------------------------------------------------------------------------------------------- */

/* Add-one smoothed unigram model of the train split, scored on the validation split. */
static double unigram_nll(const struct dataset *d, const uint64_t *train, const uint64_t *validation) {
    double nll = 0, total = (double)(d->train.count + d->vocab_size);
    for (size_t id = 0; id < d->vocab_size; id++)
        if (validation[id]) nll -= (double)validation[id] * log((double)(train[id] + 1) / total);
    return nll / (double)d->validation.count;
}

static void measure_split(const struct dataset *d, struct manifest_split *split, const struct token_stream *stream,
                          const uint64_t *counts) {
    split->documents = counts[BOS_ID];
    split->tokens = stream->count;
    split->bytes = dataset_bytes(d, stream->tokens, stream->count, BOS_ID);
}

static void measure(const struct dataset *d, struct manifest *m, uint64_t (*counts)[IDS]) {
    m->vocab_size = d->vocab_size;
    measure_split(d, &m->splits[SPLIT_TRAIN], &d->train, counts[SPLIT_TRAIN]);
    measure_split(d, &m->splits[SPLIT_VALIDATION], &d->validation, counts[SPLIT_VALIDATION]);
    m->unigram_nll = d->unigram_nll;
    m->bytes_per_token = d->bytes_per_token;
}

/* --- open -------------------------------------------------------------------------------------------------------- */

static status load_counted(struct dataset *d, struct manifest *m, uint64_t (*counts)[IDS]) {
    TRY(load_tokenizer(d, m));
    TRY(load_split(d, &m->splits[SPLIT_TRAIN], &d->train, counts[SPLIT_TRAIN]));
    TRY(load_split(d, &m->splits[SPLIT_VALIDATION], &d->validation, counts[SPLIT_VALIDATION]));
    size_t bytes = dataset_bytes(d, d->validation.tokens, d->validation.count, BOS_ID);
    d->bytes_per_token = (double)bytes / (double)d->validation.count;
    d->unigram_nll = unigram_nll(d, counts[SPLIT_TRAIN], counts[SPLIT_VALIDATION]);
    manifest_identity(m, d->sha256);
    if (!m->sha256[0]) {
        measure(d, m, counts);
        memcpy(m->sha256, d->sha256, sizeof m->sha256);
    }
    if (!strcmp(m->sha256, d->sha256)) return NULL;
    return status_new(STATUS_DATA, "%s/manifest.json: identity %s, but its files make %s: prepare the data again",
                      d->directory, m->sha256, d->sha256);
}

status dataset_load(struct dataset *dataset, struct manifest *manifest) {
    uint64_t(*counts)[IDS] = calloc(SPLITS, sizeof *counts);
    if (!counts) return status_new(STATUS_SYSTEM, "no memory left for counts of %d ids", IDS);
    status s = load_counted(dataset, manifest, counts);
    free(counts);
    return s;
}

static status no_dataset(const char *root, const char *name) {
    struct config defaults;
    config_defaults(&defaults);
    if (!strcmp(name, defaults.data_name))
        return status_new(STATUS_DATA, "%s/%s: no prepared text of this name; make it with: hinge data prepare", root,
                          name);
    return status_new(STATUS_DATA,
                      "%s/%s: no prepared text of this name; register its shards with: hinge data add DIR --tokenizer "
                      "FILE --name %s, or make it from a text with: hinge data prepare --text FILE --name %s",
                      root, name, name, name);
}

status dataset_open(struct dataset *dataset, const char *root, const char *name) {
    *dataset = (struct dataset){0};
    char path[PATH];
    snprintf(dataset->name, sizeof dataset->name, "%s", name);
    snprintf(dataset->directory, sizeof dataset->directory, "%s/%s", root, name);
    snprintf(path, sizeof path, "%s/manifest.json", dataset->directory);
    if (access(path, F_OK) != 0 && errno == ENOENT) return no_dataset(root, name);
    struct manifest manifest;
    TRY(manifest_read(&manifest, path));
    status s = dataset_load(dataset, &manifest);
    manifest_free(&manifest);
    if (s) dataset_close(dataset);
    return s;
}

void dataset_close(struct dataset *dataset) {
    free((void *)dataset->train.tokens);
    free((void *)dataset->validation.tokens);
    free(dataset->token_bytes);
    free(dataset->token_space);
    free(dataset->token_boundary);
    *dataset = (struct dataset){0};
}
