// Numbers and rows of comma-separated values, read from text in memory.
#define _GNU_SOURCE
#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "steppe_kernels.h"

// ── numbers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

static const double exact_powers[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                      1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const uint64_t integer_powers[] = {1ull,
                                          10ull,
                                          100ull,
                                          1000ull,
                                          10000ull,
                                          100000ull,
                                          1000000ull,
                                          10000000ull,
                                          100000000ull,
                                          1000000000ull,
                                          10000000000ull,
                                          100000000000ull,
                                          1000000000000ull,
                                          10000000000000ull,
                                          100000000000000ull,
                                          1000000000000000ull,
                                          10000000000000000ull,
                                          100000000000000000ull,
                                          1000000000000000000ull,
                                          10000000000000000000ull};

static inline bool is_digit(uint8_t c) { return (uint8_t)(c - '0') <= 9; }

// Eight bytes at `p` as one number, where all are digits (Lemire 2018).
static inline bool eight_digits(const uint8_t *p, uint64_t *value) {
  uint64_t v;
  memcpy(&v, p, 8);
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
  v = __builtin_bswap64(v);
#endif
  if (((v & 0xF0F0F0F0F0F0F0F0) | (((v + 0x0606060606060606) & 0xF0F0F0F0F0F0F0F0) >> 4)) != 0x3333333333333333) return false;
  v = (v & 0x0F0F0F0F0F0F0F0F) * 2561 >> 8;
  v = (v & 0x00FF00FF00FF00FF) * 6553601 >> 16;
  *value = (v & 0x0000FFFF0000FFFF) * 42949672960001 >> 32;
  return true;
}

// The quotient of high·2⁶⁴ + low by a number greater than `high`, and whether anything is left.
static inline uint64_t divide(uint64_t high, uint64_t low, uint64_t by, bool *rest) {
#if defined(__x86_64__)
  uint64_t quotient, remainder;
  __asm__("divq %4" : "=a"(quotient), "=d"(remainder) : "a"(low), "d"(high), "r"(by) : "cc");
  *rest = remainder != 0;
  return quotient;
#else
  const unsigned __int128 n = (unsigned __int128)high << 64 | low;
  *rest = n % by != 0;
  return (uint64_t)(n / by);
#endif
}

// digits / 10^places with digits ≠ 0 and 0 < places ≤ 19, rounded once: a quotient of integers with 63 bits or more, in whose last bit
// stands whether anything is left.
static inline double decimal_fraction(uint64_t digits, unsigned places) {
  const uint64_t power = integer_powers[places];
  const int up = __builtin_clzll(digits), of = __builtin_clzll(power);
  uint64_t high = digits << up, low = 0;
  const uint64_t by = power << of;
  int exponent = of - up - 64;
  if (high >= by) {
    low = high << 63;
    high >>= 1;
    exponent++;
  }
  bool rest;
  uint64_t quotient = divide(high, low, by, &rest);
  quotient |= rest;
  // The conversion rounds to nearest; the power of two is exact.
  const uint64_t bits = (uint64_t)(1023 + exponent) << 52;
  double scale;
  memcpy(&scale, &bits, sizeof scale);
  return (double)quotient * scale;
}

// The C library's conversion of decimal digits, whatever language the host has chosen.
static double convert(const char *text) {
  static locale_t plain;
  locale_t locale = __atomic_load_n(&plain, __ATOMIC_ACQUIRE);
  if (!locale) {
    locale_t expected = (locale_t)0;
    locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (!__atomic_compare_exchange_n(&plain, &expected, locale, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
      freelocale(locale);
      locale = expected;
    }
  }
  return strtod_l(text, NULL, locale);
}

static double by_strtod(const uint8_t *p, const uint8_t *end) {
  char text[128];
  const size_t length = (size_t)(end - p);
  if (length < sizeof text) {
    memcpy(text, p, length);
    text[length] = 0;
    return convert(text);
  }
  char *copy = malloc(length + 1);
  if (!copy) return NAN;
  memcpy(copy, p, length);
  copy[length] = 0;
  const double value = convert(copy);
  free(copy);
  return value;
}

const uint8_t *steppe_parse_number(const uint8_t *p, const uint8_t *end, double *value) {
  const uint8_t *const begin = p;
  const bool negative = p < end && *p == '-';
  if (p < end && (*p == '-' || *p == '+')) p++;
  uint64_t digits = 0, eight;
  const uint8_t *const first = p;
  while (end - p >= 8 && eight_digits(p, &eight)) {
    digits = digits * 100000000 + eight;
    p += 8;
  }
  for (; p < end && is_digit(*p); p++) digits = digits * 10 + (*p - '0');
  ptrdiff_t count = p - first, places = 0;
  if (p < end && *p == '.') {
    const uint8_t *const point = ++p;
    while (end - p >= 8 && eight_digits(p, &eight)) {
      digits = digits * 100000000 + eight;
      p += 8;
    }
    for (; p < end && is_digit(*p); p++) digits = digits * 10 + (*p - '0');
    places = p - point;
    count += places;
  }
  if (count == 0) return begin;
  ptrdiff_t exponent = -places;
  if (p < end && (*p == 'e' || *p == 'E')) {
    const uint8_t *q = p + 1;
    const bool down = q < end && *q == '-';
    if (q < end && (*q == '-' || *q == '+')) q++;
    if (q < end && is_digit(*q)) {
      ptrdiff_t power = 0;
      for (; q < end && is_digit(*q); q++) power = power < 100000 ? power * 10 + (*q - '0') : power;
      exponent += down ? -power : power;
      p = q;
    }
  }
  // Nineteen digits always fit; leading zeros are none.
  if (count > 19) {
    const uint8_t *q = first;
    for (; q < p && (*q == '0' || *q == '.'); q++) count -= *q == '0';
  }
  double result;
  if (count > 19) {
    result = NAN;
  } else if (digits == 0) {
    result = 0;
  } else if (digits <= 1ull << 53 && exponent >= -22 && exponent <= 22) {
    // Both are exact, so that one rounding is the only one (Clinger 1990).
    result = exponent < 0 ? (double)digits / exact_powers[-exponent] : (double)digits * exact_powers[exponent];
  } else if (exponent == 0) {
    result = (double)digits;
  } else if (exponent < 0 && exponent >= -19) {
    result = decimal_fraction(digits, (unsigned)-exponent);
  } else {
    result = NAN;
  }
  if (result != result) {
    *value = by_strtod(begin, p);
  } else {
    *value = negative ? -result : result;
  }
  return p;
}

// ── fields ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

static inline bool is_space(uint8_t c) { return c == ' ' || c == '\t'; }

// Where a quoted field ends, which begins after its quote at `p`: its last quote, or NULL.
static const uint8_t *closing_quote(const uint8_t *p, const uint8_t *end) {
  for (;;) {
    const uint8_t *quote = memchr(p, '"', (size_t)(end - p));
    if (!quote) return NULL;
    if (quote + 1 == end || quote[1] != '"') return quote;
    p = quote + 2;
  }
}

const uint8_t *steppe_csv_field_end(const uint8_t *p, const uint8_t *end, uint8_t separator) {
  if (p < end && *p == '"') {
    const uint8_t *quote = closing_quote(p + 1, end);
    p = quote ? quote + 1 : end;
  }
  while (p < end && *p != separator && *p != '\n' && !(*p == '\r' && (p + 1 == end || p[1] == '\n'))) p++;
  return p;
}

static bool is_word(const uint8_t *p, const uint8_t *end, const char *word) {
  const size_t length = strlen(word);
  if ((size_t)(end - p) != length) return false;
  for (size_t i = 0; i < length; i++) {
    const uint8_t c = p[i] >= 'A' && p[i] <= 'Z' ? (uint8_t)(p[i] | 0x20) : p[i];
    if (c != (uint8_t)word[i]) return false;
  }
  return true;
}

static bool is_missing(const uint8_t *p, const uint8_t *end) {
  if (p < end && (*p == '-' || *p == '+') && is_word(p + 1, end, "nan")) return true;
  return p == end || is_word(p, end, "na") || is_word(p, end, "nan") || is_word(p, end, "n/a") || is_word(p, end, "null");
}

static bool is_infinite(const uint8_t *p, const uint8_t *end) {
  if (p < end && (*p == '-' || *p == '+')) p++;
  return is_word(p, end, "inf") || is_word(p, end, "infinity");
}

// The number of the field `p` ..< `end`.
static steppe_csv_problem number_of(const uint8_t *p, const uint8_t *end, double *value) {
  if (p < end && *p == '"') {
    if (closing_quote(p + 1, end) != end - 1) return STEPPE_CSV_WRONG_QUOTE;
    p++;
    end--;
  }
  while (p < end && is_space(*p)) p++;
  while (p < end && is_space(end[-1])) end--;
  if (is_missing(p, end)) return STEPPE_CSV_MISSING_NUMBER;
  if (is_infinite(p, end)) return STEPPE_CSV_NOT_FINITE;
  if (steppe_parse_number(p, end, value) != end || p == end) return STEPPE_CSV_NOT_A_NUMBER;
  return isfinite(*value) ? STEPPE_CSV_NONE : STEPPE_CSV_NOT_FINITE;
}

// Where a row is read to, and what is wrong with it.
typedef struct csv_row {
  const uint8_t *end;
  steppe_csv_problem problem;
  size_t column;
  const uint8_t *at;
  size_t missing;
} csv_row;

static inline bool is_line_end(const uint8_t *p, const uint8_t *end) {
  return *p == '\n' || (*p == '\r' && (p + 1 == end || p[1] == '\n'));
}

static csv_row problem_at(const uint8_t *p, steppe_csv_problem problem, size_t column, const uint8_t *at) {
  return (csv_row){.end = p, .problem = problem, .column = column, .at = at};
}

// Reads one row, up to its line's end.
static inline csv_row read_row(const steppe_csv_format *format, const uint8_t *begin, const uint8_t *p, const uint8_t *end,
                               double *numbers, uint64_t *texts) {
  const uint8_t separator = format->separator;
  const uint8_t *const line = p;
  csv_row row = {0};
  size_t column = 0;
  for (;; column++) {
    if (column == format->columns) {
      for (;; column++) {
        p = steppe_csv_field_end(p, end, separator);
        if (p == end || *p != separator) break;
        p++;
      }
      return problem_at(p, STEPPE_CSV_MANY_FIELDS, column + 1, line);
    }
    const uint8_t *const field = p;
    if (format->kinds[column] == STEPPE_CSV_NUMBER) {
      p = steppe_parse_number(p, end, numbers);
      // A number and nothing else is the common case.
      const bool ends = p > field && (p == end || *p == separator || is_line_end(p, end)) && isfinite(*numbers);
      if (!ends) {
        p = steppe_csv_field_end(field, end, separator);
        const steppe_csv_problem problem = number_of(field, p, numbers);
        if (problem == STEPPE_CSV_MISSING_NUMBER && format->missing != STEPPE_CSV_REFUSE_MISSING) {
          *numbers = NAN;
          row.missing++;
        } else if (problem != STEPPE_CSV_NONE) {
          return problem_at(p, problem, column, field);
        }
      }
      numbers++;
    } else {
      p = steppe_csv_field_end(p, end, separator);
      if (*field == '"' && field < p && closing_quote(field + 1, p) != p - 1) {
        return problem_at(p, STEPPE_CSV_WRONG_QUOTE, column, field);
      }
      if (format->kinds[column] == STEPPE_CSV_TEXT) {
        *texts++ = (uint64_t)(field - begin);
        *texts++ = (uint64_t)(p - field);
      }
    }
    if (p == end || *p != separator) break;
    p++;
  }
  if (column + 1 < format->columns) return problem_at(p, STEPPE_CSV_FEW_FIELDS, column + 1, line);
  row.end = p;
  return row;
}

void steppe_csv_parse(const steppe_csv_format *format, const uint8_t *begin, const uint8_t *limit, const uint8_t *end,
                      bool is_whole, double *numbers, uint64_t *texts, steppe_csv_result *result) {
  size_t numeric = 0, textual = 0;
  for (size_t column = 0; column < format->columns; column++) {
    numeric += format->kinds[column] == STEPPE_CSV_NUMBER;
    textual += format->kinds[column] == STEPPE_CSV_TEXT;
  }
  *result = (steppe_csv_result){0};
  const uint8_t *p = begin;
  while (p < limit) {
    if (is_line_end(p, end)) {
      p += *p == '\r' && p + 1 < end ? 2 : 1;
      continue;
    }
    csv_row row = read_row(format, begin, p, end, numbers, texts);
    // What goes on behind the end is not known yet.
    if (row.end == end && !is_whole) row = problem_at(p, STEPPE_CSV_LONG_ROW, 0, p);
    if (row.problem != STEPPE_CSV_NONE) {
      result->problem = row.problem;
      result->column = row.column;
      result->at = row.at;
      break;
    }
    p = row.end;
    if (p < end && *p == '\r') p++;
    if (p < end) p++;
    result->missing += row.missing;
    if (row.missing > 0 && format->missing == STEPPE_CSV_DROP_MISSING) {
      result->dropped++;
    } else {
      result->rows++;
      numbers += numeric;
      if (textual > 0) texts += 2 * textual;
    }
  }
  result->next = p;
}
