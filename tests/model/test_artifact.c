/* artifact tests: what is read is what was quantised; damaged, truncated and hostile files are refused. */
#include <lzma.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "harness/process.h"
#include "model/artifact.h"
#include "model/files.h"
#include "model/safetensors.h"
#include "model/xz.h"
#include "tests/model/quantised_toy.h"

static void write_bytes(const char *path, const unsigned char *data, size_t size) {
    assert_good(file_write_atomic(path, data, size));
}

static void write_artifact(const char *settings, const char *path, struct artifact_sizes *sizes) {
    struct quantised_toy toy;
    quantised_toy_make(&toy, settings, toy_backend(1));
    assert_good(artifact_write(&toy.model, path, sizes));
    quantised_toy_free(&toy);
}

/* Every strategy, and what only options reach. */
static const char *const settings[] = {
    "quant.strategy=fp16",
    "quant.strategy=int8-rowwise quant.embedding=int8",
    "quant.strategy=int6-rowwise",
    "quant.strategy=int6-gptq quant.group=32",
    "quant.strategy=int6-gptq-floored",
    "quant.strategy=dsq-a",
    "quant.strategy=dsq-b",
    "quant.strategy=dsq-c",
    "model.linear=ternary quant.strategy=ternary",
    "quant.strategy=int6-rowwise quant.protect=recurrence-rows+control quant.group=32 quant.group_rows=bc",
};
enum { SETTINGS = sizeof settings / sizeof *settings };

static void reading_gives_exactly_what_was_quantised(void **state) {
    (void)state;
    for (size_t i = 0; i < SETTINGS; i++) {
        struct quantised_toy toy;
        struct artifact_sizes sizes;
        struct network net;
        real *weights;
        quantised_toy_make(&toy, settings[i], toy_backend(1));
        assert_good(artifact_write(&toy.model, toy_path("artifact.xz"), &sizes));
        assert_good(artifact_read(toy_path("artifact.xz"), toy_backend(1), &net, &weights));
        real *expected = malloc(toy.net.parameters.total * sizeof *expected);
        quantized_model_decode(&toy.model, expected);
        assert_int_equal(net.parameters.total, toy.net.parameters.total);
        assert_memory_equal(weights, expected, net.parameters.total * sizeof *weights);
        assert_memory_equal(&net.config, &toy.net.config, sizeof net.config);
        free(expected);
        free(weights);
        network_destroy(&net);
        quantised_toy_free(&toy);
    }
}

static void sizes_are_those_of_the_file_and_its_classes(void **state) {
    (void)state;
    struct artifact_sizes sizes, again;
    unsigned char *data;
    size_t size, parameters = 0, bytes = 0;
    char hex[65];
    write_artifact("quant.strategy=int6-rowwise", toy_path("artifact.xz"), &sizes);
    assert_good(file_read(toy_path("artifact.xz"), &data, &size));
    bytes_sha256(data, size, hex);
    assert_int_equal(sizes.bytes, size);
    assert_string_equal(sizes.sha256, hex);
    for (int class = 0; class < CLASS_COUNT; class ++) {
        parameters += sizes.class_parameters[class];
        bytes += sizes.class_bytes[class];
    }
    struct network net = quantised_toy_network("", toy_backend(1));
    assert_int_equal(parameters, net.parameters.elements);
    assert_true(bytes < sizes.raw_bytes && sizes.raw_bytes < bytes + 20000);
    assert_int_equal(sizes.class_bytes[CLASS_EMBEDDING], 64 * 48 * 2);
    assert_int_equal(sizes.class_bytes[CLASS_MLP], 4 * 96 * 48 + 2 * (2 * 96 + 2 * 48));
    network_destroy(&net);
    write_artifact("quant.strategy=int6-rowwise", toy_path("again.xz"), &again);
    assert_string_equal(again.sha256, sizes.sha256);
    free(data);
}

static void assert_refused(const unsigned char *data, size_t size, const char *words) {
    struct network net;
    real *weights;
    write_bytes(toy_path("bad.xz"), data, size);
    status s = artifact_read(toy_path("bad.xz"), toy_backend(1), &net, &weights);
    if (!s) fail_msg("accepted, expected: %s", words);
    assert_null(weights);
    assert_failure(s, STATUS_DATA, words);
}

