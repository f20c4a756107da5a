/* test_tokenizer: lossless encoding, exact byte counts, the same model from the same text. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "kernels/random.h"
#include "model/data.h"
#include "model/files.h"
#include "model/tokenizer.h"
#include "tests/unit/small_text.h"

enum { PIECES = 400 };

static char *training_text;
static struct tokenizer *tokenizer;
static struct dataset tables;

static status train(int kind, int vocab_size, const char *path) {
    char *text = small_text(kind, 60);
    status s = tokenizer_train(&(struct tokenizer_corpus){(const char *[]){text}, 1}, vocab_size, path);
    free(text);
    return s;
}

static int make_tokenizer(void **state) {
    if (small_folder_make(state)) return 1;
    training_text = small_text(1, 60);
    expect_good(train(1, PIECES, small_path("model")));
    expect_good(tokenizer_load(&tokenizer, small_path("model")));
    expect_good(dataset_token_tables(&tables, tokenizer));
    return 0;
}

static int drop_tokenizer(void **state) {
    tokenizer_free(tokenizer);
    dataset_close(&tables);
    free(training_text);
    return small_folder_remove(state);
}

static const char *const texts[] = {
    "word",
    " leading space",
    "   indented\n\n\n      deeper\n",
    "\nnewline first",
    "trailing spaces   ",
    " ",
    "tab\tand\r\nreturn",
    "literal <s> </s> <unk> <0x41> pieces",
    "rare: \u00e9 \u20ac \u4e2d\u6587 \U0001F642 \uFFFD \u2585 e\u0301",
    "control \x01\x1f\x7f characters",
    "non-breaking\u00a0space and \u3000 wide one",
};
enum { TEXTS = sizeof texts / sizeof *texts };

struct encoded {
    int32_t *ids;
    size_t count, capacity;
};

static struct encoded encode(const char *text) {
    struct encoded e = {0};
    expect_good(tokenizer_encode(tokenizer, text, strlen(text), &e.ids, &e.count, &e.capacity));
    return e;
}

static void decoding_gives_back_what_was_encoded(void **state) {
    (void)state;
    for (int i = 0; i <= TEXTS; i++) {
        const char *text = i < TEXTS ? texts[i] : training_text;
        struct encoded e = encode(text);
        char *back;
        expect_good(tokenizer_decode(tokenizer, e.ids, e.count, &back));
        assert_string_equal(back, text);
        free(back);
        free(e.ids);
    }
}

static void the_bytes_of_a_documents_tokens_add_up_to_its_own(void **state) {
    (void)state;
    for (int i = 0; i <= TEXTS; i++) {
        const char *text = i < TEXTS ? texts[i] : training_text;
        struct encoded e = encode(text);
        size_t bytes = 0;
        for (size_t k = 0; k < e.count; k++)
            bytes += token_byte_count(&tables, (uint16_t)e.ids[k], k ? (uint16_t)e.ids[k - 1] : BOS_ID);
        assert_int_equal(bytes, strlen(text));
        free(e.ids);
    }
}

static void encoding_appends_to_what_is_there(void **state) {
    (void)state;
    struct encoded e = encode("one"), both = encode("one");
    const char *text = training_text;
    expect_good(tokenizer_encode(tokenizer, text, strlen(text), &both.ids, &both.count, &both.capacity));
    assert_memory_equal(both.ids, e.ids, e.count * sizeof *e.ids);
    struct encoded rest = encode(text);
    assert_int_equal(both.count, e.count + rest.count);
    assert_memory_equal(both.ids + e.count, rest.ids, rest.count * sizeof *rest.ids);
    free(e.ids);
    free(both.ids);
    free(rest.ids);
}

static void the_first_ids_are_unknown_begin_and_end(void **state) {
    (void)state;
    assert_int_equal(tokenizer_vocab_size(tokenizer), PIECES);
    assert_true(tokenizer_piece(tokenizer, 0).unknown);
    assert_string_equal(tokenizer_piece(tokenizer, BOS_ID).text, "<s>");
    assert_string_equal(tokenizer_piece(tokenizer, 2).text, "</s>");
    assert_true(tokenizer_piece(tokenizer, BOS_ID).control && tokenizer_piece(tokenizer, 2).control);
    for (size_t id = 0; id < PIECES; id++) {
        assert_int_equal(tables.token_boundary[id], id < 3);
        assert_int_equal(tokenizer_piece(tokenizer, id).byte, id >= 3 && id < 3 + 256);
    }
}

static void byte_counts_follow_the_written_rule(void **state) {
    (void)state;
    assert_int_equal(tables.token_bytes[BOS_ID], 0);
    assert_int_equal(tables.token_bytes[3 + 'A'], 1);
    for (size_t id = 3 + 256; id < PIECES; id++) {
        const char *text = tokenizer_piece(tokenizer, id).text;
        int starts = !strncmp(text, "\u2581", 3);
        assert_int_equal(tables.token_space[id], starts);
        if (!strstr(text + 3 * starts, "\u2581"))
            assert_int_equal(tables.token_bytes[id], strlen(text) - 3 * (size_t)starts);
        assert_int_equal(token_byte_count(&tables, (uint16_t)id, BOS_ID), tables.token_bytes[id]);
        assert_int_equal(token_byte_count(&tables, (uint16_t)id, 300), tables.token_bytes[id] + starts);
    }
}

static void only_pieces_of_spaces_alone_have_a_space_inside(void **state) {
    (void)state;
    int of_spaces = 0;
    for (size_t id = 3 + 256; id < PIECES; id++) {
        const char *text = tokenizer_piece(tokenizer, id).text;
        size_t marks = 0;
        for (const char *p = text; (p = strstr(p, "\u2581")); p += 3) marks++;
        if (marks < 2) continue;
        assert_int_equal(3 * marks, strlen(text));
        assert_int_equal(tables.token_bytes[id], marks - 1);
        of_spaces++;
    }
    assert_true(of_spaces > 0);
}

static void the_same_text_trains_the_same_model(void **state) {
    (void)state;
    char first[65], second[65], other[65];
    expect_good(train(1, PIECES, small_path("second")));
    expect_good(train(2, PIECES, small_path("other")));
    expect_good(file_sha256(small_path("model"), first));
    expect_good(file_sha256(small_path("second"), second));
    expect_good(file_sha256(small_path("other"), other));
    assert_string_equal(first, second);
    assert_string_not_equal(first, other);
}

static void a_text_almost_without_spaces_still_has_a_piece_for_them(void **state) {
    (void)state;
    enum { LETTERS = 20000 };
    char *text = malloc(LETTERS + 1);
    struct random_stream random = random_stream(1, "letters");
    for (int i = 0; i < LETTERS; i++) text[i] = (char)('a' + random_below(random, (uint64_t)i, 8));
    text[LETTERS] = '\0';
    struct tokenizer *spaceless;
    expect_good(tokenizer_train(&(struct tokenizer_corpus){(const char *[]){text}, 1}, 300, small_path("spaceless")));
    expect_good(tokenizer_load(&spaceless, small_path("spaceless")));
    int found = 0;
    for (size_t id = 0; id < 300; id++) found += !strcmp(tokenizer_piece(spaceless, id).text, "\u2581");
    assert_int_equal(found, 1);
    tokenizer_free(spaceless);
    free(text);
}

static void too_little_text_for_the_pieces_is_refused_with_the_figures(void **state) {
    (void)state;
    status s =
        tokenizer_train(&(struct tokenizer_corpus){(const char *[]){"a few words"}, 1}, 1024, small_path("none"));
    expect_failure(s, "1024 pieces", "11 bytes", NULL);
    expect_failure(tokenizer_train(&(struct tokenizer_corpus){NULL, 0}, 1024, small_path("none")), "0 bytes", NULL);
    assert_int_not_equal(access(small_path("none"), F_OK), 0);
}

static void too_few_pieces_for_the_characters_are_refused(void **state) {
    (void)state;
    expect_failure(train(1, 200, small_path("none")), "200 pieces", NULL);
    assert_int_not_equal(access(small_path("none"), F_OK), 0);
}

static void a_file_that_is_no_model_is_refused(void **state) {
    (void)state;
    struct tokenizer *none;
    small_write(small_path("text"), "no model", 8);
    expect_failure(tokenizer_load(&none, small_path("text")), small_path("text"), "no SentencePiece model", NULL);
    small_write(small_path("text"), "", 0);
    expect_failure(tokenizer_load(&none, small_path("text")), small_path("text"), "no SentencePiece model", NULL);
    expect_failure(tokenizer_load(&none, small_path("absent")), "absent", NULL);
}

static void an_id_beyond_the_pieces_is_not_decoded(void **state) {
    (void)state;
    char *text;
    expect_failure(tokenizer_decode(tokenizer, (int32_t[]){300, PIECES}, 2, &text), "id 400", "position 1", NULL);
    expect_failure(tokenizer_decode(tokenizer, (int32_t[]){-1}, 1, &text), "id -1", NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decoding_gives_back_what_was_encoded),
        cmocka_unit_test(the_bytes_of_a_documents_tokens_add_up_to_its_own),
        cmocka_unit_test(encoding_appends_to_what_is_there),
        cmocka_unit_test(the_first_ids_are_unknown_begin_and_end),
        cmocka_unit_test(byte_counts_follow_the_written_rule),
        cmocka_unit_test(only_pieces_of_spaces_alone_have_a_space_inside),
        cmocka_unit_test(the_same_text_trains_the_same_model),
        cmocka_unit_test(a_text_almost_without_spaces_still_has_a_piece_for_them),
        cmocka_unit_test(too_little_text_for_the_pieces_is_refused_with_the_figures),
        cmocka_unit_test(too_few_pieces_for_the_characters_are_refused),
        cmocka_unit_test(a_file_that_is_no_model_is_refused),
        cmocka_unit_test(an_id_beyond_the_pieces_is_not_decoded),
    };
    return cmocka_run_group_tests(tests, make_tokenizer, drop_tokenizer);
}
