// What every machine of the architecture offers: SSE2 on x86-64, NEON on arm64.
#include <math.h>
#include <string.h>

#include "tables.h"

#if defined(__aarch64__)
#define STEPPE_SET neon
#else
#define STEPPE_SET baseline
#endif
#define STEPPE_VECTOR_BYTES 16

#define STEPPE_DOUBLE 0
#include "../kernels/table.h"
#undef STEPPE_DOUBLE
#define STEPPE_DOUBLE 1
#include "../kernels/table.h"
