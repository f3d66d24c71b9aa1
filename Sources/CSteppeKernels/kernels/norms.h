// Norms of a channel other than the deviation, over the columns of a matrix, and their gradients. With u = (x − shift[c]) − rest[c],
// where the shift is the mean's rounding and the rest what it lacks: Σ|u| and the signs, or the greatest |u| and where it is.
//
// Every pass computes u by the same operations, so what one has found to be the greatest another finds again.

#define NORM_STRIP ((size_t)512)
// Rows whose sums may run in the scalar type.
#define ROWS ((size_t)16)

INLINE vector K(signs)(vector u) { return choose(u > 0, splat(1), choose(u < 0, splat(-1), u)); }

// What one vector of columns adds: to the first sum |u| or whether it is the limit, to the second its sign.
INLINE void K(norm_terms)(const steppe_norm kind, vector u, vector limit, vector *first, vector *second) {
  const vector size = K(absolute)(u);
  if (kind == STEPPE_NORM_ABSOLUTE) {
    *first += size;
    *second += K(signs)(u);
  } else {
    const ivector is = size == limit;
    *first += choose(is, splat(1), splat(0));
    *second += choose(is, K(signs)(u), splat(0));
  }
}

// Sums over rows of a strip, `tail` of whose last vector's lanes are columns.
INLINE void K(norm_strip)(const steppe_norm kind, const scalar *x, ptrdiff_t ldx, size_t rows, size_t columns, const scalar *shift,
                          const scalar *rest, const scalar *limit, double *first, double *second) {
  for (size_t c = 0; c < columns; c += LANES) {
    const size_t count = columns - c < LANES ? columns - c : LANES;
    const bool whole = count == LANES;
    const vector s = whole ? load(shift + c) : K(load_tail)(shift + c, count, 0);
    const vector q = whole ? load(rest + c) : K(load_tail)(rest + c, count, 0);
    const vector l = !limit ? s : whole ? load(limit + c) : K(load_tail)(limit + c, count, 1);
    vector sum = splat(0), signs = splat(0);
    for (size_t r = 0; r < rows; r++) {
      const scalar *at = x + (ptrdiff_t)r * ldx + c;
      const vector u = ((whole ? load(at) : K(load_tail)(at, count, 0)) - s) - q;
      K(norm_terms)(kind, u, l, &sum, &signs);
    }
    if (whole) {
      add_to(first + c, sum);
      add_to(second + c, signs);
    } else {
      for (size_t i = 0; i < count; i++) first[c + i] += (double)sum[i], second[c + i] += (double)signs[i];
    }
  }
}

static void K(column_norm_sums)(steppe_norm kind, const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const void *shift,
                                const void *rest, const void *limit, double *first, double *second) {
  const scalar *from = x, *s = shift, *q = rest, *l = limit;
  for (size_t row = 0; row < rows; row += ROWS) {
    const size_t count = rows - row < ROWS ? rows - row : ROWS;
    const scalar *at = from + (ptrdiff_t)row * ldx;
    if (kind == STEPPE_NORM_ABSOLUTE) {
      K(norm_strip)(STEPPE_NORM_ABSOLUTE, at, ldx, count, columns, s, q, NULL, first, second);
    } else {
      K(norm_strip)(STEPPE_NORM_GREATEST, at, ldx, count, columns, s, q, l, first, second);
    }
  }
}

static void K(column_greatest)(const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const void *shift, const void *rest,
                               void *greatest) {
  const scalar *s = shift, *q = rest;
  scalar *most = greatest;
  for (size_t start = 0; start < columns; start += NORM_STRIP) {
    const size_t end = columns - start < NORM_STRIP ? columns : start + NORM_STRIP;
    for (size_t r = 0; r < rows; r++) {
      const scalar *at = (const scalar *)x + (ptrdiff_t)r * ldx;
      size_t c = start;
      for (; c + LANES <= end; c += LANES) {
        const vector size = K(absolute)((load(at + c) - load(s + c)) - load(q + c)), old = load(most + c);
        store(most + c, choose((size > old) | (size != size), size, old));
      }
      if (c == end) continue;
      const size_t n = end - c;
      const vector u = (K(load_tail)(at + c, n, 0) - K(load_tail)(s + c, n, 0)) - K(load_tail)(q + c, n, 0);
      const vector size = K(absolute)(u), old = K(load_tail)(most + c, n, 0);
      K(store_tail)(most + c, choose((size > old) | (size != size), size, old), n);
    }
  }
}

// dx = a·dy + b·k + e of one vector of columns.
INLINE vector K(norm_slope)(const steppe_norm kind, vector u, vector limit, vector dy, vector a, vector b, vector e) {
  const vector sign = K(signs)(u);
  const vector k = kind == STEPPE_NORM_ABSOLUTE ? sign : choose(K(absolute)(u) == limit, sign, splat(0));
  return dy * a + (k * b + e);
}

INLINE void K(norm_gradient)(const steppe_norm kind, const scalar *x, ptrdiff_t ldx, const scalar *dy, ptrdiff_t lddy, scalar *dx,
                             ptrdiff_t lddx, size_t rows, size_t columns, const scalar *const k[6]) {
  for (size_t start = 0; start < columns; start += NORM_STRIP) {
    const size_t end = columns - start < NORM_STRIP ? columns : start + NORM_STRIP;
    for (size_t r = 0; r < rows; r++) {
      const scalar *at = x + (ptrdiff_t)r * ldx, *gradient = dy + (ptrdiff_t)r * lddy;
      scalar *to = dx + (ptrdiff_t)r * lddx;
      size_t c = start;
      for (; c + LANES <= end; c += LANES) {
        const vector u = (load(at + c) - load(k[0] + c)) - load(k[1] + c);
        store(to + c, K(norm_slope)(kind, u, load(k[2] + c), load(gradient + c), load(k[3] + c), load(k[4] + c), load(k[5] + c)));
      }
      if (c == end) continue;
      const size_t n = end - c;
      vector v[6];
      for (size_t i = 0; i < 6; i++) v[i] = K(load_tail)(k[i] + c, n, 0);
      const vector u = (K(load_tail)(at + c, n, 0) - v[0]) - v[1];
      K(store_tail)(to + c, K(norm_slope)(kind, u, v[2], K(load_tail)(gradient + c, n, 0), v[3], v[4], v[5]), n);
    }
  }
}

static void K(column_norm_gradient)(steppe_norm kind, const void *x, ptrdiff_t ldx, const void *dy, ptrdiff_t lddy, void *dx,
                                    ptrdiff_t lddx, size_t rows, size_t columns, const void *shift, const void *rest,
                                    const void *limit, const void *a, const void *b, const void *e) {
  const scalar *const k[6] = {shift, rest, limit, a, b, e};
  if (kind == STEPPE_NORM_ABSOLUTE) {
    K(norm_gradient)(STEPPE_NORM_ABSOLUTE, x, ldx, dy, lddy, dx, lddx, rows, columns, k);
  } else {
    K(norm_gradient)(STEPPE_NORM_GREATEST, x, ldx, dy, lddy, dx, lddx, rows, columns, k);
  }
}

#undef NORM_STRIP
#undef ROWS
