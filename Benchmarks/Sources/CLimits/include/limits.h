/// Loops that run into one limit of the processor and nothing else. They start no thread: call one on each.
#ifndef STEPPE_LIMITS_H
#define STEPPE_LIMITS_H

#include <stdbool.h>
#include <stddef.h>

#pragma clang assume_nonnull begin

/// One instruction set's loops.
typedef struct limit_loops {
  const char *instruction_set;  ///< as Steppe names it
  /// Copies `bytes`, a multiple of 512, `times` over, between buffers aligned to 64; `stream` asks for stores that bypass the caches.
  void (*copy)(const void *from, void *to, size_t bytes, size_t times, bool stream);
  /// Reads `bytes`, a multiple of 512, `times` over, from a buffer aligned to 64.
  void (*read)(const void *from, size_t bytes, size_t times);
  /// Rounds of multiplications and additions in registers; returns how many operations that was.
  double (*multiply_add_float)(size_t rounds);
  double (*multiply_add_double)(size_t rounds);
} limit_loops;

/// The loops of an instruction set, or NULL for one that this build does not hold. Whether the machine has it is for the caller to know.
const limit_loops *_Nullable limit_loops_named(const char *name);

#pragma clang assume_nonnull end
#endif
