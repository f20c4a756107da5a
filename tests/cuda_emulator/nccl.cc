/* nccl: ranks pass bytes through shared memory of the host, a slot for each pair; a peer that does not come is an
 * error after a minute. */
#include "tests/cuda_emulator/nccl.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "tests/cuda_emulator/machine.h"

enum { RANKS_MOST = 8, SLOT_BYTES = 64 << 10, PATIENCE_SECONDS = 60 };

/* What lies between a sender and a receiver; 0 bytes: nothing. */
struct slot {
    size_t bytes;
    unsigned char data[SLOT_BYTES];
};
struct world {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int joined;
    slot slots[RANKS_MOST][RANKS_MOST]; /* [from][to] */
};
struct emulator_comm {
    world *shared;
    int rank, ranks;
};
struct transfer {
    ncclComm_t comm;
    bool sends;
    int peer;
    unsigned char *at;
    size_t left;
};

static thread_local int group_depth;
static thread_local std::vector<transfer> group;

/* --- the world ---------------------------------------------------------------------------------------------------- */

static world *map_world(const char *name, int flags) {
    int file = shm_open(name, O_RDWR | flags, 0600);
    if (file < 0) return nullptr;
    void *memory = MAP_FAILED;
    if (ftruncate(file, sizeof(world)) == 0)
        memory = mmap(nullptr, sizeof(world), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    return memory == MAP_FAILED ? nullptr : static_cast<world *>(memory);
}

static void lock(world *w) {
    if (pthread_mutex_lock(&w->mutex) == EOWNERDEAD) pthread_mutex_consistent(&w->mutex);
}

/* False when nothing has changed for long. */
static bool wait_for_change(world *w) {
    timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_SECONDS;
    int result = pthread_cond_timedwait(&w->changed, &w->mutex, &until);
    if (result == EOWNERDEAD) pthread_mutex_consistent(&w->mutex);
    return result != ETIMEDOUT;
}

ncclResult_t ncclGetVersion(int *version) {
    *version = 22800;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(id->internal, sizeof id->internal, "/hinge-emulator-%ld-%ld", (long)getpid(), now.tv_nsec);
    world *w = map_world(id->internal, O_CREAT | O_EXCL);
    if (!w) return ncclSystemError;
    pthread_mutexattr_t mutex;
    pthread_mutexattr_init(&mutex);
    pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(&w->mutex, &mutex);
    pthread_condattr_t changed;
    pthread_condattr_init(&changed);
    pthread_condattr_setpshared(&changed, PTHREAD_PROCESS_SHARED);
    pthread_cond_init(&w->changed, &changed);
    munmap(w, sizeof *w);
    return ncclSuccess;
}

ncclResult_t ncclCommInitRank(ncclComm_t *comm, int ranks, ncclUniqueId id, int rank) {
    if (ranks < 1 || ranks > RANKS_MOST || rank < 0 || rank >= ranks) return ncclInvalidArgument;
    world *w = map_world(id.internal, 0);
    if (!w) return ncclSystemError;
    lock(w);
    w->joined++;
    pthread_cond_broadcast(&w->changed);
    bool all = true;
    while (all && w->joined < ranks) all = wait_for_change(w);
    pthread_mutex_unlock(&w->mutex);
    if (rank == 0) shm_unlink(id.internal);
    if (!all) {
        munmap(w, sizeof *w);
        return ncclSystemError;
    }
    *comm = new emulator_comm{w, rank, ranks};
    return ncclSuccess;
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
    munmap(comm->shared, sizeof *comm->shared);
    delete comm;
    return ncclSuccess;
}

const char *ncclGetErrorString(ncclResult_t result) {
    switch (result) {
    case ncclSuccess:
        return "no error";
    case ncclSystemError:
        return "a rank did not come, or the system refused";
    case ncclInvalidArgument:
        return "invalid argument";
    case ncclInvalidUsage:
        return "invalid usage";
    }
    return "unknown result code";
}

/* --- transfers ---------------------------------------------------------------------------------------------------- */

/* Moves what can be moved at once; true if that was anything. */
static bool advance(transfer *t) {
    emulator_comm *c = t->comm;
    slot *s = t->sends ? &c->shared->slots[c->rank][t->peer] : &c->shared->slots[t->peer][c->rank];
    if (t->left == 0 || (s->bytes == 0) != t->sends) return false;
    size_t bytes = t->sends ? (t->left < SLOT_BYTES ? t->left : (size_t)SLOT_BYTES) : s->bytes;
    if (bytes > t->left) emulator_fault("ncclRecv: rank %d sends more than rank %d wants to receive", t->peer, c->rank);
    memory_move(t->sends ? s->data : t->at, t->sends ? t->at : s->data, bytes);
    s->bytes = t->sends ? bytes : 0;
    t->at += bytes;
    t->left -= bytes;
    return true;
}

/* An earlier transfer of the same direction with the same peer comes first. */
static bool is_next(const std::vector<transfer> &all, size_t i) {
    for (size_t k = 0; k < i; k++)
        if (all[k].left && all[k].sends == all[i].sends && all[k].peer == all[i].peer) return false;
    return true;
}

static bool run_transfers(std::vector<transfer> all) {
    if (all.empty()) return true;
    world *w = all[0].comm->shared;
    bool come = true;
    lock(w);
    for (size_t unfinished = 1; unfinished && come;) {
        bool moved = false;
        unfinished = 0;
        for (size_t i = 0; i < all.size(); i++) {
            if (is_next(all, i) && advance(&all[i])) moved = true;
            if (all[i].left) unfinished++;
        }
        if (moved)
            pthread_cond_broadcast(&w->changed);
        else if (unfinished)
            come = wait_for_change(w);
    }
    pthread_mutex_unlock(&w->mutex);
    return come;
}

static ncclResult_t run_group() {
    std::vector<transfer> all;
    all.swap(group);
    if (capture_record([all] {
            if (!run_transfers(all)) emulator_fault("NCCL in a replayed graph: a rank did not come");
        }))
        return ncclSuccess;
    return run_transfers(all) ? ncclSuccess : ncclSystemError;
}

ncclResult_t ncclGroupStart() {
    group_depth++;
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd() {
    if (group_depth == 0) return ncclInvalidUsage;
    return --group_depth == 0 ? run_group() : ncclSuccess;
}

static ncclResult_t add(ncclComm_t comm, bool sends, const void *at, size_t count, ncclDataType_t type, int peer) {
    size_t bytes = type == ncclChar ? count : 4 * count;
    if (peer < 0 || peer >= comm->ranks || (type != ncclChar && type != ncclFloat)) return ncclInvalidArgument;
    if (bytes == 0) return ncclSuccess;
    memory_check_range(sends ? "ncclSend" : "ncclRecv", at, bytes);
    memory_host_touches(at, bytes, !sends);
    group.push_back({comm, sends, peer, static_cast<unsigned char *>(const_cast<void *>(at)), bytes});
    return ncclSuccess;
}

static ncclResult_t end_if_alone(ncclResult_t added) {
    if (added != ncclSuccess || group_depth > 0) return added;
    return run_group();
}

ncclResult_t ncclSend(const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t) {
    return end_if_alone(add(comm, true, from, count, type, peer));
}

ncclResult_t ncclRecv(void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t) {
    return end_if_alone(add(comm, false, to, count, type, peer));
}

ncclResult_t ncclBroadcast(const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                           cudaStream_t stream) {
    ncclResult_t result = ncclSuccess;
    ncclGroupStart();
    if (comm->rank != root) result = add(comm, false, to, count, type, root);
    for (int peer = 0; comm->rank == root && peer < comm->ranks && result == ncclSuccess; peer++)
        if (peer != root) result = add(comm, true, from, count, type, peer);
    ncclResult_t end = ncclGroupEnd();
    if (result != ncclSuccess || end != ncclSuccess || comm->rank != root || from == to) return result ? result : end;
    size_t bytes = type == ncclChar ? count : 4 * count;
    bool copied = cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream) == cudaSuccess;
    return copied ? ncclSuccess : ncclInvalidArgument;
}
