// Matrix products by tiles that stay in registers.
//
// A tile is up to TILE_ROWS rows of TILE_COLUMNS values of C. Each step of the depth loads one line of B and broadcasts one value of A
// for each row, so that every load serves many multiplications. B is packed: strips of a tile's width, each [depth][width], read
// straight on. A is taken as it stands where the values of a row lie side by side, or packed as strips [depth][height]. A strip of B
// stays in the L1 cache while the tiles of all rows pass over it.

// Accumulators, a line of B and a broadcast value fill the registers.
#if STEPPE_VECTOR_BYTES == 64
#define TILE_ROWS ((size_t)12)
#define TILE_VECTORS ((size_t)2)
#elif defined(__aarch64__)
#define TILE_ROWS ((size_t)8)
#define TILE_VECTORS ((size_t)3)
#elif STEPPE_VECTOR_BYTES == 32
#define TILE_ROWS ((size_t)6)
#define TILE_VECTORS ((size_t)2)
#else
#define TILE_ROWS ((size_t)4)
#define TILE_VECTORS ((size_t)2)
#endif
#define TILE_COLUMNS (TILE_VECTORS * LANES)
// Bytes of B that leave room in any L1 cache for a tile's rows of A and C.
#define SMALL_BYTES ((size_t)24 << 10)
// Vectors of a tile that takes B as it stands, and rows of A or B whose dot products are taken together.
#if STEPPE_VECTOR_BYTES == 64 || defined(__aarch64__)
#define MOST_VECTORS ((size_t)8)
#define FEW ((size_t)8)
#else
#define MOST_VECTORS ((size_t)4)
#define FEW ((size_t)4)
#endif

enum { K(tile_rows) = TILE_ROWS, K(tile_columns) = TILE_COLUMNS };

// The height of every strip of A but the last, all nearly equal: 64 rows are five strips of 11 and one of 9, not five of 12 and one
// of 4, in which each load of B would serve too few multiplications.
INLINE size_t K(strip_height)(size_t rows) {
  const size_t strips = (rows + TILE_ROWS - 1) / TILE_ROWS;
  return strips ? (rows + strips - 1) / strips : 0;
}

// The width of the strip of B that begins where `columns` are left.
INLINE size_t K(strip_width)(size_t columns) {
  return columns >= TILE_COLUMNS ? TILE_COLUMNS : (columns + LANES - 1) / LANES * LANES;
}

// ── packing ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// Packs the transpose of `used` rows of `depth` values, LANES rows and LANES values at a time; what the strip has room for beyond the
// rows becomes 0.
INLINE void K(pack_transposed)(const scalar *b, ptrdiff_t ldb, size_t depth, size_t used, size_t width, scalar *strip) {
  for (size_t k = 0; k < depth; k += LANES) {
    const size_t deep = depth - k < LANES ? depth - k : LANES;
    for (size_t c = 0; c < width; c += LANES) {
      const size_t rows = used > c ? (used - c < LANES ? used - c : LANES) : 0;
      const scalar *from = b + (ptrdiff_t)c * ldb + (ptrdiff_t)k;
      scalar *to = strip + k * width + c;
      vector square[LANES];
      if (rows == LANES && deep == LANES) {
        UNROLL for (size_t r = 0; r < LANES; r++) square[r] = load(from + (ptrdiff_t)r * ldb);
        K(turn)(square);
        UNROLL for (size_t i = 0; i < LANES; i++) store(to + i * width, square[i]);
      } else {
        UNROLL for (size_t r = 0; r < LANES; r++) square[r] = r < rows ? load_first(from + (ptrdiff_t)r * ldb, deep, 0) : splat(0);
        K(turn)(square);
        for (size_t i = 0; i < deep; i++) store(to + i * width, square[i]);
      }
    }
  }
}

static void K(pack_columns)(const void *b, ptrdiff_t ldb, bool transposed, size_t depth, size_t columns, void *packed) {
  scalar *strip = packed;
  for (size_t c = 0; c < columns;) {
    const size_t width = K(strip_width)(columns - c), used = columns - c < width ? columns - c : width;
    if (transposed) {
      K(pack_transposed)((const scalar *)b + (ptrdiff_t)c * ldb, ldb, depth, used, width, strip);
    } else {
      for (size_t k = 0; k < depth; k++) {
        const scalar *row = (const scalar *)b + (ptrdiff_t)k * ldb + (ptrdiff_t)c;
        scalar *line = strip + k * width;
        if (used == TILE_COLUMNS) {
          UNROLL for (size_t v = 0; v < TILE_VECTORS; v++) store(line + v * LANES, load(row + v * LANES));
        } else {
          size_t i = 0;
          for (; i + LANES <= used; i += LANES) store(line + i, load(row + i));
          if (i < used) store(line + i, K(load_tail)(row + i, used - i, 0));
        }
      }
    }
    strip += depth * width;
    c += used;
  }
}

