// What weights normalized by rows need: the rows' products, and rows scaled and added with a factor for each.

static void K(dot_rows)(const void *x, ptrdiff_t ldx, const void *y, ptrdiff_t ldy, size_t rows, size_t columns, double *out) {
  const scalar *a = x, *b = y;
  for (size_t r = 0; r < rows; r++, a += ldx, b += ldy) out[r] = K(dot)(a, b, columns);
}

INLINE void K(combine_row)(const bool both, const bool adding, const scalar *x, scalar a, const scalar *y, scalar b, scalar *z,
                           size_t count) {
  size_t i = 0;
  for (; i + LANES <= count; i += LANES) {
    vector v = load(x + i) * a;
    if (both) v = load(y + i) * b + v;
    if (adding) v += load(z + i);
    store(z + i, v);
  }
  if (i == count) return;
  const size_t rest = count - i;
  vector v = K(load_tail)(x + i, rest, 0) * a;
  if (both) v = K(load_tail)(y + i, rest, 0) * b + v;
  if (adding) v += K(load_tail)(z + i, rest, 0);
  K(store_tail)(z + i, v, rest);
}

static void K(combine_rows)(const void *x, ptrdiff_t ldx, const double *a, const void *y, ptrdiff_t ldy, const double *b, void *z,
                            ptrdiff_t ldz, size_t rows, size_t columns, bool adding) {
  const scalar *from = x, *other = y;
  scalar *to = z;
  for (size_t r = 0; r < rows; r++, from += ldx, to += ldz) {
    const scalar by = (scalar)a[r], with = other ? (scalar)b[r] : 0;
    if (other && adding) {
      K(combine_row)(true, true, from, by, other, with, to, columns);
    } else if (other) {
      K(combine_row)(true, false, from, by, other, with, to, columns);
    } else if (adding) {
      K(combine_row)(false, true, from, by, NULL, 0, to, columns);
    } else {
      K(combine_row)(false, false, from, by, NULL, 0, to, columns);
    }
    if (other) other += ldy;
  }
}
