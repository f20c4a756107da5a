/* xz: compression and bounded decompression by liblzma; see xz.h. */
#include "model/xz.h"

#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>

enum { LEAST_DICTIONARY = 4096 };
#define DECODER_MEMORY ((uint64_t)128 << 20) /* preset 9 needs 65 MiB */

/* --- writing ----------------------------------------------------------------------------------------------------- */

static uint32_t dictionary_for(size_t size, uint32_t largest) {
    uint32_t dictionary = LEAST_DICTIONARY;
    while (dictionary < size && dictionary < largest) dictionary *= 2;
    return dictionary < largest ? dictionary : largest;
}

static bool options_for(size_t size, lzma_options_lzma *options) {
    if (lzma_lzma_preset(options, 9 | LZMA_PRESET_EXTREME)) return false;
    options->dict_size = dictionary_for(size, options->dict_size);
    return true;
}

size_t xz_compress_memory(size_t size) {
    lzma_options_lzma options;
    if (!options_for(size, &options)) return 0;
    const lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
    return (size_t)lzma_raw_encoder_memusage(filters) + lzma_stream_buffer_bound(size);
}

status xz_compress(const void *data, size_t size, unsigned char **out, size_t *out_size) {
    lzma_options_lzma options;
    if (!options_for(size, &options)) return status_new(STATUS_SYSTEM, "liblzma lacks preset 9");
    lzma_filter filters[] = {{LZMA_FILTER_LZMA2, &options}, {LZMA_VLI_UNKNOWN, NULL}};
    size_t bound = lzma_stream_buffer_bound(size), used = 0;
    unsigned char *buffer = malloc(bound);
    if (!buffer) return status_new(STATUS_SYSTEM, "compression: %zu bytes of memory were refused", bound);
    lzma_ret result = lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC64, NULL, data, size, buffer, &used, bound);
    if (result != LZMA_OK) {
        free(buffer);
        return status_new(STATUS_SYSTEM, "compression failed: liblzma's error %d%s", (int)result,
                          result == LZMA_MEM_ERROR ? " (out of memory)" : "");
    }
    *out = buffer;
    *out_size = used;
    return NULL;
}

/* --- reading ----------------------------------------------------------------------------------------------------- */

struct xz_reader {
    lzma_stream stream;
    const char *what;
    bool ended;
};

static const char *explain(lzma_ret result) {
    switch (result) {
    case LZMA_FORMAT_ERROR:
        return "is not an .xz file";
    case LZMA_DATA_ERROR:
        return "is damaged: its checks do not match";
    case LZMA_BUF_ERROR:
        return "is truncated";
    case LZMA_MEMLIMIT_ERROR:
        return "asks for a larger dictionary than preset 9 has";
    case LZMA_OPTIONS_ERROR:
        return "uses .xz features that an artifact has not";
    case LZMA_MEM_ERROR:
        return "needs more memory than this machine gave";
    default:
        return "cannot be decompressed";
    }
}

/* What a machine lacks is no fault of the file. */
static status cannot(lzma_ret result, const char *what) {
    return status_new(result == LZMA_MEM_ERROR ? STATUS_SYSTEM : STATUS_DATA, "%s: %s", what, explain(result));
}

status xz_open(struct xz_reader **out, const unsigned char *data, size_t size, const char *what) {
    struct xz_reader *reader = calloc(1, sizeof *reader);
    if (!reader) return status_new(STATUS_SYSTEM, "%s: out of memory", what);
    reader->what = what;
    lzma_ret result = lzma_stream_decoder(&reader->stream, DECODER_MEMORY, 0);
    if (result != LZMA_OK) {
        free(reader);
        return status_new(STATUS_SYSTEM, "%s: %s", what, explain(result));
    }
    reader->stream.next_in = data;
    reader->stream.avail_in = size;
    *out = reader;
    return NULL;
}

status xz_read(struct xz_reader *reader, void *to, size_t size) {
    lzma_stream *stream = &reader->stream;
    stream->next_out = to;
    stream->avail_out = size;
    while (stream->avail_out > 0) {
        lzma_ret result = reader->ended ? LZMA_BUF_ERROR : lzma_code(stream, LZMA_FINISH);
        reader->ended = result == LZMA_STREAM_END;
        if (result != LZMA_OK && result != LZMA_STREAM_END) return cannot(result, reader->what);
    }
    return NULL;
}

/* Asks for one byte more, which makes liblzma read the index and the footer. */
static status check_end(struct xz_reader *reader) {
    lzma_stream *stream = &reader->stream;
    unsigned char beyond;
    stream->next_out = &beyond;
    stream->avail_out = 1;
    lzma_ret result = reader->ended ? LZMA_STREAM_END : lzma_code(stream, LZMA_FINISH);
    if (stream->avail_out == 0)
        return status_new(STATUS_DATA, "%s: holds more data than its header declares", reader->what);
    if (result != LZMA_STREAM_END) return cannot(result, reader->what);
    if (stream->avail_in > 0)
        return status_new(STATUS_DATA, "%s: %zu bytes follow the .xz stream", reader->what, stream->avail_in);
    if (lzma_get_check(stream) != LZMA_CHECK_CRC64)
        return status_new(STATUS_DATA, "%s: its integrity check is not CRC64", reader->what);
    return NULL;
}

static void release(struct xz_reader *reader) {
    lzma_end(&reader->stream);
    free(reader);
}

status xz_close(struct xz_reader *reader) {
    status s = check_end(reader);
    release(reader);
    return s;
}

void xz_abandon(struct xz_reader *reader) { release(reader); }
