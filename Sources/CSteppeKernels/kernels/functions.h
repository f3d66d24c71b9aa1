// Elementary functions on vectors, and the ends of ranges that don't fill one.
//
// The polynomials are near-minimax fits, interpolated at Chebyshev nodes in 50 digits and rounded; the reductions are Cody and
// Waite's, with constants short enough to be exact with and without fused multiply-add. Every lane is computed alike, so a value
// doesn't depend on where in a range it stands.
//
// Errors against long double, in units in the last place, float and double alike: exp 1.1, log 0.9, sigmoid 2.3, tanh 2.5,
// silu 3.2, gelu 5 (all where the result is normal). gelu_tanh's negative tail inherits the rounding of its argument.

// Those of the table before.
#undef STEPPE_MANTISSA
#undef STEPPE_BIAS
#undef STEPPE_C
#undef STEPPE_ROUNDER
#undef STEPPE_LN2
#undef STEPPE_LN2_REST
#undef STEPPE_PHI_CENTER
#undef STEPPE_PHI_LIMIT

#define uvector K(uvector)
#if STEPPE_DOUBLE
typedef uint64_t uvector __attribute__((vector_size(STEPPE_VECTOR_BYTES)));
#define STEPPE_MANTISSA 52
#define STEPPE_BIAS 1023
#define STEPPE_C(x) x
#else
typedef uint32_t uvector __attribute__((vector_size(STEPPE_VECTOR_BYTES)));
#define STEPPE_MANTISSA 23
#define STEPPE_BIAS 127
#define STEPPE_C(x) x##f
#endif

// ── ends of ranges ────────────────────────────────────────────────────────────────────────────────────────────────────────────

static const integer K(first_masks)[2 * STEPPE_VECTOR_BYTES / sizeof(scalar)] = {
    -1, -1,
#if STEPPE_VECTOR_BYTES >= 32 || !STEPPE_DOUBLE
    -1, -1,
#endif
#if STEPPE_VECTOR_BYTES >= 64 || (STEPPE_VECTOR_BYTES >= 32 && !STEPPE_DOUBLE)
    -1, -1, -1, -1,
#endif
#if STEPPE_VECTOR_BYTES >= 64 && !STEPPE_DOUBLE
    -1, -1, -1, -1, -1, -1, -1, -1,
#endif
};

// All ones in the first `count` lanes.
INLINE ivector K(first_lanes)(size_t count) {
  ivector mask;
  __builtin_memcpy(&mask, K(first_masks) + (LANES - count), sizeof mask);
  return mask;
}

// AVX-512 masks lanes by bits, at no cost.
#ifdef STEPPE_BIT_MASKS
#undef STEPPE_MASKED
#if STEPPE_DOUBLE
typedef unsigned char K(bits);
#define STEPPE_MASKED(access) __builtin_ia32_##access##upd512_mask
#else
typedef unsigned short K(bits);
#define STEPPE_MASKED(access) __builtin_ia32_##access##ups512_mask
#endif
INLINE K(bits) K(first_bits)(size_t count) { return (K(bits))((1u << count) - 1); }
#endif

// The first `count` lanes, 1 ..< LANES, the rest `fill`: load_first without a call to memcpy.
INLINE vector K(load_tail)(const scalar *p, size_t count, scalar fill) {
#if defined(STEPPE_BIT_MASKS)
  return STEPPE_MASKED(load)((const void *)p, splat(fill), K(first_bits)(count));
#elif defined(__x86_64__) && STEPPE_VECTOR_BYTES >= 32
  const ivector mask = K(first_lanes)(count);
  enum { parts = STEPPE_VECTOR_BYTES / 32 };
  vector v;
#if STEPPE_DOUBLE
  typedef double part __attribute__((vector_size(32)));
  typedef long long mask_part __attribute__((vector_size(32)));
#else
  typedef float part __attribute__((vector_size(32)));
  typedef int mask_part __attribute__((vector_size(32)));
#endif
  part lanes[parts];
  mask_part masks[parts];
  __builtin_memcpy(masks, &mask, sizeof masks);
  for (int i = 0; i < parts; i++) {
#if STEPPE_DOUBLE
    lanes[i] = __builtin_ia32_maskloadpd256((const part *)(const void *)(p + 4 * i), masks[i]);
#else
    lanes[i] = __builtin_ia32_maskloadps256((const part *)(const void *)(p + 8 * i), masks[i]);
#endif
  }
  __builtin_memcpy(&v, lanes, sizeof v);
  return choose(mask, v, splat(fill));
#else
  vector v = splat(fill);
  for (size_t i = 0; i + 1 < LANES; i++) {
    if (i < count) v[i] = p[i];
  }
  return v;
#endif
}

