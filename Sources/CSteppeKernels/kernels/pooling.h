// Pooling: the greatest value or the mean of each window of an image, and their gradients.
//
// Forward takes a run of outputs at a time, whose values at one place of their windows lie evenly: the channels of one position, the
// positions of a row where windows move by one, or every other value of a plane's row where they move by two. Windows that hang over the
// image's edge are taken one position at a time, with the places inside.
//
// Backward adds each window's gradient to what it covers, position by position along the channels. In planes, where windows move by one or
// two, that would load what the store before has just written a place beside; there each input gathers what the windows around it hold for it.

// Additions that a mean's sum takes in the scalar type before it goes on in double.
#define STEPPE_POOL_ADDITIONS ((size_t)16)

// ── windows ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// A window along one axis: its first place's position, which may be outside, and the places low ..< high that are inside.
typedef struct K(reach) {
  ptrdiff_t origin;
  size_t low, high;
} K(reach);

INLINE size_t K(rounded_up)(size_t a, size_t b) { return b == 1 ? a : (a + b - 1) / b; }

INLINE K(reach) K(reach_of)(size_t out, size_t stride, size_t pad, size_t kernel, size_t dilation, size_t size) {
  const ptrdiff_t origin = (ptrdiff_t)(out * stride) - (ptrdiff_t)pad, left = (ptrdiff_t)size - origin;
  const size_t low = origin < 0 ? K(rounded_up)((size_t)-origin, dilation) : 0;
  const size_t end = left <= 0 ? 0 : K(rounded_up)((size_t)left, dilation);
  const size_t high = end < kernel ? end : kernel;
  return (K(reach)){origin, low < high ? low : high, high};
}

INLINE K(reach) K(rows_of)(const steppe_windows *w, size_t out) {
  return K(reach_of)(out, w->stride_height, w->pad_height, w->kernel_height, w->dilation_height, w->height);
}
INLINE K(reach) K(columns_of)(const steppe_windows *w, size_t out) {
  return K(reach_of)(out, w->stride_width, w->pad_width, w->kernel_width, w->dilation_width, w->width);
}

// The outputs first ..< last of a row whose windows lie inside the image's width.
INLINE void K(inside)(const steppe_windows *w, size_t *first, size_t *last) {
  const size_t low = K(rounded_up)(w->pad_width, w->stride_width), span = (w->kernel_width - 1) * w->dilation_width;
  const size_t high = w->width + w->pad_width > span ? (w->width + w->pad_width - span - 1) / w->stride_width + 1 : 0;
  *last = high < w->out_width ? high : w->out_width;
  *first = low < *last ? low : *last;
}

// What a window counts along an axis for its mean: its places inside, or with those of the padding.
INLINE size_t K(counted)(bool padding, K(reach) r, size_t kernel) { return padding ? kernel : r.high - r.low; }
INLINE double K(mean_factor)(const steppe_windows *w, K(reach) rows, K(reach) columns) {
  const size_t height = K(counted)(w->counts_padding, rows, w->kernel_height);
  const size_t width = K(counted)(w->counts_padding, columns, w->kernel_width);
  return height * width ? 1 / (double)(height * width) : 0;
}

// ── forward ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// The windows of a run of outputs: the first one's value at the place [row, column] is at origin + row·row_step + column·column_step from
// the image's begin.
typedef struct K(run) {
  ptrdiff_t origin, row_step, column_step;
  K(reach) rows, columns;
  size_t kernel_width;
  double factor;  // of a mean
} K(run);

INLINE K(run) K(run_of)(const bool mean, const steppe_windows *w, K(reach) rows, K(reach) columns) {
  const size_t row_size = w->width * w->ld;
  return (K(run)){.origin = rows.origin * (ptrdiff_t)row_size + columns.origin * (ptrdiff_t)w->ld,
                  .row_step = (ptrdiff_t)(w->dilation_height * row_size),
                  .column_step = (ptrdiff_t)(w->dilation_width * w->ld),
                  .rows = rows,
                  .columns = columns,
                  .kernel_width = w->kernel_width,
                  .factor = mean ? K(mean_factor)(w, rows, columns) : 1};
}

INLINE ptrdiff_t K(offset)(const K(run) *r, size_t row, size_t column, size_t further) {
  return r->origin + (ptrdiff_t)row * r->row_step + (ptrdiff_t)column * r->column_step + (ptrdiff_t)further;
}

