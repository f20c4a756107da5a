/* warpgroup: products of 128 threads with matrices in shared memory: wgmma on Hopper, ldmatrix and mma elsewhere.
 *
 * A warpgroup is four warps, the first a multiple of four. It makes d (64 x N) += a (64 x 16) b (16 x N) for each step
 * of 16, and calls everything here together. d is in float registers, warp w of the group having rows 16 w .. 16 w + 15
 * as n tiles of d fragments (tensor_core.cuh): d[n] are columns 8 n .. 8 n + 7. Hence d, packed, is `a` of a next
 * product: pack_left.
 *
 * Matrices lie in panels of 64 columns (struct panels). An operand is BY_ROWS when the index that the product sums over
 * runs along the stored rows: a (m, k), b (n, k); BY_COLUMNS when it runs down them: a (k, m), b (k, n).
 *
 * On Hopper a product is under way until it is waited for:
 *
 *     shared_written();             each thread that has stored an operand, before the barrier that the readers wait at
 *     __syncthreads();
 *     products_begin();             before the first product behind a change of d, or of `a` in registers
 *     multiply<N, ..>(d, ..); ..    any number
 *     products_commit();
 *     products_wait<0>(d);          until then nothing touches d, nor `a` in registers, nor writes the operands
 *
 * products_wait<1> leaves the youngest commit under way. A product that ends before another begins should be waited for
 * by name (products_wait<1>(first)), so that the compiler knows which registers are settled.
 *
 * PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions". */
#pragma once
#include "kernels/cuda/tensor_core.cuh"

#if defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define HINGE_WGMMA 1
#else
#define HINGE_WGMMA 0
#endif

static constexpr int WARPGROUP = 128, PANEL = 64; /* threads; columns of bf16 in 128 bytes */
enum operand_order { BY_ROWS, BY_COLUMNS };

/* A matrix in shared memory, 64 columns after another. In a panel, the eight 16-byte pieces of a row are permuted:
 * piece p of row r lies at p ^ r % 8, so that eight rows' pieces of one column lie in different banks. This is the
 * layout that descriptors call 128-byte swizzle; the struct keeps the alignment that it needs. */
template <int ROWS, int COLUMNS> struct alignas(1024) panels {
    static_assert(ROWS % 8 == 0 && COLUMNS % PANEL == 0);
    static constexpr int PANEL_BYTES = ROWS * 128;
    uint4 pieces[COLUMNS / PANEL][ROWS][8];

    /* The piece that holds columns column / 8 * 8 .. + 7 of a row. */
    __device__ uint4 *piece(int row, int column) { return &pieces[column / PANEL][row][(column / 8 ^ row) % 8]; }
    __device__ const uint4 *piece(int row, int column) const {
        return &pieces[column / PANEL][row][(column / 8 ^ row) % 8];
    }
    __device__ bf16 *at(int row, int column) { return reinterpret_cast<bf16 *>(piece(row, column)) + column % 8; }
    __device__ const bf16 *at(int row, int column) const {
        return reinterpret_cast<const bf16 *>(piece(row, column)) + column % 8;
    }
    /* Two neighbouring columns, the first even. */
    __device__ uint32_t *pair(int row, int column) { return reinterpret_cast<uint32_t *>(at(row, column)); }
    __device__ const uint32_t *pair(int row, int column) const {
        return reinterpret_cast<const uint32_t *>(at(row, column));
    }
};

/* d's n tiles 2 i and 2 i + 1, rounded: `a` of step i of a product that sums over d's columns. */
template <int TILES> __device__ static inline void pack_left(uint32_t (&a)[4], const float (&d)[TILES][4], int step) {
    a[0] = pack_bf16(d[2 * step][0], d[2 * step][1]), a[1] = pack_bf16(d[2 * step][2], d[2 * step][3]);
    a[2] = pack_bf16(d[2 * step + 1][0], d[2 * step + 1][1]), a[3] = pack_bf16(d[2 * step + 1][2], d[2 * step + 1][3]);
}

#if HINGE_WGMMA /* --- Hopper ---------------------------------------------------------------------------------------- \
                 */

