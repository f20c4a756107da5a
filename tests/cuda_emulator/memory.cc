/* memory: the emulated device's memory: exact sizes, filled with NaN, a limit (EMULATOR_MEMORY bytes). */
#include <stdlib.h>

#include <atomic>
#include <map>
#include <mutex>
#include <thread>

#include "tests/cuda_emulator/machine.h"

static std::map<uintptr_t, allocation> allocations;
static size_t used;

/* Taken at many an access of a kernel, and hardly ever by two threads at once. */
static struct {
    std::atomic_flag taken = ATOMIC_FLAG_INIT;
    void lock() {
        while (taken.test_and_set(std::memory_order_acquire)) std::this_thread::yield();
    }
    void unlock() { taken.clear(std::memory_order_release); }
} guard;
using hold_guard = std::lock_guard<decltype(guard)>;

/* Written out, as AddressSanitizer takes the place of the C library's. */
void memory_move(void *to, const void *from, size_t bytes) {
#ifdef __x86_64__
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(bytes) : : "memory");
#else
    volatile unsigned char *t = static_cast<volatile unsigned char *>(to);
    const unsigned char *f = static_cast<const unsigned char *>(from);
    for (size_t i = 0; i < bytes; i++) t[i] = f[i];
#endif
}

void memory_fill(void *to, int byte, size_t bytes) {
#ifdef __x86_64__
    asm volatile("rep stosb" : "+D"(to), "+c"(bytes) : "a"(byte) : "memory");
#else
    volatile unsigned char *t = static_cast<volatile unsigned char *>(to);
    for (size_t i = 0; i < bytes; i++) t[i] = (unsigned char)byte;
#endif
}

/* Host code that touches the device's memory is reported by AddressSanitizer, as "use-after-poison". */
#ifdef EMULATOR_ASAN
extern "C" void __asan_poison_memory_region(const volatile void *, size_t);
extern "C" void __asan_unpoison_memory_region(const volatile void *, size_t);
static void hide_from_host(void *memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
static void show_to_host(void *memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
static void hide_from_host(void *, size_t) {}
static void show_to_host(void *, size_t) {}
#endif

static size_t memory_total() {
    const char *text = getenv("EMULATOR_MEMORY");
    return text ? strtoull(text, nullptr, 10) : (size_t)8 << 30;
}

allocation *memory_before(const void *address) {
    hold_guard hold(guard);
    auto next = allocations.upper_bound(reinterpret_cast<uintptr_t>(address));
    return next == allocations.begin() ? nullptr : &std::prev(next)->second;
}

allocation *memory_find(const void *address) {
    allocation *found = memory_before(address);
    return found && static_cast<const unsigned char *>(address) < found->base + found->bytes ? found : nullptr;
}

cudaError_t memory_new(void **out, size_t bytes) {
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    {
        hold_guard hold(guard);
        if (bytes > memory_total() - used) return cudaErrorMemoryAllocation;
    }
    if (posix_memalign(out, 256, bytes) != 0) return cudaErrorMemoryAllocation;
    memory_fill(*out, 0xff, bytes);
    hold_guard hold(guard);
    used += bytes;
    allocation *made =
        &(allocations[reinterpret_cast<uintptr_t>(*out)] = {static_cast<unsigned char *>(*out), bytes, {}});
    access_begin(&made->shadow, bytes);
    hide_from_host(*out, bytes);
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    if (!memory) return cudaSuccess;
    {
        hold_guard hold(guard);
        auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
        if (found == allocations.end()) return cudaErrorInvalidValue;
        used -= found->second.bytes;
        access_end(&found->second.shadow);
        show_to_host(memory, found->second.bytes);
        allocations.erase(found);
    }
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    hold_guard hold(guard);
    *total = memory_total();
    *left = *total - used;
    return cudaSuccess;
}

void memory_check_range(const char *call, const void *at, size_t bytes) {
    allocation *memory = memory_find(at);
    if (!memory || static_cast<const unsigned char *>(at) + bytes > memory->base + memory->bytes)
        emulator_fault("%s: the %zu bytes at %p are not within an allocation of the device", call, bytes, at);
}

void memory_host_touches(const void *at, size_t bytes, bool writes) {
    allocation *memory = memory_find(at);
    size_t offset = (size_t)(static_cast<const unsigned char *>(at) - memory->base);
    if (writes) {
        access_host_writes(&memory->shadow, offset, bytes, true);
        return;
    }
    size_t first = access_first_unwritten(&memory->shadow, offset, bytes);
    if (first < bytes) access_fault_unwritten(&memory->shadow, offset + first, "a library");
}

uint64_t emulator_atomic_load(const void *at, size_t bytes) {
    access_check(at, bytes, ACCESS_ATOMIC, machine_lane());
    uint64_t value = 0;
    memory_move(&value, at, bytes);
    return value;
}

void emulator_atomic_store(void *at, uint64_t value, size_t bytes) { memory_move(at, &value, bytes); }
