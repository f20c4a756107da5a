/* libraries: cuBLASLt's, NCCL's and the driver's functions, from libraries that are loaded when the first of them is
 * called.
 *
 * Both are hundreds of megabytes: linked in the usual way they would add a tenth of a second and 200 MB to every start
 * of the program, whether it uses a device or not. Where a library cannot be loaded, its functions fail and its version
 * is 0. */
#include <cublasLt.h>
#include <cuda.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#if __has_include(<nccl.h>)
#include <nccl.h>
#endif

#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)

struct library {
    const char *file;
    void *handle;
    bool tried;
    char missing[256]; /* what there is not, and why */
};

static void *found(struct library *library, void *what) {
    const char *error = what ? NULL : dlerror();
    if (error) snprintf(library->missing, sizeof library->missing, "%s", error);
    return what;
}

static void *function_of(struct library *library, const char *name) {
    if (!library->tried) library->handle = found(library, dlopen(library->file, RTLD_LAZY | RTLD_LOCAL));
    library->tried = true;
    return library->handle ? found(library, dlsym(library->handle, name)) : NULL;
}

#define FORWARD(library, missing, result, name, parameters, arguments)              \
    result name parameters {                                                        \
        static __typeof__(name) *function;                                          \
        if (!function) function = (__typeof__(name) *)function_of(&library, #name); \
        return function ? function arguments : missing;                             \
    }

/* --- cuBLASLt ----------------------------------------------------------------------------------------------------- */

static struct library blas = {.file = "libcublasLt.so." TEXT(CUBLAS_VER_MAJOR)};

#define BLAS(name, parameters, arguments) \
    FORWARD(blas, CUBLAS_STATUS_NOT_INITIALIZED, cublasStatus_t, name, parameters, arguments)

FORWARD(blas, 0, size_t, cublasLtGetVersion, (void), ())
BLAS(cublasLtCreate, (cublasLtHandle_t * handle), (handle))
BLAS(cublasLtMatmulDescCreate, (cublasLtMatmulDesc_t * product, cublasComputeType_t compute, cudaDataType_t scale),
     (product, compute, scale))
BLAS(cublasLtMatmulDescSetAttribute,
     (cublasLtMatmulDesc_t product, cublasLtMatmulDescAttributes_t attribute, const void *value, size_t bytes),
     (product, attribute, value, bytes))
BLAS(cublasLtMatrixLayoutCreate,
     (cublasLtMatrixLayout_t * layout, cudaDataType type, uint64_t rows, uint64_t columns, int64_t leading),
     (layout, type, rows, columns, leading))
BLAS(cublasLtMatrixLayoutSetAttribute,
     (cublasLtMatrixLayout_t layout, cublasLtMatrixLayoutAttribute_t attribute, const void *value, size_t bytes),
     (layout, attribute, value, bytes))
BLAS(cublasLtMatmulPreferenceCreate, (cublasLtMatmulPreference_t * preference), (preference))
BLAS(cublasLtMatmulPreferenceDestroy, (cublasLtMatmulPreference_t preference), (preference))
BLAS(cublasLtMatmulPreferenceSetAttribute,
     (cublasLtMatmulPreference_t preference, cublasLtMatmulPreferenceAttributes_t attribute, const void *value,
      size_t bytes),
     (preference, attribute, value, bytes))
BLAS(cublasLtMatmulAlgoGetHeuristic,
     (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
      cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t preference, int wanted,
      cublasLtMatmulHeuristicResult_t *results, int *found),
     (handle, product, a, b, c, d, preference, wanted, results, found))
BLAS(cublasLtMatmulAlgoConfigGetAttribute,
     (const cublasLtMatmulAlgo_t *algorithm, cublasLtMatmulAlgoConfigAttributes_t attribute, void *value, size_t bytes,
      size_t *written),
     (algorithm, attribute, value, bytes, written))
BLAS(cublasLtMatmul,
     (cublasLtHandle_t handle, cublasLtMatmulDesc_t product, const void *alpha, const void *a,
      cublasLtMatrixLayout_t layout_a, const void *b, cublasLtMatrixLayout_t layout_b, const void *beta, const void *c,
      cublasLtMatrixLayout_t layout_c, void *d, cublasLtMatrixLayout_t layout_d, const cublasLtMatmulAlgo_t *algorithm,
      void *workspace, size_t workspace_bytes, cudaStream_t stream),
     (handle, product, alpha, a, layout_a, b, layout_b, beta, c, layout_c, d, layout_d, algorithm, workspace,
      workspace_bytes, stream))

/* --- the driver: of it only what the runtime has no function for ------------------------------------------------- */

static struct library driver = {.file = "libcuda.so.1"};

FORWARD(driver, CUDA_ERROR_NOT_INITIALIZED, CUresult, cuTensorMapEncodeTiled,
        (CUtensorMap * map, CUtensorMapDataType type, cuuint32_t rank, void *address, const cuuint64_t *sizes,
         const cuuint64_t *strides, const cuuint32_t *box, const cuuint32_t *steps, CUtensorMapInterleave interleave,
         CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill),
        (map, type, rank, address, sizes, strides, box, steps, interleave, swizzle, promotion, fill))

/* --- NCCL --------------------------------------------------------------------------------------------------------- */

#ifdef NCCL_MAJOR
#define NCCL_FILE "libnccl.so." TEXT(NCCL_MAJOR)
static struct library nccl = {.file = NCCL_FILE};

/* For C the header declares them without their parameters. */
ncclResult_t ncclGroupStart(void), ncclGroupEnd(void);

#define NCCL(name, parameters, arguments) FORWARD(nccl, ncclSystemError, ncclResult_t, name, parameters, arguments)

FORWARD(nccl, nccl.missing, const char *, ncclGetErrorString, (ncclResult_t result), (result))
NCCL(ncclGetVersion, (int *version), (version))
NCCL(ncclGetUniqueId, (ncclUniqueId * id), (id))
NCCL(ncclCommInitRank, (ncclComm_t * comm, int ranks, ncclUniqueId id, int rank), (comm, ranks, id, rank))
NCCL(ncclCommDestroy, (ncclComm_t comm), (comm))
NCCL(ncclGroupStart, (void), ())
NCCL(ncclGroupEnd, (void), ())
NCCL(ncclSend, (const void *from, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream),
     (from, count, type, peer, comm, stream))
NCCL(ncclRecv, (void *to, size_t count, ncclDataType_t type, int peer, ncclComm_t comm, cudaStream_t stream),
     (to, count, type, peer, comm, stream))
NCCL(ncclBroadcast,
     (const void *from, void *to, size_t count, ncclDataType_t type, int root, ncclComm_t comm, cudaStream_t stream),
     (from, to, count, type, root, comm, stream))
#endif
