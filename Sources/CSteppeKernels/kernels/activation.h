// Activation functions, their derivatives, and the epilogue of a dense layer.

INLINE vector K(activation)(const steppe_activation kind, scalar parameter, vector x) {
  switch (kind) {
    case STEPPE_IDENTITY: return x;
    case STEPPE_RELU: return choose(x < 0, splat(0), x);
    case STEPPE_LEAKY_RELU: return choose(x < 0, x * parameter, x);
    case STEPPE_SIGMOID: return K(sigmoid)(x);
    case STEPPE_TANH: return K(tanh)(x);
    case STEPPE_GELU: {
      vector bell;
      const vector phi = K(normal)(x, &bell);
      return K(at_least)(x, -STEPPE_PHI_LIMIT) * phi;  // the limit at −∞ is 0, not −∞·0
    }
    case STEPPE_GELU_TANH: {  // ½(1 + tanh u) = sigmoid(2u)
      const vector t = K(at_most)(K(at_least)(x, -50), 50);
      return K(at_least)(x, -50) * K(sigmoid)(2 * STEPPE_SQRT_2_OVER_PI * (t + STEPPE_C(0.044715) * (t * t * t)));
    }
    case STEPPE_SILU: {
      const vector e = K(exp)(-K(absolute)(x));
      return choose(x < 0, K(at_least)(x, -1000) * e, x) / (e + 1);  // one rounding less than x·sigmoid(x)
    }
  }
  return x;
}

// f′(x)·dy
INLINE vector K(activation_gradient)(const steppe_activation kind, scalar parameter, vector x, vector dy) {
  switch (kind) {
    case STEPPE_IDENTITY: return dy;
    case STEPPE_RELU: return choose(x <= 0, splat(0), dy);
    case STEPPE_LEAKY_RELU: return choose(x > 0, dy, dy * parameter);
    case STEPPE_SIGMOID: {  // e/(1 + e)² with e = exp(−|x|) keeps its relative accuracy where 1 − f would lose it
      const vector e = K(exp)(-K(absolute)(x)), d = e + 1;
      return dy * (e / (d * d));
    }
    case STEPPE_TANH: {  // 1/cosh²
      const vector e = K(exp)(K(absolute)(x) * -2), d = e + 1;
      return dy * (4 * e / (d * d));
    }
    case STEPPE_GELU: {
      vector bell;
      const vector phi = K(normal)(x, &bell);
      const vector t = K(at_most)(K(at_least)(x, -STEPPE_PHI_LIMIT), STEPPE_PHI_LIMIT);
      return dy * (t * bell * STEPPE_C(0.39894228040143267794) + phi);
    }
    case STEPPE_GELU_TANH: {
      const vector t = K(at_most)(K(at_least)(x, -50), 50), square = t * t;
      const vector u = 2 * STEPPE_SQRT_2_OVER_PI * (t + STEPPE_C(0.044715) * (square * t));
      const vector slope = 2 * STEPPE_SQRT_2_OVER_PI * (STEPPE_C(0.134145) * square + 1);
      const vector e = K(exp)(-K(absolute)(u)), d = 1 / (e + 1);
      return dy * (choose(u < 0, e, splat(1)) * d + t * slope * (e * d * d));
    }
    case STEPPE_SILU: {
      const vector t = K(at_most)(K(at_least)(x, -1000), 1000);
      const vector e = K(exp)(-K(absolute)(t)), d = 1 / (e + 1);
      return dy * (choose(t < 0, e, splat(1)) * d + t * (e * d * d));
    }
  }
  return dy;
}

#define STEPPE_EACH_ACTIVATION(CASE)                                                                                    \
  CASE(STEPPE_IDENTITY)                                                                                                 \
  CASE(STEPPE_RELU)                                                                                                     \
  CASE(STEPPE_LEAKY_RELU)                                                                                               \
  CASE(STEPPE_SIGMOID)                                                                                                  \
  CASE(STEPPE_TANH)                                                                                                     \
  CASE(STEPPE_GELU)                                                                                                     \
  CASE(STEPPE_GELU_TANH)                                                                                                \
  CASE(STEPPE_SILU)

// With a bias where the bias isn't NULL.
INLINE void K(activate_range)(const steppe_activation kind, scalar parameter, const scalar *x, const scalar *bias, scalar *y,
                              size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    const vector v = bias ? load(x + i) + load(bias + i) : load(x + i);
    store(y + i, K(activation)(kind, parameter, v));
  }
  if (i == count) return;
  const size_t rest = count - i;
  vector v = K(load_tail)(x + i, rest, 0);
  if (bias) v += K(load_tail)(bias + i, rest, 0);
  K(store_tail)(y + i, K(activation)(kind, parameter, v), rest);
}

static void K(activate)(steppe_activation kind, double parameter, const void *x, void *y, size_t count) {
#define STEPPE_CASE(kind) \
  case kind: K(activate_range)(kind, (scalar)parameter, x, NULL, y, count); break;
  switch (kind) { STEPPE_EACH_ACTIVATION(STEPPE_CASE) }
#undef STEPPE_CASE
}

INLINE void K(activate_backward_range)(const steppe_activation kind, scalar parameter, const scalar *x, const scalar *dy,
                                       scalar *dx, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(dx + i, K(activation_gradient)(kind, parameter, load(x + i), load(dy + i)));
  if (i == count) return;
  const size_t rest = count - i;
  const vector v = K(load_tail)(x + i, rest, 0), d = K(load_tail)(dy + i, rest, 0);
  K(store_tail)(dx + i, K(activation_gradient)(kind, parameter, v, d), rest);
}

static void K(activate_backward)(steppe_activation kind, double parameter, const void *x, const void *dy, void *dx,
                                 size_t count) {
#define STEPPE_CASE(kind) \
  case kind: K(activate_backward_range)(kind, (scalar)parameter, x, dy, dx, count); break;
  switch (kind) { STEPPE_EACH_ACTIVATION(STEPPE_CASE) }
#undef STEPPE_CASE
}

INLINE void K(bias_activate_rows)(const steppe_activation kind, scalar parameter, const scalar *x, ptrdiff_t ldx,
                                  const scalar *bias, scalar *y, ptrdiff_t ldy, size_t rows, size_t columns) {
  for (size_t r = 0; r < rows; r++) {
    K(activate_range)(kind, parameter, x + (ptrdiff_t)r * ldx, bias, y + (ptrdiff_t)r * ldy, columns);
  }
}

static void K(bias_activate)(steppe_activation kind, double parameter, const void *x, ptrdiff_t ldx, const void *bias, void *y,
                             ptrdiff_t ldy, size_t rows, size_t columns) {
  if (bias == NULL) {
    const bool whole = ldx == (ptrdiff_t)columns && ldy == ldx;
    const size_t parts = whole ? (rows > 0) : rows, length = whole ? rows * columns : columns;
    for (size_t r = 0; r < parts; r++) {
      K(activate)(kind, parameter, (const scalar *)x + (ptrdiff_t)r * ldx, (scalar *)y + (ptrdiff_t)r * ldy, length);
    }
    return;
  }
#define STEPPE_CASE(kind) \
  case kind: K(bias_activate_rows)(kind, (scalar)parameter, x, ldx, bias, y, ldy, rows, columns); break;
  switch (kind) { STEPPE_EACH_ACTIVATION(STEPPE_CASE) }
#undef STEPPE_CASE
}
