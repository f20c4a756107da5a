/* product: see product.cuh. */
#include "kernels/cuda/product.cuh"

#include <cublasLt.h>
#include <stdio.h>

#include <vector>

extern "C" {
#include "kernels/cuda/backend.h"
}

/* What an algorithm may depend on. */
struct product_key {
    bool transpose_a, transpose_b, d_is_float, accumulates;
    size_t m, n, k, lda, ldb, ldd, batch, stride_a, stride_b, stride_d;
    uint32_t alignment_a, alignment_b, alignment_c, alignment_d;
    bool operator==(const product_key &) const = default;
};

/* One prepared product; made once for each key and kept until the process ends. */
struct product_plan {
    product_key key;
    cublasLtMatmulDesc_t operation;
    cublasLtMatrixLayout_t a, b, d;
    cublasLtMatmulAlgo_t algorithm;
};

static cublasLtHandle_t handle;
static std::vector<product_plan> plans;

/* See backend.h; another version may choose other algorithms. */
extern "C" const char *cuda_libraries(void) {
    static char text[64];
    int runtime = 0;
    size_t blas = cublasLtGetVersion();
    cudaRuntimeGetVersion(&runtime);
    snprintf(text, sizeof text, "cuBLASLt %zu.%zu.%zu, CUDA %d.%d", blas / 10000, blas / 100 % 100, blas % 100,
             runtime / 1000, runtime % 1000 / 10);
    return text;
}

static uint32_t alignment_of(const void *pointer) {
    uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
    uint32_t alignment = 256;
    while (address % alignment) alignment /= 2;
    return alignment;
}

static product_key key_of(const struct product *p) {
    return product_key{p->transpose_a,
                       p->transpose_b,
                       p->d_is_float,
                       p->beta != 0,
                       p->m,
                       p->n,
                       p->k,
                       p->lda,
                       p->ldb,
                       p->ldd,
                       p->batch,
                       p->stride_a,
                       p->stride_b,
                       p->stride_d,
                       alignment_of(p->a),
                       alignment_of(p->b),
                       alignment_of(p->beta != 0 ? p->c : p->d),
                       alignment_of(p->d)};
}

static cublasStatus_t new_layout(cublasLtMatrixLayout_t *layout, cudaDataType_t type, size_t rows, size_t cols,
                                 size_t leading, size_t batch, size_t stride) {
    cublasStatus_t s = cublasLtMatrixLayoutCreate(layout, type, rows, cols, (int64_t)leading);
    if (s != CUBLAS_STATUS_SUCCESS || batch == 1) return s;
    int32_t count = (int32_t)batch;
    int64_t offset = (int64_t)stride;
    s = cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT, &count, sizeof count);
    if (s != CUBLAS_STATUS_SUCCESS) return s;
    return cublasLtMatrixLayoutSetAttribute(*layout, CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET, &offset,
                                            sizeof offset);
}

static cublasStatus_t new_operation(product_plan *plan) {
    cublasStatus_t s = cublasLtMatmulDescCreate(&plan->operation, CUBLAS_COMPUTE_32F, CUDA_R_32F);
    cublasOperation_t a = plan->key.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    cublasOperation_t b = plan->key.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSA, &a, sizeof a);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulDescSetAttribute(plan->operation, CUBLASLT_MATMUL_DESC_TRANSB, &b, sizeof b);
    return s;
}

static cublasStatus_t new_layouts(product_plan *plan) {
    const product_key &k = plan->key;
    cudaDataType_t out = k.d_is_float ? CUDA_R_32F : CUDA_R_16BF;
    cublasStatus_t s = new_layout(&plan->a, CUDA_R_16BF, k.transpose_a ? k.k : k.m, k.transpose_a ? k.m : k.k, k.lda,
                                  k.batch, k.stride_a);
    if (s == CUBLAS_STATUS_SUCCESS)
        s = new_layout(&plan->b, CUDA_R_16BF, k.transpose_b ? k.n : k.k, k.transpose_b ? k.k : k.n, k.ldb, k.batch,
                       k.stride_b);
    if (s == CUBLAS_STATUS_SUCCESS) s = new_layout(&plan->d, out, k.m, k.n, k.ldd, k.batch, k.stride_d);
    return s;
}

enum { CHOICES = 8, MANY_ROWS = 1 << 13, MORE_ROWS = 1 << 14, LEAST_COLUMNS = 256, FAVOURITES = 2 };

/* The tiles to look for among the library's choices, best first: those that were measured on an H200, at the clocks
 * which its power limit leaves, to take 3 to 13 % less time than the first choice in the forward products and the
 * gradients of inputs of all layers of the published preset (README.md). */
static const int *favourites_of(const product_key &k) {
    static const int none[FAVOURITES] = {}, many[FAVOURITES] = {CUBLASLT_MATMUL_TILE_128x128},
                     more[FAVOURITES] = {CUBLASLT_MATMUL_TILE_128x160, CUBLASLT_MATMUL_TILE_128x128};
    if (!is_hopper() || k.transpose_b || k.batch > 1 || k.m < LEAST_COLUMNS) return none;
    return k.n >= MORE_ROWS ? more : k.n >= MANY_ROWS ? many : none;
}

static int tile_of(const cublasLtMatmulAlgo_t &algorithm) {
    int tile = 0;
    size_t written;
    cublasLtMatmulAlgoConfigGetAttribute(&algorithm, CUBLASLT_ALGO_CONFIG_TILE_ID, &tile, sizeof tile, &written);
    return tile;
}

