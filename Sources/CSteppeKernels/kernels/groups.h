// Normalization of rows, each by its own statistics: layer, RMS, group and instance normalization (Mathematics §6 to §8). Built on the runs of
// `runs.h`.
//
// A row is read from memory once in a pass: its statistics are taken, and it is normalized while the cache holds it. Backward takes a
// block of rows, so that what is kept for each feature (γ, and the sums of dγ and dβ) is loaded once for two of them; the sums go
// in the scalar type over a block and are merged in double.

// Values that the shift is the mean of.
#define SAMPLED ((size_t)16)
// Rows of a block: their sums in a float lane before they are merged in double.
#define GROUP_ROWS ((size_t)16)
// Bytes of x and dy in a block of rows, which the second-level cache holds until dx is made of them.
#define GROUP_BYTES ((size_t)256 << 10)

// One row's numbers: x̂ = (x − shift)·rstd + offset.
typedef struct K(standard) {
  scalar shift, rstd, offset;
} K(standard);
#define standard K(standard)

INLINE standard K(standard_of)(const double *statistics, double epsilon) {
  const double rstd = 1 / __builtin_sqrt(statistics[2] + epsilon);
  return (standard){(scalar)statistics[0], (scalar)rstd, (scalar)(-statistics[1] * rstd)};
}

// The mean of values spread over `n`, added in chains that don't wait for one another.
INLINE double K(sampled_mean)(const scalar *x, size_t n) {
  const size_t step = n / SAMPLED;
  double sums[4] = {0}, few = 0;
  if (step == 0) {
    for (size_t i = 0; i < n; i++) few += (double)x[i];
    return (double)(scalar)(few / (double)n);
  }
  UNROLL for (size_t i = 0; i < SAMPLED; i++) sums[i % 4] += (double)x[i * step];
  return (double)(scalar)(((sums[0] + sums[1]) + (sums[2] + sums[3])) / (double)SAMPLED);
}

// Shift, remainder and variance of `n` values, or 0, 0 and the mean square.
static void K(group_moments)(const scalar *x, size_t n, bool centered, double *statistics) {
  const double m = (double)n;
  double sum = 0, squares = 0, shift = 0;
  if (!centered) {
    K(run_moments)(x, (ptrdiff_t)n, 1, n, 0, &sum, &squares);
    statistics[0] = statistics[1] = 0;
    statistics[2] = squares / m;
    return;
  }
  shift = K(sampled_mean)(x, n);
  if (!__builtin_isfinite(shift)) shift = (double)x[0];
  for (int turn = 0; turn < 2; turn++) {
    sum = squares = 0;
    K(run_moments)(x, (ptrdiff_t)n, 1, n, shift, &sum, &squares);
    const double distance = sum / m, mean = shift + distance, spread = squares / m - distance * distance;
    statistics[0] = (double)(scalar)mean;
    statistics[1] = shift - statistics[0] + distance;
    statistics[2] = spread < 0 ? 0 : spread;
    // The squares' rounding is relative to spread + distance²: an outlier among the sampled values asks for another shift.
    if (!(distance * distance > spread)) return;
    shift = statistics[0];
  }
}

// ── a row with γ and β for each of its values ─────────────────────────────────────────────────────────────────────────────────

// y = x̂·γ + β. Fetches as much of the row that comes next.
INLINE void K(features_normalize)(const bool streamed, const scalar *x, scalar *y, size_t n, const scalar *gamma,
                                  const scalar *beta, standard k, const scalar *next) {
  const vector shift = splat(k.shift), rstd = splat(k.rstd), offset = splat(k.offset);
  size_t c = 0;
  if (streamed) {
    const size_t head = head_of(y);
    for (; c < head && c < n; c++) y[c] = ((x[c] - k.shift) * k.rstd + k.offset) * gamma[c] + beta[c];
  }
  for (; c + LINE <= n; c += LINE) {
    __builtin_prefetch(next + c, 0, 2);
    UNROLL for (size_t i = c; i < c + LINE; i += LANES) {
      const vector v = ((load(x + i) - shift) * rstd + offset) * load(gamma + i) + load(beta + i);
      if (streamed) {
        stream_store(y + i, v);
      } else {
        store(y + i, v);
      }
    }
  }
  for (; c + LANES <= n; c += LANES) {
    store(y + c, ((load(x + c) - shift) * rstd + offset) * load(gamma + c) + load(beta + c));
  }
  for (; c < n; c++) y[c] = ((x[c] - k.shift) * k.rstd + k.offset) * gamma[c] + beta[c];
}

