/* access: the shadow of device and shared memory, and what the compiler calls at each access; see access.h. */
#include "tests/cuda_emulator/access.h"

#include <stdarg.h>
#include <stdlib.h>

#include <utility>

#include "tests/cuda_emulator/machine.h"

enum { COPYING = (1 << 22) - 1 }; /* the clock of a copy_16 under way: nobody is after it */

static bool checked;
bool access_checked() { return checked; }

/* --- order: what a thread knows to be done ------------------------------------------------------------------------ */

/* Each thread's own clock, and its value at the last barrier of the block and of the whole warp. */
static int clocks[THREADS_MOST], block_clocks[THREADS_MOST], warp_clocks[THREADS_MOST];
/* For __syncwarp of a part of the warp: what each lane has learnt of each other lane. */
static int known[THREADS_MOST][LANES];
static bool known_used;

static access_stamp stamp_of(int thread, int clock) {
    return (access_stamp)machine.block << 32 | (access_stamp)thread << 22 | (access_stamp)clock;
}
static uint32_t block_of(access_stamp s) { return (uint32_t)(s >> 32); }
static int thread_of(access_stamp s) { return (int)(s >> 22 & 1023); }
static int clock_of(access_stamp s) { return (int)(s & COPYING); }

/* The stamp's access is over for the thread; what earlier blocks did to their own shared memory does not count. */
static inline bool is_before(access_stamp s, int thread, bool shared) {
    if (block_of(s) < machine.first_block || (shared && block_of(s) != machine.block)) return true;
    if (block_of(s) != machine.block) return false;
    int other = thread_of(s), clock = clock_of(s);
    if (other == thread) return clock != COPYING;
    if (clock <= block_clocks[other]) return true;
    if (other / LANES != thread / LANES) return false;
    return clock <= warp_clocks[other] || (known_used && clock <= known[thread][other % LANES]);
}

void access_start_block() {
    for (int i = 0; i < machine.thread_count; i++) {
        clocks[i] = 1;
        block_clocks[i] = warp_clocks[i] = 0;
    }
    if (known_used) memset(known, 0, sizeof known);
    known_used = false;
}

void access_block_barrier() {
    for (int i = 0; i < machine.thread_count; i++) block_clocks[i] = clocks[i]++;
}

static void join_part(unsigned mask, int first) {
    int joined[LANES] = {};
    known_used = true;
    for (int lane = 0; lane < LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        for (int k = 0; k < LANES; k++) joined[k] = max(joined[k], known[first + lane][k]);
        joined[lane] = max(joined[lane], clocks[first + lane]);
    }
    for (int lane = 0; lane < LANES; lane++)
        if (mask >> lane & 1) memcpy(known[first + lane], joined, sizeof joined);
}

void access_warp_barrier(unsigned mask, int first) {
    if (mask != 0xffffffffu) join_part(mask, first);
    for (int lane = 0; lane < LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        if (mask == 0xffffffffu) warp_clocks[first + lane] = clocks[first + lane];
        clocks[first + lane]++;
    }
}

/* --- shadows ------------------------------------------------------------------------------------------------------ */

static access_cell *new_cells(size_t bytes, int granule) {
    access_cell *cells = static_cast<access_cell *>(calloc(bytes / (size_t)granule + 1, sizeof *cells));
    if (!cells) emulator_fault("the host has no memory for the shadow of %zu bytes", bytes);
    return cells;
}

void access_begin(access_shadow *shadow, size_t bytes) {
    *shadow = {};
    if (checked) *shadow = {new_cells(bytes, 4), bytes, bytes, 4, false};
}

void access_end(access_shadow *shadow) {
    free(shadow->cells);
    *shadow = {};
}

/* Makes the cells so small that the access covers whole ones. */
static void split_for(access_shadow *shadow, size_t offset, size_t bytes) {
    int granule = shadow->granule;
    while ((offset | bytes) % (size_t)granule) granule /= 2;
    if (granule == shadow->granule) return;
    access_cell *cells = new_cells(shadow->room, granule);
    size_t count = (shadow->room + (size_t)granule - 1) / (size_t)granule, parts = (size_t)(shadow->granule / granule);
    for (size_t i = 0; i < count; i++) cells[i] = shadow->cells[i / parts];
    free(shadow->cells);
    shadow->cells = cells;
    shadow->granule = granule;
}

