/* test_data: preparing, registering, opening, and every way in which the files can be wrong. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/data.h"
#include "model/documents.h"
#include "model/encode.h"
#include "model/files.h"
#include "model/manifest.h"
#include "model/shards.h"
#include "model/tokenizer.h"
#include "tests/unit/small_text.h"

enum { PIECES = 400, DOCUMENTS = 120 };

static status prepare(const char *root, const char *name, const char *text, int vocab_size) {
    return dataset_prepare(
        &(struct prepare_request){.root = root, .name = name, .text = text, .vocab_size = vocab_size, .held_out = 0.1});
}

/* The folder of each test: the file "text" and, prepared from it, "root/small"; made once and written out anew. */
static const char *const prepared_files[] = {"text", "root/small/manifest.json", "root/small/tokenizer.model",
                                             "root/small/small_train_000000.bin", "root/small/small_val_000000.bin"};
enum { PREPARED_FILES = sizeof prepared_files / sizeof *prepared_files };
static struct {
    unsigned char *bytes;
    size_t size;
} prepared[PREPARED_FILES];

static int prepare_once(void **state) {
    if (small_folder_make(state)) return 1;
    char *text = small_text(1, DOCUMENTS);
    small_write(small_path("text"), text, strlen(text));
    free(text);
    expect_good(prepare(small_path("root"), "small", small_path("text"), PIECES));
    for (int i = 0; i < PREPARED_FILES; i++)
        expect_good(file_read(small_path("%s", prepared_files[i]), &prepared[i].bytes, &prepared[i].size));
    return small_folder_remove(state);
}

static int write_prepared(void **state) {
    if (small_folder_make(state)) return 1;
    expect_good(make_directories(small_path("root/small")));
    for (int i = 0; i < PREPARED_FILES; i++)
        small_write(small_path("%s", prepared_files[i]), prepared[i].bytes, prepared[i].size);
    return 0;
}

static int forget_prepared(void **state) {
    (void)state;
    for (int i = 0; i < PREPARED_FILES; i++) free(prepared[i].bytes);
    return 0;
}

static struct dataset open_small(void) {
    struct dataset dataset;
    expect_good(dataset_open(&dataset, small_path("root"), "small"));
    return dataset;
}

/* --- prepare ----------------------------------------------------------------------------------------------------- */

/* Marks the documents whose text the stream holds, each in its own place after a BOS. */
static size_t mark_documents(const struct token_stream *stream, const struct tokenizer *tokenizer,
                             const struct documents *documents, int *seen) {
    size_t found = 0;
    int32_t *ids = malloc(stream->count * sizeof *ids);
    for (size_t i = 0, end; i < stream->count; i = end) {
        assert_int_equal(stream->tokens[i], BOS_ID);
        for (end = i + 1; end < stream->count && stream->tokens[end] != BOS_ID; end++)
            ids[end - i - 1] = stream->tokens[end];
        char *text;
        expect_good(tokenizer_decode(tokenizer, ids, end - i - 1, &text));
        for (size_t k = 0; k < documents->count; k++) seen[k] += !strcmp(documents->items[k].text, text);
        free(text);
        found++;
    }
    free(ids);
    return found;
}

static void every_document_is_in_one_split_word_for_word(void **state) {
    (void)state;
    struct dataset d = open_small();
    struct documents documents;
    struct tokenizer *tokenizer;
    int seen[DOCUMENTS] = {0};
    expect_good(documents_read(&documents, small_path("text")));
    expect_good(tokenizer_load(&tokenizer, small_path("root/small/tokenizer.model")));
    size_t train = mark_documents(&d.train, tokenizer, &documents, seen);
    size_t validation = mark_documents(&d.validation, tokenizer, &documents, seen);
    assert_int_equal(train + validation, DOCUMENTS);
    assert_true(validation > 0 && validation < DOCUMENTS / 3);
    for (int i = 0; i < DOCUMENTS; i++) assert_int_equal(seen[i], 1);
    tokenizer_free(tokenizer);
    documents_free(&documents);
    dataset_close(&d);
}