// The sums of `rows` rows over a strip of whole vectors: Σγ·dy and Σγ·dy·x̂ of each row, in lanes of doubles, and what is added to
// each feature's Σdy and Σdy·x̂ in `u` and `v`. Fetches dy `ahead` values later.
INLINE void K(features_sums)(const size_t rows, const scalar *x, const scalar *dy, size_t stride, size_t columns,
                             const scalar *gamma, const standard *k, scalar *u, scalar *v, wide (*sums)[2], size_t ahead) {
  for (size_t start = 0; start < columns; start += 16 * LANES) {
    const size_t end = columns - start < 16 * LANES ? columns : start + 16 * LANES;
    vector s[2] = {splat(0), splat(0)}, q[2] = {splat(0), splat(0)};
    for (size_t c = start; c < end; c += LANES) {
      const vector g = load(gamma + c);
      vector first = load(u + c), second = load(v + c);
      UNROLL for (size_t r = 0; r < rows; r++) {
        const vector w = load(dy + r * stride + c);
        __builtin_prefetch(dy + r * stride + c + ahead, 0, 2);
        const vector h = (load(x + r * stride + c) - splat(k[r].shift)) * splat(k[r].rstd) + splat(k[r].offset);
        const vector p = w * h;
        s[r] = w * g + s[r];
        q[r] = p * g + q[r];
        first += w;
        second += p;
      }
      store(u + c, first);
      store(v + c, second);
    }
    UNROLL for (size_t r = 0; r < rows; r++) {
      sums[r][0] += __builtin_convertvector(s[r], wide);
      sums[r][1] += __builtin_convertvector(q[r], wide);
    }
  }
}

// dx = γ·dy·rstd + b·(x − shift) + e. Fetches as much of a row that comes `ahead` values later, so that memory does not stand idle while
// what is mapped comes from the cache.
INLINE void K(features_gradient)(const bool streamed, const scalar *x, const scalar *dy, scalar *dx, size_t n,
                                 const scalar *gamma, standard k, scalar b, scalar e, size_t ahead) {
  const vector shift = splat(k.shift), rstd = splat(k.rstd), slope = splat(b), rest = splat(e);
  size_t c = 0;
  if (streamed) {
    const size_t head = head_of(dx);
    for (; c < head && c < n; c++) dx[c] = dy[c] * gamma[c] * k.rstd + ((x[c] - k.shift) * b + e);
  }
  for (; c + LINE <= n; c += LINE) {
    __builtin_prefetch(x + c + ahead, 0, 2);
    UNROLL for (size_t i = c; i < c + LINE; i += LANES) {
      const vector v = load(dy + i) * load(gamma + i) * rstd + ((load(x + i) - shift) * slope + rest);
      if (streamed) {
        stream_store(dx + i, v);
      } else {
        store(dx + i, v);
      }
    }
  }
  for (; c + LANES <= n; c += LANES) {
    store(dx + c, load(dy + c) * load(gamma + c) * rstd + ((load(x + c) - shift) * slope + rest));
  }
  for (; c < n; c++) dx[c] = dy[c] * gamma[c] * k.rstd + ((x[c] - k.shift) * b + e);
}

// dx = a·γ·dy + b·(x − shift) + e of a row: its coefficients, from its totals.
INLINE void K(coefficients)(const steppe_groups *groups, const double *statistics, const double *totals, double *a, double *b,
                            double *e) {
  const double n = (double)groups->values, rstd = 1 / __builtin_sqrt(statistics[2] + groups->epsilon);
  *a = rstd;
  *b = -rstd * rstd * totals[1] / n;
  *e = (groups->centered ? -rstd * totals[0] / n : 0) - *b * statistics[1];
}

