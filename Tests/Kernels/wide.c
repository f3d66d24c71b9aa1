// The 512-bit body for machines without AVX-512: the same logic with each vector in pieces of what the machine has.
#include <math.h>
#include <string.h>

#include "steppe_kernels.h"

extern const steppe_kernel_table steppe_table_wide512_f32, steppe_table_wide512_f64;

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#endif
#define STEPPE_SET wide512
#define STEPPE_VECTOR_BYTES 64

#define STEPPE_DOUBLE 0
#include "../../Sources/CSteppeKernels/kernels/table.h"
#undef STEPPE_DOUBLE
#define STEPPE_DOUBLE 1
#include "../../Sources/CSteppeKernels/kernels/table.h"

#if defined(__x86_64__)
#pragma clang attribute pop
#endif
