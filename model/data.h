/* data: prepared text: token shards, their tokenizer, and a manifest with the SHA-256 of everything.
 *
 * A dataset is a folder NAME under the data root: NAME_train_000000.bin, NAME_val_000000.bin, tokenizer.model,
 * manifest.json. Shards are 256 little-endian int32 (magic 20240520, version 1, token count, zeros), then uint16
 * tokens: the format of modded-nanogpt and parameter-golf. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"
#include "model/options.h"

enum { BOS_ID = 1 };

struct token_stream {
    const uint16_t *tokens; /* all shards of a split end to end; every id is below vocab_size */
    size_t count;
};

struct dataset {
    char name[TEXT_CAPACITY];
    char sha256[65]; /* of the hashes of tokenizer and shards, wherever they lie: part of every training's key */
    char directory[4096];
    size_t vocab_size;
    struct token_stream train, validation; /* owned, as all pointers here */
    /* (V) UTF-8 bytes without a leading U+2581, where each further U+2581 is the one space that it stands for; 1 for
     * byte-fallback; 0 for boundary tokens */
    uint8_t *token_bytes;
    uint8_t *token_space;    /* (V) 1 when the piece starts with U+2581 */
    uint8_t *token_boundary; /* (V) 1 for control, unknown and unused tokens */
    double unigram_nll;      /* nats per validation token of the train split's unigram model (add-one smoothed) */
    double bytes_per_token;  /* of the validation split */
};

/* Opens ROOT/NAME and checks every shard's header, length, hash and ids against the manifest and the tokenizer. The
 * tokens are read into memory (2 bytes each), so that what was checked is what is used. */
status dataset_open(struct dataset *dataset, const char *root, const char *name);
void dataset_close(struct dataset *dataset);

struct prepare_request {
    const char *root, *name; /* where the dataset is made */
    const char *text;        /* a file (plain or gzip) or a folder, as documents.h reads them; NULL: GCIDE */
    int vocab_size;
    double held_out; /* share of documents, by a hash of the document: 0.05 */
    void (*progress)(void *context, const char *what, double fraction); /* NULL: none; called from one thread */
    void *context;
};

/* Text -> documents -> tokenizer, shards, manifest. The same input gives the same bytes. The folder appears under its
 * name when it is complete. Done before from the same text with the same settings: returns at once; with others: an
 * error. That the bytes of each document's tokens add up to its own is checked here, document by document. */
status dataset_prepare(const struct prepare_request *request);

/* Registers existing shards *_train_*.bin and *_val_*.bin (linked, not copied) with their tokenizer (copied). */
status dataset_add(const char *root, const char *name, const char *shard_directory, const char *tokenizer);

struct tokenizer;
/* Fills vocab_size, token_bytes, token_space and token_boundary; on failure they are freed by dataset_close. */
status dataset_token_tables(struct dataset *dataset, const struct tokenizer *tokenizer);

struct manifest;
/* Loads the files that the manifest names in dataset->directory, holds them against it, and fills the rest of the
 * dataset. A manifest without an identity (sha256 "") is filled from the files instead. */
status dataset_load(struct dataset *dataset, struct manifest *manifest);

/* UTF-8 bytes of a stretch of tokens; `previous` is the id before it. */
size_t dataset_bytes(const struct dataset *dataset, const uint16_t *tokens, size_t count, uint16_t previous);

/* The batch of a step: windows of `time` inputs and targets, `sequences` of them, from the train split. Depends on
 * (order, seed, step) alone, so that a resumed run sees what it would have seen. */
struct batch_plan { /* owns its permutation alone */
    const struct token_stream *stream;
    size_t time, sequences; /* of the whole batch */
    int order;              /* DATA_SEQUENTIAL or DATA_SHUFFLED */
    uint64_t seed;
    uint32_t *permutation; /* of the current epoch */
    int64_t epoch;
    size_t windows;
};
status batch_plan_create(struct batch_plan *plan, const struct token_stream *stream, size_t time, size_t sequences,
                         int order, uint64_t seed);
void batch_plan_destroy(struct batch_plan *plan);
void batch_fill(struct batch_plan *plan, int64_t step, int32_t *ids, int32_t *targets);

/* UTF-8 bytes that token `id` adds after token `previous` (spec: BPB). */
static inline unsigned token_byte_count(const struct dataset *d, uint16_t id, uint16_t previous) {
    return d->token_bytes[id] + (d->token_space[id] && !d->token_boundary[previous] ? 1u : 0u);
}
