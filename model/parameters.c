/* parameters: builds the table of tensors from the rows of tensors.def; see parameters.h. */
#include "model/parameters.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/files.h"
#include "model/network_shapes.h"
#include "model/schedule.h"

const char *tensor_class_name(enum tensor_class class) {
    static const char *const names[CLASS_COUNT] = {
        [CLASS_EMBEDDING] = "embedding", [CLASS_BIGRAM] = "bigram", [CLASS_MAMBA] = "mamba",
        [CLASS_ATTENTION] = "attention", [CLASS_MLP] = "mlp",       [CLASS_CONTROL] = "control"};
    return names[class];
}

enum scope { SCOPE_MODEL, SCOPE_BLOCK };

struct row {
    enum scope scope;
    bool present;
    struct tensor tensor; /* its name without the layer */
};

/* The rows as they are in this layer; -1 stands for the whole model. */
static void rows_for(struct row rows[ROLE_COUNT], const struct config *c, int layer) {
    size_t vocab = (size_t)c->model_vocab_size, dim = (size_t)c->model_dim, hidden = (size_t)c->model_mlp_mult * dim;
    size_t buckets = (size_t)c->model_bigram_buckets, bigram_dim = (size_t)c->model_bigram_dim;
    size_t skip_rows = (size_t)schedule_skip_rows(c);
    struct mamba_shape m = mamba_shape_of(c, 1, 1);
    struct mamba_columns columns = mamba_columns(&m);
    struct attention_shape a = attention_shape_of(c, 1, 1);
    double q_gain = c->attention_q_gain;
    bool smear = c->model_smear, mamba = !list_has(&c->attention_layers, layer);
    bool untied = c->recurrence_mlp == REPEAT_UNTIED && list_has(&c->recurrence_layers, layer);
#define TENSOR(role_, scope_, name_, present_, dims_, rows_, cols_, init_, value, optimizer_, class_, linear_) \
    rows[ROLE_##role_] = (struct row){SCOPE_##scope_,                                                          \
                                      present_,                                                                \
                                      {.name = name_,                                                          \
                                       .role = ROLE_##role_,                                                   \
                                       .layer = layer,                                                         \
                                       .dims = dims_,                                                          \
                                       .shape = {rows_, cols_},                                                \
                                       .count = (rows_) * (cols_),                                             \
                                       .init = INIT_##init_,                                                   \
                                       .init_value = value,                                                    \
                                       .optimizer = OPTIMIZER_##optimizer_,                                    \
                                       .class = CLASS_##class_,                                                \
                                       .linear = linear_}};
#include "model/tensors.def"
#undef TENSOR
}

static void append(struct parameters *p, const struct tensor *row) {
    struct tensor *tensor = &p->tensors[p->count];
    *tensor = *row;
    if (row->layer >= 0) snprintf(tensor->name, sizeof tensor->name, "blocks.%d.%s", row->layer, row->name);
    p->elements += tensor->count;
    p->by_role[(row->layer + 1) * ROLE_COUNT + (int)row->role] = p->count++;
}

/* 0 where both are updated alike. */
static int compare_updates(const struct tensor *a, const struct tensor *b) {
    if (a->optimizer != b->optimizer) return (int)a->optimizer - (int)b->optimizer;
    for (int d = 0; d < 2 && a->optimizer == OPTIMIZER_MUON; d++)
        if (a->shape[d] != b->shape[d]) return a->shape[d] < b->shape[d] ? -1 : 1;
    return 0;
}

bool updated_alike(const struct tensor *a, const struct tensor *b) { return compare_updates(a, b) == 0; }

static int by_update(const void *a, const void *b, void *tensors) {
    int x = *(const int *)a, y = *(const int *)b;
    int order = compare_updates((const struct tensor *)tensors + x, (const struct tensor *)tensors + y);
    return order ? order : x - y;
}

static void place(struct parameters *p) {
    for (int i = 0; i < p->count; i++) p->by_offset[i] = i;
    qsort_r(p->by_offset, (size_t)p->count, sizeof *p->by_offset, by_update, p->tensors);
    for (int i = 0; i < p->count; i++) {
        struct tensor *tensor = &p->tensors[p->by_offset[i]];
        tensor->offset = p->total;
        p->total += aligned_reals(tensor->count);
    }
}

status parameters_create(struct parameters *p, const struct config *config) {
    size_t most = (size_t)(config->model_layers + 1) * ROLE_COUNT;
    *p = (struct parameters){.tensors = calloc(most, sizeof *p->tensors),
                             .by_offset = calloc(most, sizeof *p->by_offset),
                             .by_role = malloc(most * sizeof *p->by_role)};
    if (!p->tensors || !p->by_offset || !p->by_role) {
        parameters_destroy(p);
        return status_new(STATUS_SYSTEM, "no memory for the table of %zu tensors", most);
    }
    for (size_t i = 0; i < most; i++) p->by_role[i] = -1;
    struct row rows[ROLE_COUNT];
    for (int layer = -1; layer < config->model_layers; layer++) {
        rows_for(rows, config, layer);
        for (int role = 0; role < ROLE_COUNT; role++)
            if (rows[role].present && (rows[role].scope == SCOPE_MODEL) == (layer < 0)) append(p, &rows[role].tensor);
    }
    place(p);
    return NULL;
}

void parameters_destroy(struct parameters *p) {
    free(p->tensors);
    free(p->by_offset);
    free(p->by_role);
    *p = (struct parameters){0};
}

int parameters_find(const struct parameters *p, const char *name) {
    for (int i = 0; i < p->count; i++)
        if (strcmp(p->tensors[i].name, name) == 0) return i;
    return -1;
}

const struct tensor *parameters_get(const struct parameters *p, int layer, enum tensor_role role) {
    int index = p->by_role[(layer + 1) * ROLE_COUNT + (int)role];
    return index < 0 ? NULL : &p->tensors[index];
}

/* Bytes of an integer from the lowest up, whatever this machine's order. */
static void little_endian(unsigned char *bytes, uint64_t value, size_t size) {
    for (size_t i = 0; i < size; i++) bytes[i] = (unsigned char)(value >> (8 * i));
}

static void digest_values(struct digest *digest, const real *values, size_t count) {
    unsigned char bytes[4096];
    for (size_t start = 0; start < count;) {
        size_t used = 0;
        for (; used < sizeof bytes && start < count; used += 4, start++) {
            float value = (float)values[start];
            uint32_t bits;
            memcpy(&bits, &value, sizeof bits);
            little_endian(bytes + used, bits, 4);
        }
        digest_add(digest, bytes, used);
    }
}

void parameters_sha256(const struct parameters *p, const real *weights, char hex[65]) {
    struct digest *digest = digest_new();
    for (int i = 0; i < p->count; i++) {
        const struct tensor *tensor = &p->tensors[i];
        unsigned char shape[16];
        little_endian(shape, tensor->shape[0], 8);
        little_endian(shape + 8, tensor->shape[1], 8);
        digest_add(digest, tensor->name, strlen(tensor->name) + 1);
        digest_add(digest, shape, sizeof shape);
        digest_values(digest, weights + tensor->offset, tensor->count);
    }
    digest_finish(digest, hex);
}
