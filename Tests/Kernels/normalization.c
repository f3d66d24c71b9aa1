// Normalization over columns and runs: statistics, maps, gradients, other norms, and what special values become.
#include "driver.h"

// ── normalization over columns ────────────────────────────────────────────────────────────────────────────────────────────────

#define LARGEST_ROW ((size_t)4200)
static double sums[LARGEST_ROW + 2], others[LARGEST_ROW + 2];

void check_columns(size_t rows, size_t columns, size_t gap, unsigned where, double mean) {
  const size_t ld = columns + gap, count = rows == 0 ? 0 : (rows - 1) * ld + columns;
  const void *x = random_at(0, count, where, mean, 1), *dy = random_at(1, count, where == 0 ? 0 : where + 1, 0.1, 1);
  void *y = place(2, count, where);
  const void *shift = random_at(3, columns, where, mean, 0.1), *a = random_at(4, columns, where, 0, 1);
  const void *b = random_at(5, columns, 0, 0, 1), *e = random_at(6, columns, where, 0, 1);
  const double tolerance = scalar_bytes == 4 ? 1.5e-6 : 2e-14;

  // What a fused ReLU let pass, by the forward's own kernel.
  void *activated = place(7, count, where);
  table->column_normalize(STEPPE_RELU, 0, x, (ptrdiff_t)ld, activated, (ptrdiff_t)ld, rows, columns, shift, b, e, false, false);

  for (int gradient = 0; gradient < 3; gradient++) {
    const bool masked = gradient == 2;
    const char *kernel = masked ? "column_gradient_sums (ReLU)" : gradient ? "column_gradient_sums" : "column_moments";
    for (size_t c = 0; c < columns + 2; c++) sums[c] = others[c] = 3;
    if (gradient) {
      table->column_gradient_sums(x, (ptrdiff_t)ld, dy, (ptrdiff_t)ld, rows, columns, shift, masked ? b : NULL,
                                  masked ? e : NULL, sums + 1, others + 1);
    } else {
      table->column_moments(x, (ptrdiff_t)ld, rows, columns, shift, sums + 1, others + 1);
    }
    expect(kernel, 0, sums[0] + others[0] + sums[columns + 1] + others[columns + 1], 12, 0);
    for (size_t c = 0; c < columns; c++) {
      double s = 0, q = 0, s_size = 1e-300, q_size = 1e-300;
      for (size_t r = 0; r < rows; r++) {
        const double d = rounded(get(x, r * ld + c) - get(shift, c));
        double w = gradient ? get(dy, r * ld + c) : d;
        if (masked && get(activated, r * ld + c) == 0) w = 0;
        s += w, s_size += fabs(w), q += w * d, q_size += fabs(w * d);
      }
      expect(kernel, c, sums[c + 1] - 3, s, tolerance * s_size + 1e-14);
      expect(kernel, columns + c, others[c + 1] - 3, q, tolerance * q_size + 1e-14);
    }
  }

  static const struct { steppe_activation kind; bool backwards, stream, in_place; } ways[] = {
      {STEPPE_IDENTITY, false, false, false}, {STEPPE_IDENTITY, true, false, true}, {STEPPE_IDENTITY, false, true, false},
      {STEPPE_IDENTITY, true, true, true},    {STEPPE_RELU, true, false, false},    {STEPPE_RELU, false, true, true},
      {STEPPE_LEAKY_RELU, true, true, true},  {STEPPE_TANH, false, false, false},   {STEPPE_SILU, true, false, true}};
  for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
    const void *from = x;
    for (size_t i = 0; i < count; i++) set(y, i, ways[w].in_place ? get(x, i) : 777);
    if (ways[w].in_place) from = y;
    table->column_normalize(ways[w].kind, 0.25, from, (ptrdiff_t)ld, y, (ptrdiff_t)ld, rows, columns, shift, b, e,
                            ways[w].backwards, ways[w].stream);
    for (size_t i = 0; i < count; i++) {
      const size_t c = i % ld;
      if (c >= columns) {
        expect("column_normalize (margin)", i, get(y, i), ways[w].in_place ? get(x, i) : 777, 0);
        continue;
      }
      const double d = rounded(get(x, i) - get(shift, c)), t = d * get(b, c) + get(e, c);
      const double size = fabs(d * get(b, c)) + fabs(get(e, c));
      expect("column_normalize", i, get(y, i), reference_activation(ways[w].kind, 0.25, t), 6 * epsilon * size);
    }
  }
  for (int way = 0; way < 16; way++) {
    const bool backwards = way & 1, stream = way / 2 % 4 % 2 == 1, far = way / 2 % 4 == 3, in_place = way / 2 % 4 == 2, masked = way >= 8;
    for (size_t i = 0; i < count; i++) set(y, i, in_place ? get(dy, i) : 777);
    table->column_gradient(x, (ptrdiff_t)ld, in_place ? y : dy, (ptrdiff_t)ld, y, (ptrdiff_t)ld, rows, columns, shift,
                           masked ? b : NULL, masked ? e : NULL, a, b, e, backwards, stream, far);
    for (size_t i = 0; i < count; i++) {
      const size_t c = i % ld;
      if (c >= columns) {
        expect("column_gradient (margin)", i, get(y, i), in_place ? get(dy, i) : 777, 0);
        continue;
      }
      const double d = rounded(get(x, i) - get(shift, c)), q = d * get(b, c);
      const double p = masked && get(activated, i) == 0 ? 0 : get(dy, i) * get(a, c);
      expect(masked ? "column_gradient (ReLU)" : "column_gradient", i, get(y, i), p + q + get(e, c), 6 * epsilon * (fabs(p) + fabs(q) + fabs(get(e, c))));
    }
  }
  for (int way = 0; way < 6; way++) {
    const bool backwards = way & 1, stream = way / 2 == 1, in_place = way / 2 == 2;
    for (size_t i = 0; i < count; i++) set(y, i, in_place ? get(dy, i) : 777);
    table->column_normalize_residual(x, (ptrdiff_t)ld, in_place ? y : dy, (ptrdiff_t)ld, y, (ptrdiff_t)ld, rows, columns, shift,
                                     b, e, backwards, stream);
    for (size_t i = 0; i < count; i++) {
      const size_t c = i % ld;
      if (c >= columns) {
        expect("column_normalize_residual (margin)", i, get(y, i), in_place ? get(dy, i) : 777, 0);
        continue;
      }
      const double q = rounded(get(x, i) - get(shift, c)) * get(b, c), sum = q + get(e, c) + get(dy, i);
      expect("column_normalize_residual", i, get(y, i), sum < 0 ? 0 : sum,
             6 * epsilon * (fabs(q) + fabs(get(e, c)) + fabs(get(dy, i))));
    }
  }
}

