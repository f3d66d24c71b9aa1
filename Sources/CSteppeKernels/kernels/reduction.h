// Reductions. Sums of floats are added in trees of eight vectors, whose sums go on in double; products of floats are exact there.

// ── one range ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// Adds to a sum that keeps what its rounding loses (Knuth's TwoSum).
INLINE void K(add_exactly)(double *sum, double *lost, double x) {
  const double s = *sum + x, of_x = s - *sum;
  *lost += (*sum - (s - of_x)) + (x - of_x);
  *sum = s;
}
// What was lost is NaN beside an infinity.
INLINE double K(total)(double sum, double lost) { return __builtin_isfinite(sum) ? sum + lost : sum; }

#define STEPPE_WIDEN(v) __builtin_convertvector(v, wide)

INLINE vector K(summand)(const steppe_reduction op, vector v) { return op == STEPPE_SUM_OF_ABSOLUTES ? K(absolute)(v) : v; }

// Σ or Σ|x| of a stretch short enough that its rounding is of no account.
INLINE double K(sum_block)(const steppe_reduction op, const scalar *x, size_t count) {
  wide sum = {0};
  size_t i = 0;
  for (; i + 8 * LANES <= count; i += 8 * LANES) {
    vector v[8];
#pragma clang loop unroll(full)
    for (size_t j = 0; j < 8; j++) v[j] = K(summand)(op, load(x + i + j * LANES));
    sum += STEPPE_WIDEN(((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7])));
  }
  for (; i + LANES <= count; i += LANES) sum += STEPPE_WIDEN(K(summand)(op, load(x + i)));
  if (i < count) sum += STEPPE_WIDEN(K(summand)(op, K(load_tail)(x + i, count - i, 0)));
  return K(sum_lanes)(&sum);
}

INLINE double K(dot_block)(const scalar *x, const scalar *y, size_t count) {
  wide sum0 = {0}, sum1 = {0}, sum2 = {0}, sum3 = {0};
  size_t i = 0;
  for (; i + 4 * LANES <= count; i += 4 * LANES) {
    const scalar *a = x + i, *b = y + i;
    sum0 += STEPPE_WIDEN(load(a)) * STEPPE_WIDEN(load(b));
    sum1 += STEPPE_WIDEN(load(a + LANES)) * STEPPE_WIDEN(load(b + LANES));
    sum2 += STEPPE_WIDEN(load(a + 2 * LANES)) * STEPPE_WIDEN(load(b + 2 * LANES));
    sum3 += STEPPE_WIDEN(load(a + 3 * LANES)) * STEPPE_WIDEN(load(b + 3 * LANES));
  }
  for (; i + LANES <= count; i += LANES) sum0 += STEPPE_WIDEN(load(x + i)) * STEPPE_WIDEN(load(y + i));
  if (i < count) sum1 += STEPPE_WIDEN(K(load_tail)(x + i, count - i, 0)) * STEPPE_WIDEN(K(load_tail)(y + i, count - i, 0));
  sum0 = (sum0 + sum1) + (sum2 + sum3);
  return K(sum_lanes)(&sum0);
}

INLINE double K(sum)(const steppe_reduction op, const scalar *x, size_t count) {
  const size_t block = 256 * LANES;
  double sum = 0, lost = 0;
  for (size_t i = 0; i < count; i += block) {
    const size_t n = count - i < block ? count - i : block;
    K(add_exactly)(&sum, &lost, op == STEPPE_SUM_OF_SQUARES ? K(dot_block)(x + i, x + i, n) : K(sum_block)(op, x + i, n));
  }
  return K(total)(sum, lost);
}

static double K(product)(const scalar *x, size_t count) {
  wide product0 = (wide){0} + 1, product1 = product0;
  size_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    product0 *= STEPPE_WIDEN(load(x + i));
    product1 *= STEPPE_WIDEN(load(x + i + LANES));
  }
  product0 *= product1;
  double product = 1;
  for (size_t j = 0; j < LANES; j++) product *= product0[j];
  for (; i < count; i++) product *= (double)x[i];
  return product;
}

