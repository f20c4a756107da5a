/* xz: one .xz stream in memory (liblzma), written at the highest preset and read within declared bounds. */
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "kernels/status.h"

/* Preset 9 | EXTREME, CRC64. The dictionary is no larger than the data, which saves memory and costs nothing. Caller
 * frees *out. */
status xz_compress(const void *data, size_t size, unsigned char **out, size_t *out_size);

/* Bytes that xz_compress takes for data of this size, the data aside. */
size_t xz_compress_memory(size_t size);

/* Reads a stream piece by piece, so that the caller can look at the beginning before it makes room for the rest. */
struct xz_reader;
status xz_open(struct xz_reader **out, const unsigned char *data, size_t size,
               const char *what);                                /* data stays the caller's */
status xz_read(struct xz_reader *reader, void *to, size_t size); /* exactly so many bytes, or an error */
status xz_close(struct xz_reader *reader); /* error unless all was read, to the last check; frees */
void xz_abandon(struct xz_reader *reader); /* frees, looks at nothing */
