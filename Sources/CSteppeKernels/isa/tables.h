// The tables that the files of this folder define, for `dispatch.c`. Each exists only where its architecture does.
#ifndef STEPPE_TABLES_H
#define STEPPE_TABLES_H

#include "steppe_kernels.h"

#if defined(__aarch64__)
extern const steppe_kernel_table steppe_table_neon_f32, steppe_table_neon_f64;
#else
extern const steppe_kernel_table steppe_table_baseline_f32, steppe_table_baseline_f64;
#endif
#if defined(__x86_64__)
extern const steppe_kernel_table steppe_table_avx2_f32, steppe_table_avx2_f64;
extern const steppe_kernel_table steppe_table_avx512_f32, steppe_table_avx512_f64;
#endif

#endif
