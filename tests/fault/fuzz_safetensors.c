/* fuzz_safetensors: tensor files. */
#include <stdlib.h>

#include "model/safetensors.h"
#include "tests/fault/fuzz.h"

/* Every byte that a tensor is said to have is read. */
static void read_tensors(const char *path) {
    struct safetensors file;
    status s = safetensors_read(&file, path);
    unsigned sum = 0;
    for (int i = 0; !s && i < file.count; i++) {
        const struct stored_tensor *t = &file.tensors[i];
        const unsigned char *bytes = t->data;
        for (size_t k = 0; k < t->count * tensor_type_size(t->type); k++) sum += bytes[k];
        sum += safetensors_find(&file, t->name) == NULL;
    }
    volatile unsigned kept = sum;
    (void)kept;
    if (!s) safetensors_free(&file);
    status_free(s);
}

static void seeds(void) {
    static const float values[6] = {1, 2, 3, 4, 5, 6};
    static const unsigned char bytes[3] = {0, 127, 255};
    const struct stored_tensor tensors[] = {
        {.name = "a.b", .type = TYPE_F32, .dims = 2, .shape = {2, 3}, .count = 6, .data = values},
        {.name = "scalar", .type = TYPE_F32, .count = 1, .data = values},
        {.name = "q", .type = TYPE_I8, .dims = 1, .shape = {3}, .count = 3, .data = bytes},
    };
    const struct metadata_entry metadata = {"stage", "x"};
    unsigned char *buffer;
    size_t size;
    fuzz_need(safetensors_build(tensors, 3, &metadata, 1, &buffer, &size));
    fuzz_seed("three", -1, buffer, size);
    free(buffer);
    fuzz_seed("empty", -1, "\2\0\0\0\0\0\0\0{}", 10);
}

/* An empty JSON object is three bytes of text and some two hundred of memory; so is a tensor's row. */
const struct fuzz_target fuzz_target = {.spare = 1 << 16, .factor = 256, .read = read_tensors, .seeds = seeds};