static void equal_documents_land_on_the_same_side(void **state) {
    (void)state;
    struct document items[200];
    char texts[100][16];
    for (int i = 0; i < 200; i++) {
        snprintf(texts[i % 100], sizeof texts[0], "text %d", i % 100);
        items[i] = (struct document){texts[i % 100], strlen(texts[i % 100])};
    }
    struct document_split split;
    expect_good(documents_split(&(struct documents){.items = items, .count = 200}, 0.3, &split));
    assert_memory_equal(split.side, split.side + 100, 100);
    assert_true(split.count[SPLIT_VALIDATION] > 30 && split.count[SPLIT_VALIDATION] < 90);
    document_split_free(&split);
}

static void the_same_text_gives_the_same_bytes_wherever_it_lies(void **state) {
    (void)state;
    struct dataset first = open_small(), second;
    rename(small_path("text"), small_path("moved"));
    expect_good(prepare(small_path("elsewhere"), "other", small_path("moved"), PIECES));
    expect_good(dataset_open(&second, small_path("elsewhere"), "other"));
    assert_string_equal(first.sha256, second.sha256);
    assert_int_equal(first.train.count, second.train.count);
    assert_memory_equal(first.train.tokens, second.train.tokens, 2 * first.train.count);
    dataset_close(&first);
    dataset_close(&second);
}

static void another_text_has_another_identity(void **state) {
    (void)state;
    struct dataset first = open_small(), second;
    char *text = small_text(2, DOCUMENTS);
    small_write(small_path("text2"), text, strlen(text));
    free(text);
    expect_good(prepare(small_path("root"), "second", small_path("text2"), PIECES));
    expect_good(dataset_open(&second, small_path("root"), "second"));
    assert_string_not_equal(first.sha256, second.sha256);
    dataset_close(&first);
    dataset_close(&second);
}

