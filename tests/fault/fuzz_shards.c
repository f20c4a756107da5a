/* fuzz_shards: token files, as a dataset reads them. */
#include <stdlib.h>
#include <string.h>

#include "model/shards.h"
#include "tests/fault/fuzz.h"

static void read_shard(const char *path) {
    size_t count;
    char sha256[65];
    status s = shard_count(path, &count);
    uint16_t *tokens = s ? NULL : malloc(count * sizeof *tokens + 1);
    if (!s) s = shard_read(path, tokens, count, sha256);
    free(tokens);
    status_free(s);
}

static void seeds(void) {
    unsigned char shard[SHARD_HEADER_BYTES + 8] = {0};
    const int32_t head[3] = {20240520, 1, 4};
    memcpy(shard, head, sizeof head);
    memcpy(shard + SHARD_HEADER_BYTES, "\1\0\2\0\3\0\4", 8);
    fuzz_seed("four", -1, shard, sizeof shard);
    fuzz_seed("short", -1, shard, sizeof shard - 1);
}

const struct fuzz_target fuzz_target = {.spare = 1 << 16, .factor = 2, .read = read_shard, .seeds = seeds};
