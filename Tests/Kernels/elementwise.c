// Elementwise kernels and activations.
#include "driver.h"

static double reference_binary(steppe_binary op, double x, double y) {
  switch (op) {
  case STEPPE_ADD: return x + y;
  case STEPPE_SUBTRACT: return x - y;
  case STEPPE_MULTIPLY: return x * y;
  case STEPPE_DIVIDE: return x / y;
  case STEPPE_POWER: return pow(x, y);
  case STEPPE_MINIMUM: return isnan(x) || isnan(y) ? NAN : x < y ? x : y;
  case STEPPE_MAXIMUM: return isnan(x) || isnan(y) ? NAN : x > y ? x : y;
  case STEPPE_LESS: return x < y;
  case STEPPE_LESS_EQUAL: return x <= y;
  case STEPPE_GREATER: return x > y;
  case STEPPE_GREATER_EQUAL: return x >= y;
  case STEPPE_EQUAL: return x == y;
  case STEPPE_NOT_EQUAL: return x != y;
  }
  return NAN;
}

static double reference_unary(steppe_unary op, double x) {
  switch (op) {
  case STEPPE_NEGATE: return -x;
  case STEPPE_ABSOLUTE: return fabs(x);
  case STEPPE_SIGN: return x > 0 ? 1 : x < 0 ? -1 : x;
  case STEPPE_SQUARE: return x * x;
  case STEPPE_SQUARE_ROOT: return sqrt(x);
  case STEPPE_RECIPROCAL: return 1 / x;
  case STEPPE_EXPONENTIAL: return exp(x);
  case STEPPE_LOGARITHM: return log(x);
  case STEPPE_FLOOR: return floor(x);
  case STEPPE_CEILING: return ceil(x);
  case STEPPE_ROUND: return rint(x);
  case STEPPE_SINE: return sin(x);
  case STEPPE_COSINE: return cos(x);
  }
  return NAN;
}

// f′ of an activation.
static double reference_slope(steppe_activation kind, double parameter, double x) {
  const double sigmoid = 1 / (1 + exp(-x));
  switch (kind) {
  case STEPPE_IDENTITY: return 1;
  case STEPPE_RELU: return x > 0;
  case STEPPE_LEAKY_RELU: return x > 0 ? 1 : parameter;
  case STEPPE_SIGMOID: return sigmoid * (1 - sigmoid);
  case STEPPE_TANH: return 1 - tanh(x) * tanh(x);
  case STEPPE_GELU: return 0.5 * erfc(-x * 0.70710678118654752440) + x * 0.39894228040143267794 * exp(-x * x / 2);
  case STEPPE_GELU_TANH: {
    const double k = 0.79788456080286535588, e = exp(-2 * k * (x + 0.044715 * x * x * x));
    return 1 / (1 + e) + 2 * x * e / ((1 + e) * (1 + e)) * k * (1 + 3 * 0.044715 * x * x);
  }
  case STEPPE_SILU: return sigmoid * (1 + x * (1 - sigmoid));
  }
  return NAN;
}

