/* machine: runs the blocks of a launch, the threads of each as fibres in a shuffled order, and reports faults. */
#include "tests/cuda_emulator/machine.h"

#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>

#include <mutex>
#include <utility>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
struct machine machine;

static std::mutex one_launch;
static struct {
    void (*call)(const void *);
    const void *arguments;
} body;
static std::vector<unsigned> block_order;
static std::vector<int> ready;
static int done, at_barrier;
static struct { int yes, result; } votes;

/* --- faults ------------------------------------------------------------------------------------------------------- */

static void print_place(FILE *to) {
    if (!machine.kernel) return;
    fprintf(to, "kernel %s, block (%u,%u,%u)", machine.kernel, blockIdx.x, blockIdx.y, blockIdx.z);
    if (machine.running) fprintf(to, ", thread (%u,%u,%u)", threadIdx.x, threadIdx.y, threadIdx.z);
    fprintf(to, ", launch %lu, EMULATOR_SEED=%llu: ", machine.launch, (unsigned long long)machine.seed);
}

void emulator_fault(const char *format, ...) {
    fflush(stdout);
    fprintf(stderr, "emulator: ");
    print_place(stderr);
    va_list arguments;
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fprintf(stderr, "\n");
    fflush(stderr);
    _exit(EMULATOR_FAULT);
}

/* AddressSanitizer calls this before it reports. */
extern "C" void __asan_on_error() {
    fprintf(stderr, "emulator: ");
    print_place(stderr);
    fprintf(stderr, "AddressSanitizer's report follows\n");
}

/* --- order -------------------------------------------------------------------------------------------------------- */

static uint64_t random_state;