// Vectors that hold the rows of a tile, and steps of the depth that are packed at a time: rows of the source a power of two apart
// compete for the same few places in the cache, in which so many fit.
#define ROW_VECTORS ((TILE_ROWS + LANES - 1) / LANES)
#define PACKED_STEPS ((size_t)8)

static void K(pack_rows)(const void *a, ptrdiff_t lda, size_t rows, size_t depth, void *packed) {
  const size_t height = K(strip_height)(rows);
  for (size_t first = 0; first < depth; first += PACKED_STEPS) {
    const size_t end = depth - first < PACKED_STEPS ? depth : first + PACKED_STEPS;
    for (size_t r = 0; r < rows; r += height) {
      const size_t used = rows - r < height ? rows - r : height;
      const scalar *row = (const scalar *)a + (ptrdiff_t)first * lda + (ptrdiff_t)r;
      scalar *to = (scalar *)packed + r * depth + first * used;
      for (size_t k = first; k < end; k++, row += lda, to += used) {
        if ((end - 1 - k) * used >= ROW_VECTORS * LANES) {
          // Whole vectors: what they read and write beyond the strip belongs to steps that follow, which are written later.
          UNROLL for (size_t v = 0; v < ROW_VECTORS; v++) store(to + v * LANES, load(row + v * LANES));
        } else {
          UNROLL for (size_t i = 0; i < TILE_ROWS; i++) {
            if (i < used) to[i] = row[i];
          }
        }
      }
    }
  }
}

// The sum of the lanes, by halves.
INLINE scalar K(add_lanes)(vector v) {
  scalar a[LANES];
  __builtin_memcpy(a, &v, sizeof a);
  UNROLL for (size_t half = LANES / 2; half > 0; half /= 2) {
    UNROLL for (size_t i = 0; i < half; i++) a[i] += a[i + half];
  }
  return a[0];
}

// ── tiles ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// Writes `count` sums of one row: C ← f(α·sums + β·C + bias). Functions beyond the ReLU follow when the tile is whole.
INLINE void K(finish_vector)(const steppe_product_finish *f, vector sums, const scalar *bias, scalar *c, size_t count) {
  vector value = f->alpha == 1 ? sums : sums * splat((scalar)f->alpha);
  if (count >= LANES) {
    if (f->beta != 0) value += load(c) * splat((scalar)f->beta);
    if (bias) value += f->bias_by_rows ? splat(*bias) : load(bias);
    store(c, f->kind == STEPPE_RELU ? choose(value < 0, splat(0), value) : value);
  } else {
    if (f->beta != 0) value += load_first(c, count, 0) * splat((scalar)f->beta);
    if (bias) value += f->bias_by_rows ? splat(*bias) : load_first(bias, count, 0);
    store_first(c, f->kind == STEPPE_RELU ? choose(value < 0, splat(0), value) : value, count);
  }
}

INLINE void K(finish_rows)(const steppe_product_finish *f, size_t rows, size_t columns, scalar *c, ptrdiff_t ldc) {
  if (f->kind == STEPPE_IDENTITY || f->kind == STEPPE_RELU) return;
  for (size_t r = 0; r < rows; r++) {
    K(activate)(f->kind, f->parameter, c + (ptrdiff_t)r * ldc, c + (ptrdiff_t)r * ldc, columns);
  }
}

