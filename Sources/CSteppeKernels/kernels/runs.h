// Normalization over runs of contiguous values that share a channel; see `normalization.h` for what its loops share.

#define WAYS ((size_t)4)
#define STRIDE (WAYS * LANES)

// A channel's coefficients.
typedef struct K(line) {
  scalar shift, a, b, e, scale, offset;
} K(line);

// Runs without gaps between them are one.
INLINE void K(join_runs)(ptrdiff_t stride, size_t *runs, size_t *length) {
  if (stride == (ptrdiff_t)*length) {
    *length *= *runs;
    *runs = *runs > 0;
  }
}
#define join_runs K(join_runs)

// Sums over runs, in WAYS independent pairs of vectors, which are merged in double before any lane has taken ADDITIONS values.
INLINE void K(sums_runs)(const bool gradient, const bool masked, const scalar *x, const scalar *dy, ptrdiff_t stride, size_t runs,
                         size_t length, K(line) k, double *first, double *second) {
  join_runs(stride, &runs, &length);
  const vector shift = splat(k.shift), scale = splat(k.scale), offset = splat(k.offset);
  const size_t whole = length / LANES * LANES, left = length - whole, ahead = length < STRIP ? length : STRIP;
  // The lanes that count in a run's last vector: it reaches back over values that have been added, or where the run is shorter
  // than a vector it has spare lanes at its end.
  const ivector fresh = length < LANES ? K(first_lanes)(left) : ~K(first_lanes)(LANES - left);
  wide total_u = {0}, total_v = {0};
  vector u[WAYS], v[WAYS];
  UNROLL for (size_t way = 0; way < WAYS; way++) u[way] = v[way] = splat(0);
  size_t used = 0;
  for (size_t run = 0; run < runs; run++, x += stride, dy = gradient ? dy + stride : dy) {
    for (size_t i = 0; i < length;) {
      const size_t most = (ADDITIONS - used - 2) * STRIDE, end = whole - i < most ? whole : i + most;
      used += (end - i) / STRIDE;
      for (; i + STRIDE <= end; i += STRIDE) {
        // Two matrices keep the memory busy by themselves, one is fetched: what comes a page later, or at this place of the next run.
        const ptrdiff_t on = (ptrdiff_t)(i + ahead) + (i + ahead < length ? 0 : stride - (ptrdiff_t)length);
        UNROLL for (size_t j = 0; !gradient && j < STRIDE; j += LINE) fetch(x + on + j);
        UNROLL for (size_t way = 0; way < WAYS; way++) {
          const vector d = load(x + i + way * LANES) - shift;
          vector w = gradient ? load(dy + i + way * LANES) : d;
          if (masked) w = passed(d * scale + offset, w);
          u[way] += w;
          v[way] += w * d;
        }
      }
      if (end == whole) {
        // Up to WAYS − 1 whole vectors, then the ragged end.
        UNROLL for (size_t way = 0; way + 1 < WAYS; way++) {
          if (i + LANES > whole) break;
          const vector d = load(x + i) - shift;
          vector w = gradient ? load(dy + i) : d;
          if (masked) w = passed(d * scale + offset, w);
          u[way] += w;
          v[way] += w * d;
          i += LANES;
        }
        if (left) {
          const vector end_x = length < LANES ? K(load_tail)(x, length, k.shift) : load(x + length - LANES);
          const vector d = choose(fresh, end_x - shift, splat(0));
          vector w = d;
          if (gradient) w = choose(fresh, length < LANES ? K(load_tail)(dy, length, 0) : load(dy + length - LANES), splat(0));
          if (masked) w = passed(d * scale + offset, w);
          u[WAYS - 1] += w;
          v[WAYS - 1] += w * d;
        }
        used += 1 + (left != 0);
        i = length;
      }
      if (used + 4 > ADDITIONS) {
        UNROLL for (size_t way = 0; way < WAYS; way++) {
          total_u += __builtin_convertvector(u[way], wide);
          total_v += __builtin_convertvector(v[way], wide);
          u[way] = v[way] = splat(0);
        }
        used = 0;
      }
    }
  }
  UNROLL for (size_t way = 0; way < WAYS; way++) {
    total_u += __builtin_convertvector(u[way], wide);
    total_v += __builtin_convertvector(v[way], wide);
  }
  *first += K(sum_lanes)(&total_u);
  *second += K(sum_lanes)(&total_v);
}

// Elements of one turn of a map's loop: two whole lines.
#define TURN (2 * LINE)

INLINE vector K(map_value)(const bool gradient, const bool masked, const bool relu, K(line) k, vector x, vector dy) {
  const vector d = x - splat(k.shift);
  vector y = d * splat(k.b) + splat(k.e);
  if (masked) dy = passed(d * splat(k.scale) + splat(k.offset), dy);
  if (gradient) y = relu ? dy + y : dy * splat(k.a) + y;
  return relu ? positive(y) : y;
}
#define map_value(x, dy) K(map_value)(gradient, masked, relu, k, x, dy)

