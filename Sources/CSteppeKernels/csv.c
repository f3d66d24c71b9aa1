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
// 5ⁿ as far as 64 bits hold it.
static const uint64_t five_powers[] = {
    1ull, 5ull, 25ull, 125ull, 625ull, 3125ull, 15625ull, 78125ull, 390625ull, 1953125ull, 9765625ull, 48828125ull, 244140625ull,
    1220703125ull, 6103515625ull, 30517578125ull, 152587890625ull, 762939453125ull, 3814697265625ull, 19073486328125ull,
    95367431640625ull, 476837158203125ull, 2384185791015625ull, 11920928955078125ull, 59604644775390625ull,
    298023223876953125ull, 1490116119384765625ull, 7450580596923828125ull};
enum { MOST_FIVES = sizeof five_powers / sizeof *five_powers - 1 };

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "digits are read with the first in the lowest byte");

static inline bool is_digit(uint8_t c) { return (uint8_t)(c - '0') <= 9; }

// Eight digits, the first in the lowest byte, as one number (Lemire 2018).
static inline uint64_t eight_of(uint64_t v) {
  v = v * 2561 >> 8;
  v = (v & 0x00FF00FF00FF00FF) * 6553601 >> 16;
  return (v & 0x0000FFFF0000FFFF) * 42949672960001 >> 32;
}

// Eight bytes at `p` as one number, where all are digits.
static inline bool eight_digits(const uint8_t *p, uint64_t *value) {
  uint64_t v;
  memcpy(&v, p, 8);
  if (((v & 0xF0F0F0F0F0F0F0F0) | (((v + 0x0606060606060606) & 0xF0F0F0F0F0F0F0F0) >> 4)) != 0x3333333333333333) return false;
  *value = eight_of(v & 0x0F0F0F0F0F0F0F0F);
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

// 2^exponent for exponents of normal numbers.
static inline double two_power(int exponent) {
  const uint64_t bits = (uint64_t)(1023 + exponent) << 52;
  double power;
  memcpy(&power, &bits, sizeof power);
  return power;
}

// digits · 10^exponent with digits ≠ 0 and |exponent| ≤ MOST_FIVES, rounded once: a quotient or a product of integers, of which 61 bits or
// more are kept, and in the last whether anything is left. The power of two is exact.
static inline double scaled(uint64_t digits, int exponent) {
  const int up = __builtin_clzll(digits);
  digits <<= up;
  if (exponent <= 0) {
    const uint64_t power = five_powers[-exponent];
    const int of = __builtin_clzll(power);
    bool rest;
    const uint64_t quotient = divide(digits >> 2, digits << 62, power << of, &rest);
    return (double)(int64_t)(quotient | rest) * two_power(exponent + of - up - 62);
  }
  const unsigned __int128 product = (unsigned __int128)digits * five_powers[exponent];
  const int high = __builtin_clzll((uint64_t)(product >> 64) | 1);
  const unsigned __int128 aligned = product << high;
  const uint64_t kept = (uint64_t)(aligned >> 65) | ((aligned << 63) != 0);
  return (double)(int64_t)kept * two_power(exponent + 65 - high - up);
}

// Puts the minus before a number that has none.
static inline double with_sign(double x, bool negative) {
  uint64_t bits;
  memcpy(&bits, &x, sizeof bits);
  bits |= (uint64_t)negative << 63;
  memcpy(&x, &bits, sizeof bits);
  return x;
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
  } else if (exponent >= -MOST_FIVES && exponent <= MOST_FIVES) {
    result = scaled(digits, (int)exponent);
  } else {
    result = NAN;
  }
  if (result != result) {
    *value = by_strtod(begin, p);
  } else {
    *value = with_sign(result, negative);
  }
  return p;
}

// Bytes of the longest field that `long_number` reads.
enum { LONGEST = 32 };

typedef uint8_t bytes __attribute__((vector_size(LONGEST)));
typedef uint8_t unaligned_bytes __attribute__((vector_size(LONGEST), aligned(1), may_alias));
typedef bool bytes_lanes __attribute__((ext_vector_type(LONGEST)));
#define BYTES(p) (*(const unaligned_bytes *)(p))