// Writes a tile of `columns` columns, whose sums for row r are at sums[r · stride]. What is asked is asked once for all, so that the
// sums of a tile of whole vectors stay in their registers: asked for each of them it took some 190 cycles a tile.
INLINE void K(finish_tile)(const size_t rows, const size_t vectors, const steppe_product_finish *f, vector *sums, const size_t stride,
                           const scalar *bias, scalar *c, ptrdiff_t ldc, size_t columns) {
#define STEPPE_EACH(v, count)                  \
  UNROLL for (size_t r = 0; r < rows; r++)     \
    UNROLL for (size_t v = 0; v < count; v++)
#define STEPPE_AT(v) (c + (ptrdiff_t)r * ldc + v * LANES)
  if (columns == vectors * LANES) {
    if (f->alpha != 1) {
      const vector alpha = splat((scalar)f->alpha);
      STEPPE_EACH(v, vectors) sums[r * stride + v] *= alpha;
    }
    if (f->beta != 0) {
      const vector beta = splat((scalar)f->beta);
      STEPPE_EACH(v, vectors) sums[r * stride + v] += load(STEPPE_AT(v)) * beta;
    }
    if (bias && f->bias_by_rows) {
      STEPPE_EACH(v, vectors) sums[r * stride + v] += splat(bias[r]);
    } else if (bias) {
      STEPPE_EACH(v, vectors) sums[r * stride + v] += load(bias + v * LANES);
    }
    if (f->kind == STEPPE_RELU) {
      STEPPE_EACH(v, vectors) sums[r * stride + v] = choose(sums[r * stride + v] < 0, splat(0), sums[r * stride + v]);
    }
    STEPPE_EACH(v, vectors) store(STEPPE_AT(v), sums[r * stride + v]);
  } else {
    STEPPE_EACH(v, vectors) {
      if (v * LANES < columns) {
        const scalar *added = bias ? bias + (f->bias_by_rows ? r : v * LANES) : NULL;
        K(finish_vector)(f, sums[r * stride + v], added, STEPPE_AT(v), columns - v * LANES);
      }
    }
  }
#undef STEPPE_AT
#undef STEPPE_EACH
  K(finish_rows)(f, rows, columns, c, ldc);
}

// Values of A and lines of B, wherever they stand: value k of row r at a[r · row + k · step], line k at b + k · line.
typedef struct K(factors) {
  const scalar *a, *b;
  ptrdiff_t row, step, line;
} K(factors);

// One tile of `columns` columns, `vectors` vectors of them. `packed` says that the rows of A lie side by side (x.row is 1). Tiles of
// few accumulators take several steps of the depth at a time, so that no addition waits for the one before it.
INLINE void K(tile)(const size_t rows, const size_t vectors, const bool packed, K(factors) x, size_t depth,
                    const steppe_product_finish *f, const scalar *bias, scalar *c, ptrdiff_t ldc, size_t columns) {
  const size_t ways = rows * vectors <= 2 ? 4 : rows * vectors <= 4 ? 2 : 1;
  vector sums[4][TILE_ROWS][MOST_VECTORS];
  UNROLL for (size_t w = 0; w < ways; w++) {
    UNROLL for (size_t r = 0; r < rows; r++) {
      UNROLL for (size_t v = 0; v < vectors; v++) sums[w][r][v] = splat(0);
    }
  }
  UNROLL for (size_t r = 0; r < rows; r++) {
    UNROLL for (size_t v = 0; v < vectors; v += LINE / LANES) __builtin_prefetch(c + (ptrdiff_t)r * ldc + v * LANES, 1, 3);
  }
#define STEPPE_STEP(w)                                                                                \
  {                                                                                                   \
    vector line[MOST_VECTORS];                                                                        \
    UNROLL for (size_t v = 0; v < vectors; v++) line[v] = load(x.b + v * LANES);                      \
    UNROLL for (size_t r = 0; r < rows; r++) {                                                        \
      const vector value = splat(packed ? x.a[r] : x.a[(ptrdiff_t)r * x.row]);                        \
      UNROLL for (size_t v = 0; v < vectors; v++) sums[w][r][v] += value * line[v];                   \
    }                                                                                                 \
    x.a += packed ? x.step : 1;                                                                       \
    x.b += x.line;                                                                                    \
  }
  size_t k = 0;
  for (; k + ways <= depth; k += ways) {
    UNROLL for (size_t w = 0; w < ways; w++) STEPPE_STEP(w)
  }
  for (; k < depth; k++) STEPPE_STEP(0)
#undef STEPPE_STEP
  UNROLL for (size_t w = 1; w < ways; w++) {
    UNROLL for (size_t r = 0; r < rows; r++) {
      UNROLL for (size_t v = 0; v < vectors; v++) sums[0][r][v] += sums[w][r][v];
    }
  }
  K(finish_tile)(rows, vectors, f, &sums[0][0][0], MOST_VECTORS, bias, c, ldc, columns);
}

#if STEPPE_VECTOR_BYTES == 64
#define STEPPE_EACH_HEIGHT(CASE) \
  CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8) CASE(9) CASE(10) CASE(11) CASE(12)
#elif defined(__aarch64__)
#define STEPPE_EACH_HEIGHT(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6) CASE(7) CASE(8)
#elif STEPPE_VECTOR_BYTES == 32
#define STEPPE_EACH_HEIGHT(CASE) CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
#else
#define STEPPE_EACH_HEIGHT(CASE) CASE(1) CASE(2) CASE(3) CASE(4)
#endif

