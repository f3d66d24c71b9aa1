// The vector vocabulary of the bodies in this folder, for one instruction set and scalar type. Included once for each pair by
// `table.h`; the including file sets STEPPE_VECTOR_BYTES, STEPPE_SET (the set's name) and STEPPE_DOUBLE (0 or 1).
//
// K(name) is the name of this pair's own copy of a function or type.
#define STEPPE_JOIN3(a, b, c) a##_##b##_##c
#define STEPPE_JOIN3_(a, b, c) STEPPE_JOIN3(a, b, c)

#if STEPPE_DOUBLE
#define K(name) STEPPE_JOIN3_(name, STEPPE_SET, f64)
typedef double K(scalar);
typedef int64_t K(integer);
#else
#define K(name) STEPPE_JOIN3_(name, STEPPE_SET, f32)
typedef float K(scalar);
typedef int32_t K(integer);
#endif

#define scalar K(scalar)
#define integer K(integer)
#define vector K(vector)
#define ivector K(ivector)

typedef scalar vector __attribute__((vector_size(STEPPE_VECTOR_BYTES)));
// Lanes of a comparison: all ones or all zeros.
typedef integer ivector __attribute__((vector_size(STEPPE_VECTOR_BYTES)));
// The same vector at any address that suits its scalar.
typedef scalar K(unaligned) __attribute__((vector_size(STEPPE_VECTOR_BYTES), aligned(STEPPE_DOUBLE ? 8 : 4), may_alias));

// The lanes of a vector in double: twice its width for float, the same type for double. Sums are kept in it.
#define wide K(wide)
typedef double wide __attribute__((vector_size(STEPPE_VECTOR_BYTES / sizeof(scalar) * 8)));
typedef double K(unaligned_wide) __attribute__((vector_size(STEPPE_VECTOR_BYTES / sizeof(scalar) * 8), aligned(8), may_alias));

#define LANES ((size_t)(STEPPE_VECTOR_BYTES / sizeof(scalar)))

// Elements of a cache line.
#define LINE ((size_t)(64 / sizeof(scalar)))
#define UNROLL _Pragma("clang loop unroll(full)")

#define INLINE static inline __attribute__((always_inline, unused))

INLINE vector K(load)(const scalar *p) { return *(const K(unaligned) *)p; }
INLINE void K(store)(scalar *p, vector v) { *(K(unaligned) *)p = v; }
// A store that bypasses the cache; the address must be aligned to the vector.
INLINE void K(stream)(scalar *p, vector v) { __builtin_nontemporal_store(v, (vector *)p); }
INLINE vector K(splat)(scalar s) { return s - (vector){0}; }
INLINE vector K(choose)(ivector mask, vector yes, vector no) {
  return (vector)(((ivector)yes & mask) | ((ivector)no & ~mask));
}
// The first `count` lanes, the rest `fill`; reads nothing past them.
INLINE vector K(load_first)(const scalar *p, size_t count, scalar fill) {
  vector v = K(splat)(fill);
  __builtin_memcpy(&v, p, count * sizeof(scalar));
  return v;
}
// Adds the lanes to doubles in memory. (Wide vectors stay inside functions: passing them by value would depend on the ABI.)
INLINE void K(add_to)(double *p, vector v) {
  K(unaligned_wide) *sums = (K(unaligned_wide) *)p;
  *sums += __builtin_convertvector(v, wide);
}
INLINE void K(store_first)(scalar *p, vector v, size_t count) { __builtin_memcpy(p, &v, count * sizeof(scalar)); }
#define load K(load)
#define store K(store)
#define splat K(splat)
#define choose K(choose)
#define load_first K(load_first)
#define store_first K(store_first)
#define add_to K(add_to)
#define stream_store K(stream)

// As many scalars as a vector holds doubles, and those doubles.
#define SLICE_LANES ((size_t)(STEPPE_VECTOR_BYTES / 8))
typedef scalar K(slice) __attribute__((vector_size(SLICE_LANES * sizeof(scalar))));
typedef scalar K(unaligned_slice)
  __attribute__((vector_size(SLICE_LANES * sizeof(scalar)), aligned(STEPPE_DOUBLE ? 8 : 4), may_alias));
typedef double K(doubles) __attribute__((vector_size(STEPPE_VECTOR_BYTES)));
typedef double K(unaligned_doubles) __attribute__((vector_size(STEPPE_VECTOR_BYTES), aligned(8), may_alias));

#define slice K(slice)
#define doubles K(doubles)
#define AS_DOUBLES(v) __builtin_convertvector(v, doubles)
#define AS_SLICE(w) __builtin_convertvector(w, slice)
#define LOAD_SLICE(p) (*(const K(unaligned_slice) *)(p))
#define STORE_SLICE(p, v) (*(K(unaligned_slice) *)(p) = (v))