// A block of rows that share γ: their totals, and what they add to d_gamma and d_beta.
static void K(features_totals)(const steppe_groups *groups, size_t rows, const scalar *x, const scalar *dy, const scalar *gamma,
                               const double *statistics, double *totals, double *d_gamma, double *d_beta) {
  _Alignas(64) scalar u[STRIP], v[STRIP];
  const size_t n = groups->channels, even = n / LANES * LANES;
  standard k[GROUP_ROWS];
  wide sums[GROUP_ROWS][2];
  __builtin_memset(sums, 0, rows * sizeof *sums);
  for (size_t r = 0; r < rows; r++) k[r] = K(standard_of)(statistics + 3 * r, groups->epsilon);
  for (size_t start = 0; start < even; start += STRIP) {
    const size_t columns = even - start < STRIP ? even - start : STRIP;
    __builtin_memset(u, 0, columns * sizeof(scalar));
    __builtin_memset(v, 0, columns * sizeof(scalar));
    size_t r = 0;
    for (; r + 2 <= rows; r += 2) {
      const scalar *xr = x + r * n + start, *dyr = dy + r * n + start;
      K(features_sums)(2, xr, dyr, n, columns, gamma + start, k + r, u, v, sums + r, r + 4 <= rows ? 2 * n : 0);
    }
    if (r < rows) K(features_sums)(1, x + r * n + start, dy + r * n + start, n, columns, gamma + start, k + r, u, v, sums + r, 0);
    for (size_t c = 0; c < columns; c += LANES) {
      add_to(d_beta + start + c, load(u + c));
      add_to(d_gamma + start + c, load(v + c));
    }
  }
  for (size_t r = 0; r < rows; r++) {
    const scalar *xr = x + r * n, *dyr = dy + r * n;
    double first = 0, second = 0;
    for (size_t c = even; c < n; c++) {
      const double w = (double)dyr[c];
      const double p = w * (double)((xr[c] - k[r].shift) * k[r].rstd + k[r].offset);
      first += w * (double)gamma[c];
      second += p * (double)gamma[c];
      d_beta[c] += w;
      d_gamma[c] += p;
    }
    totals[2 * r] = first + K(sum_lanes)(&sums[r][0]);
    totals[2 * r + 1] = second + K(sum_lanes)(&sums[r][1]);
  }
}

static void K(features_map)(const steppe_groups *groups, const scalar *x, const scalar *dy, scalar *dx, const scalar *gamma,
                            const double *statistics, const double *totals, size_t ahead) {
  double a, b, e;
  K(coefficients)(groups, statistics, totals, &a, &b, &e);
  const standard k = {(scalar)statistics[0], (scalar)a, 0};
  if (groups->stream) {
    K(features_gradient)(true, x, dy, dx, groups->channels, gamma, k, (scalar)b, (scalar)e, ahead);
  } else {
    K(features_gradient)(false, x, dy, dx, groups->channels, gamma, k, (scalar)b, (scalar)e, ahead);
  }
}

// ── a row of runs with γ and β for each run ───────────────────────────────────────────────────────────────────────────────────

static void K(runs_totals)(const steppe_groups *groups, const scalar *x, const scalar *dy, const scalar *gamma,
                           const double *statistics, double *totals, double *d_gamma, double *d_beta) {
  const size_t s = groups->positions;
  const double rstd = 1 / __builtin_sqrt(statistics[2] + groups->epsilon);
  totals[0] = totals[1] = 0;
  for (size_t c = 0; c < groups->channels; c++) {
    double sum = 0, product = 0;
    K(run_gradient_sums)(x + c * s, dy + c * s, (ptrdiff_t)s, 1, s, statistics[0], false, 0, 0, &sum, &product);
    product = (product - statistics[1] * sum) * rstd;
    totals[0] += (double)gamma[c] * sum;
    totals[1] += (double)gamma[c] * product;
    d_beta[c] += sum;
    d_gamma[c] += product;
  }
}

