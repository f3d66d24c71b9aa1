// Normalization over the columns of a matrix; see `normalization.h` for what its loops share.
//
// The passes take a few rows at a time, so that what is kept for each column (shift, coefficients, running sums) is loaded once for all
// of them, over strips of columns narrow enough that those values stay in the L1 cache, in blocks of rows short enough that sums may run
// in the scalar type before they are merged in double. More rows at a time would be fewer loads, but rows often lie a power of two apart,
// and then compete for the same few places of the L1 cache: two where two or three matrices are walked, four where it is one, measured
// best. Sums over two matrices take four too where a vector is a whole line, which then need not stay until its other half is read.

// Rows of a block of a map.
#define BLOCK ((size_t)128)
#define ROWS_OF_SUMS_BLOCK(gradient) (ADDITIONS * ROWS_OF_SUMS(gradient))
#define ROWS_OF_SUMS(gradient) ((size_t)((gradient) && LANES < LINE ? 2 : 4))
#define ROWS_OF_MAP ((size_t)2)

typedef struct K(panel) {
  const scalar *x, *dy;
  scalar *y;
  ptrdiff_t ldx, lddy, ldy;
  size_t rows, columns;
  const scalar *shift, *a, *b, *e;
  const scalar *scale, *offset;
  double *first, *second;
  bool far;
} K(panel);
#define panel K(panel)

// The part of a panel that begins at a row and a column. Pointers that a pass doesn't use are NULL and stay so.
INLINE panel K(part)(panel m, size_t row, size_t rows, size_t column, size_t columns) {
  const ptrdiff_t r = (ptrdiff_t)row, c = (ptrdiff_t)column;
  m.x += r * m.ldx + c;
  if (m.dy) m.dy += r * m.lddy + c;
  if (m.y) m.y += r * m.ldy + c;
  m.shift += c;
  if (m.a) m.a += c;
  if (m.b) m.b += c;
  if (m.e) m.e += c;
  if (m.scale) m.scale += c, m.offset += c;
  if (m.first) m.first += c;
  if (m.second) m.second += c;
  m.rows = rows;
  m.columns = columns;
  return m;
}
#define part K(part)

// How many rows further on memory is fetched, a page or so and a multiple of `group`: hardware prefetching stops at the end of a page and
// starts late in a new one. Where no rows follow, what is fetched lies past the matrix, which does no harm. Where two matrices are
// walked in four rows each, or lie far beyond the last cache, fetching was measured slower.
INLINE size_t K(rows_ahead)(size_t columns, size_t group) {
  const size_t groups = STRIP / (columns * group);
  return group * (groups > 0 ? groups : 1);
}

// ── sums over columns ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// Adds one vector of columns of `rows` rows to the running sums `u` and `v`.
INLINE void K(sums_step)(const bool gradient, const bool masked, const size_t rows, const panel *m, size_t c, scalar *u,
                         scalar *v) {
  const vector shift = load(m->shift + c), scale = masked ? load(m->scale + c) : shift;
  const vector offset = masked ? load(m->offset + c) : shift;
  vector first = load(u), second = load(v);
  vector s = splat(0), q = splat(0);
  UNROLL for (size_t r = 0; r < rows; r++) {
    const vector d = load(m->x + (ptrdiff_t)r * m->ldx + c) - shift;
    vector w = gradient ? load(m->dy + (ptrdiff_t)r * m->lddy + c) : d;
    if (masked) w = passed(d * scale + offset, w);
    s = r == 0 ? w : s + w;
    q = r == 0 ? w * d : w * d + q;
  }
  store(u, first + s);
  store(v, second + q);
}

// One group of rows over one strip. The group `ahead` rows further on is fetched on the way, except where two matrices are walked in four
// rows each.
INLINE void K(sums_group)(const bool gradient, const bool masked, const size_t rows, const panel *m, size_t ahead, scalar *u,
                          scalar *v) {
  size_t c = 0;
  for (; c + LINE <= m->columns; c += LINE) {
    UNROLL for (size_t r = 0; (!gradient || LANES < LINE) && r < rows; r++) {
      fetch(m->x + (ptrdiff_t)(r + ahead) * m->ldx + c);
      if (gradient) fetch(m->dy + (ptrdiff_t)(r + ahead) * m->lddy + c);
    }
    UNROLL for (size_t k = 0; k < LINE; k += LANES) K(sums_step)(gradient, masked, rows, m, c + k, u + c + k, v + c + k);
  }
  for (; c + LANES <= m->columns; c += LANES) K(sums_step)(gradient, masked, rows, m, c, u + c, v + c);
  // The last columns' vector reaches back over columns that have been added already: their lanes are dropped in the end.
  if (c < m->columns) K(sums_step)(gradient, masked, rows, m, m->columns - LANES, u + c, v + c);
}