// One run, or a stretch of one. The ragged ends are computed before the whole vectors are written and written after them.
INLINE void K(map_run)(const bool gradient, const bool masked, const bool relu, const bool streamed, const scalar *x,
                       const scalar *dy, scalar *y, size_t length, K(line) k) {
  const vector none = splat(0);
  if (length < LANES) {
    const vector r = map_value(K(load_tail)(x, length, k.shift), gradient ? K(load_tail)(dy, length, 0) : none);
    K(store_tail)(y, r, length);
    return;
  }
  const size_t head = streamed ? head_of(y) : 0, last = length - LANES;
  size_t i = head % LANES;
  const bool early = i != 0, late = (length - i) % LANES != 0;
  const vector begin = map_value(load(x), gradient ? load(dy) : none);
  const vector end = map_value(load(x + last), gradient ? load(dy + last) : none);
  if (streamed) {
    for (; i < head; i += LANES) store(y + i, map_value(load(x + i), gradient ? load(dy + i) : none));
  }
  for (; i + TURN <= length; i += TURN) {
    vector out[TURN / LANES];
    UNROLL for (size_t j = 0; j < TURN / LANES; j++) {
      out[j] = map_value(load(x + i + j * LANES), gradient ? load(dy + i + j * LANES) : none);
    }
    UNROLL for (size_t j = 0; j < TURN / LANES; j++) {
      if (streamed) {
        stream_store(y + i + j * LANES, out[j]);
      } else {
        store(y + i + j * LANES, out[j]);
      }
    }
  }
  for (; i + LANES <= length; i += LANES) store(y + i, map_value(load(x + i), gradient ? load(dy + i) : none));
  if (early) store(y, begin);
  if (late) store(y + last, end);
}

// The stretches of one run, forwards or backwards. A stretch is a page, so the activations that are not fused find it in the L1 cache.
INLINE void K(map_strips)(const bool gradient, const bool masked, const bool relu, const bool streamed, const scalar *x,
                          const scalar *dy, scalar *y, size_t length, K(line) k, bool backwards, steppe_activation kind, double parameter) {
  const bool activated = !gradient && !relu && kind != STEPPE_IDENTITY;
  const size_t pieces = strips(length);
  for (size_t j = 0; j < pieces; j++) {
    const size_t piece = backwards ? pieces - 1 - j : j, at = piece * STRIP;
    const size_t count = piece + 1 == pieces ? length - at : STRIP;
    if (streamed && count >= STREAMED) {
      K(map_run)(gradient, masked, relu, true, x + at, gradient ? dy + at : dy, y + at, count, k);
    } else {
      K(map_run)(gradient, masked, relu, false, x + at, gradient ? dy + at : dy, y + at, count, k);
    }
    if (activated) K(activate)(kind, parameter, y + at, y + at, count);
  }
}

// Runs, forwards or backwards.
INLINE void K(map_runs)(const bool gradient, const bool masked, const bool relu, const bool streamed, const scalar *x,
                        const scalar *dy, scalar *y, ptrdiff_t stride, size_t runs, size_t length, K(line) k, bool backwards, steppe_activation kind,
                        double parameter) {
  join_runs(stride, &runs, &length);
  for (size_t i = 0; i < runs; i++) {
    const ptrdiff_t at = (ptrdiff_t)(backwards ? runs - 1 - i : i) * stride;
    K(map_strips)(gradient, masked, relu, streamed, x + at, gradient ? dy + at : dy, y + at, length, k, backwards, kind, parameter);
  }
  if (streamed) finish_stream();
}

// ── the table's run kernels ───────────────────────────────────────────────────────────────────────────────────────────────────

static void K(run_moments)(const void *x, ptrdiff_t stride, size_t runs, size_t length, double shift, double *sum,
                           double *squares) {
  K(sums_runs)(false, false, x, NULL, stride, runs, length, (K(line)){.shift = (scalar)shift}, sum, squares);
}

static void K(run_gradient_sums)(const void *x, const void *dy, ptrdiff_t stride, size_t runs, size_t length, double shift,
                                 bool relu, double scale, double offset, double *gradient, double *product) {
  const K(line) k = {.shift = (scalar)shift, .scale = (scalar)scale, .offset = (scalar)offset};
  if (relu) {
    K(sums_runs)(true, true, x, dy, stride, runs, length, k, gradient, product);
  } else {
    K(sums_runs)(true, false, x, dy, stride, runs, length, k, gradient, product);
  }
}

