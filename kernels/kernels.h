/* kernels: the contract between the model and a backend.
 *
 * A backend is one table of function pointers. Its ops are the rows of ops.def: there, each op is named once, with
 * its signature, mathematics, shapes and accumulation rule, and from there this header makes the table's members and
 * the prototypes of every backend (cpu_rms_norm_forward, ...). A kernel knows pointers and shapes, nothing of the
 * model. All tensors are row-major with the last index fastest, owned by the caller, and must not overlap unless a
 * row of ops.def says so.
 *
 * How work is split. Parallelism lives above the ops: the model cuts a batch into pieces whose number depends on
 * the shapes alone (micro-shards, windows, sequences, tensors) and hands them to for_each. One op call runs on one
 * lane, in one fixed order. That is why results have the same bits for any number of threads. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/real.h"
#include "kernels/status.h"

/* Where an op runs: one CPU thread or one device stream, with scratch that no other lane touches. */
struct lane {
    int index;     /* 0 .. lanes-1 */
    void *scratch; /* 64-byte aligned; at least what the op's ..._scratch function asks for */
    size_t scratch_bytes;
};

/* Every norm but B_norm and C_norm adds float32's machine epsilon to the mean square. */
#define RMS_EPSILON 0x1p-23
#define BC_NORM_EPSILON 1e-5

struct attention_shape {
    size_t batch, time, heads, kv_heads, head_dim; /* kv_heads divides heads (GQA) */
    size_t rope_dims;                              /* even, 0..head_dim; 0 turns RoPE off */
};

struct mamba_shape {
    size_t batch, time, heads, head_dim; /* head_dim is P; D_in = heads*head_dim */
    size_t state, groups;                /* state is N; groups divides heads */
    size_t angles;                       /* A rotated pairs of N, 0..N/2 */
    size_t chunk;                        /* tokens handled by one masked product */
};

/* in_proj's output row: z | x | B | C | dt' | a' | lambda' | theta' */
struct mamba_columns {
    size_t z, x, b, c, dt, a, lambda, theta, width;
};

static inline struct mamba_columns mamba_columns(const struct mamba_shape *s) {
    size_t inner = s->heads * s->head_dim, bc = s->groups * s->state;
    struct mamba_columns k;
    k.z = 0;
    k.x = inner;
    k.b = 2 * inner;
    k.c = k.b + bc;
    k.dt = k.c + bc;
    k.a = k.dt + s->heads;
    k.lambda = k.a + s->heads;
    k.theta = k.lambda + s->heads;
    k.width = k.theta + s->angles;
    return k;
}

static inline size_t mamba_chunks(const struct mamba_shape *s) { return (s->time + s->chunk - 1) / s->chunk; }

/* The small parameters of one Mamba mixer; also the shape of their gradients. */
struct mamba_weights {
    const real *dt_bias;         /* (heads) */
    const real *b_bias, *c_bias; /* (heads, state) */
    const real *b_norm, *c_norm; /* (state), shared by the groups */
    const real *d;               /* (heads) */
};
struct mamba_gradients {
    real *dt_bias, *b_bias, *c_bias, *b_norm, *c_norm, *d; /* all accumulated (+=) */
};

/* What the forward pass of one mixer keeps for the backward pass. R = batch*time rows. A backend whose scan makes each
 * head's B and C where it uses them (`scan_makes_vectors`) has rate and phase instead of b, c, cosine and sine, and its
 * own order for what is (R, heads), (R, groups) or (R, angles) here; the others have no rate and phase. */
struct mamba_tape {
    act *b, *c;          /* (R, heads, state) after norm, bias and rotation */
    act *cosine, *sine;  /* (R, heads, angles) of the phase; may be NULL when angles is 0 */
    real *rate;          /* (R, angles) turns of phase for each unit of delta */
    real *phase;         /* (batch, heads, chunks, angles) in turns, where each chunk starts */
    real *inv_b, *inv_c; /* (R, groups) 1/rms */
    real *delta;         /* (R, heads) softplus(dt' + dt_bias) */
    real *log_decay;     /* (R, heads) a*delta, never above 0 */
    real *gamma;         /* (R, heads) lambda*delta */
    act *states;         /* (batch, heads, chunks, head_dim, state): what is carried into each chunk */
};

/* Gradients of the tape, filled by ssd_backward and read by mamba_prepare_backward; the same two kinds. */
struct mamba_tape_gradients {
    act *b, *c;                      /* (R, heads, state) */
    real *theta;                     /* (groups, R, angles) what each chunk's own phases give to theta' */
    real *phase;                     /* (batch, heads, chunks, angles) the sum over each chunk */
    real *delta, *log_decay, *gamma; /* (R, heads) */
};

/* The recurrent form: everything one sequence needs to go on, O(1) per token. Each is (batch, ...). */
struct mamba_state {
    real *s;        /* (batch, heads, head_dim, state) */
    real *phase;    /* (batch, heads, angles), kept in [-pi, pi] */
    real *b_before; /* (batch, heads, state), rotated */
    real *x_before; /* (batch, heads, head_dim) */
};

/* What attention_prepare keeps: q, k, v as attention uses them. R = batch*time rows. */
struct attention_tape {
    act *q;        /* (R, heads, head_dim) after rms, RoPE and gain */
    act *k, *v;    /* (R, kv_heads, head_dim): k after rms and RoPE, v after silu */
    real *inv_q;   /* (R, heads) 1/rms */
    real *inv_k;   /* (R, kv_heads) */
    real *log_sum; /* (batch, heads, time) log of the softmax's denominator, filled by attention_forward */
};

