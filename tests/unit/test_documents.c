/* test_documents: how text is read, made valid and cut into documents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
// clang-format off
#include <cmocka.h>
// clang-format on

#include "model/documents.h"
#include "model/files.h"
#include "tests/unit/small_text.h"

static void write_text(const char *name, const char *text) { small_write(small_path("%s", name), text, strlen(text)); }

static void expect_documents(const char *path, int count, const char *const *expected) {
    struct documents documents;
    expect_good(documents_read(&documents, path));
    assert_int_equal(documents.count, count);
    for (int i = 0; i < count; i++) {
        assert_string_equal(documents.items[i].text, expected[i]);
        assert_int_equal(documents.items[i].length, strlen(expected[i]));
    }
    documents_free(&documents);
}

static const char three[] =
    "\n\nLargo \\Lar\"go\\, a. [It.\n   largus]\nsecond line\n\n   1. Slow.\n\n\nLari\n  \t\n   End.\n \n"
    "Lark";
static const char *const three_expected[] = {"Largo \\Lar\"go\\, a. [It.\n   largus]\nsecond line\n\n   1. Slow.\n",
                                             "Lari\n  \t\n   End.\n", "Lark"};

static void a_document_starts_at_an_unindented_line_after_a_blank_one(void **state) {
    (void)state;
    write_text("a", three);
    expect_documents(small_path("a"), 3, three_expected);
}

static void an_indented_first_line_belongs_to_the_first_document(void **state) {
    (void)state;
    write_text("a", "  title\n\nnext\n");
    expect_documents(small_path("a"), 2, (const char *[]){"  title\n", "next\n"});
}

static void gzip_reads_as_the_text_inside(void **state) {
    (void)state;
    gzFile file = gzopen(small_path("a.gz"), "wb");
    assert_int_equal(gzwrite(file, three, sizeof three - 1), sizeof three - 1);
    gzclose(file);
    expect_documents(small_path("a.gz"), 3, three_expected);
}

static void each_file_of_a_folder_is_one_document_in_the_order_of_names(void **state) {
    (void)state;
    mkdir(small_path("texts"), 0700);
    mkdir(small_path("texts/c"), 0700);
    write_text("texts/d", "last\n");
    write_text("texts/b", "two\n\nparagraphs\n");
    write_text("texts/a", "first");
    write_text("texts/empty", "");
    write_text("texts/c/inner", "third\n");
    expect_documents(small_path("texts"), 4, (const char *[]){"first", "two\n\nparagraphs\n", "third\n", "last\n"});
}

static void the_hash_of_a_folder_tells_where_files_end(void **state) {
    (void)state;
    const char *const split[2][2] = {{"ab", "c"}, {"a", "bc"}};
    struct documents documents[2];
    for (int i = 0; i < 2; i++) {
        mkdir(small_path("%d", i), 0700);
        for (int k = 0; k < 2; k++) small_write(small_path("%d/%d", i, k), split[i][k], strlen(split[i][k]));
        expect_good(documents_read(&documents[i], small_path("%d", i)));
    }
    assert_string_not_equal(documents[0].source_sha256, documents[1].source_sha256);
    for (int i = 0; i < 2; i++) documents_free(&documents[i]);
}

static void the_hash_of_a_file_is_that_of_its_text(void **state) {
    (void)state;
    char expected[65];
    struct documents documents;
    write_text("a", three);
    bytes_sha256(three, strlen(three), expected);
    expect_good(documents_read(&documents, small_path("a")));
    assert_string_equal(documents.source_sha256, expected);
    assert_int_equal(documents.source_bytes, strlen(three));
    documents_free(&documents);
}

static void bytes_that_are_no_utf8_are_replaced_and_counted(void **state) {
    (void)state;
    static const struct {
        const char *text, *expected;
        size_t replaced;
    } cases[] = {
        {"caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82", "caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x99\x82", 0},
        {"market\x92s", "market\uFFFDs", 1},
        {"overlong \xc0\xaf", "overlong \uFFFD\uFFFD", 2},
        {"overlong \xe0\x80\xaf", "overlong \uFFFD\uFFFD\uFFFD", 3},
        {"surrogate \xed\xa0\x80", "surrogate \uFFFD\uFFFD\uFFFD", 3},
        {"beyond \xf4\x90\x80\x80", "beyond \uFFFD\uFFFD\uFFFD\uFFFD", 4},
        {"cut \xe2\x82", "cut \uFFFD\uFFFD", 2},
        {"lead then text \xc3x", "lead then text \uFFFDx", 1},
        {"mark \u2581 of spaces", "mark \uFFFD of spaces", 3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct documents documents;
        write_text("a", cases[i].text);
        expect_good(documents_read(&documents, small_path("a")));
        assert_string_equal(documents.items[0].text, cases[i].expected);
        assert_int_equal(documents.replaced_bytes, cases[i].replaced);
        documents_free(&documents);
    }
}

static void a_text_with_nul_is_refused_with_its_place(void **state) {
    (void)state;
    struct documents documents;
    small_write(small_path("a"), "text\0more", 9);
    expect_failure(documents_read(&documents, small_path("a")), small_path("a"), "byte 4", "NUL", NULL);
}

static void a_gzip_file_that_ends_too_early_is_refused(void **state) {
    (void)state;
    gzFile file = gzopen(small_path("a.gz"), "wb");
    for (int i = 0; i < 20000; i++) gzprintf(file, "line %d\n", i * 7919 % 10007);
    gzclose(file);
    assert_int_equal(truncate(small_path("a.gz"), 20000), 0);
    struct documents documents;
    expect_failure(documents_read(&documents, small_path("a.gz")), "a.gz", "too early", NULL);
}

static void a_damaged_gzip_file_is_refused(void **state) {
    (void)state;
    gzFile file = gzopen(small_path("a.gz"), "wb");
    for (int i = 0; i < 20000; i++) gzprintf(file, "line %d\n", i * 7919 % 10007);
    gzclose(file);
    FILE *damaged = fopen(small_path("a.gz"), "r+b");
    fseek(damaged, 5000, SEEK_SET);
    for (int i = 0; i < 64; i++) fputc(0xff, damaged);
    fclose(damaged);
    struct documents documents;
    expect_failure(documents_read(&documents, small_path("a.gz")), "a.gz", "damaged", NULL);
}

static void text_without_a_document_is_refused(void **state) {
    (void)state;
    struct documents documents;
    write_text("a", " \n\n\t\n");
    expect_failure(documents_read(&documents, small_path("a")), "holds no text", NULL);
    write_text("b", "");
    expect_failure(documents_read(&documents, small_path("b")), "holds no text", NULL);
    mkdir(small_path("none"), 0700);
    expect_failure(documents_read(&documents, small_path("none")), "holds no text", NULL);
}

static void a_missing_file_is_named(void **state) {
    (void)state;
    struct documents documents;
    expect_failure(documents_read(&documents, small_path("absent")), "absent", "No such file", NULL);
}

static void gcide_is_cut_into_its_entries(void **state) {
    (void)state;
    struct documents documents;
    expect_good(documents_read_gcide(&documents));
    assert_int_equal(documents.count, 126300);
    assert_int_equal(documents.replaced_bytes, 3);
    assert_memory_equal(documents.items[documents.count - 1].text, "Zythum \\Zy\"thum\\ ", 17);
    documents_free(&documents);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, small_folder_make, small_folder_remove)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(a_document_starts_at_an_unindented_line_after_a_blank_one),
        TEST(an_indented_first_line_belongs_to_the_first_document),
        TEST(gzip_reads_as_the_text_inside),
        TEST(each_file_of_a_folder_is_one_document_in_the_order_of_names),
        TEST(the_hash_of_a_folder_tells_where_files_end),
        TEST(the_hash_of_a_file_is_that_of_its_text),
        TEST(bytes_that_are_no_utf8_are_replaced_and_counted),
        TEST(a_text_with_nul_is_refused_with_its_place),
        TEST(a_gzip_file_that_ends_too_early_is_refused),
        TEST(a_damaged_gzip_file_is_refused),
        TEST(text_without_a_document_is_refused),
        TEST(a_missing_file_is_named),
        TEST(gcide_is_cut_into_its_entries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
