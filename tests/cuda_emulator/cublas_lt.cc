/* cublas_lt: cuBLASLt's products on the host: float sums over k in ascending order. */
#include <string.h>

#include "tests/cuda_emulator/machine.h"

struct emulator_blas {
    int unused;
};
struct emulator_product {
    cublasOperation_t a, b;
    cublasLtEpilogue_t epilogue;
};
struct emulator_layout {
    cudaDataType_t type;
    uint64_t rows, columns;
    int64_t leading;
    cublasLtOrder_t order;
    int32_t batch;
    int64_t stride;
};
struct emulator_preference {
    uint64_t workspace;
};

/* What callers keep until the process ends is no leak. */
extern "C" __attribute__((weak)) void __lsan_ignore_object(const void *);
template <typename T> static T *lasting(T *x) {
    if (__lsan_ignore_object) __lsan_ignore_object(x);
    return x;
}

template <typename T> static cublasStatus_t set(T *to, const void *value, size_t bytes) {
    if (bytes != sizeof *to) return CUBLAS_STATUS_INVALID_VALUE;
    memcpy(to, value, bytes);
    return CUBLAS_STATUS_SUCCESS;
}

template <typename T> static cublasStatus_t destroy(T *x) {
    delete x;
    return CUBLAS_STATUS_SUCCESS;
}

/* Below every real one. */
size_t cublasLtGetVersion() { return 1; }

