// AVX-512 as servers have it.
#include <math.h>
#include <string.h>

#include "tables.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#define STEPPE_SET avx512
#define STEPPE_VECTOR_BYTES 64
#define STEPPE_BIT_MASKS

#define STEPPE_DOUBLE 0
#include "../kernels/table.h"
#undef STEPPE_DOUBLE
#define STEPPE_DOUBLE 1
#include "../kernels/table.h"

#pragma clang attribute pop
#endif
