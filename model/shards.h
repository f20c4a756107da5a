/* shards: token files in the format of modded-nanogpt and parameter-golf: 256 little-endian int32 (magic 20240520,
 * version 1, token count, zeros), then uint16 tokens. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

enum { SHARD_TOKENS = 100000000, SHARD_HEADER_BYTES = 1024 };

/* Writes DIRECTORY/NAME_SPLIT_000000.bin, ..., each of at most `most` tokens; returns how many in *shards. */
status shards_write(const char *directory, const char *name, const char *split, const uint16_t *tokens, size_t count,
                    size_t most, size_t *shards);
void shard_name(char *out, size_t size, const char *name, const char *split, size_t index);

/* How many tokens a shard holds, by its header and its size, which must agree. */
status shard_count(const char *path, size_t *tokens);

/* Reads a shard of `count` tokens into place; the hash is that of the whole file. */
status shard_read(const char *path, uint16_t *tokens, size_t count, char sha256[65]);