/* What enters a block: x' = x + skip_scale skip, mixed with x0. Without a skip, skip is NULL and x' is x. */
struct residual_inputs {
    const act *x, *skip, *x0; /* (R,D) */
    const real *skip_scale;   /* (D) */
    const real *mix;          /* (2,D) */
};

/* How the gradients of what enters a block are added up, beyond what residual_mix_norm_backward always adds. */
struct residual_sums {
    bool begins;     /* nothing has come to dx0 yet: = and not += */
    bool ends;       /* x is x0: dx0 += dx, and dx is not needed: some backends leave it half done */
    const act *more; /* NULL, or (R,D): what else there is of x's gradient: dx += more */
};

/* What the optimisers' ops read of a step. It changes from step to step, so it is in the backend's memory, where a
 * device that replays an op finds what is there by then; each number is rounded to the op's own type. */
struct adam_settings {
    double beta1, new1; /* 1 - beta1 */
    double beta2, new2;
    double rate; /* over 1 - beta1^step */
    double root; /* 1 / sqrt(1 - beta2^step) */
    double epsilon;
};
struct muon_settings {
    double momentum;
    double rate, keep; /* 1 - rate decay */
};

/* Of a step counted from 1, on the host: to be uploaded. */
struct adam_settings adam_settings_at(double rate, double beta1, double beta2, double epsilon, int64_t step);
struct muon_settings muon_settings_of(double momentum, double rate, double decay);

/* The bucket of a token and the one before it (0 at the start): the rule of bigram_ids. */
static inline int32_t bigram_bucket(int32_t before, int32_t id, size_t bucket_count) {
    return (int32_t)(((uint64_t)before * 92821 + (uint64_t)id) % bucket_count);
}

typedef void (*piece_function)(void *context, int piece, struct lane *lane);

struct backend {
    const char *name;
    size_t act_bytes;        /* bytes of one act */
    bool device_memory;      /* memory_new's memory is not the host's: only ops, upload and download may touch it */
    bool scan_makes_vectors; /* see struct mamba_tape; ssd_backward then also writes the B and C columns of dproj and
                              * adds to the gradients of the biases and norms */
    size_t chunk_most;       /* longest chunk of the scan; the model cuts longer ones, which changes rounding only */
    size_t batch_most;       /* matrices that one newton_schulz should be given: 1 where for_each runs them at once;
                              * where it is more, one call over all of memory is better than one for each tensor */

    size_t filling_tokens; /* with fewer a device is not full, and micro-shards, or windows to score, are worked on side
                            * by side until it is; 0: as many at once as there are lanes */

    /* Devices of this machine; 1 for a CPU, 0 where none answers. */
    int (*device_count)(void);
    /* Before open: which of them this process uses; the number counts round where there are fewer. */
    void (*choose_device)(int number);
    /* Finds the device and makes it ready; an error says why it cannot be used. Called before anything else. */
    status (*open)(void);
    /* Versions of the libraries that the ops calculate with, beyond the host's; NULL: none. */
    const char *(*libraries)(void);
    /* Zeroed memory for the ops, aligned to 256 bytes; `what` names it in the message when there is not that much. */
    status (*memory_new)(void **out, size_t bytes, const char *what);
    void (*memory_free)(void *memory);
    /* Bytes that memory_new can still give. */
    size_t (*memory_left)(void);
    /* Between the host's memory and the backend's, after all work handed to the lane so far; both return when the
     * copy is done. */
    void (*upload)(struct lane *lane, void *to, const void *from, size_t bytes);
    void (*download)(struct lane *lane, void *to, const void *from, size_t bytes);
    /* Waits for the lane's work; the first error of any op since the last call, with the op's name. */
    status (*finish)(struct lane *lane);
    /* Does `work`, which only calls ops with the same arguments each time that `key` is the same: a device records it
     * the first time and replays it afterwards. 0 is no key: the work is done, and nothing is recorded. */
    void (*replay)(struct lane *lane, uint64_t key, void (*work)(void *), void *context);
    /* Lanes that run at once on this machine; only speed depends on it. */
    int (*lane_count)(void);
    /* From now on lane_count reports at most so many: for several processes that share a machine. */
    void (*limit_lanes)(int lanes);
    /* Runs piece 0..pieces-1, each once, on any of the given lanes; returns when all are done. */
    void (*for_each)(struct lane *lanes, int lane_count, int pieces, piece_function function, void *context);
#define OP(name, arguments, mathematics, shapes, accumulation) void(*name) arguments;
#define SCRATCH(name, arguments, ops) size_t(*name) arguments;
#include "kernels/ops.def"
#undef OP
#undef SCRATCH
};

#define OP(name, arguments, mathematics, shapes, accumulation) void cpu_##name arguments, cuda_##name arguments;
#define SCRATCH(name, arguments, ops) size_t cpu_##name arguments, cuda_##name arguments;
#include "kernels/ops.def"
#undef OP
#undef SCRATCH

/* Element `index` of activations: a host pointer or a device's. */
static inline act *act_at(const struct backend *ops, const act *x, size_t index) {
    return (act *)(void *)((const char *)x + index * ops->act_bytes);
}

/* The backend of that name, or NULL when this program has none; names are "cpu", "cuda" where kernels/cuda is linked
 * in, and "simulated", whose ops are all NULL. */
const struct backend *backend_find(const char *name);

/* A number that this process has not given before: keys for replay are made of it, times 16, so that what a device has
 * recorded for one caller is not taken for another's. */
uint64_t recording_number(void);

/* What a reader of `hinge list` and the tests walk over. */
struct op_row {
    const char *name, *mathematics, *shapes, *accumulation;
};
extern const struct op_row op_rows[];
extern const size_t op_row_count;
