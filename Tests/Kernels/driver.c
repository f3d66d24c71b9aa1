// Checks the kernels of every instruction set that this machine runs, and the 512-bit body, against plain loops in double.
//
// Every operand ends right before a page that can't be touched or begins right after one, so a read out of range ends the
// program; a margin around each output shows writes out of range. Exit code 0 means that all agree. `driver 7` takes
// every seventh shape, for slow ways to run it.
#include "driver.h"

extern const steppe_kernel_table steppe_table_wide512_f32, steppe_table_wide512_f64;

static void check_table(const steppe_kernel_table *t) {
  choose_table(t);
  static const size_t rows[] = {0, 1, 2, 3, 4, 5, 17, 129, 300};
  static const size_t columns[] = {1, 2, 3, 7, 8, 10, 16, 17, 31, 33, 64, 100, 127, 257};
  static const size_t gaps[] = {0, 1, 16};
  unsigned turn = 0;
  for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
    for (size_t j = 0; j < sizeof columns / sizeof *columns; j++) {
      for (size_t k = 0; k < 3; k++) {
        const unsigned where = turn++ % 5;
        if (turn % thinning != 0) continue;
        snprintf(shape, sizeof shape, "%zu x %zu, gap %zu, start %u", rows[i], columns[j], gaps[k], where);
        check_columns(rows[i], columns[j], gaps[k], where, turn % 3 == 0 ? 1000 : 0.5);
      }
    }
  }
  // Several strips, the last one narrow; rows enough to be folded several times.
  static const size_t shapes[][3] = {{5, 1023, 0}, {3, 1024, 0}, {6, 1025, 7}, {9, 1031, 0}, {4, 1032, 1},
                                     {7, 1033, 0}, {3, 2053, 3}, {2, 4200, 0}, {140, 520, 0}, {2500, 3, 0},
                                     {3001, 1, 0}, {999, 48, 0}, {1300, 10, 0}};
  for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
    for (unsigned where = 0; where < 4; where++) {
      if (turn++ % (thinning < 3 ? 1 : 3) != 0) continue;
      snprintf(shape, sizeof shape, "%zu x %zu, gap %zu, start %u", shapes[i][0], shapes[i][1], shapes[i][2], where);
      check_columns(shapes[i][0], shapes[i][1], shapes[i][2], where, 1);
    }
  }
  static const size_t runs[] = {0, 1, 2, 5, 40}, lengths[] = {1, 2, 3, 5, 8, 13, 16, 31, 49, 64, 65, 127, 196, 300, 511, 784};
  for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
    for (size_t j = 0; j < sizeof lengths / sizeof *lengths; j++) {
      for (size_t k = 0; k < 3; k++) {
        const unsigned where = turn++ % 5;
        if (turn % thinning != 0) continue;
        snprintf(shape, sizeof shape, "%zu runs of %zu, gap %zu, start %u", runs[i], lengths[j], gaps[k], where);
        check_runs(runs[i], lengths[j], gaps[k], where, turn % 3 == 0 ? 1000 : 0.5);
        snprintf(shape, sizeof shape, "%zu runs of %zu from %zu on, %zu channels, start %u", runs[i], lengths[j], gaps[k], k + 1, where);
        check_channels(k + 1, runs[i], lengths[j], gaps[k], where);
      }
    }
  }
  static const size_t long_runs[][2] = {{1, 20011}, {3, 5000}, {2, 1025}, {2, 1037}, {4, 3136}};
  for (size_t i = 0; i < sizeof long_runs / sizeof *long_runs; i++) {
    for (unsigned where = 0; where < 4; where++) {
      if (turn++ % (thinning < 3 ? 1 : 3) != 0) continue;
      snprintf(shape, sizeof shape, "%zu runs of %zu, start %u", long_runs[i][0], long_runs[i][1], where);
      check_runs(long_runs[i][0], long_runs[i][1], where, where, 1);
      check_channels(2, long_runs[i][0], long_runs[i][1], where, where);
    }
  }
  // Rows, γ's rows, channels, positions.
  static const size_t grouped[][4] = {
      {0, 1, 5, 1},    {1, 1, 2, 1},    {3, 1, 7, 1},     {17, 1, 13, 1},  {33, 1, 16, 1},   {40, 1, 31, 1},  {18, 1, 65, 1},
      {5, 1, 300, 1},  {2, 1, 1030, 1}, {19, 1, 1024, 1}, {3, 1, 4099, 1}, {13, 3, 4, 1},    {20, 4, 33, 1},  {1, 1, 1, 2},
      {7, 2, 3, 5},    {11, 4, 2, 49},  {6, 3, 1, 17},    {5, 1, 9, 64},   {13, 2, 5, 196},  {3, 2, 2, 1025}, {2, 2, 3, 3136},
      {64, 32, 2, 33}, {2, 1, 40, 301}, {4, 2, 1, 2000}};
  for (size_t i = 0; i < sizeof grouped / sizeof *grouped; i++) {
    for (unsigned where = 0; where < 4; where++) {
      if (turn++ % (thinning < 3 ? 1 : 3) != 0) continue;
      const steppe_groups groups = {.rows = grouped[i][0], .first = where, .period = grouped[i][1], .channels = grouped[i][2],
                                    .positions = grouped[i][3]};
      snprintf(shape, sizeof shape, "%zu groups, %zu a sample, of %zu x %zu, start %u", groups.rows, groups.period, groups.channels,
               groups.positions, where);
      check_groups(groups, where, where == 1 ? 1000 : where == 2 ? 1e6 : 0.5);
    }
  }
  check_special_values();
  check_many_values();
  check_products();
  check_convolutions();
  check_transposition();
  check_poolings();
  check_text();
  static const size_t counts[] = {0, 1, 2, 3, 5, 7, 8, 15, 16, 17, 33, 1000};
  for (unsigned variant = 0; variant < 32; variant++) {
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
      snprintf(shape, sizeof shape, "count %zu, variant %u", counts[i], variant);
      check_optimizers(counts[i], (variant + (unsigned)i) % 4, variant);
    }
  }
  for (size_t count = 0; count < 1200; count = count < 70 ? count + 1 : count * 2 + 1) {
    const unsigned where = (unsigned)count % 5;
    snprintf(shape, sizeof shape, "count %zu, start %u", count, where);
    check_elementwise(count, where);
  }
  for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) {
    for (size_t j = 1; j < 8; j++) {
      const unsigned where = turn++ % 5;
      const size_t gap = gaps[turn % 3];
      if (turn % thinning != 0) continue;
      snprintf(shape, sizeof shape, "%zu x %zu, gap %zu, start %u", rows[j], columns[i], gap, where);
      check_reductions(rows[j], columns[i], gap, where);
      check_matrices(rows[j], columns[i], gap, where);
      check_weights(rows[j], columns[i], gap, where);
      check_norms(rows[j], columns[i], gap, where);
    }
  }
}