// Fewer columns than a vector has lanes. Spare lanes hold x = shift and dy = 0, so they add 0.
INLINE void K(sums_narrow)(const bool gradient, const bool masked, const panel *m) {
  const size_t n = m->columns;
  const vector shift = load_first(m->shift, n, 0), scale = masked ? load_first(m->scale, n, 0) : shift;
  const vector offset = masked ? load_first(m->offset, n, 0) : shift;
  for (size_t start = 0; start < m->rows; start += ADDITIONS) {
    vector s = splat(0), q = splat(0);
    for (size_t r = start; r < m->rows && r < start + ADDITIONS; r++) {
      const vector d = load_first(m->x + (ptrdiff_t)r * m->ldx, n, 0) - shift;
      vector w = gradient ? load_first(m->dy + (ptrdiff_t)r * m->lddy, n, 0) : d;
      if (masked) w = passed(d * scale + offset, w);
      s += w;
      q += w * d;
    }
    for (size_t c = 0; c < n; c++) m->first[c] += (double)s[c], m->second[c] += (double)q[c];
  }
}

INLINE void K(sums_panel)(const bool gradient, const bool masked, const panel *whole) {
  _Alignas(64) scalar u[STRIP + 2 * LANES], v[STRIP + 2 * LANES];
  if (whole->columns < LANES) {
    K(sums_narrow)(gradient, masked, whole);
    return;
  }
  const size_t n = strips(whole->columns), group = ROWS_OF_SUMS(gradient), block = ROWS_OF_SUMS_BLOCK(gradient);
  const size_t ahead = K(rows_ahead)(whole->columns, group);
  for (size_t row = 0; row < whole->rows; row += block) {
    const size_t rows = whole->rows - row < block ? whole->rows - row : block;
    for (size_t strip = 0; strip < n; strip++) {
      const size_t column = strip * STRIP, columns = strip + 1 == n ? whole->columns - column : STRIP;
      const panel m = part(*whole, row, rows, column, columns);
      const size_t even = columns / LANES * LANES, used = even + (even < columns ? LANES : 0);
      for (size_t c = 0; c < used; c += LANES) store(u + c, splat(0)), store(v + c, splat(0));
      size_t r = 0;
      for (; r + group <= rows; r += group) {
        const panel g = part(m, r, group, 0, columns);
        K(sums_group)(gradient, masked, group, &g, ahead, u, v);
      }
      for (; r < rows; r++) {
        const panel g = part(m, r, 1, 0, columns);
        K(sums_group)(gradient, masked, 1, &g, 0, u, v);
      }
      for (size_t c = 0; c < even; c += LANES) add_to(m.first + c, load(u + c)), add_to(m.second + c, load(v + c));
      for (size_t c = even; c < columns; c++) {
        const size_t lane = c + LANES - (columns - even);
        m.first[c] += (double)u[lane], m.second[c] += (double)v[lane];
      }
    }
  }
}

// ── maps over columns ─────────────────────────────────────────────────────────────────────────────────────────────────────────

// The rows of one vector of columns; what they hold is read before any of it is written, so the output may be the input.
INLINE void K(map_step)(const bool gradient, const bool masked, const bool relu, const size_t rows, const panel *m, size_t c,
                        vector *out) {
  const vector shift = load(m->shift + c), b = load(m->b + c), e = load(m->e + c);
  const vector a = gradient && !relu ? load(m->a + c) : splat(1);
  const vector scale = masked ? load(m->scale + c) : shift, offset = masked ? load(m->offset + c) : shift;
  UNROLL for (size_t r = 0; r < rows; r++) {
    const vector d = load(m->x + (ptrdiff_t)r * m->ldx + c) - shift;
    vector y = d * b + e;
    if (gradient) {
      const vector dy = load(m->dy + (ptrdiff_t)r * m->lddy + c);
      y = (masked ? passed(d * scale + offset, dy) : dy) * a + y;
    }
    out[r] = relu ? positive(y) : y;
  }
}

INLINE void K(map_store)(const bool streamed, const size_t rows, const panel *m, size_t c, const vector *out) {
  UNROLL for (size_t r = 0; r < rows; r++) {
    scalar *y = m->y + (ptrdiff_t)r * m->ldy + c;
    if (streamed) {
      stream_store(y, out[r]);
    } else {
      store(y, out[r]);
    }
  }
}

