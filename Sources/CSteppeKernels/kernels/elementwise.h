// One value in, one value out, and the copies that change a layout.
#include "functions.h"

// ── two operands ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

INLINE vector K(truth)(ivector mask) { return choose(mask, splat(1), splat(0)); }

INLINE vector K(binary_value)(const steppe_binary op, vector x, vector y) {
  switch (op) {
    case STEPPE_ADD: return x + y;
    case STEPPE_SUBTRACT: return x - y;
    case STEPPE_MULTIPLY: return x * y;
    case STEPPE_DIVIDE: return x / y;
    case STEPPE_POWER:
      for (size_t i = 0; i < LANES; i++) x[i] = STEPPE_DOUBLE ? (scalar)pow(x[i], y[i]) : (scalar)powf((float)x[i], (float)y[i]);
      return x;
    // A comparison with NaN is false and leaves y; then x decides where it is NaN itself.
    case STEPPE_MINIMUM: return choose(x != x, x, choose(x < y, x, y));
    case STEPPE_MAXIMUM: return choose(x != x, x, choose(x > y, x, y));
    case STEPPE_LESS: return K(truth)(x < y);
    case STEPPE_LESS_EQUAL: return K(truth)(x <= y);
    case STEPPE_GREATER: return K(truth)(x > y);
    case STEPPE_GREATER_EQUAL: return K(truth)(x >= y);
    case STEPPE_EQUAL: return K(truth)(x == y);
    case STEPPE_NOT_EQUAL: return K(truth)(x != y);
  }
  return x;
}

// A step of 0 reads its value once, before anything is written.
INLINE void K(binary_range)(const steppe_binary op, const scalar *x, const bool all_x, const scalar *y, const bool all_y,
                            scalar *z, size_t count) {
  const vector x0 = splat(*x), y0 = splat(*y);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(z + i, K(binary_value)(op, all_x ? load(x + i) : x0, all_y ? load(y + i) : y0));
  if (i == count) return;
  const size_t rest = count - i;
  const vector a = all_x ? K(load_tail)(x + i, rest, 1) : x0, b = all_y ? K(load_tail)(y + i, rest, 1) : y0;
  K(store_tail)(z + i, K(binary_value)(op, a, b), rest);
}

INLINE void K(binary_steps)(const steppe_binary op, const scalar *x, ptrdiff_t x_step, const scalar *y, ptrdiff_t y_step,
                            scalar *z, size_t count) {
  if (x_step != 0 && y_step != 0) {
    K(binary_range)(op, x, true, y, true, z, count);
  } else if (x_step != 0) {
    K(binary_range)(op, x, true, y, false, z, count);
  } else if (y_step != 0) {
    K(binary_range)(op, x, false, y, true, z, count);
  } else {
    const scalar value = K(binary_value)(op, splat(*x), splat(*y))[0];
    for (size_t i = 0; i < count; i++) z[i] = value;
  }
}

static void K(binary)(steppe_binary op, const void *x, ptrdiff_t x_step, const void *y, ptrdiff_t y_step, void *z, size_t count) {
  if (count == 0) return;
#define STEPPE_CASE(op) \
  case op: K(binary_steps)(op, x, x_step, y, y_step, z, count); break;
  switch (op) {
    STEPPE_CASE(STEPPE_ADD)
    STEPPE_CASE(STEPPE_SUBTRACT)
    STEPPE_CASE(STEPPE_MULTIPLY)
    STEPPE_CASE(STEPPE_DIVIDE)
    STEPPE_CASE(STEPPE_MINIMUM)
    STEPPE_CASE(STEPPE_MAXIMUM)
    STEPPE_CASE(STEPPE_LESS)
    STEPPE_CASE(STEPPE_LESS_EQUAL)
    STEPPE_CASE(STEPPE_GREATER)
    STEPPE_CASE(STEPPE_GREATER_EQUAL)
    STEPPE_CASE(STEPPE_EQUAL)
    STEPPE_CASE(STEPPE_NOT_EQUAL)
    case STEPPE_POWER:
      if (y_step == 0 && *(const scalar *)y == 2) {  // the common power needs no logarithm
        K(binary_steps)(STEPPE_MULTIPLY, x, x_step, x, x_step, z, count);
      } else {
        K(binary_steps)(op, x, x_step, y, y_step, z, count);
      }
      break;
  }
#undef STEPPE_CASE
}

