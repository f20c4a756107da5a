/* tensor_core: the host's mma, ldmatrix and cp.async; the same signatures as the PTX in kernels/cuda/tensor_core.cuh.
 *
 * A product sums in float, k ascending. A copy_16 lands at the copy_wait that covers it and not before, the latest
 * that a device may take; reading its target earlier is a fault where accesses are checked. */
#pragma once

void emulator_mma_m16n8k16(float *d, const uint32_t *a, const uint32_t *b);
void emulator_ldmatrix(uint32_t *r, const void *row, int matrices, bool transposed);
void emulator_copy_16(void *shared, const void *global, bool wanted);
void emulator_copy_commit();
void emulator_copy_wait(int unfinished);

static inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    emulator_mma_m16n8k16(d, a, b);
}
static inline void ldmatrix_x4(uint32_t (&r)[4], const void *row) { emulator_ldmatrix(r, row, 4, false); }
static inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) { emulator_ldmatrix(r, row, 4, true); }
static inline void ldmatrix_x2(uint32_t (&r)[2], const void *row) { emulator_ldmatrix(r, row, 2, false); }
static inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) { emulator_ldmatrix(r, row, 2, true); }
static inline void copy_16(void *shared, const void *global, bool wanted) { emulator_copy_16(shared, global, wanted); }
static inline void copy_commit() { emulator_copy_commit(); }
template <int N> static inline void copy_wait() { emulator_copy_wait(N); }