static void K(runs_map)(const steppe_groups *groups, const scalar *x, const scalar *dy, scalar *dx, const scalar *gamma,
                        const double *statistics, const double *totals) {
  const size_t s = groups->positions;
  double a, b, e;
  K(coefficients)(groups, statistics, totals, &a, &b, &e);
  for (size_t c = groups->channels; c-- > 0;) {
    K(run_gradient)(x + c * s, dy + c * s, dx + c * s, (ptrdiff_t)s, 1, s, statistics[0], false, 0, 0, a * (double)gamma[c], b, e,
                    true, groups->stream);
  }
}

// ── the table's entries ───────────────────────────────────────────────────────────────────────────────────────────────────────

static void K(group_normalize)(steppe_group_pass pass, const steppe_groups *groups, const void *from, void *to, const void *gammas,
                               const void *betas, double *statistics) {
  const size_t s = groups->positions, channels = groups->channels, n = s * channels;
  const scalar *x = from;
  scalar *y = to;
  for (size_t r = 0; r < groups->rows; r++, x += n, y += n, statistics += 3) {
    const size_t channel = (groups->first + r) % groups->period * channels;
    const scalar *gamma = (const scalar *)gammas + channel, *beta = (const scalar *)betas + channel;
    if (pass != STEPPE_GROUP_MAP) K(group_moments)(x, n, groups->centered, statistics);
    if (pass == STEPPE_GROUP_SUMS) continue;
    if (s == 1) {
      const standard k = K(standard_of)(statistics, groups->epsilon);
      const scalar *next = r + 1 < groups->rows ? x + n : x;
      if (groups->stream) {
        K(features_normalize)(true, x, y, n, gamma, beta, k, next);
      } else {
        K(features_normalize)(false, x, y, n, gamma, beta, k, next);
      }
      continue;
    }
    const double rstd = 1 / __builtin_sqrt(statistics[2] + groups->epsilon);
    for (size_t c = channels; c-- > 0;) {
      const double scale = (double)gamma[c] * rstd;
      K(run_normalize)(STEPPE_IDENTITY, 0, x + c * s, y + c * s, (ptrdiff_t)s, 1, s, statistics[0], scale,
                       (double)beta[c] - statistics[1] * scale, true, groups->stream);
    }
  }
  if (groups->stream) finish_stream();
}

static void K(group_gradient)(steppe_group_pass pass, const steppe_groups *groups, const void *from, const void *gradient, void *to,
                              const void *gammas, const double *statistics, double *totals, double *d_gamma, double *d_beta) {
  const size_t s = groups->positions, channels = groups->channels, n = s * channels;
  const scalar *x = from, *dy = gradient;
  scalar *dx = to;
  size_t block = s == 1 && groups->period == 1 ? GROUP_ROWS : 1;
  while (block > 2 && block * n * 2 * sizeof(scalar) > GROUP_BYTES) block /= 2;
  for (size_t start = 0; start < groups->rows; start += block) {
    const size_t rows = groups->rows - start < block ? groups->rows - start : block;
    const size_t channel = (groups->first + start) % groups->period * channels;
    const scalar *gamma = (const scalar *)gammas + channel, *xs = x + start * n, *dys = dy + start * n;
    if (pass != STEPPE_GROUP_MAP) {
      double *dg = d_gamma + channel, *db = d_beta + channel;
      if (s == 1) {
        K(features_totals)(groups, rows, xs, dys, gamma, statistics + 3 * start, totals + 2 * start, dg, db);
      } else {
        K(runs_totals)(groups, xs, dys, gamma, statistics + 3 * start, totals + 2 * start, dg, db);
      }
    }
    if (pass == STEPPE_GROUP_SUMS || !dx) continue;
    // Backwards: what came last is nearest.
    for (size_t r = start + rows; r-- > start;) {
      if (s == 1) {
        const size_t ahead = r + block < groups->rows ? block * n : 0;
        K(features_map)(groups, x + r * n, dy + r * n, dx + r * n, gamma, statistics + 3 * r, totals + 2 * r, ahead);
      } else {
        K(runs_map)(groups, x + r * n, dy + r * n, dx + r * n, gamma, statistics + 3 * r, totals + 2 * r);
      }
    }
  }
  if (groups->stream) finish_stream();
}

#undef SAMPLED
#undef GROUP_ROWS
#undef GROUP_BYTES
#undef standard