static uint64_t next_random() { /* splitmix64 */
    uint64_t z = random_state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static size_t random_below(size_t bound) { return (size_t)((unsigned __int128)next_random() * bound >> 64); }

template <typename T> static void shuffle(std::vector<T> &x) {
    for (size_t i = x.size(); i > 1; i--) std::swap(x[i - 1], x[random_below(i)]);
}

static std::vector<unsigned> shuffled_up_to(unsigned count) {
    std::vector<unsigned> x(count);
    for (unsigned i = 0; i < count; i++) x[i] = i;
    shuffle(x);
    return x;
}

/* --- barriers ----------------------------------------------------------------------------------------------------- */

static void wait_as(thread_state state, const char *what) {
    device_thread *self = machine.running;
    self->state = state;
    self->waits_for = what;
    fibre_yield();
}

int emulator_block_barrier(emulator_vote vote, int predicate) {
    if (predicate) votes.yes++;
    at_barrier++;
    wait_as(THREAD_AT_BARRIER, "__syncthreads");
    if (vote == EMULATOR_AND) return votes.result == machine.thread_count;
    return vote == EMULATOR_OR ? votes.result > 0 : votes.result;
}

static void release_barrier() {
    votes.result = votes.yes;
    votes.yes = at_barrier = 0;
    access_block_barrier();
    for (int i = 0; i < machine.thread_count; i++) {
        machine.threads[i].state = THREAD_READY;
        ready.push_back(i);
    }
    shuffle(ready);
}

/* Nobody can go on: says which threads wait for what, and where the others are. */
static void report_divergence() {
    const device_thread *barrier = nullptr, *warp = nullptr, *gone = nullptr;
    for (int i = 0; i < machine.thread_count; i++) {
        const device_thread *t = &machine.threads[i];
        if (t->state == THREAD_AT_BARRIER && !barrier) barrier = t;
        if (t->state == THREAD_AT_WARP && !warp) warp = t;
        if (t->state == THREAD_DONE && !gone) gone = t;
    }
    machine.running = const_cast<device_thread *>(warp ? warp : barrier);
    threadIdx = machine.running->index;
    if (!warp)
        emulator_fault("divergent barrier: %d of %d threads wait in __syncthreads, but %d have ended, thread %d first",
                       at_barrier, machine.thread_count, done, gone->number);
    for (int lane = 0; lane < LANES; lane++) {
        int number = warp->number / LANES * LANES + lane;
        if (!(warp->mask >> lane & 1)) continue;
        const device_thread *t = &machine.threads[number];
        if (t->state == THREAD_AT_WARP && t->waits_for == warp->waits_for && t->mask == warp->mask) continue;
        if (t->state == THREAD_DONE)
            emulator_fault("%s with mask %08x waits for lane %d, which has ended", warp->waits_for, warp->mask, lane);
        emulator_fault("%s with mask %08x waits for lane %d, which waits in %s with mask %08x", warp->waits_for,
                       warp->mask, lane, t->waits_for, t->state == THREAD_AT_WARP ? t->mask : 0xffffffffu);
    }
    emulator_fault("%s with mask %08x does not end", warp->waits_for, warp->mask);
}

/* --- meetings of a warp ------------------------------------------------------------------------------------------- */

/* Those who have come, kept at the lowest lane of their mask; a warp can hold several meetings of disjoint masks. */
struct meeting {
    const char *what;
    unsigned mask, arrived;
};
static meeting meetings[THREADS_MOST];

/* The lanes of each warp that have not ended. */
static unsigned alive[THREADS_MOST / LANES];

static void check_mask(const char *what, unsigned mask, int first) {
    if (!(mask >> machine_lane() & 1))
        emulator_fault("%s with mask %08x from lane %d, which is not in it", what, mask, machine_lane());
    if ((mask & ~alive[first / LANES]) == 0) return;
    for (int lane = 0; lane < LANES; lane++) {
        if (!(mask >> lane & 1)) continue;
        if (first + lane >= machine.thread_count)
            emulator_fault("%s with mask %08x names lane %d, which the block does not have", what, mask, lane);
        if (machine.threads[first + lane].state == THREAD_DONE)
            emulator_fault("%s with mask %08x names lane %d, which has ended", what, mask, lane);
    }
}

static void end_meeting(meeting *m, int first, meeting_end complete) {
    void *arguments[LANES] = {};
    for (int lane = 0; lane < LANES; lane++)
        if (m->mask >> lane & 1) arguments[lane] = machine.threads[first + lane].argument;
    unsigned mask = m->mask;
    m->arrived = 0;
    complete(arguments, mask);
    size_t others = ready.size();
    for (int lane = 0; lane < LANES; lane++) {
        device_thread *t = &machine.threads[first + lane];
        if (!(mask >> lane & 1) || t == machine.running) continue;
        t->state = THREAD_READY;
        ready.push_back(t->number);
        std::swap(ready.back(), ready[others + random_below(ready.size() - others)]);
    }
}

void machine_meet(const char *what, unsigned mask, void *argument, meeting_end complete) {
    device_thread *self = machine.running;
    int first = self->number / LANES * LANES;
    check_mask(what, mask, first);
    meeting *m = &meetings[first + __builtin_ctz(mask)];
    if (m->arrived == 0) m->what = what, m->mask = mask;
    if (m->what != what || m->mask != mask)
        emulator_fault("%s with mask %08x from lane %d, while other lanes wait in %s with mask %08x", what, mask,
                       machine_lane(), m->what, m->mask);
    self->argument = argument;
    self->mask = mask;
    m->arrived |= 1u << machine_lane();
    if (m->arrived == mask)
        end_meeting(m, first, complete);
    else
        wait_as(THREAD_AT_WARP, what);
}

/* --- blocks ------------------------------------------------------------------------------------------------------- */

void machine_thread_main() {
    body.call(body.arguments);
    if (!machine.running->copies.empty())
        emulator_fault("the thread ends while %zu of its copy_16 are under way", machine.running->copies.size());
    machine.running->state = THREAD_DONE;
    alive[machine.running->number / LANES] &= ~(1u << machine_lane());
    done++;
}

static uint3 coordinates(unsigned n, dim3 of) { return {n % of.x, n / of.x % of.y, n / of.x / of.y}; }

static void start_threads() {
    done = at_barrier = 0;
    votes.yes = 0;
    for (int i = 0; i < machine.thread_count; i++) {
        device_thread *t = &machine.threads[i];
        t->number = i;
        t->index = coordinates((unsigned)i, blockDim);
        t->state = THREAD_READY;
        alive[i / LANES] = i % LANES == 0 ? 1 : alive[i / LANES] << 1 | 1;
        t->copy_group = 0;
        fibre_prepare(t);
        meetings[i].arrived = 0;
        ready.push_back(i);
    }
    shuffle(ready);
}

static void run_block() {
    memory_fill(machine.shared, 0xff, machine.shared_bytes);
    machine.block++;
    access_start_block();
    start_threads();
    for (;;) {
        while (!ready.empty()) {
            machine.running = &machine.threads[ready.back()];
            ready.pop_back();
            threadIdx = machine.running->index;
            fibre_resume(machine.running);
            machine.running = nullptr;
        }
        if (done == machine.thread_count) return;
        if (at_barrier != machine.thread_count) report_divergence();
        release_barrier();
    }
}

static uint64_t seed_of_environment() {
    const char *text = getenv("EMULATOR_SEED");
    return text ? strtoull(text, nullptr, 10) : 1;
}

/* The same memory and shadow serve every launch: what earlier blocks did to them does not count. */
static void take_shared(size_t bytes) {
    alignas(1024) static unsigned char shared[SHARED_MOST];
    if (!machine.shared) access_begin(&machine.shared_shadow, SHARED_MOST);
    machine.shared = shared;
    machine.shared_shadow.bytes = machine.shared_bytes = bytes;
}

/* Every launch so far, to say of a stamp whose it is. */
struct past_launch {
    const char *kernel;
    unsigned long number;
    dim3 grid, block;
    uint32_t first_block;
};
static std::vector<past_launch> past;

/* The order in which a launch runs its blocks, from its number alone; the next random numbers are its threads'. */
static std::vector<unsigned> order_of(unsigned long launch, dim3 grid) {
    random_state = machine.seed * 0x9e3779b97f4a7c15u + launch;
    return shuffled_up_to(grid.x * grid.y * grid.z);
}

uint3 machine_block_at(uint32_t place) { return coordinates(block_order[place], gridDim); }

void machine_describe(uint32_t block, int thread, char *out, size_t size) {
    size_t i = past.size();
    while (past[--i].first_block > block) continue;
    const past_launch &l = past[i];
    uint3 b = coordinates(order_of(l.number, l.grid)[block - l.first_block], l.grid);
    uint3 t = coordinates((unsigned)thread, l.block);
    snprintf(out, size, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u)", l.kernel, b.x, b.y, b.z, t.x, t.y, t.z);
}

static void run_blocks() {
    block_order = order_of(machine.launch, gridDim);
    machine.first_block = machine.block + 1;
    past.push_back({machine.kernel, machine.launch, gridDim, blockDim, machine.first_block});
    size_t count = block_order.size();
    for (uint32_t place = 0; place < count; place++) {
        blockIdx = machine_block_at(place);
        run_block();
    }
}

static void run_launch(const char *name, dim3 grid, dim3 block, size_t shared_bytes, void (*call)(const void *),
                       const void *arguments, size_t bytes) {
    static device_thread threads[THREADS_MOST];
    std::lock_guard<std::mutex> guard(one_launch);
    if (machine.launch == 0) machine.seed = seed_of_environment();
    machine.kernel = name;
    machine.launch++;
    machine.threads = threads;
    machine.thread_count = (int)(block.x * block.y * block.z);
    body = {call, arguments};
    gridDim = grid;
    blockDim = block;
    take_shared(shared_bytes);
    access_start_launch(arguments, bytes);
    run_blocks();
    machine.kernel = nullptr;
}

static bool can_launch(dim3 grid, dim3 block) {
    bool some = block.x && block.y && block.z && grid.x && grid.y && grid.z;
    bool each = block.x <= THREADS_MOST && block.y <= THREADS_MOST && block.z <= 64 && grid.x <= 0x7fffffffu;
    return some && each && block.x * block.y * block.z <= THREADS_MOST && grid.y <= 65535 && grid.z <= 65535;
}

cudaError_t emulator_launch_call(const char *name, dim3 grid, dim3 block, size_t shared_bytes,
                                 void (*call)(const void *), std::shared_ptr<const void> kernel, size_t bytes) {
    if (!can_launch(grid, block)) return cudaErrorInvalidConfiguration;
    if (shared_bytes > SHARED_MOST) return cudaErrorInvalidValue;
    auto work = [=] { run_launch(name, grid, block, shared_bytes, call, kernel.get(), bytes); };
    if (!capture_record(work)) work();
    return cudaSuccess;
}

void *emulator_shared_memory() { return machine.shared; }