void access_host_writes(access_shadow *shadow, size_t offset, size_t bytes, bool written) {
    static const access_stamp host = (access_stamp)1; /* of block 0: before all */
    if (!shadow->cells) return;
    if (bytes == shadow->bytes) {
        free(shadow->cells);
        *shadow = {new_cells(bytes, 4), bytes, bytes, 4, written};
        return;
    }
    split_for(shadow, offset, bytes);
    if (!written && shadow->all_written) { /* from now on it is told cell by cell */
        for (size_t i = 0; i < shadow->bytes / (size_t)shadow->granule + 1; i++)
            if (!shadow->cells[i].write) shadow->cells[i].write = host;
        shadow->all_written = false;
    }
    size_t first = offset / (size_t)shadow->granule, count = bytes / (size_t)shadow->granule;
    for (size_t i = first; i < first + count; i++) shadow->cells[i] = {written ? host : 0, {0, 0}};
}

size_t access_first_unwritten(const access_shadow *shadow, size_t offset, size_t bytes) {
    if (!shadow->cells || shadow->all_written) return bytes;
    size_t granule = (size_t)shadow->granule;
    for (size_t at = offset; at < offset + bytes; at++)
        if (!shadow->cells[at / granule].write) return at - offset;
    return bytes;
}

/* The byte nearest to the given one that a kernel wrote, those before it first; or none: shadow->bytes. */
static size_t nearest_written(const access_shadow *shadow, size_t offset) {
    size_t granule = (size_t)shadow->granule, count = shadow->bytes / granule;
    for (size_t i = offset / granule; i-- > 0;)
        if (block_of(shadow->cells[i].write)) return i * granule;
    for (size_t i = offset / granule + 1; i < count; i++)
        if (block_of(shadow->cells[i].write)) return i * granule;
    return shadow->bytes;
}

void access_fault_unwritten(const access_shadow *shadow, size_t offset, const char *reader) {
    char writer[256] = "no kernel has written any of it";
    size_t beside = nearest_written(shadow, offset);
    if (beside < shadow->bytes) {
        access_stamp stamp = shadow->cells[beside / (size_t)shadow->granule].write;
        machine_describe(block_of(stamp), thread_of(stamp), writer, sizeof writer);
        size_t length = strlen(writer);
        snprintf(writer + length, sizeof writer - length, " wrote byte %zu", beside);
    }
    emulator_fault("%s reads byte %zu of an allocation of %zu bytes, which nothing has written: %s", reader, offset,
                   shadow->bytes, writer);
}

/* --- checks ------------------------------------------------------------------------------------------------------- */

extern "C" {
__attribute__((weak)) void __sanitizer_symbolize_pc(void *pc, const char *format, char *out, size_t bytes);
extern const char __executable_start[], _end[];
}

static const void *pc; /* of the access in hand, when the compiler announced it */
static struct {
    const char *base;
    size_t bytes;
} arguments;
/* Those that the launch used lately, the last one first. */
enum { RECENT = 4 };
static allocation *recent[RECENT];

struct place {
    access_shadow *shadow;
    size_t offset;
    bool shared;
};

/* Says which access it is and where in the source, then the problem. */
[[noreturn]] __attribute__((format(printf, 5, 6))) static void fault(const place *where, size_t bytes, access_kind kind,
                                                                     int thread, const char *format, ...) {
    char problem[256], source[256] = "";
    va_list list;
    va_start(list, format);
    vsnprintf(problem, sizeof problem, format, list);
    va_end(list);
    if (pc && __sanitizer_symbolize_pc)
        __sanitizer_symbolize_pc(const_cast<void *>(pc), " at %S", source, sizeof source);
    if (machine.running->number != thread) {
        machine.running = &machine.threads[thread];
        threadIdx = machine.running->index;
    }
    emulator_fault("%s of %zu bytes at byte %zu of %s of %zu%s: %s", kind == ACCESS_READ ? "a read" : "a write", bytes,
                   where->offset, where->shared ? "shared memory" : "an allocation", where->shadow->bytes, source,
                   problem);
}

static void fault_of_race(const place *where, size_t bytes, access_kind kind, int thread, access_stamp other,
                          const char *did) {
    int number = thread_of(other);
    if (clock_of(other) == COPYING && block_of(other) == machine.block)
        fault(where, bytes, kind, thread, "a copy_16 of thread %d to there is under way", number);
    uint3 block = machine_block_at(block_of(other) - machine.first_block);
    fault(where, bytes, kind, thread, "a race: thread %d of block (%u,%u,%u) %s it, and no barrier is between", number,
          block.x, block.y, block.z, did);
}

/* Of two readers kept, the later of two ordered ones makes room; else readers of another block or warp are worth more.
 */
static void keep_reader(access_cell *cell, access_stamp now, bool shared) {
    int thread = thread_of(now);
    for (access_stamp &reader : cell->read)
        if (!reader || is_before(reader, thread, shared)) {
            reader = now;
            return;
        }
    bool alike = block_of(cell->read[0]) == block_of(cell->read[1]) &&
                 thread_of(cell->read[0]) / LANES == thread_of(cell->read[1]) / LANES;
    if (alike) cell->read[1] = now;
}

