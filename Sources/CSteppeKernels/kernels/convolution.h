// Convolution's part of moving data: the products themselves are product.h's.
//
// A convolution reads an image through planes: for each channel the image with its padding, split by the stride's phases, so that what a
// tap of the kernel sees at the places of an output row lies side by side, whatever padding, stride and dilation are. A tap is then one
// offset, and a patch's line in a packed strip a few short copies.

// How a row is copied: less than a vector, up to two, any number of values side by side; less than a vector of every other value, any
// number of them; or values apart.
typedef enum {
  K(few_values),
  K(two_vectors),
  K(many_values),
  K(few_others),
  K(every_other),
  K(values_apart)
} K(row_kind);

INLINE void K(copy_rows)(const K(row_kind) kind, const scalar *x, ptrdiff_t x_plane, ptrdiff_t x_row, ptrdiff_t x_step, scalar *y,
                         ptrdiff_t y_plane, ptrdiff_t y_row, ptrdiff_t y_step, size_t planes, size_t rows, size_t columns) {
  for (size_t p = 0; p < planes; p++, x += x_plane, y += y_plane) {
    const scalar *from = x;
    scalar *to = y;
    for (size_t r = 0; r < rows; r++, from += x_row, to += y_row) {
      if (kind == K(few_values)) {
        K(store_tail)(to, K(load_tail)(from, columns, 0), columns);
      } else if (kind == K(two_vectors) || kind == K(many_values)) {
        // The last vector may overlap the one before it.
        const vector last = load(from + columns - LANES);
        if (kind == K(two_vectors)) {
          store(to, load(from));
        } else {
          for (size_t i = 0; i + LANES < columns; i += LANES) store(to + i, load(from + i));
        }
        store(to + columns - LANES, last);
      } else if (kind == K(few_others)) {
        K(store_tail)(to, K(load_apart)(2, from, columns), columns);
      } else if (kind == K(every_other)) {
        for (size_t i = 0; i < columns; i += LANES) {
          const size_t count = columns - i < LANES ? columns - i : LANES;
          K(store_some)(to + i, K(load_apart)(2, from + 2 * i, count), count);
        }
      } else {
        for (size_t i = 0; i < columns; i++) to[(ptrdiff_t)i * y_step] = from[(ptrdiff_t)i * x_step];
      }
    }
  }
}

// Copies rows of `columns` values, `planes` times `rows` of them.
static void K(copy_planes)(const void *x, ptrdiff_t x_plane, ptrdiff_t x_row, ptrdiff_t x_step, void *y, ptrdiff_t y_plane,
                           ptrdiff_t y_row, ptrdiff_t y_step, size_t planes, size_t rows, size_t columns) {
  if (columns == 0) return;
  K(row_kind) kind = K(values_apart);
  if (x_step == 1 && y_step == 1) {
    kind = columns < LANES ? K(few_values) : columns <= 2 * LANES ? K(two_vectors) : K(many_values);
  } else if (x_step == 2 && y_step == 1) {
    kind = columns < LANES ? K(few_others) : K(every_other);
  }
#define STEPPE_CASE(kind) \
  case kind: K(copy_rows)(kind, x, x_plane, x_row, x_step, y, y_plane, y_row, y_step, planes, rows, columns); break;
  switch (kind) {
    STEPPE_CASE(K(few_values))
    STEPPE_CASE(K(two_vectors))
    STEPPE_CASE(K(many_values))
    STEPPE_CASE(K(few_others))
    STEPPE_CASE(K(every_other))
    STEPPE_CASE(K(values_apart))
  }
#undef STEPPE_CASE
}

// Vectors of a run that are copied together.
#define MOST_VECTORS ((size_t)4)

// Lane by lane its number.
INLINE ivector K(lane_numbers)(void) {
  ivector lanes;
  for (size_t i = 0; i < LANES; i++) lanes[i] = (integer)i;
  return lanes;
}

