/* ranks: see ranks.h. */
#include "model/ranks.h"

#include <stdlib.h>

status ranks_share_weights(struct trainer *t) {
    const struct optimizer *o = &t->optimizer;
    if (t->comm->size == 1) return NULL;
    for (const struct piece *piece = o->pieces; piece < o->pieces + o->piece_count; piece++)
        TRY(t->comm->broadcast(t->comm, t->lanes, t->weights + piece->offset, piece->span * sizeof(real),
                               piece_owner(o, piece)));
    return NULL;
}

static bool has_second(const struct trainer *t, int index) {
    return t->net.parameters.tensors[index].optimizer != OPTIMIZER_MUON;
}

static status gather(const struct trainer *t, real *first, real *second) {
    const struct optimizer *o = &t->optimizer;
    for (int i = 0; i < o->parameters->count; i++) {
        const struct tensor *tensor = &o->parameters->tensors[i];
        size_t bytes = tensor->count * sizeof(real);
        bool own = o->owner[i] == o->rank;
        if (own) t->ops->download(t->lanes, first + tensor->offset, t->first + o->first_offset[i], bytes);
        TRY(t->comm->broadcast_host(t->comm, first + tensor->offset, bytes, o->owner[i]));
        if (!has_second(t, i)) continue;
        if (own) t->ops->download(t->lanes, second + o->second_whole[i], t->second + o->second_offset[i], bytes);
        TRY(t->comm->broadcast_host(t->comm, second + o->second_whole[i], bytes, o->owner[i]));
    }
    return t->ops->finish(t->lanes);
}

status ranks_gather_moments(const struct trainer *t, real **first, real **second) {
    *first = calloc(t->net.parameters.total, sizeof **first);
    *second = calloc(t->optimizer.second_whole_total, sizeof **second);
    status s = *first && *second ? gather(t, *first, *second)
                                 : status_new(STATUS_SYSTEM, "no memory to gather the optimiser's moments");
    if (!s) return NULL;
    free(*first), free(*second);
    *first = *second = NULL;
    return s;
}

void ranks_keep_moments(struct trainer *t, const real *first, const real *second) {
    const struct optimizer *o = &t->optimizer;
    for (int i = 0; i < o->parameters->count; i++) {
        const struct tensor *tensor = &o->parameters->tensors[i];
        size_t bytes = tensor->count * sizeof(real);
        if (o->owner[i] != o->rank) continue;
        t->ops->upload(t->lanes, t->first + o->first_offset[i], first + tensor->offset, bytes);
        if (has_second(t, i))
            t->ops->upload(t->lanes, t->second + o->second_offset[i], second + o->second_whole[i], bytes);
    }
}

status ranks_share_file(struct trainer *t, status read, unsigned char **data, size_t *size) {
    uint64_t bytes = read ? UINT64_MAX : *size;
    if (t->comm->size == 1) return read;
    status s = t->comm->broadcast_host(t->comm, &bytes, sizeof bytes, 0);
    if (read || s) {
        if (read) status_free(s);
        return read ? read : s;
    }
    if (bytes == UINT64_MAX) return status_new(STATUS_DATA, "rank 0 could not read the checkpoint");
    if (t->comm->rank != 0) {
        *size = bytes;
        *data = malloc(bytes + 1);
        if (!*data) return status_new(STATUS_SYSTEM, "no memory for a checkpoint of %zu bytes", *size);
    }
    return t->comm->broadcast_host(t->comm, *data, *size, 0);
}
