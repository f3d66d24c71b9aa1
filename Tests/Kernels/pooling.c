// Pooling.
#include "driver.h"

// The position of a window's place along one axis, or SIZE_MAX in the padding.
static size_t position_of(size_t out, size_t k, size_t stride, size_t pad, size_t dilation, size_t size) {
  const size_t padded = out * stride + k * dilation;
  return padded < pad || padded - pad >= size ? SIZE_MAX : padded - pad;
}

static void check_pooling(const steppe_windows *w, size_t images, unsigned where) {
  const size_t in = images * w->height * w->width * w->ld, out = images * w->out_height * w->out_width * w->ld;
  void *x = random_at(0, in, where, 0, 2), *dy = random_at(1, out, where, 0, 1);
  for (size_t i = 0; i < in; i++) set(x, i, i % 19 == 7 ? NAN : round(get(x, i)));
  void *y = place(2, out, where), *places = place(3, out, where), *mean = place(4, out, where);
  void *dx = place(5, in, where), *slope = place(6, in, where);
  for (size_t i = 0; i < out; i++) set(y, i, 777), set(places, i, 777), set(mean, i, 777);
  for (size_t i = 0; i < in; i++) set(dx, i, 777), set(slope, i, 777);
  const bool averages = w->dilation_height == 1 && w->dilation_width == 1;
  table->max_pool(w, x, y, places, images);
  table->max_pool_backward(w, places, dy, dx, images);
  if (averages) table->average_pool(w, x, mean, images), table->average_pool_backward(w, dy, slope, images);
  double *wanted = calloc(2 * in + 1, sizeof *wanted), *shares = wanted + in;
  for (size_t o = 0; o < out; o++) {
    const size_t c = o % w->ld, j = o / w->ld % w->out_width, i = o / w->ld / w->out_width % w->out_height;
    const size_t image = o / w->ld / w->out_width / w->out_height;
    if (c >= w->channels) {
      expect("max_pool (margin)", o, get(y, o), 777, 0);
      continue;
    }
    double best = -INFINITY, sum = 0, size = 0;
    size_t at = SIZE_MAX, inside = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
      const double count = (double)(w->counts_padding ? w->kernel_height * w->kernel_width : inside);
      for (size_t u = 0; u < w->kernel_height; u++) {
        for (size_t v = 0; v < w->kernel_width; v++) {
          const size_t row = position_of(i, u, w->stride_height, w->pad_height, w->dilation_height, w->height);
          const size_t column = position_of(j, v, w->stride_width, w->pad_width, w->dilation_width, w->width);
          if (row == SIZE_MAX || column == SIZE_MAX) continue;
          const size_t p = ((image * w->height + row) * w->width + column) * w->ld + c;
          if (pass == 1) {
            shares[p] += get(dy, o) / count;
            continue;
          }
          inside++;
          sum += get(x, p);
          size += fabs(get(x, p));
          if (at == SIZE_MAX || get(x, p) > best || isnan(get(x, p))) best = get(x, p), at = p;
        }
      }
    }
    expect("max_pool", o, get(y, o), at == SIZE_MAX ? -INFINITY : best, 0);
    if (at != SIZE_MAX) wanted[at] += get(dy, o);
    const double count = (double)(w->counts_padding ? w->kernel_height * w->kernel_width : inside);
    if (averages) expect("average_pool", o, get(mean, o), inside ? sum / count : 0, 12 * epsilon * size / fmax(count, 1));
  }
  for (size_t p = 0; p < in; p++) {
    const bool own = p % w->ld < w->channels;
    expect("max_pool_backward", p, get(dx, p), own ? wanted[p] : 777, own ? 40 * epsilon : 0);
    if (averages) expect("average_pool_backward", p, get(slope, p), own ? shares[p] : 777, own ? 40 * epsilon : 0);
  }
  free(wanted);
}

void check_poolings(void) {
  for (unsigned turn = 0; turn < 400; turn++) {
    const size_t ld = turn % 2 ? 1 : 1 + next() % 40;
    steppe_windows w = {.channels = turn % 8 == 2 ? 1 + ld / 2 : ld, .ld = ld, .counts_padding = next() % 2};
    w.kernel_height = 1 + next() % 5, w.kernel_width = 1 + next() % 5;
    w.stride_height = 1 + next() % 3, w.stride_width = 1 + next() % 3;
    w.dilation_height = turn % 3 ? 1 : 1 + next() % 3, w.dilation_width = turn % 3 ? 1 : 1 + next() % 3;
    w.pad_height = next() % (w.kernel_height / 2 + 1), w.pad_width = next() % (w.kernel_width / 2 + 1);
    const size_t rows = (w.kernel_height - 1) * w.dilation_height + 1, columns = (w.kernel_width - 1) * w.dilation_width + 1;
    w.height = (rows > 2 * w.pad_height ? rows - 2 * w.pad_height : 1) + next() % 7;
    w.width = (columns > 2 * w.pad_width ? columns - 2 * w.pad_width : 1) + next() % (turn % 4 ? 9 : 70);
    w.out_height = (w.height + 2 * w.pad_height - rows) / w.stride_height + 1;
    w.out_width = (w.width + 2 * w.pad_width - columns) / w.stride_width + 1;
    const size_t images = 1 + next() % 3;
    const unsigned where = (unsigned)(next() % 5);
    if (turn % thinning != 0) continue;
    snprintf(shape, sizeof shape, "%zu x %zu x %zu x %zu of %zu, kernel %zu x %zu, strides %zu, %zu, pads %zu, %zu, dilations %zu, %zu",
             images, w.height, w.width, w.channels, ld, w.kernel_height, w.kernel_width, w.stride_height, w.stride_width,
             w.pad_height, w.pad_width, w.dilation_height, w.dilation_width);
    check_pooling(&w, images, where);
  }
  static const size_t sizes[] = {1, 2, 7, 16, 17, 33, 49, 64};
  for (size_t i = 0; i < 8; i++) {
    for (size_t j = 0; j < 8; j++) {
      const size_t rows = 1 + next() % 4, repeats = sizes[i], width = sizes[j];
      snprintf(shape, sizeof shape, "%zu x %zu x %zu", rows, repeats, width);
      const void *x = random_at(0, rows * width, (unsigned)i % 3, 0, 1);
      void *y = place(1, rows * repeats * width, (unsigned)j % 3);
      table->repeat_scaled(x, 0.3, y, rows, repeats, width);
      for (size_t k = 0; k < rows * repeats * width; k++) {
        const double wanted = get(x, k / width / repeats * width + k % width) * 0.3;
        expect("repeat_scaled", k, get(y, k), wanted, 4 * epsilon * fabs(wanted));
      }
    }
  }
}
