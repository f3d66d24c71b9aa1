// Normalization of rows by their own statistics.
#include "driver.h"

enum { MOST_ROWS = 64, MOST_CHANNELS = 6000 };

void check_groups(steppe_groups groups, unsigned where, double mean) {
  static double statistics[3 * MOST_ROWS], totals[2 * MOST_ROWS], d_gamma[MOST_CHANNELS], d_beta[MOST_CHANNELS];
  static double gamma_sums[MOST_CHANNELS], gamma_sizes[MOST_CHANNELS], beta_sums[MOST_CHANNELS], beta_sizes[MOST_CHANNELS];
  const size_t s = groups.positions, n = groups.values = groups.channels * s, count = groups.rows * n;
  const size_t channels = groups.period * groups.channels;
  const void *x = random_at(0, count, where, mean, 1), *dy = random_at(1, count, where == 0 ? 0 : where + 1, 0.1, 1);
  const void *gamma = random_at(3, channels, where, 1, 0.5), *beta = random_at(4, channels, where, 0, 1);
  void *y = place(2, count, where);
  const double close = (scalar_bytes == 4 ? 2e-6 : 4e-15) + 4 * 0x1p-53 * fabs(mean);
  groups.epsilon = 1e-5;
  for (int way = 0; way < 8; way++) {
    groups.centered = way & 1, groups.stream = way & 2;
    const bool parts = way & 4;
    for (size_t i = 0; i < count; i++) set(y, i, 777);
    if (parts) table->group_normalize(STEPPE_GROUP_SUMS, &groups, x, y, gamma, beta, statistics);
    if (parts && count > 0) expect("group_normalize (sums)", 0, get(y, 0), 777, 0);
    table->group_normalize(parts ? STEPPE_GROUP_MAP : STEPPE_GROUP_ALL, &groups, x, y, gamma, beta, statistics);
    for (size_t c = 0; c < channels; c++) {
      d_gamma[c] = d_beta[c] = 3, gamma_sums[c] = beta_sums[c] = 3, gamma_sizes[c] = beta_sizes[c] = 1;
    }
    double shift[MOST_ROWS], scale[MOST_ROWS], first[MOST_ROWS], second[MOST_ROWS], sizes[MOST_ROWS];
    for (size_t r = 0; r < groups.rows; r++) {
      const size_t channel = (groups.first + r) % groups.period * groups.channels;
      double m = 0, v = 0;
      if (groups.centered) {
        for (size_t i = 0; i < n; i++) m += (get(x, r * n + i) - mean) / (double)n;
        m += mean;
      }
      for (size_t i = 0; i < n; i++) v += (get(x, r * n + i) - m) * (get(x, r * n + i) - m) / (double)n;
      expect("group_normalize (mean)", r, statistics[3 * r] + statistics[3 * r + 1], m, close * (1 + fabs(m) * epsilon));
      expect("group_normalize (variance)", r, statistics[3 * r + 2], v, 2 * close * v);
      shift[r] = m, scale[r] = 1 / sqrt(v + groups.epsilon), first[r] = second[r] = sizes[r] = 0;
      for (size_t i = 0; i < n; i++) {
        const size_t c = channel + i / s;
        const double hat = (get(x, r * n + i) - m) * scale[r], w = get(dy, r * n + i), g = get(gamma, c);
        expect("group_normalize", r * n + i, get(y, r * n + i), g * hat + get(beta, c),
               close * (fabs(g * hat) + fabs(g) + fabs(get(beta, c))));
        first[r] += w * g / (double)n, second[r] += w * g * hat / (double)n, sizes[r] += fabs(w * g) * (1 + fabs(hat)) / (double)n;
        gamma_sums[c] += w * hat, gamma_sizes[c] += fabs(w) * (1 + fabs(hat)), beta_sums[c] += w, beta_sizes[c] += fabs(w);
      }
    }
    for (size_t i = 0; i < count; i++) set(y, i, 777);
    if (parts) table->group_gradient(STEPPE_GROUP_SUMS, &groups, x, dy, NULL, gamma, statistics, totals, d_gamma, d_beta);
    table->group_gradient(parts ? STEPPE_GROUP_MAP : STEPPE_GROUP_ALL, &groups, x, dy, y, gamma, statistics, totals, d_gamma, d_beta);
    for (size_t c = 0; c < channels; c++) {
      expect("group_gradient (gamma)", c, d_gamma[c], gamma_sums[c], close * gamma_sizes[c]);
      expect("group_gradient (beta)", c, d_beta[c], beta_sums[c], close * beta_sizes[c]);
    }
    for (size_t i = 0; i < count; i++) {
      const size_t r = i / n, c = (groups.first + r) % groups.period * groups.channels + i % n / s;
      const double hat = (get(x, i) - shift[r]) * scale[r], g = get(dy, i) * get(gamma, c);
      expect("group_gradient", i, get(y, i), scale[r] * (g - (groups.centered ? first[r] : 0) - hat * second[r]),
             close * scale[r] * (fabs(g) + sizes[r] * (1 + fabs(hat))));
    }
  }
}
