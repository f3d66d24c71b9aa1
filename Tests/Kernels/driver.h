// What the files of the kernels' driver share; driver.c says what it is.
#ifndef DRIVER_H
#define DRIVER_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "steppe_kernels.h"

// The table under test, its scalar's size and the half of its ulp of 1.
extern const steppe_kernel_table *table;
extern size_t scalar_bytes;
extern double epsilon;
extern int failures;
extern long checks;
// What is being checked, for messages.
extern char shape[160];
// Every how many shapes one is taken.
extern unsigned thinning;

// Puts a table under test; its data are the same each time.
void choose_table(const steppe_kernel_table *t);

// ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

uint64_t next(void);
double uniform(void);
double centered(void);
static inline double get(const void *p, size_t i) { return scalar_bytes == 4 ? ((const float *)p)[i] : ((const double *)p)[i]; }
static inline void set(void *p, size_t i, double value) {
  if (scalar_bytes == 4) {
    ((float *)p)[i] = (float)value;
  } else {
    ((double *)p)[i] = value;
  }
}
// What the scalar type makes of a value.
static inline double rounded(double value) { return scalar_bytes == 4 ? (double)(float)value : value; }

// ── memory between forbidden pages ───────────────────────────────────────────────────────────────────────────────────────────────

enum { ARENAS = 8, ROOM = 1 << 20 };
extern char *arenas[ARENAS];
void reserve_arenas(void);
// Room for `count` scalars in arena i: at its end, at its begin, or (where > 1) some scalars after its begin.
void *place(int i, size_t count, unsigned where);
void *random_at(int i, size_t count, unsigned where, double offset, double scale);

// ── comparison ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

bool same(double a, double b);
void expect(const char *kernel, size_t i, double got, double wanted, double tolerance);
double reference_activation(steppe_activation kind, double parameter, double x);

// ── the checks, of one shape or of all ───────────────────────────────────────────────────────────────────────────────────────────

void check_columns(size_t rows, size_t columns, size_t gap, unsigned where, double mean);
void check_runs(size_t runs, size_t length, size_t gap, unsigned where, double mean);
void check_channels(size_t channels, size_t runs, size_t length, size_t first, unsigned where);
void check_special_values(void);
void check_many_values(void);
void check_norms(size_t rows, size_t columns, size_t gap, unsigned where);
void check_groups(steppe_groups groups, unsigned where, double mean);
void check_optimizers(size_t count, unsigned where, unsigned variant);
void check_elementwise(size_t count, unsigned where);
void check_reductions(size_t rows, size_t columns, size_t gap, unsigned where);
void check_weights(size_t rows, size_t columns, size_t gap, unsigned where);
void check_matrices(size_t rows, size_t columns, size_t gap, unsigned where);
void check_transposition(void);
void check_products(void);
void check_poolings(void);
void check_convolutions(void);
void check_text(void);

#endif
