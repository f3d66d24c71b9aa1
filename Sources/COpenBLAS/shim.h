// The BLAS and LAPACK headers as one module. Complex routines are imported with clang's own complex types.
#include <cblas.h>
#include <lapacke.h>
