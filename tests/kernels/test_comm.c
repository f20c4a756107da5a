/* test_comm: a gradient's tree has the same bits on 1, 2, 4 and 8 ranks of MPI; other numbers of ranks are refused.
 *
 * The program starts itself under mpirun; each rank adds up its micro-shards, the tree runs across the ranks, and every
 * rank compares with the tree of one rank. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "kernels/comm/comm.h"
#include "kernels/random.h"

enum { SHARDS = 8, COUNT = 5003, SEED = 3 };

static const char *program;

static void draw(real parts[SHARDS][COUNT]) {
    for (int shard = 0; shard < SHARDS; shard++) {
        char name[24];
        snprintf(name, sizeof name, "shard %d", shard);
        struct random_stream stream = random_stream(SEED, name);
        for (size_t i = 0; i < COUNT; i++) parts[shard][i] = (real)random_normal(stream, i);
    }
}

static int32_t add(const struct backend *ops, real parts[][COUNT], int count) {
    struct lane lane = {0};
    real *pointers[SHARDS];
    int32_t finite;
    for (int i = 0; i < count; i++) pointers[i] = parts[i];
    ops->add_tree(&lane, pointers, count, COUNT, &finite);
    return finite;
}

static real whole[SHARDS][COUNT], part[SHARDS][COUNT], room[COUNT];

static status check_tree(struct comm *comm) {
    const struct backend *ops = comm->ops;
    struct lane lane = {0};
    draw(whole);
    memcpy(part, whole, sizeof part);
    add(ops, whole, SHARDS);
    int first = comm_first_shard(comm, SHARDS), count = comm_shard_count(comm, SHARDS);
    int32_t finite = add(ops, part + first, count);
    TRY(comm_add_tree(comm, &lane, part[first], room, COUNT, &finite));
    if (!finite || memcmp(part[first], whole[0], sizeof whole[0]) != 0)
        return status_new(STATUS_DIFFERS, "rank %d of %d has other bits than one rank", comm->rank, comm->size);
    double sum = 1.0 / (comm->rank + 3);
    TRY(comm_add_tree_host(comm, &sum));
    double agreed = sum;
    TRY(comm->broadcast_host(comm, &agreed, sizeof agreed, comm->size - 1));
    TRY(comm->broadcast(comm, &lane, part[first], sizeof part[first], 0));
    return agreed == sum ? NULL : status_new(STATUS_DIFFERS, "rank %d has another sum of the losses", comm->rank);
}

static int run_rank(void) {
    struct comm comm;
    status s = comm_open(&comm, backend_find("cpu"));
    if (!s) {
        s = check_tree(&comm);
        comm_close(&comm);
    }
    if (!s) return 0;
    fprintf(stderr, "%s\n", status_text(s));
    return (int)status_kind(s);
}

/* MPI keeps memory of its own until the end, which the leak checker would count. */
static int run_ranks(int ranks, char *output, size_t capacity) {
    char command[512];
    snprintf(command, sizeof command,
             "OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 ASAN_OPTIONS=detect_leaks=0 "
             "mpirun --oversubscribe -np %d '%s' 2>&1",
             ranks, program);
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t length = fread(output, 1, capacity - 1, pipe);
    output[length] = 0;
    while (fgetc(pipe) != EOF) continue; /* a full pipe would end mpirun by a signal */
    int ended = pclose(pipe);
    return WIFEXITED(ended) ? WEXITSTATUS(ended) : -1;
}

static bool have_mpirun(void) { return system("command -v mpirun >/dev/null") == 0; }

static void the_tree_has_the_same_bits_on_any_ranks(void **state) {
    (void)state;
    if (!have_mpirun()) skip();
    for (int ranks = 2; ranks <= 8; ranks *= 2) {
        char output[4096];
        if (run_ranks(ranks, output, sizeof output) != 0) fail_msg("%d ranks: %s", ranks, output);
    }
}

static void three_ranks_are_refused(void **state) {
    (void)state;
    if (!have_mpirun()) skip();
    char output[4096];
    assert_int_not_equal(run_ranks(3, output, sizeof output), 0);
    assert_non_null(strstr(output, "3 ranks were launched"));
}

static void alone_nothing_changes(void **state) {
    (void)state;
    struct comm comm;
    assert_null(comm_open(&comm, backend_find("cpu")));
    assert_int_equal(comm.size, 1);
    assert_null(check_tree(&comm));
    comm_close(&comm);
}

int main(int argc, char **argv) {
    (void)argc;
    program = argv[0];
    if (comm_launched()) return run_rank();
    const struct CMUnitTest tests[] = {cmocka_unit_test(alone_nothing_changes),
                                       cmocka_unit_test(the_tree_has_the_same_bits_on_any_ranks),
                                       cmocka_unit_test(three_ranks_are_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
