// Reductions, rows of weights, transposition, bias, softmax and its losses.
#include "driver.h"

// ── reductions ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// The reduction of count values, `step` apart; `size` is what its error is relative to.
static double reference_reduction(steppe_reduction op, const void *x, size_t start, size_t step, size_t count, double *size) {
  double r = op == STEPPE_PRODUCT ? 1 : op == STEPPE_REDUCE_MINIMUM ? INFINITY : op == STEPPE_REDUCE_MAXIMUM ? -INFINITY : 0;
  *size = 0;
  for (size_t i = 0; i < count; i++) {
    const double v = get(x, start + i * step);
    switch (op) {
    case STEPPE_SUM: r += v, *size += fabs(v); break;
    case STEPPE_SUM_OF_SQUARES: r += v * v, *size += v * v; break;
    case STEPPE_SUM_OF_ABSOLUTES: r += fabs(v), *size += fabs(v); break;
    case STEPPE_REDUCE_MINIMUM: r = v < r ? v : r; break;
    case STEPPE_REDUCE_MAXIMUM: r = v > r ? v : r; break;
    case STEPPE_PRODUCT: r *= v, *size = fabs(r) * (double)count; break;
    }
  }
  return r;
}

void check_reductions(size_t rows, size_t columns, size_t gap, unsigned where) {
  const size_t ld = columns + gap, count = (rows - 1) * ld + columns;
  const double tolerance = scalar_bytes == 4 ? 1.5e-6 : 2e-14;
  void *x = random_at(0, count, where, 0.2, 1);
  const void *y = random_at(1, count, where, 0, 1);
  double size;
  for (int op = STEPPE_SUM; op <= STEPPE_PRODUCT; op++) {
    const steppe_reduction o = (steppe_reduction)op;
    // Products of values near 1, so that they neither vanish nor overflow.
    for (size_t i = 0; o == STEPPE_PRODUCT && i < count; i++) set(x, i, 1 + (uniform() - 0.5) * 0.1);
    double wanted = reference_reduction(o, x, 0, 1, count, &size);
    expect("reduce", (size_t)op, table->reduce(o, x, count), wanted, tolerance * size);
    void *out = place(2, columns, where);
    table->reduce_columns(o, x, (ptrdiff_t)ld, rows, columns, out);
    for (size_t c = 0; c < columns; c++) {
      wanted = reference_reduction(o, x, c, ld, rows, &size);
      expect("reduce_columns", (size_t)op * 100000 + c, get(out, c), wanted, tolerance * size);
    }
    out = place(2, rows, where);
    table->reduce_rows(o, x, (ptrdiff_t)ld, rows, columns, out);
    for (size_t r = 0; r < rows; r++) {
      wanted = reference_reduction(o, x, r * ld, 1, columns, &size);
      expect("reduce_rows", (size_t)op * 100000 + r, get(out, r), wanted, tolerance * size);
    }
  }
  double dot = 0;
  size = 0;
  for (size_t i = 0; i < count; i++) dot += get(x, i) * get(y, i), size += fabs(get(x, i) * get(y, i));
  expect("dot", 0, table->dot(x, y, count), dot, tolerance * size);
  for (int k = 0; k < 4; k++) {
    const size_t at = next() % count;
    set(x, at, k == 3 ? NAN : 100);
    if (k == 1) set(x, count - 1, 100);
    size_t first = 0;
    for (size_t i = 1; i < count && !isnan(get(x, first)); i++) {
      if (get(x, i) > get(x, first) || isnan(get(x, i))) first = i;
    }
    expect("index_of_maximum", (size_t)k, (double)table->index_of_maximum(x, count), (double)first, 0);
  }
  expect("reduce", 98, table->reduce(STEPPE_REDUCE_MINIMUM, x, count), NAN, 0);
  expect("reduce", 99, table->reduce(STEPPE_REDUCE_MAXIMUM, x, count), NAN, 0);
}

// ── rows of weights ───────────────────────────────────────────────────────────────────────────────────────────────────────────