void check_elementwise(size_t count, unsigned where) {
  // A few roundings of results near 1, relative to results that are larger.
  const double few = 12 * epsilon;
  void *x = random_at(0, count, where, 0, 2), *y = random_at(1, count, where == 0 ? 0 : where + 1, 0, 1);
  for (size_t i = 0; i < count; i += 5) set(y, i, get(x, i));
  for (size_t i = 3; i < count; i += 7) set(x, i, rint(get(x, i)) + 0.5 * (double)(i & 1));
  void *z = place(2, count, where);
  for (int op = STEPPE_ADD; op <= STEPPE_NOT_EQUAL; op++) {
    for (int steps = 0; steps < 3 && count > 0; steps++) {
      const size_t sx = steps != 1, sy = steps != 2;
      table->binary((steppe_binary)op, x, (ptrdiff_t)sx, y, (ptrdiff_t)sy, z, count);
      for (size_t i = 0; i < count; i++) {
        const double wanted = reference_binary((steppe_binary)op, get(x, i * sx), get(y, i * sy));
        expect("binary", (size_t)op * 100000 + i, get(z, i), rounded(wanted), few * fabs(wanted));
      }
    }
  }
  for (int op = STEPPE_NEGATE; op <= STEPPE_COSINE; op++) {
    table->unary((steppe_unary)op, x, z, count);
    for (size_t i = 0; i < count; i++) {
      const double wanted = reference_unary((steppe_unary)op, get(x, i));
      expect("unary", (size_t)op * 100000 + i, get(z, i), rounded(wanted), few * fabs(wanted));
    }
  }
  for (int kind = STEPPE_IDENTITY; kind <= STEPPE_SILU; kind++) {
    table->activate((steppe_activation)kind, 0.25, x, z, count);
    for (size_t i = 0; i < count; i++) {
      const double wanted = reference_activation((steppe_activation)kind, 0.25, get(x, i));
      expect("activate", (size_t)kind * 100000 + i, get(z, i), wanted, few * (fabs(wanted) + 0.1));
    }
    table->activate_backward((steppe_activation)kind, 0.25, x, y, z, count);
    for (size_t i = 0; i < count; i++) {
      const double wanted = get(y, i) * reference_slope((steppe_activation)kind, 0.25, get(x, i));
      expect("activate_backward", (size_t)kind * 100000 + i, get(z, i), wanted, few * (fabs(get(y, i)) + fabs(wanted)));
    }
  }
  table->fill(1.5, z, count);
  for (size_t i = 0; i < count; i++) expect("fill", i, get(z, i), 1.5, 0);
  table->affine(x, rounded(1.7), rounded(0.3), z, count);
  for (size_t i = 0; i < count; i++) {
    expect("affine", i, get(z, i), get(x, i) * rounded(1.7) + rounded(0.3), 4 * epsilon * (fabs(get(x, i)) * 1.7 + 0.3));
  }
  for (size_t i = 0; i < count; i++) set(z, i, get(y, i));
  table->add_scaled(x, rounded(-0.6), z, count);
  for (size_t i = 0; i < count; i++) {
    expect("add_scaled", i, get(z, i), get(y, i) + rounded(-0.6) * get(x, i), 4 * epsilon * (fabs(get(x, i)) + fabs(get(y, i))));
  }
  table->clamp(x, rounded(-0.4), rounded(0.9), z, count);
  for (size_t i = 0; i < count; i++) expect("clamp", i, get(z, i), fmin(fmax(get(x, i), rounded(-0.4)), rounded(0.9)), 0);
  void *mask = place(3, count, where);
  for (size_t i = 0; i < count; i++) set(mask, i, (double)(next() % 3) - 1);
  for (int steps = 0; steps < 3 && count > 0; steps++) {
    const size_t sx = steps != 1, sy = steps != 2;
    table->select(mask, x, (ptrdiff_t)sx, y, (ptrdiff_t)sy, z, count);
    for (size_t i = 0; i < count; i++) {
      expect("select", i, get(z, i), get(mask, i) != 0 ? get(x, i * sx) : get(y, i * sy), 0);
    }
  }
  for (size_t step = 1; step <= 3; step++) {
    const size_t n = count / 3;
    if (n == 0) break;
    for (size_t i = 0; i < count; i++) set(z, i, 777);
    table->copy_strided(x, (ptrdiff_t)step, z, (ptrdiff_t)(4 - step), n);
    for (size_t i = 0; i < n * (4 - step); i++) {
      expect("copy_strided", i, get(z, i), i % (4 - step) ? 777 : get(x, i / (4 - step) * step), 0);
    }
  }
  uint8_t *bytes = (uint8_t *)arenas[3] + ROOM - count;
  for (size_t i = 0; i < count; i++) bytes[i] = (uint8_t)next();
  table->convert_bytes(bytes, rounded(1.0 / 255), rounded(-0.5), z, count);
  for (size_t i = 0; i < count; i++) {
    expect("convert_bytes", i, get(z, i), bytes[i] * rounded(1.0 / 255) + rounded(-0.5), 4 * epsilon);
  }
  expect("all_finite", 0, table->all_finite(x, count), 1, 0);
  for (size_t i = 0; i < count; i += 1 + count / 9) {
    const double kept = get(x, i);
    set(x, i, i & 1 ? NAN : -INFINITY);
    expect("all_finite", i + 1, table->all_finite(x, count), 0, 0);
    set(x, i, kept);
  }
}
