/* memory: the emulated device's memory: exact sizes, filled with NaN, a limit (EMULATOR_MEMORY bytes). */
#include <stdlib.h>

#include <map>
#include <mutex>

#include "tests/cuda_emulator/machine.h"

static std::map<uintptr_t, allocation> allocations;
static size_t used;
static std::mutex guard;

void memory_move(void *to, const void *from, size_t bytes) {
    volatile unsigned char *t = static_cast<volatile unsigned char *>(to);
    const unsigned char *f = static_cast<const unsigned char *>(from);
    for (size_t i = 0; i < bytes; i++) t[i] = f[i];
}

void memory_fill(void *to, int byte, size_t bytes) {
    volatile unsigned char *t = static_cast<volatile unsigned char *>(to);
    for (size_t i = 0; i < bytes; i++) t[i] = (unsigned char)byte;
}

static size_t memory_total() {
    const char *text = getenv("EMULATOR_MEMORY");
    return text ? strtoull(text, nullptr, 10) : (size_t)8 << 30;
}

allocation *memory_find(const void *address) {
    std::lock_guard<std::mutex> hold(guard);
    auto next = allocations.upper_bound(reinterpret_cast<uintptr_t>(address));
    if (next == allocations.begin()) return nullptr;
    allocation *found = &std::prev(next)->second;
    return static_cast<const unsigned char *>(address) < found->base + found->bytes ? found : nullptr;
}

cudaError_t memory_new(void **out, size_t bytes) {
    *out = nullptr;
    if (bytes == 0) return cudaSuccess;
    {
        std::lock_guard<std::mutex> hold(guard);
        if (bytes > memory_total() - used) return cudaErrorMemoryAllocation;
    }
    if (posix_memalign(out, 256, bytes) != 0) return cudaErrorMemoryAllocation;
    memory_fill(*out, 0xff, bytes);
    std::lock_guard<std::mutex> hold(guard);
    used += bytes;
    allocations[reinterpret_cast<uintptr_t>(*out)] = {static_cast<unsigned char *>(*out), bytes};
    return cudaSuccess;
}

cudaError_t cudaFree(void *memory) {
    if (!memory) return cudaSuccess;
    {
        std::lock_guard<std::mutex> hold(guard);
        auto found = allocations.find(reinterpret_cast<uintptr_t>(memory));
        if (found == allocations.end()) return cudaErrorInvalidValue;
        used -= found->second.bytes;
        allocations.erase(found);
    }
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *left, size_t *total) {
    std::lock_guard<std::mutex> hold(guard);
    *total = memory_total();
    *left = *total - used;
    return cudaSuccess;
}

void emulator_atomic_access(void *, size_t) {}
