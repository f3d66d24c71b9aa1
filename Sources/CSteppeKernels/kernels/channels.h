// Normalization's numbers for each channel, between the passes over its values: a few operations in double, which one channel at a
// time would cost as much as a pass over a small batch.
//
// Sums stand for each column; a channel has `fold` of them, and its coefficients are repeated over them.

// Channels of a chunk, whose coefficients are computed before they are spread over the columns.
#define CHUNK ((size_t)64)

typedef int64_t K(masks) __attribute__((vector_size(STEPPE_VECTOR_BYTES)));
#define masks K(masks)

INLINE doubles K(load_doubles)(const double *p, size_t count) {
  doubles v = (doubles){0} + 1;
  if (count >= SLICE_LANES) return *(const K(unaligned_doubles) *)p;
  __builtin_memcpy(&v, p, count * sizeof(double));
  return v;
}
INLINE void K(store_doubles)(double *p, doubles v, size_t count) {
  __builtin_memcpy(p, &v, (count < SLICE_LANES ? count : SLICE_LANES) * sizeof(double));
}
// Scalars that are at hand for each channel, or where `stride` is above 1 for the first of each channel's columns.
INLINE doubles K(load_as_doubles)(const scalar *p, size_t stride, size_t count) {
  slice v = (slice){0} + 1;
  if (stride == 1 && count >= SLICE_LANES) return AS_DOUBLES(LOAD_SLICE(p));
  for (size_t i = 0; i < SLICE_LANES && i < count; i++) v[i] = p[i * stride];
  return AS_DOUBLES(v);
}
// Σ over the columns of `count` channels.
INLINE doubles K(load_sums)(const double *p, size_t fold, size_t count) {
  if (fold == 1) return K(load_doubles)(p, count);
  doubles v = (doubles){0};
  for (size_t i = 0; i < SLICE_LANES && i < count; i++) {
    double sum = 0;
    for (size_t f = 0; f < fold; f++) sum += p[i * fold + f];
    v[i] = sum;
  }
  return v;
}
// Writes a chunk's value, one for each channel, over the channels' columns.
INLINE void K(spread)(scalar *to, const scalar *from, size_t fold, size_t count) {
  if (fold == 1) {
    __builtin_memcpy(to, from, count * sizeof(scalar));
    return;
  }
  for (size_t c = 0; c < count; c++) {
    for (size_t f = 0; f < fold; f++) *to++ = from[c];
  }
}
#define load_doubles K(load_doubles)
#define store_doubles K(store_doubles)
#define load_as_doubles K(load_as_doubles)
#define load_sums K(load_sums)
#define spread K(spread)
#define store_slice(p, v) STORE_SLICE(p, AS_SLICE(v))

static void K(channel_shifts)(size_t count, size_t fold, size_t rows, const void *first, void *sums) {
  const scalar *from = first;
  scalar *columns = sums;
  for (size_t c = 0; c < count; c++) {
    double sum = 0;
    for (size_t f = 0; f < fold; f++) sum += (double)columns[c * fold + f];
    const scalar mean = (scalar)(sum / (double)(rows * fold)), shift = mean - mean == 0 ? mean : from[c * fold];
    for (size_t f = 0; f < fold; f++) columns[c * fold + f] = shift;
  }
}

static bool K(channel_moments)(const steppe_channels *k, const void *shift, const double *sums, const double *squares) {
  const scalar *shifts = shift;
  masks far = {0};
  for (size_t c = 0; c < k->count; c += SLICE_LANES) {
    const size_t left = k->count - c;
    const doubles start = load_as_doubles(shifts + c * k->fold, k->fold, left);
    const doubles distance = load_sums(sums + c * k->fold, k->fold, left) / k->values;
    const doubles mean = start + distance, square = distance * distance;
    const doubles variance = load_sums(squares + c * k->fold, k->fold, left) / k->values - square;
    store_doubles(k->mean + c, mean, left);
    store_doubles(k->remainder + c, start - AS_DOUBLES(AS_SLICE(mean)) + distance, left);
    // Rounding may have left it below 0; NaN stays NaN.
    store_doubles(k->variance + c, (doubles)((masks)variance & ~(variance < 0)), left);
    masks beyond = square > variance;
    for (size_t i = left; i < SLICE_LANES; i++) beyond[i] = 0;
    far |= beyond;
  }
  int64_t any = 0;
  for (size_t i = 0; i < SLICE_LANES; i++) any |= far[i];
  return any == 0;
}

static void K(channel_affine)(const steppe_channels *k, const void *gamma, const void *beta, void *shift, void *scale,
                              void *offset) {
  const scalar *factor = gamma, *addend = beta;
  scalar shifts[CHUNK], scales[CHUNK], offsets[CHUNK];
  for (size_t start = 0; start < k->count; start += CHUNK) {
    const size_t count = k->count - start < CHUNK ? k->count - start : CHUNK;
    for (size_t i = 0; i < count; i += SLICE_LANES) {
      const size_t c = start + i, left = count - i;
      store_slice(shifts + i, load_doubles(k->mean + c, left));
      if (!factor) continue;
      const doubles by = load_as_doubles(factor + c, 1, left)
                         / __builtin_elementwise_sqrt(load_doubles(k->variance + c, left) + k->epsilon);
      store_slice(scales + i, by);
      store_slice(offsets + i, load_as_doubles(addend + c, 1, left) - load_doubles(k->remainder + c, left) * by);
    }
    const size_t column = start * k->fold;
    spread((scalar *)shift + column, shifts, k->fold, count);
    if (!factor) continue;
    spread((scalar *)scale + column, scales, k->fold, count);
    spread((scalar *)offset + column, offsets, k->fold, count);
  }
}