// The LONGEST bytes from lasts + n on are n ones behind zeros.
#define ONES 255, 255, 255, 255, 255, 255, 255, 255
static const uint8_t lasts[2 * LONGEST] = {[LONGEST] = ONES, ONES, ONES, ONES};
#undef ONES

// The field `p` ..< `end`, LONGEST + 5 bytes before whose end can be read, of a program that writes all of a double's digits: up to
// nineteen with a point among them, and zeros before, and maybe an exponent of two digits. False where it is anything else. No branch
// depends on where the point is.
static inline bool long_number(const uint8_t *p, const uint8_t *end, double *value) {
  int exponent = 0;
  if (end - p > 4 && (end[-4] | 0x20) == 'e' && is_digit(end[-2]) && is_digit(end[-1]) && (end[-3] == '-' || end[-3] == '+')) {
    exponent = (end[-2] - '0') * 10 + (end[-1] - '0');
    exponent = end[-3] == '-' ? -exponent : exponent;
    end -= 4;
  }
  const size_t sign = *p == '-', length = (size_t)(end - p) - sign;
  if (length < 2 || length > LONGEST) return false;
  const bytes last = BYTES(end - LONGEST) - '0', before = BYTES(end - LONGEST - 1) - '0';
  const bytes_lanes lanes = __builtin_convertvector(last > 9, bytes_lanes);
  uint32_t others;
  memcpy(&others, &lanes, sizeof others);
  // A bit for each byte that is no digit: for the point alone.
  others >>= LONGEST - length;
  if (others == 0 || (others & (others - 1)) != 0) return false;
  const size_t places = length - 1 - (size_t)__builtin_ctz(others);
  exponent -= (int)places;
  if (end[-1 - (ptrdiff_t)places] != '.' || exponent < -MOST_FIVES || exponent > MOST_FIVES) return false;
  // The digits before the point go one byte on, to those behind it.
  const bytes behind = BYTES(lasts + places);
  const bytes all = ((last & behind) | (before & ~behind)) & BYTES(lasts + length - 1);
  uint64_t eights[4];
  memcpy(eights, &all, sizeof eights);
  for (int i = 0; i < 4; i++) eights[i] = eight_of(eights[i]);
  if (eights[0] != 0 || eights[1] > 999) return false;
  const uint64_t digits = (eights[1] * 100000000 + eights[2]) * 100000000 + eights[3];
  *value = with_sign(digits == 0 ? 0 : scaled(digits, exponent), sign != 0);
  return true;
}
#undef BYTES

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
  if (p < end && steppe_parse_number(p, end, value) == end && isfinite(*value)) return STEPPE_CSV_NONE;
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

// ── marks ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

// Bytes whose fields are found and read at once, before it is known which of them are a row's numbers: then no field waits for the end
// of the one before. BEFORE and BEHIND are what the kernels want.
enum { WINDOW = 4096, BEFORE = 16, BEHIND = 32 };

// The separators and line feeds of a window, in quotes or not.
typedef struct csv_marks {
  const steppe_kernel_table *kernels;
  const uint8_t *begin, *window, *scanned, *end;
  // Which one is next, and which the last, counted from 1.
  size_t next, last;
  uint8_t separator;
  // Where they stand in the window; the first entry is for one right before it.
  uint16_t places[1 + WINDOW + BEHIND];
  // The number between each and the one before; NaN where there is none that is plain.
  double values[1 + WINDOW + BEHIND];
} csv_marks;

// Goes on to the next window that has marks.
static bool scan(csv_marks *marks) {
  // The field behind the last one begins the window.
  if (marks->last > 0) marks->scanned = marks->window + marks->places[marks->last] + 1;
  marks->last = 0;
  while (marks->last == 0) {
    if (marks->scanned == marks->end) return false;
    const size_t rest = (size_t)(marks->end - marks->scanned), length = rest < WINDOW ? rest : WINDOW;
    marks->window = marks->scanned;
    marks->scanned += length;
    marks->last = marks->kernels->find_marks(marks->window, length, marks->separator, marks->places + 1);
  }
  // What stands before the text is not to be read.
  size_t first = 1;
  while (marks->window - marks->begin < BEFORE && first <= marks->last && marks->places[first] < BEFORE) marks->values[first++] = NAN;
  marks->kernels->parse_decimals(marks->window, marks->places + first, marks->last + 1 - first, marks->values + first);
  marks->next = 1;
  return true;
}