cublasStatus_t cublasLtCreate(cublasLtHandle_t *handle) {
    *handle = new emulator_blas();
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtDestroy(cublasLtHandle_t handle) { return destroy(handle); }

cublasStatus_t cublasLtMatmulDescCreate(cublasLtMatmulDesc_t *product, cublasComputeType_t, cudaDataType_t scale) {
    if (scale != CUDA_R_32F) return CUBLAS_STATUS_NOT_SUPPORTED;
    *product = lasting(new emulator_product{CUBLAS_OP_N, CUBLAS_OP_N, CUBLASLT_EPILOGUE_DEFAULT});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulDescDestroy(cublasLtMatmulDesc_t product) { return destroy(product); }

cublasStatus_t cublasLtMatmulDescSetAttribute(cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute,
                                              const void *value, size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATMUL_DESC_TRANSA:
        return set(&product->a, value, bytes);
    case CUBLASLT_MATMUL_DESC_TRANSB:
        return set(&product->b, value, bytes);
    case CUBLASLT_MATMUL_DESC_EPILOGUE:
        return set(&product->epilogue, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatrixLayoutCreate(cublasLtMatrixLayout_t *layout, cudaDataType_t type, uint64_t rows,
                                          uint64_t columns, int64_t leading) {
    *layout = lasting(new emulator_layout{type, rows, columns, leading, CUBLASLT_ORDER_COL, 1, 0});
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatrixLayoutDestroy(cublasLtMatrixLayout_t layout) { return destroy(layout); }

cublasStatus_t cublasLtMatrixLayoutSetAttribute(cublasLtMatrixLayout_t layout,
                                                cublasLtMatrixLayoutAttribute_t attribute, const void *value,
                                                size_t bytes) {
    switch (attribute) {
    case CUBLASLT_MATRIX_LAYOUT_ORDER:
        return set(&layout->order, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT:
        return set(&layout->batch, value, bytes);
    case CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET:
        return set(&layout->stride, value, bytes);
    }
    return CUBLAS_STATUS_INVALID_VALUE;
}

cublasStatus_t cublasLtMatmulPreferenceCreate(cublasLtMatmulPreference_t *preference) {
    *preference = new emulator_preference{0};
    return CUBLAS_STATUS_SUCCESS;
}
cublasStatus_t cublasLtMatmulPreferenceDestroy(cublasLtMatmulPreference_t preference) { return destroy(preference); }

cublasStatus_t cublasLtMatmulPreferenceSetAttribute(cublasLtMatmulPreference_t preference,
                                                    cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
                                                    size_t bytes) {
    uint32_t unused; /* a product here sums in one order, whatever the alignment */
    if (attribute == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES) return set(&preference->workspace, value, bytes);
    return set(&unused, value, bytes);
}

/* --- products ----------------------------------------------------------------------------------------------------- */

struct product_shape {
    size_t m, n, k;
};

static uint64_t rows_of(const emulator_layout *x, cublasOperation_t op) {
    return op == CUBLAS_OP_N ? x->rows : x->columns;
}
static uint64_t columns_of(const emulator_layout *x, cublasOperation_t op) {
    return op == CUBLAS_OP_N ? x->columns : x->rows;
}

static bool sound(const emulator_layout *x) {
    uint64_t line = x->order == CUBLASLT_ORDER_COL ? x->rows : x->columns;
    return x->rows > 0 && x->columns > 0 && x->leading >= (int64_t)line && x->batch > 0 &&
           (x->type == CUDA_R_32F || x->type == CUDA_R_16BF);
}

/* The shape of op(a) op(b) = d, if the layouts have one and it is supported. */
static cublasStatus_t shape_of(const emulator_product *p, const emulator_layout *a, const emulator_layout *b,
                               const emulator_layout *c, const emulator_layout *d, product_shape *shape) {
    *shape = {d->rows, d->columns, columns_of(a, p->a)};
    if (!sound(a) || !sound(b) || !sound(c) || !sound(d)) return CUBLAS_STATUS_INVALID_VALUE;
    if (rows_of(a, p->a) != shape->m || rows_of(b, p->b) != shape->k || columns_of(b, p->b) != shape->n ||
        c->rows != shape->m || c->columns != shape->n)
        return CUBLAS_STATUS_INVALID_VALUE;
    if (a->batch != d->batch || b->batch != d->batch || c->batch != d->batch) return CUBLAS_STATUS_INVALID_VALUE;
    bool supported = a->type == b->type && c->type == d->type && p->epilogue == CUBLASLT_EPILOGUE_DEFAULT &&
                     !(a->type == CUDA_R_32F && d->type == CUDA_R_16BF);
    return supported ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

/* It has one algorithm, without tiles. */
cublasStatus_t cublasLtMatmulAlgoConfigGetAttribute(const cublasLtMatmulAlgo_t *, cublasLtMatmulAlgoConfigAttributes_t,
                                                    void *, size_t, size_t *) {
    return CUBLAS_STATUS_NOT_SUPPORTED;
}

cublasStatus_t cublasLtMatmulAlgoGetHeuristic(cublasLtHandle_t, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a,
                                              cublasLtMatrixLayout_t b, cublasLtMatrixLayout_t c,
                                              cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t, int wanted,
                                              cublasLtMatmulHeuristicResult_t *results, int *found) {
    product_shape shape;
    *found = 0;
    cublasStatus_t s = shape_of(product, a, b, c, d, &shape);
    if (s != CUBLAS_STATUS_SUCCESS || wanted < 1) return s;
    results[0] = {{{shape.m, shape.n, shape.k}}, 0, CUBLAS_STATUS_SUCCESS, 1};
    *found = 1;
    return s;
}

static size_t element_bytes(const emulator_layout *x) { return x->type == CUDA_R_32F ? 4 : 2; }

static size_t place(const emulator_layout *x, int batch, size_t row, size_t column) {
    size_t line = (size_t)x->leading;
    return (size_t)batch * (size_t)x->stride +
           (x->order == CUBLASLT_ORDER_COL ? column * line + row : row * line + column);
}

static float load(const void *x, cudaDataType_t type, size_t at) {
    return type == CUDA_R_32F ? static_cast<const float *>(x)[at]
                              : emulator_float_of_bf16(static_cast<const uint16_t *>(x)[at]);
}

static void store(void *x, cudaDataType_t type, size_t at, float value) {
    if (type == CUDA_R_32F)
        static_cast<float *>(x)[at] = value;
    else
        static_cast<uint16_t *>(x)[at] = emulator_bf16_of_float(value);
}

static void check_range(const char *name, const void *x, const emulator_layout *layout) {
    size_t last = place(layout, layout->batch - 1, layout->rows - 1, layout->columns - 1);
    size_t bytes = (last + 1) * element_bytes(layout);
    memory_check_range(name, x, bytes);
}

struct product_call {
    emulator_product product;
    emulator_layout a, b, c, d;
    product_shape shape;
    float alpha, beta;
    const void *pa, *pb, *pc;
    void *pd;
};

/* op(x) of one product as rows of floats. */
static std::vector<float> rows_as_float(const void *x, const emulator_layout *layout, cublasOperation_t op, int batch,
                                        size_t rows, size_t columns) {
    std::vector<float> out(rows * columns);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) {
            size_t at = op == CUBLAS_OP_N ? place(layout, batch, i, j) : place(layout, batch, j, i);
            out[i * columns + j] = load(x, layout->type, at);
        }
    return out;
}

static void multiply(const product_call &x, int batch) {
    const product_shape &s = x.shape;
    std::vector<float> a = rows_as_float(x.pa, &x.a, x.product.a, batch, s.m, s.k), row(s.n);
    std::vector<float> b = rows_as_float(x.pb, &x.b, x.product.b, batch, s.k, s.n);
    for (size_t i = 0; i < s.m; i++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (size_t k = 0; k < s.k; k++)
            for (size_t j = 0; j < s.n; j++) row[j] += a[i * s.k + k] * b[k * s.n + j];
        for (size_t j = 0; j < s.n; j++) {
            float value = x.alpha * row[j];
            if (x.beta != 0) value += x.beta * load(x.pc, x.c.type, place(&x.c, batch, i, j));
            store(x.pd, x.d.type, place(&x.d, batch, i, j), value);
        }
    }
}

/* Every element is read, or written, once. */
static void touch_matrix(const void *x, const emulator_layout *layout, bool writes) {
    bool by_column = layout->order == CUBLASLT_ORDER_COL;
    size_t lines = by_column ? layout->columns : layout->rows, line = by_column ? layout->rows : layout->columns;
    for (int batch = 0; batch < layout->batch; batch++)
        for (size_t i = 0; i < lines; i++) {
            size_t first = by_column ? place(layout, batch, 0, i) : place(layout, batch, i, 0);
            memory_host_touches(static_cast<const char *>(x) + first * element_bytes(layout),
                                line * element_bytes(layout), writes);
        }
}

static void touch(const product_call &x) {
    if (!access_checked()) return;
    touch_matrix(x.pa, &x.a, false);
    touch_matrix(x.pb, &x.b, false);
    if (x.beta != 0) touch_matrix(x.pc, &x.c, false);
    touch_matrix(x.pd, &x.d, true);
}

cublasStatus_t cublasLtMatmul(cublasLtHandle_t, cublasLtMatmulDesc_t product, const void *alpha, const void *a,
                              cublasLtMatrixLayout_t layout_a, const void *b, cublasLtMatrixLayout_t layout_b,
                              const void *beta, const void *c, cublasLtMatrixLayout_t layout_c, void *d,
                              cublasLtMatrixLayout_t layout_d, const cublasLtMatmulAlgo_t *algorithm, void *, size_t,
                              cudaStream_t) {
    product_call call = {*product,
                         *layout_a,
                         *layout_b,
                         *layout_c,
                         *layout_d,
                         {},
                         *static_cast<const float *>(alpha),
                         *static_cast<const float *>(beta),
                         a,
                         b,
                         c,
                         d};
    cublasStatus_t s = shape_of(product, layout_a, layout_b, layout_c, layout_d, &call.shape);
    if (s != CUBLAS_STATUS_SUCCESS) return s;
    const uint64_t made_for[] = {call.shape.m, call.shape.n, call.shape.k};
    if (algorithm && memcmp(algorithm->data, made_for, sizeof made_for) != 0) return CUBLAS_STATUS_INVALID_VALUE;
    check_range("cublasLtMatmul, matrix a", a, layout_a);
    check_range("cublasLtMatmul, matrix b", b, layout_b);
    if (call.beta != 0) check_range("cublasLtMatmul, matrix c", c, layout_c);
    check_range("cublasLtMatmul, matrix d", d, layout_d);
    auto work = [call] {
        touch(call);
        for (int batch = 0; batch < call.d.batch; batch++) multiply(call, batch);
    };
    if (!capture_record(work)) work();
    return CUBLAS_STATUS_SUCCESS;
}