// The least or the greatest, NaN where any is NaN: comparisons skip NaN, which is looked for apart.
INLINE scalar K(extreme)(const bool greatest, const scalar *x, size_t count) {
  const scalar none = greatest ? -(scalar)INFINITY : (scalar)INFINITY;
  vector m0 = splat(none), m1 = m0, m2 = m0, m3 = m0;
  ivector nan = {0};
  size_t i = 0;
#define STEPPE_TAKE(m, v) m = choose(greatest ? v > m : v < m, v, m)
  for (; i + 4 * LANES <= count; i += 4 * LANES) {
    const vector a = load(x + i), b = load(x + i + LANES), c = load(x + i + 2 * LANES), d = load(x + i + 3 * LANES);
    STEPPE_TAKE(m0, a);
    STEPPE_TAKE(m1, b);
    STEPPE_TAKE(m2, c);
    STEPPE_TAKE(m3, d);
    nan |= (a != a) | (b != b) | (c != c) | (d != d);
  }
  for (; i + LANES <= count; i += LANES) {
    const vector a = load(x + i);
    STEPPE_TAKE(m0, a);
    nan |= a != a;
  }
  if (i < count) {
    const vector a = K(load_tail)(x + i, count - i, none);
    STEPPE_TAKE(m1, a);
    nan |= a != a;
  }
  STEPPE_TAKE(m0, m1);
  STEPPE_TAKE(m2, m3);
  STEPPE_TAKE(m0, m2);
#undef STEPPE_TAKE
  return K(any_lane)(nan) ? (scalar)NAN : K(extreme_lane)(greatest, m0);
}

static double K(reduce)(steppe_reduction op, const void *x, size_t count) {
  switch (op) {
    case STEPPE_SUM: return K(sum)(STEPPE_SUM, x, count);
    case STEPPE_SUM_OF_SQUARES: return K(sum)(STEPPE_SUM_OF_SQUARES, x, count);
    case STEPPE_SUM_OF_ABSOLUTES: return K(sum)(STEPPE_SUM_OF_ABSOLUTES, x, count);
    case STEPPE_REDUCE_MINIMUM: return (double)K(extreme)(false, x, count);
    case STEPPE_REDUCE_MAXIMUM: return (double)K(extreme)(true, x, count);
    case STEPPE_PRODUCT: return K(product)(x, count);
  }
  return 0;
}

static double K(dot)(const void *x, const void *y, size_t count) {
  const size_t block = 256 * LANES;
  double sum = 0, lost = 0;
  for (size_t i = 0; i < count; i += block) {
    const size_t n = count - i < block ? count - i : block;
    K(add_exactly)(&sum, &lost, K(dot_block)((const scalar *)x + i, (const scalar *)y + i, n));
  }
  return K(total)(sum, lost);
}

static size_t K(index_of_maximum)(const void *x, size_t count) {
  const scalar *from = x;
  const size_t block = 64 * LANES;
  scalar best = -(scalar)INFINITY;
  size_t first = 0;  // of the block that holds it
  if (count >= 2 * LANES) {
    for (size_t i = 0; i < count; i += block) {
      const scalar most = K(extreme)(true, from + i, count - i < block ? count - i : block);
      if (most > best || most != most) {
        best = most;
        first = i;
        if (most != most) break;
      }
    }
    for (; first < count; first++) {
      if (from[first] == best || (best != best && from[first] != from[first])) break;
    }
    return first;
  }
  for (size_t i = 0; i < count; i++) {
    if (from[i] != from[i]) return i;
    if (from[i] > best) {
      best = from[i];
      first = i;
    }
  }
  return first;
}

// ── rows and columns of a matrix ──────────────────────────────────────────────────────────────────────────────────────────────

INLINE double K(identity)(const steppe_reduction op) {
  return op == STEPPE_REDUCE_MINIMUM   ? (double)INFINITY
         : op == STEPPE_REDUCE_MAXIMUM ? -(double)INFINITY
         : op == STEPPE_PRODUCT        ? 1
                                       : 0;
}