static void every_truncation_and_flip_is_refused(void **state) {
    (void)state;
    struct artifact_sizes sizes;
    unsigned char *data;
    size_t size;
    write_artifact("quant.strategy=int6-rowwise quant.bits=2", toy_path("artifact.xz"), &sizes);
    assert_good(file_read(toy_path("artifact.xz"), &data, &size));
    for (size_t length = 0; length < size; length += 1 + size / 24) assert_refused(data, length, "bad.xz");
    for (size_t i = 0; i < size; i += 1 + size / 36) {
        data[i] ^= (unsigned char)(1u << i % 8);
        assert_refused(data, size, "bad.xz");
        data[i] ^= (unsigned char)(1u << i % 8);
    }
    unsigned char *longer = malloc(size + 4);
    memcpy(longer, data, size);
    memset(longer + size, 0, 4);
    assert_refused(longer, size + 4, "4 bytes follow");
    free(longer);
    free(data);
}

/* --- files that are sound as .xz but lie ------------------------------------------------------------------------- */

struct raw {
    unsigned char *bytes;
    size_t size;
    struct safetensors file; /* parsed from a copy */
};

/* The content of an artifact, which the caller may spoil. */
static struct raw unpack_under(const char *options) {
    struct artifact_sizes sizes;
    unsigned char *packed;
    size_t packed_size;
    struct xz_reader *xz;
    write_artifact(options, toy_path("artifact.xz"), &sizes);
    assert_good(file_read(toy_path("artifact.xz"), &packed, &packed_size));
    struct raw raw = {.bytes = malloc(sizes.raw_bytes), .size = sizes.raw_bytes};
    assert_good(xz_open(&xz, packed, packed_size, "artifact"));
    assert_good(xz_read(xz, raw.bytes, raw.size));
    assert_good(xz_close(xz));
    free(packed);
    unsigned char *copy = malloc(raw.size);
    memcpy(copy, raw.bytes, raw.size);
    assert_good(safetensors_parse(&raw.file, copy, raw.size, "artifact"));
    return raw;
}

static struct raw unpack(void) { return unpack_under("quant.strategy=int6-rowwise"); }

static void raw_free(struct raw *raw) {
    safetensors_free(&raw->file);
    free(raw->bytes);
}

/* At liblzma's fastest preset. */
static void assert_packed_refused(const unsigned char *bytes, size_t size, lzma_check check, const char *words) {
    size_t bound = lzma_stream_buffer_bound(size), used = 0;
    unsigned char *packed = malloc(bound);
    assert_int_equal(lzma_easy_buffer_encode(0, check, NULL, bytes, size, packed, &used, bound), LZMA_OK);
    assert_refused(packed, used, words);
    free(packed);
}

static void assert_raw_refused(const unsigned char *bytes, size_t size, const char *words) {
    assert_packed_refused(bytes, size, LZMA_CHECK_CRC64, words);
}

/* Rebuilt with one metadata value replaced and the tensors from `first` on. */
static void assert_rebuilt_refused(const struct raw *raw, const char *key, const char *value, int first,
                                   const char *words) {
    struct metadata_entry entries[256];
    unsigned char *bytes;
    size_t size;
    int count = raw->file.metadata_count;
    for (int i = 0; i < count; i++) {
        bool chosen = key && strcmp(raw->file.metadata[i].key, key) == 0;
        entries[i] = (struct metadata_entry){raw->file.metadata[i].key, chosen ? value : raw->file.metadata[i].value};
    }
    assert_good(safetensors_build(raw->file.tensors + first, raw->file.count - first, entries, count, &bytes, &size));
    assert_raw_refused(bytes, size, words);
    free(bytes);
}

static void lying_metadata_is_refused(void **state) {
    (void)state;
    struct raw raw = unpack();
    assert_rebuilt_refused(&raw, "format", "hinge-artifact-9", 0, "another format");
    assert_rebuilt_refused(&raw, "model.dim", "49", 0, "does not divide");
    assert_rebuilt_refused(&raw, "model.dim", "many", 0, "model.dim = \"many\"");
    assert_rebuilt_refused(&raw, "model.vocab_size", "128", 0, "truncated");
    assert_rebuilt_refused(&raw, "model.vocab_size", "32", 0, "more data than");
    assert_rebuilt_refused(&raw, "model.layers", "1", 0, "attention.layers");
    raw_free(&raw);
}

