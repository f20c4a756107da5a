/* real: the type that the mathematics runs in. float in the product; the whole tree also builds with double
 * (make REAL=double), so that the same code can be held against float64 tensors and finite differences. */
#pragma once

#ifdef HINGE_DOUBLE
typedef double real;
#define REAL_NAME "float64"
#else
typedef float real;
#define REAL_NAME "float32"
#endif

/* An activation or its gradient: a real on the CPU; on a device its own type (bf16), which only kernels look into. The
 * model counts them in elements: act_at of kernels.h, and the backend's act_bytes. */
typedef real act;
