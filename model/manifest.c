/* manifest: manifest.json; see manifest.h. */
#include "model/manifest.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "model/files.h"
#include "model/tokenizer.h"

enum { FORMAT = 1 };

const char *const split_names[SPLITS] = {"train", "validation"};
const char *const split_file_names[SPLITS] = {"train", "val"};

static void add_hash(struct digest *digest, const char *what, const struct manifest_file *file) {
    digest_add(digest, what, strlen(what));
    digest_add(digest, file->sha256, strlen(file->sha256));
}

void manifest_identity(const struct manifest *manifest, char sha256[65]) {
    struct digest *digest = digest_new();
    add_hash(digest, "tokenizer ", &manifest->tokenizer);
    for (int i = 0; i < SPLITS; i++)
        for (size_t k = 0; k < manifest->splits[i].shard_count; k++)
            add_hash(digest, split_names[i], &manifest->splits[i].shards[k]);
    digest_finish(digest, sha256);
}

status manifest_add_shard(struct manifest_split *split, const char *name) {
    if (strlen(name) >= MANIFEST_FILE_NAME) return status_new(STATUS_USAGE, "%s: name longer than 255 bytes", name);
    void *grown = realloc(split->shards, (split->shard_count + 1) * sizeof *split->shards);
    if (!grown) return status_new(STATUS_SYSTEM, "no memory left for a list of %zu shards", split->shard_count + 1);
    split->shards = grown;
    struct manifest_file *file = &split->shards[split->shard_count++];
    *file = (struct manifest_file){0};
    memcpy(file->name, name, strlen(name));
    return NULL;
}

void manifest_free(struct manifest *manifest) {
    for (int i = 0; i < SPLITS; i++) free(manifest->splits[i].shards);
    *manifest = (struct manifest){0};
}

/* --- writing ----------------------------------------------------------------------------------------------------- */

static json_t *whole(size_t number) { return json_integer((json_int_t)number); }

static json_t *file_json(const struct manifest_file *file) {
    return json_pack("{s:s, s:o, s:s}", "file", file->name, "size", whole(file->size), "sha256", file->sha256);
}

static json_t *split_json(const struct manifest_split *split) {
    json_t *shards = json_array();
    for (size_t i = 0; i < split->shard_count; i++) {
        json_t *shard = file_json(&split->shards[i]);
        json_object_set_new(shard, "tokens", whole(split->shards[i].tokens));
        json_array_append_new(shards, shard);
    }
    return json_pack("{s:o, s:o, s:o, s:o}", "documents", whole(split->documents), "tokens", whole(split->tokens),
                     "bytes", whole(split->bytes), "shards", shards);
}

static json_t *tokenizer_json(const struct manifest *m) {
    json_t *tokenizer = file_json(&m->tokenizer);
    json_object_set_new(tokenizer, "sample_bytes", whole(m->tokenizer_sample_bytes));
    if (m->tokenizer_sample_bytes == 0) return tokenizer;
    json_t *settings = json_object();
    for (const struct sentencepiece_option *o = tokenizer_settings(); o->name; o++)
        json_object_set_new(settings, o->name, json_string(o->value));
    json_object_set_new(tokenizer, "settings", settings);
    return tokenizer;
}

static json_t *source_json(const struct manifest *m) {
    return json_pack("{s:s, s:s, s:o, s:o}", "text", m->source, "sha256", m->source_sha256, "bytes",
                     whole(m->source_bytes), "replaced_bytes", whole(m->replaced_bytes));
}

static json_t *unigram_json(const struct manifest *m) {
    return json_pack("{s:f, s:f, s:f}", "nats_per_token", m->unigram_nll, "bytes_per_token", m->bytes_per_token,
                     "bits_per_byte", m->unigram_nll / log(2.0) / m->bytes_per_token);
}