// One group of rows over one strip, whose first `head` columns are not streamed; the group `ahead` rows further on is fetched unless the
// matrices are `far`.
// The ragged ends, as vectors that overlap the whole ones, are computed before those are written and written after them.
INLINE void K(map_group)(const bool gradient, const bool masked, const bool relu, const bool streamed, const bool far,
                         const size_t rows, const panel *m, size_t head, ptrdiff_t ahead) {
  vector begin[ROWS_OF_MAP], end[ROWS_OF_MAP], out[ROWS_OF_MAP];
  size_t c = streamed ? head % LANES : 0;
  const bool early = c != 0, late = (m->columns - c) % LANES != 0;
  if (early) K(map_step)(gradient, masked, relu, rows, m, 0, begin);
  if (late) K(map_step)(gradient, masked, relu, rows, m, m->columns - LANES, end);
  if (streamed) {
    for (; c < head; c += LANES) {
      K(map_step)(gradient, masked, relu, rows, m, c, out);
      K(map_store)(false, rows, m, c, out);
    }
  }
  for (; c + LINE <= m->columns; c += LINE) {
    UNROLL for (size_t r = 0; !far && r < rows; r++) {
      fetch(m->x + ((ptrdiff_t)r + ahead) * m->ldx + c);
      if (gradient) fetch(m->dy + ((ptrdiff_t)r + ahead) * m->lddy + c);
    }
    UNROLL for (size_t k = 0; k < LINE; k += LANES) {
      K(map_step)(gradient, masked, relu, rows, m, c + k, out);
      K(map_store)(streamed, rows, m, c + k, out);
    }
  }
  for (; c + LANES <= m->columns; c += LANES) {
    K(map_step)(gradient, masked, relu, rows, m, c, out);
    K(map_store)(false, rows, m, c, out);
  }
  if (early) K(map_store)(false, rows, m, 0, begin);
  if (late) K(map_store)(false, rows, m, m->columns - LANES, end);
}

INLINE void K(map_narrow)(const bool gradient, const bool masked, const bool relu, const panel *m, bool backwards) {
  const size_t n = m->columns;
  const vector shift = load_first(m->shift, n, 0), b = load_first(m->b, n, 0), e = load_first(m->e, n, 0);
  const vector a = gradient && !relu ? load_first(m->a, n, 0) : splat(1);
  const vector scale = masked ? load_first(m->scale, n, 0) : shift, offset = masked ? load_first(m->offset, n, 0) : shift;
  for (size_t i = 0; i < m->rows; i++) {
    const ptrdiff_t r = (ptrdiff_t)(backwards ? m->rows - 1 - i : i);
    const vector d = load_first(m->x + r * m->ldx, n, 0) - shift;
    vector y = d * b + e;
    if (gradient) {
      const vector dy = load_first(m->dy + r * m->lddy, n, 0);
      y = (masked ? passed(d * scale + offset, dy) : dy) * a + y;
    }
    store_first(m->y + r * m->ldy, relu ? positive(y) : y, n);
  }
}

// The groups of rows of one strip, forwards or backwards. A streaming group needs rows that are alike in alignment; where they
// are not, rows go one at a time, each with a head of its own.
INLINE void K(map_strip)(const bool gradient, const bool masked, const bool relu, const bool streamed, const panel *m,
                         bool backwards, steppe_activation kind, double parameter) {
  const bool activated = !gradient && !relu && kind != STEPPE_IDENTITY, alike = !streamed || (size_t)m->ldy % LINE == 0;
  const ptrdiff_t distance = (ptrdiff_t)K(rows_ahead)(m->columns, ROWS_OF_MAP), ahead = backwards ? -distance : distance;
  for (size_t done = 0; done < m->rows;) {
    const size_t left = m->rows - done, taken = alike && left >= ROWS_OF_MAP ? ROWS_OF_MAP : 1;
    const panel g = part(*m, backwards ? left - taken : done, taken, 0, m->columns);
    const size_t head = streamed ? head_of(g.y) : 0;
    if (taken < ROWS_OF_MAP) {
      K(map_group)(gradient, masked, relu, streamed, false, 1, &g, head, ahead);
    } else if (gradient && streamed && m->far) {
      K(map_group)(gradient, masked, relu, streamed, true, ROWS_OF_MAP, &g, head, ahead);
    } else {
      K(map_group)(gradient, masked, relu, streamed, false, ROWS_OF_MAP, &g, head, ahead);
    }
    if (activated) {
      for (size_t r = 0; r < taken; r++) {
        scalar *y = g.y + (ptrdiff_t)r * g.ldy;
        K(activate)(kind, parameter, y, y, m->columns);
      }
    }
    done += taken;
  }
}

