/* rooms: the memory in which tensors are rounded: one room for each lane, as large as the largest tensor asks. */
#pragma once
#include "kernels/arena.h"
#include "model/quantize/quantize.h"

enum { NOTE_CAPACITY = 320 };

/* What the ops read and write, in the backend's memory. */
struct room {
    int8_t *integers; /* a tensor's, part by part */
    uint16_t *scales; /* likewise */
    int *info;        /* (MOST_PARTS) */
    double *h;        /* NULL where the backend's memory is the host's */
    real *image;      /* of a ternary tensor */
};

struct rooms {
    int lane_count;
    struct lane *lanes;
    struct room *each;            /* [lane index] */
    real **images;                /* [lane index] a ternary tensor on the host */
    int *order;                   /* (tensors) for the caller: those to round */
    char (*notes)[NOTE_CAPACITY]; /* (tensors) for the caller */
    struct arena host, arena;
};

status rooms_create(struct rooms *rooms, const struct quantized_model *model, int lane_count);
void rooms_destroy(struct rooms *rooms);

/* Bytes of the backend's memory that rooms_create takes. */
size_t rooms_bytes(const struct quantized_model *model, int lane_count);

/* Does any part of it need rounding? */
bool is_rounded(const struct quantized_tensor *tensor);