void check_weights(size_t rows, size_t columns, size_t gap, unsigned where) {
  const size_t ld = columns + gap, count = (rows - 1) * ld + columns;
  const void *x = random_at(0, count, where, 0, 1), *y = random_at(1, count, where, 0, 1);
  static double a[512], b[512], dots[512];
  for (size_t r = 0; r < rows; r++) a[r] = rounded(centered()), b[r] = rounded(centered());
  for (int shared = 0; shared < 2; shared++) {
    const size_t ldy = shared ? 0 : ld;
    table->dot_rows(x, (ptrdiff_t)ld, y, (ptrdiff_t)ldy, rows, columns, dots);
    for (size_t r = 0; r < rows; r++) {
      double wanted = 0, size = 0;
      for (size_t c = 0; c < columns; c++) {
        const double term = get(x, r * ld + c) * get(y, r * ldy + c);
        wanted += term, size += fabs(term);
      }
      expect("dot_rows", r, dots[r], wanted, 2e-14 * size);
    }
    for (int variant = 0; variant < 4; variant++) {
      const bool both = variant & 1, adding = variant & 2;
      void *z = random_at(2, count, where, 0, 1);
      void *before = random_at(3, count, 0, 0, 1);
      for (size_t i = 0; i < count; i++) set(before, i, get(z, i));
      table->combine_rows(x, (ptrdiff_t)ld, a, both ? y : NULL, (ptrdiff_t)ldy, both ? b : NULL, z, (ptrdiff_t)ld, rows, columns,
                          adding);
      for (size_t i = 0; i < count; i++) {
        const size_t r = i / ld, c = i % ld;
        const double first = a[r] * get(x, i), second = both && c < columns ? b[r] * get(y, r * ldy + c) : 0;
        const double third = adding ? get(before, i) : 0;
        const double size = fabs(first) + fabs(second) + fabs(third);
        expect("combine_rows", i, get(z, i), c < columns ? first + second + third : get(before, i), 4 * epsilon * size);
      }
    }
  }
}

// ── matrices: transposition, bias, softmax and its losses ─────────────────────────────────────────────────────────────────────

