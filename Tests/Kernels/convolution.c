// Convolution.
#include "driver.h"

static double patch_sizes[80];

// Runs of random places for `columns` columns, and each column's place. Returns the count of runs.
static size_t random_runs(size_t columns, size_t longest, steppe_patch_run *runs, size_t *places) {
  size_t count = 0;
  for (size_t c = 0; c < columns; count++) {
    const size_t length = 1 + next() % longest, used = length < columns - c ? length : columns - c, from = next() % (400 - used);
    runs[count] = (steppe_patch_run){.from = (ptrdiff_t)from, .to = c, .length = used};
    for (size_t i = 0; i < used; i++) places[c + i] = from + i;
    c += used;
  }
  return count;
}

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
  const size_t count = random_runs(columns, longest, runs, places);

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
    patch_sizes[k] = terms;
  }
  table->patch_dots(planes, offsets, depth, runs, count, y, dots);
  for (size_t k = 0; k < depth; k++) {
    expect("patch_dots", k, get(dots, k), wanted[k], (8 + 2 * sqrt((double)columns)) * epsilon * patch_sizes[k]);
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

// The transforms of Winograd's filtering by their definitions.
static const double b_transposed[4][4] = {{1, 0, -1, 0}, {0, 1, 1, 0}, {0, -1, 1, 0}, {0, 1, 0, -1}};
static const double g_matrix[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
static const double a_transposed[2][4] = {{1, 1, 1, 0}, {0, 1, -1, -1}};

// out = L·in·Lᵀ for L [m, n], and in `size` the same of absolute values.
static void both_sides(const double *l, size_t m, size_t n, const double *in, double *out, double *size) {
  for (size_t i = 0; i < m; i++) {
    for (size_t j = 0; j < m; j++) {
      out[i * m + j] = size[i * m + j] = 0;
      for (size_t u = 0; u < n; u++) {
        for (size_t v = 0; v < n; v++) {
          const double term = l[i * n + u] * in[u * n + v] * l[j * n + v];
          out[i * m + j] += term;
          size[i * m + j] += fabs(term);
        }
      }
    }
  }
}

static void check_winograd_weights(size_t count, bool turned, unsigned where) {
  const size_t tap = count + 2, plane = count + 3;
  void *w = random_at(0, 8 * tap + count, where, 0, 1), *u = place(1, 15 * plane + count, where);
  for (size_t i = 0; i < 15 * plane + count; i++) set(u, i, 777);
  table->winograd_weights(w, (ptrdiff_t)tap, count, turned, u, (ptrdiff_t)plane);
  for (size_t i = 0; i < count; i++) {
    double kernel[9], wanted[16], size[16];
    for (size_t k = 0; k < 9; k++) kernel[k] = get(w, (turned ? 8 - k : k) * tap + i);
    both_sides(&g_matrix[0][0], 4, 3, kernel, wanted, size);
    for (size_t p = 0; p < 16; p++) expect("winograd_weights", p * plane + i, get(u, p * plane + i), wanted[p], 4 * epsilon * size[p]);
  }
  for (size_t p = 0; p < 15; p++) {
    for (size_t i = count; i < plane; i++) expect("winograd_weights: gap", p * plane + i, get(u, p * plane + i), 777, 0);
  }
}

static void check_winograd_input(size_t depth, size_t columns, size_t longest, unsigned where) {
  static steppe_patch_run runs[200];
  static size_t places[400];
  ptrdiff_t offsets[16];
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes, width = (columns + lanes - 1) / lanes * lanes, channel = 700;
  const size_t size = depth * channel + lanes - 1, plane = depth * width + lanes;
  void *planes = random_at(0, size, where, 0.1, 1), *lines = place(1, 16 * plane, where);
  for (size_t p = 0; p < 16; p++) offsets[p] = (ptrdiff_t)(next() % 300);
  const size_t count = random_runs(columns, longest, runs, places);
  for (size_t i = 0; i < 16 * plane; i++) set(lines, i, NAN);
  table->winograd_input(planes, (ptrdiff_t)channel, offsets, depth, runs, count, lines, (ptrdiff_t)plane, width);
  for (size_t k = 0; k < depth; k++) {
    for (size_t c = 0; c < columns; c++) {
      double seen[16], wanted[16], sizes[16];
      for (size_t p = 0; p < 16; p++) seen[p] = get(planes, k * channel + (size_t)offsets[p] + places[c]);
      both_sides(&b_transposed[0][0], 4, 4, seen, wanted, sizes);
      for (size_t p = 0; p < 16; p++) {
        expect("winograd_input", p, get(lines, p * plane + k * width + c), wanted[p], 4 * epsilon * sizes[p]);
      }
    }
  }
  // Columns behind the last hold numbers too.
  for (size_t k = 0; k < depth; k++) {
    for (size_t i = 0; i < 16 * width; i++) {
      const double value = get(lines, i / width * plane + k * width + i % width);
      if (value != value) expect("winograd_input: behind the columns", i, value, 0, 0);
    }
  }
}

static void check_winograd_output(size_t rows, size_t height, size_t width, unsigned where) {
  static const steppe_activation kinds[] = {STEPPE_IDENTITY, STEPPE_RELU, STEPPE_GELU};
  const size_t lanes = (size_t)table->vector_bytes / scalar_bytes, squares = (width + 1) / 2, ldm = squares + 1, plane = rows * ldm + 1;
  void *m = random_at(0, 15 * plane + (rows - 1) * ldm + squares + lanes - 1, where, 0, 1), *bias = random_at(1, rows, where, 0, 1);
  const size_t y_row = width + 3, y_channel = 2 * y_row + 1, y_size = (rows - 1) * y_channel + (height - 1) * y_row + width;
  void *y = place(2, y_size, where);
  for (size_t i = 0; i < y_size; i++) set(y, i, 777);
  const steppe_product_finish finish = {
      .alpha = 1, .bias = next() % 2 ? bias : NULL, .kind = kinds[next() % 3], .bias_by_rows = true};
  const bool finite =
      table->winograd_output(m, (ptrdiff_t)plane, (ptrdiff_t)ldm, rows, height, width, &finish, y, (ptrdiff_t)y_channel, (ptrdiff_t)y_row);
  if (!finite) expect("winograd_output: finite", 0, 0, 1, 0);
  for (size_t i = 0; i < y_size; i++) {
    const size_t r = i / y_channel, a = i % y_channel / y_row, b = i % y_channel % y_row;
    if (a >= height || b >= width) {
      expect("winograd_output: gap", i, get(y, i), 777, 0);
      continue;
    }
    double sums[16], wanted[4], sizes[4];
    for (size_t p = 0; p < 16; p++) sums[p] = get(m, p * plane + r * ldm + b / 2);
    both_sides(&a_transposed[0][0], 2, 4, sums, wanted, sizes);
    const double added = finish.bias ? get(bias, r) : 0, value = wanted[2 * a + b % 2] + added;
    double tolerance = 8 * epsilon * (sizes[2 * a + b % 2] + fabs(added));
    if (finish.kind > STEPPE_RELU) tolerance = 1.2 * tolerance + 12 * epsilon * (fabs(value) + 1);
    expect("winograd_output", i, get(y, i), reference_activation(finish.kind, 0, value), tolerance);
  }
  // A square that is not finite is noticed, one that is not there is none.
  const size_t at = next() % 16 * plane + next() % rows * ldm, square = next() % squares;
  const double before = get(m, at + square);
  set(m, at + square, next() % 2 ? -INFINITY : NAN);
  if (table->winograd_output(m, (ptrdiff_t)plane, (ptrdiff_t)ldm, rows, height, width, &finish, y, (ptrdiff_t)y_channel, (ptrdiff_t)y_row)) {
    expect("winograd_output: not finite", at, 1, 0, 0);
  }
  set(m, at + square, before);
  set(m, at + squares, NAN);
  if (!table->winograd_output(m, (ptrdiff_t)plane, (ptrdiff_t)ldm, rows, height, width, &finish, y, (ptrdiff_t)y_channel, (ptrdiff_t)y_row)) {
    expect("winograd_output: not finite elsewhere", at, 0, 1, 0);
  }
}

static void check_winograd(void) {
  static const size_t counts[] = {1, 2, 7, 8, 15, 16, 17, 31, 33, 70};
  unsigned turn = 0;
  for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
    for (size_t rows = 1; rows <= 5; rows += 2) {
      const unsigned where = turn++ % 5;
      if (turn % thinning != 0) continue;
      snprintf(shape, sizeof shape, "%zu x %zu, start %u", rows, counts[i], where);
      check_winograd_weights(counts[i], turn % 2, where);
      check_winograd_input(rows, counts[i], turn % 3 ? 9 : 40, where);
      check_winograd_output(rows, 1 + turn % 2, counts[i], where);
    }
  }
}

void check_convolutions(void) {
  check_winograd();
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