static void a_model_larger_than_its_file_can_hold_is_refused_before_memory_is_taken(void **state) {
    (void)state;
    struct raw raw = unpack();
    assert_rebuilt_refused(&raw, "model.bigram_dim", "4096", 0, "truncated");
    for (int i = 0; i < raw.file.metadata_count; i++) {
        if (strcmp(raw.file.metadata[i].key, "model.bigram_buckets") != 0) continue;
        free(raw.file.metadata[i].value);
        raw.file.metadata[i].value = strdup("16777216");
    }
    assert_rebuilt_refused(&raw, "model.bigram_dim", "4096", 0, "bytes of weights; a file of its size holds");
    raw_free(&raw);
}

static void a_missing_option_or_tensor_is_refused(void **state) {
    (void)state;
    struct raw raw = unpack();
    assert_rebuilt_refused(&raw, NULL, NULL, 1, "truncated");
    raw.file.metadata_count--;
    assert_rebuilt_refused(&raw, NULL, NULL, 0, "other options");
    raw.file.metadata_count++;
    raw_free(&raw);
}

/* Without values it passes every check of sizes. */
static void a_tensor_too_many_is_refused(void **state) {
    (void)state;
    struct raw raw = unpack();
    struct stored_tensor *more = calloc((size_t)raw.file.count + 1, sizeof *more), *kept = raw.file.tensors;
    memcpy(more, kept, (size_t)raw.file.count * sizeof *more);
    more[raw.file.count++] = (struct stored_tensor){.name = "stowaway", .type = TYPE_I8, .dims = 1};
    raw.file.tensors = more;
    assert_rebuilt_refused(&raw, NULL, NULL, 0, "tensors that its model has not");
    raw.file.tensors = kept;
    raw.file.count--;
    free(more);
    raw_free(&raw);
}

static void a_renamed_or_reshaped_tensor_is_refused(void **state) {
    (void)state;
    struct raw raw = unpack();
    memcpy(raw.file.tensors[0].name, "tok_emb.wrong!", 15);
    assert_rebuilt_refused(&raw, NULL, NULL, 0, "tok_emb.weight is missing");
    memcpy(raw.file.tensors[0].name, "tok_emb.weight", 15);
    raw.file.tensors[0].shape[0] /= 2;
    raw.file.tensors[0].shape[1] *= 2;
    assert_rebuilt_refused(&raw, NULL, NULL, 0, "tok_emb.weight has another type or shape");
    raw_free(&raw);
}

/* Sets the bytes of a tensor's first value. */
static void poison(const struct raw *raw, const char *name, const void *value, size_t size, const char *words) {
    const struct stored_tensor *tensor = safetensors_find(&raw->file, name);
    size_t at = (size_t)((const unsigned char *)tensor->data - raw->file.buffer);
    unsigned char before[4];
    memcpy(before, raw->bytes + at, size);
    memcpy(raw->bytes + at, value, size);
    assert_raw_refused(raw->bytes, raw->size, words);
    memcpy(raw->bytes + at, before, size);
}

static void values_that_no_quantiser_writes_are_refused(void **state) {
    (void)state;
    struct raw raw = unpack();
    const int8_t beyond = 32, below = -32;
    const uint16_t infinite = 0x7C00, negative = 0xBC00, zero = 0;
    const uint32_t nan_bits = 0x7FC00000;
    poison(&raw, "blocks.0.mlp.fc.q", &beyond, 1, "blocks.0.mlp.fc has an integer beyond its bits");
    poison(&raw, "blocks.0.mlp.fc.q", &below, 1, "integer beyond");
    poison(&raw, "blocks.0.mlp.fc.scale", &infinite, 2, "blocks.0.mlp.fc has a scale");
    poison(&raw, "blocks.0.mlp.fc.scale", &negative, 2, "has a scale");
    poison(&raw, "blocks.0.mlp.fc.scale", &zero, 2, "has a scale");
    poison(&raw, "tok_emb.weight", &infinite, 2, "tok_emb.weight has a value that is not finite");
    poison(&raw, "smeargate.gate", &nan_bits, 4, "smeargate.gate has a value that is not finite");
    raw_free(&raw);
}

