/* test_ranks: one training on 1, 2, 4 and 8 ranks of MPI has the same losses and weights, and a checkpoint of some
 * ranks is continued by any other number.
 *
 *   test_ranks              the tests; they start the program under mpirun
 *   test_ranks FILE WHAT    as a rank: trains, and rank 0 prints the hashes of the losses and of the weights.
 *                           WHAT: "whole", "save" (half way, to FILE) or "resume" (from FILE) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "kernels/comm/comm.h"
#include "model/files.h"
#include "tests/model/toy.h"

enum { STEPS = 6, HALF = 3 };

static const char *program;
static const char *const SETTINGS = "train.steps=6 train.warmdown=3 recurrence.layers=1,2 train.ema=0.9 "
                                    "train.qat_below=0.5 train.quantise_above=256 optim.clip=0.5";

static status steps(struct trainer *trainer, int count) {
    struct step_record record;
    for (int i = 0; i < count; i++) TRY(trainer_step(trainer, &record));
    return NULL;
}

static status train(struct trainer *trainer, const char *file, const char *what) {
    bool resume = strcmp(what, "resume") == 0, save = strcmp(what, "save") == 0;
    if (resume) TRY(trainer_load(trainer, file, "key"));
    if (!resume) TRY(steps(trainer, HALF));
    if (save) return trainer_save(trainer, file, "key");
    return steps(trainer, STEPS - HALF);
}

static void print_hashes(const struct trainer *trainer) {
    char losses[65], weights[65], averaged[65];
    size_t bytes = trainer_network(trainer)->parameters.total * sizeof(real);
    trainer_trace_sha256(trainer, losses);
    bytes_sha256(trainer_weights(trainer), bytes, weights);
    bytes_sha256(trainer_averaged(trainer), bytes, averaged);
    printf("hashes %s %s %s\n", losses, weights, averaged);
}

static status run(struct comm *comm, const char *file, const char *what) {
    struct trainer *trainer;
    struct config config = toy_config(SETTINGS);
    TRY(trainer_create_on(&trainer, comm, &config, backend_find("cpu"), toy_dataset(), 7));
    status s = train(trainer, file, what);
    if (!s && comm->rank == 0) print_hashes(trainer);
    trainer_destroy(trainer);
    return s;
}

static int run_rank(const char *file, const char *what) {
    struct comm comm;
    status s = comm_open(&comm, backend_find("cpu"));
    if (!s) {
        s = run(&comm, file, what);
        comm_close(&comm);
    }
    if (!s) return 0;
    fprintf(stderr, "%s\n", status_text(s));
    return (int)status_kind(s);
}

/* The line of hashes that this many ranks print. MPI keeps memory of its own until the end, which the leak checker
 * would count. */
static void hashes(int ranks, const char *file, const char *what, char line[512]) {
    char command[1024];
    snprintf(command, sizeof command,
             "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
             "mpirun --oversubscribe -np %d '%s' '%s' %s 2>&1",
             ranks, program, file, what);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    char read[512];
    line[0] = 0;
    while (fgets(read, sizeof read, pipe))
        if (!line[0] || strncmp(read, "hashes ", 7) == 0) snprintf(line, 512, "%s", read);
    int ended = pclose(pipe);
    if (!WIFEXITED(ended) || WEXITSTATUS(ended) != 0) fail_msg("%d ranks, %s: %s", ranks, what, line);
}

static bool have_mpirun(void) { return system("command -v mpirun >/dev/null") == 0; }

static void any_number_of_ranks_trains_to_the_same_bits(void **state) {
    (void)state;
    if (!have_mpirun()) skip();
    char alone[512], together[512];
    hashes(1, "-", "whole", alone);
    assert_int_equal(strncmp(alone, "hashes ", 7), 0);
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        hashes(ranks, "-", "whole", together);
        assert_string_equal(together, alone);
    }
}

static void a_checkpoint_goes_on_with_another_number_of_ranks(void **state) {
    (void)state;
    if (!have_mpirun()) skip();
    char alone[512], line[512];
    const char *file = toy_path("ranks.checkpoint");
    hashes(1, "-", "whole", alone);
    for (int first = 1; first <= 4; first *= 4) {
        hashes(first, file, "save", line);
        hashes(2, file, "resume", line);
        assert_string_equal(line, alone);
        hashes(1, file, "resume", line);
        assert_string_equal(line, alone);
    }
}

static void a_missing_checkpoint_stops_every_rank(void **state) {
    (void)state;
    if (!have_mpirun()) skip();
    char command[1024];
    snprintf(command, sizeof command,
             "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
             "timeout 60 mpirun --oversubscribe -np 2 '%s' /nowhere/at.all resume >/dev/null 2>&1",
             program);
    int ended = system(command);
    assert_true(WIFEXITED(ended));
    assert_int_not_equal(WEXITSTATUS(ended), 0);
    assert_int_not_equal(WEXITSTATUS(ended), 124);
}

int main(int argc, char **argv) {
    program = argv[0];
    if (argc == 3) return run_rank(argv[1], argv[2]);
    const struct CMUnitTest tests[] = {cmocka_unit_test(any_number_of_ranks_trains_to_the_same_bits),
                                       cmocka_unit_test(a_checkpoint_goes_on_with_another_number_of_ranks),
                                       cmocka_unit_test(a_missing_checkpoint_stops_every_rank)};
    return cmocka_run_group_tests(tests, toy_folder_make, toy_folder_remove);
}
