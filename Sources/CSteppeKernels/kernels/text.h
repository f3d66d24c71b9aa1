// Comma-separated values: where fields end, and the numbers of plain decimal fields.
//
// Vectors here have 64 bytes whatever the set; the compiler cuts them into those that the set has. No branch depends on what a field
// holds, so that nothing is mispredicted where lengths and signs change from field to field. The digits of a field are added by eights
// (Lemire 2018).

// Fields that a vector has two bytes for, and those of a batch.
#define FIELDS ((size_t)32)
#define BATCH (8 * FIELDS)

typedef uint8_t K(text_field) __attribute__((vector_size(16), aligned(1), may_alias));
typedef uint8_t K(text_bytes) __attribute__((vector_size(64)));
typedef uint8_t K(unaligned_text) __attribute__((vector_size(64), aligned(1), may_alias));
typedef uint16_t K(text_words) __attribute__((vector_size(64), aligned(2), may_alias));
typedef uint32_t K(text_fours) __attribute__((vector_size(64)));
typedef uint64_t K(text_eights) __attribute__((vector_size(64)));
typedef int16_t K(text_flags) __attribute__((vector_size(16), aligned(2), may_alias));
typedef int64_t K(text_masks) __attribute__((vector_size(64)));
typedef double K(text_doubles) __attribute__((vector_size(64)));
typedef double K(unaligned_text_doubles) __attribute__((vector_size(64), aligned(8), may_alias));
typedef bool K(text_lanes) __attribute__((ext_vector_type(64)));

// A bit for each byte of a comparison.
#define TEXT_MASK(mask, comparison)                                                       \
  do {                                                                                    \
    const K(text_lanes) lanes_ = __builtin_convertvector(comparison, K(text_lanes));      \
    __builtin_memcpy(&(mask), &lanes_, sizeof(uint64_t));                                 \
  } while (0)
// The comparison of such bits.
#define TEXT_BYTES(bits) (-__builtin_convertvector(*(const K(text_lanes) *)(bits), K(text_bytes)))

#define WORDS(p) (*(K(text_words) *)(p))

static size_t K(find_marks)(const uint8_t *text, size_t length, uint8_t separator, uint16_t *places) {
  size_t count = 0;
  for (size_t start = 0; start < length; start += 64) {
    uint64_t mask;
    if (length - start >= 64) {
      const K(text_bytes) x = *(const K(unaligned_text) *)(text + start);
      TEXT_MASK(mask, (x == separator) | (x == '\n'));
    } else {
      K(text_bytes) x = {0};
      __builtin_memcpy(&x, text + start, length - start);
      TEXT_MASK(mask, (x == separator) | (x == '\n'));
      mask &= ((uint64_t)1 << (length - start)) - 1;
    }
    uint16_t *to = places + count;
    count += (size_t)__builtin_popcountll(mask);
    // Few blocks have more than eight, so that the loop's end is seldom mispredicted. Beyond the last there is room.
    for (; mask; to += 8) {
      UNROLL for (size_t i = 0; i < 8; i++) {
        to[i] = (uint16_t)(start + (size_t)__builtin_ctzll(mask | (uint64_t)1 << 63));
        mask &= mask - 1;
      }
    }
  }
  // For what reads a batch at a time.
  for (size_t i = 0; count > 0 && i < FIELDS; i++) places[count + i] = places[count - 1];
  return count;
}