// ── normalization over runs ───────────────────────────────────────────────────────────────────────────────────────────────────

void check_runs(size_t runs, size_t length, size_t gap, unsigned where, double mean) {
  const size_t stride = length + gap, count = runs == 0 ? 0 : (runs - 1) * stride + length;
  const void *x = random_at(0, count, where, mean, 1), *dy = random_at(1, count, where == 0 ? 0 : where + 1, 0.1, 1);
  void *y = place(2, count, where);
  const double shift = rounded(mean + 0.05), a = rounded(0.7), b = rounded(-1.3), e = rounded(0.21);
  const double tolerance = scalar_bytes == 4 ? 1.5e-6 : 2e-14;
  void *activated = place(7, count, where);
  table->run_normalize(STEPPE_RELU, 0, x, activated, (ptrdiff_t)stride, runs, length, shift, b, e, false, false);
  for (int gradient = 0; gradient < 3; gradient++) {
    const bool masked = gradient == 2;
    double sum = 3, other = 3, s = 0, q = 0, s_size = 1e-300, q_size = 1e-300;
    if (gradient) {
      table->run_gradient_sums(x, dy, (ptrdiff_t)stride, runs, length, shift, masked, b, e, &sum, &other);
    } else {
      table->run_moments(x, (ptrdiff_t)stride, runs, length, shift, &sum, &other);
    }
    for (size_t i = 0; i < count; i++) {
      if (i % stride >= length) continue;
      const double d = rounded(get(x, i) - shift);
      double w = gradient ? get(dy, i) : d;
      if (masked && get(activated, i) == 0) w = 0;
      s += w, s_size += fabs(w), q += w * d, q_size += fabs(w * d);
    }
    const char *kernel = masked ? "run_gradient_sums (ReLU)" : gradient ? "run_gradient_sums" : "run_moments";
    expect(kernel, 0, sum - 3, s, tolerance * s_size + 1e-14);
    expect(kernel, 1, other - 3, q, tolerance * q_size + 1e-14);
  }
  static const steppe_activation kinds[] = {STEPPE_IDENTITY, STEPPE_RELU, STEPPE_GELU};
  for (int way = 0; way < 24; way++) {
    const steppe_activation kind = kinds[way / 8];
    const bool backwards = way & 1, stream = way & 2, in_place = way & 4;
    for (size_t i = 0; i < count; i++) set(y, i, in_place ? get(x, i) : 777);
    table->run_normalize(kind, 0, in_place ? y : x, y, (ptrdiff_t)stride, runs, length, shift, b, e, backwards, stream);
    for (size_t i = 0; i < count; i++) {
      const double d = rounded(get(x, i) - shift);
      if (i % stride >= length) {
        expect("run_normalize (margin)", i, get(y, i), in_place ? get(x, i) : 777, 0);
      } else {
        expect("run_normalize", i, get(y, i), reference_activation(kind, 0, d * b + e), 6 * epsilon * (fabs(d * b) + fabs(e)));
      }
    }
    if (kind == STEPPE_GELU) {
      for (size_t i = 0; i < count; i++) set(y, i, in_place ? get(dy, i) : 777);
      table->run_normalize_residual(x, in_place ? y : dy, y, (ptrdiff_t)stride, runs, length, shift, b, e, backwards, stream);
      for (size_t i = 0; i < count; i++) {
        const double q = rounded(get(x, i) - shift) * b, sum = q + e + get(dy, i);
        if (i % stride >= length) {
          expect("run_normalize_residual (margin)", i, get(y, i), in_place ? get(dy, i) : 777, 0);
        } else {
          expect("run_normalize_residual", i, get(y, i), sum < 0 ? 0 : sum, 6 * epsilon * (fabs(q) + fabs(e) + fabs(get(dy, i))));
        }
      }
      continue;
    }
    const bool masked = kind == STEPPE_RELU;
    for (size_t i = 0; i < count; i++) set(y, i, in_place ? get(dy, i) : 777);
    table->run_gradient(x, in_place ? y : dy, y, (ptrdiff_t)stride, runs, length, shift, masked, b, e, a, b, e, backwards, stream);
    for (size_t i = 0; i < count; i++) {
      const double d = rounded(get(x, i) - shift), p = masked && get(activated, i) == 0 ? 0 : get(dy, i) * a;
      if (i % stride >= length) {
        expect("run_gradient (margin)", i, get(y, i), in_place ? get(dy, i) : 777, 0);
      } else {
        expect("run_gradient", i, get(y, i), p + d * b + e, 6 * epsilon * (fabs(p) + fabs(d * b) + fabs(e)));
      }
    }
  }
}