static void what_was_prepared_before_is_left_alone(void **state) {
    (void)state;
    struct stat before, after;
    assert_int_equal(stat(small_path("root/small/manifest.json"), &before), 0);
    expect_good(prepare(small_path("root"), "small", small_path("text"), PIECES));
    assert_int_equal(stat(small_path("root/small/manifest.json"), &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
}

static void a_name_in_use_for_other_text_or_settings_is_refused(void **state) {
    (void)state;
    expect_failure(prepare(small_path("root"), "small", small_path("text"), PIECES + 1), "root/small", "400 pieces",
                   NULL);
    FILE *text = fopen(small_path("text"), "a");
    fputs("\nmore\n", text);
    fclose(text);
    expect_failure(prepare(small_path("root"), "small", small_path("text"), PIECES), "root/small", "another name",
                   NULL);
    mkdir(small_path("root/foreign"), 0700);
    expect_failure(prepare(small_path("root"), "foreign", small_path("text"), PIECES), "root/foreign", "manifest.json",
                   NULL);
}

static void a_failed_preparation_leaves_nothing_behind(void **state) {
    (void)state;
    expect_failure(prepare(small_path("fresh"), "small", small_path("text"), 60000), "60000 pieces", NULL);
    assert_int_equal(small_count_files(small_path("fresh")), 0);
}

static void what_a_killed_preparation_left_is_taken_away(void **state) {
    (void)state;
    mkdir(small_path("fresh"), 0700);
    mkdir(small_path("fresh/.small.partial"), 0700);
    small_write(small_path("fresh/.small.partial/small_train_000000.bin"), "half", 4);
    expect_good(prepare(small_path("fresh"), "small", small_path("text"), PIECES));
    assert_int_equal(small_count_files(small_path("fresh")), 1);
    assert_int_equal(small_count_files(small_path("fresh/small")), 4);
}

static void impossible_requests_are_refused_with_the_figure(void **state) {
    (void)state;
    const char *root = small_path("fresh"), *text = small_path("text");
    expect_failure(prepare(root, "x", text, 65537), "65537", "65536", NULL);
    expect_failure(prepare(root, "x", text, 1), "vocabulary of 1", NULL);
    expect_failure(prepare(root, "../x", text, PIECES), "../x", NULL);
    expect_failure(prepare(root, "", text, PIECES), "name", NULL);
    expect_failure(prepare(root, ".hidden", text, PIECES), ".hidden", NULL);
    expect_failure(prepare(root, "x", small_path("absent"), PIECES), "absent", NULL);
    struct prepare_request all = {.root = root, .name = "x", .text = text, .vocab_size = PIECES, .held_out = 1};
    expect_failure(dataset_prepare(&all), "held out", NULL);
    assert_int_equal(small_count_files(root), 0);
}

static void a_text_of_one_document_cannot_be_split(void **state) {
    (void)state;
    small_write(small_path("one"), "a single document\n", 18);
    expect_failure(prepare(small_path("root"), "one", small_path("one"), PIECES), "of 1 documents", "hold out", NULL);
}

/* --- what is known of it ------------------------------------------------------------------------------------------ */

static size_t text_bytes(int side) {
    struct documents documents;
    struct document_split split;
    expect_good(documents_read(&documents, small_path("text")));
    expect_good(documents_split(&documents, 0.1, &split));
    size_t bytes = split.bytes[side];
    document_split_free(&split);
    documents_free(&documents);
    return bytes;
}

static void the_bytes_of_the_tokens_are_those_of_the_text(void **state) {
    (void)state;
    struct dataset d = open_small();
    assert_int_equal(dataset_bytes(&d, d.validation.tokens, d.validation.count, BOS_ID), text_bytes(SPLIT_VALIDATION));
    assert_int_equal(dataset_bytes(&d, d.train.tokens, d.train.count, BOS_ID), text_bytes(SPLIT_TRAIN));
    double expected = (double)text_bytes(SPLIT_VALIDATION) / (double)d.validation.count;
    assert_true(fabs(d.bytes_per_token - expected) < 1e-12);
    dataset_close(&d);
}

static void the_unigram_reference_is_the_add_one_smoothed_cross_entropy(void **state) {
    (void)state;
    struct dataset d = open_small();
    double nll = 0;
    for (size_t i = 0; i < d.validation.count; i++) {
        double count = 1;
        for (size_t k = 0; k < d.train.count; k++) count += d.train.tokens[k] == d.validation.tokens[i];
        nll -= log(count / ((double)d.train.count + PIECES));
    }
    assert_true(fabs(d.unigram_nll - nll / (double)d.validation.count) < 1e-9);
    dataset_close(&d);
}

static void the_manifest_tells_what_the_files_hold(void **state) {
    (void)state;
    struct dataset d = open_small();
    struct manifest m;
    expect_good(manifest_read(&m, small_path("root/small/manifest.json")));
    assert_string_equal(m.sha256, d.sha256);
    assert_int_equal(m.vocab_size, PIECES);
    assert_int_equal(m.splits[SPLIT_TRAIN].tokens, d.train.count);
    assert_int_equal(m.splits[SPLIT_VALIDATION].tokens, d.validation.count);
    assert_int_equal(m.splits[SPLIT_TRAIN].bytes, text_bytes(SPLIT_TRAIN));
    assert_int_equal(m.splits[SPLIT_TRAIN].documents + m.splits[SPLIT_VALIDATION].documents, DOCUMENTS);
    assert_true(m.unigram_nll == d.unigram_nll && m.bytes_per_token == d.bytes_per_token && m.held_out == 0.1);
    manifest_free(&m);
    dataset_close(&d);
}

/* --- damage ------------------------------------------------------------------------------------------------------ */

static const char *shard_path(const char *split) { return small_path("root/small/small_%s_000000.bin", split); }

static void expect_refused(const char *file, const char *word, const char *figure) {
    struct dataset d;
    expect_failure(dataset_open(&d, small_path("root"), "small"), file, word, figure, NULL);
    assert_null(d.token_bytes);
}

static void patch(const char *path, long offset, const void *bytes, size_t size) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    fseek(file, offset, SEEK_SET);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    fclose(file);
}

static void a_missing_shard_is_named(void **state) {
    (void)state;
    remove(shard_path("val"));
    expect_refused("small_val_000000.bin", "missing", "prepare");
}

static void a_truncated_shard_is_refused_with_the_figures(void **state) {
    (void)state;
    char figure[32];
    struct stat info;
    assert_int_equal(stat(shard_path("train"), &info), 0);
    snprintf(figure, sizeof figure, "%lld bytes", (long long)info.st_size - 2);
    assert_int_equal(truncate(shard_path("train"), info.st_size - 2), 0);
    expect_refused("small_train_000000.bin", "truncated", figure);
    assert_int_equal(truncate(shard_path("train"), 100), 0);
    expect_refused("small_train_000000.bin", "truncated", "100 bytes");
}

static void a_wrong_magic_or_version_is_refused_with_the_figure(void **state) {
    (void)state;
    patch(shard_path("train"), 4, &(int32_t){7}, 4);
    expect_refused("small_train_000000.bin", "version", "7");
    patch(shard_path("train"), 0, &(int32_t){12345}, 4);
    expect_refused("small_train_000000.bin", "magic", "12345");
}

static void a_changed_token_is_found_by_its_hash(void **state) {
    (void)state;
    patch(shard_path("val"), SHARD_HEADER_BYTES + 20, &(uint16_t){17}, 2);
    expect_refused("small_val_000000.bin", "SHA-256", "changed");
}

static void a_changed_tokenizer_is_found_by_its_hash(void **state) {
    (void)state;
    patch(small_path("root/small/tokenizer.model"), 30, "?", 1);
    expect_refused("tokenizer.model", "SHA-256", "changed");
    remove(small_path("root/small/tokenizer.model"));
    expect_refused("tokenizer.model", "cannot be read", "No such file");
}

/* Replaces text in the manifest by other text of the same length. */
static void edit_manifest(const char *from, const char *to) {
    unsigned char *data;
    size_t size;
    assert_int_equal(strlen(from), strlen(to));
    expect_good(file_read(small_path("root/small/manifest.json"), &data, &size));
    char *place = strstr((char *)data, from);
    assert_non_null(place);
    memcpy(place, to, strlen(to));
    small_write(small_path("root/small/manifest.json"), data, size);
    free(data);
}

static void a_damaged_manifest_is_refused(void **state) {
    (void)state;
    edit_manifest("\"vocab_size\": 400", "\"vocab_size\": 401");
    expect_refused("tokenizer.model", "401", "400");
    edit_manifest("\"vocab_size\": 401", "\"vocab_siz_\": 401");
    expect_refused("manifest.json", "vocab_size", "prepare");
    small_write(small_path("root/small/manifest.json"), "{", 1);
    expect_refused("manifest.json", "no valid manifest", "prepare");
}

static void a_manifest_of_another_identity_is_refused(void **state) {
    (void)state;
    struct dataset d = open_small();
    char changed[65];
    snprintf(changed, sizeof changed, "%s", d.sha256);
    changed[0] = changed[0] == '0' ? '1' : '0';
    edit_manifest(d.sha256, changed);
    dataset_close(&d);
    expect_refused("manifest.json", "identity", changed);
}

static void a_file_name_cannot_lead_out_of_the_folder(void **state) {
    (void)state;
    edit_manifest("\"tokenizer.model\"", "\"../ken/er.model\"");
    expect_refused("manifest.json", "../ken/er.model", "prepare");
}

static void a_name_without_a_dataset_says_how_to_make_it(void **state) {
    (void)state;
    struct dataset d;
    expect_failure(dataset_open(&d, small_path("root"), "absent"), "absent", "hinge data prepare", NULL);
}

/* --- shards of others --------------------------------------------------------------------------------------------- */

static void registered_shards_are_linked_and_read_as_one_stream(void **state) {
    (void)state;
    struct dataset d = open_small(), added;
    size_t shards;
    struct stat info;
    mkdir(small_path("shards [1]"), 0700);
    expect_good(shards_write(small_path("shards [1]"), "web", "train", d.train.tokens, d.train.count, 1000, &shards));
    assert_int_equal(shards, (d.train.count + 999) / 1000);
    assert_true(shards > 2);
    expect_good(
        shards_write(small_path("shards [1]"), "web", "val", d.validation.tokens, d.validation.count, 5000, &shards));
    expect_good(
        dataset_add(small_path("root"), "web", small_path("shards [1]"), small_path("root/small/tokenizer.model")));
    assert_int_equal(lstat(small_path("root/web/web_train_000001.bin"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    expect_good(dataset_open(&added, small_path("root"), "web"));
    assert_int_equal(added.train.count, d.train.count);
    assert_memory_equal(added.train.tokens, d.train.tokens, 2 * d.train.count);
    assert_memory_equal(added.validation.tokens, d.validation.tokens, 2 * d.validation.count);
    assert_true(added.unigram_nll == d.unigram_nll && added.bytes_per_token == d.bytes_per_token);
    expect_failure(
        dataset_add(small_path("root"), "web", small_path("shards [1]"), small_path("root/small/tokenizer.model")),
        "root/web", "exists", NULL);
    dataset_close(&added);
    dataset_close(&d);
}

static void an_id_beyond_the_vocabulary_is_refused_with_its_place(void **state) {
    (void)state;
    const uint16_t tokens[] = {1, 300, 399, 400, 5};
    size_t shards;
    mkdir(small_path("shards"), 0700);
    for (int side = 0; side < SPLITS; side++)
        expect_good(shards_write(small_path("shards"), "web", split_file_names[side], tokens, 5, 100, &shards));
    expect_failure(
        dataset_add(small_path("root"), "web", small_path("shards"), small_path("root/small/tokenizer.model")),
        "web_train_000000.bin", "token 3 has id 400", "400 pieces", NULL);
    assert_int_equal(small_count_files(small_path("root")), 1);
}

static void a_folder_without_shards_is_refused(void **state) {
    (void)state;
    mkdir(small_path("shards"), 0700);
    expect_failure(
        dataset_add(small_path("root"), "web", small_path("shards"), small_path("root/small/tokenizer.model")),
        "_train_", NULL);
    expect_failure(
        dataset_add(small_path("root"), "web", small_path("absent"), small_path("root/small/tokenizer.model")),
        "absent", NULL);
    expect_failure(dataset_add(small_path("root"), "web", small_path("shards"), small_path("absent.model")),
                   "absent.model", NULL);
    assert_int_equal(small_count_files(small_path("root")), 1);
}

static void a_shard_has_the_published_header(void **state) {
    (void)state;
    const uint16_t tokens[] = {1, 65535, 258};
    size_t shards, size;
    unsigned char *file;
    expect_good(shards_write(small_path("."), "x", "train", tokens, 3, 100, &shards));
    expect_good(file_read(small_path("x_train_000000.bin"), &file, &size));
    assert_int_equal(size, 1024 + 6);
    assert_memory_equal(file, "\x88\xd8\x34\x01\x01\0\0\0\x03\0\0\0\0", 13);
    for (int i = 12; i < 1024; i++) assert_int_equal(file[i], 0);
    assert_memory_equal(file + 1024, "\x01\0\xff\xff\x02\x01", 6);
    free(file);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, write_prepared, small_folder_remove)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(every_document_is_in_one_split_word_for_word),
        TEST(equal_documents_land_on_the_same_side),
        TEST(the_same_text_gives_the_same_bytes_wherever_it_lies),
        TEST(another_text_has_another_identity),
        TEST(what_was_prepared_before_is_left_alone),
        TEST(a_name_in_use_for_other_text_or_settings_is_refused),
        TEST(a_failed_preparation_leaves_nothing_behind),
        TEST(what_a_killed_preparation_left_is_taken_away),
        TEST(impossible_requests_are_refused_with_the_figure),
        TEST(a_text_of_one_document_cannot_be_split),
        TEST(the_bytes_of_the_tokens_are_those_of_the_text),
        TEST(the_unigram_reference_is_the_add_one_smoothed_cross_entropy),
        TEST(the_manifest_tells_what_the_files_hold),
        TEST(a_missing_shard_is_named),
        TEST(a_truncated_shard_is_refused_with_the_figures),
        TEST(a_wrong_magic_or_version_is_refused_with_the_figure),
        TEST(a_changed_token_is_found_by_its_hash),
        TEST(a_changed_tokenizer_is_found_by_its_hash),
        TEST(a_damaged_manifest_is_refused),
        TEST(a_manifest_of_another_identity_is_refused),
        TEST(a_file_name_cannot_lead_out_of_the_folder),
        TEST(a_name_without_a_dataset_says_how_to_make_it),
        TEST(registered_shards_are_linked_and_read_as_one_stream),
        TEST(an_id_beyond_the_vocabulary_is_refused_with_its_place),
        TEST(a_folder_without_shards_is_refused),
        TEST(a_shard_has_the_published_header),
    };
    return cmocka_run_group_tests(tests, prepare_once, forget_prepared);
}
