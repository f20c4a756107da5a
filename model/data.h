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
    char name[TEXT_CAPACITY], sha256[65]; /* the hash of the manifest's content: part of every training's key */
    char directory[4096];
    size_t vocab_size;
    struct token_stream train, validation;
    uint8_t *token_bytes;    /* (V) UTF-8 bytes without a leading U+2581; 1 for byte-fallback; 0 for boundary tokens */
    uint8_t *token_space;    /* (V) 1 when the piece starts with U+2581 */
    uint8_t *token_boundary; /* (V) 1 for control, unknown and unused tokens */
    double unigram_nll;      /* nats per validation token of the train split's unigram model (add-one smoothed) */
    double bytes_per_token;  /* of the validation split */
    void *owner;             /* mappings, freed by dataset_close */
};

/* Opens ROOT/NAME, checks every shard's header, length, hashes and ids against the manifest and the tokenizer. */
status dataset_open(struct dataset *dataset, const char *root, const char *name);
void dataset_close(struct dataset *dataset);

struct prepare_request {
    const char *root, *name; /* where the dataset is made */
    const char *text;        /* a file (plain or gzip) or a folder of files; NULL: GCIDE of Debian's dict-gcide */
    int vocab_size;
    double held_out; /* share of documents, by a hash of the document: 0.05 */
    void (*progress)(void *context, const char *what, double fraction);
    void *context;
};

/* Text -> documents -> tokenizer, shards, manifest. The same input gives the same bytes. Done before: returns at once.
 */
status dataset_prepare(const struct prepare_request *request);

/* Registers existing shards (linked, not copied) with their tokenizer. */
status dataset_add(const char *root, const char *name, const char *shard_directory, const char *tokenizer);

/* The batch of a step: windows of `time` inputs and targets, `sequences` of them, from the train split. Depends on
 * (order, seed, step) alone, so that a resumed run sees what it would have seen. */
struct batch_plan {
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