// The loops over a window's places inside.
#define STEPPE_EACH_PLACE(r)                                               \
  for (size_t row = (r)->rows.low; row < (r)->rows.high; row++)            \
    for (size_t column = (r)->columns.low; column < (r)->columns.high; column++)

// The first greatest; of NaN, which counts as greater than all, the last, as PyTorch has it.
INLINE void K(greatest)(const bool keeps, const size_t step, const K(run) *r, const scalar *x, size_t output, size_t count, scalar *y,
                        scalar *places) {
  vector best = splat(-(scalar)INFINITY), at = splat((scalar)(r->rows.low * r->kernel_width + r->columns.low));
  STEPPE_EACH_PLACE(r) {
    const vector v = K(load_apart)(step, x + K(offset)(r, row, column, output * step), count);
    const ivector take = (v > best) | (v != v);
    best = choose(take, v, best);
    if (keeps) at = choose(take, splat((scalar)(row * r->kernel_width + column)), at);
  }
  K(store_some)(y + output, best, count);
  if (keeps) K(store_some)(places + output, at, count);
}

INLINE void K(greatest_one)(const bool keeps, const K(run) *r, const scalar *x, scalar *y, scalar *places) {
  scalar best = -(scalar)INFINITY;
  size_t at = r->rows.low * r->kernel_width + r->columns.low;
  STEPPE_EACH_PLACE(r) {
    const scalar v = x[K(offset)(r, row, column, 0)];
    if (v > best || v != v) best = v, at = row * r->kernel_width + column;
  }
  *y = best;
  if (keeps) *places = (scalar)at;
}

// In the scalar type where a window has few places, else in double a few at a time.
INLINE void K(mean)(const bool few, const size_t step, const K(run) *r, const scalar *x, size_t output, size_t count, scalar *y) {
  vector sum = splat(0);
  wide sums = {0};
  size_t added = 0;
  STEPPE_EACH_PLACE(r) {
    sum += K(load_apart)(step, x + K(offset)(r, row, column, output * step), count);
    if (!few && ++added == STEPPE_POOL_ADDITIONS) {
      sums += __builtin_convertvector(sum, wide);
      sum = splat(0);
      added = 0;
    }
  }
  if (few) {
    sum *= (scalar)r->factor;
  } else {
    sums += __builtin_convertvector(sum, wide);
    sum = __builtin_convertvector(sums * r->factor, vector);
  }
  K(store_some)(y + output, sum, count);
}

INLINE void K(mean_one)(const K(run) *r, const scalar *x, scalar *y) {
  double sum = 0;
  STEPPE_EACH_PLACE(r) sum += (double)x[K(offset)(r, row, column, 0)];
  *y = (scalar)(sum * r->factor);
}

typedef enum K(pool_kind) { K(pool_greatest), K(pool_kept), K(pool_few), K(pool_many) } K(pool_kind);

INLINE void K(pool_vector)(const K(pool_kind) kind, const size_t step, const K(run) *r, const scalar *x, size_t output, size_t count,
                           scalar *y, scalar *places) {
  if (kind == K(pool_greatest) || kind == K(pool_kept)) {
    K(greatest)(kind == K(pool_kept), step, r, x, output, count, y, places);
  } else {
    K(mean)(kind == K(pool_few), step, r, x, output, count, y);
  }
}

INLINE void K(pool_vectors)(const K(pool_kind) kind, const size_t step, const K(run) *r, const scalar *x, size_t length, scalar *y,
                            scalar *places) {
  if (length < LANES) {
    K(pool_vector)(kind, step, r, x, 0, length, y, places);
    return;
  }
  size_t i = 0;
  for (; i + LANES <= length; i += LANES) K(pool_vector)(kind, step, r, x, i, LANES, y, places);
  // The last vector reaches back over outputs that are written once more.
  if (i < length) K(pool_vector)(kind, step, r, x, length - LANES, LANES, y, places);
}

INLINE void K(pool_run)(const K(pool_kind) kind, const K(run) *r, const scalar *x, size_t step, size_t length, scalar *y, scalar *places) {
  if (length > 1 && step == 1) {
    K(pool_vectors)(kind, 1, r, x, length, y, places);
  } else if (length > 1 && step == 2) {
    K(pool_vectors)(kind, 2, r, x, length, y, places);
  } else {
    for (size_t i = 0; i < length; i++, x += step, y++) {
      if (kind == K(pool_greatest) || kind == K(pool_kept)) {
        K(greatest_one)(kind == K(pool_kept), r, x, y, places);
      } else {
        K(mean_one)(r, x, y);
      }
      if (kind == K(pool_kept)) places++;
    }
  }
}