// ── one operand ───────────────────────────────────────────────────────────────────────────────────────────────────────────────

INLINE vector K(unary_value)(const steppe_unary op, vector x) {
  switch (op) {
    case STEPPE_NEGATE: return -x;
    case STEPPE_ABSOLUTE: return K(absolute)(x);
    case STEPPE_SIGN: return choose(x > 0, splat(1), choose(x < 0, splat(-1), x));
    case STEPPE_SQUARE: return x * x;
    case STEPPE_SQUARE_ROOT: return __builtin_elementwise_sqrt(x);
    case STEPPE_RECIPROCAL: return 1 / x;
    case STEPPE_EXPONENTIAL: return K(exp)(x);
    case STEPPE_LOGARITHM: return K(log)(x);
    case STEPPE_FLOOR: return __builtin_elementwise_floor(x);
    case STEPPE_CEILING: return __builtin_elementwise_ceil(x);
    case STEPPE_ROUND: return __builtin_elementwise_rint(x);
    case STEPPE_SINE:
      for (size_t i = 0; i < LANES; i++) x[i] = STEPPE_DOUBLE ? (scalar)sin(x[i]) : (scalar)sinf((float)x[i]);
      return x;
    case STEPPE_COSINE:
      for (size_t i = 0; i < LANES; i++) x[i] = STEPPE_DOUBLE ? (scalar)cos(x[i]) : (scalar)cosf((float)x[i]);
      return x;
  }
  return x;
}

INLINE void K(unary_range)(const steppe_unary op, const scalar *x, scalar *y, size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(y + i, K(unary_value)(op, load(x + i)));
  if (i < count) K(store_tail)(y + i, K(unary_value)(op, K(load_tail)(x + i, count - i, 1)), count - i);
}

static void K(unary)(steppe_unary op, const void *x, void *y, size_t count) {
#define STEPPE_CASE(op) \
  case op: K(unary_range)(op, x, y, count); break;
  switch (op) {
    STEPPE_CASE(STEPPE_NEGATE)
    STEPPE_CASE(STEPPE_ABSOLUTE)
    STEPPE_CASE(STEPPE_SIGN)
    STEPPE_CASE(STEPPE_SQUARE)
    STEPPE_CASE(STEPPE_SQUARE_ROOT)
    STEPPE_CASE(STEPPE_RECIPROCAL)
    STEPPE_CASE(STEPPE_EXPONENTIAL)
    STEPPE_CASE(STEPPE_LOGARITHM)
    STEPPE_CASE(STEPPE_FLOOR)
    STEPPE_CASE(STEPPE_CEILING)
    STEPPE_CASE(STEPPE_ROUND)
    STEPPE_CASE(STEPPE_SINE)
    STEPPE_CASE(STEPPE_COSINE)
  }
#undef STEPPE_CASE
}

static void K(fill)(double value, void *y, size_t count) {
  scalar *to = y;
  const vector v = splat((scalar)value);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, v);
  if (i < count) K(store_tail)(to + i, v, count - i);
}

static void K(affine)(const void *x, double scale, double offset, void *y, size_t count) {
  const scalar *from = x;
  scalar *to = y;
  const vector a = splat((scalar)scale), b = splat((scalar)offset);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, a * load(from + i) + b);
  if (i < count) K(store_tail)(to + i, a * K(load_tail)(from + i, count - i, 0) + b, count - i);
}

static void K(add_scaled)(const void *x, double scale, void *y, size_t count) {
  const scalar *from = x;
  scalar *to = y;
  const vector a = splat((scalar)scale);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, a * load(from + i) + load(to + i));
  if (i == count) return;
  const size_t rest = count - i;
  K(store_tail)(to + i, a * K(load_tail)(from + i, rest, 0) + K(load_tail)(to + i, rest, 0), rest);
}