/* x, which a warp's threads agree on, so that ptxas knows it: descriptors are then made in uniform registers, where
 * products want them. Of a shuffle's result it does not know that, and moves both halves of each for every product. */
__device__ static inline int uniform(int x) { return (int)__reduce_max_sync(0xffffffffu, (unsigned)x); }
__device__ static inline void shared_written() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
__device__ static inline void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ static inline void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/* The compiler reads nothing of d from before this. */
template <int TILES> __device__ static inline void settle(float (&d)[TILES][4]) {
#pragma unroll
    for (int i = 0; i < TILES; i++)
        asm volatile("" : "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])::"memory");
}
template <int N, class... Sums> __device__ static inline void products_wait(Sums &...d) {
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(N) : "memory");
    (settle(d), ...);
}

/* PTX ISA, "Matrix Descriptor Format": 16-byte units; between panels of 64 where the columns are m or n; 1024 bytes
 * between groups of eight rows; 128-byte swizzle. Addresses in shared memory are below 2^18, so a descriptor's low half
 * is that of the matrix plus a number that the compiler knows. */
template <operand_order ORDER, int ROWS, int COLUMNS>
__device__ static inline uint64_t describe(const panels<ROWS, COLUMNS> *x, int mn, int k) {
    constexpr int PANEL_BYTES = panels<ROWS, COLUMNS>::PANEL_BYTES, BETWEEN = ORDER == BY_ROWS ? 16 : PANEL_BYTES;
    int at = ORDER == BY_ROWS ? k / PANEL * PANEL_BYTES + mn * 128 + k % PANEL * 2
                              : mn / PANEL * PANEL_BYTES + k * 128 + mn % PANEL * 2;
    uint32_t low = (shared_address(x) >> 4) + (uint32_t)(at >> 4 | BETWEEN >> 4 << 16);
    return (uint64_t)(64 | 1 << 30) << 32 | low;
}

#define D4(i) "+f"(d[i][0]), "+f"(d[i][1]), "+f"(d[i][2]), "+f"(d[i][3])
#define D16(i) D4(i), D4((i) + 1), D4((i) + 2), D4((i) + 3)
#define D32 D16(0), D16(4)
#define D64 D32, D16(8), D16(12)
#define T16 "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define T32 T16 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define T64                                                                                                         \
    T32 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57," \
        "%58,%59,%60,%61,%62,%63"
#define WGMMA(n) "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 "
/* d = a b + (more ? d : 0), a in shared memory; then a in registers. */
#define BOTH_SHARED(n, sums, text, i0, i1, i2, i3, i4)                                                          \
    asm volatile("{ .reg .pred more; setp.ne.b32 more, " i2 ", 0;\n" WGMMA(n) "{" text "}, " i0 ", " i1         \
                                                                              ", more, 1, 1, " i3 ", " i4 "; }" \
                 : sums                                                                                         \
                 : "l"(a), "l"(b), "r"((int)more), "n"(A), "n"(B))
#define LEFT_HELD(n, sums, text, i0, i1, i2, i3, i4, i5, i6)                                                          \
    asm volatile("{ .reg .pred more; setp.ne.b32 more, " i5 ", 0;\n" WGMMA(n) "{" text "}, {" i0 "," i1 "," i2 "," i3 \
                                                                              "}, " i4 ", more, 1, 1, " i6 "; }"      \
                 : sums                                                                                               \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)more), "n"(B))

template <int A, int B> __device__ static inline void wgmma(float (&d)[4][4], uint64_t a, uint64_t b, bool more) {
    BOTH_SHARED(32, D16(0), T16, "%16", "%17", "%18", "%19", "%20");
}
template <int A, int B> __device__ static inline void wgmma(float (&d)[8][4], uint64_t a, uint64_t b, bool more) {
    BOTH_SHARED(64, D32, T32, "%32", "%33", "%34", "%35", "%36");
}
template <int A, int B> __device__ static inline void wgmma(float (&d)[16][4], uint64_t a, uint64_t b, bool more) {
    BOTH_SHARED(128, D64, T64, "%64", "%65", "%66", "%67", "%68");
}
template <int B> __device__ static inline void wgmma(float (&d)[4][4], const uint32_t (&a)[4], uint64_t b, bool more) {
    LEFT_HELD(32, D16(0), T16, "%16", "%17", "%18", "%19", "%20", "%21", "%22");
}
template <int B> __device__ static inline void wgmma(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, bool more) {
    LEFT_HELD(64, D32, T32, "%32", "%33", "%34", "%35", "%36", "%37", "%38");
}
template <int B> __device__ static inline void wgmma(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b, bool more) {
    LEFT_HELD(128, D64, T64, "%64", "%65", "%66", "%67", "%68", "%69", "%70");
}