INLINE void K(tile_of_height)(size_t rows, const size_t vectors, const bool packed, K(factors) x, size_t depth,
                              const steppe_product_finish *f, const scalar *bias, scalar *c, ptrdiff_t ldc, size_t columns) {
#define STEPPE_CASE(n) \
  case n: K(tile)(n, vectors, packed, x, depth, f, bias, c, ldc, columns); break;
  switch (rows) { STEPPE_EACH_HEIGHT(STEPPE_CASE) }
#undef STEPPE_CASE
}

// A tile of as many vectors as the strip of B is wide.
INLINE void K(tile_of_width)(size_t width, size_t rows, const bool packed, K(factors) x, size_t depth,
                             const steppe_product_finish *f, const scalar *bias, scalar *c, ptrdiff_t ldc, size_t columns) {
  if (width == TILE_COLUMNS) {
    K(tile_of_height)(rows, TILE_VECTORS, packed, x, depth, f, bias, c, ldc, columns);
  } else if (TILE_VECTORS > 2 && width == 2 * LANES) {
    K(tile_of_height)(rows, 2, packed, x, depth, f, bias, c, ldc, columns);
  } else {
    K(tile_of_height)(rows, 1, packed, x, depth, f, bias, c, ldc, columns);
  }
}

static void K(multiply)(const void *a, ptrdiff_t lda, const void *b, size_t rows, size_t columns, size_t depth,
                        const steppe_product_finish *finish, void *c, ptrdiff_t ldc) {
  const size_t height = K(strip_height)(rows);
  // Where the L1 cache holds all of B, C is written along its rows: the few steps of a shallow product wait for C's memory otherwise.
  const size_t together = depth * columns * sizeof(scalar) <= SMALL_BYTES ? height : rows;
  for (size_t first = 0; first < rows; first += together) {
    const size_t last = rows - first < together ? rows : first + together;
    const scalar *strip = b;
    for (size_t column = 0; column < columns;) {
      const size_t width = K(strip_width)(columns - column), used = columns - column < width ? columns - column : width;
      for (size_t row = first; row < last; row += height) {
        const scalar *bias = finish->bias ? (const scalar *)finish->bias + (finish->bias_by_rows ? row : column) : NULL;
        const size_t tall = rows - row < height ? rows - row : height;
        scalar *at = (scalar *)c + (ptrdiff_t)row * ldc + (ptrdiff_t)column;
        const K(factors) x = {.a = (const scalar *)a + (lda ? (ptrdiff_t)row * lda : (ptrdiff_t)(row * depth)), .b = strip,
                              .row = lda, .step = (ptrdiff_t)tall, .line = (ptrdiff_t)width};
        if (lda) {
          K(tile_of_width)(width, tall, false, x, depth, finish, bias, at, ldc, used);
        } else {
          K(tile_of_width)(width, tall, true, x, depth, finish, bias, at, ldc, used);
        }
      }
      strip += depth * width;
      column += used;
    }
  }
}

// ── a few rows ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// The dot products of `rows` rows of A with `columns` rows of B, both contiguous: C[r, c] = ⟨A[r], B[c]⟩.
INLINE void K(dots)(const size_t rows, const size_t columns, const scalar *a, ptrdiff_t lda, const scalar *b, ptrdiff_t ldb,
                    size_t depth, const steppe_product_finish *f, const scalar *bias, scalar *c, ptrdiff_t ldc) {
  vector sums[FEW][FEW];
  UNROLL for (size_t r = 0; r < rows; r++) {
    UNROLL for (size_t j = 0; j < columns; j++) sums[r][j] = splat(0);
  }
  size_t k = 0;
  for (; k + LANES <= depth; k += LANES) {
    vector values[FEW];
    UNROLL for (size_t j = 0; j < columns; j++) values[j] = load(b + (ptrdiff_t)j * ldb + (ptrdiff_t)k);
    UNROLL for (size_t r = 0; r < rows; r++) {
      const vector value = load(a + (ptrdiff_t)r * lda + (ptrdiff_t)k);
      UNROLL for (size_t j = 0; j < columns; j++) sums[r][j] += value * values[j];
    }
  }
  if (k < depth) {
    vector values[FEW];
    UNROLL for (size_t j = 0; j < columns; j++) values[j] = K(load_tail)(b + (ptrdiff_t)j * ldb + (ptrdiff_t)k, depth - k, 0);
    UNROLL for (size_t r = 0; r < rows; r++) {
      const vector value = K(load_tail)(a + (ptrdiff_t)r * lda + (ptrdiff_t)k, depth - k, 0);
      UNROLL for (size_t j = 0; j < columns; j++) sums[r][j] += value * values[j];
    }
  }
  UNROLL for (size_t r = 0; r < rows; r++) {
    UNROLL for (size_t j = 0; j < columns; j++) {
      scalar value = K(add_lanes)(sums[r][j]) * (scalar)f->alpha, *at = c + (ptrdiff_t)r * ldc + (ptrdiff_t)j;
      if (f->beta != 0) value += *at * (scalar)f->beta;
      if (bias) value += bias[j];
      *at = f->kind == STEPPE_RELU && value < 0 ? 0 : value;
    }
  }
  K(finish_rows)(f, rows, columns, c, ldc);
}