INLINE void K(pool_images)(const K(pool_kind) kind, const steppe_windows *w, const scalar *x, scalar *y, scalar *places, size_t images) {
  const bool joins = w->ld == w->channels && (w->stride_width == 1 || w->channels == 1);
  const bool mean = kind == K(pool_few) || kind == K(pool_many);
  size_t first, last;
  K(inside)(w, &first, &last);
  for (size_t image = 0; image < images; image++, x += w->height * w->width * w->ld) {
    for (size_t i = 0; i < w->out_height; i++) {
      const K(reach) rows = K(rows_of)(w, i);
      for (size_t j = 0; j < w->out_width;) {
        const K(run) r = K(run_of)(mean, w, rows, K(columns_of)(w, j));
        const size_t taken = joins && j >= first && j < last ? last - j : 1;
        K(pool_run)(kind, &r, x, w->channels == 1 ? w->stride_width : 1, taken * w->channels, y, places);
        y += taken * w->ld;
        if (kind == K(pool_kept)) places += taken * w->ld;
        j += taken;
      }
    }
  }
}

static void K(max_pool)(const steppe_windows *w, const void *x, void *y, void *places, size_t images) {
  if (places) {
    K(pool_images)(K(pool_kept), w, x, y, places, images);
  } else {
    K(pool_images)(K(pool_greatest), w, x, y, NULL, images);
  }
}

static void K(average_pool)(const steppe_windows *w, const void *x, void *y, size_t images) {
  if (w->kernel_height * w->kernel_width <= STEPPE_POOL_ADDITIONS) {
    K(pool_images)(K(pool_few), w, x, y, NULL, images);
  } else {
    K(pool_images)(K(pool_many), w, x, y, NULL, images);
  }
}

// ── backward, along channels ──────────────────────────────────────────────────────────────────────────────────────────────────

INLINE void K(clear_rows)(const steppe_windows *w, scalar *dx, size_t row, size_t end) {
  if (w->ld == w->channels) {
    __builtin_memset(dx + row * w->width * w->ld, 0, (end - row) * w->width * w->ld * sizeof(scalar));
    return;
  }
  for (size_t i = row * w->width; i < end * w->width; i++) __builtin_memset(dx + i * w->ld, 0, w->channels * sizeof(scalar));
}

INLINE void K(pour_vector)(const bool greatest, const K(run) *r, const scalar *places, const scalar *dy, scalar *dx, size_t c, size_t count) {
  const vector d = greatest ? K(load_some)(dy + c, count) : K(load_some)(dy + c, count) * (scalar)r->factor;
  const vector at = greatest ? K(load_some)(places + c, count) : d;
  STEPPE_EACH_PLACE(r) {
    scalar *to = dx + K(offset)(r, row, column, c);
    const vector v = greatest ? choose(at == (scalar)(row * r->kernel_width + column), d, splat(0)) : d;
    K(store_some)(to, K(load_some)(to, count) + v, count);
  }
}

INLINE void K(pour_one)(const bool greatest, const K(run) *r, const scalar *places, const scalar *dy, scalar *dx) {
  const scalar d = greatest ? *dy : *dy * (scalar)r->factor;
  STEPPE_EACH_PLACE(r) {
    if (!greatest || *places == (scalar)(row * r->kernel_width + column)) dx[K(offset)(r, row, column, 0)] += d;
  }
}

// Each window's gradient goes to the places that it holds, whose rows are cleared as the first window reaches them.
INLINE void K(pour)(const bool greatest, const steppe_windows *w, const scalar *places, const scalar *dy, scalar *dx, size_t images) {
  for (size_t image = 0; image < images; image++, dx += w->height * w->width * w->ld) {
    size_t cleared = 0;
    for (size_t i = 0; i < w->out_height; i++) {
      const K(reach) rows = K(rows_of)(w, i);
      if (rows.low < rows.high) {
        const size_t end = (size_t)(rows.origin + (ptrdiff_t)((rows.high - 1) * w->dilation_height)) + 1;
        if (end > cleared) K(clear_rows)(w, dx, cleared, end), cleared = end;
      }
      for (size_t j = 0; j < w->out_width; j++, dy += w->ld) {
        const K(run) r = K(run_of)(!greatest, w, rows, K(columns_of)(w, j));
        if (w->channels == 1) {
          K(pour_one)(greatest, &r, places, dy, dx);
        } else {
          size_t c = 0;
          for (; c + LANES <= w->channels; c += LANES) K(pour_vector)(greatest, &r, places, dy, dx, c, LANES);
          if (c < w->channels) K(pour_vector)(greatest, &r, places, dy, dx, c, w->channels - c);
        }
        if (greatest) places += w->ld;
      }
    }
    K(clear_rows)(w, dx, cleared, w->height);
  }
}