static void trits_that_no_quantiser_writes_are_refused(void **state) {
    (void)state;
    struct raw raw = unpack_under("model.linear=ternary quant.strategy=ternary");
    const uint8_t beyond = 243;
    const float zero = 0, negative = -1, infinite = (float)INFINITY;
    const int32_t rows = 95;
    poison(&raw, "blocks.0.mlp.fc.trits", &beyond, 1, "blocks.0.mlp.fc has a byte that is not five trits");
    poison(&raw, "blocks.0.mlp.fc.scale", &zero, 4, "blocks.0.mlp.fc has a scale");
    poison(&raw, "blocks.0.mlp.fc.scale", &negative, 4, "has a scale");
    poison(&raw, "blocks.0.mlp.fc.scale", &infinite, 4, "has a scale");
    poison(&raw, "blocks.0.mlp.fc.shape", &rows, 4, "blocks.0.mlp.fc has another shape");
    const struct stored_tensor *trits = safetensors_find(&raw.file, "blocks.0.mlp.fc.trits");
    assert_int_equal(trits->count, (96 * 48 + 4) / 5); /* 4608 = 5 * 921 + 3: two digits are left over */
    size_t last = (size_t)((const unsigned char *)trits->data - raw.file.buffer) + trits->count - 1;
    raw.bytes[last] = (unsigned char)(raw.bytes[last] % 27); /* both of them -1 */
    assert_raw_refused(raw.bytes, raw.size, "blocks.0.mlp.fc has trits behind its last element");
    raw_free(&raw);
}

static void parts_that_are_renamed_or_reshaped_are_refused(void **state) {
    (void)state;
    static const char name[] = "blocks.0.mamba.in_proj[192:208].q";
    struct raw raw = unpack_under("quant.strategy=dsq-c");
    struct stored_tensor *part = (struct stored_tensor *)safetensors_find(&raw.file, name);
    assert_non_null(part);
    part->name[strlen(name) - 4] = '7';
    assert_rebuilt_refused(&raw, NULL, NULL, 0, "blocks.0.mamba.in_proj[192:208].q is missing");
    part->name[strlen(name) - 4] = '8';
    part->shape[0] *= 2, part->shape[1] /= 2;
    assert_rebuilt_refused(&raw, NULL, NULL, 0, "blocks.0.mamba.in_proj[192:208].q has another type or shape");
    part->shape[0] /= 2, part->shape[1] *= 2;
    assert_rebuilt_refused(&raw, "quant.group", "0", 0, "quant.group_rows = bc");
    assert_rebuilt_refused(&raw, "quant.protect", "none", 0, "truncated");
    assert_rebuilt_refused(&raw, "quant.method", "ternary", 0, "model.linear");
    raw_free(&raw);
}

static void a_bomb_is_refused(void **state) {
    (void)state;
    enum { SIZE = 16 << 20 };
    unsigned char *zeros = calloc(1, SIZE);
    assert_raw_refused(zeros, SIZE, "its header");
    memset(zeros, 0xff, 8);
    assert_raw_refused(zeros, SIZE, "longer than it may be");
    free(zeros);
}

static void a_file_that_is_no_xz_or_missing_is_refused(void **state) {
    (void)state;
    struct network net;
    real *weights;
    assert_refused((const unsigned char *)"plain text, quite long enough", 29, "not an .xz file");
    assert_failure(artifact_read(toy_path("nothing.xz"), toy_backend(1), &net, &weights), STATUS_SYSTEM, "nothing.xz");
}

static void another_integrity_check_than_crc64_is_refused(void **state) {
    (void)state;
    struct raw raw = unpack();
    assert_packed_refused(raw.bytes, raw.size, LZMA_CHECK_CRC32, "not CRC64");
    assert_packed_refused(raw.bytes, raw.size, LZMA_CHECK_NONE, "not CRC64");
    raw_free(&raw);
}

/* Decodes a file by its names alone and prints the hash of all its floats, as parameters_sha256 takes it. The tensors
 * of the model come in the order of the file. */
