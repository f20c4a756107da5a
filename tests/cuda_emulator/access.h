/* access: every load and store of a kernel is checked: bounds, alignment of copies, bytes that nothing wrote, races.
 *
 * The compiler calls access.cc before each access of code built with -fsanitize=thread; ThreadSanitizer's own library
 * is not linked. Of every few bytes of device and shared memory a shadow keeps who wrote them last and who read them.
 * Two accesses of which one writes race unless a barrier orders them: __syncthreads within a block, __syncwarp within
 * its mask, and the end of a launch. Shuffles, votes and the matrix product order no memory. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* Who, and when: number of the block since the program began (32 bits), thread (10), the thread's clock (22). */
typedef uint64_t access_stamp;

struct access_cell {
    access_stamp write, read[2]; /* 0: none */
};

/* The shadow of one allocation or of shared memory: a cell for each 4 bytes; for 2 or 1 from the first access on that
 * needs it. */
struct access_shadow {
    struct access_cell *cells;
    size_t bytes, room; /* in use; covered by the cells */
    int granule;        /* bytes of one cell */
    bool all_written;   /* by the host: cells without a writer are written all the same */
};

/* False where the kernels are built without checks; all functions below then do nothing. */
bool access_checked();

void access_begin(access_shadow *shadow, size_t bytes);
void access_end(access_shadow *shadow);
/* The host wrote the bytes, or, with `written` false, filled them with what nobody may read. */
void access_host_writes(access_shadow *shadow, size_t offset, size_t bytes, bool written);
/* The first of the bytes that nothing has written, or `bytes`. */
size_t access_first_unwritten(const access_shadow *shadow, size_t offset, size_t bytes);
/* A fault: `reader` reads a byte that nothing has written. Names the thread that wrote nearest to it. */
[[noreturn]] void access_fault_unwritten(const access_shadow *shadow, size_t offset, const char *reader);

void access_start_launch(const void *arguments, size_t bytes);
void access_start_block();
void access_block_barrier();
void access_warp_barrier(unsigned mask, int first_thread);

enum access_kind { ACCESS_READ, ACCESS_WRITE, ACCESS_ATOMIC, ACCESS_COPY_BEGINS, ACCESS_COPY_ENDS };
/* Checks an access of the running thread, or of thread `by` of its warp. */
void access_check(const void *at, size_t bytes, access_kind kind, int by);
