#include "limits.h"

#include <string.h>

// Multiplying and adding in one expression is one instruction where there is one.
#pragma STDC FP_CONTRACT ON

static const double one = 1, zero = 0;

static double read_value(const double *value) { return *(const volatile double *)value; }

// Takes a result, so that computing it is not left out.
static void keep(const void *result) { __asm__ volatile("" ::"r"(result) : "memory"); }

#if defined(__aarch64__)
#define LOOPS neon
#define BYTES 16
#define FUSED 1
#include "loops.h"
#else
#define LOOPS baseline
#define BYTES 16
#define FUSED 0
#include "loops.h"
#endif

#if defined(__x86_64__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#define LOOPS avx2
#define BYTES 32
#define FUSED 1
#include "loops.h"
#pragma clang attribute pop

#pragma clang attribute push(__attribute__((target("avx2,fma,avx512f"))), apply_to = function)
#define LOOPS avx512
#define BYTES 64
#define FUSED 1
#include "loops.h"
#pragma clang attribute pop
#endif

static const limit_loops *const tables[] = {
#if defined(__aarch64__)
    &table_neon,
#else
    &table_baseline,
#endif
#if defined(__x86_64__)
    &table_avx2,
    &table_avx512,
#endif
};

const limit_loops *limit_loops_named(const char *name) {
  for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++) {
    if (strcmp(tables[i]->instruction_set, name) == 0) return tables[i];
  }
  return NULL;
}
