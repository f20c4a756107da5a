/* test_comm: a gradient's tree over NCCL has the same bits on 2, 4 and 8 ranks as on one, each rank with a device of
 * its own; where there are fewer devices than ranks, that number of ranks is left out.
 *
 * The program starts itself under mpirun; every rank compares the ranks' tree with that of one device alone. */
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

enum { SHARDS = 8, COUNT = 40003, SEED = 3 };

static const char *program;
static struct lane lane;

/* --- one rank ----------------------------------------------------------------------------------------------------- */

struct tensors {
    real *whole[SHARDS], *part[SHARDS], *room;
    int32_t *finite;
    real *host; /* (COUNT) */
};

static status upload_shards(const struct backend *ops, struct tensors *t) {
    for (int shard = 0; shard < SHARDS; shard++) {
        char name[24];
        snprintf(name, sizeof name, "shard %d", shard);
        struct random_stream stream = random_stream(SEED, name);
        for (size_t i = 0; i < COUNT; i++) t->host[i] = (real)random_normal(stream, i);
        real **const copies[] = {&t->whole[shard], &t->part[shard]};
        for (int i = 0; i < 2; i++) {
            TRY(ops->memory_new((void **)copies[i], COUNT * sizeof(real), "a shard"));
            ops->upload(&lane, *copies[i], t->host, COUNT * sizeof(real));
        }
    }
    lane.scratch_bytes = ops->tensor_scratch(COUNT);
    TRY(ops->memory_new(&lane.scratch, lane.scratch_bytes, "scratch"));
    TRY(ops->memory_new((void **)&t->room, COUNT * sizeof(real), "room"));
    return ops->memory_new((void **)&t->finite, sizeof *t->finite, "a flag");
}

static void free_tensors(const struct backend *ops, struct tensors *t) {
    for (int shard = 0; shard < SHARDS; shard++) {
        ops->memory_free(t->whole[shard]);
        ops->memory_free(t->part[shard]);
    }
    ops->memory_free(t->room);
    ops->memory_free(t->finite);
    ops->memory_free(lane.scratch);
}

static bool same(const struct backend *ops, const real *device, const real *host) {
    static real copy[COUNT];
    ops->download(&lane, copy, device, sizeof copy);
    return memcmp(copy, host, sizeof copy) == 0;
}

static status check_tree(struct comm *comm, struct tensors *t) {
    const struct backend *ops = comm->ops;
    TRY(upload_shards(ops, t));
    ops->add_tree(&lane, t->whole, SHARDS, COUNT, t->finite);
    ops->download(&lane, t->host, t->whole[0], COUNT * sizeof(real));
    real **own = t->part + comm_first_shard(comm, SHARDS);
    ops->add_tree(&lane, own, comm_shard_count(comm, SHARDS), COUNT, t->finite);
    TRY(comm_add_tree(comm, &lane, own[0], t->room, COUNT, t->finite));
    TRY(ops->finish(&lane));
    if (!same(ops, own[0], t->host))
        return status_new(STATUS_DIFFERS, "rank %d of %d has other bits than one rank", comm->rank, comm->size);
    ops->clear(&lane, t->room, COUNT * sizeof(real));
    real *sent = comm->rank == 1 ? own[0] : t->room;
    TRY(comm->broadcast(comm, &lane, sent, COUNT * sizeof(real), 1));
    TRY(ops->finish(&lane));
    if (!same(ops, sent, t->host))
        return status_new(STATUS_DIFFERS, "rank %d of %d did not get what was broadcast", comm->rank, comm->size);
    return NULL;
}

static int run_rank(void) {
    static real host[COUNT];
    struct tensors t = {.host = host};
    struct comm comm = {.size = 0};
    const struct backend *ops = backend_find("cuda");
    ops->choose_device(comm_local_rank());
    status s = ops->open();
    if (!s) s = comm_open(&comm, ops);
    if (!s && strcmp(comm.name, "nccl") != 0) s = status_new(STATUS_DIFFERS, "the ranks use %s", comm.name);
    if (!s) s = check_tree(&comm, &t);
    if (comm.size) comm_close(&comm);
    free_tensors(ops, &t);
    if (!s) return 0;
    fprintf(stderr, "%s\n", status_text(s));
    return (int)status_kind(s);
}

/* --- the tests ---------------------------------------------------------------------------------------------------- */

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

static void check_ranks(int ranks) {
    char output[4096];
    if (system("command -v mpirun >/dev/null") != 0 || backend_find("cuda")->device_count() < ranks) skip();
    if (run_ranks(ranks, output, sizeof output) != 0) fail_msg("%d ranks: %s", ranks, output);
}

static void two_ranks_have_the_bits_of_one(void **state) {
    (void)state;
    check_ranks(2);
}

static void four_ranks_have_the_bits_of_one(void **state) {
    (void)state;
    check_ranks(4);
}

static void eight_ranks_have_the_bits_of_one(void **state) {
    (void)state;
    check_ranks(8);
}

int main(int argc, char **argv) {
    (void)argc;
    program = argv[0];
    setenv("EMULATOR_DEVICES", "8", 0); /* devices that are none: as many as it takes */
    if (comm_launched()) return run_rank();
    const struct CMUnitTest tests[] = {cmocka_unit_test(two_ranks_have_the_bits_of_one),
                                       cmocka_unit_test(four_ranks_have_the_bits_of_one),
                                       cmocka_unit_test(eight_ranks_have_the_bits_of_one)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
