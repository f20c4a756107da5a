/* fuzz_checkpoint: checkpoints, read into a very small trainer. */
#include <stdlib.h>
#include <string.h>

#include "model/files.h"
#include "tests/fault/fuzz.h"
#include "tests/fault/tiny_model.h"

enum { DIGEST_BYTES = 64, WITH_DIGEST = 1 };
static const char KEY[] = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
static struct trainer *trainer;

static void open_trainer(void) {
    struct step_record record;
    struct config config = fuzz_config("");
    fuzz_need(trainer_create(&trainer, &config, fuzz_backend(), fuzz_dataset(), 1));
    for (int i = 0; i < 3; i++) fuzz_need(trainer_step(trainer, &record));
}

/* Behind a first byte that is odd the right checksum is appended: else no change of the content would get past it. */
static unsigned char *with_digest(const uint8_t *data, size_t *size) {
    char hex[65];
    bool appended = *size && (data[0] & WITH_DIGEST);
    size_t content = *size ? *size - 1 : 0;
    unsigned char *file = malloc(content + DIGEST_BYTES + 1);
    if (!file) abort();
    if (content) memcpy(file, data + 1, content);
    bytes_sha256(file, content, hex);
    memcpy(file + content, hex, DIGEST_BYTES);
    *size = content + (appended ? DIGEST_BYTES : 0);
    return file;
}

/* What is accepted must be a state that can be gone on from. */
static void read_checkpoint(const char *path) {
    struct step_record record;
    status s = trainer_load(trainer, path, KEY);
    if (!s && !trainer_finished(trainer)) s = trainer_step(trainer, &record);
    status_free(s);
}

static void seeds(void) {
    unsigned char *data;
    size_t size;
    fuzz_need(trainer_save(trainer, fuzz_scratch(), KEY));
    fuzz_need(file_read(fuzz_scratch(), &data, &size));
    fuzz_seed("whole", 0, data, size);
    fuzz_seed("content", WITH_DIGEST, data, size - DIGEST_BYTES);
    free(data);
}

const struct fuzz_target fuzz_target = {.spare = 1 << 18,
                                        .factor = 2,
                                        .open = open_trainer,
                                        .prepare = with_digest,
                                        .read = read_checkpoint,
                                        .seeds = seeds};