status manifest_write(const struct manifest *m, const char *path) {
    json_t *root =
        json_pack("{s:i, s:s, s:s, s:o, s:f, s:o, s:o, s:o, s:o, s:o}", "format", FORMAT, "name", m->name, "sha256",
                  m->sha256, "source", source_json(m), "held_out", m->held_out, "vocab_size", whole(m->vocab_size),
                  "tokenizer", tokenizer_json(m), split_names[SPLIT_TRAIN], split_json(&m->splits[SPLIT_TRAIN]),
                  split_names[SPLIT_VALIDATION], split_json(&m->splits[SPLIT_VALIDATION]), "unigram", unigram_json(m));
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    if (!text) return status_new(STATUS_SYSTEM, "%s: cannot be written: a name in it is no UTF-8", path);
    status s = file_write_atomic(path, text, strlen(text));
    free(text);
    return s;
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

/* Copies a text that json_unpack found; false when it does not fit. */
static bool take(char *out, size_t capacity, const char *text) {
    if (strlen(text) >= capacity) return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static bool is_sha256(const char *text) { return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64; }

static bool take_file(struct manifest_file *file, json_t *json, json_error_t *error) {
    const char *name, *sha256;
    json_int_t size;
    if (json_unpack_ex(json, error, 0, "{s:s, s:I, s:s}", "file", &name, "size", &size, "sha256", &sha256))
        return false;
    snprintf(error->text, sizeof error->text, "file \"%.80s\": name, size or hash is none", name);
    if (!*name || strchr(name, '/') || size < 0 || !is_sha256(sha256)) return false;
    file->size = (size_t)size;
    return take(file->name, sizeof file->name, name) && take(file->sha256, sizeof file->sha256, sha256);
}

static bool take_split(struct manifest_split *split, json_t *json, json_error_t *error) {
    json_int_t documents, tokens, bytes, shard_tokens;
    json_t *shards, *shard;
    size_t i;
    if (json_unpack_ex(json, error, 0, "{s:I, s:I, s:I, s:o}", "documents", &documents, "tokens", &tokens, "bytes",
                       &bytes, "shards", &shards))
        return false;
    split->shards = calloc(json_array_size(shards) + 1, sizeof *split->shards);
    if (!split->shards) return false;
    json_array_foreach(shards, i, shard) {
        if (json_unpack_ex(shard, error, 0, "{s:I}", "tokens", &shard_tokens)) return false;
        if (!take_file(&split->shards[i], shard, error)) return false;
        split->shards[i].tokens = (size_t)shard_tokens;
        split->shard_count++;
    }
    split->documents = (size_t)documents;
    split->tokens = (size_t)tokens;
    split->bytes = (size_t)bytes;
    return true;
}

static bool take_numbers(struct manifest *m, json_t *root, json_error_t *error) {
    json_int_t vocab_size, source_bytes, replaced, sample;
    if (json_unpack_ex(root, error, 0, "{s:F, s:I, s:{s:I, s:I}, s:{s:I}, s:{s:F, s:F}}", "held_out", &m->held_out,
                       "vocab_size", &vocab_size, "source", "bytes", &source_bytes, "replaced_bytes", &replaced,
                       "tokenizer", "sample_bytes", &sample, "unigram", "nats_per_token", &m->unigram_nll,
                       "bytes_per_token", &m->bytes_per_token))
        return false;
    m->vocab_size = (size_t)vocab_size;
    m->source_bytes = (size_t)source_bytes;
    m->replaced_bytes = (size_t)replaced;
    m->tokenizer_sample_bytes = (size_t)sample;
    return true;
}

static bool take_manifest(struct manifest *m, json_t *root, json_error_t *error) {
    int format;
    const char *name, *sha256, *source, *source_sha256;
    json_t *tokenizer, *splits[SPLITS];
    if (json_unpack_ex(root, error, 0, "{s:i, s:s, s:s, s:{s:s, s:s}, s:o, s:o, s:o}", "format", &format, "name", &name,
                       "sha256", &sha256, "source", "text", &source, "sha256", &source_sha256, "tokenizer", &tokenizer,
                       split_names[SPLIT_TRAIN], &splits[SPLIT_TRAIN], split_names[SPLIT_VALIDATION],
                       &splits[SPLIT_VALIDATION]))
        return false;
    snprintf(error->text, sizeof error->text, "format %d, expected %d, or a text too long", format, FORMAT);
    if (format != FORMAT || !take(m->name, sizeof m->name, name) || !take(m->sha256, sizeof m->sha256, sha256) ||
        !take(m->source, sizeof m->source, source) || !take(m->source_sha256, sizeof m->source_sha256, source_sha256))
        return false;
    return take_numbers(m, root, error) && take_file(&m->tokenizer, tokenizer, error) &&
           take_split(&m->splits[SPLIT_TRAIN], splits[SPLIT_TRAIN], error) &&
           take_split(&m->splits[SPLIT_VALIDATION], splits[SPLIT_VALIDATION], error);
}

status manifest_read(struct manifest *manifest, const char *path) {
    *manifest = (struct manifest){0};
    if (access(path, R_OK) != 0) return status_errno("%s: cannot be read", path);
    json_error_t error = {0};
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    bool taken = root && take_manifest(manifest, root, &error);
    json_decref(root);
    if (taken) return NULL;
    manifest_free(manifest);
    if (!*error.text) return status_new(STATUS_SYSTEM, "%s: no memory to read it", path); /* nothing is wrong in it */
    return status_new(STATUS_DATA, "%s: no valid manifest: %s; prepare the data again", path, error.text);
}