// `a` after the element v.
INLINE double K(take)(const steppe_reduction op, double a, double v) {
  switch (op) {
    case STEPPE_SUM: return a + v;
    case STEPPE_SUM_OF_SQUARES: return a + v * v;
    case STEPPE_SUM_OF_ABSOLUTES: return a + __builtin_fabs(v);
    case STEPPE_REDUCE_MINIMUM: return v < a || v != v ? v : a;
    case STEPPE_REDUCE_MAXIMUM: return v > a || v != v ? v : a;
    case STEPPE_PRODUCT: return a * v;
  }
  return a;
}

// Rows of a few vectors at most: the lanes of one row don't pay for their own merging, but the processor overlaps rows.
INLINE void K(reduce_short_rows)(const steppe_reduction op, const scalar *x, ptrdiff_t ldx, size_t rows, size_t columns,
                                 scalar *out) {
  for (size_t r = 0; r < rows; r++) {
    const scalar *row = x + (ptrdiff_t)r * ldx;
    double a = K(identity)(op), b = a;
    size_t c = 0;
    for (; c + 2 <= columns; c += 2) {
      a = K(take)(op, a, (double)row[c]);
      b = K(take)(op, b, (double)row[c + 1]);
    }
    if (c < columns) a = K(take)(op, a, (double)row[c]);
    const bool sums = op == STEPPE_SUM_OF_SQUARES || op == STEPPE_SUM_OF_ABSOLUTES;
    out[r] = (scalar)K(take)(sums ? STEPPE_SUM : op, a, b);
  }
}

static void K(reduce_rows)(steppe_reduction op, const void *x, ptrdiff_t ldx, size_t rows, size_t columns, void *out) {
  scalar *to = out;
  if (columns > 2 * LANES || columns > 24) {
    for (size_t r = 0; r < rows; r++) to[r] = (scalar)K(reduce)(op, (const scalar *)x + (ptrdiff_t)r * ldx, columns);
    return;
  }
#define STEPPE_CASE(op) \
  case op: K(reduce_short_rows)(op, x, ldx, rows, columns, out); break;
  switch (op) {
    STEPPE_CASE(STEPPE_SUM)
    STEPPE_CASE(STEPPE_SUM_OF_SQUARES)
    STEPPE_CASE(STEPPE_SUM_OF_ABSOLUTES)
    STEPPE_CASE(STEPPE_REDUCE_MINIMUM)
    STEPPE_CASE(STEPPE_REDUCE_MAXIMUM)
    STEPPE_CASE(STEPPE_PRODUCT)
  }
#undef STEPPE_CASE
}

// A strip of columns and its accumulators, which stay in the first-level cache.
enum { K(strip_columns) = 512 };

// Reduces `group` rows (8 or 1) of one vector of columns into its accumulators. `tail` is the number of lanes, 0 for all.
INLINE void K(reduce_column_group)(const steppe_reduction op, const size_t group, const scalar *x, ptrdiff_t ldx, size_t tail,
                                   double *sums) {
  const bool greatest = op == STEPPE_REDUCE_MAXIMUM;
  vector v[8];
#pragma clang loop unroll(full)
  for (size_t j = 0; j < group; j++) {
    const scalar *at = x + (ptrdiff_t)j * ldx;
    v[j] = tail ? K(load_tail)(at, tail, (scalar)K(identity)(op)) : load(at);
  }
  wide sum = *(const K(unaligned_wide) *)sums;
  switch (op) {
    case STEPPE_SUM:
    case STEPPE_SUM_OF_ABSOLUTES:
#pragma clang loop unroll(full)
      for (size_t j = 0; j < group; j++) v[j] = K(summand)(op, v[j]);
      if (group == 8) v[0] = ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
      sum += STEPPE_WIDEN(v[0]);
      break;
    case STEPPE_SUM_OF_SQUARES:
#pragma clang loop unroll(full)
      for (size_t j = 0; j < group; j++) sum += STEPPE_WIDEN(v[j]) * STEPPE_WIDEN(v[j]);
      break;
    case STEPPE_PRODUCT:
#pragma clang loop unroll(full)
      for (size_t j = 0; j < group; j++) sum *= STEPPE_WIDEN(v[j]);
      break;
    case STEPPE_REDUCE_MINIMUM:
    case STEPPE_REDUCE_MAXIMUM: {
      // In the scalar's own type, where a conversion is exact.
      vector m = __builtin_convertvector(sum, vector);
#pragma clang loop unroll(full)
      for (size_t j = 0; j < group; j++) m = choose((greatest ? v[j] > m : v[j] < m) | (v[j] != v[j]), v[j], m);
      sum = STEPPE_WIDEN(m);
      break;
    }
  }
  *(K(unaligned_wide) *)sums = sum;
}

