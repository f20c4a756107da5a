/* warp: what the lanes of a warp do together: shuffles, votes, the matrix product and its loads and copies. */
#include "tests/cuda_emulator/machine.h"
#include "tests/cuda_emulator/tensor_core.h"

static const unsigned ALL = 0xffffffffu;

/* --- shuffles and votes ------------------------------------------------------------------------------------------- */

struct shuffle_argument {
    uint64_t value, result;
    int from;
};

static int shuffle_source(emulator_shuffle how, int lane, int by, int width) {
    int first = lane & ~(width - 1), last = first + width - 1;
    if (how == EMULATOR_INDEX) return first | (by & (width - 1));
    if (how == EMULATOR_UP) return lane - by < first ? lane : lane - by;
    int from = how == EMULATOR_DOWN ? lane + by : lane ^ by;
    return from > last ? lane : from;
}

static void end_shuffle(void *const arguments[LANES], unsigned mask) {
    for (int lane = 0; lane < LANES; lane++) {
        shuffle_argument *a = static_cast<shuffle_argument *>(arguments[lane]);
        if (!a) continue;
        if (!arguments[a->from])
            emulator_fault("a shuffle with mask %08x: lane %d reads lane %d, which is not in it", mask, lane, a->from);
        a->result = static_cast<shuffle_argument *>(arguments[a->from])->value;
    }
}

uint64_t emulator_shuffled(emulator_shuffle how, unsigned mask, uint64_t value, int by, int width) {
    static const char *const names[] = {"__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync"};
    if (width < 1 || width > LANES || (width & (width - 1)))
        emulator_fault("%s with a width of %d, which is no power of two up to 32", names[how], width);
    shuffle_argument argument = {value, 0, shuffle_source(how, machine_lane(), by, width)};
    machine_meet(names[how], mask, &argument, end_shuffle);
    return argument.result;
}

struct ballot_argument {
    bool yes;
    unsigned result;
};

static void end_ballot(void *const arguments[LANES], unsigned) {
    unsigned result = 0;
    for (int lane = 0; lane < LANES; lane++)
        if (arguments[lane] && static_cast<ballot_argument *>(arguments[lane])->yes) result |= 1u << lane;
    for (int lane = 0; lane < LANES; lane++)
        if (arguments[lane]) static_cast<ballot_argument *>(arguments[lane])->result = result;
}

unsigned emulator_ballot(unsigned mask, int predicate) {
    ballot_argument argument = {predicate != 0, 0};
    machine_meet("__ballot_sync, __any_sync or __all_sync", mask, &argument, end_ballot);
    return argument.result;
}

static void end_warp_barrier(void *const *, unsigned mask) {
    access_warp_barrier(mask, machine.running->number / LANES * LANES);
}

void emulator_warp_barrier(unsigned mask) { machine_meet("__syncwarp", mask, nullptr, end_warp_barrier); }

/* --- the matrix product ------------------------------------------------------------------------------------------- */

struct mma_argument {
    float *d;
    const uint32_t *a, *b;
};

static float half_of(uint32_t pair, int which) { return emulator_float_of_bf16((uint16_t)(pair >> 16 * which)); }

static void end_mma(void *const arguments[LANES], unsigned) {
    float a[16][16], b[8][16];
    for (int lane = 0; lane < LANES; lane++) {
        const mma_argument *x = static_cast<const mma_argument *>(arguments[lane]);
        int g = lane / 4, t = lane % 4;
        for (int i = 0; i < 4; i++)
            for (int half = 0; half < 2; half++)
                a[g + 8 * (i % 2)][2 * t + 8 * (i / 2) + half] = half_of(x->a[i], half);
        for (int i = 0; i < 2; i++)
            for (int half = 0; half < 2; half++) b[g][2 * t + 8 * i + half] = half_of(x->b[i], half);
    }
    for (int lane = 0; lane < LANES; lane++) {
        float *d = static_cast<mma_argument *>(arguments[lane])->d;
        for (int i = 0; i < 4; i++) {
            const float *row = a[lane / 4 + 8 * (i / 2)], *column = b[2 * (lane % 4) + i % 2];
            float sum = 0;
            for (int k = 0; k < 16; k++) sum += row[k] * column[k];
            d[i] += sum;
        }
    }
}

