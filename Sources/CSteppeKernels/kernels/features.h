// Statistics of a data set's features: sums over the columns of rows that are read once, all of them in double.
//
// With d = x − shift, exact where x is near the shift, a pass adds d and d² and keeps the least and the greatest value. The caller merges
// the sums of a few hundred rows at a time in more than double.

// Rows that are added before a running sum is touched: what is kept for each column is loaded once for all of them.
#define FEATURE_ROWS ((size_t)8)

// Adds `rows` rows (FEATURE_ROWS or 1).
INLINE void K(feature_group)(const size_t rows, const scalar *x, ptrdiff_t ldx, size_t columns, const double *shift, double *sums,
                             double *squares, scalar *least, scalar *greatest) {
  size_t c = 0;
  for (; c + LANES <= columns; c += LANES) {
    const wide from = *(const K(unaligned_wide) *)(shift + c);
    wide sum = {0}, square = {0};
    vector low = load(least + c), high = load(greatest + c);
#pragma clang loop unroll(full)
    for (size_t r = 0; r < rows; r++) {
      const vector v = load(x + (ptrdiff_t)r * ldx + c);
      const wide d = STEPPE_WIDEN(v) - from;
      sum += d;
      square += d * d;
      low = choose(v < low, v, low);
      high = choose(v > high, v, high);
    }
    *(K(unaligned_wide) *)(sums + c) += sum;
    *(K(unaligned_wide) *)(squares + c) += square;
    store(least + c, low);
    store(greatest + c, high);
  }
  for (; c < columns; c++) {
    double sum = 0, square = 0;
    for (size_t r = 0; r < rows; r++) {
      const scalar v = x[(ptrdiff_t)r * ldx + c];
      const double d = (double)v - shift[c];
      sum += d;
      square += d * d;
      if (v < least[c]) least[c] = v;
      if (v > greatest[c]) greatest[c] = v;
    }
    sums[c] += sum;
    squares[c] += square;
  }
}

INLINE void K(feature_rows)(const scalar *x, ptrdiff_t ldx, size_t rows, size_t columns, const double *shift, double *sums,
                            double *squares, scalar *least, scalar *greatest) {
  size_t r = 0;
  for (; r + FEATURE_ROWS <= rows; r += FEATURE_ROWS) {
    K(feature_group)(FEATURE_ROWS, x + (ptrdiff_t)r * ldx, ldx, columns, shift, sums, squares, least, greatest);
  }
  for (; r < rows; r++) K(feature_group)(1, x + (ptrdiff_t)r * ldx, ldx, columns, shift, sums, squares, least, greatest);
}

static void K(feature_moments)(const void *from, ptrdiff_t ldx, size_t rows, size_t columns, const double *shift, double *sums,
                               double *squares, void *least, void *greatest) {
  const scalar *x = from;
  scalar *low = least, *high = greatest;
  // A few columns without gaps between the rows: several rows side by side are one row of whole vectors.
  enum { NARROW = 4 * STEPPE_VECTOR_BYTES / sizeof(scalar), BESIDE = STEPPE_VECTOR_BYTES / sizeof(scalar) };
  if (ldx == (ptrdiff_t)columns && columns < NARROW && columns % LANES != 0 && rows >= BESIDE * FEATURE_ROWS) {
    double from_[NARROW * BESIDE], sum[NARROW * BESIDE], square[NARROW * BESIDE];
    scalar lowest[NARROW * BESIDE], highest[NARROW * BESIDE];
    size_t beside = 1;
    while (columns * beside % LANES != 0) beside *= 2;
    const size_t all = columns * beside;
    for (size_t i = 0; i < all; i++) {
      from_[i] = shift[i % columns];
      sum[i] = square[i] = 0;
      lowest[i] = low[i % columns];
      highest[i] = high[i % columns];
    }
    K(feature_rows)(x, (ptrdiff_t)all, rows / beside, all, from_, sum, square, lowest, highest);
    for (size_t i = 0; i < all; i++) {
      const size_t c = i % columns;
      sums[c] += sum[i];
      squares[c] += square[i];
      if (lowest[i] < low[c]) low[c] = lowest[i];
      if (highest[i] > high[c]) high[c] = highest[i];
    }
    x += (rows - rows % beside) * columns;
    rows %= beside;
  }
  K(feature_rows)(x, ldx, rows, columns, shift, sums, squares, low, high);
}

static void K(feature_center)(const void *from, ptrdiff_t ldx, size_t rows, size_t columns, const double *shift, double *y) {
  const scalar *x = from;
  for (size_t r = 0; r < rows; r++, x += ldx, y += columns) {
    size_t c = 0;
    for (; c + LANES <= columns; c += LANES) {
      *(K(unaligned_wide) *)(y + c) = STEPPE_WIDEN(load(x + c)) - *(const K(unaligned_wide) *)(shift + c);
    }
    for (; c < columns; c++) y[c] = (double)x[c] - shift[c];
  }
}
#undef FEATURE_ROWS
