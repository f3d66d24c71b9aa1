// Softmax by rows, its gradient, and the cross entropy losses. Every row is shifted by its maximum first, and summed in double.

// The greatest value that isn't NaN. (With a NaN in the row, its exponentials' sum makes the whole row NaN.)
INLINE scalar K(row_maximum)(const scalar *x, size_t count) {
  const scalar none = -(scalar)INFINITY;
  vector m0 = splat(none), m1 = m0;
  size_t i = 0;
  for (; i + 2 * LANES <= count; i += 2 * LANES) {
    const vector a = load(x + i), b = load(x + i + LANES);
    m0 = choose(a > m0, a, m0);
    m1 = choose(b > m1, b, m1);
  }
  for (; i + LANES <= count; i += LANES) {
    const vector a = load(x + i);
    m0 = choose(a > m0, a, m0);
  }
  if (i < count) {
    const vector a = K(load_tail)(x + i, count - i, none);
    m1 = choose(a > m1, a, m1);
  }
  return K(extreme_lane)(true, choose(m1 > m0, m1, m0));
}

INLINE vector K(masked)(vector v, ivector mask) { return (vector)((ivector)v & mask); }

// Σ exp(x − maximum); writes the exponentials where y isn't NULL, and Σ (maximum − x) where `distance` isn't.
INLINE double K(exponentials)(const scalar *x, scalar maximum, scalar *y, double *distance, size_t count) {
  const vector m = splat(maximum);
  wide sum = {0}, distances = {0};
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const vector v = load(x + i), e = K(exp)(v - m);
    if (distance) distances += STEPPE_WIDEN(m) - STEPPE_WIDEN(v);
    if (y) store(y + i, e);
    sum += STEPPE_WIDEN(e);
  }
  if (i < count) {
    const ivector mask = K(first_lanes)(count - i);
    const vector v = K(load_tail)(x + i, count - i, maximum), e = K(exp)(v - m);
    if (distance) distances += STEPPE_WIDEN(m) - STEPPE_WIDEN(v);
    if (y) K(store_tail)(y + i, e, count - i);
    sum += STEPPE_WIDEN(K(masked)(e, mask));
  }
  if (distance) *distance = K(sum_lanes)(&distances);
  return K(sum_lanes)(&sum);
}

// The first `count` lanes, 0 … LANES.
INLINE vector K(load_part)(const scalar *x, size_t count, scalar fill) {
  return count >= LANES ? load(x) : count == 0 ? splat(fill) : K(load_tail)(x, count, fill);
}
INLINE void K(store_part)(scalar *y, vector v, size_t count) {
  if (count >= LANES) {
    store(y, v);
  } else if (count > 0) {
    K(store_tail)(y, v, count);
  }
}

// A row of at most two vectors, the common few classes, stays in registers.
typedef struct K(short_row) {
  vector exponentials[2];
  scalar maximum;
  double sum;
} K(short_row);

INLINE bool K(is_short)(size_t columns) { return columns <= 2 * LANES; }

INLINE void K(exponentials_of_short)(const scalar *x, size_t columns, K(short_row) *row) {
  const scalar none = -(scalar)INFINITY;
  const size_t second = columns > LANES ? columns - LANES : 0;
  const vector a = K(load_part)(x, columns, none), b = second ? K(load_part)(x + LANES, second, none) : splat(none);
  row->maximum = K(extreme_lane)(true, choose(a > b, a, b));  // any, where the row has a NaN
  const vector m = splat(row->maximum);
  row->exponentials[0] = K(exp)(a - m);
  wide sum = STEPPE_WIDEN(row->exponentials[0]);
  if (second) {
    row->exponentials[1] = K(exp)(b - m);
    sum += STEPPE_WIDEN(row->exponentials[1]);
  }
  row->sum = K(sum_lanes)(&sum);
}

// y = scale·exponentials + offset
INLINE void K(store_short)(const K(short_row) *row, double scale, double offset, scalar *y, size_t columns) {
  const vector a = splat((scalar)scale), b = splat((scalar)offset);
  K(store_part)(y, a * row->exponentials[0] + b, columns);
  if (columns > LANES) K(store_part)(y + LANES, a * row->exponentials[1] + b, columns - LANES);
}

static void K(softmax_rows)(bool logarithm, const void *x, ptrdiff_t ldx, void *y, ptrdiff_t ldy, size_t rows, size_t columns) {
  if (columns == 0) return;
  for (size_t r = 0; r < rows; r++) {
    const scalar *from = (const scalar *)x + (ptrdiff_t)r * ldx;
    scalar *to = (scalar *)y + (ptrdiff_t)r * ldy;
    if (!logarithm && K(is_short)(columns)) {
      K(short_row) row;
      K(exponentials_of_short)(from, columns, &row);
      K(store_short)(&row, 1 / row.sum, 0, to, columns);
      continue;
    }
    const scalar maximum = K(row_maximum)(from, columns);
    if (logarithm) {
      const vector m = splat(maximum), log_sum = splat((scalar)log(K(exponentials)(from, maximum, NULL, NULL, columns)));
      size_t i = 0;
      for (; i + LANES <= columns; i += LANES) store(to + i, (load(from + i) - m) - log_sum);
      if (i < columns) K(store_tail)(to + i, (K(load_tail)(from + i, columns - i, 0) - m) - log_sum, columns - i);
    } else {
      K(affine)(to, 1 / K(exponentials)(from, maximum, to, NULL, columns), 0, to, columns);
    }
  }
}