// `channels` channels in turn, of `runs` runs the ones from `first` on; the others stay.
void check_channels(size_t channels, size_t runs, size_t length, size_t first, unsigned where) {
  const size_t count = (first + runs + 1) * length;
  const void *x = random_at(0, count, where, 20, 1), *residual = random_at(1, count, where == 0 ? 0 : where + 1, 0.1, 1);
  const void *shift = random_at(3, channels, where, 20, 1), *scale = random_at(4, channels, where, 0, 1);
  const void *offset = random_at(5, channels, where, 0, 1);
  void *y = place(2, count, where);
  static const steppe_activation kinds[] = {STEPPE_IDENTITY, STEPPE_RELU, STEPPE_GELU, STEPPE_RELU};
  for (int way = 0; way < 16; way++) {
    const bool backwards = way & 1, stream = way & 2, adds = way / 4 == 3;
    for (size_t i = 0; i < count; i++) set(y, i, 777);
    table->channels_normalize(kinds[way / 4], 0, x, adds ? residual : NULL, y, first, runs, length, channels, shift, scale, offset,
                              backwards, stream);
    for (size_t i = 0; i < count; i++) {
      const size_t run = i / (length ? length : 1), c = run % channels;
      if (run < first || run >= first + runs) {
        expect("channels_normalize (margin)", i, get(y, i), 777, 0);
        continue;
      }
      const double q = rounded(get(x, i) - get(shift, c)) * get(scale, c), e = get(offset, c), r = adds ? get(residual, i) : 0;
      expect("channels_normalize", i, get(y, i), reference_activation(kinds[way / 4], 0, q + e + r),
             6 * epsilon * (fabs(q) + fabs(e) + fabs(r)));
    }
  }
}

