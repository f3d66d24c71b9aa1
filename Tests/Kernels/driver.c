// Checks the kernels of every instruction set that this machine runs, and the 512-bit body, against plain loops in double.
//
// Every operand ends right before a page that can't be touched or begins right after one, so a read out of range ends the
// program; a margin around each output shows writes out of range. Exit code 0 means that all agree. `driver 7` takes
// every seventh shape, for slow ways to run it.
#define _GNU_SOURCE
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "steppe_kernels.h"

extern const steppe_kernel_table steppe_table_wide512_f32, steppe_table_wide512_f64;

static const steppe_kernel_table *table;
static size_t scalar_bytes;
static double epsilon;
static int failures;
static long checks;
static char shape[160];
static unsigned thinning = 1;

// ── data ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

static uint64_t state = 20240607;

static uint64_t next(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state * 0x2545F4914F6CDD1DULL;
}
static double uniform(void) { return (double)(next() >> 11) * 0x1p-53; }
static double centered(void) { return (uniform() + uniform() + uniform() - 1.5) * 2; }

static double get(const void *p, size_t i) { return scalar_bytes == 4 ? ((const float *)p)[i] : ((const double *)p)[i]; }
static void set(void *p, size_t i, double value) {
  if (scalar_bytes == 4) {
    ((float *)p)[i] = (float)value;
  } else {
    ((double *)p)[i] = value;
  }
}
// What the scalar type makes of a value.
static double rounded(double value) { return scalar_bytes == 4 ? (double)(float)value : value; }

// ── memory between forbidden pages ────────────────────────────────────────────────────────────────────────────────────────────

enum { ARENAS = 8, ROOM = 1 << 20 };
static char *arenas[ARENAS];
static size_t page;