/* Of the library's choices, best first, the one to take. Never by a time: the same shapes have the same bits. */
static const cublasLtMatmulAlgo_t &choice_of(const product_key &k, const cublasLtMatmulHeuristicResult_t *choices,
                                             int count) {
    const int *favourites = favourites_of(k);
    for (int f = 0; f < FAVOURITES && favourites[f]; f++)
        for (int i = 0; i < count; i++)
            if (tile_of(choices[i].algo) == favourites[f]) return choices[i].algo;
    return choices[0].algo;
}

static cublasStatus_t choose_algorithm(product_plan *plan) {
    struct {
        cublasLtMatmulPreferenceAttributes_t attribute;
        uint32_t bytes;
    } const alignments[] = {{CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, plan->key.alignment_a},
                            {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, plan->key.alignment_b},
                            {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, plan->key.alignment_c},
                            {CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, plan->key.alignment_d}};
    cublasLtMatmulPreference_t preference;
    cublasStatus_t s = cublasLtMatmulPreferenceCreate(&preference);
    if (s != CUBLAS_STATUS_SUCCESS) return s;
    size_t workspace = PRODUCT_WORKSPACE;
    s = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                             sizeof workspace);
    /* Parts of a split sum are added as floats: as bf16 they would be rounded one by one. */
    uint32_t reductions = CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE;
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, &reductions,
                                                 sizeof reductions);
    for (const auto &row : alignments)
        if (s == CUBLAS_STATUS_SUCCESS)
            s = cublasLtMatmulPreferenceSetAttribute(preference, row.attribute, &row.bytes, sizeof row.bytes);
    cublasLtMatmulHeuristicResult_t choices[CHOICES] = {};
    int found = 0;
    if (s == CUBLAS_STATUS_SUCCESS)
        s = cublasLtMatmulAlgoGetHeuristic(handle, plan->operation, plan->a, plan->b, plan->d, plan->d, preference,
                                           CHOICES, choices, &found);
    cublasLtMatmulPreferenceDestroy(preference);
    if (s == CUBLAS_STATUS_SUCCESS && found == 0) return CUBLAS_STATUS_NOT_SUPPORTED;
    if (s == CUBLAS_STATUS_SUCCESS) plan->algorithm = choice_of(plan->key, choices, found);
    return s;
}

static cublasStatus_t new_plan(product_plan *plan, const product_key &key) {
    cublasStatus_t s = handle ? CUBLAS_STATUS_SUCCESS : cublasLtCreate(&handle);
    plan->key = key;
    if (s == CUBLAS_STATUS_SUCCESS) s = new_operation(plan);
    if (s == CUBLAS_STATUS_SUCCESS) s = new_layouts(plan);
    if (s == CUBLAS_STATUS_SUCCESS) s = choose_algorithm(plan);
    return s;
}

static void note_failure(const struct product *p, cublasStatus_t s) {
    char text[160];
    snprintf(text, sizeof text, "cuBLASLt refuses a product of %zu x %zu x %zu, %zu at once (status %d)", p->m, p->n,
             p->k, p->batch, (int)s);
    device_note_text(p->name, text);
}

static const product_plan *plan_of(const struct product *p) {
    product_key key = key_of(p);
    for (const product_plan &plan : plans)
        if (plan.key == key) return &plan;
    product_plan plan = {};
    cublasStatus_t s = new_plan(&plan, key);
    if (s != CUBLAS_STATUS_SUCCESS) {
        note_failure(p, s);
        return NULL;
    }
    plans.push_back(plan);
    return &plans.back();
}

void product_run(const struct product *p) {
    if (p->m == 0 || p->n == 0 || p->batch == 0) return;
    const product_plan *plan = plan_of(p);
    if (!plan) return;
    cublasStatus_t s = cublasLtMatmul(handle, plan->operation, &p->alpha, p->a, plan->a, p->b, plan->b, &p->beta,
                                      p->beta != 0 ? p->c : p->d, plan->d, p->d, plan->d, &plan->algorithm,
                                      p->workspace, PRODUCT_WORKSPACE, device_stream());
    if (s != CUBLAS_STATUS_SUCCESS) note_failure(p, s);
}

/* 6 bytes an element: a weight of 2240 x 512 takes 1.6 us at 4.3 TB/s. */
__global__ void round_kernel(bf16 *to, const float *from, size_t count) {
    size_t i = ((size_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
    if (i + 4 <= count) {
        float4 x = *reinterpret_cast<const float4 *>(from + i);
        *reinterpret_cast<uint2 *>(to + i) = make_uint2(pack_bf16(x.x, x.y), pack_bf16(x.z, x.w));
    } else {
        for (; i < count; i++) to[i] = to_bf16(from[i]);
    }
}

/* Where a tensor does not start on 16 bytes. */
__global__ void round_unaligned_kernel(bf16 *to, const float *from, size_t count) {
    size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) to[i] = to_bf16(from[i]);
}

void round_to_bf16(bf16 *to, const float *from, size_t count) {
    enum { THREADS = 256 };
    if (alignment_of(from) >= 16 && alignment_of(to) >= 8)
        LAUNCH(round_kernel, (unsigned)ceil_div(count, 4 * THREADS), THREADS, 0, to, from, count);
    else
        LAUNCH(round_unaligned_kernel, (unsigned)ceil_div(count, THREADS), THREADS, 0, to, from, count);
}