static void check_dispatch(void) {
  const char *names[8];
  const size_t count = steppe_available_instruction_sets(names, 8);
  bool good = count > 0 && !steppe_select_instruction_set("abacus") && !steppe_kernels_named("abacus", 4) &&
              !steppe_kernels_named(names[0], 2);
  for (size_t i = 0; i < count; i++) {
    good = good && steppe_select_instruction_set(names[i]) && strcmp(steppe_kernels_float()->instruction_set, names[i]) == 0 &&
           steppe_kernels_float()->scalar_bytes == 4 && steppe_kernels_double()->scalar_bytes == 8;
  }
  good = good && steppe_select_instruction_set(NULL) && strcmp(steppe_kernels_float()->instruction_set, names[count - 1]) == 0;
  if (!good) {
    fprintf(stderr, "dispatch: the choice of an instruction set is wrong\n");
    failures++;
  }
}

int main(int argc, char **argv) {
  if (argc > 1 && atoi(argv[1]) > 0) thinning = (unsigned)atoi(argv[1]);
  reserve_arenas();
  check_dispatch();
  const char *names[8];
  const size_t count = steppe_available_instruction_sets(names, 8);
  const steppe_kernel_table *tables[18];
  size_t used = 0;
  bool wide = true;
  for (size_t i = 0; i < count; i++) {
    tables[used++] = steppe_kernels_named(names[i], 4);
    tables[used++] = steppe_kernels_named(names[i], 8);
  }
#if defined(__x86_64__)
  wide = steppe_kernels_named("avx2", 4) != NULL;
#endif
  if (wide) tables[used++] = &steppe_table_wide512_f32, tables[used++] = &steppe_table_wide512_f64;
  for (size_t i = 0; i < used; i++) {
    const int before = failures;
    checks = 0;
    check_table(tables[i]);
    printf("%-8s f%d: %ld values, %d wrong\n", tables[i]->instruction_set, tables[i]->scalar_bytes * 8, checks,
           failures - before);
    fflush(stdout);
  }
  return failures ? 1 : 0;
}
