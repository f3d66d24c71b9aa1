// Where fields of a table end, and the numbers of plain ones.
#include "driver.h"

enum { LENGTH = 5000, ROOM_BEHIND = 32 };

// A field: mostly a plain number, else something near one.
static size_t field(char *to) {
  static const char others[] = "+-.eE 0123456789\"x\r\xff/:";
  size_t length = 0;
  const uint64_t form = next() % 8;
  if (form == 0) {
    for (size_t count = next() % 20; length < count;) to[length++] = others[next() % (sizeof others - 1)];
    return length;
  }
  if (next() % 2) to[length++] = '-';
  const size_t digits = form == 1 ? next() % 20 : 1 + next() % 15, point = next() % (digits + 1);
  for (size_t i = 0; i < digits; i++) {
    if (i == point && form != 2) to[length++] = '.';
    to[length++] = (char)('0' + next() % 10);
  }
  return length;
}

// Whether the kernel has to take it.
static bool is_plain(const char *p, size_t length) {
  size_t points = 0, digits = 0, i = length > 0 && *p == '-';
  const size_t sign = i;
  for (; i < length; i++) {
    points += p[i] == '.';
    digits += p[i] >= '0' && p[i] <= '9';
  }
  return digits > 0 && points < 2 && points + digits == length - sign && length <= 16;
}

void check_text(void) {
  static char text[LENGTH + 64];
  static uint16_t wanted[LENGTH];
  for (int round = 0; round < 300; round++) {
    const size_t goal = round < 200 ? (size_t)round : next() % LENGTH;
    size_t length = 0, count = 0;
    while (length < goal) {
      length += field(text + length);
      wanted[count++] = (uint16_t)length;
      text[length++] = next() % 7 ? ';' : '\n';
    }
    // What follows the last mark belongs to a field that goes on.
    const size_t open = next() % 3;
    for (size_t i = 0; i < open; i++) text[length++] = '7';
    // Text right before a forbidden page for the one kernel and, but for the 16 bytes that it may read, behind one for the other.
    char *last = arenas[0] + ROOM - length, *first = arenas[1] + 16;
    memcpy(last, text, length);
    memset(arenas[1], '1', 16);
    memcpy(first, text, length);
    const size_t room = (size_t)ROOM_BEHIND + count;
    uint16_t *places = (uint16_t *)(arenas[2] + ROOM) - room;
    places[-1] = UINT16_MAX;
    snprintf(shape, sizeof shape, "text of %zu bytes, round %d", length, round);
    expect("find_marks (count)", 0, (double)table->find_marks((const uint8_t *)last, length, ';', places), (double)count, 0);
    for (size_t i = 0; i < count; i++) expect("find_marks", i, places[i], wanted[i], 0);
    // The arena begins with text; its end holds the numbers.
    double *values = (double *)(arenas[3] + ROOM) - (count + ROOM_BEHIND - 1);
    values[-1] = 777;
    table->parse_decimals((const uint8_t *)first, places, count, values);
    expect("parse_decimals (before)", 0, values[-1], 777, 0);
    for (size_t i = 0; i < count; i++) {
      char *begin = text + (i == 0 ? 0 : wanted[i - 1] + 1);
      const size_t size = (size_t)(text + wanted[i] - begin);
      char copy[64];
      memcpy(copy, begin, size);
      copy[size] = 0;
      const double value = is_plain(copy, size) ? strtod(copy, NULL) : NAN;
      // The sign of zero counts.
      expect("parse_decimals", i, values[i], value, 0);
      expect("parse_decimals (sign)", i, signbit(values[i]) != 0 && !isnan(value), signbit(value) != 0 && !isnan(value), 0);
    }
  }
}
