/* tensor_core: the warp-wide matrix product of bf16 and the copies that feed it, as PTX; emulated on the host.
 *
 * All are called by every lane of a warp together. Fragments of m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16
 * with floating point type"), with g = lane/4 and t = lane%4; a register holds two bf16, the lower column (a) or row
 * (b) in its low half:
 *   a (16 x 16, row-major)   a[0] = (g, 2t..2t+1)  a[1] = (g+8, 2t..)  a[2] = (g, 2t+8..)  a[3] = (g+8, 2t+8..)
 *   b (16 x 8: k x n)        b[0] = (2t..2t+1, g)  b[1] = (2t+8..2t+9, g)
 *   d (16 x 8, float)        d[0] = (g, 2t)  d[1] = (g, 2t+1)  d[2] = (g+8, 2t)  d[3] = (g+8, 2t+1)
 * so a d fragment of two neighbouring n tiles is, once packed, an a fragment of the next product. */
#pragma once
#include "kernels/cuda/device.cuh"

#ifndef HINGE_CUDA_EMULATOR /* which has its own, of the same signatures */

/* d += a b */
__device__ static inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
                 "{%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ static inline uint32_t shared_address(const void *shared) {
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* Four (or two) 8 x 8 matrices of bf16 from shared memory. Lane i gives the address of row i%8 of matrix i/8, 16-byte
 * aligned; lane l receives elements (l/4, 2(l%4)..) of each, or with _trans (2(l%4).., l/4). x2 reads the addresses
 * of lanes 0 to 15 only. */
__device__ static inline void ldmatrix_x4(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ static inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ static inline void ldmatrix_x2(uint32_t (&r)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ static inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void *row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(shared_address(row))
                 : "memory");
}

/* 16 bytes from global to shared memory, both 16-byte aligned, while the thread goes on; `wanted` false writes zeros
 * and reads nothing. Visible to the thread after copy_wait, to the block after a barrier behind that. */
__device__ static inline void copy_16(void *shared, const void *global, bool wanted) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(wanted ? 16 : 0)
                 : "memory");
}
/* Closes the group of copies begun so far. */
__device__ static inline void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/* Waits until at most N of the thread's youngest groups are unfinished. */
template <int N> __device__ static inline void copy_wait() {
    asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
}
#endif
