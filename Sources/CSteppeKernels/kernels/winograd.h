// Winograd's minimal filtering F(2×2, 3×3) (Lavin & Gray 2016, arXiv 1509.09308): the transforms. The products between them are
// product.h's.
//
// An infinity would become Inf − Inf, and a transform may pass the type's range where the definition stays within it, so the way back
// tells whether all outputs are finite. What is not finite in the image or the weights is not finite in an output.

// Bᵀ of four vectors, `from` apart, into as many, `to` apart.
INLINE void K(winograd_b)(const vector *d, const size_t from, vector *t, const size_t to) {
  t[0] = d[0] - d[2 * from];
  t[to] = d[from] + d[2 * from];
  t[2 * to] = d[2 * from] - d[from];
  t[3 * to] = d[from] - d[3 * from];
}

// G likewise, of three into four.
INLINE void K(winograd_g)(const vector *g, const size_t from, vector *t, const size_t to) {
  const vector half = splat((scalar)0.5), ends = (g[0] + g[2 * from]) * half, middle = g[from] * half;
  t[0] = g[0];
  t[to] = ends + middle;
  t[2 * to] = ends - middle;
  t[3 * to] = g[2 * from];
}

// Aᵀ likewise, of four into two.
INLINE void K(winograd_a)(const vector *m, const size_t from, vector *t, const size_t to) {
  t[0] = (m[0] + m[from]) + m[2 * from];
  t[to] = (m[from] - m[2 * from]) - m[3 * from];
}

static void K(winograd_weights)(const void *w, ptrdiff_t tap, size_t count, bool turned, void *u, ptrdiff_t plane) {
  for (size_t i = 0; i < count; i += LANES) {
    const size_t used = count - i < LANES ? count - i : LANES;
    vector g[9], t[12], v[16];
    UNROLL for (size_t k = 0; k < 9; k++) {
      g[k] = K(load_some)((const scalar *)w + (ptrdiff_t)(turned ? 8 - k : k) * tap + (ptrdiff_t)i, used);
    }
    UNROLL for (size_t c = 0; c < 3; c++) K(winograd_g)(g + c, 3, t + c, 3);
    UNROLL for (size_t r = 0; r < 4; r++) K(winograd_g)(t + 3 * r, 1, v + 4 * r, 1);
    UNROLL for (size_t p = 0; p < 16; p++) K(store_some)((scalar *)u + (ptrdiff_t)p * plane + (ptrdiff_t)i, v[p], used);
  }
}

static void K(winograd_input)(const void *planes, ptrdiff_t channel, const ptrdiff_t *offsets, size_t depth,
                              const steppe_patch_run *runs, size_t count, void *lines, ptrdiff_t plane, size_t width) {
  const size_t used = count ? runs[count - 1].to + runs[count - 1].length : 0;
  for (size_t k = 0; k < depth; k++) {
    const scalar *image = (const scalar *)planes + (ptrdiff_t)k * channel;
    scalar *line = (scalar *)lines + k * width;
    // What memory held before could be slow to multiply.
    if (used < width) {
      UNROLL for (size_t p = 0; p < 16; p++) store(line + (ptrdiff_t)p * plane + width - LANES, splat(0));
    }
    for (size_t r = 0; r < count; r++) {
      // What the last vector of a run writes too much, the next run or line writes over.
      for (size_t i = 0; i < runs[r].length; i += LANES) {
        const scalar *from = image + runs[r].from + i;
        scalar *to = line + runs[r].to + i;
        vector d[16], t[16], v[16];
        UNROLL for (size_t p = 0; p < 16; p++) d[p] = load(from + offsets[p]);
        UNROLL for (size_t c = 0; c < 4; c++) K(winograd_b)(d + c, 4, t + c, 4);
        UNROLL for (size_t c = 0; c < 4; c++) K(winograd_b)(t + 4 * c, 1, v + 4 * c, 1);
        UNROLL for (size_t p = 0; p < 16; p++) store(to + (ptrdiff_t)p * plane, v[p]);
      }
    }
  }
}

static bool K(winograd_output)(const void *m, ptrdiff_t plane, ptrdiff_t ldm, size_t rows, size_t height, size_t width,
                               const steppe_product_finish *f, void *y, ptrdiff_t y_channel, ptrdiff_t y_row) {
  const bool relu = f->kind == STEPPE_RELU;
  // Stays 0 while all outputs are finite.
  vector strange = splat(0);
  for (size_t r = 0; r < rows; r++) {
    const scalar *row = (const scalar *)m + (ptrdiff_t)r * ldm;
    scalar *to = (scalar *)y + (ptrdiff_t)r * y_channel;
    const vector bias = splat(f->bias ? ((const scalar *)f->bias)[r] : 0);
    for (size_t i = 0; 2 * i < width; i += LANES) {
      vector values[16], t[8], out[4];
      UNROLL for (size_t p = 0; p < 16; p++) values[p] = load(row + (ptrdiff_t)p * plane + (ptrdiff_t)i);
      UNROLL for (size_t c = 0; c < 4; c++) K(winograd_a)(values + c, 4, t + c, 4);
      UNROLL for (size_t a = 0; a < 2; a++) K(winograd_a)(t + 4 * a, 1, out + 2 * a, 1);
      const size_t squares = (width - 2 * i + 1) / 2;
      vector product = splat(0);
      UNROLL for (size_t a = 0; a < 4; a++) {
        out[a] += bias;
        product += out[a] * splat(0);
        if (relu) out[a] = choose(out[a] < 0, splat(0), out[a]);
      }
      strange += squares < LANES ? choose(K(first_lanes)(squares), product, splat(0)) : product;
      const size_t left = width - 2 * i;
      for (size_t a = 0; a < height; a++) {
        scalar *at = to + (ptrdiff_t)a * y_row + (ptrdiff_t)(2 * i);
        const vector low = __builtin_shufflevector(out[2 * a], out[2 * a + 1], STEPPE_LOW_BETWEEN);
        K(store_some)(at, low, left < LANES ? left : LANES);
        if (left <= LANES) continue;
        const vector high = __builtin_shufflevector(out[2 * a], out[2 * a + 1], STEPPE_HIGH_BETWEEN);
        K(store_some)(at + LANES, high, left - LANES < LANES ? left - LANES : LANES);
      }
    }
    for (size_t a = 0; a < height; a++) K(finish_rows)(f, 1, width, to + (ptrdiff_t)a * y_row, 0);
  }
  return !K(any_lane)(strange != splat(0));
}