static void K(run_normalize)(steppe_activation kind, double parameter, const void *x, void *y, ptrdiff_t stride, size_t runs,
                             size_t length, double shift, double scale, double offset, bool backwards, bool stream) {
  const K(line) k = {.shift = (scalar)shift, .b = (scalar)scale, .e = (scalar)offset};
  if (length == 0) return;
  if (kind == STEPPE_RELU) {
    if (stream) {
      K(map_runs)(false, false, true, true, x, NULL, y, stride, runs, length, k, backwards, STEPPE_RELU, 0);
    } else {
      K(map_runs)(false, false, true, false, x, NULL, y, stride, runs, length, k, backwards, STEPPE_RELU, 0);
    }
  } else if (kind == STEPPE_IDENTITY && stream) {
    K(map_runs)(false, false, false, true, x, NULL, y, stride, runs, length, k, backwards, STEPPE_IDENTITY, 0);
  } else {
    K(map_runs)(false, false, false, false, x, NULL, y, stride, runs, length, k, backwards, kind, parameter);
  }
}

static void K(run_normalize_residual)(const void *x, const void *residual, void *y, ptrdiff_t stride, size_t runs, size_t length,
                                      double shift, double scale, double offset, bool backwards, bool stream) {
  const K(line) k = {.shift = (scalar)shift, .b = (scalar)scale, .e = (scalar)offset};
  if (length == 0) return;
  if (stream) {
    K(map_runs)(true, false, true, true, x, residual, y, stride, runs, length, k, backwards, STEPPE_RELU, 0);
  } else {
    K(map_runs)(true, false, true, false, x, residual, y, stride, runs, length, k, backwards, STEPPE_RELU, 0);
  }
}

// The channels' coefficients side by side: a row of channels, which follow each other in memory.
typedef struct K(lines) {
  const scalar *shift, *scale, *offset;
  size_t channels;
} K(lines);

INLINE void K(map_channels)(const bool residual, const bool relu, const bool streamed, const scalar *x, const scalar *added, scalar *y, size_t first,
                            size_t runs, size_t length, K(lines) c, bool backwards, steppe_activation kind, double parameter) {
  for (size_t i = 0; i < runs; i++) {
    const size_t run = first + (backwards ? runs - 1 - i : i), channel = run % c.channels;
    const K(line) k = {.shift = c.shift[channel], .b = c.scale[channel], .e = c.offset[channel]};
    const size_t at = run * length;
    K(map_strips)(residual, false, relu, streamed, x + at, residual ? added + at : added, y + at, length, k, backwards, kind, parameter);
  }
  if (streamed) finish_stream();
}

static void K(channels_normalize)(steppe_activation kind, double parameter, const void *x, const void *residual, void *y, size_t first,
                                  size_t runs, size_t length, size_t channels, const void *shift, const void *scale, const void *offset,
                                  bool backwards, bool stream) {
  const K(lines) c = {.shift = shift, .scale = scale, .offset = offset, .channels = channels};
  if (length == 0) return;
#define STEPPE_MAP(has_residual, relu, streamed) \
  K(map_channels)(has_residual, relu, streamed, x, residual, y, first, runs, length, c, backwards, kind, parameter)
  if (residual && stream) {
    STEPPE_MAP(true, true, true);
  } else if (residual) {
    STEPPE_MAP(true, true, false);
  } else if (kind == STEPPE_RELU && stream) {
    STEPPE_MAP(false, true, true);
  } else if (kind == STEPPE_RELU) {
    STEPPE_MAP(false, true, false);
  } else if (kind == STEPPE_IDENTITY && stream) {
    STEPPE_MAP(false, false, true);
  } else {
    STEPPE_MAP(false, false, false);
  }
#undef STEPPE_MAP
}

static void K(run_gradient)(const void *x, const void *dy, void *dx, ptrdiff_t stride, size_t runs, size_t length, double shift,
                            bool relu, double scale, double offset, double a, double b, double e, bool backwards, bool stream) {
  const K(line) k = {.shift = (scalar)shift, .a = (scalar)a, .b = (scalar)b, .e = (scalar)e, .scale = (scalar)scale,
                     .offset = (scalar)offset};
  if (length == 0) return;
  if (relu && stream) {
    K(map_runs)(true, true, false, true, x, dy, dx, stride, runs, length, k, backwards, STEPPE_IDENTITY, 0);
  } else if (relu) {
    K(map_runs)(true, true, false, false, x, dy, dx, stride, runs, length, k, backwards, STEPPE_IDENTITY, 0);
  } else if (stream) {
    K(map_runs)(true, false, false, true, x, dy, dx, stride, runs, length, k, backwards, STEPPE_IDENTITY, 0);
  } else {
    K(map_runs)(true, false, false, false, x, dy, dx, stride, runs, length, k, backwards, STEPPE_IDENTITY, 0);
  }
}

#undef WAYS
#undef STRIDE
#undef TURN
#undef map_value
#undef join_runs