// Reduces rows of a strip into `sums`, which is as long as whole vectors.
INLINE void K(reduce_strip)(const steppe_reduction op, const scalar *x, ptrdiff_t ldx, size_t rows, size_t columns,
                            double *sums) {
  const size_t whole = columns - columns % LANES, tail = columns - whole;
  size_t r = 0;
  for (; r + 8 <= rows; r += 8) {
    const scalar *row = x + (ptrdiff_t)r * ldx;
    for (size_t c = 0; c < whole; c += LANES) K(reduce_column_group)(op, 8, row + c, ldx, 0, sums + c);
    if (tail) K(reduce_column_group)(op, 8, row + whole, ldx, tail, sums + whole);
  }
  for (; r < rows; r++) {
    const scalar *row = x + (ptrdiff_t)r * ldx;
    for (size_t c = 0; c < whole; c += LANES) K(reduce_column_group)(op, 1, row + c, ldx, 0, sums + c);
    if (tail) K(reduce_column_group)(op, 1, row + whole, ldx, tail, sums + whole);
  }
}

static void K(reduce_columns)(steppe_reduction op, const void *x, ptrdiff_t ldx, size_t rows, size_t columns, void *out) {
  const scalar *from = x;
  scalar *to = out;
  double sums[K(strip_columns) + LANES];
  // A few contiguous columns: several rows make one wide row, whose accumulators are folded at the end.
  const bool narrow = ldx == (ptrdiff_t)columns && columns > 0 && columns <= 64 && rows >= 2 * K(strip_columns) / columns;
  const size_t rows_in_one = narrow ? K(strip_columns) / columns : 1;
  for (size_t left = 0; left < columns; left += K(strip_columns)) {
    const size_t n = columns - left < K(strip_columns) ? columns - left : K(strip_columns);
    const size_t wide_columns = n * rows_in_one, wide_rows = rows / rows_in_one;
    const scalar *rest = from + wide_rows * rows_in_one * columns;
    for (size_t c = 0; c < wide_columns + LANES; c++) sums[c] = K(identity)(op);
    steppe_reduction merge = op;
#define STEPPE_CASE(op)                                                                                                 \
  case op:                                                                                                              \
    K(reduce_strip)(op, from + left, ldx * (ptrdiff_t)rows_in_one, wide_rows, wide_columns, sums);                      \
    if (narrow) K(reduce_strip)(op, rest, ldx, rows % rows_in_one, n, sums);                                            \
    break;
    switch (op) {
      STEPPE_CASE(STEPPE_SUM)
      STEPPE_CASE(STEPPE_SUM_OF_SQUARES)
      STEPPE_CASE(STEPPE_SUM_OF_ABSOLUTES)
      STEPPE_CASE(STEPPE_REDUCE_MINIMUM)
      STEPPE_CASE(STEPPE_REDUCE_MAXIMUM)
      STEPPE_CASE(STEPPE_PRODUCT)
    }
#undef STEPPE_CASE
    if (op == STEPPE_SUM_OF_SQUARES || op == STEPPE_SUM_OF_ABSOLUTES) merge = STEPPE_SUM;
    for (size_t c = 0; c < n; c++) {
      double sum = sums[c];
      for (size_t j = 1; j < rows_in_one; j++) sum = K(take)(merge, sum, sums[j * n + c]);
      to[left + c] = (scalar)sum;
    }
  }
}
