/* tensor_map: the maps and barriers of bulk copies for kernels that also run where there are no bulk copies. */
#pragma once

#ifdef HINGE_CUDA_EMULATOR
#define __grid_constant__
struct tensor_map {};
struct copy_barrier {};
#else
#include "kernels/cuda/bulk_copy.cuh"
using tensor_map = CUtensorMap;
#endif
