/* safetensors: what is built is read back; what is damaged or hostile is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/safetensors.h"

static const float floats[6] = {1, -2, 3.5f, 0, 1e-30f, -7};
static const int8_t bytes[3] = {-31, 0, 31};
static const struct stored_tensor two_tensors[] = {
    {.name = "a.q", .type = TYPE_I8, .dims = 1, .shape = {3}, .count = 3, .data = bytes},
    {.name = "b", .type = TYPE_F32, .dims = 2, .shape = {2, 3}, .count = 6, .data = floats},
};
static const struct metadata_entry two_entries[] = {{"model.dim", "32"}, {"note", "quotes \" and \n lines, ü"}};

static void build(unsigned char **buffer, size_t *size) {
    status s = safetensors_build(two_tensors, 2, two_entries, 2, buffer, size);
    if (s) fail_msg("%s", status_text(s));
}

static void what_is_built_is_read_back(void **state) {
    (void)state;
    unsigned char *buffer;
    size_t size;
    struct safetensors file;
    build(&buffer, &size);
    assert_null(safetensors_parse(&file, buffer, size, "memory"));
    assert_int_equal(file.count, 2);
    const struct stored_tensor *b = safetensors_find(&file, "b");
    assert_int_equal(b->dims, 2);
    assert_int_equal(b->shape[0], 2);
    assert_int_equal(b->shape[1], 3);
    assert_memory_equal(b->data, floats, sizeof floats);
    assert_memory_equal(safetensors_find(&file, "a.q")->data, bytes, sizeof bytes);
    assert_null(safetensors_find(&file, "c"));
    assert_string_equal(safetensors_metadata(&file, "note"), two_entries[1].value);
    assert_null(safetensors_metadata(&file, "other"));
    safetensors_free(&file);
}

static void the_same_input_gives_the_same_bytes_and_aligned_data(void **state) {
    (void)state;
    unsigned char *one, *two;
    size_t size, again;
    build(&one, &size);
    build(&two, &again);
    assert_int_equal(size, again);
    assert_memory_equal(one, two, size);
    assert_int_equal((8 + one[0] + 256 * one[1]) % 8, 0);
    free(one);
    free(two);
}

static void an_empty_file_of_no_tensors_is_sound(void **state) {
    (void)state;
    unsigned char *buffer;
    size_t size;
    struct safetensors file;
    assert_null(safetensors_build(NULL, 0, NULL, 0, &buffer, &size));
    assert_null(safetensors_parse(&file, buffer, size, "memory"));
    assert_int_equal(file.count, 0);
    safetensors_free(&file);
}

static void the_golden_files_open(void **state) {
    (void)state;
    struct safetensors file;
    status s = safetensors_read(&file, "tests/golden/plain.safetensors");
    if (s) fail_msg("%s", status_text(s));
    assert_string_equal(safetensors_metadata(&file, "model.dim"), "32");
    assert_int_equal(safetensors_find(&file, "loss")->type, TYPE_F64);
    safetensors_free(&file);
}

/* Every prefix, in memory of exactly its size so that AddressSanitizer sees a read beyond. */
static void every_truncation_is_refused(void **state) {
    (void)state;
    unsigned char *whole;
    size_t size;
    struct safetensors file;
    build(&whole, &size);
    for (size_t length = 0; length < size; length++) {
        unsigned char *part = malloc(length ? length : 1);
        memcpy(part, whole, length);
        status s = safetensors_parse(&file, part, length, "truncated");
        assert_non_null(s);
        assert_int_equal(status_kind(s), STATUS_DATA);
        status_free(s);
    }
    free(whole);
}

static void every_flipped_bit_of_the_header_is_refused_or_harmless(void **state) {
    (void)state;
    unsigned char *whole;
    size_t size, refused = 0;
    build(&whole, &size);
    size_t header = size - sizeof floats - sizeof bytes;
    for (size_t bit = 0; bit < 8 * header; bit++) {
        struct safetensors file;
        unsigned char *copy = malloc(size);
        memcpy(copy, whole, size);
        copy[bit / 8] ^= (unsigned char)(1u << bit % 8);
        status s = safetensors_parse(&file, copy, size, "flipped");
        refused += s != NULL;
        if (s)
            status_free(s);
        else
            safetensors_free(&file);
    }
    assert_true(refused > 4 * header);
    free(whole);
}