// ── backward, in planes ───────────────────────────────────────────────────────────────────────────────────────────────────────

// The windows along one axis that hold a position: `count` of them, `out`, `out` − out_step, …, as their places `place`, `place` +
// place_step, …
typedef struct K(holders) {
  size_t count, out, out_step, place, place_step;
} K(holders);

INLINE size_t K(common_divisor)(size_t a, size_t b) {
  while (b != 0) {
    const size_t rest = a % b;
    a = b;
    b = rest;
  }
  return a;
}

// `position` counts from the padding's begin; `common` is the stride's and the dilation's common divisor.
INLINE K(holders) K(holders_of)(size_t position, size_t kernel, size_t stride, size_t dilation, size_t outs, size_t common) {
  K(holders) h = {0, 0, dilation / common, 0, stride / common};
  while (h.place < kernel && h.place * dilation <= position && (position - h.place * dilation) % stride != 0) h.place++;
  if (h.place >= kernel || h.place * dilation > position) return h;
  h.out = (position - h.place * dilation) / stride;
  if (h.out >= outs) {
    const size_t skipped = (h.out - outs) / h.out_step + 1;
    if (skipped * h.out_step > h.out || h.place + skipped * h.place_step >= kernel) return h;
    h.out -= skipped * h.out_step;
    h.place += skipped * h.place_step;
  }
  const size_t places = (kernel - 1 - h.place) / h.place_step + 1, windows = h.out / h.out_step + 1;
  h.count = places < windows ? places : windows;
  return h;
}

// The gradient of `count` positions of a row, `step` apart, the first of which `rows` and `columns` hold; a mean's windows all lie inside
// the image's width, and `factors` are their rows'.
INLINE vector K(gathered)(const bool greatest, const steppe_windows *w, const scalar *factors, K(holders) rows, K(holders) columns,
                          const scalar *places, const scalar *dy, size_t count) {
  vector sum = splat(0);
  for (size_t i = 0; i < rows.count; i++) {
    const size_t row = (rows.out - i * rows.out_step) * w->out_width, place = (rows.place + i * rows.place_step) * w->kernel_width;
    for (size_t j = 0; j < columns.count; j++) {
      const size_t o = row + columns.out - j * columns.out_step;
      const vector d = K(load_some)(dy + o, count);
      if (greatest) {
        const scalar wanted = (scalar)(place + columns.place + j * columns.place_step);
        sum += choose(K(load_some)(places + o, count) == wanted, d, splat(0));
      } else {
        sum += d * factors[i];
      }
    }
  }
  return sum;
}

INLINE scalar K(gathered_one)(const bool greatest, const steppe_windows *w, K(holders) rows, K(holders) columns, const scalar *places,
                              const scalar *dy) {
  scalar sum = 0;
  for (size_t i = 0; i < rows.count; i++) {
    const size_t out_row = rows.out - i * rows.out_step, place = (rows.place + i * rows.place_step) * w->kernel_width;
    for (size_t j = 0; j < columns.count; j++) {
      const size_t out_column = columns.out - j * columns.out_step, o = out_row * w->out_width + out_column;
      if (greatest) {
        if (places[o] == (scalar)(place + columns.place + j * columns.place_step)) sum += dy[o];
      } else {
        sum += dy[o] * (scalar)K(mean_factor)(w, K(rows_of)(w, out_row), K(columns_of)(w, out_column));
      }
    }
  }
  return sum;
}

// Rows of windows that hold one row of the image, at most, whose factors the stack has room for.
#define STEPPE_POOL_HOLDERS ((size_t)32)