static void K(parse_decimals)(const uint8_t *text, const uint16_t *ends, size_t count, double *values) {
  static const double powers[16] = {1e15, 1e14, 1e13, 1e12, 1e11, 1e10, 1e9, 1e8, 1e7, 1e6, 1e5, 1e4, 1e3, 1e2, 1e1, 1e0};
  // Each step takes a whole batch: what it stores narrow the next loads wide, which must be in the cache by then.
  K(text_bytes) digits[BATCH / 4];
  _Alignas(64) uint64_t others[BATCH / 4], points[BATCH / 4], minuses[BATCH / 4];
  _Alignas(64) uint16_t stay[BATCH], go[BATCH], place[BATCH], negative[BATCH], wrong[BATCH];
  for (size_t start = 0; start < count; start += BATCH, ends += BATCH, values += BATCH) {
    const size_t some = count - start < BATCH ? (count - start + FIELDS - 1) / FIELDS * FIELDS : BATCH;
    // The bytes before each field's end, and of these a bit for each that is no digit, a point, a minus: the lowest for the first.
    for (size_t i = 0; i < some / 4; i++) {
      const uint8_t *const last = text - 16;
#define FIELD(k) (*(const K(text_field) *)(last + ends[4 * i + k]))
#define PAIR(a, b) __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, \
                                           26, 27, 28, 29, 30, 31)
      const K(text_bytes) x = __builtin_shufflevector(
        PAIR(FIELD(0), FIELD(1)), PAIR(FIELD(2), FIELD(3)), 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22,
        23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55,
        56, 57, 58, 59, 60, 61, 62, 63);
#undef FIELD
#undef PAIR
      digits[i] = x - '0';
      TEXT_MASK(others[i], digits[i] > 9);
      TEXT_MASK(points[i], x == '.');
      TEXT_MASK(minuses[i], x == '-');
    }

    // Sixteen bits for each field.
    for (size_t i = 0; i < some; i += FIELDS) {
      const K(text_words) length = WORDS(ends + i) - WORDS(ends + i - 1) - 1;
      K(text_words) inside = ((K(text_words)){0} + 0xFFFF) << ((16 - length) & 15);
      const K(text_words) sign = WORDS((uint16_t *)minuses + i) & inside & -inside;
      inside ^= sign;
      const K(text_words) point = WORDS((uint16_t *)points + i) & inside;
      const K(text_words) is_plain =
        (K(text_words))(length - 1 <= 15) & (K(text_words))((WORDS((uint16_t *)others + i) & inside) == point) &
        (K(text_words))((point & (point - 1)) == 0) & (K(text_words))(point != inside);
      const K(text_words) behind = ~(point | (point - 1)) | (K(text_words))(point == 0);
      // The digits before the point go one byte on, to those behind it.
      WORDS(stay + i) = inside & behind;
      WORDS(go + i) = (inside & ~behind & ~point) << 1;
      WORDS(place + i) = point | 0x8000;
      WORDS(negative + i) = (K(text_words))(sign != 0);
      WORDS(wrong + i) = ~is_plain;
    }

    for (size_t i = 0; i < some; i += 8) {
      K(text_doubles) eights[2];
      UNROLL for (size_t half = 0; half < 2; half++) {
        const K(text_bytes) x = digits[i / 4 + half];
        const K(text_bytes) on = __builtin_shufflevector(
          x, x, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 32, 32, 33,
          34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 48, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62);
        const K(text_bytes) d = (x & TEXT_BYTES(stay + i + 4 * half)) | (on & TEXT_BYTES(go + i + 4 * half));
        // Two digits, four, eight at a time: the first is the lowest.
        const K(text_words) two = (K(text_words))d * 2561 >> 8;
        const K(text_fours) four = (K(text_fours))two * 6553601 >> 16;
        const K(text_eights) both = (K(text_eights))four;
        const K(text_eights) eight = (both & 0xFFFFFFFF) * 10000 + (both >> 32);
        // As the fraction of 2⁵² it is a double without conversion.
        eights[half] = (K(text_doubles))(eight | 0x4330000000000000) - 0x1p52;
      }
      const K(text_doubles) high = __builtin_shufflevector(eights[0], eights[1], 0, 2, 4, 6, 8, 10, 12, 14);
      const K(text_doubles) low = __builtin_shufflevector(eights[0], eights[1], 1, 3, 5, 7, 9, 11, 13, 15);
      K(text_doubles) power;
      UNROLL for (size_t k = 0; k < 8; k++) power[k] = powers[__builtin_ctz(place[i + k])];
      // Behind a point there are fifteen digits at the most, and sixteen without: only one of the steps rounds (Clinger 1990).
      const K(text_masks) value = (K(text_masks))((high * 1e8 + low) / power);
      const K(text_masks) minus = __builtin_convertvector(*(const K(text_flags) *)(negative + i), K(text_masks));
      const K(text_masks) nan = __builtin_convertvector(*(const K(text_flags) *)(wrong + i), K(text_masks));
      *(K(unaligned_text_doubles) *)(values + i) = (K(text_doubles))(value | (minus & INT64_MIN) | nan);
    }
  }
}
#undef TEXT_MASK
#undef TEXT_BYTES
#undef FIELDS
#undef BATCH
#undef WORDS
