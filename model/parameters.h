/* parameters: every tensor of the model as a row: name, shape, initial value, optimiser, quantisation class.
 *
 * All tensors of one kind of storage (weights, gradients, moments, averages) share one layout: offset[i] into a
 * buffer of `total` reals. There, those that are updated alike stand next to each other, so that one pass over memory
 * updates them all; hashes, names and initial values follow the table's own order. The names are those of the golden
 * files and of exported weights. */
#pragma once
#include "kernels/kernels.h"
#include "model/options.h"

enum optimizer_kind { OPTIMIZER_MUON, OPTIMIZER_ADAM_EMBEDDING, OPTIMIZER_ADAM };
enum tensor_class {
    CLASS_EMBEDDING,
    CLASS_BIGRAM,
    CLASS_MAMBA,
    CLASS_ATTENTION,
    CLASS_MLP,
    CLASS_CONTROL,
    CLASS_COUNT
};
const char *tensor_class_name(enum tensor_class class);

enum tensor_init {
    INIT_ONE,
    INIT_ZERO,
    INIT_CONSTANT,   /* init_value everywhere */
    INIT_NORMAL,     /* N(0, init_value^2) */
    INIT_ORTHOGONAL, /* gain 1: QR of a normal matrix, signs of R's diagonal made positive */
    INIT_RESID_MIX,  /* row 0 ones, row 1 zeros */
    INIT_DT_BIAS,    /* softplus^-1 of a log-uniform step in [0.001, 0.1] */
};

/* What a tensor is, wherever it stands; with the layer it names a tensor without its text. */
enum tensor_role {
    ROLE_EMBEDDING,
    ROLE_SKIP_WEIGHTS,
    ROLE_SMEAR_GATE,
    ROLE_BIGRAM_TABLE,
    ROLE_BIGRAM_PROJ,
    ROLE_RESID_MIX,
    ROLE_MIXER_SCALE,
    ROLE_MLP_SCALE,
    ROLE_MLP_FC,
    ROLE_MLP_PROJ,
    ROLE_MLP_REPEAT_FC,
    ROLE_MLP_REPEAT_PROJ,
    ROLE_MAMBA_IN_PROJ,
    ROLE_MAMBA_OUT_PROJ,
    ROLE_MAMBA_DT_BIAS,
    ROLE_MAMBA_B_BIAS,
    ROLE_MAMBA_C_BIAS,
    ROLE_MAMBA_D,
    ROLE_MAMBA_B_NORM,
    ROLE_MAMBA_C_NORM,
    ROLE_ATTN_Q,
    ROLE_ATTN_K,
    ROLE_ATTN_V,
    ROLE_ATTN_PROJ,
    ROLE_ATTN_Q_GAIN,
    ROLE_COUNT
};

struct tensor {
    char name[64]; /* "blocks.3.mamba.in_proj" */
    enum tensor_role role;
    int layer;       /* physical; -1 for tensors of the whole model */
    int dims;        /* 1 or 2 */
    size_t shape[2]; /* (rows, cols); 1-D tensors have cols = 1 */
    size_t count, offset;
    enum tensor_init init;
    double init_value;
    enum optimizer_kind optimizer;
    enum tensor_class class;
    bool linear; /* a linear layer's weight: ternary, QAT and quantisation apply to it; not the tied head */
};

struct parameters {
    int count;
    struct tensor *tensors; /* in the order of tensors.def, layer by layer */
    size_t total;           /* reals in a buffer, gaps for alignment included (gaps stay zero) */
    size_t elements;        /* parameters counted */
    int *by_offset;         /* (count) the tensors as they stand in memory */
    int *by_role;           /* [ (layer+1)*ROLE_COUNT + role ] -> index, -1 when absent */
};

/* Room for a tensor in float32 ends on a multiple of 64 bytes. */
static inline size_t aligned_reals(size_t count) { return (count + 15) / 16 * 16; }

/* Whether the same steps at the same rate update both; Muon's also depend on the shape. */
bool updated_alike(const struct tensor *a, const struct tensor *b);

status parameters_create(struct parameters *p, const struct config *config);
void parameters_destroy(struct parameters *p);
int parameters_find(const struct parameters *p, const char *name); /* -1 when absent */
const struct tensor *parameters_get(const struct parameters *p, int layer,
                                    enum tensor_role role); /* NULL when absent */

/* Initial values drawn from the seed; one stream per tensor name. weights hold zeros before (gaps stay zero). */
status parameters_initialise(const struct parameters *p, real *weights, uint64_t seed);

/* SHA-256 over name, shape and little-endian float32 values of every tensor, in order; 64 hex digits and NUL. */
void parameters_sha256(const struct parameters *p, const real *weights, char hex[65]);