// Planes whose windows move by `step`, 1 or 2, along a row.
INLINE void K(gather)(const bool greatest, const size_t step, const steppe_windows *w, const scalar *places, const scalar *dy, scalar *dx,
                      size_t images) {
  const size_t common_rows = K(common_divisor)(w->stride_height, w->dilation_height);
  const size_t common_columns = K(common_divisor)(step, w->dilation_width);
  // A column is step·t + r − padding. For t in begin ..< end all windows along the row that hold such a column are there, and those of a
  // mean lie inside the image's width, so that all count alike.
  const size_t span = (w->kernel_width - 1) * w->dilation_width / step;
  size_t first = 0, last = w->out_width;
  if (!greatest) K(inside)(w, &first, &last);
  const size_t low = K(rounded_up)(w->pad_width, step), high = (w->width + w->pad_width) / step;
  const size_t begin = low > span + first ? low : span + first, end = high < last ? high : last;
  const size_t length = begin < end ? end - begin : 0, whole = length - length % LANES;
  const size_t left = length ? begin * step - w->pad_width : w->width, right = length ? end * step - w->pad_width : w->width;
  K(holders) columns[2];
  for (size_t r = 0; r < step; r++) {
    columns[r] = K(holders_of)(begin * step + r, w->kernel_width, step, w->dilation_width, SIZE_MAX, common_columns);
  }
  for (size_t image = 0; image < images; image++) {
    for (size_t i = 0; i < w->height; i++, dx += w->width) {
      const K(holders) rows =
          K(holders_of)(i + w->pad_height, w->kernel_height, w->stride_height, w->dilation_height, w->out_height, common_rows);
      scalar factors[STEPPE_POOL_HOLDERS];
      for (size_t k = 0; !greatest && k < rows.count; k++) {
        const K(reach) inner = {0, 0, w->kernel_width};
        factors[k] = (scalar)K(mean_factor)(w, K(rows_of)(w, rows.out - k * rows.out_step), inner);
      }
      for (size_t k = 0; k < left + w->width - right; k++) {
        const size_t j = k < left ? k : k - left + right;
        const K(holders) own = K(holders_of)(j + w->pad_width, w->kernel_width, step, w->dilation_width, w->out_width, common_columns);
        dx[j] = K(gathered_one)(greatest, w, rows, own, places, dy);
      }
      for (size_t t = 0; t < whole; t += LANES) {
        vector v[2];
        for (size_t r = 0; r < step; r++) {
          K(holders) own = columns[r];
          own.out += t;
          v[r] = K(gathered)(greatest, w, factors, rows, own, places, dy, LANES);
        }
        K(store_apart)(step, dx + left + t * step, v, LANES);
      }
      if (whole == length) continue;
      vector v[2];
      for (size_t r = 0; r < step; r++) {
        K(holders) own = columns[r];
        own.out += whole;
        v[r] = K(gathered)(greatest, w, factors, rows, own, places, dy, length - whole);
      }
      K(store_apart)(step, dx + left + whole * step, v, length - whole);
    }
    dy += w->out_height * w->out_width;
    if (greatest) places += w->out_height * w->out_width;
  }
}

INLINE void K(pool_backward)(const bool greatest, const steppe_windows *w, const scalar *places, const scalar *dy, scalar *dx,
                             size_t images) {
  const bool planes = w->channels == 1 && w->ld == 1 && (greatest || w->kernel_height <= STEPPE_POOL_HOLDERS);
  if (planes && w->stride_width == 1) {
    K(gather)(greatest, 1, w, places, dy, dx, images);
  } else if (planes && w->stride_width == 2) {
    K(gather)(greatest, 2, w, places, dy, dx, images);
  } else {
    K(pour)(greatest, w, places, dy, dx, images);
  }
}

static void K(max_pool_backward)(const steppe_windows *w, const void *places, const void *dy, void *dx, size_t images) {
  K(pool_backward)(true, w, places, dy, dx, images);
}

static void K(average_pool_backward)(const steppe_windows *w, const void *dy, void *dx, size_t images) {
  K(pool_backward)(false, w, NULL, dy, dx, images);
}

// ── one value for many ────────────────────────────────────────────────────────────────────────────────────────────────────────

static void K(repeat_scaled)(const void *x, double scale, void *y, size_t rows, size_t repeats, size_t width) {
  const scalar *from = x;
  const scalar factor = (scalar)scale;
  scalar *to = y;
  for (size_t r = 0; r < rows; r++, from += width, to += repeats * width) {
    if (width == 1) {
      const vector v = splat(*from * factor);
      size_t i = 0;
      for (; i + LANES <= repeats; i += LANES) store(to + i, v);
      if (i < repeats) K(store_tail)(to + i, v, repeats - i);
      continue;
    }
    for (size_t i = 0; i < repeats; i++) {
      size_t c = 0;
      for (; c + LANES <= width; c += LANES) store(to + i * width + c, load(from + c) * factor);
      if (c < width) K(store_tail)(to + i * width + c, K(load_tail)(from + c, width - c, 0) * factor, width - c);
    }
  }
}
