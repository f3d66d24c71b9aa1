// What the checks share: data, memory between forbidden pages, comparison.
#define _GNU_SOURCE
#include "driver.h"

#include <sys/mman.h>
#include <unistd.h>

const steppe_kernel_table *table;
size_t scalar_bytes;
double epsilon;
int failures;
long checks;
char shape[160];
unsigned thinning = 1;

// ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

static uint64_t state;

void choose_table(const steppe_kernel_table *t) {
  table = t;
  scalar_bytes = (size_t)t->scalar_bytes;
  epsilon = scalar_bytes == 4 ? 0x1p-24 : 0x1p-53;
  state = 20240607;
}

uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545F4914F6CDD1DULL;
}
double uniform(void) { return (double)(next() >> 11) * 0x1p-53; }
double centered(void) { return (uniform() + uniform() + uniform() - 1.5) * 2; }

// ── memory between forbidden pages ────────────────────────────────────────────────────────────────────────────────────────────

char *arenas[ARENAS];
static size_t page;

void reserve_arenas(void) {
  page = (size_t)sysconf(_SC_PAGESIZE);
  for (int i = 0; i < ARENAS; i++) {
    char *p = mmap(NULL, ROOM + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p, page, PROT_NONE) || mprotect(p + page + ROOM, page, PROT_NONE)) {
      perror("mmap");
      exit(2);
    }
    arenas[i] = p + page;
  }
}

// Room for `count` scalars in arena i: at its end, at its begin, or (where > 1) some scalars after its begin.
void *place(int i, size_t count, unsigned where) {
  const size_t bytes = count * scalar_bytes;
  if (bytes + 64 * scalar_bytes > ROOM) {
    fprintf(stderr, "driver: an operand of %zu bytes is too large\n", bytes);
    exit(2);
  }
  return where == 0 ? arenas[i] + ROOM - bytes : arenas[i] + (where - 1) * scalar_bytes;
}
void *random_at(int i, size_t count, unsigned where, double offset, double scale) {
  void *p = place(i, count, where);
  for (size_t k = 0; k < count; k++) set(p, k, offset + scale * centered());
  return p;
}

// ── comparison ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

void expect(const char *kernel, size_t i, double got, double wanted, double tolerance) {
  checks++;
  if (same(got, wanted) || fabs(got - wanted) <= tolerance) return;
  if (failures++ < 40) {
    fprintf(stderr, "%s f%zu %s %s [%zu]: %.17g, not %.17g (error %.3g, allowed %.3g)\n", table->instruction_set,
            scalar_bytes * 8, kernel, shape, i, got, wanted, got - wanted, tolerance);
  }
}

double reference_activation(steppe_activation kind, double parameter, double x) {
  switch (kind) {
  case STEPPE_IDENTITY: return x;
  case STEPPE_RELU: return x < 0 ? 0 : x;
  case STEPPE_LEAKY_RELU: return x < 0 ? parameter * x : x;
  case STEPPE_SIGMOID: return 1 / (1 + exp(-x));
  case STEPPE_TANH: return tanh(x);
  case STEPPE_GELU: return x * 0.5 * erfc(-x * 0.70710678118654752440);
  case STEPPE_GELU_TANH: return x / (1 + exp(-2 * 0.79788456080286535588 * (x + 0.044715 * x * x * x)));
  case STEPPE_SILU: return x / (1 + exp(-x));
  }
  return NAN;
}