static void check_write(const access_cell *cell, const place *where, size_t bytes, access_kind kind, int thread) {
    if (cell->write && !is_before(cell->write, thread, where->shared))
        fault_of_race(where, bytes, kind, thread, cell->write, "wrote");
    for (access_stamp reader : cell->read)
        if (reader && !is_before(reader, thread, where->shared))
            fault_of_race(where, bytes, kind, thread, reader, "read");
}

static void check_read(access_cell *cell, const place *where, size_t bytes, int thread, access_stamp now) {
    bool written = where->shared ? block_of(cell->write) == machine.block : cell->write || where->shadow->all_written;
    if (!written)
        fault(where, bytes, ACCESS_READ, thread, "nothing has written it%s", where->shared ? " in this block" : "");
    if (cell->write && !is_before(cell->write, thread, where->shared))
        fault_of_race(where, bytes, ACCESS_READ, thread, cell->write, "wrote");
    keep_reader(cell, now, where->shared);
}

/* Atomics do not race with one another; a plain access beside them is not seen. */
static inline void check_cell(access_cell *cell, const place *where, size_t bytes, access_kind kind, int thread,
                              access_stamp now) {
    if (kind == ACCESS_READ) {
        if (cell->read[0] != now) check_read(cell, where, bytes, thread, now);
    } else if (cell->write != now || cell->read[0] || kind == ACCESS_COPY_BEGINS) {
        if (kind != ACCESS_COPY_ENDS) check_write(cell, where, bytes, kind, thread);
        if (kind != ACCESS_ATOMIC) *cell = {now, {0, 0}};
    }
}

static inline bool is_within(const void *at, const void *base, size_t bytes) {
    return at >= base && at < static_cast<const char *>(base) + bytes;
}

static allocation *find_older_allocation(const void *at) {
    for (int i = 1; i < RECENT && recent[i]; i++)
        if (is_within(at, recent[i]->base, recent[i]->bytes)) {
            std::swap(recent[i], recent[0]);
            return recent[0];
        }
    allocation *found = memory_find(at);
    if (!found) return nullptr;
    for (int i = RECENT - 1; i > 0; i--) recent[i] = recent[i - 1];
    return recent[0] = found;
}

static inline allocation *find_allocation(const void *at) {
    return recent[0] && is_within(at, recent[0]->base, recent[0]->bytes) ? recent[0] : find_older_allocation(at);
}

/* The shared memory or allocation that ends shortly before the address. */
static bool find_place_before(const void *at, place *where) {
    enum { NEAR = 4096 };
    size_t beyond_shared = (uintptr_t)at - (uintptr_t)machine.shared - machine.shared_bytes;
    *where = {&machine.shared_shadow, machine.shared_bytes + beyond_shared, true};
    if (beyond_shared < NEAR) return true;
    allocation *before = memory_before(at);
    if (!before) return false;
    *where = {&before->shadow, (size_t)(static_cast<const unsigned char *>(at) - before->base), false};
    return where->offset < before->bytes + NEAR;
}

/* Neither device nor shared memory: arguments and constants of the program may be read. */
static void check_elsewhere(const void *at, size_t bytes, access_kind kind, int thread, place *where) {
    bool constant = is_within(at, arguments.base, arguments.bytes) ||
                    is_within(at, __executable_start, (size_t)(_end - __executable_start));
    if (constant && kind == ACCESS_READ) return;
    if (find_place_before(at, where)) fault(where, bytes, kind, thread, "out of bounds");
    char source[256] = "";
    if (pc && __sanitizer_symbolize_pc)
        __sanitizer_symbolize_pc(const_cast<void *>(pc), " at %S", source, sizeof source);
    emulator_fault("%s of %zu bytes at %p%s, which is neither device nor shared memory: out of bounds, freed, or the "
                   "host's",
                   kind == ACCESS_READ ? "a read" : "a write", bytes, at, source);
}

/* False where the address needs no check: the thread's own stack, the arguments, constants of the program. */
static inline bool find_place(const void *at, size_t bytes, access_kind kind, int thread, place *where) {
    if (is_within(at, machine.threads[thread].stack, STACK_BYTES)) return false;
    if (is_within(at, machine.shared, machine.shared_bytes)) {
        *where = {&machine.shared_shadow, (size_t)(static_cast<const unsigned char *>(at) - machine.shared), true};
        return true;
    }
    if (allocation *found = find_allocation(at)) {
        *where = {&found->shadow, (size_t)(static_cast<const unsigned char *>(at) - found->base), false};
        return true;
    }
    check_elsewhere(at, bytes, kind, thread, where);
    return false;
}