// Blocks of rows and strips of columns, each forwards or each backwards.
INLINE void K(map_panel)(const bool gradient, const bool masked, const bool relu, const bool streamed, const panel *whole,
                         bool backwards, steppe_activation kind, double parameter) {
  if (whole->columns < LANES) {
    K(map_narrow)(gradient, masked, relu, whole, backwards);
    for (size_t r = 0; !gradient && !relu && kind != STEPPE_IDENTITY && r < whole->rows; r++) {
      scalar *y = whole->y + (ptrdiff_t)r * whole->ldy;
      K(activate)(kind, parameter, y, y, whole->columns);
    }
    return;
  }
  const size_t n = strips(whole->columns), blocks = (whole->rows + BLOCK - 1) / BLOCK;
  for (size_t i = 0; i < blocks; i++) {
    const size_t row = (backwards ? blocks - 1 - i : i) * BLOCK;
    const size_t rows = whole->rows - row < BLOCK ? whole->rows - row : BLOCK;
    for (size_t j = 0; j < n; j++) {
      const size_t strip = backwards ? n - 1 - j : j;
      const size_t column = strip * STRIP, columns = strip + 1 == n ? whole->columns - column : STRIP;
      const panel m = part(*whole, row, rows, column, columns);
      if (streamed && columns >= STREAMED) {
        K(map_strip)(gradient, masked, relu, true, &m, backwards, kind, parameter);
      } else {
        K(map_strip)(gradient, masked, relu, false, &m, backwards, kind, parameter);
      }
    }
  }
  if (streamed) finish_stream();
}

// ── few columns ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

// How many rows of a contiguous matrix to take as one, so that a few columns become many and vectors have no ragged ends; 1 where
// that is no gain.
INLINE size_t K(folding)(const panel *m) {
  const size_t columns = m->columns;
  const ptrdiff_t ld = (ptrdiff_t)columns;
  if (columns >= 256 || m->ldx != ld || (m->dy && m->lddy != ld) || (m->y && m->ldy != ld)) return 1;
  size_t fold = 1;
  while (columns * fold % LINE != 0) fold *= 2;
  const size_t most = STRIP / 2 / (columns * fold), worth = m->rows / (16 * fold);
  if (most == 0 || worth == 0) return 1;
  return fold * (most < worth ? most : worth);
}

INLINE const scalar *K(repeated)(const scalar *p, size_t columns, size_t fold, scalar *out) {
  if (!p) return p;
  for (size_t i = 0; i < fold; i++) __builtin_memcpy(out + i * columns, p, columns * sizeof(scalar));
  return out;
}
#define repeated K(repeated)

// The panel that takes `fold` rows as one; `rest` becomes the rows left over.
INLINE panel K(folded)(const panel *m, size_t fold, scalar buffers[6][STRIP], panel *rest) {
  const size_t rows = m->rows / fold;
  panel f = *m;
  f.rows = rows;
  f.columns = m->columns * fold;
  f.ldx = f.lddy = f.ldy = (ptrdiff_t)f.columns;
  f.shift = repeated(m->shift, m->columns, fold, buffers[0]);
  f.a = repeated(m->a, m->columns, fold, buffers[1]);
  f.b = repeated(m->b, m->columns, fold, buffers[2]);
  f.e = repeated(m->e, m->columns, fold, buffers[3]);
  f.scale = repeated(m->scale, m->columns, fold, buffers[4]);
  f.offset = repeated(m->offset, m->columns, fold, buffers[5]);
  *rest = part(*m, rows * fold, m->rows - rows * fold, 0, m->columns);
  return f;
}

INLINE void K(sums_columns)(const bool gradient, const bool masked, panel m) {
  if (m.rows == 0 || m.columns == 0) return;
  const size_t fold = K(folding)(&m);
  for (;;) {
    panel now = m, rest = m;
    scalar buffers[6][STRIP];
    double first[STRIP], second[STRIP];
    rest.rows = 0;
    if (fold > 1 && m.rows >= fold) {
      now = K(folded)(&m, fold, buffers, &rest);
      for (size_t c = 0; c < now.columns; c++) first[c] = second[c] = 0;
      now.first = first;
      now.second = second;
    }
    K(sums_panel)(gradient, masked, &now);
    for (size_t i = 0; now.columns != m.columns && i < fold; i++) {
      for (size_t c = 0; c < m.columns; c++) {
        m.first[c] += first[i * m.columns + c];
        m.second[c] += second[i * m.columns + c];
      }
    }
    if (rest.rows == 0) return;
    m = rest;
  }
}

