// Values that stand two apart, as windows that move by two see them.

// Of the 2·LANES − 1 values that begin in a and end in b, whose first is a's last, every other; and LANES values with another LANES
// between them, as two vectors.
#undef STEPPE_EVERY_OTHER
#undef STEPPE_LOW_BETWEEN
#undef STEPPE_HIGH_BETWEEN
#if STEPPE_VECTOR_BYTES == 64 && !STEPPE_DOUBLE
#define STEPPE_EVERY_OTHER 0, 2, 4, 6, 8, 10, 12, 14, 17, 19, 21, 23, 25, 27, 29, 31
#define STEPPE_LOW_BETWEEN 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define STEPPE_HIGH_BETWEEN 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif STEPPE_VECTOR_BYTES == 64 || (STEPPE_VECTOR_BYTES == 32 && !STEPPE_DOUBLE)
#define STEPPE_EVERY_OTHER 0, 2, 4, 6, 9, 11, 13, 15
#define STEPPE_LOW_BETWEEN 0, 8, 1, 9, 2, 10, 3, 11
#define STEPPE_HIGH_BETWEEN 4, 12, 5, 13, 6, 14, 7, 15
#elif STEPPE_VECTOR_BYTES == 32 || !STEPPE_DOUBLE
#define STEPPE_EVERY_OTHER 0, 2, 5, 7
#define STEPPE_LOW_BETWEEN 0, 4, 1, 5
#define STEPPE_HIGH_BETWEEN 2, 6, 3, 7
#else
#define STEPPE_EVERY_OTHER 0, 3
#define STEPPE_LOW_BETWEEN 0, 2
#define STEPPE_HIGH_BETWEEN 1, 3
#endif

// `count` values, `step` (1 or 2) apart; reads nothing past the last.
INLINE vector K(load_apart)(const size_t step, const scalar *p, size_t count) {
  if (step == 1) return count == LANES ? load(p) : K(load_tail)(p, count, 0);
  if (count == LANES) return __builtin_shufflevector(load(p), load(p + LANES - 1), STEPPE_EVERY_OTHER);
  const size_t values = 2 * count - 1;
  const vector a = values >= LANES ? load(p) : K(load_tail)(p, values, 0);
  const vector b = values >= LANES ? K(load_tail)(p + LANES - 1, values - (LANES - 1), 0) : a;
  return __builtin_shufflevector(a, b, STEPPE_EVERY_OTHER);
}

INLINE vector K(load_some)(const scalar *p, size_t count) { return count == LANES ? load(p) : K(load_tail)(p, count, 0); }
INLINE void K(store_some)(scalar *p, vector v, size_t count) {
  if (count == LANES) {
    store(p, v);
  } else {
    K(store_tail)(p, v, count);
  }
}

// Writes `count` values of each of `step` kinds in turn.
INLINE void K(store_apart)(const size_t step, scalar *y, const vector *v, size_t count) {
  if (step == 1) {
    K(store_some)(y, v[0], count);
    return;
  }
  const size_t values = 2 * count;
  K(store_some)(y, __builtin_shufflevector(v[0], v[1], STEPPE_LOW_BETWEEN), values < LANES ? values : LANES);
  if (values > LANES) K(store_some)(y + LANES, __builtin_shufflevector(v[0], v[1], STEPPE_HIGH_BETWEEN), values - LANES);
}
