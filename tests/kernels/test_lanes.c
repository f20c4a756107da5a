/* test_lanes: for_each runs every piece once, on a lane of its own, with the same bits for any number of lanes. */
#include <omp.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernels/kernels.h"
#include "tests/kernels/near.h"

enum { PIECES = 100, LANES = 4, SIDE = 48 };

struct work {
    atomic_int runs[PIECES], busy[LANES], clashes;
    real products[PIECES][SIDE * SIDE];
};

static void run_piece(void *context, int piece, struct lane *lane) {
    struct work *work = context;
    real a[SIDE * SIDE];
    if (atomic_fetch_add(&work->busy[lane->index], 1) != 0) atomic_fetch_add(&work->clashes, 1);
    normals(a, SIDE * SIDE, "matrix", piece + 1);
    cpu_linear_forward(lane, work->products[piece], a, a, SIDE, SIDE, SIDE);
    atomic_fetch_add(&work->runs[piece], 1);
    atomic_fetch_sub(&work->busy[lane->index], 1);
}

static struct work *run_on(int lane_count) {
    struct work *work = calloc(1, sizeof *work);
    struct lane lanes[LANES] = {{.index = 0}, {.index = 1}, {.index = 2}, {.index = 3}};
    backend_find("cpu")->for_each(lanes, lane_count, PIECES, run_piece, work);
    assert_int_equal(work->clashes, 0);
    for (int piece = 0; piece < PIECES; piece++) assert_int_equal(work->runs[piece], 1);
    return work;
}

static void every_piece_runs_once_and_lanes_are_never_shared(void **state) {
    (void)state;
    for (int lanes = 1; lanes <= LANES; lanes++) free(run_on(lanes));
}

static void the_bits_do_not_depend_on_the_number_of_lanes(void **state) {
    (void)state;
    struct work *one = run_on(1);
    for (int lanes = 2; lanes <= LANES; lanes++) {
        struct work *many = run_on(lanes);
        assert_memory_equal(one->products, many->products, sizeof one->products);
        free(many);
    }
    free(one);
}

static void no_pieces_is_no_work(void **state) {
    (void)state;
    struct lane lane = {.index = 0};
    backend_find("cpu")->for_each(&lane, 1, 0, NULL, NULL);
}

/* --- for_each within for_each ------------------------------------------------------------------------------------- */
static void run_inner(void *context, int piece, struct lane *lane) {
    int *sum = context;
    *sum += lane->scratch == sum ? piece : -1000;
}

static void run_outer(void *context, int piece, struct lane *lane) {
    int *sums = context;
    struct lane same = {.index = lane->index, .scratch = sums + piece};
    backend_find("cpu")->for_each(&same, 1, 5, run_inner, sums + piece);
    backend_find("cpu")->for_each(&same, LANES, 5, run_inner, sums + piece);
}

static void pieces_within_a_piece_run_in_order_on_the_lane_given(void **state) {
    (void)state;
    int sums[PIECES] = {0};
    struct lane lanes[2] = {{.index = 0}, {.index = 1}};
    backend_find("cpu")->for_each(lanes, 2, PIECES, run_outer, sums);
    for (int piece = 0; piece < PIECES; piece++) assert_int_equal(sums[piece], 2 * (0 + 1 + 2 + 3 + 4));
}

static void note_threads(void *context, int piece, struct lane *lane) {
    (void)lane;
    ((int *)context)[piece] = omp_in_parallel() || omp_get_max_threads() == 1;
}

static void blas_is_held_to_one_thread_on_every_lane(void **state) {
    (void)state;
    int held[PIECES] = {0};
    struct lane lanes[2] = {{.index = 0}, {.index = 1}};
    assert_true(backend_find("cpu")->lane_count() >= 1);
    assert_int_equal(omp_get_max_threads(), 1);
    for (int count = 1; count <= 2; count++) {
        backend_find("cpu")->for_each(lanes, count, PIECES, note_threads, held);
        for (int piece = 0; piece < PIECES; piece++) assert_int_equal(held[piece], 1);
        memset(held, 0, sizeof held);
    }
}

/* What this program prints, run again with --lane-count and the environment given. */
static void ask_for_lane_count(char *const environment[], char *answer, size_t size) {
    char *const arguments[] = {"test_lanes", "--lane-count", NULL};
    int ends[2], outcome;
    pid_t child;
    posix_spawn_file_actions_t actions;
    assert_int_equal(pipe(ends), 0);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    assert_int_equal(posix_spawn(&child, "/proc/self/exe", &actions, NULL, arguments, environment), 0);
    posix_spawn_file_actions_destroy(&actions);
    close(ends[1]);
    ssize_t length = read(ends[0], answer, size - 1);
    close(ends[0]);
    assert_true(length > 0);
    answer[length] = '\0';
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_int_equal(outcome, 0);
}

static void the_lane_count_is_that_of_omp_num_threads(void **state) {
    (void)state;
    char answer[16];
    ask_for_lane_count((char *const[]){"OMP_NUM_THREADS=3", NULL}, answer, sizeof answer);
    assert_string_equal(answer, "3\n");
    ask_for_lane_count((char *const[]){"OMP_NUM_THREADS=1", NULL}, answer, sizeof answer);
    assert_string_equal(answer, "1\n");
}

static void a_forked_child_has_lanes_of_its_own(void **state) {
    (void)state;
    free(run_on(LANES));
    pid_t child = fork();
    if (child == 0) {
        alarm(20); /* a child that waits for its parent's threads would wait for ever */
        free(run_on(LANES));
        _exit(0);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_int_equal(outcome, 0);
    free(run_on(LANES));
}

static void a_limit_lowers_the_lane_count_and_never_raises_it(void **state) {
    (void)state;
    const struct backend *cpu = backend_find("cpu");
    int before = cpu->lane_count();
    pid_t child = fork(); /* the limit lasts as long as its process */
    if (child == 0) {
        cpu->limit_lanes(before + 5);
        bool kept = cpu->lane_count() == before;
        cpu->limit_lanes(1);
        _exit(kept && cpu->lane_count() == 1 ? 0 : 1);
    }
    int outcome;
    assert_int_equal(waitpid(child, &outcome, 0), child);
    assert_int_equal(outcome, 0);
}

static void an_unknown_backend_is_not_found(void **state) {
    (void)state;
    assert_null(backend_find("abacus"));
    assert_string_equal(backend_find("cpu")->name, "cpu");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_piece_runs_once_and_lanes_are_never_shared),
        cmocka_unit_test(the_bits_do_not_depend_on_the_number_of_lanes),
        cmocka_unit_test(no_pieces_is_no_work),
        cmocka_unit_test(pieces_within_a_piece_run_in_order_on_the_lane_given),
        cmocka_unit_test(blas_is_held_to_one_thread_on_every_lane),
        cmocka_unit_test(the_lane_count_is_that_of_omp_num_threads),
        cmocka_unit_test(a_forked_child_has_lanes_of_its_own),
        cmocka_unit_test(a_limit_lowers_the_lane_count_and_never_raises_it),
        cmocka_unit_test(an_unknown_backend_is_not_found),
    };
    if (argc == 2 && strcmp(argv[1], "--lane-count") == 0) return printf("%d\n", backend_find("cpu")->lane_count()) < 0;
    return cmocka_run_group_tests_name("lanes", tests, NULL, NULL);
}
