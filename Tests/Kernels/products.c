// Products.
#include "driver.h"

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

void check_products(void) {
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