INLINE void K(select_range)(const scalar *mask, const scalar *x, const bool all_x, const scalar *y, const bool all_y, scalar *z,
                            size_t count) {
  const vector x0 = splat(*x), y0 = splat(*y);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    store(z + i, choose(load(mask + i) != 0, all_x ? load(x + i) : x0, all_y ? load(y + i) : y0));
  }
  if (i == count) return;
  const size_t rest = count - i;
  const vector a = all_x ? K(load_tail)(x + i, rest, 0) : x0, b = all_y ? K(load_tail)(y + i, rest, 0) : y0;
  K(store_tail)(z + i, choose(K(load_tail)(mask + i, rest, 0) != 0, a, b), rest);
}

static void K(select)(const void *mask, const void *x, ptrdiff_t x_step, const void *y, ptrdiff_t y_step, void *z, size_t count) {
  if (count == 0) return;
  if (x_step != 0 && y_step != 0) {
    K(select_range)(mask, x, true, y, true, z, count);
  } else if (x_step != 0) {
    K(select_range)(mask, x, true, y, false, z, count);
  } else if (y_step != 0) {
    K(select_range)(mask, x, false, y, true, z, count);
  } else {
    K(select_range)(mask, x, false, y, false, z, count);
  }
}

static void K(clamp)(const void *x, double low, double high, void *y, size_t count) {
  const scalar *from = x;
  scalar *to = y;
  const scalar least = (scalar)low, greatest = (scalar)high;
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) store(to + i, K(at_most)(K(at_least)(load(from + i), least), greatest));
  if (i == count) return;
  const vector v = K(load_tail)(from + i, count - i, 0);
  K(store_tail)(to + i, K(at_most)(K(at_least)(v, least), greatest), count - i);
}

// No lane may have an exponent of all ones.
static bool K(all_finite)(const void *x, size_t count) {
  const scalar *from = x;
  const ivector exponent = (ivector)splat((scalar)INFINITY);
  const size_t block = 64 * LANES;
  size_t i = 0;
  while (i + LANES <= count) {
    const size_t end = count - i < block ? count : i + block;
    ivector found = {0};
    for (; i + LANES <= end; i += LANES) found |= ((ivector)load(from + i) & exponent) == exponent;
    if (K(any_lane)(found)) return false;
  }
  return i == count || !K(any_lane)(((ivector)K(load_tail)(from + i, count - i, 0) & exponent) == exponent);
}

// ── layout ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

static void K(copy_strided)(const void *x, ptrdiff_t x_step, void *y, ptrdiff_t y_step, size_t count) {
  const scalar *from = x;
  scalar *to = y;
  if (count == 0) return;
  if (x_step == 1 && y_step == 1) {
    if (from != to) __builtin_memcpy(to, from, count * sizeof(scalar));
  } else if (x_step == 0 && y_step == 1) {
    K(fill)((double)*from, to, count);
  } else if (y_step == 1) {
#pragma clang loop unroll_count(4)
    for (size_t i = 0; i < count; i++) to[i] = from[(ptrdiff_t)i * x_step];
  } else if (x_step == 1) {
#pragma clang loop unroll_count(4)
    for (size_t i = 0; i < count; i++) to[(ptrdiff_t)i * y_step] = from[i];
  } else {
    for (size_t i = 0; i < count; i++) to[(ptrdiff_t)i * y_step] = from[(ptrdiff_t)i * x_step];
  }
}

