/* test_arena: counting, placing, alignment, zeroes and refusal. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/arena.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#endif

struct layout {
    unsigned char *bytes;
    real *reals;
    void *nothing, *last;
};

static struct layout lay_out(struct arena *arena) {
    return (struct layout){arena_take(arena, 3), arena_reals(arena, 1000), arena_take(arena, 0), arena_take(arena, 65)};
}

static struct arena counted_and_created(void) {
    struct arena counting = {0}, arena;
    lay_out(&counting);
    assert_null(arena_create(&arena, counting.used, "the test"));
    return arena;
}

static void counting_gives_no_memory_and_the_exact_size(void **state) {
    (void)state;
    struct arena counting = {0};
    struct layout l = lay_out(&counting);
    assert_null(l.bytes);
    assert_null(l.last);
    struct arena arena = counted_and_created();
    lay_out(&arena);
    assert_int_equal(arena.used, counting.used);
    assert_true(arena.used <= arena.size);
    arena_destroy(&arena);
}

static void pieces_are_aligned_zeroed_and_apart(void **state) {
    (void)state;
    struct arena arena = counted_and_created();
    struct layout l = lay_out(&arena);
    assert_int_equal((uintptr_t)l.bytes % 256, 0);
    assert_int_equal((uintptr_t)l.reals % 256, 0);
    assert_int_equal((uintptr_t)l.last % 256, 0);
    for (size_t i = 0; i < 1000; i++) assert_true(l.reals[i] == 0);
    assert_true((unsigned char *)l.reals >= l.bytes + 3);
    assert_true((unsigned char *)l.last >= (unsigned char *)(l.reals + 1000));
    memset(l.last, 1, 65);
    arena_destroy(&arena);
    assert_null(arena.base);
}

static void the_bytes_between_pieces_are_poisoned_under_addresssanitizer(void **state) {
    (void)state;
    struct arena arena = counted_and_created();
    struct layout l = lay_out(&arena);
#if defined(__SANITIZE_ADDRESS__)
    assert_true(__asan_address_is_poisoned(l.bytes + 3));
    assert_true(__asan_address_is_poisoned(l.reals + 1000));
    assert_true(__asan_address_is_poisoned((unsigned char *)l.last + 65));
#endif
    memset(l.bytes, 1, 3);
    memset(l.reals, 1, 1000 * sizeof *l.reals);
    arena_destroy(&arena);
}

static void a_large_arena_is_zeroed_and_aligned_too(void **state) {
    (void)state;
    struct arena arena;
    assert_null(arena_create(&arena, 5 << 20, "the test"));
    unsigned char *all = arena_take(&arena, 4 << 20);
    assert_int_equal((uintptr_t)all % 256, 0);
    for (size_t i = 0; i < 4 << 20; i += 4093) assert_int_equal(all[i], 0);
    arena_destroy(&arena);
}

static void more_than_the_machine_has_is_refused_with_the_figure(void **state) {
    (void)state;
    struct arena arena;
    status s = arena_create(&arena, (size_t)1 << 52, "training");
    assert_non_null(s);
    assert_int_equal(status_kind(s), STATUS_SYSTEM);
    assert_non_null(strstr(status_text(s), "training needs 4503599627.4 MB"));
    assert_null(arena.base);
    status_free(s);
}

static void overrunning_a_counted_arena_aborts(void **state) {
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        signal(SIGABRT, SIG_DFL);
        struct arena arena;
        if (arena_create(&arena, 128, "the test")) _exit(1);
        arena_take(&arena, 64);
        arena_take(&arena, 64);
        _exit(0);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_true(WIFSIGNALED(outcome) && WTERMSIG(outcome) == SIGABRT);
}

/* A device that gives memory `gifts` times. */
static int gifts, given;

static status give(void **out, size_t bytes, const char *what) {
    if (given == gifts) return status_new(STATUS_SYSTEM, "no device memory for %s", what);
    given++;
    *out = calloc(1, bytes);
    return NULL;
}

static const struct backend device = {.device_memory = true, .memory_new = give, .memory_free = free};

/* Under AddressSanitizer each piece asks for memory of its own. */
static void a_device_without_room_for_pieces_of_their_own_has_them_in_the_block(void **state) {
    (void)state;
    for (gifts = 1; gifts <= 3; gifts++) {
        struct arena arena;
        given = 0;
        assert_null(arena_create_for(&arena, &device, 1024, "the test"));
        unsigned char *first = arena_take(&arena, 100), *second = arena_take(&arena, 100);
        bool all_own = given == 3, one_own = given == 2;
        assert_true((first == arena.base) == !(one_own || all_own));
        assert_true((second == arena.base + 256) == !all_own);
        memset(first, 1, 100);
        memset(second, 1, 100);
        arena_destroy(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counting_gives_no_memory_and_the_exact_size),
        cmocka_unit_test(pieces_are_aligned_zeroed_and_apart),
        cmocka_unit_test(the_bytes_between_pieces_are_poisoned_under_addresssanitizer),
        cmocka_unit_test(a_large_arena_is_zeroed_and_aligned_too),
        cmocka_unit_test(more_than_the_machine_has_is_refused_with_the_figure),
        cmocka_unit_test(overrunning_a_counted_arena_aborts),
        cmocka_unit_test(a_device_without_room_for_pieces_of_their_own_has_them_in_the_block),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
