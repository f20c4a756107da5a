/* attention_ring: the tiles that a block goes over, fetched ahead into a ring of stages in shared memory.
 *
 * On Hopper one thread has a whole tile copied, from maps of the tensors (bulk_copy.cuh); the warpgroups take turns. A
 * stage has two barriers: at one its bytes arrive, at the other each thread that is done with them. So warpgroups wait
 * for tiles alone, not for each other: one may be so many tiles ahead of another as there are stages to spare. On other
 * devices, and where heads are not whole pieces of 16 bytes, all threads copy, and a barrier of the block says both. */
#pragma once
#include "kernels/cuda/attention_tile.cuh"
#include "kernels/cuda/tensor_map.cuh"

/* Whether a kernel whose heads are (or are not) VECTORS has its tiles copied in bulk. */
template <bool VECTORS> constexpr bool BULK = HINGE_WGMMA ? VECTORS : false;

template <int STAGES> struct ring_barriers { copy_barrier here[STAGES], spent[STAGES]; };

/* Goes round a ring that GROUPS warpgroups share, tile by tile. */
template <bool IN_BULK, int STAGES, int GROUPS> struct ring_place {
    ring_barriers<STAGES> *barriers;
    int stage = 0, turn = 0; /* turn: of the warpgroup that has the tile copied */
    int warp = uniform((int)threadIdx.x / WARP);
    unsigned parity = 0;

    __device__ void advance() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
        if (++turn == GROUPS) turn = 0;
    }
    /* By all threads, before the first copy. */
    __device__ void begin() const {
#if HINGE_WGMMA
        if constexpr (IN_BULK) {
            if (threadIdx.x == 0) {
                for (int i = 0; i < STAGES; i++) {
                    barrier_begin(&barriers->here[i], 1);
                    barrier_begin(&barriers->spent[i], GROUPS * WARPGROUP);
                }
                barriers_begun();
            }
            __syncthreads();
        }
#endif
    }
    /* By all threads: one of them, once all are done with the stage's last tile, begins copies of so many bytes. */
    template <class Copy> __device__ void fetch(int bytes, Copy copy) const {
#if HINGE_WGMMA
        if (warp != turn * (WARPGROUP / WARP)) return;
        barrier_wait(&barriers->spent[stage], parity ^ 1);
        if (!is_elected()) return;
        barrier_expect(&barriers->here[stage], bytes);
        copy(&barriers->here[stage]);
#endif
    }
    /* Until the tile is here. Without bulk copies also until all are done with the tiles before the thread's last. */
    __device__ void wait() const {
        if constexpr (IN_BULK) {
            barrier_wait(&barriers->here[stage], parity);
        } else {
            copy_wait<0>();
            shared_written();
            __syncthreads();
        }
    }
    /* The thread is done with the tile. */
    __device__ void spend() const {
        if constexpr (IN_BULK) barrier_arrive(&barriers->spent[stage]);
    }
};

/* Begins the copy of a tile of one head's rows from `row` on, and of figures, by one thread. */
#if HINGE_WGMMA
template <int DIM>
__device__ static inline void fetch_tile(other_tile<DIM> *to, const tensor_map *map, int sequence, int head, int row,
                                         copy_barrier *b) {
    for (int panel = 0; panel < DIM / PANEL; panel++)
        copy_box(to->pieces[panel], map, panel * PANEL, head, row, sequence, b);
}
template <int N> __device__ static inline void fetch_figures(float (&to)[N], const float *from, copy_barrier *b) {
    copy_bytes(to, from, (int)sizeof to, b);
}
#else
template <int DIM>
__device__ static inline void fetch_tile(other_tile<DIM> *, const tensor_map *, int, int, int, copy_barrier *) {}
template <int N> __device__ static inline void fetch_figures(float (&)[N], const float *, copy_barrier *) {}
#endif

/* The tiles of keys and values of one head, of which a block wants the first `count`. */
template <int DIM, bool VECTORS, int STAGES, int GROUPS> struct key_stream {
    head_rows<const bf16> k, v;
    const tensor_map *k_map, *v_map;
    other_tile<DIM> *k_tiles, *v_tiles;
    int sequence, head, count;
    ring_place<BULK<VECTORS>, STAGES, GROUPS> at;
    int tile = 0; /* the next */

    /* Begins the copies of the next tile, if there is one. */
    __device__ void load() {
        constexpr int THREADS = GROUPS * WARPGROUP;
        int row = tile * TILE_ROWS<DIM>;
        if (tile < count) {
            if constexpr (BULK<VECTORS>) {
                at.fetch(2 * (int)sizeof(other_tile<DIM>), [&](copy_barrier *here) {
                    fetch_tile<DIM>(&k_tiles[at.stage], k_map, sequence, head, row, here);
                    fetch_tile<DIM>(&v_tiles[at.stage], v_map, sequence, head, row, here);
                });
            } else {
                load_rows<THREADS, VECTORS>(&k_tiles[at.stage], k.from(row), (int)threadIdx.x);
                load_rows<THREADS, VECTORS>(&v_tiles[at.stage], v.from(row), (int)threadIdx.x);
            }
            tile++, at.advance();
        }
        if constexpr (!BULK<VECTORS>) copy_commit();
    }
};

/* Of what both kernels that go over keys have: their arguments and their shared memory. */
template <int DIM, bool VECTORS, int STAGES, int GROUPS, class Arguments, class Tiles>
__device__ static inline key_stream<DIM, VECTORS, STAGES, GROUPS> keys_of(const Arguments &a, Tiles *t, int sequence,
                                                                          int head, int count) {
    return {.k = head_of(a.k, a.keys, sequence, head),
            .v = head_of(a.v, a.keys, sequence, head),
            .k_map = &a.k_map,
            .v_map = &a.v_map,
            .k_tiles = t->k,
            .v_tiles = t->v,
            .sequence = sequence,
            .head = head,
            .count = count,
            .at = {&t->barriers}};
}

/* --- the host's side ---------------------------------------------------------------------------------------------- */

#ifdef HINGE_CUDA_EMULATOR
template <int DIM> static inline tensor_map map_of_heads(const bf16 *, const attention_shape *, size_t) { return {}; }
#else
/* Of a tensor (batch, time, heads, head_dim), for fetch_tile. */
template <int DIM> static inline tensor_map map_of_heads(const bf16 *x, const attention_shape *s, size_t heads) {
    size_t bytes = s->head_dim * sizeof(bf16);
    return boxes<4>{{s->head_dim, heads, s->time, s->batch},
                    {bytes, bytes * heads, bytes * heads * s->time},
                    {PANEL, 1, TILE_ROWS<DIM>, 1}}
        .map(x, "attention");
}
#endif