static void K(softmax_rows_backward)(bool logarithm, const void *y, const void *dy, void *dx, size_t rows, size_t columns) {
  for (size_t r = 0; r < rows; r++) {
    const scalar *p = (const scalar *)y + r * columns, *d = (const scalar *)dy + r * columns;
    scalar *to = (scalar *)dx + r * columns;
    const vector sum = splat((scalar)(logarithm ? K(reduce)(STEPPE_SUM, d, columns) : K(dot)(p, d, columns)));
    size_t i = 0;
    for (; i + LANES <= columns; i += LANES) {
      const vector v = load(p + i), g = load(d + i);
      store(to + i, logarithm ? g - K(exp)(v) * sum : v * (g - sum));
    }
    if (i == columns) continue;
    const vector v = K(load_tail)(p + i, columns - i, 0), g = K(load_tail)(d + i, columns - i, 0);
    K(store_tail)(to + i, logarithm ? g - K(exp)(v) * sum : v * (g - sum), columns - i);
  }
}

// With S = Σ exp(x − m): −log softmax(x)[c] = log S + (m − x[c]), two terms that are not negative, so nothing cancels.
static void K(cross_entropy_classes)(const void *x, const int32_t *labels, double smoothing, double scale, double *losses,
                                     void *gradient, size_t rows, size_t columns) {
  if (columns == 0) return;
  const double each = smoothing / (double)columns;
  for (size_t r = 0; r < rows; r++) {
    const scalar *from = (const scalar *)x + r * columns;
    scalar *to = (scalar *)gradient + r * columns;
    const double at_label = (double)from[labels[r]];  // before the gradient takes x's place
    double distance = 0, maximum, sum;
    if (smoothing == 0 && K(is_short)(columns)) {
      K(short_row) row;
      K(exponentials_of_short)(from, columns, &row);
      maximum = (double)row.maximum;
      sum = row.sum;
      K(store_short)(&row, scale / sum, 0, to, columns);
    } else {
      const scalar m = K(row_maximum)(from, columns);
      maximum = (double)m;
      sum = K(exponentials)(from, m, to, &distance, columns);
      K(affine)(to, scale / sum, -scale * each, to, columns);
    }
    losses[r] = log(sum) + (1 - smoothing) * (maximum - at_label);
    if (smoothing != 0) losses[r] += each * distance;
    to[labels[r]] -= (scalar)(scale * (1 - smoothing));
  }
}

static void K(cross_entropy_distributions)(const void *x, const void *targets, double smoothing, double scale, double *losses,
                                           void *gradient, size_t rows, size_t columns) {
  if (columns == 0) return;
  const vector keep = splat((scalar)(1 - smoothing)), each = splat((scalar)(smoothing / (double)columns));
  for (size_t r = 0; r < rows; r++) {
    const scalar *from = (const scalar *)x + r * columns, *t = (const scalar *)targets + r * columns;
    scalar *to = (scalar *)gradient + r * columns;
    const scalar maximum = K(row_maximum)(from, columns);
    const vector m = splat(maximum);
    wide exponentials = {0}, weights = {0}, distances = {0};
    size_t i = 0;
    for (; i < columns; i += LANES) {
      const bool full = columns - i >= LANES;
      const ivector mask = full ? ~(ivector){0} : K(first_lanes)(columns - i);
      const vector v = full ? load(from + i) : K(load_tail)(from + i, columns - i, maximum);
      const vector w = K(masked)(keep * (full ? load(t + i) : K(load_tail)(t + i, columns - i, 0)) + each, mask);
      exponentials += STEPPE_WIDEN(K(masked)(K(exp)(v - m), mask));
      weights += STEPPE_WIDEN(w);
      // A class of weight 0 costs nothing, not even one of probability 0.
      distances += STEPPE_WIDEN(w) * STEPPE_WIDEN(choose(w == 0, splat(0), m - v));
    }
    const double sum = K(sum_lanes)(&exponentials), weight = K(sum_lanes)(&weights);
    losses[r] = weight * log(sum) + K(sum_lanes)(&distances);
    // The exponentials are computed anew, since the gradient may take the place of x or of the targets.
    const vector a = splat((scalar)(scale * weight / sum)), b = splat((scalar)scale);
    for (i = 0; i + LANES <= columns; i += LANES) {
      store(to + i, a * K(exp)(load(from + i) - m) - b * (keep * load(t + i) + each));
    }
    if (i == columns) continue;
    const vector v = K(load_tail)(from + i, columns - i, maximum), w = keep * K(load_tail)(t + i, columns - i, 0) + each;
    K(store_tail)(to + i, a * K(exp)(v - m) - b * w, columns - i);
  }
}