static void assert_header_refused(const char *header, size_t data, const char *words) {
    size_t length = strlen(header), size = 8 + length + data;
    unsigned char *buffer = calloc(1, size);
    struct safetensors file;
    for (int i = 0; i < 8; i++) buffer[i] = (unsigned char)(length >> 8 * i);
    memcpy(buffer + 8, header, length);
    status s = safetensors_parse(&file, buffer, size, "hostile");
    if (!s) fail_msg("accepted: %.100s", header);
    if (!strstr(status_text(s), words)) fail_msg("%.100s\n%s", header, status_text(s));
    status_free(s);
}

static void hostile_headers_are_refused(void **state) {
    (void)state;
#define ENTRY(dtype, shape, offsets) \
    "{\"t\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}}"
    assert_header_refused(ENTRY("F32", "[2]", "[0,9]"), 8, "offsets outside");
    assert_header_refused(ENTRY("F32", "[2]", "[8,0]"), 8, "offsets outside");
    assert_header_refused(ENTRY("F32", "[2]", "[-8,0]"), 8, "offsets outside");
    assert_header_refused(ENTRY("F32", "[2]", "[0]"), 8, "offsets outside");
    assert_header_refused(ENTRY("F32", "[3]", "[0,8]"), 8, "does not match");
    assert_header_refused(ENTRY("F16", "[2]", "[0,8]"), 8, "does not match");
    assert_header_refused(ENTRY("F99", "[2]", "[0,8]"), 8, "dtype");
    assert_header_refused(ENTRY("F32", "[2.0]", "[0,8]"), 8, "shape");
    assert_header_refused(ENTRY("F32", "[-2]", "[0,8]"), 8, "shape");
    assert_header_refused(ENTRY("F32", "[1,1,1,1,2]", "[0,8]"), 8, "4 dimensions");
    assert_header_refused(ENTRY("F32", "[4294967296,4294967296,2]", "[0,8]"), 8, "shape");
    assert_header_refused(ENTRY("F32", "[1]", "[4,8]"), 8, "hole");
    assert_header_refused(ENTRY("F32", "[1]", "[0,4]"), 8, "behind the last");
    assert_header_refused("{}", 1, "behind the last");
    assert_header_refused("[]", 0, "not an object");
    assert_header_refused("{\"t\":1}", 0, "described");
    assert_header_refused("{\"__metadata__\":{\"k\":1}}", 0, "not a string");
    assert_header_refused("{\"__metadata__\":3}", 0, "not an object");
    assert_header_refused("{\"a\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                          "\"b\":{\"dtype\":\"I8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
                          3, "overlaps");
    assert_header_refused("{\"__metadata__\":{},\"__metadata__\":{}}", 0, "duplicate");
}

static void deep_nesting_is_refused_without_a_crash(void **state) {
    (void)state;
    enum { DEPTH = 200000 };
    char *header = malloc(DEPTH + 1);
    memset(header, '[', DEPTH);
    header[DEPTH] = '\0';
    assert_header_refused(header, 0, "depth");
    free(header);
}

static void a_header_length_near_two_to_the_64_is_refused(void **state) {
    (void)state;
    struct safetensors file;
    unsigned char *buffer = malloc(16);
    memset(buffer, 0xff, 16);
    status s = safetensors_parse(&file, buffer, 16, "hostile");
    assert_non_null(s);
    assert_non_null(strstr(status_text(s), "longer than the file"));
    status_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_built_is_read_back),
        cmocka_unit_test(the_same_input_gives_the_same_bytes_and_aligned_data),
        cmocka_unit_test(an_empty_file_of_no_tensors_is_sound),
        cmocka_unit_test(the_golden_files_open),
        cmocka_unit_test(every_truncation_is_refused),
        cmocka_unit_test(every_flipped_bit_of_the_header_is_refused_or_harmless),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(deep_nesting_is_refused_without_a_crash),
        cmocka_unit_test(a_header_length_near_two_to_the_64_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