// One run's part of every line, `vectors` vectors of it. Where `exact`, what stands behind the run's `length` values stays.
INLINE void K(copy_run)(const size_t vectors, const bool exact, const scalar *place, const ptrdiff_t *offsets, size_t depth, scalar *to,
                        size_t width, size_t length) {
  const ivector inside = K(lane_numbers)() < ((ivector){0} + (integer)(length - (vectors - 1) * LANES));
  for (size_t k = 0; k < depth; k++, to += width) {
    const scalar *from = place + offsets[k];
    UNROLL for (size_t v = 0; v < vectors; v++) {
      const vector values = load(from + v * LANES);
      store(to + v * LANES, exact && v + 1 == vectors ? choose(inside, values, load(to + v * LANES)) : values);
    }
  }
}

static void K(pack_patches)(const void *planes, const ptrdiff_t *offsets, size_t depth, const steppe_patch_run *runs, size_t count,
                            void *lines, size_t width) {
  scalar *const line = lines;
  const size_t used = count ? runs[count - 1].to + runs[count - 1].length : 0;
  if (used < width) {
    for (size_t c = used - used % LANES; c < width; c += LANES) {
      for (size_t k = 0; k < depth; k++) store(line + k * width + c, splat(0));
    }
  }
  for (size_t r = 0; r < count; r++) {
    for (size_t i = 0; i < runs[r].length; i += MOST_VECTORS * LANES) {
      const size_t rest = runs[r].length - i, length = rest < MOST_VECTORS * LANES ? rest : MOST_VECTORS * LANES;
      const size_t vectors = (length + LANES - 1) / LANES;
      const scalar *place = (const scalar *)planes + runs[r].from + i;
      scalar *to = line + runs[r].to + i;
      // What the last vector writes too much, the runs that follow in the line write over; behind the line's last there are none.
      const bool exact = runs[r].to + i + vectors * LANES > used;
#define STEPPE_CASE(n)                                                           \
  case n:                                                                        \
    if (exact) {                                                                 \
      K(copy_run)(n, true, place, offsets, depth, to, width, length);            \
    } else {                                                                     \
      K(copy_run)(n, false, place, offsets, depth, to, width, length);           \
    }                                                                            \
    break;
      switch (vectors) { STEPPE_CASE(1) STEPPE_CASE(2) STEPPE_CASE(3) STEPPE_CASE(4) }
#undef STEPPE_CASE
    }
  }
}

// ── few rows: patches as they stand ───────────────────────────────────────────────────────────────────────────────────────────

// Rows whose sums are taken together.
#define MOST_ROWS ((size_t)4)