void check_matrices(size_t rows, size_t columns, size_t gap, unsigned where) {
  const size_t ld = columns + gap, count = (rows - 1) * ld + columns, all = rows * columns;
  const double few = scalar_bytes == 4 ? 3e-6 : 1e-14;
  const void *x = random_at(0, count, where, 0, 3), *bias = random_at(1, columns, where, 0, 1);
  const size_t ldt = rows + gap, transposed = (columns - 1) * ldt + rows;
  void *y = place(2, count > transposed ? count : transposed, where);
  table->transpose(x, (ptrdiff_t)ld, y, (ptrdiff_t)ldt, rows, columns);
  for (size_t i = 0; i < all; i++) {
    expect("transpose", i, get(y, i % columns * ldt + i / columns), get(x, i / columns * ld + i % columns), 0);
  }
  for (int kind = STEPPE_IDENTITY; kind <= STEPPE_SILU; kind++) {
    for (int with = 0; with < 2; with++) {
      table->bias_activate((steppe_activation)kind, 0.25, x, (ptrdiff_t)ld, with ? bias : NULL, y, (ptrdiff_t)ld, rows, columns);
      for (size_t i = 0; i < all; i++) {
        const size_t c = i % columns, at = i / columns * ld + c;
        const double v = rounded(get(x, at) + (with ? get(bias, c) : 0));
        const double wanted = reference_activation((steppe_activation)kind, 0.25, v);
        expect("bias_activate", (size_t)kind * 1000000 + i, get(y, at), wanted, 12 * epsilon * (fabs(v) + 1));
      }
    }
  }
  void *dy = random_at(3, all, where, 0, 1), *dx = place(4, all, where), *s = place(5, all, where);
  for (int logarithm = 0; logarithm < 2; logarithm++) {
    table->softmax_rows(logarithm, x, (ptrdiff_t)ld, s, (ptrdiff_t)columns, rows, columns);
    table->softmax_rows_backward(logarithm, s, dy, dx, rows, columns);
    for (size_t r = 0; r < rows; r++) {
      double greatest = -INFINITY, total = 0, inner = 0, size = 0;
      for (size_t c = 0; c < columns; c++) greatest = fmax(greatest, get(x, r * ld + c));
      for (size_t c = 0; c < columns; c++) total += exp(get(x, r * ld + c) - greatest);
      for (size_t c = 0; c < columns; c++) {
        const size_t i = r * columns + c;
        const double l = get(x, r * ld + c) - greatest - log(total);
        expect("softmax_rows", i, get(s, i), logarithm ? l : exp(l), few * (logarithm ? fabs(l) + 1 : exp(l)));
        const double term = get(dy, i) * (logarithm ? 1 : get(s, i));
        inner += term, size += fabs(term);
      }
      for (size_t c = 0; c < columns; c++) {
        const size_t i = r * columns + c;
        const double v = get(s, i), g = get(dy, i), wanted = logarithm ? g - exp(v) * inner : v * (g - inner);
        const double weight = logarithm ? fabs(g) + exp(v) * size : v * (fabs(g) + size);
        expect("softmax_rows_backward", i, get(dx, i), wanted, few * weight);
      }
    }
  }
  static int32_t labels[4096];
  static double losses[4096];
  void *z = random_at(0, all, where, 0, 3), *targets = random_at(1, all, where, 0, 1);
  for (size_t i = 0; i < all; i++) set(targets, i, fabs(get(targets, i)) / (double)columns);
  for (size_t r = 0; r < rows; r++) labels[r] = (int32_t)(next() % columns);
  for (int way = 0; way < 4; way++) {
    const bool classes = way & 1;
    const double smoothing = way & 2 ? rounded(0.1) : 0, scale = 0.25;
    if (classes) {
      table->cross_entropy_classes(z, labels, smoothing, scale, losses, dx, rows, columns);
    } else {
      table->cross_entropy_distributions(z, targets, smoothing, scale, losses, dx, rows, columns);
    }
    for (size_t r = 0; r < rows; r++) {
      double greatest = -INFINITY, total = 0, loss = 0, size = 0, weight = 0;
      for (size_t c = 0; c < columns; c++) greatest = fmax(greatest, get(z, r * columns + c));
      for (size_t c = 0; c < columns; c++) total += exp(get(z, r * columns + c) - greatest);
      for (size_t pass = 0; pass < 2; pass++) {
        for (size_t c = 0; c < columns; c++) {
          const size_t i = r * columns + c;
          const double l = get(z, i) - greatest - log(total);
          const double target = classes ? (size_t)labels[r] == c : get(targets, i);
          const double t = (1 - smoothing) * target + smoothing / (double)columns;
          if (pass == 0) {
            loss -= t * l, size += fabs(t * l) + t, weight += t;
          } else {
            expect("cross_entropy (gradient)", (size_t)way * 1000000 + i, get(dx, i), scale * (exp(l) * weight - t),
                   few * scale * (exp(l) * weight + t) * 2);
          }
        }
      }
      expect("cross_entropy", (size_t)way * 1000000 + r, losses[r], loss, few * size);
    }
  }
}

// Whole squares of a vector's lanes are turned in registers; what is left is not. Between the rows of y stays what was there.
void check_transposition(void) {
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes;
  const size_t sizes[] = {1, 3, lanes - 1, lanes, lanes + 1, 2 * lanes, 2 * lanes + 3, 5 * lanes + 1, 64, 100};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
      const size_t rows = sizes[i], columns = sizes[j], gap = next() % 4, ldx = columns + gap, ldy = rows + next() % 4;
      if (rows == 0 || columns == 0) continue;
      const unsigned where = (unsigned)(next() % 3);
      snprintf(shape, sizeof shape, "%zu x %zu, distances %zu and %zu, start %u", rows, columns, ldx, ldy, where);
      const void *x = random_at(0, (rows - 1) * ldx + columns, where, 0, 1);
      const size_t count = (columns - 1) * ldy + rows;
      void *y = place(1, count, where);
      for (size_t k = 0; k < count; k++) set(y, k, 777);
      table->transpose(x, (ptrdiff_t)ldx, y, (ptrdiff_t)ldy, rows, columns);
      for (size_t k = 0; k < count; k++) {
        expect("transpose", k, get(y, k), k % ldy < rows ? get(x, k % ldy * ldx + k / ldy) : 777, 0);
      }
    }
  }
}