// B as it stands, [depth, columns] with lines `ldb` apart or, transposed, [columns, depth]: packing would cost more than the product.
INLINE void K(multiply_rows)(const size_t rows, const scalar *a, ptrdiff_t lda, const scalar *b, ptrdiff_t ldb, bool transposed,
                             size_t columns, size_t depth, const steppe_product_finish *f, scalar *c, ptrdiff_t ldc) {
  const scalar *bias = f->bias;
  size_t column = 0;
  if (transposed) {
    // As many columns at a time as there are rows of A to serve, so that accumulators and values fit the registers.
    const size_t wide = rows == 1 ? FEW : FEW / 2;
    for (; column + wide <= columns; column += wide) {
      K(dots)(rows, wide, a, lda, b + (ptrdiff_t)column * ldb, ldb, depth, f, bias ? bias + column : NULL, c + column, ldc);
    }
    for (; column < columns; column++) {
      K(dots)(rows, 1, a, lda, b + (ptrdiff_t)column * ldb, ldb, depth, f, bias ? bias + column : NULL, c + column, ldc);
    }
    return;
  }
  const K(factors) x = {.a = a, .b = b, .row = lda, .step = 1, .line = ldb};
  const size_t vectors = rows == 1 ? MOST_VECTORS : MOST_VECTORS / 2;
  for (; column + vectors * LANES <= columns; column += vectors * LANES) {
    K(factors) at = x;
    at.b += column;
    K(tile)(rows, vectors, false, at, depth, f, bias ? bias + column : NULL, c + column, ldc, vectors * LANES);
  }
  for (; column + LANES <= columns; column += LANES) {
    K(factors) at = x;
    at.b += column;
    K(tile)(rows, 1, false, at, depth, f, bias ? bias + column : NULL, c + column, ldc, LANES);
  }
  if (column == columns) return;
  // The last columns' lines end before a vector does.
  const size_t rest = columns - column;
  vector sums[FEW];
  UNROLL for (size_t r = 0; r < rows; r++) sums[r] = splat(0);
  for (size_t k = 0; k < depth; k++) {
    const vector line = K(load_tail)(b + (ptrdiff_t)k * ldb + (ptrdiff_t)column, rest, 0);
    UNROLL for (size_t r = 0; r < rows; r++) sums[r] += splat(a[(ptrdiff_t)r * lda + (ptrdiff_t)k]) * line;
  }
  UNROLL for (size_t r = 0; r < rows; r++) {
    K(finish_vector)(f, sums[r], bias ? bias + column : NULL, c + (ptrdiff_t)r * ldc + (ptrdiff_t)column, rest);
  }
  K(finish_rows)(f, rows, rest, c + column, ldc);
}

static void K(multiply_few)(const void *a, ptrdiff_t lda, const void *b, ptrdiff_t ldb, bool transposed, size_t rows,
                            size_t columns, size_t depth, const steppe_product_finish *finish, void *c, ptrdiff_t ldc) {
  for (size_t row = 0; row < rows;) {
    const scalar *from = (const scalar *)a + (ptrdiff_t)row * lda;
    scalar *to = (scalar *)c + (ptrdiff_t)row * ldc;
    switch (rows - row) {
      case 1:
        K(multiply_rows)(1, from, lda, b, ldb, transposed, columns, depth, finish, to, ldc);
        row += 1;
        break;
      case 2:
      case 3:
        K(multiply_rows)(2, from, lda, b, ldb, transposed, columns, depth, finish, to, ldc);
        row += 2;
        break;
      default:
        K(multiply_rows)(4, from, lda, b, ldb, transposed, columns, depth, finish, to, ldc);
        row += 4;
    }
  }
}

#undef STEPPE_EACH_HEIGHT
#undef FEW
#undef MOST_VECTORS
#undef ROW_VECTORS
#undef PACKED_STEPS
#undef TILE_ROWS
#undef SMALL_BYTES
#undef TILE_VECTORS
#undef TILE_COLUMNS