static void K(channel_gradients)(const steppe_channels *k, const double *sums, const double *products, double *d_gamma,
                                 double *d_beta) {
  for (size_t c = 0; c < k->count; c += SLICE_LANES) {
    const size_t left = k->count - c;
    const doubles sum = load_sums(sums + c * k->fold, k->fold, left);
    const doubles product = load_sums(products + c * k->fold, k->fold, left);
    const doubles root = __builtin_elementwise_sqrt(load_doubles(k->variance + c, left) + k->epsilon);
    store_doubles(d_beta + c, sum, left);
    store_doubles(d_gamma + c, (product - load_doubles(k->remainder + c, left) * sum) / root, left);
  }
}

static void K(channel_slopes)(const steppe_channels *k, const void *gamma, const double *d_gamma, const double *d_beta, void *a,
                              void *b, void *e) {
  const scalar *factor = gamma;
  scalar as[CHUNK], bs[CHUNK], es[CHUNK];
  for (size_t start = 0; start < k->count; start += CHUNK) {
    const size_t count = k->count - start < CHUNK ? k->count - start : CHUNK;
    for (size_t i = 0; i < count; i += SLICE_LANES) {
      const size_t c = start + i, left = count - i;
      const doubles rstd = 1 / __builtin_elementwise_sqrt(load_doubles(k->variance + c, left) + k->epsilon);
      const doubles by = load_as_doubles(factor + c, 1, left) * rstd;
      const doubles slope = -by * rstd * load_doubles(d_gamma + c, left) / k->values;
      store_slice(as + i, by);
      store_slice(bs + i, slope);
      store_slice(es + i, -by * load_doubles(d_beta + c, left) / k->values - slope * load_doubles(k->remainder + c, left));
    }
    const size_t column = start * k->fold;
    spread((scalar *)a + column, as, k->fold, count);
    spread((scalar *)b + column, bs, k->fold, count);
    spread((scalar *)e + column, es, k->fold, count);
  }
}

// v within low … high; NaN stays NaN.
INLINE doubles K(within)(doubles v, double low, double high) {
  const masks under = v < low, over = v > high;
  const doubles least = (doubles){0} + low, greatest = (doubles){0} + high;
  return (doubles)(((masks)least & under) | ((masks)greatest & over) | ((masks)v & ~(under | over)));
}

static void K(channel_renormalize)(const steppe_channels *k, const void *gamma, const void *beta, const void *mean,
                                   const void *deviation, double r_limit, double d_limit, double *r, double *d,
                                   void *scaled_gamma, void *shifted_beta) {
  const scalar *factor = gamma, *addend = beta, *center = mean, *size = deviation;
  scalar *by = scaled_gamma, *to = shifted_beta;
  for (size_t c = 0; c < k->count; c += SLICE_LANES) {
    const size_t left = k->count - c, count = left < SLICE_LANES ? left : SLICE_LANES;
    const doubles old = load_as_doubles(size + c, 1, left), g = load_as_doubles(factor + c, 1, left);
    const doubles root = __builtin_elementwise_sqrt(load_doubles(k->variance + c, left) + k->epsilon);
    const doubles ratio = K(within)(root / old, 1 / r_limit, r_limit);
    const doubles distance = load_doubles(k->mean + c, left) - load_as_doubles(center + c, 1, left);
    const doubles move = K(within)(distance / old, -d_limit, d_limit);
    store_doubles(r + c, ratio, left);
    store_doubles(d + c, move, left);
    const slice scaled = AS_SLICE(g * ratio), shifted = AS_SLICE(g * move + load_as_doubles(addend + c, 1, left));
    __builtin_memcpy(by + c, &scaled, count * sizeof(scalar));
    __builtin_memcpy(to + c, &shifted, count * sizeof(scalar));
  }
}

static void K(blend_doubles)(const double *x, double factor, double kept, void *y, size_t count) {
  scalar *to = y;
  size_t i = 0;
  for (; i + SLICE_LANES <= count; i += SLICE_LANES) {
    // What is not kept may be anything, NaN too.
    const doubles old = kept == 0 ? (doubles){0} : AS_DOUBLES(LOAD_SLICE(to + i)) * kept;
    store_slice(to + i, load_doubles(x + i, SLICE_LANES) * factor + old);
  }
  for (; i < count; i++) to[i] = (scalar)(x[i] * factor + (kept == 0 ? 0 : (double)to[i] * kept));
}

#undef CHUNK
#undef masks
#undef load_doubles
#undef store_doubles
#undef load_as_doubles
#undef load_sums
#undef spread
#undef store_slice