INLINE void K(patch_tile)(const size_t rows, const size_t vectors, const scalar *a, ptrdiff_t lda, const scalar *place,
                          const ptrdiff_t *offsets, size_t depth, const steppe_product_finish *f, scalar *y, ptrdiff_t ldy,
                          size_t columns) {
  // Few sums take several steps of the depth at a time, so that no addition waits for the one before it.
  const size_t ways = rows * vectors <= 2 ? 4 : rows * vectors <= 4 ? 2 : 1;
  vector sums[4][MOST_ROWS][MOST_VECTORS];
  UNROLL for (size_t w = 0; w < ways; w++) {
    UNROLL for (size_t r = 0; r < rows; r++) {
      UNROLL for (size_t v = 0; v < vectors; v++) sums[w][r][v] = splat(0);
    }
  }
#define STEPPE_STEP(w)                                                              \
  {                                                                                 \
    const scalar *from = place + offsets[k + (w)];                                  \
    vector line[MOST_VECTORS];                                                      \
    UNROLL for (size_t v = 0; v < vectors; v++) line[v] = load(from + v * LANES);   \
    UNROLL for (size_t r = 0; r < rows; r++) {                                      \
      const vector value = splat(a[(ptrdiff_t)r * lda + (ptrdiff_t)(k + (w))]);     \
      UNROLL for (size_t v = 0; v < vectors; v++) sums[w][r][v] += value * line[v]; \
    }                                                                               \
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
  K(finish_tile)(rows, vectors, f, &sums[0][0][0], MOST_VECTORS, f->bias, y, ldy, columns);
}

INLINE void K(patch_rows)(const size_t rows, const scalar *a, ptrdiff_t lda, const scalar *planes, const ptrdiff_t *offsets,
                          size_t depth, const steppe_patch_run *runs, size_t count, const steppe_product_finish *f, scalar *y,
                          ptrdiff_t ldy) {
  for (size_t r = 0; r < count; r++) {
    for (size_t i = 0; i < runs[r].length;) {
      const size_t rest = runs[r].length - i, columns = rest < MOST_VECTORS * LANES ? rest : MOST_VECTORS * LANES;
      const scalar *place = planes + runs[r].from + i;
      scalar *to = y + runs[r].to + i;
#define STEPPE_CASE(n) \
  case n: K(patch_tile)(rows, n, a, lda, place, offsets, depth, f, to, ldy, columns); break;
      switch ((columns + LANES - 1) / LANES) { STEPPE_CASE(1) STEPPE_CASE(2) STEPPE_CASE(3) STEPPE_CASE(4) }
#undef STEPPE_CASE
      i += columns;
    }
  }
}

static void K(multiply_patches)(const void *a, ptrdiff_t lda, const void *planes, const ptrdiff_t *offsets, size_t rows, size_t depth,
                                const steppe_patch_run *runs, size_t count, const steppe_product_finish *finish, void *y,
                                ptrdiff_t ldy) {
#define STEPPE_CASE(n) \
  case n: K(patch_rows)(n, a, lda, planes, offsets, depth, runs, count, finish, y, ldy); break;
  switch (rows) { STEPPE_CASE(1) STEPPE_CASE(2) STEPPE_CASE(3) STEPPE_CASE(4) }
#undef STEPPE_CASE
}

#define MOST_DOTS ((size_t)9)

// sums[k] += Σ planes[offsets[k] + place] · y[column], for `depth` offsets.
INLINE void K(patch_dots_of)(const size_t depth, const scalar *planes, const ptrdiff_t *offsets, const steppe_patch_run *runs,
                             size_t count, const scalar *y, scalar *sums) {
  const ivector lanes = K(lane_numbers)();
  vector totals[MOST_DOTS];
  UNROLL for (size_t k = 0; k < depth; k++) totals[k] = splat(0);
  for (size_t r = 0; r < count; r++) {
    const scalar *place = planes + runs[r].from, *from = y + runs[r].to;
    size_t i = 0;
    for (; i + LANES <= runs[r].length; i += LANES) {
      const vector value = load(from + i);
      UNROLL for (size_t k = 0; k < depth; k++) totals[k] += value * load(place + offsets[k] + i);
    }
    const size_t rest = runs[r].length - i;
    if (rest == 0) continue;
    const vector value = K(load_tail)(from + i, rest, 0);
    const ivector inside = lanes < ((ivector){0} + (integer)rest);
    // What lies beyond the run may be infinite or no number: it must not meet the zeros.
    UNROLL for (size_t k = 0; k < depth; k++) totals[k] += value * choose(inside, load(place + offsets[k] + i), splat(0));
  }
  UNROLL for (size_t k = 0; k < depth; k++) sums[k] += K(add_lanes)(totals[k]);
}

static void K(patch_dots)(const void *planes, const ptrdiff_t *offsets, size_t depth, const steppe_patch_run *runs, size_t count,
                          const void *y, void *sums) {
  for (size_t k = 0; k < depth; k += MOST_DOTS) {
    const ptrdiff_t *at = offsets + k;
    scalar *to = (scalar *)sums + k;
#define STEPPE_CASE(n) \
  case n: K(patch_dots_of)(n, planes, at, runs, count, y, to); break;
    switch (depth - k < MOST_DOTS ? depth - k : MOST_DOTS) {
      STEPPE_CASE(1) STEPPE_CASE(2) STEPPE_CASE(3) STEPPE_CASE(4) STEPPE_CASE(5) STEPPE_CASE(6) STEPPE_CASE(7) STEPPE_CASE(8)
      STEPPE_CASE(9)
    }
#undef STEPPE_CASE
  }
}

#undef MOST_DOTS
#undef MOST_ROWS
#undef MOST_VECTORS