void emulator_mma_m16n8k16(float *d, const uint32_t *a, const uint32_t *b) {
    mma_argument argument = {d, a, b};
    machine_meet("mma_m16n8k16", ALL, &argument, end_mma);
}

/* --- loads of 8 x 8 matrices -------------------------------------------------------------------------------------- */

struct ldmatrix_argument {
    uint32_t *r;
    const void *row;
    int matrices;
    bool transposed;
};

/* `at` is 16-byte aligned and 16 bytes from there are shared memory, else a fault. */
static void check_shared_16(const char *what, const void *at, int lane) {
    uintptr_t address = reinterpret_cast<uintptr_t>(at), base = reinterpret_cast<uintptr_t>(machine.shared);
    if (address < base || address + 16 > base + machine.shared_bytes)
        emulator_fault("%s: the 16 bytes of lane %d are not within the block's %zu bytes of shared memory: at byte %td",
                       what, lane, machine.shared_bytes, (ptrdiff_t)(address - base));
    if (address % 16 != 0)
        emulator_fault("%s: the address of lane %d is not a multiple of 16: byte %zu of shared memory", what, lane,
                       (size_t)(address - base));
}

static void end_ldmatrix(void *const arguments[LANES], unsigned) {
    const ldmatrix_argument *any = static_cast<const ldmatrix_argument *>(arguments[0]);
    uint16_t rows[32][8];
    for (int lane = 0; lane < 8 * any->matrices; lane++) {
        const void *row = static_cast<const ldmatrix_argument *>(arguments[lane])->row;
        check_shared_16("ldmatrix", row, lane);
        access_check(row, 16, ACCESS_READ, lane);
        memory_move(rows[lane], row, 16);
    }
    for (int lane = 0; lane < LANES; lane++) {
        uint32_t *r = static_cast<ldmatrix_argument *>(arguments[lane])->r;
        int g = lane / 4, t = lane % 4;
        for (int m = 0; m < any->matrices; m++) {
            uint16_t low = any->transposed ? rows[8 * m + 2 * t][g] : rows[8 * m + g][2 * t];
            uint16_t high = any->transposed ? rows[8 * m + 2 * t + 1][g] : rows[8 * m + g][2 * t + 1];
            r[m] = (uint32_t)high << 16 | low;
        }
    }
}

void emulator_ldmatrix(uint32_t *r, const void *row, int matrices, bool transposed) {
    static const char *const names[] = {"ldmatrix_x2", "ldmatrix_x2_trans", "ldmatrix_x4", "ldmatrix_x4_trans"};
    ldmatrix_argument argument = {r, row, matrices, transposed};
    machine_meet(names[matrices / 4 * 2 + transposed], ALL, &argument, end_ldmatrix);
}

/* --- copies in the background ------------------------------------------------------------------------------------- */

void emulator_copy_16(void *shared, const void *global, bool wanted) {
    device_thread *self = machine.running;
    check_shared_16("copy_16", shared, machine_lane());
    if (wanted && reinterpret_cast<uintptr_t>(global) % 16 != 0)
        emulator_fault("copy_16: the global address %p is not a multiple of 16", global);
    if (wanted) {
        allocation *from = memory_find(global);
        if (!from || static_cast<const unsigned char *>(global) + 16 > from->base + from->bytes)
            emulator_fault("copy_16 reads 16 bytes at %p, which are not all in device memory", global);
        access_check(global, 16, ACCESS_READ, machine_lane());
    }
    access_check(shared, 16, ACCESS_COPY_BEGINS, machine_lane());
    self->copies.push_back({shared, wanted ? global : nullptr, self->copy_group});
}

void emulator_copy_commit() { machine.running->copy_group++; }

void emulator_copy_wait(int unfinished) {
    device_thread *self = machine.running;
    size_t kept = 0;
    for (const pending_copy &copy : self->copies) {
        if (copy.group >= self->copy_group - unfinished) {
            self->copies[kept++] = copy;
            continue;
        }
        access_check(copy.to, 16, ACCESS_COPY_ENDS, machine_lane());
        if (copy.from)
            memory_move(copy.to, copy.from, 16);
        else
            memory_fill(copy.to, 0, 16);
    }
    self->copies.resize(kept);
}