// Turns a square of vectors in registers. Rounds exchange blocks of half, a quarter, … of the lanes between rows that lie as far apart.
INLINE void K(turn)(vector rows[LANES]) {
#define STEPPE_EXCHANGE(half, low, high)                                    \
  for (size_t r = 0; r < LANES; r++) {                                      \
    if (r & (half)) continue;                                               \
    const vector a = rows[r], b = rows[r + (half)];                         \
    rows[r] = __builtin_shufflevector(a, b, STEPPE_LIST low);               \
    rows[r + (half)] = __builtin_shufflevector(a, b, STEPPE_LIST high);     \
  }
#define STEPPE_LIST(...) __VA_ARGS__
#define STEPPE_ROUND_(half, low, high) _Pragma("clang loop unroll(full)") STEPPE_EXCHANGE(half, low, high)
#if STEPPE_VECTOR_BYTES == 64 && !STEPPE_DOUBLE
  STEPPE_ROUND_(8, (0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
                (8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
  STEPPE_ROUND_(4, (0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27),
                (4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31))
  STEPPE_ROUND_(2, (0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29),
                (2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31))
  STEPPE_ROUND_(1, (0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30),
                (1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31))
#elif (STEPPE_VECTOR_BYTES == 64) || (STEPPE_VECTOR_BYTES == 32 && !STEPPE_DOUBLE)
  STEPPE_ROUND_(4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15))
  STEPPE_ROUND_(2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15))
  STEPPE_ROUND_(1, (0, 8, 2, 10, 4, 12, 6, 14), (1, 9, 3, 11, 5, 13, 7, 15))
#elif (STEPPE_VECTOR_BYTES == 32) || !STEPPE_DOUBLE
  STEPPE_ROUND_(2, (0, 1, 4, 5), (2, 3, 6, 7))
  STEPPE_ROUND_(1, (0, 4, 2, 6), (1, 5, 3, 7))
#else
  STEPPE_ROUND_(1, (0, 2), (1, 3))
#endif
#undef STEPPE_EXCHANGE
#undef STEPPE_LIST
#undef STEPPE_ROUND_
}

// A square of one cache line by one, whose lines are read and written whole where a vector holds one: rows a power of two apart, which
// compete for the same places in the cache, then cost little.
INLINE void K(transpose_square)(const scalar *x, ptrdiff_t ldx, scalar *y, ptrdiff_t ldy) {
  const size_t side = 64 / sizeof(scalar);
  for (size_t r = 0; r < side; r += LANES) {
    for (size_t c = 0; c < side; c += LANES) {
      vector square[LANES];
      for (size_t i = 0; i < LANES; i++) square[i] = load(x + (ptrdiff_t)(r + i) * ldx + (ptrdiff_t)c);
      K(turn)(square);
      for (size_t i = 0; i < LANES; i++) store(y + (ptrdiff_t)(c + i) * ldy + (ptrdiff_t)r, square[i]);
    }
  }
}

static void K(transpose_edge)(const scalar *x, ptrdiff_t ldx, scalar *y, ptrdiff_t ldy, size_t rows, size_t columns) {
  const size_t block = 128;  // rows whose lines stay in the cache while their columns are taken
  for (size_t first = 0; first < rows; first += block) {
    const size_t end = rows - first < block ? rows : first + block;
    for (size_t c = 0; c < columns; c++) {
      scalar *to = y + (ptrdiff_t)c * ldy;
      for (size_t r = first; r < end; r++) to[r] = x[(ptrdiff_t)r * ldx + (ptrdiff_t)c];
    }
  }
}

static void K(transpose)(const void *x, ptrdiff_t ldx, void *y, ptrdiff_t ldy, size_t rows, size_t columns) {
  const scalar *from = x;
  scalar *to = y;
  const size_t side = 64 / sizeof(scalar), strip = 4 * side;
  const size_t whole_rows = rows - rows % side, whole_columns = columns - columns % side;
  for (size_t left = 0; left < whole_columns; left += strip) {
    const size_t right = whole_columns - left < strip ? whole_columns : left + strip;
    for (size_t r = 0; r < whole_rows; r += side) {
      for (size_t c = left; c < right; c += side) {
        K(transpose_square)(from + (ptrdiff_t)r * ldx + (ptrdiff_t)c, ldx, to + (ptrdiff_t)c * ldy + (ptrdiff_t)r, ldy);
      }
    }
  }
  K(transpose_edge)(from + whole_columns, ldx, to + (ptrdiff_t)whole_columns * ldy, ldy, whole_rows, columns - whole_columns);
  K(transpose_edge)(from + (ptrdiff_t)whole_rows * ldx, ldx, to + whole_rows, ldy, rows - whole_rows, columns);
}

static void K(convert_bytes)(const uint8_t *x, double scale, double offset, void *y, size_t count) {
  scalar *to = y;
  typedef uint8_t bytes __attribute__((vector_size(STEPPE_VECTOR_BYTES / sizeof(scalar))));
  const vector a = splat((scalar)scale), b = splat((scalar)offset);
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    bytes v;
    __builtin_memcpy(&v, x + i, sizeof v);
    store(to + i, a * __builtin_convertvector(v, vector) + b);
  }
  if (i == count) return;
  bytes v = {0};
  for (size_t j = 0; j < count - i; j++) v[j] = x[i + j];
  K(store_tail)(to + i, a * __builtin_convertvector(v, vector) + b, count - i);
}