static inline __attribute__((always_inline)) void check_at(const void *at, size_t bytes, access_kind kind, int thread) {
    place where;
    if (!find_place(at, bytes, kind, thread, &where)) return;
    if (where.offset + bytes > where.shadow->bytes) fault(&where, bytes, kind, thread, "out of bounds");
    if ((where.offset | bytes) & (size_t)(where.shadow->granule - 1)) split_for(where.shadow, where.offset, bytes);
    int shift = where.shadow->granule / 2; /* of 1, 2 and 4 */
    access_cell *cell = where.shadow->cells + (where.offset >> shift), *end = cell + (bytes >> shift);
    access_stamp now = stamp_of(thread, kind == ACCESS_COPY_BEGINS ? (int)COPYING : clocks[thread]);
    for (; cell < end; cell++) check_cell(cell, &where, bytes, kind, thread, now);
}

void access_check(const void *at, size_t bytes, access_kind kind, int by) {
    if (checked) check_at(at, bytes, kind, machine.running->number / LANES * LANES + by);
}

void access_start_launch(const void *base, size_t bytes) {
    arguments = {static_cast<const char *>(base), bytes};
    for (allocation *&r : recent) r = nullptr;
}

static inline __attribute__((always_inline)) void announced(const void *at, size_t bytes, access_kind kind,
                                                            const void *from) {
    if (!machine.running || is_within(at, machine.running->stack, STACK_BYTES)) return;
    pc = from;
    check_at(at, bytes, kind, machine.running->number);
    pc = nullptr;
}

/* --- what the compiler calls -------------------------------------------------------------------------------------- */

#define ANNOUNCE(name, bytes, kind) \
    void __tsan_##name(const void *at) { announced(at, bytes, kind, __builtin_return_address(0)); }
#define ANNOUNCE_SIZE(n)                          \
    ANNOUNCE(read##n, n, ACCESS_READ)             \
    ANNOUNCE(write##n, n, ACCESS_WRITE)           \
    ANNOUNCE(unaligned_read##n, n, ACCESS_READ)   \
    ANNOUNCE(unaligned_write##n, n, ACCESS_WRITE) \
    ANNOUNCE(volatile_read##n, n, ACCESS_READ)    \
    ANNOUNCE(volatile_write##n, n, ACCESS_WRITE)

/* Atomics are the host's own: device code has none but those of device_functions.h. */
#define HOST_ATOMIC(bits, type)                                                                                   \
    type __tsan_atomic##bits##_load(const volatile type *p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); } \
    void __tsan_atomic##bits##_store(volatile type *p, type x, int) { __atomic_store_n(p, x, __ATOMIC_SEQ_CST); } \
    type __tsan_atomic##bits##_exchange(volatile type *p, type x, int) {                                          \
        return __atomic_exchange_n(p, x, __ATOMIC_SEQ_CST);                                                       \
    }                                                                                                             \
    type __tsan_atomic##bits##_fetch_add(volatile type *p, type x, int) {                                         \
        return __atomic_fetch_add(p, x, __ATOMIC_SEQ_CST);                                                        \
    }                                                                                                             \
    type __tsan_atomic##bits##_fetch_sub(volatile type *p, type x, int) {                                         \
        return __atomic_fetch_sub(p, x, __ATOMIC_SEQ_CST);                                                        \
    }                                                                                                             \
    int __tsan_atomic##bits##_compare_exchange_strong(volatile type *p, type *old, type x, int, int) {            \
        return __atomic_compare_exchange_n(p, old, x, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);                 \
    }

extern "C" {
ANNOUNCE_SIZE(1)
ANNOUNCE_SIZE(2)
ANNOUNCE_SIZE(4)
ANNOUNCE_SIZE(8)
ANNOUNCE_SIZE(16)
HOST_ATOMIC(8, uint8_t)
HOST_ATOMIC(32, uint32_t)
HOST_ATOMIC(64, uint64_t)
void __tsan_read_range(const void *at, size_t bytes) { announced(at, bytes, ACCESS_READ, __builtin_return_address(0)); }
void __tsan_write_range(const void *at, size_t bytes) {
    announced(at, bytes, ACCESS_WRITE, __builtin_return_address(0));
}
void __tsan_vptr_read(const void *) {}
void __tsan_vptr_update(const void *, const void *) {}
void __tsan_func_entry(const void *) {}
void __tsan_func_exit() {}
/* Called before main by every file that announces its accesses. */
void __tsan_init() { checked = true; }
}
