// The choice of an instruction set: the sets that this build holds, what this machine can run of them, and the one in use.
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "isa/tables.h"

typedef struct instruction_set {
  const steppe_kernel_table *f32, *f64;
  bool (*available)(void);
} instruction_set;

static bool always(void) { return true; }

#if defined(__x86_64__)
// These also ask whether the operating system saves the wide registers.
static bool has_avx2(void) {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
static bool has_avx512(void) {
  __builtin_cpu_init();
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

// Best last.
static const instruction_set sets[] = {
#if defined(__aarch64__)
    {&steppe_table_neon_f32, &steppe_table_neon_f64, always},
#else
    {&steppe_table_baseline_f32, &steppe_table_baseline_f64, always},
#endif
#if defined(__x86_64__)
    {&steppe_table_avx2_f32, &steppe_table_avx2_f64, has_avx2},
    {&steppe_table_avx512_f32, &steppe_table_avx512_f64, has_avx512},
#endif
};
static const int set_count = sizeof(sets) / sizeof(sets[0]);

// The set in use, −1 before the first choice. The tables are constants, so the index is all that threads have to agree on.
static _Atomic int selected = -1;

static int best_set(void) {
  int best = 0;
  for (int i = 0; i < set_count; i++) {
    if (sets[i].available()) best = i;
  }
  return best;
}

// −1 where there is no such set here.
static int set_named(const char *name) {
  for (int i = 0; i < set_count; i++) {
    if (strcmp(sets[i].f32->instruction_set, name) == 0) return sets[i].available() ? i : -1;
  }
  return -1;
}

// Threads that come here first at the same time find the same choice, and none undoes a selection made meanwhile.
static const instruction_set *current(void) {
  int index = atomic_load_explicit(&selected, memory_order_relaxed);
  if (index < 0) {
    const char *wish = getenv("STEPPE_INSTRUCTION_SET");
    int choice = wish ? set_named(wish) : -1;
    if (choice < 0) choice = best_set();
    int none = -1;
    index = atomic_compare_exchange_strong(&selected, &none, choice) ? choice : none;
  }
  return &sets[index];
}

size_t steppe_available_instruction_sets(const char **names, size_t capacity) {
  size_t count = 0;
  for (int i = 0; i < set_count; i++) {
    if (!sets[i].available()) continue;
    if (count < capacity) names[count] = sets[i].f32->instruction_set;
    count++;
  }
  return count;
}

const steppe_kernel_table *steppe_kernels_float(void) { return current()->f32; }

const steppe_kernel_table *steppe_kernels_double(void) { return current()->f64; }

bool steppe_select_instruction_set(const char *name) {
  const int index = name ? set_named(name) : best_set();
  if (index < 0) return false;
  atomic_store_explicit(&selected, index, memory_order_relaxed);
  return true;
}

const steppe_kernel_table *steppe_kernels_named(const char *name, int32_t scalar_bytes) {
  const int index = set_named(name);
  if (index < 0 || (scalar_bytes != 4 && scalar_bytes != 8)) return NULL;
  return scalar_bytes == 4 ? sets[index].f32 : sets[index].f64;
}