static const char decode_in_python[] =
    "import lzma, json, struct, sys, re, hashlib\n"
    "raw = lzma.open(sys.argv[1]).read()\n"
    "n = struct.unpack('<Q', raw[:8])[0]\n"
    "header, data = json.loads(raw[8:8 + n]), raw[8 + n:]\n"
    "options = header.pop('__metadata__')\n"
    "assert options['model.dim'] == '48'\n"
    "codes = {'I8': 'b', 'U8': 'B', 'F16': 'e', 'F32': 'f', 'I32': 'i'}\n"
    "def values(name):\n"
    "    t = header[name]\n"
    "    a, b = t['data_offsets']\n"
    "    code = codes[t['dtype']]\n"
    "    return struct.unpack('<%d%s' % ((b - a) // struct.calcsize(code), code), data[a:b])\n"
    "def decode(name, stem):\n"
    "    shape, dtype = header[name]['shape'], header[name]['dtype']\n"
    "    if dtype == 'I8':\n"
    "        q, s, cols = values(name), values(stem + '.scale'), shape[1]\n"
    "        groups = header[stem + '.scale']['shape'][1]\n"
    "        width = cols if groups == 1 else int(options['quant.group'])\n"
    "        return shape, [x * s[i // cols * groups + i % cols // width] for i, x in enumerate(q)]\n"
    "    if dtype == 'U8':\n"
    "        s, shape = values(stem + '.scale')[0], values(stem + '.shape')\n"
    "        trits = [(byte // 3 ** i % 3 - 1) * s for byte in values(name) for i in range(5)]\n"
    "        return shape, trits[:shape[0] * shape[1]]\n"
    "    return shape, values(name)\n"
    "tensors = {}\n"
    "for name in sorted(header, key=lambda name: header[name]['data_offsets']):\n"
    "    stem = name.rpartition('.')[0] if header[name]['dtype'] in ('I8', 'U8') else name\n"
    "    if re.search(r'\\.(scale|shape)$', name): continue\n"
    "    whole = re.sub(r'\\[\\d+:\\d+\\]$', '', stem)\n"
    "    shape, floats = decode(name, stem)\n"
    "    rows, cols, before = tensors.get(whole, (0, 0, []))\n"
    "    tensors[whole] = rows + shape[0], shape[1] if len(shape) > 1 else 1, before + list(floats)\n"
    "digest = hashlib.sha256()\n"
    "for name, (rows, cols, floats) in tensors.items():\n"
    "    digest.update(name.encode() + b'\\0' + struct.pack('<QQ', rows, cols))\n"
    "    digest.update(struct.pack('<%df' % len(floats), *(x + 0.0 for x in floats)))\n"
    "print(digest.hexdigest())\n";

/* The hash of what quantized_model_decode gives; a zero has no sign here. */
static void decoded_sha256(const char *options, char hex[65]) {
    struct quantised_toy toy;
    quantised_toy_make(&toy, options, toy_backend(1));
    real *weights = malloc(toy.net.parameters.total * sizeof *weights);
    quantized_model_decode(&toy.model, weights);
    for (size_t i = 0; i < toy.net.parameters.total; i++) weights[i] += 0;
    parameters_sha256(&toy.net.parameters, weights, hex);
    free(weights);
    quantised_toy_free(&toy);
}

/* The promise that the file needs nothing of this program: lzma and json alone. */
static void python_recovers_the_same_floats_from_every_strategy(void **state) {
    (void)state;
    char python[4096], expected[65], *output;
    int code;
    if (!program_find("python3", python)) skip();
    for (size_t i = 0; i < SETTINGS; i++) {
        struct artifact_sizes sizes;
        write_artifact(settings[i], toy_path("artifact.xz"), &sizes);
        decoded_sha256(settings[i], expected);
        const char *const argv[] = {"python3", "-c", decode_in_python, toy_path("artifact.xz"), NULL};
        assert_good(program_output(argv, &output, &code));
        if (code != 0) fail_msg("%s: %s", settings[i], output);
        output[strcspn(output, "\n")] = '\0';
        if (strcmp(output, expected) != 0) fail_msg("%s: %s is not %s", settings[i], output, expected);
        free(output);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_gives_exactly_what_was_quantised),
        cmocka_unit_test(sizes_are_those_of_the_file_and_its_classes),
        cmocka_unit_test(every_truncation_and_flip_is_refused),
        cmocka_unit_test(lying_metadata_is_refused),
        cmocka_unit_test(a_model_larger_than_its_file_can_hold_is_refused_before_memory_is_taken),
        cmocka_unit_test(a_missing_option_or_tensor_is_refused),
        cmocka_unit_test(a_tensor_too_many_is_refused),
        cmocka_unit_test(a_renamed_or_reshaped_tensor_is_refused),
        cmocka_unit_test(values_that_no_quantiser_writes_are_refused),
        cmocka_unit_test(trits_that_no_quantiser_writes_are_refused),
        cmocka_unit_test(parts_that_are_renamed_or_reshaped_are_refused),
        cmocka_unit_test(a_bomb_is_refused),
        cmocka_unit_test(a_file_that_is_no_xz_or_missing_is_refused),
        cmocka_unit_test(another_integrity_check_than_crc64_is_refused),
        cmocka_unit_test(python_recovers_the_same_floats_from_every_strategy),
    };
    return cmocka_run_group_tests(tests, toy_folder_make, toy_folder_remove);
}
