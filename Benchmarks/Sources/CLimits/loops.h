// The loops for one instruction set, included once for each. LOOPS is its name, BYTES its vectors' size, FUSED whether it multiplies and
// adds in one instruction.

#define CONCATENATE(a, b) a##_##b
#define NAME2(a, b) CONCATENATE(a, b)
#define NAME(a) NAME2(a, LOOPS)
#define STRING2(a) #a
#define STRING(a) STRING2(a)

typedef long long NAME(integers) __attribute__((vector_size(BYTES)));

// Without `no_builtin` the compiler would see memcpy in it, which decides for itself how to store.
__attribute__((no_builtin)) static void NAME(copy)(const void *from, void *to, size_t bytes, size_t times, bool stream) {
  const size_t count = bytes / BYTES;
  for (size_t time = 0; time < times; time++) {
    const NAME(integers) *x = from;
    NAME(integers) *y = to;
    if (stream) {
      for (size_t i = 0; i < count; i += 8) {
#pragma clang loop unroll(full)
        for (size_t j = 0; j < 8; j++) __builtin_nontemporal_store(x[i + j], y + i + j);
      }
      __atomic_thread_fence(__ATOMIC_SEQ_CST);
    } else {
      for (size_t i = 0; i < count; i += 8) {
#pragma clang loop unroll(full)
        for (size_t j = 0; j < 8; j++) y[i + j] = x[i + j];
      }
    }
    // The next copy is not the same again, as far as the compiler knows.
    __asm__ volatile("" ::: "memory");
  }
}

static void NAME(read)(const void *from, size_t bytes, size_t times) {
  const size_t count = bytes / BYTES;
  NAME(integers) sums[8] = {};
  for (size_t time = 0; time < times; time++) {
    const NAME(integers) *x = from;
    for (size_t i = 0; i < count; i += 8) {
#pragma clang loop unroll(full)
      for (size_t j = 0; j < 8; j++) sums[j] += x[i + j];
    }
    __asm__ volatile("" ::: "memory");
  }
  for (size_t j = 1; j < 8; j++) sums[0] += sums[j];
  keep(&sums[0]);
}

// Twelve chains hide a latency of up to six cycles at two instructions a cycle, and with the two factors fit sixteen registers. The
// factors come from memory, so that no operation is known to change nothing.
#define CHAINS 12

#define MULTIPLY_ADD(SCALAR)                                                                                                      \
  typedef SCALAR NAME2(SCALAR, NAME(vector)) __attribute__((vector_size(BYTES)));                                                 \
  static double NAME(NAME2(multiply_add, SCALAR))(size_t rounds) {                                                                \
    NAME2(SCALAR, NAME(vector)) chain[CHAINS], factor = {}, term = {};                                                            \
    for (size_t j = 0; j < CHAINS; j++) chain[j] = term + (SCALAR)j;                                                              \
    factor += (SCALAR)read_value(&one);                                                                                           \
    term += (SCALAR)read_value(&zero);                                                                                            \
    for (size_t round = 0; round < rounds; round++) {                                                                             \
      _Pragma("clang loop unroll(full)") for (size_t j = 0; j < CHAINS; j++) {                                                    \
        if (FUSED)                                                                                                                \
          chain[j] = chain[j] * factor + term;                                                                                    \
        else                                                                                                                      \
          chain[j] = j % 2 ? chain[j] * factor : chain[j] + term;                                                                 \
      }                                                                                                                           \
    }                                                                                                                             \
    for (size_t j = 1; j < CHAINS; j++) chain[0] += chain[j];                                                                     \
    keep(&chain[0]);                                                                                                              \
    return (double)rounds * CHAINS * (FUSED ? 2 : 1) * (BYTES / sizeof(SCALAR));                                                  \
  }
MULTIPLY_ADD(float)
MULTIPLY_ADD(double)

static const limit_loops NAME(table) = {
    .instruction_set = STRING(LOOPS),
    .copy = NAME(copy),
    .read = NAME(read),
    .multiply_add_float = NAME(multiply_add_float),
    .multiply_add_double = NAME(multiply_add_double),
};

#undef CONCATENATE
#undef NAME2
#undef NAME
#undef STRING2
#undef STRING
#undef CHAINS
#undef MULTIPLY_ADD
#undef LOOPS
#undef BYTES
#undef FUSED