INLINE void K(map_columns)(const bool gradient, const bool masked, const bool relu, const bool streamed, panel m,
                           bool backwards, steppe_activation kind, double parameter) {
  if (m.rows == 0 || m.columns == 0) return;
  const size_t fold = K(folding)(&m);
  for (;;) {
    panel now = m, rest = m;
    scalar buffers[6][STRIP];
    rest.rows = 0;
    if (fold > 1 && m.rows >= fold) now = K(folded)(&m, fold, buffers, &rest);
    K(map_panel)(gradient, masked, relu, streamed, &now, backwards, kind, parameter);
    if (rest.rows == 0) return;
    m = rest;
  }
}

// ── the table's column kernels ────────────────────────────────────────────────────────────────────────────────────────────────

static void K(column_moments)(const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const void *shift, double *sums,
                              double *squares) {
  K(sums_columns)(false, false, (panel){.x = x, .ldx = ldx, .rows = rows, .columns = columns, .shift = shift, .first = sums,
                                        .second = squares});
}

static void K(column_gradient_sums)(const void *x, ptrdiff_t ldx, const void *dy, ptrdiff_t lddy, size_t rows, size_t columns,
                                    const void *shift, const void *scale, const void *offset, double *gradients,
                                    double *products) {
  const panel m = {.x = x, .ldx = ldx, .dy = dy, .lddy = lddy, .rows = rows, .columns = columns, .shift = shift, .scale = scale,
                   .offset = offset, .first = gradients, .second = products};
  if (scale) {
    K(sums_columns)(true, true, m);
  } else {
    K(sums_columns)(true, false, m);
  }
}

static void K(column_normalize)(steppe_activation kind, double parameter, const void *x, ptrdiff_t ldx, void *y, ptrdiff_t ldy,
                                size_t rows, size_t columns, const void *shift, const void *scale, const void *offset,
                                bool backwards, bool stream) {
  const panel m = {.x = x, .ldx = ldx, .y = y, .ldy = ldy, .rows = rows, .columns = columns, .shift = shift, .b = scale,
                   .e = offset};
  if (kind == STEPPE_RELU) {
    if (stream) {
      K(map_columns)(false, false, true, true, m, backwards, STEPPE_RELU, 0);
    } else {
      K(map_columns)(false, false, true, false, m, backwards, STEPPE_RELU, 0);
    }
  } else if (kind == STEPPE_IDENTITY && stream) {
    K(map_columns)(false, false, false, true, m, backwards, STEPPE_IDENTITY, 0);
  } else {
    // The other activations go over each row's strip while it is in the L1 cache, so it is not streamed.
    K(map_columns)(false, false, false, false, m, backwards, kind, parameter);
  }
}

static void K(column_normalize_residual)(const void *x, ptrdiff_t ldx, const void *residual, ptrdiff_t ldr, void *y,
                                         ptrdiff_t ldy, size_t rows, size_t columns, const void *shift, const void *scale,
                                         const void *offset, bool backwards, bool stream) {
  const panel m = {.x = x, .ldx = ldx, .dy = residual, .lddy = ldr, .y = y, .ldy = ldy, .rows = rows, .columns = columns,
                   .shift = shift, .b = scale, .e = offset};
  if (stream) {
    K(map_columns)(true, false, true, true, m, backwards, STEPPE_RELU, 0);
  } else {
    K(map_columns)(true, false, true, false, m, backwards, STEPPE_RELU, 0);
  }
}

static void K(column_gradient)(const void *x, ptrdiff_t ldx, const void *dy, ptrdiff_t lddy, void *dx, ptrdiff_t lddx,
                               size_t rows, size_t columns, const void *shift, const void *scale, const void *offset,
                               const void *a, const void *b, const void *e, bool backwards, bool stream, bool far) {
  const panel m = {.x = x, .ldx = ldx, .dy = dy, .lddy = lddy, .y = dx, .ldy = lddx, .rows = rows, .columns = columns,
                   .shift = shift, .a = a, .b = b, .e = e, .scale = scale, .offset = offset, .far = far};
  if (scale && stream) {
    K(map_columns)(true, true, false, true, m, backwards, STEPPE_IDENTITY, 0);
  } else if (scale) {
    K(map_columns)(true, true, false, false, m, backwards, STEPPE_IDENTITY, 0);
  } else if (stream) {
    K(map_columns)(true, false, false, true, m, backwards, STEPPE_IDENTITY, 0);
  } else {
    K(map_columns)(true, false, false, false, m, backwards, STEPPE_IDENTITY, 0);
  }
}

#undef BLOCK
#undef ROWS_OF_SUMS_BLOCK
#undef ROWS_OF_SUMS
#undef ROWS_OF_MAP
#undef panel
#undef part
#undef repeated