// The first mark from `p` on, or the text's end; it is passed.
static inline const uint8_t *next_mark(csv_marks *marks, const uint8_t *p) {
  for (;;) {
    if (marks->next > marks->last && !scan(marks)) return marks->end;
    const uint8_t *const mark = marks->window + marks->places[marks->next++];
    if (mark >= p) return mark;
  }
}

// Copies the numbers of the fields from `*p` on that are plain, of the columns from `column` on, as far as the window goes. Returns how
// many they are, and leaves the last one's end in `*p`.
static inline size_t plain_numbers(const steppe_csv_format *format, csv_marks *marks, const uint8_t **p, size_t column,
                                   double *numbers) {
  // Those that a field has had in its quotes.
  while (marks->next <= marks->last && marks->window + marks->places[marks->next] < *p) marks->next++;
  if (marks->next > marks->last && !scan(marks)) return 0;
  const uint8_t *const window = marks->window;
  const uint16_t *const places = marks->places + marks->next;
  const double *const values = marks->values + marks->next;
  const steppe_csv_column *const kinds = format->kinds + column;
  // A field that began in the window before.
  if (*p != window + (uint16_t)(places[-1] + 1)) return 0;
  const size_t rest = marks->last + 1 - marks->next, columns = format->columns - column, most = columns < rest ? columns : rest;
  size_t count = 0;
  while (count < most && kinds[count] == STEPPE_CSV_NUMBER && values[count] == values[count]) {
    numbers[count] = values[count];
    if (window[places[count++]] != marks->separator) break;
  }
  if (count > 0) *p = window + places[count - 1];
  marks->next += count;
  return count;
}

// ── rows ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

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
static inline csv_row read_row(const steppe_csv_format *format, csv_marks *marks, const uint8_t *begin, const uint8_t *p,
                               double *numbers, uint64_t *texts) {
  const uint8_t separator = format->separator, *const end = marks->end, *const line = p;
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
    // Numbers and nothing else are the common case.
    const size_t plain = plain_numbers(format, marks, &p, column, numbers);
    if (plain > 0) {
      numbers += plain;
      column += plain - 1;
    } else {
      const uint8_t *const field = p;
      const steppe_csv_column kind = format->kinds[column];
      p = next_mark(marks, field);
      if (field < end && *field == '"') {
        // Marks in quotes are none.
        p = steppe_csv_field_end(field, end, separator);
      } else if (p > field && p[-1] == '\r' && (p == end || *p == '\n')) {
        p--;
      }
      if (kind == STEPPE_CSV_NUMBER) {
        const bool is_long = p > field && p - begin >= LONGEST + 5 && long_number(field, p, numbers);
        const steppe_csv_problem problem = is_long ? STEPPE_CSV_NONE : number_of(field, p, numbers);
        if (problem == STEPPE_CSV_MISSING_NUMBER && format->missing != STEPPE_CSV_REFUSE_MISSING) {
          *numbers = NAN;
          row.missing++;
        } else if (problem != STEPPE_CSV_NONE) {
          return problem_at(p, problem, column, field);
        }
        numbers++;
      } else {
        if (field < p && *field == '"' && closing_quote(field + 1, p) != p - 1) {
          return problem_at(p, STEPPE_CSV_WRONG_QUOTE, column, field);
        }
        if (kind == STEPPE_CSV_TEXT) {
          *texts++ = (uint64_t)(field - begin);
          *texts++ = (uint64_t)(p - field);
        }
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
  csv_marks marks;
  marks.kernels = steppe_kernels_double();
  marks.begin = marks.window = marks.scanned = begin;
  marks.end = end;
  marks.next = 1, marks.last = 0;
  marks.places[0] = UINT16_MAX;
  marks.separator = format->separator;
  while (p < limit) {
    if (is_line_end(p, end)) {
      p += *p == '\r' && p + 1 < end ? 2 : 1;
      continue;
    }
    csv_row row = read_row(format, &marks, begin, p, numbers, texts);
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