// What is not a number, and what is infinite, goes where arithmetic takes it and nowhere else.
void check_special_values(void) {
  snprintf(shape, sizeof shape, "special values");
  for (size_t columns = 1; columns < 40; columns += 3) {
    const size_t rows = 50, at = 20 * columns + columns / 2;
    const double specials[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++) {
      void *x = random_at(0, rows * columns, 0, 0, 1), *y = place(2, rows * columns, 0);
      set(x, at, specials[k]);
      void *shift = random_at(3, columns, 0, 0, 1), *b = random_at(4, columns, 0, 3, 1);
      for (size_t c = 0; c < columns; c++) sums[c] = others[c] = 0;
      table->column_moments(x, (ptrdiff_t)columns, rows, columns, shift, sums, others);
      for (size_t c = 0; c < columns; c++) {
        expect("column_moments", c, isfinite(sums[c]), c != columns / 2, 0);
        if (c == columns / 2) expect("column_moments", c, sums[c], specials[k], 0);
      }
      table->column_normalize(STEPPE_RELU, 0, x, (ptrdiff_t)columns, y, (ptrdiff_t)columns, rows, columns, shift, b, shift, false,
                              false);
      for (size_t i = 0; i < rows * columns; i++) {
        if (i != at) expect("column_normalize", i, isfinite(get(y, i)), 1, 0);
      }
      expect("column_normalize", at, get(y, at), k == 2 ? 0 : specials[k], 0);
      double s = 0, q = 0;
      table->run_moments(x, (ptrdiff_t)(rows * columns), 1, rows * columns, 0.5, &s, &q);
      expect("run_moments", 0, s, specials[k], 0);
      table->run_normalize(STEPPE_RELU, 0, x, y, (ptrdiff_t)(rows * columns), 1, rows * columns, 0.5, 3, 0, false, false);
      expect("run_normalize", at, get(y, at), k == 2 ? 0 : specials[k], 0);
    }
  }
}