/* d = a b + (more ? d : 0) for k .. k + 15, of a's rows (or columns) m .. m + 63, m a multiple of 8 (BY_COLUMNS: of
 * 64), and b's n .. n + N - 1, n a multiple of 8. N, from d: 32, 64 or 128. */
template <operand_order A, operand_order B, int TILES, int RA, int CA, int RB, int CB>
__device__ static inline void multiply(float (&d)[TILES][4], const panels<RA, CA> *a, int m, const panels<RB, CB> *b,
                                       int n, int k, bool more = true) {
    wgmma<A == BY_COLUMNS, B == BY_COLUMNS>(d, describe<A>(a, m, k), describe<B>(b, n, k), more);
}
/* The same with `a` in registers: a fragment of each warp's 16 rows. */
template <operand_order B, int TILES, int RB, int CB>
__device__ static inline void multiply(float (&d)[TILES][4], const uint32_t (&a)[4], const panels<RB, CB> *b, int n,
                                       int k, bool more = true) {
    wgmma<B == BY_COLUMNS>(d, a, describe<B>(b, n, k), more);
}

#undef D4
#undef D16
#undef D32
#undef D64
#undef T16
#undef T32
#undef T64
#undef WGMMA
#undef BOTH_SHARED
#undef LEFT_HELD

#else /* --- elsewhere ----------------------------------------------------------------------------------------------- \
       */

__device__ static inline int uniform(int x) { return x; }
__device__ static inline void shared_written() {}
__device__ static inline void products_begin() {}
__device__ static inline void products_commit() {}
template <int N, class... Sums> __device__ static inline void products_wait(Sums &...) {}

template <operand_order B, int TILES, int RB, int CB>
__device__ static inline void multiply(float (&d)[TILES][4], const uint32_t (&a)[4], const panels<RB, CB> *b, int n,
                                       int k, bool more = true) {
    int lane = (int)threadIdx.x % WARP;
#pragma unroll
    for (int i = 0; i < TILES; i += 2) {
        uint32_t pair[4];
        if (B == BY_ROWS)
            ldmatrix_x4(pair, b->piece(n + 8 * i + lane % 8 + lane / 16 * 8, k + lane / 8 % 2 * 8));
        else
            ldmatrix_x4_trans(pair, b->piece(k + lane % 16, n + 8 * i + lane / 16 * 8));
        for (int j = 0; j < 2; j++) {
            const uint32_t right[2] = {pair[2 * j], pair[2 * j + 1]};
            if (!more) d[i + j][0] = d[i + j][1] = d[i + j][2] = d[i + j][3] = 0;
            mma_m16n8k16(d[i + j], a, right);
        }
    }
}
template <operand_order A, operand_order B, int TILES, int RA, int CA, int RB, int CB>
__device__ static inline void multiply(float (&d)[TILES][4], const panels<RA, CA> *a, int m, const panels<RB, CB> *b,
                                       int n, int k, bool more = true) {
    int lane = (int)threadIdx.x % WARP, row = m + (int)threadIdx.x / WARP % 4 * 16;
    uint32_t left[4];
    if (A == BY_ROWS)
        ldmatrix_x4(left, a->piece(row + lane % 16, k + lane / 16 * 8));
    else
        ldmatrix_x4_trans(left, a->piece(k + lane % 8 + lane / 16 * 8, row + lane / 8 % 2 * 8));
    multiply<B>(d, left, b, n, k, more);
}
#endif