// Writes the first `count` lanes, 1 ..< LANES: by a mask or by halves.
INLINE void K(store_tail)(scalar *p, vector v, size_t count) {
#if defined(STEPPE_BIT_MASKS)
  STEPPE_MASKED(store)((void *)p, v, K(first_bits)(count));
#else
#define STEPPE_HALVE(bytes)                                                                                             \
  typedef scalar K(half##bytes) __attribute__((vector_size(bytes)));                                                    \
  K(half##bytes) halves##bytes[2];                                                                                      \
  __builtin_memcpy(halves##bytes, &STEPPE_WHOLE, sizeof halves##bytes);                                                 \
  K(half##bytes) rest##bytes = halves##bytes[0];                                                                        \
  if (count & bytes / sizeof(scalar)) {                                                                                 \
    __builtin_memcpy(p, halves##bytes, bytes);                                                                          \
    p += bytes / sizeof(scalar);                                                                                        \
    rest##bytes = halves##bytes[1];                                                                                     \
  }
#define STEPPE_WHOLE v
#if STEPPE_VECTOR_BYTES >= 64
  STEPPE_HALVE(32)
#undef STEPPE_WHOLE
#define STEPPE_WHOLE rest32
#endif
#if STEPPE_VECTOR_BYTES >= 32
  STEPPE_HALVE(16)
#undef STEPPE_WHOLE
#define STEPPE_WHOLE rest16
#endif
#if STEPPE_DOUBLE
  if (count & 1) *p = STEPPE_WHOLE[0];
#else
  STEPPE_HALVE(8)
  if (count & 1) *p = rest8[0];
#endif
#undef STEPPE_WHOLE
#undef STEPPE_HALVE
#endif
}

// The lanes' sum in double, added by halves.
INLINE double K(sum_lanes)(const wide *v) {
  enum { lanes = sizeof(wide) / sizeof(double) };
  double a[lanes];
  __builtin_memcpy(a, v, sizeof a);
  for (int half = lanes / 2; half > 0; half /= 2) {
    for (int i = 0; i < half; i++) a[i] += a[i + half];
  }
  return a[0];
}

// The greatest (or least) lane, by halves; for lanes without NaN.
INLINE scalar K(extreme_lane)(const bool greatest, vector v) {
#define STEPPE_HALVE(bytes)                                                                                             \
  typedef scalar K(half##bytes) __attribute__((vector_size(bytes)));                                                    \
  typedef integer K(mask##bytes) __attribute__((vector_size(bytes)));                                                   \
  K(half##bytes) halves##bytes[2];                                                                                      \
  __builtin_memcpy(halves##bytes, &STEPPE_WHOLE, sizeof halves##bytes);                                                 \
  const K(half##bytes) a##bytes = halves##bytes[0], b##bytes = halves##bytes[1];                                        \
  const K(mask##bytes) mask##bytes = greatest ? a##bytes > b##bytes : a##bytes < b##bytes;                              \
  const K(half##bytes) rest##bytes =                                                                                    \
      (K(half##bytes))(((K(mask##bytes))a##bytes & mask##bytes) | ((K(mask##bytes))b##bytes & ~mask##bytes));
#define STEPPE_WHOLE v
#if STEPPE_VECTOR_BYTES >= 64
  STEPPE_HALVE(32)
#undef STEPPE_WHOLE
#define STEPPE_WHOLE rest32
#endif
#if STEPPE_VECTOR_BYTES >= 32
  STEPPE_HALVE(16)
#undef STEPPE_WHOLE
#define STEPPE_WHOLE rest16
#endif
#if !STEPPE_DOUBLE
  STEPPE_HALVE(8)
#undef STEPPE_WHOLE
#define STEPPE_WHOLE rest8
#endif
  const scalar first = STEPPE_WHOLE[0], second = STEPPE_WHOLE[1];
#undef STEPPE_WHOLE
#undef STEPPE_HALVE
  return (greatest ? first > second : first < second) ? first : second;
}

INLINE bool K(any_lane)(ivector mask) {
  integer any = 0;
  for (size_t i = 0; i < LANES; i++) any |= mask[i];
  return any != 0;
}

// ── elementary functions ──────────────────────────────────────────────────────────────────────────────────────────────────────

INLINE vector K(absolute)(vector x) { return (vector)((uvector)x & (~(uvector){0} >> 1)); }
INLINE vector K(with_sign_of)(vector magnitude, vector sign) {
  const uvector rest = ~(uvector){0} >> 1;
  return (vector)(((uvector)magnitude & rest) | ((uvector)sign & ~rest));
}
INLINE vector K(at_least)(vector x, scalar low) { return choose(x < low, splat(low), x); }
INLINE vector K(at_most)(vector x, scalar high) { return choose(x > high, splat(high), x); }

// c[0] + c[1]x + … by Horner's rule.
INLINE vector K(polynomial)(vector x, const scalar *c, const int terms) {
  vector sum = splat(c[terms - 1]);
#pragma clang loop unroll(full)
  for (int i = terms - 2; i >= 0; i--) sum = sum * x + c[i];
  return sum;
}

#if STEPPE_DOUBLE
#define STEPPE_ROUNDER 0x1.8p52                    // adding it rounds to an integer, left in the low bits
#define STEPPE_LN2 0.6931471805601177              // 40 bits, so that its product with an exponent is exact …
#define STEPPE_LN2_REST (-1.7239444525614835e-13)  // … and the rest
// (eʳ − 1 − r)/r² for |r| ≤ ln 2 / 2
static const scalar K(exp_terms)[] = {
    0.50000000000000011,    0.16666666666666669,    0.041666666666620639,   0.0083333333333297926,  0.0013888888918939168,
    0.00019841269864380513, 2.4801518641395993e-05, 2.7557266418612302e-06, 2.7621338669142925e-07, 2.5101346928350339e-08};
// (2 artanh(s)/s − 2)/s² in s², for s = (m − 1)/(m + 1) and √½ ≤ m ≤ √2
static const scalar K(log_terms)[] = {0.66666666666666696, 0.39999999999899505, 0.28571428625975487, 0.22222211134795081,
                                      0.18182889125261723, 0.15331721600556042, 0.14616449685043406};
// Φ(−a)·exp(a²/2)·(a + 4) in (a − 4)/(a + 4), for a ≤ 39
#define STEPPE_PHI_CENTER 4.0
#define STEPPE_PHI_LIMIT 39.5  // beyond it Φ(−a) is 0
static const scalar K(phi_terms)[] = {
    0.75528513041575152,     -0.60789664197189208,    0.38713740074221453,     -0.18652185795965726,    0.060396574890936562,
    -0.0075401889667267913,  -0.0034796923673935951,  0.0016308184575887011,   0.00013334431240964574,  -0.00023109493516945901,
    -1.9082584797734333e-06, 3.5144686053003464e-05,  7.1666632452210315e-07,  -5.9201733230161025e-06, -6.2969656058158235e-07,
    1.0215540371961016e-06,  2.7180452962592834e-07,  -1.5496491742247449e-07, -8.5408418156851246e-08, 1.3280797787310328e-08,
    1.9619610861355561e-08,  1.9182770203733402e-09,  -2.5220994578780736e-09, -7.2624198104095789e-10};
#else
#define STEPPE_ROUNDER 0x1.8p23f
#define STEPPE_LN2 0.693145751953125f
#define STEPPE_LN2_REST 1.42860677e-06f
static const scalar K(exp_terms)[] = {0.5f, 0.166665733f, 0.0416665487f, 0.00836377405f, 0.00139269268f};
static const scalar K(log_terms)[] = {0.666666687f, 0.400001228f, 0.285508215f, 0.233304679f};
// Φ(−a)·exp(a²/2)·(a + 3) in (a − 3)/(a + 3), for a ≤ 14.5
#define STEPPE_PHI_CENTER 3.0f
#define STEPPE_PHI_LIMIT 15.0f
static const scalar K(phi_terms)[] = {
    0.729083717f,   -0.509332001f,   0.230017677f,     -0.0472627468f,  -0.0104622934f, 0.00696981326f,
    0.00102413574f, -0.00103422208f, -0.000244582654f, 0.000133125912f, 5.53559657e-05f};
#endif
// (Φ(x) − ½)/x in x², for |x| ≤ 1
#if STEPPE_DOUBLE
static const scalar K(phi_center_terms)[] = {
    0.39894228040143265,     -0.066490380066903859,   0.0099735570099833831, -0.0011873282148079404,  0.00011543468323083616,
    -9.444639808676774e-06,  6.659316904081042e-07,   -4.1173089319651837e-08, 2.2270765391721188e-09, -9.0261099045655835e-11};
#else
static const scalar K(phi_center_terms)[] = {0.398942292f,    -0.0664903596f,  0.00997332856f,
                                             -0.00118634396f, 0.000113502298f, -7.66053836e-06f};
#endif
#define STEPPE_TERMS(table) ((int)(sizeof(table) / sizeof(scalar)))
#define STEPPE_LOG2E STEPPE_C(1.4426950408889634074)
#define STEPPE_SQRT_2_OVER_PI STEPPE_C(0.79788456080286535588)

// eʳ − 1 for |r| up to a little over ln 2 / 2.
INLINE vector K(exp_rest)(vector r) { return r * r * K(polynomial)(r, K(exp_terms), STEPPE_TERMS(K(exp_terms))) + r; }

// 2ⁿ·eʳ with n in the low bits of `rounded`. By two factors, so that the results below the normal numbers are rounded once.
INLINE vector K(exp_scaled)(vector r, vector rounded) {
  const uvector exponent = (uvector)rounded - ((uvector)splat(STEPPE_ROUNDER) - 2 * STEPPE_BIAS);
  const uvector half = exponent >> 1;
  return (K(exp_rest)(r) + 1) * (vector)(half << STEPPE_MANTISSA) * (vector)((exponent - half) << STEPPE_MANTISSA);
}

INLINE vector K(exp)(vector x) {
  // e to less than this is 0: computed as e⁰ and cleared, for an underflow would cost a hundred times the rest.
  const ivector some = ~(x < (STEPPE_DOUBLE ? -746 : -104));
  x = (vector)((ivector)x & some);
  x = K(at_most)(x, STEPPE_DOUBLE ? 710 : 89);  // e to this is infinity
  const vector rounded = x * STEPPE_LOG2E + STEPPE_ROUNDER;
  const vector n = rounded - STEPPE_ROUNDER;
  const vector y = K(exp_scaled)((x - n * STEPPE_LN2) - n * STEPPE_LN2_REST, rounded);
  return (vector)((ivector)y & some);
}

// eˣ − 1 for x ≤ 0.
INLINE vector K(expm1_negative)(vector x) {
  x = K(at_least)(x, -60);
  const vector rounded = x * STEPPE_LOG2E + STEPPE_ROUNDER;
  const vector n = rounded - STEPPE_ROUNDER;
  const vector rest = K(exp_rest)((x - n * STEPPE_LN2) - n * STEPPE_LN2_REST);
  const vector power = (vector)(((uvector)rounded - ((uvector)splat(STEPPE_ROUNDER) - STEPPE_BIAS)) << STEPPE_MANTISSA);
  return power * rest + (power - 1);
}

// ln x = n·ln 2 + ln m, with ln m = f − f²/2 + s·(f²/2 + R(s²)), f = m − 1: the form of fdlibm's, where s = f/(2 + f).
INLINE vector K(log)(vector x) {
  const vector least = splat(STEPPE_DOUBLE ? (scalar)0x1p-1022 : (scalar)0x1p-126);
  const ivector tiny = x < least;
  const scalar lift = STEPPE_DOUBLE ? (scalar)0x1p54 : (scalar)0x1p25;
  const uvector bits = (uvector)choose(tiny, x * lift, x);
  // The exponent of x/√½, so that m is in √½ … √2.
  const uvector one = (uvector)splat(1), root = (uvector)splat(STEPPE_C(0.70710678118654752440));
  const uvector exponent = (bits + (one - root)) >> STEPPE_MANTISSA;
  const scalar integers = STEPPE_DOUBLE ? (scalar)0x1p52 : (scalar)0x1p23;
  vector n = (vector)(exponent | (uvector)splat(integers)) - (integers + STEPPE_BIAS);
  n = choose(tiny, n - (STEPPE_DOUBLE ? 54 : 25), n);
  const vector f = (vector)(bits - ((exponent - STEPPE_BIAS) << STEPPE_MANTISSA)) - 1;
  const vector s = f / (f + 2), z = s * s, h = f * f * STEPPE_C(0.5);
  const vector rest = z * K(polynomial)(z, K(log_terms), STEPPE_TERMS(K(log_terms)));
  vector y = n * STEPPE_LN2 + (f - (h - (s * (h + rest) + n * STEPPE_LN2_REST)));
  const scalar infinity = (scalar)INFINITY;
  y = choose(x < infinity, y, x);  // infinity and NaN stay
  y = choose(x == 0, splat(-infinity), y);
  return choose(x < 0, splat((scalar)NAN), y);
}

INLINE vector K(sigmoid)(vector x) {
  const vector e = K(exp)(-K(absolute)(x));
  return choose(x < 0, e, splat(1)) / (e + 1);
}

INLINE vector K(tanh)(vector x) {
  const vector e = K(expm1_negative)(K(absolute)(x) * -2);
  return K(with_sign_of)(e / (e + 2), x);
}

// Φ(x), and exp(−x²/2) in `bell`. The square is taken in two parts, because the exponential turns its absolute error into a
// relative one.
INLINE vector K(normal)(vector x, vector *bell) {
  const vector a = K(at_most)(K(absolute)(x), STEPPE_PHI_LIMIT);
  const vector short_a = (vector)((uvector)a & (~(uvector){0} << (STEPPE_DOUBLE ? 27 : 12)));
  const vector high = short_a * short_a * STEPPE_C(-0.5), low = (a - short_a) * (a + short_a) * STEPPE_C(-0.5);
  const vector rounded = (high + low) * STEPPE_LOG2E + STEPPE_ROUNDER;
  const vector n = rounded - STEPPE_ROUNDER;
  *bell = K(exp_scaled)(((high - n * STEPPE_LN2) + low) - n * STEPPE_LN2_REST, rounded);
  const vector u = 1 / (a + STEPPE_PHI_CENTER);
  const vector tail = *bell * (u * K(polynomial)((a - STEPPE_PHI_CENTER) * u, K(phi_terms), STEPPE_TERMS(K(phi_terms))));
  const vector center = x * K(polynomial)(x * x, K(phi_center_terms), STEPPE_TERMS(K(phi_center_terms))) + STEPPE_C(0.5);
  return choose(a < 1, center, choose(x < 0, tail, 1 - tail));
}
