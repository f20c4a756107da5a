/* guarded: a table whose entries open the memory, check their arguments and call the CPU's; see guarded.h. */
#include "guarded.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>

namespace {

struct piece {
    char *start;
    size_t bytes;
};

/* One stretch of addresses, opened and closed as a whole; pieces come one after the other, and its room is used again
 * when all of them are freed. */
enum { MOST_PIECES = 8192 };
constexpr size_t ROOM = (size_t)1 << 32;
char *room;
size_t room_used;
piece pieces[MOST_PIECES];
int piece_count;

size_t whole_pages(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes / page + 1) * page;
}

void protect(int protection) {
    if (room_used) mprotect(room, room_used, protection);
}

bool is_guarded(const void *address) {
    const char *at = static_cast<const char *>(address);
    for (int i = 0; i < piece_count; i++)
        if (at >= pieces[i].start && at < pieces[i].start + pieces[i].bytes) return true;
    return false;
}

[[noreturn]] void misused(const char *op, const char *what) {
    std::fprintf(stderr, "%s: %s\n", op, what);
    std::abort();
}

void must_be_guarded(const char *op, const void *address) {
    if (address && !is_guarded(address)) misused(op, "got memory of the host");
}

/* Structs of ops.def that hold nothing but the backend's pointers. */
template <typename T>
constexpr bool holds_pointers =
    std::is_same_v<T, mamba_weights> || std::is_same_v<T, mamba_gradients> || std::is_same_v<T, mamba_tape> ||
    std::is_same_v<T, mamba_tape_gradients> || std::is_same_v<T, mamba_state> || std::is_same_v<T, attention_tape>;

template <typename T> void check(const char *op, T argument) {
    using base = std::remove_cv_t<std::remove_pointer_t<T>>;
    if constexpr (!std::is_pointer_v<T>) {
        (void)op, (void)argument;
    } else if constexpr (std::is_same_v<base, lane>) {
        if (argument->scratch_bytes) must_be_guarded(op, argument->scratch);
    } else if constexpr (holds_pointers<base>) {
        const void *held[sizeof(base) / sizeof(void *)];
        std::memcpy(held, argument, sizeof held);
        for (const void *address : held) must_be_guarded(op, address);
    } else if constexpr (std::is_arithmetic_v<base> || std::is_void_v<base> || std::is_same_v<base, adam_settings> ||
                         std::is_same_v<base, muon_settings>) {
        must_be_guarded(op, argument);
    }
}

template <auto> struct guarded;
template <typename... Arguments, void (*op)(Arguments...)> struct guarded<op> {
    static const char *name;
    static void call(Arguments... arguments) {
        (check(name, arguments), ...);
        protect(PROT_READ | PROT_WRITE);
        op(arguments...);
        protect(PROT_NONE);
    }
};
template <typename... Arguments, void (*op)(Arguments...)> const char *guarded<op>::name;

status memory_new(void **out, size_t bytes, const char *what) {
    size_t size = whole_pages(bytes);
    if (!room)
        room = static_cast<char *>(mmap(nullptr, ROOM, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    if (room == MAP_FAILED || piece_count == MOST_PIECES || room_used + size > ROOM)
        return status_new(STATUS_SYSTEM, "no memory for %s: %.1f MB", what, (double)bytes / 1e6);
    pieces[piece_count++] = piece{room + room_used, size};
    *out = room + room_used;
    room_used += size;
    return nullptr;
}

void memory_free(void *memory) {
    for (int i = 0; i < piece_count; i++) {
        if (pieces[i].start != memory) continue;
        pieces[i] = pieces[--piece_count];
        if (piece_count) return;
        madvise(room, room_used, MADV_DONTNEED); /* zeros, as new memory is */
        room_used = 0;
        return;
    }
    misused("memory_free", "got memory that is not the backend's");
}

void move(const char *name, void *to, const void *from, size_t bytes, bool up) {
    if (is_guarded(to) != up || is_guarded(from) == up) misused(name, "confuses the host's memory with the backend's");
    protect(PROT_READ | PROT_WRITE);
    std::memcpy(to, from, bytes);
    protect(PROT_NONE);
}

void upload(lane *, void *to, const void *from, size_t bytes) { move("upload", to, from, bytes, true); }
void download(lane *, void *to, const void *from, size_t bytes) { move("download", to, from, bytes, false); }

int one_lane() { return 1; }

void in_order(lane *lanes, int, int count, piece_function function, void *context) {
    for (int i = 0; i < count; i++) function(context, i, lanes);
}

backend make(size_t batch_most) {
    backend made = *backend_find("cpu");
    made.name = "guarded";
    made.device_memory = true;
    made.batch_most = batch_most;
    made.memory_new = memory_new;
    made.memory_free = memory_free;
    made.upload = upload;
    made.download = download;
    made.lane_count = one_lane;
    made.for_each = in_order;
#define OP(op, arguments, mathematics, shapes, accumulation) \
    guarded<cpu_##op>::name = #op;                           \
    made.op = guarded<cpu_##op>::call;
#define SCRATCH(name, arguments, ops)
#include "kernels/ops.def"
#undef OP
#undef SCRATCH
    return made;
}

} // namespace

const backend *guarded_backend(size_t batch_most) {
    static backend made;
    made = make(batch_most);
    return &made;
}

int guarded_pieces(void) { return piece_count; }
