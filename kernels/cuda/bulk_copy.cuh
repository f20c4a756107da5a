/* bulk_copy: Hopper's copies of boxes of a matrix into shared memory, the barriers that they complete on, and clusters.
 *
 * Only for code that is compiled for sm_90a. A copy_barrier lies in shared memory; its phases are counted from 0, and
 * barrier_wait(b, phase % 2) returns once that phase is over: once as many threads have arrived as it was begun with,
 * and all the bytes that they expect have come. PTX ISA, "mbarrier" and "cp.async.bulk.tensor". */
#pragma once
#include <cuda.h>

#include "kernels/cuda/tensor_core.cuh"

struct alignas(8) copy_barrier {
    uint64_t state;
};

__device__ static inline void barrier_begin(copy_barrier *b, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(shared_address(b)), "r"(arrivals) : "memory");
}
/* Behind the last barrier_begin, by the thread that called it, before a barrier of the block or cluster. */
__device__ static inline void barriers_begun() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

/* Arrives, with so many bytes to come. */
__device__ static inline void barrier_expect(copy_barrier *b, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;"
                 :
                 : "r"(shared_address(b)), "r"(bytes)
                 : "memory");
}
/* Arrives at the barrier that block `rank` of the cluster has at this place. */
__device__ static inline void barrier_arrive(copy_barrier *b, int rank) {
    asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1;\n"
                 "mbarrier.arrive.shared::cluster.b64 _, [there]; }"
                 :
                 : "r"(shared_address(b)), "r"(rank)
                 : "memory");
}
/* Arrives at one of this block. */
__device__ static inline void barrier_arrive(copy_barrier *b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(shared_address(b)) : "memory");
}
__device__ static inline void barrier_wait(copy_barrier *b, unsigned parity) {
    asm volatile("{ .reg .pred over;\n"
                 "again: mbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n"
                 "@!over bra again; }"
                 :
                 : "r"(shared_address(b)), "r"(parity)
                 : "memory");
}

/* Copies the map's box at (column, row) to shared memory, at the same place in each block of the cluster that has a bit
 * in `blocks`; arrives there, as bytes, at the same barrier. One thread. */
__device__ static inline void copy_box(void *shared, const CUtensorMap *map, int column, int row, copy_barrier *b,
                                       unsigned blocks) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%2, %3}], [%4], %5;"
                 :
                 : "r"(shared_address(shared)), "l"(map), "r"(column), "r"(row), "r"(shared_address(b)),
                   "h"((uint16_t)blocks)
                 : "memory");
}
__device__ static inline void copy_box(void *shared, const CUtensorMap *map, int column, int row, copy_barrier *b) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3}], [%4];"
                 :
                 : "r"(shared_address(shared)), "l"(map), "r"(column), "r"(row), "r"(shared_address(b))
                 : "memory");
}
/* The same of tensors with four and five dimensions; of bytes that follow each other, a multiple of 16, aligned. */
__device__ static inline void copy_box(void *shared, const CUtensorMap *map, int i, int j, int k, int l,
                                       copy_barrier *b) {
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5}], [%6];"
                 :
                 : "r"(shared_address(shared)), "l"(map), "r"(i), "r"(j), "r"(k), "r"(l), "r"(shared_address(b))
                 : "memory");
}
__device__ static inline void copy_box(void *shared, const CUtensorMap *map, int i, int j, int k, int l, int m,
                                       copy_barrier *b) {
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4, %5, %6}], [%7];"
                 :
                 : "r"(shared_address(shared)), "l"(map), "r"(i), "r"(j), "r"(k), "r"(l), "r"(m), "r"(shared_address(b))
                 : "memory");
}
__device__ static inline void copy_bytes(void *shared, const void *from, int bytes, copy_barrier *b) {
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 :
                 : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(b))
                 : "memory");
}

/* Copies a box from shared memory, whose writers have called shared_written() (warpgroup.cuh), to (column, row) of the
 * map's tensor. One thread, which may wait until all that it has begun has been read. */
__device__ static inline void store_box(const CUtensorMap *map, int column, int row, const void *shared) {
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.bulk_group [%0, {%1, %2}], [%3];\n"
                 "cp.async.bulk.commit_group;"
                 :
                 : "l"(map), "r"(column), "r"(row), "r"(shared_address(shared))
                 : "memory");
}
__device__ static inline void stores_wait_read() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

/* Brings a box to the L2 cache. */
__device__ static inline void box_to_l2(const CUtensorMap *map, int column, int row) {
    asm volatile("cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%0, {%1, %2}];"
                 :
                 : "l"(map), "r"(column), "r"(row)
                 : "memory");
}
/* Brings the line that holds an address of global memory there. */
__device__ static inline void fetch_to_l2(const void *from) {
    asm volatile("prefetch.global.L2 [%0];" : : "l"(__cvta_generic_to_global(from)));
}

/* True for one thread of a warp whose threads all ask. */
__device__ static inline bool is_elected() {
    uint32_t elected;
    asm volatile("{ .reg .pred elected; elect.sync _|elected, 0xffffffff; selp.u32 %0, 1, 0, elected; }"
                 : "=r"(elected));
    return elected;
}

/* Of all threads of the cluster. */
__device__ static inline void cluster_barrier() {
    asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ static inline unsigned cluster_rank() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* A tensor of bf16, of which boxes are copied, 64 elements of the first dimension wide and swizzled as panels are
 * (warpgroup.cuh); zeros where the tensor has nothing. */
template <int DIMENSIONS> struct boxes {
    cuuint64_t sizes[DIMENSIONS], strides[DIMENSIONS - 1]; /* bytes, of all dimensions but the first */
    cuuint32_t box[DIMENSIONS];

    /* name: of the op, for messages */
    CUtensorMap map(const bf16 *x, const char *name) const {
        CUtensorMap m = {};
        cuuint32_t steps[DIMENSIONS];
        for (cuuint32_t &step : steps) step = 1;
        CUresult result =
            cuTensorMapEncodeTiled(&m, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, DIMENSIONS, const_cast<bf16 *>(x), sizes,
                                   strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
        if (result != CUDA_SUCCESS)
            device_note_text(name, "the driver refuses the map of a tensor (cuTensorMapEncodeTiled)");
        return m;
    }
};

/* More or fewer registers for each thread of a warpgroup, by all of it. */
template <int REGISTERS> __device__ static inline void take_registers() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}
template <int REGISTERS> __device__ static inline void give_registers() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(REGISTERS));
}
