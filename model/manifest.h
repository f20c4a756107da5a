/* manifest: manifest.json, what a dataset consists of and where it came from, with the SHA-256 of everything. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#include "kernels/status.h"
#include "model/options.h"

enum { MANIFEST_FILE_NAME = 256 };

struct manifest_file {
    char name[MANIFEST_FILE_NAME], sha256[65]; /* inside the dataset's folder; no hash: not measured yet */
    size_t size, tokens;                       /* bytes; tokens of a shard */
};

struct manifest_split {
    struct manifest_file *shards;
    size_t shard_count;
    size_t documents, tokens, bytes; /* BOS tokens; all tokens; UTF-8 bytes of the text */
};

enum { SPLIT_TRAIN, SPLIT_VALIDATION, SPLITS };
extern const char *const split_names[SPLITS];      /* "train", "validation" */
extern const char *const split_file_names[SPLITS]; /* "train", "val" */

struct manifest {
    char name[TEXT_CAPACITY], sha256[65];
    char source[4096], source_sha256[65]; /* where the text or the shards lay; the hash is empty for shards */
    size_t source_bytes, replaced_bytes;  /* 0 for shards */
    double held_out;                      /* 0 for shards */
    size_t tokenizer_sample_bytes;        /* text that the tokenizer was trained on; 0 for shards */
    size_t vocab_size;
    struct manifest_file tokenizer;
    struct manifest_split splits[SPLITS];
    double unigram_nll, bytes_per_token; /* as in struct dataset */
};

/* The dataset's identity: the SHA-256 of the hashes of its tokenizer and shards, wherever they lie, whatever their
 * names. */
void manifest_identity(const struct manifest *manifest, char sha256[65]);

status manifest_write(const struct manifest *manifest, const char *path);
status manifest_read(struct manifest *manifest, const char *path);
void manifest_free(struct manifest *manifest);

/* Adds a file to a split; name is inside the dataset's folder. */
status manifest_add_shard(struct manifest_split *split, const char *name);