static void reserve_arenas(void) {
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
static void *place(int i, size_t count, unsigned where) {
  const size_t bytes = count * scalar_bytes;
  if (bytes + 64 * scalar_bytes > ROOM) {
    fprintf(stderr, "driver: an operand of %zu bytes is too large\n", bytes);
    exit(2);
  }
  return where == 0 ? arenas[i] + ROOM - bytes : arenas[i] + (where - 1) * scalar_bytes;
}
static void *random_at(int i, size_t count, unsigned where, double offset, double scale) {
  void *p = place(i, count, where);
  for (size_t k = 0; k < count; k++) set(p, k, offset + scale * centered());
  return p;
}

// ── comparison ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

static bool same(double a, double b) { return a == b || (isnan(a) && isnan(b)); }

static void expect(const char *kernel, size_t i, double got, double wanted, double tolerance) {
  checks++;
  if (same(got, wanted) || fabs(got - wanted) <= tolerance) return;
  if (failures++ < 40) {
    fprintf(stderr, "%s f%zu %s %s [%zu]: %.17g, not %.17g (error %.3g, allowed %.3g)\n", table->instruction_set,
            scalar_bytes * 8, kernel, shape, i, got, wanted, got - wanted, tolerance);
  }
}

static double reference_activation(steppe_activation kind, double parameter, double x) {
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

// ── normalization over columns ────────────────────────────────────────────────────────────────────────────────────────────────

#define LARGEST_ROW ((size_t)4200)
static double sums[LARGEST_ROW + 2], others[LARGEST_ROW + 2];

static void check_columns(size_t rows, size_t columns, size_t gap, unsigned where, double mean) {
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
  for (int way = 0; way < 12; way++) {
    const bool backwards = way & 1, stream = way / 2 % 3 == 1, in_place = way / 2 % 3 == 2, masked = way >= 6;
    for (size_t i = 0; i < count; i++) set(y, i, in_place ? get(dy, i) : 777);
    table->column_gradient(x, (ptrdiff_t)ld, in_place ? y : dy, (ptrdiff_t)ld, y, (ptrdiff_t)ld, rows, columns, shift,
                           masked ? b : NULL, masked ? e : NULL, a, b, e, backwards, stream);
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

static void check_runs(size_t runs, size_t length, size_t gap, unsigned where, double mean) {
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

// ── normalization of rows by their own statistics ─────────────────────────────────────────────────────────────────────────────

enum { MOST_ROWS = 64, MOST_CHANNELS = 6000 };

static void check_groups(steppe_groups groups, unsigned where, double mean) {
  static double statistics[3 * MOST_ROWS], totals[2 * MOST_ROWS], d_gamma[MOST_CHANNELS], d_beta[MOST_CHANNELS];
  static double gamma_sums[MOST_CHANNELS], gamma_sizes[MOST_CHANNELS], beta_sums[MOST_CHANNELS], beta_sizes[MOST_CHANNELS];
  const size_t s = groups.positions, n = groups.values = groups.channels * s, count = groups.rows * n;
  const size_t channels = groups.period * groups.channels;
  const void *x = random_at(0, count, where, mean, 1), *dy = random_at(1, count, where == 0 ? 0 : where + 1, 0.1, 1);
  const void *gamma = random_at(3, channels, where, 1, 0.5), *beta = random_at(4, channels, where, 0, 1);
  void *y = place(2, count, where);
  const double close = (scalar_bytes == 4 ? 2e-6 : 4e-15) + 4 * 0x1p-53 * fabs(mean);
  groups.epsilon = 1e-5;
  for (int way = 0; way < 8; way++) {
    groups.centered = way & 1, groups.stream = way & 2;
    const bool parts = way & 4;
    for (size_t i = 0; i < count; i++) set(y, i, 777);
    if (parts) table->group_normalize(STEPPE_GROUP_SUMS, &groups, x, y, gamma, beta, statistics);
    if (parts && count > 0) expect("group_normalize (sums)", 0, get(y, 0), 777, 0);
    table->group_normalize(parts ? STEPPE_GROUP_MAP : STEPPE_GROUP_ALL, &groups, x, y, gamma, beta, statistics);
    for (size_t c = 0; c < channels; c++) {
      d_gamma[c] = d_beta[c] = 3, gamma_sums[c] = beta_sums[c] = 3, gamma_sizes[c] = beta_sizes[c] = 1;
    }
    double shift[MOST_ROWS], scale[MOST_ROWS], first[MOST_ROWS], second[MOST_ROWS], sizes[MOST_ROWS];
    for (size_t r = 0; r < groups.rows; r++) {
      const size_t channel = (groups.first + r) % groups.period * groups.channels;
      double m = 0, v = 0;
      if (groups.centered) {
        for (size_t i = 0; i < n; i++) m += (get(x, r * n + i) - mean) / (double)n;
        m += mean;
      }
      for (size_t i = 0; i < n; i++) v += (get(x, r * n + i) - m) * (get(x, r * n + i) - m) / (double)n;
      expect("group_normalize (mean)", r, statistics[3 * r] + statistics[3 * r + 1], m, close * (1 + fabs(m) * epsilon));
      expect("group_normalize (variance)", r, statistics[3 * r + 2], v, 2 * close * v);
      shift[r] = m, scale[r] = 1 / sqrt(v + groups.epsilon), first[r] = second[r] = sizes[r] = 0;
      for (size_t i = 0; i < n; i++) {
        const size_t c = channel + i / s;
        const double hat = (get(x, r * n + i) - m) * scale[r], w = get(dy, r * n + i), g = get(gamma, c);
        expect("group_normalize", r * n + i, get(y, r * n + i), g * hat + get(beta, c),
               close * (fabs(g * hat) + fabs(g) + fabs(get(beta, c))));
        first[r] += w * g / (double)n, second[r] += w * g * hat / (double)n, sizes[r] += fabs(w * g) * (1 + fabs(hat)) / (double)n;
        gamma_sums[c] += w * hat, gamma_sizes[c] += fabs(w) * (1 + fabs(hat)), beta_sums[c] += w, beta_sizes[c] += fabs(w);
      }
    }
    for (size_t i = 0; i < count; i++) set(y, i, 777);
    if (parts) table->group_gradient(STEPPE_GROUP_SUMS, &groups, x, dy, NULL, gamma, statistics, totals, d_gamma, d_beta);
    table->group_gradient(parts ? STEPPE_GROUP_MAP : STEPPE_GROUP_ALL, &groups, x, dy, y, gamma, statistics, totals, d_gamma, d_beta);
    for (size_t c = 0; c < channels; c++) {
      expect("group_gradient (gamma)", c, d_gamma[c], gamma_sums[c], close * gamma_sizes[c]);
      expect("group_gradient (beta)", c, d_beta[c], beta_sums[c], close * beta_sizes[c]);
    }
    for (size_t i = 0; i < count; i++) {
      const size_t r = i / n, c = (groups.first + r) % groups.period * groups.channels + i % n / s;
      const double hat = (get(x, i) - shift[r]) * scale[r], g = get(dy, i) * get(gamma, c);
      expect("group_gradient", i, get(y, i), scale[r] * (g - (groups.centered ? first[r] : 0) - hat * second[r]),
             close * scale[r] * (fabs(g) + sizes[r] * (1 + fabs(hat))));
    }
  }
}

// What is not a number, and what is infinite, goes where arithmetic takes it and nowhere else.
static void check_special_values(void) {
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
static void check_many_values(void) {
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

// ── optimizers ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// The distance between neighbours of the scalar type at a value.
static double ulp(double value) {
  if (scalar_bytes == 4) {
    const float v = fabsf((float)value);
    return (double)nextafterf(v, INFINITY) - (double)v;
  }
  const double v = fabs(value);
  return nextafter(v, INFINITY) - v;
}

static void check_optimizers(size_t count, unsigned where, unsigned variant) {
  steppe_optimizer_step k = {.learning_rate = 0.01 * (1 + variant % 5), .weight_decay = variant & 1 ? 0.05 : 0,
                             .gradient_scale = variant & 2 ? 0.5 : 1, .momentum = 0.9, .dampening = variant & 4 ? 0.3 : 0,
                             .beta1 = 0.9, .beta2 = 0.99, .epsilon = 1e-8, .bias_correction1 = 0.3, .bias_correction2 = 0.02,
                             .nesterov = variant & 8, .decoupled = variant & 4, .first = variant & 16,
                             .clear_gradient = variant & 1};
  for (int rule = 0; rule < 6; rule++) {
    static const char *const names[] = {"sgd", "sgd with momentum", "adagrad", "rmsprop", "rmsprop with momentum", "adam"};
    // Each operand stands in the middle of a margin of eight.
    void *operands[4];
    for (int i = 0; i < 4; i++) operands[i] = random_at(i, count + 16, where, 0, 1);
    static double before[4][2048];
    for (int i = 0; i < 4; i++) {
      for (size_t j = 0; j < count + 16; j++) {
        if (i == 3 || (i == 2 && rule != 1)) set(operands[i], j, fabs(get(operands[i], j)) + 1e-3);
        if (i == 2 && rule == 1 && k.first) set(operands[i], j, NAN);
        before[i][j] = get(operands[i], j);
      }
    }
    void *p = (char *)operands[0] + 8 * scalar_bytes, *g = (char *)operands[1] + 8 * scalar_bytes;
    void *s = (char *)operands[2] + 8 * scalar_bytes, *t = (char *)operands[3] + 8 * scalar_bytes;
    switch (rule) {
    case 0: table->sgd(&k, p, g, NULL, count); break;
    case 1: table->sgd(&k, p, g, s, count); break;
    case 2: table->adagrad(&k, p, g, s, count); break;
    case 3: table->rmsprop(&k, p, g, s, NULL, count); break;
    case 4: table->rmsprop(&k, p, g, s, t, count); break;
    case 5: table->adam(&k, p, g, s, t, count); break;
    }
    for (size_t j = 0; j < count + 16; j++) {
      double after[4];
      for (int i = 0; i < 4; i++) after[i] = before[i][j];
      if (j >= 8 && j < count + 8) {
        double q = after[0], v = after[2], w = after[3];
        double h = k.gradient_scale * after[1] + (rule == 5 && k.decoupled ? 0 : k.weight_decay * q);
        if (rule == 0) {
          q -= k.learning_rate * h;
        } else if (rule == 1) {
          v = k.first ? h : k.momentum * v + (1 - k.dampening) * h;
          q -= k.learning_rate * (k.nesterov ? h + k.momentum * v : v);
        } else if (rule == 2) {
          v += h * h;
          q -= k.learning_rate * h / (sqrt(v) + k.epsilon);
        } else if (rule == 3 || rule == 4) {
          v = k.beta2 * v + (1 - k.beta2) * h * h;
          double u = h / (sqrt(v) + k.epsilon);
          if (rule == 4) u = w = k.momentum * w + u;
          q -= k.learning_rate * u;
        } else {
          v = k.beta1 * v + (1 - k.beta1) * h;
          w = k.beta2 * w + (1 - k.beta2) * h * h;
          if (k.decoupled) q -= k.learning_rate * k.weight_decay * q;
          q -= k.learning_rate * (v / k.bias_correction1) / (sqrt(w / k.bias_correction2) + k.epsilon);
        }
        after[0] = q;
        if (k.clear_gradient) after[1] = 0;
        if (rule > 0) after[2] = v;
        if (rule > 3) after[3] = w;
      }
      for (int i = 0; i < 4; i++) {
        // In double the reference rounds as often as the kernel, and a cancellation magnifies both.
        const double slack = scalar_bytes == 8 ? 32 * epsilon * (fabs(before[0][j]) + 1) : 0;
        const bool kept = j < 8 || j >= count + 8;
        expect(names[rule], (size_t)i * 10000 + j, get(operands[i], j), after[i], kept ? 0 : 4 * ulp(after[i]) + slack);
      }
    }
  }
}

// ── elementwise, activations ──────────────────────────────────────────────────────────────────────────────────────────────────

static double reference_binary(steppe_binary op, double x, double y) {
  switch (op) {
  case STEPPE_ADD: return x + y;
  case STEPPE_SUBTRACT: return x - y;
  case STEPPE_MULTIPLY: return x * y;
  case STEPPE_DIVIDE: return x / y;
  case STEPPE_POWER: return pow(x, y);
  case STEPPE_MINIMUM: return isnan(x) || isnan(y) ? NAN : x < y ? x : y;
  case STEPPE_MAXIMUM: return isnan(x) || isnan(y) ? NAN : x > y ? x : y;
  case STEPPE_LESS: return x < y;
  case STEPPE_LESS_EQUAL: return x <= y;
  case STEPPE_GREATER: return x > y;
  case STEPPE_GREATER_EQUAL: return x >= y;
  case STEPPE_EQUAL: return x == y;
  case STEPPE_NOT_EQUAL: return x != y;
  }
  return NAN;
}

static double reference_unary(steppe_unary op, double x) {
  switch (op) {
  case STEPPE_NEGATE: return -x;
  case STEPPE_ABSOLUTE: return fabs(x);
  case STEPPE_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
  case STEPPE_SQUARE: return x * x;
  case STEPPE_SQUARE_ROOT: return sqrt(x);
  case STEPPE_RECIPROCAL: return 1 / x;
  case STEPPE_EXPONENTIAL: return exp(x);
  case STEPPE_LOGARITHM: return log(x);
  case STEPPE_FLOOR: return floor(x);
  case STEPPE_CEILING: return ceil(x);
  case STEPPE_ROUND: return rint(x);
  case STEPPE_SINE: return sin(x);
  case STEPPE_COSINE: return cos(x);
  }
  return NAN;
}

// f′ of an activation.
static double reference_slope(steppe_activation kind, double parameter, double x) {
  const double sigmoid = 1 / (1 + exp(-x));
  switch (kind) {
  case STEPPE_IDENTITY: return 1;
  case STEPPE_RELU: return x > 0;
  case STEPPE_LEAKY_RELU: return x > 0 ? 1 : parameter;
  case STEPPE_SIGMOID: return sigmoid * (1 - sigmoid);
  case STEPPE_TANH: return 1 - tanh(x) * tanh(x);
  case STEPPE_GELU: return 0.5 * erfc(-x * 0.70710678118654752440) + x * 0.39894228040143267794 * exp(-x * x / 2);
  case STEPPE_GELU_TANH: {
    const double k = 0.79788456080286535588, e = exp(-2 * k * (x + 0.044715 * x * x * x));
    return 1 / (1 + e) + 2 * x * e / ((1 + e) * (1 + e)) * k * (1 + 3 * 0.044715 * x * x);
  }
  case STEPPE_SILU: return sigmoid * (1 + x * (1 - sigmoid));
  }
  return NAN;
}

static void check_elementwise(size_t count, unsigned where) {
  // A few roundings of results near 1, relative to results that are larger.
  const double few = 12 * epsilon;
  void *x = random_at(0, count, where, 0, 2), *y = random_at(1, count, where == 0 ? 0 : where + 1, 0, 1);
  for (size_t i = 0; i < count; i += 5) set(y, i, get(x, i));
  for (size_t i = 3; i < count; i += 7) set(x, i, rint(get(x, i)) + 0.5 * (double)(i & 1));
  void *z = place(2, count, where);
  for (int op = STEPPE_ADD; op <= STEPPE_NOT_EQUAL; op++) {
    for (int steps = 0; steps < 3 && count > 0; steps++) {
      const size_t sx = steps != 1, sy = steps != 2;
      table->binary((steppe_binary)op, x, (ptrdiff_t)sx, y, (ptrdiff_t)sy, z, count);
      for (size_t i = 0; i < count; i++) {
        const double wanted = reference_binary((steppe_binary)op, get(x, i * sx), get(y, i * sy));
        expect("binary", (size_t)op * 100000 + i, get(z, i), rounded(wanted), few * fabs(wanted));
      }
    }
  }
  for (int op = STEPPE_NEGATE; op <= STEPPE_COSINE; op++) {
    table->unary((steppe_unary)op, x, z, count);
    for (size_t i = 0; i < count; i++) {
      const double wanted = reference_unary((steppe_unary)op, get(x, i));
      expect("unary", (size_t)op * 100000 + i, get(z, i), rounded(wanted), few * fabs(wanted));
    }
  }
  for (int kind = STEPPE_IDENTITY; kind <= STEPPE_SILU; kind++) {
    table->activate((steppe_activation)kind, 0.25, x, z, count);
    for (size_t i = 0; i < count; i++) {
      const double wanted = reference_activation((steppe_activation)kind, 0.25, get(x, i));
      expect("activate", (size_t)kind * 100000 + i, get(z, i), wanted, few * (fabs(wanted) + 0.1));
    }
    table->activate_backward((steppe_activation)kind, 0.25, x, y, z, count);
    for (size_t i = 0; i < count; i++) {
      const double wanted = get(y, i) * reference_slope((steppe_activation)kind, 0.25, get(x, i));
      expect("activate_backward", (size_t)kind * 100000 + i, get(z, i), wanted, few * (fabs(get(y, i)) + fabs(wanted)));
    }
  }
  table->fill(1.5, z, count);
  for (size_t i = 0; i < count; i++) expect("fill", i, get(z, i), 1.5, 0);
  table->affine(x, rounded(1.7), rounded(0.3), z, count);
  for (size_t i = 0; i < count; i++) {
    expect("affine", i, get(z, i), get(x, i) * rounded(1.7) + rounded(0.3), 4 * epsilon * (fabs(get(x, i)) * 1.7 + 0.3));
  }
  for (size_t i = 0; i < count; i++) set(z, i, get(y, i));
  table->add_scaled(x, rounded(-0.6), z, count);
  for (size_t i = 0; i < count; i++) {
    expect("add_scaled", i, get(z, i), get(y, i) + rounded(-0.6) * get(x, i), 4 * epsilon * (fabs(get(x, i)) + fabs(get(y, i))));
  }
  table->clamp(x, rounded(-0.4), rounded(0.9), z, count);
  for (size_t i = 0; i < count; i++) expect("clamp", i, get(z, i), fmin(fmax(get(x, i), rounded(-0.4)), rounded(0.9)), 0);
  void *mask = place(3, count, where);
  for (size_t i = 0; i < count; i++) set(mask, i, (double)(next() % 3) - 1);
  for (int steps = 0; steps < 3 && count > 0; steps++) {
    const size_t sx = steps != 1, sy = steps != 2;
    table->select(mask, x, (ptrdiff_t)sx, y, (ptrdiff_t)sy, z, count);
    for (size_t i = 0; i < count; i++) {
      expect("select", i, get(z, i), get(mask, i) != 0 ? get(x, i * sx) : get(y, i * sy), 0);
    }
  }
  for (size_t step = 1; step <= 3; step++) {
    const size_t n = count / 3;
    if (n == 0) break;
    for (size_t i = 0; i < count; i++) set(z, i, 777);
    table->copy_strided(x, (ptrdiff_t)step, z, (ptrdiff_t)(4 - step), n);
    for (size_t i = 0; i < n * (4 - step); i++) {
      expect("copy_strided", i, get(z, i), i % (4 - step) ? 777 : get(x, i / (4 - step) * step), 0);
    }
  }
  uint8_t *bytes = (uint8_t *)arenas[3] + ROOM - count;
  for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)next();
  table->convert_bytes(bytes, rounded(1.0 / 255), rounded(-0.5), z, count);
  for (size_t i = 0; i < count; i++) {
    expect("convert_bytes", i, get(z, i), bytes[i] * rounded(1.0 / 255) + rounded(-0.5), 4 * epsilon);
  }
  expect("all_finite", 0, table->all_finite(x, count), 1, 0);
  for (size_t i = 0; i < count; i += 1 + count / 9) {
    const double kept = get(x, i);
    set(x, i, i & 1 ? NAN : -INFINITY);
    expect("all_finite", i + 1, table->all_finite(x, count), 0, 0);
    set(x, i, kept);
  }
}

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

static void check_reductions(size_t rows, size_t columns, size_t gap, unsigned where) {
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

static void check_weights(size_t rows, size_t columns, size_t gap, unsigned where) {
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

// ── norms other than the deviation ────────────────────────────────────────────────────────────────────────────────────────────

static void check_norms(size_t rows, size_t columns, size_t gap, unsigned where) {
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

// ── matrices: transposition, bias, softmax and its losses ─────────────────────────────────────────────────────────────────────

static void check_matrices(size_t rows, size_t columns, size_t gap, unsigned where) {
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

// ── products ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// A product's sums and the sums of their terms' sizes.
static double product_sums[8192], product_sizes[8192];

// C as it is before and what must be in it afterwards: `finish` of the sums, and 777 between its rows. Where β is 0, C holds NaN.
static void check_finish(const char *kernel, const void *c, const double *before, size_t ldc, size_t rows, size_t columns,
                         size_t depth, const steppe_product_finish *finish) {
  for (size_t r = 0; r < rows; r++) {
    for (size_t i = 0; i < (r + 1 < rows ? ldc : columns); i++) {
      const size_t at = r * ldc + i;
      if (i >= columns) {
        expect(kernel, at, get(c, at), 777, 0);
        continue;
      }
      const double old = finish->beta == 0 ? 0 : finish->beta * before[at], added = finish->bias ? get(finish->bias, finish->bias_by_rows ? r : i) : 0;
      const double value = finish->alpha * product_sums[r * columns + i] + old + added;
      const double size = fabs(finish->alpha) * product_sizes[r * columns + i] + fabs(old) + fabs(added);
      // The roundings of a sum come to about the root of their number; a term left out would be a depth-th part.
      double tolerance = (8 + 2 * sqrt((double)depth)) * epsilon * size;
      if (finish->kind > STEPPE_RELU) tolerance = 1.2 * tolerance + 12 * epsilon * (fabs(value) + 1);
      expect(kernel, at, get(c, at), reference_activation(finish->kind, finish->parameter, value), tolerance);
    }
  }
}

// What a pack is to be, exactly: element k of column c, 0 in the columns that fill up the last vector.
static void check_packed_columns(const char *kernel, const void *packed, const double *b, size_t depth, size_t columns) {
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes, tile = (size_t)table->tile_columns;
  size_t strip = 0;
  for (size_t first = 0; first < columns;) {
    const size_t used = columns - first < tile ? columns - first : tile, width = (used + lanes - 1) / lanes * lanes;
    for (size_t i = 0; i < depth * width; i++) {
      const size_t c = i % width;
      expect(kernel, strip + i, get(packed, strip + i), c < used ? b[i / width * columns + first + c] : 0, 0);
    }
    strip += depth * width;
    first += used;
  }
}

static void check_product(size_t rows, size_t columns, size_t depth, size_t gap, unsigned where, unsigned variant) {
  static double a_values[131072], b_values[131072], before[16384];
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes, padded = (columns + lanes - 1) / lanes * lanes;
  const size_t lda = depth + gap, ldb = columns + gap, ldt = rows + gap, ldc = columns + gap;
#define STEPPE_EXTENT(lines, ld, length) ((lines) == 0 ? 0 : ((lines)-1) * (ld) + (length))
  void *a = random_at(0, STEPPE_EXTENT(rows, lda, depth), where, 0.1, 1);
  void *b = random_at(1, STEPPE_EXTENT(depth, ldb, columns), where, 0.1, 1);
  void *b_turned = random_at(2, STEPPE_EXTENT(columns, lda, depth), where, 0, 1);
  void *a_turned = random_at(3, STEPPE_EXTENT(depth, ldt, rows), where, 0, 1);
  for (size_t r = 0; r < rows; r++) {
    for (size_t k = 0; k < depth; k++) {
      a_values[r * depth + k] = get(a, r * lda + k);
      set(a_turned, k * ldt + r, a_values[r * depth + k]);
    }
  }
  for (size_t k = 0; k < depth; k++) {
    for (size_t c = 0; c < columns; c++) {
      b_values[k * columns + c] = get(b, k * ldb + c);
      set(b_turned, c * lda + k, b_values[k * columns + c]);
    }
  }
  for (size_t i = 0; i < rows * columns; i++) product_sums[i] = product_sizes[i] = 0;
  for (size_t r = 0; r < rows; r++) {
    for (size_t k = 0; k < depth; k++) {
      for (size_t c = 0; c < columns; c++) {
        const double term = a_values[r * depth + k] * b_values[k * columns + c];
        product_sums[r * columns + c] += term;
        product_sizes[r * columns + c] += fabs(term);
      }
    }
  }

  void *packed_b = place(4, depth * padded, where), *packed_a = place(5, rows * depth, where);
  for (int transposed = 1; transposed >= 0; transposed--) {
    for (size_t i = 0; i < depth * padded; i++) set(packed_b, i, NAN);
    table->pack_columns(transposed ? b_turned : b, (ptrdiff_t)(transposed ? lda : ldb), transposed, depth, columns, packed_b);
    check_packed_columns(transposed ? "pack_columns (transposed)" : "pack_columns", packed_b, b_values, depth, columns);
  }
  for (size_t i = 0; i < rows * depth; i++) set(packed_a, i, NAN);
  table->pack_rows(a_turned, (ptrdiff_t)ldt, rows, depth, packed_a);

  static const struct { double alpha, beta; bool bias; steppe_activation kind; } finishes[] = {
      {1, 0, false, STEPPE_IDENTITY}, {1, 0, true, STEPPE_RELU},       {-0.75, 0, true, STEPPE_IDENTITY},
      {1, 1, false, STEPPE_IDENTITY}, {0.5, -1.5, true, STEPPE_RELU},  {1, 1, true, STEPPE_GELU},
      {2, 0, true, STEPPE_SIGMOID},   {1, 0.5, false, STEPPE_LEAKY_RELU}};
  const void *bias = random_at(7, columns, where, 0, 2);
  static double row_biases[512];
  static float float_biases[512];
  void *row_bias = scalar_bytes == 4 ? (void *)float_biases : (void *)row_biases;
  for (size_t r = 0; r < rows; r++) set(row_bias, r, centered());
  void *c = place(6, STEPPE_EXTENT(rows, ldc, columns), where);
  // Two finishes a shape; the shapes go round all.
  for (unsigned turn = 0; turn < 2; turn++) {
    const size_t f = (variant + turn * 3) % (sizeof finishes / sizeof *finishes);
    const steppe_product_finish finish = {.alpha = finishes[f].alpha, .beta = finishes[f].beta,
                                          .bias = finishes[f].bias ? bias : NULL, .kind = finishes[f].kind, .parameter = 0.25};
    steppe_product_finish by_rows = finish;
    by_rows.bias_by_rows = true;
    if (finish.bias) by_rows.bias = row_bias;
    for (size_t i = 0; i < STEPPE_EXTENT(rows, ldc, columns); i++) before[i] = rounded(centered());
    for (int way = 0; way < 5; way++) {
      static const char *const names[] = {"multiply", "multiply (packed rows)", "multiply_few", "multiply_few (transposed)",
                                          "multiply (bias by rows)"};
      if ((way == 2 || way == 3) && rows > 9) continue;
      for (size_t i = 0; i < STEPPE_EXTENT(rows, ldc, columns); i++) {
        set(c, i, i % ldc >= columns ? 777 : finish.beta == 0 ? NAN : before[i]);
      }
      // One row needs no distance to the next.
      const ptrdiff_t few_lda = rows == 1 && turn ? 0 : (ptrdiff_t)lda, few_ldc = rows == 1 && turn ? 0 : (ptrdiff_t)ldc;
      switch (way) {
      case 0: table->multiply(a, (ptrdiff_t)lda, packed_b, rows, columns, depth, &finish, c, (ptrdiff_t)ldc); break;
      case 1: table->multiply(packed_a, 0, packed_b, rows, columns, depth, &finish, c, (ptrdiff_t)ldc); break;
      case 2:
        table->multiply_few(a, few_lda, b, (ptrdiff_t)ldb, false, rows, columns, depth, &finish, c, few_ldc);
        break;
      case 3:
        table->multiply_few(a, few_lda, b_turned, (ptrdiff_t)lda, true, rows, columns, depth, &finish, c, few_ldc);
        break;
      case 4: table->multiply(a, (ptrdiff_t)lda, packed_b, rows, columns, depth, &by_rows, c, (ptrdiff_t)ldc); break;
      }
      check_finish(names[way], c, before, ldc, rows, columns, depth, way == 4 ? &by_rows : &finish);
    }
  }
#undef STEPPE_EXTENT
}

// One NaN in a factor is seen in its own row or column of the product and nowhere else, whatever fills up vectors beside it.
static void check_product_specials(void) {
  snprintf(shape, sizeof shape, "a product with a NaN");
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes, rows = 7, depth = 2 * lanes + 3;
  for (size_t columns = 1; columns < 3 * lanes; columns += 3) {
    const size_t padded = (columns + lanes - 1) / lanes * lanes;
    for (int left = 0; left < 2; left++) {
      void *a = random_at(0, rows * depth, 0, 0, 1), *b = random_at(1, columns * depth, 0, 0, 1);
      void *packed = place(4, depth * padded, 0), *c = place(6, rows * columns, 0);
      set(left ? a : b, left ? 2 * depth + depth - 1 : columns / 2 * depth + depth - 1, NAN);
      const steppe_product_finish finish = {.alpha = 1, .kind = STEPPE_RELU};
      for (int few = 0; few < 2; few++) {
        if (few) {
          table->multiply_few(a, (ptrdiff_t)depth, b, (ptrdiff_t)depth, true, rows, columns, depth, &finish, c, (ptrdiff_t)columns);
        } else {
          table->pack_columns(b, (ptrdiff_t)depth, true, depth, columns, packed);
          table->multiply(a, (ptrdiff_t)depth, packed, rows, columns, depth, &finish, c, (ptrdiff_t)columns);
        }
        for (size_t i = 0; i < rows * columns; i++) {
          const bool wanted = left ? i / columns == 2 : i % columns == columns / 2;
          expect(few ? "multiply_few" : "multiply", i, isnan(get(c, i)), wanted, 0);
        }
      }
    }
  }
}

static void check_products(void) {
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes, tile = (size_t)table->tile_columns;
  const size_t columns[] = {1, 2, lanes - 1, lanes, lanes + 1, 2 * lanes + 1, tile - 1, tile, tile + 1, 2 * tile + lanes, 3 * tile + 3,
                            9 * lanes + 1, 8 * lanes};
  static const size_t depths[] = {0, 1, 2, 3, 7, 8, 9, 17, 33, 70}, gaps[] = {0, 1, 5};
  unsigned turn = 0;
  for (size_t rows = 1; rows <= 30; rows++) {
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
      for (size_t j = 0; j < sizeof depths / sizeof *depths; j++) {
        turn++;
        if (turn % thinning != 0 || columns[i] == 0) continue;
        const size_t gap = gaps[next() % 3];
        const unsigned where = (unsigned)(next() % 5), variant = (unsigned)(next() % 8);
        snprintf(shape, sizeof shape, "%zu x %zu x %zu, gap %zu, start %u, variant %u", rows, columns[i], depths[j], gap, where,
                 variant);
        check_product(rows, columns[i], depths[j], gap, where, variant);
      }
    }
  }
  // Long sums, and many rows.
  const size_t shapes[][3] = {{1, tile + 1, 1000}, {3, lanes, 4097}, {13, 3, 4096}, {8, tile, 2001}, {25, lanes + 1, 1501},
                              {100, tile + 3, 40}, {97, 7, 129}, {145, 1, 65}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    for (unsigned where = 0; where < 2; where++) {
      if (thinning > 1 && where != i % 2) continue;
      snprintf(shape, sizeof shape, "%zu x %zu x %zu, start %u", shapes[i][0], shapes[i][1], shapes[i][2], where);
      check_product(shapes[i][0], shapes[i][1], shapes[i][2], where, where, (unsigned)i);
    }
  }
  check_product_specials();
}

// Whole squares of a vector's lanes are turned in registers; what is left is not. Between the rows of y stays what was there.
static void check_transposition(void) {
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

// ── pooling ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// The position of a window's place along one axis, or SIZE_MAX in the padding.
static size_t position_of(size_t out, size_t k, size_t stride, size_t pad, size_t dilation, size_t size) {
  const size_t padded = out * stride + k * dilation;
  return padded < pad || padded - pad >= size ? SIZE_MAX : padded - pad;
}

static void check_pooling(const steppe_windows *w, size_t images, unsigned where) {
  const size_t in = images * w->height * w->width * w->ld, out = images * w->out_height * w->out_width * w->ld;
  void *x = random_at(0, in, where, 0, 2), *dy = random_at(1, out, where, 0, 1);
  for (size_t i = 0; i < in; i++) set(x, i, i % 19 == 7 ? NAN : round(get(x, i)));
  void *y = place(2, out, where), *places = place(3, out, where), *mean = place(4, out, where);
  void *dx = place(5, in, where), *slope = place(6, in, where);
  for (size_t i = 0; i < out; i++) set(y, i, 777), set(places, i, 777), set(mean, i, 777);
  for (size_t i = 0; i < in; i++) set(dx, i, 777), set(slope, i, 777);
  const bool averages = w->dilation_height == 1 && w->dilation_width == 1;
  table->max_pool(w, x, y, places, images);
  table->max_pool_backward(w, places, dy, dx, images);
  if (averages) table->average_pool(w, x, mean, images), table->average_pool_backward(w, dy, slope, images);
  double *wanted = calloc(2 * in + 1, sizeof *wanted), *shares = wanted + in;
  for (size_t o = 0; o < out; o++) {
    const size_t c = o % w->ld, j = o / w->ld % w->out_width, i = o / w->ld / w->out_width % w->out_height;
    const size_t image = o / w->ld / w->out_width / w->out_height;
    if (c >= w->channels) {
      expect("max_pool (margin)", o, get(y, o), 777, 0);
      continue;
    }
    double best = -INFINITY, sum = 0, size = 0;
    size_t at = SIZE_MAX, inside = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
      const double count = (double)(w->counts_padding ? w->kernel_height * w->kernel_width : inside);
      for (size_t u = 0; u < w->kernel_height; u++) {
        for (size_t v = 0; v < w->kernel_width; v++) {
          const size_t row = position_of(i, u, w->stride_height, w->pad_height, w->dilation_height, w->height);
          const size_t column = position_of(j, v, w->stride_width, w->pad_width, w->dilation_width, w->width);
          if (row == SIZE_MAX || column == SIZE_MAX) continue;
          const size_t p = ((image * w->height + row) * w->width + column) * w->ld + c;
          if (pass == 1) {
            shares[p] += get(dy, o) / count;
            continue;
          }
          inside++;
          sum += get(x, p);
          size += fabs(get(x, p));
          if (at == SIZE_MAX || get(x, p) > best || isnan(get(x, p))) best = get(x, p), at = p;
        }
      }
    }
    expect("max_pool", o, get(y, o), at == SIZE_MAX ? -INFINITY : best, 0);
    if (at != SIZE_MAX) wanted[at] += get(dy, o);
    const double count = (double)(w->counts_padding ? w->kernel_height * w->kernel_width : inside);
    if (averages) expect("average_pool", o, get(mean, o), inside ? sum / count : 0, 12 * epsilon * size / fmax(count, 1));
  }
  for (size_t p = 0; p < in; p++) {
    const bool own = p % w->ld < w->channels;
    expect("max_pool_backward", p, get(dx, p), own ? wanted[p] : 777, own ? 40 * epsilon : 0);
    if (averages) expect("average_pool_backward", p, get(slope, p), own ? shares[p] : 777, own ? 40 * epsilon : 0);
  }
  free(wanted);
}

static void check_poolings(void) {
  for (unsigned turn = 0; turn < 400; turn++) {
    const size_t ld = turn % 2 ? 1 : 1 + next() % 40;
    steppe_windows w = {.channels = turn % 8 == 2 ? 1 + ld / 2 : ld, .ld = ld, .counts_padding = next() % 2};
    w.kernel_height = 1 + next() % 5, w.kernel_width = 1 + next() % 5;
    w.stride_height = 1 + next() % 3, w.stride_width = 1 + next() % 3;
    w.dilation_height = turn % 3 ? 1 : 1 + next() % 3, w.dilation_width = turn % 3 ? 1 : 1 + next() % 3;
    w.pad_height = next() % (w.kernel_height / 2 + 1), w.pad_width = next() % (w.kernel_width / 2 + 1);
    const size_t rows = (w.kernel_height - 1) * w.dilation_height + 1, columns = (w.kernel_width - 1) * w.dilation_width + 1;
    w.height = (rows > 2 * w.pad_height ? rows - 2 * w.pad_height : 1) + next() % 7;
    w.width = (columns > 2 * w.pad_width ? columns - 2 * w.pad_width : 1) + next() % (turn % 4 ? 9 : 70);
    w.out_height = (w.height + 2 * w.pad_height - rows) / w.stride_height + 1;
    w.out_width = (w.width + 2 * w.pad_width - columns) / w.stride_width + 1;
    const size_t images = 1 + next() % 3;
    const unsigned where = (unsigned)(next() % 5);
    if (turn % thinning != 0) continue;
    snprintf(shape, sizeof shape, "%zu x %zu x %zu x %zu of %zu, kernel %zu x %zu, strides %zu, %zu, pads %zu, %zu, dilations %zu, %zu",
             images, w.height, w.width, w.channels, ld, w.kernel_height, w.kernel_width, w.stride_height, w.stride_width,
             w.pad_height, w.pad_width, w.dilation_height, w.dilation_width);
    check_pooling(&w, images, where);
  }
  static const size_t sizes[] = {1, 2, 7, 16, 17, 33, 49, 64};
  for (size_t i = 0; i < 8; i++) {
    for (size_t j = 0; j < 8; j++) {
      const size_t rows = 1 + next() % 4, repeats = sizes[i], width = sizes[j];
      snprintf(shape, sizeof shape, "%zu x %zu x %zu", rows, repeats, width);
      const void *x = random_at(0, rows * width, (unsigned)i % 3, 0, 1);
      void *y = place(1, rows * repeats * width, (unsigned)j % 3);
      table->repeat_scaled(x, 0.3, y, rows, repeats, width);
      for (size_t k = 0; k < rows * repeats * width; k++) {
        const double wanted = get(x, k / width / repeats * width + k % width) * 0.3;
        expect("repeat_scaled", k, get(y, k), wanted, 4 * epsilon * fabs(wanted));
      }
    }
  }
}

// ── all of them ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

// ── convolution ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

// Planes that end a vector before their arena does, since runs are read in whole vectors, and runs of random places for `columns` columns.
static void check_patches(size_t rows, size_t depth, size_t columns, size_t longest, unsigned where) {
  static ptrdiff_t offsets[80];
  static steppe_patch_run runs[200];
  static size_t places[400];
  static double wanted[400];
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes, size = 700, width = (columns + lanes - 1) / lanes * lanes;
  const void *planes = random_at(0, size + lanes - 1, where, 0.1, 1), *a = random_at(1, rows * (depth + 1), where, 0, 1);
  const void *bias = random_at(2, rows, where, 0, 1), *y = random_at(3, columns, where, 0, 1);
  for (size_t k = 0; k < depth; k++) offsets[k] = (ptrdiff_t)(next() % 300);
  size_t count = 0;
  for (size_t c = 0; c < columns; count++) {
    const size_t length = 1 + next() % longest, used = length < columns - c ? length : columns - c, from = next() % (400 - used);
    runs[count] = (steppe_patch_run){.from = (ptrdiff_t)from, .to = c, .length = used};
    for (size_t i = 0; i < used; i++) places[c + i] = from + i;
    c += used;
  }

  // A vector beyond the last line may be written.
  void *lines = place(4, depth * width + lanes - 1, where);
  for (size_t i = 0; i < depth * width; i++) set(lines, i, NAN);
  table->pack_patches(planes, offsets, depth, runs, count, lines, width);
  for (size_t i = 0; i < depth * width; i++) {
    const size_t c = i % width;
    expect("pack_patches", i, get(lines, i), c < columns ? get(planes, (size_t)offsets[i / width] + places[c]) : 0, 0);
  }

  static const steppe_activation kinds[] = {STEPPE_IDENTITY, STEPPE_RELU, STEPPE_GELU};
  const steppe_product_finish finish = {
      .alpha = 1, .bias = next() % 2 ? bias : NULL, .kind = kinds[next() % 3], .bias_by_rows = true};
  const size_t ldc = columns + 3;
  void *c = place(5, (rows - 1) * ldc + columns, where);
  for (size_t i = 0; i < (rows - 1) * ldc + columns; i++) set(c, i, 777);
  table->multiply_patches(a, (ptrdiff_t)depth + 1, planes, offsets, rows, depth, runs, count, &finish, c, (ptrdiff_t)ldc);
  for (size_t r = 0; r < rows; r++) {
    for (size_t i = 0; i < (r + 1 < rows ? ldc : columns); i++) {
      if (i >= columns) {
        expect("multiply_patches", r * ldc + i, get(c, r * ldc + i), 777, 0);
        continue;
      }
      double sum = finish.bias ? get(bias, r) : 0, terms = fabs(sum);
      for (size_t k = 0; k < depth; k++) {
        const double term = get(a, r * (depth + 1) + k) * get(planes, (size_t)offsets[k] + places[i]);
        sum += term;
        terms += fabs(term);
      }
      double tolerance = (8 + 2 * sqrt((double)depth)) * epsilon * terms;
      if (finish.kind > STEPPE_RELU) tolerance = 1.2 * tolerance + 12 * epsilon * (fabs(sum) + 1);
      expect("multiply_patches", r * ldc + i, get(c, r * ldc + i), reference_activation(finish.kind, 0, sum), tolerance);
    }
  }

  // What lies beyond a run, here no number, is not part of a sum.
  void *dots = place(6, depth, where);
  for (size_t k = 0; k < depth; k++) set(dots, k, wanted[k % 400] = 2);
  void *strict = place(7, size + lanes - 1, 1);
  for (size_t k = 0; k < depth; k++) {
    for (size_t i = 0; i < size + lanes - 1; i++) set(strict, i, NAN);
    double sum = 2, terms = 2;
    for (size_t i = 0; i < columns; i++) {
      const size_t at = (size_t)offsets[k] + places[i];
      set(strict, at, get(planes, at));
      sum += get(planes, at) * get(y, i);
      terms += fabs(get(planes, at) * get(y, i));
    }
    table->patch_dots(strict, offsets + k, 1, runs, count, y, (char *)dots + k * scalar_bytes);
    expect("patch_dots (one)", k, get(dots, k), sum, (8 + 2 * sqrt((double)columns)) * epsilon * terms);
    set(dots, k, 2);
    wanted[k] = sum;
    product_sizes[k] = terms;
  }
  table->patch_dots(planes, offsets, depth, runs, count, y, dots);
  for (size_t k = 0; k < depth; k++) {
    expect("patch_dots", k, get(dots, k), wanted[k], (8 + 2 * sqrt((double)columns)) * epsilon * product_sizes[k]);
  }
}

static void check_plane_copies(size_t planes, size_t rows, size_t columns, size_t x_step, size_t y_step, unsigned where) {
  const size_t x_row = columns * x_step + 1, y_row = columns * y_step + 2, x_plane = rows * x_row + 1, y_plane = rows * y_row;
  const size_t x_size = (planes - 1) * x_plane + (rows - 1) * x_row + (columns - 1) * x_step + 1;
  const size_t y_size = (planes - 1) * y_plane + (rows - 1) * y_row + (columns - 1) * y_step + 1;
  const void *x = random_at(0, x_size, where, 0, 1);
  void *y = place(1, y_size, where);
  for (size_t i = 0; i < y_size; i++) set(y, i, 777);
  table->copy_planes(x, (ptrdiff_t)x_plane, (ptrdiff_t)x_row, (ptrdiff_t)x_step, y, (ptrdiff_t)y_plane, (ptrdiff_t)y_row,
                     (ptrdiff_t)y_step, planes, rows, columns);
  for (size_t i = 0; i < y_size; i++) {
    const size_t p = i / y_plane, r = i % y_plane / y_row, c = i % y_plane % y_row;
    const bool copied = c % y_step == 0 && c / y_step < columns;
    expect("copy_planes", i, get(y, i), copied ? get(x, p * x_plane + r * x_row + c / y_step * x_step) : 777, 0);
  }
}

static void check_convolutions(void) {
  static const size_t columns[] = {1, 2, 7, 8, 15, 16, 17, 31, 32, 33, 64, 70, 150}, depths[] = {1, 2, 8, 9, 10, 27, 70};
  unsigned turn = 0;
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
    for (size_t j = 0; j < sizeof depths / sizeof *depths; j++) {
      for (size_t rows = 1; rows <= 4; rows++) {
        const unsigned where = turn++ % 5;
        const size_t longest = turn % 3 == 0 ? 200 : turn % 3 == 1 ? 9 : 40;
        if (turn % thinning != 0) continue;
        snprintf(shape, sizeof shape, "%zu x %zu x %zu, runs of %zu, start %u", rows, depths[j], columns[i], longest, where);
        check_patches(rows, depths[j], columns[i], longest, where);
        snprintf(shape, sizeof shape, "%zu x %zu x %zu, start %u", rows, depths[j], columns[i], where);
        check_plane_copies(rows, depths[j], columns[i], 1 + turn % 3 / 2, 1 + turn % 5 / 4, where);
      }
    }
  }
}

static void check_table(const steppe_kernel_table *t) {
  table = t;
  scalar_bytes = (size_t)t->scalar_bytes;
  epsilon = scalar_bytes == 4 ? 0x1p-24 : 0x1p-53;
  state = 20240607;
  static const size_t rows[] = {0, 1, 2, 3, 4, 5, 17, 129, 300};
  static const size_t columns[] = {1, 2, 3, 7, 8, 10, 16, 17, 31, 33, 64, 100, 127, 257};
  static const size_t gaps[] = {0, 1, 16};
  unsigned turn = 0;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    for (size_t j = 0; j < sizeof columns / sizeof *columns; j++) {
      for (size_t k = 0; k < 3; k++) {
        const unsigned where = turn++ % 5;
        if (turn % thinning != 0) continue;
        snprintf(shape, sizeof shape, "%zu x %zu, gap %zu, start %u", rows[i], columns[j], gaps[k], where);
        check_columns(rows[i], columns[j], gaps[k], where, turn % 3 == 0 ? 1000 : 0.5);
      }
    }
  }
  // Several strips, the last one narrow; rows enough to be folded several times.
  static const size_t shapes[][3] = {{5, 1023, 0}, {3, 1024, 0}, {6, 1025, 7}, {9, 1031, 0}, {4, 1032, 1},
                                     {7, 1033, 0}, {3, 2053, 3}, {2, 4200, 0}, {140, 520, 0}, {2500, 3, 0},
                                     {3001, 1, 0}, {999, 48, 0}, {1300, 10, 0}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    for (unsigned where = 0; where < 4; where++) {
      if (turn++ % (thinning < 3 ? 1 : 3) != 0) continue;
      snprintf(shape, sizeof shape, "%zu x %zu, gap %zu, start %u", shapes[i][0], shapes[i][1], shapes[i][2], where);
      check_columns(shapes[i][0], shapes[i][1], shapes[i][2], where, 1);
    }
  }
  static const size_t runs[] = {0, 1, 2, 5, 40}, lengths[] = {1, 2, 3, 5, 8, 13, 16, 31, 49, 64, 65, 127, 196, 300, 511, 784};
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
    for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
      for (size_t k = 0; k < 3; k++) {
        const unsigned where = turn++ % 5;
        if (turn % thinning != 0) continue;
        snprintf(shape, sizeof shape, "%zu runs of %zu, gap %zu, start %u", runs[i], lengths[j], gaps[k], where);
        check_runs(runs[i], lengths[j], gaps[k], where, turn % 3 == 0 ? 1000 : 0.5);
      }
    }
  }
  static const size_t long_runs[][2] = {{1, 20011}, {3, 5000}, {2, 1025}, {2, 1037}, {4, 3136}};
  for (size_t i = 0; i < sizeof long_runs / sizeof *long_runs; i++) {
    for (unsigned where = 0; where < 4; where++) {
      if (turn++ % (thinning < 3 ? 1 : 3) != 0) continue;
      snprintf(shape, sizeof shape, "%zu runs of %zu, start %u", long_runs[i][0], long_runs[i][1], where);
      check_runs(long_runs[i][0], long_runs[i][1], where, where, 1);
    }
  }
  // Rows, γ's rows, channels, positions.
  static const size_t grouped[][4] = {
      {0, 1, 5, 1},    {1, 1, 2, 1},    {3, 1, 7, 1},     {17, 1, 13, 1},  {33, 1, 16, 1},   {40, 1, 31, 1},  {18, 1, 65, 1},
      {5, 1, 300, 1},  {2, 1, 1030, 1}, {19, 1, 1024, 1}, {3, 1, 4099, 1}, {13, 3, 4, 1},    {20, 4, 33, 1},  {1, 1, 1, 2},
      {7, 2, 3, 5},    {11, 4, 2, 49},  {6, 3, 1, 17},    {5, 1, 9, 64},   {13, 2, 5, 196},  {3, 2, 2, 1025}, {2, 2, 3, 3136},
      {64, 32, 2, 33}, {2, 1, 40, 301}, {4, 2, 1, 2000}};
  for (size_t i = 0; i < sizeof grouped / sizeof *grouped; i++) {
    for (unsigned where = 0; where < 4; where++) {
      if (turn++ % (thinning < 3 ? 1 : 3) != 0) continue;
      const steppe_groups groups = {.rows = grouped[i][0], .first = where, .period = grouped[i][1], .channels = grouped[i][2],
                                    .positions = grouped[i][3]};
      snprintf(shape, sizeof shape, "%zu groups, %zu a sample, of %zu x %zu, start %u", groups.rows, groups.period, groups.channels,
               groups.positions, where);
      check_groups(groups, where, where == 1 ? 1000 : where == 2 ? 1e6 : 0.5);
    }
  }
  check_special_values();
  check_many_values();
  check_products();
  check_convolutions();
  check_transposition();
  check_poolings();
  static const size_t counts[] = {0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 33, 1000};
  for (unsigned variant = 0; variant < 32; variant++) {
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
      snprintf(shape, sizeof shape, "count %zu, variant %u", counts[i], variant);
      check_optimizers(counts[i], (variant + (unsigned)i) % 4, variant);
    }
  }
  for (size_t count = 0; count < 1200; count = count < 70 ? count + 1 : count * 2 + 1) {
    const unsigned where = (unsigned)count % 5;
    snprintf(shape, sizeof shape, "count %zu, start %u", count, where);
    check_elementwise(count, where);
  }
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
    for (size_t j = 1; j < 8; j++) {
      const unsigned where = turn++ % 5;
      const size_t gap = gaps[turn % 3];
      if (turn % thinning != 0) continue;
      snprintf(shape, sizeof shape, "%zu x %zu, gap %zu, start %u", rows[j], columns[i], gap, where);
      check_reductions(rows[j], columns[i], gap, where);
      check_matrices(rows[j], columns[i], gap, where);
      check_weights(rows[j], columns[i], gap, where);
      check_norms(rows[j], columns[i], gap, where);
    }
  }
}

static void check_dispatch(void) {
  const char *names[8];
  const size_t count = steppe_available_instruction_sets(names, 8);
  bool good = count > 0 && !steppe_select_instruction_set("abacus") && !steppe_kernels_named("abacus", 4) &&
              !steppe_kernels_named(names[0], 2);
  for (size_t i = 0; i < count; i++) {
    good = good && steppe_select_instruction_set(names[i]) && strcmp(steppe_kernels_float()->instruction_set, names[i]) == 0 &&
           steppe_kernels_float()->scalar_bytes == 4 && steppe_kernels_double()->scalar_bytes == 8;
  }
  good = good && steppe_select_instruction_set(NULL) && strcmp(steppe_kernels_float()->instruction_set, names[count - 1]) == 0;
  if (!good) {
    fprintf(stderr, "dispatch: the choice of an instruction set is wrong\n");
    failures++;
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && atoi(argv[1]) > 0) thinning = (unsigned)atoi(argv[1]);
  reserve_arenas();
  check_dispatch();
  const char *names[8];
  const size_t count = steppe_available_instruction_sets(names, 8);
  const steppe_kernel_table *tables[18];
  size_t used = 0;
  bool wide = true;
  for (size_t i = 0; i < count; i++) {
    tables[used++] = steppe_kernels_named(names[i], 4);
    tables[used++] = steppe_kernels_named(names[i], 8);
  }
#if defined(__x86_64__)
  wide = steppe_kernels_named("avx2", 4) != NULL;
#endif
  if (wide) tables[used++] = &steppe_table_wide512_f32, tables[used++] = &steppe_table_wide512_f64;
  for (size_t i = 0; i < used; i++) {
    const int before = failures;
    checks = 0;
    check_table(tables[i]);
    printf("%-8s f%d: %ld values, %d wrong\n", tables[i]->instruction_set, tables[i]->scalar_bytes * 8, checks,
           failures - before);
    fflush(stdout);
  }
  return failures ? 1 : 0;
}
