// AVX2 and FMA: x86-64 since 2013.
#include <math.h>
#include <string.h>

#include "tables.h"

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define STEPPE_SET avx2
#define STEPPE_VECTOR_BYTES 32

#define STEPPE_DOUBLE 0
#include "../kernels/table.h"
#undef STEPPE_DOUBLE
#define STEPPE_DOUBLE 1
#include "../kernels/table.h"

#pragma clang attribute pop
#endif