// A million values a channel, most of them alike: the sums must not drift.
void check_many_values(void) {
  snprintf(shape, sizeof shape, "a million values");
  const size_t columns = 16, rows = 8000, passes = 125 / thinning + 1;
  void *x = place(0, rows * columns, 1), *shift = place(3, columns, 1);
  for (size_t i = 0; i < rows * columns; i++) set(x, i, i % 32 < 16 ? 0.1 : 0.1 + 1e-3 * uniform());
  for (size_t c = 0; c < columns; c++) set(shift, c, 0), sums[c] = others[c] = 0;
  double sum = 0, square = 0;
  for (size_t k = 0; k < passes; k++) {
    table->column_moments(x, (ptrdiff_t)columns, rows, columns, shift, sums, others);
    table->run_moments(x, (ptrdiff_t)(rows * columns), 1, rows * columns, 0, &sum, &square);
  }
  double s_all = 0, q_all = 0;
  for (size_t c = 0; c < columns; c++) {
    double s = 0, q = 0;
    for (size_t r = 0; r < rows; r++) s += get(x, r * columns + c), q += get(x, r * columns + c) * get(x, r * columns + c);
    const double n = (double)passes;
    expect("column_moments", c, sums[c], n * s, n * s * (scalar_bytes == 4 ? 1e-6 : 1e-12));
    expect("column_moments", columns + c, others[c], n * q, n * q * (scalar_bytes == 4 ? 1e-6 : 1e-12));
    s_all += n * s, q_all += n * q;
  }
  expect("run_moments", 0, sum, s_all, s_all * (scalar_bytes == 4 ? 1e-6 : 1e-12));
  expect("run_moments", 1, square, q_all, q_all * (scalar_bytes == 4 ? 1e-6 : 1e-12));
}

// ── norms other than the deviation ────────────────────────────────────────────────────────────────────────────────────────────

void check_norms(size_t rows, size_t columns, size_t gap, unsigned where) {
  const size_t ld = columns + gap, count = (rows - 1) * ld + columns;
  const void *x = random_at(0, count, where, 3, 1), *dy = random_at(1, count, where, 0, 1);
  const void *shift = random_at(3, columns, where, 3, 0.1), *rest = random_at(4, columns, 0, 0, 1e-7);
  void *greatest = place(5, columns, where), *dx = place(2, count, where);
  for (size_t c = 0; c < columns; c++) set(greatest, c, 0);
  table->column_greatest(x, (ptrdiff_t)ld, rows, columns, shift, rest, greatest);
  const void *k = random_at(6, columns, where, 0, 1);
  for (int kind = STEPPE_NORM_ABSOLUTE; kind <= STEPPE_NORM_GREATEST; kind++) {
    for (size_t c = 0; c < columns; c++) sums[c] = 1, others[c] = -2;
    table->column_norm_sums((steppe_norm)kind, x, (ptrdiff_t)ld, rows, columns, shift, rest, greatest, sums, others);
    table->column_norm_gradient((steppe_norm)kind, x, (ptrdiff_t)ld, dy, (ptrdiff_t)ld, dx, (ptrdiff_t)ld, rows, columns, shift,
                                rest, greatest, k, rest, k);
    for (size_t c = 0; c < columns; c++) {
      double first = 1, second = -2, size = 1, most = 0;
      for (size_t r = 0; r < rows; r++) {
        const double u = rounded(rounded(get(x, r * ld + c) - get(shift, c)) - get(rest, c)), sign = u > 0 ? 1 : u < 0 ? -1 : 0;
        const bool counts = kind == STEPPE_NORM_ABSOLUTE || fabs(u) == get(greatest, c);
        first += kind == STEPPE_NORM_ABSOLUTE ? fabs(u) : counts;
        second += counts ? sign : 0;
        size += fabs(u);
        most = fmax(most, fabs(u));
        const double wanted = get(k, c) * get(dy, r * ld + c) + (counts ? sign : 0) * get(rest, c) + get(k, c);
        expect("column_norm_gradient", r * ld + c, get(dx, r * ld + c), wanted, 6 * epsilon * (fabs(get(k, c)) * 8 + 1));
      }
      expect("column_greatest", c, get(greatest, c), most, 0);
      expect("column_norm_sums", c, sums[c], first, (scalar_bytes == 4 ? 1e-6 : 1e-14) * size);
      expect("column_norm_sums signs", c, others[c], second, 0);
    }
  }
}
