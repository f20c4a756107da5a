/* machine: what the emulator's own files share: the running launch, its threads, and meeting points of a warp. */
#pragma once
#include <functional>
#include <vector>

#include "tests/cuda_emulator/access.h"
#include "tests/cuda_emulator/emulator.h"

enum { LANES = 32, THREADS_MOST = 1024, SHARED_MOST = 227 << 10, STACK_BYTES = 256 << 10 };

enum thread_state { THREAD_READY, THREAD_AT_BARRIER, THREAD_AT_WARP, THREAD_DONE };

struct pending_copy {
    void *to;
    const void *from; /* NULL writes zeros */
    int group;
};

struct device_thread {
    int number; /* x fastest */
    uint3 index;
    thread_state state;
    void *stack_pointer, *stack;
    const char *waits_for;
    unsigned mask;
    void *argument; /* of the meeting that it waits in */
    std::vector<pending_copy> copies;
    int copy_group;
};

/* One block at a time is running; all of this is empty outside of a launch. */
struct machine {
    const char *kernel; /* NULL outside of a launch */
    uint64_t seed;
    unsigned long launch;        /* counted from 1 */
    uint32_t first_block, block; /* of this launch, and the running one, counted over all launches */
    int thread_count;
    device_thread *threads;
    device_thread *running; /* NULL while the scheduler runs */
    unsigned char *shared;
    size_t shared_bytes;
    access_shadow shared_shadow;
};
extern struct machine machine;

/* Coordinates of a block of this launch, by its place in the order that they run in. */
uint3 machine_block_at(uint32_t place);
/* "kernel K, block (x,y,z), thread (x,y,z)" of a block and thread of any launch so far. */
void machine_describe(uint32_t block, int thread, char *out, size_t size);

/* Waits until every lane of `mask` has come with the same `what` and mask; the last to come calls `complete` with the
 * lanes' arguments (those of other lanes are NULL). */
typedef void (*meeting_end)(void *const arguments[LANES], unsigned mask);
void machine_meet(const char *what, unsigned mask, void *argument, meeting_end complete);

static inline int machine_lane() { return machine.running->number % LANES; }

/* Context switches, in fibres.cc. */
void fibre_prepare(device_thread *thread);
void fibre_resume(device_thread *thread);
void fibre_yield();
/* What a fibre does. */
void machine_thread_main();

/* The allocation that holds all the bytes, or NULL; in memory.cc. */
struct allocation {
    unsigned char *base;
    size_t bytes;
    access_shadow shadow;
};
allocation *memory_find(const void *address);
/* The last allocation that starts at the address or before. */
allocation *memory_before(const void *address);
/* Plain copies that no sanitiser looks at. */
void memory_move(void *to, const void *from, size_t bytes);
void memory_fill(void *to, int byte, size_t bytes);

/* A fault of `call` unless the bytes are within one allocation. */
void memory_check_range(const char *call, const void *at, size_t bytes);
/* A library reads, or writes, the bytes: reading what nothing has written is a fault. */
void memory_host_touches(const void *at, size_t bytes, bool writes);

/* Work that a graph replays. */
bool capture_record(std::function<void()> work);
