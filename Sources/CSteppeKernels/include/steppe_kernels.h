/// Steppe's kernels: pointers in, pointers out.
///
/// A kernel allocates nothing, starts no thread, keeps no state and knows no tensor. Its caller cuts the work into ranges and calls it
/// on each. Every kernel exists once for each instruction set and scalar type; a `steppe_kernel_table` holds one such set. Tensors are
/// `const void *` so that one table type serves both scalar types: the table says which it is. Scalars cross as `double`.
///
/// Pointers need the alignment of their scalar only. Output may be the same memory as an input of the same shape (in place) unless a
/// comment says otherwise; partial overlap is not allowed. `ld…` is the distance between rows in elements. A count of 0 does nothing.
#ifndef STEPPE_KERNELS_H
#define STEPPE_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#pragma clang assume_nonnull begin

typedef enum steppe_binary : int32_t {
  STEPPE_ADD,
  STEPPE_SUBTRACT,
  STEPPE_MULTIPLY,
  STEPPE_DIVIDE,
  STEPPE_POWER,
  STEPPE_MINIMUM,  ///< NaN where either is NaN
  STEPPE_MAXIMUM,  ///< NaN where either is NaN
  STEPPE_LESS,     ///< comparisons give 1 or 0
  STEPPE_LESS_EQUAL,
  STEPPE_GREATER,
  STEPPE_GREATER_EQUAL,
  STEPPE_EQUAL,
  STEPPE_NOT_EQUAL,
} steppe_binary;

typedef enum steppe_unary : int32_t {
  STEPPE_NEGATE,
  STEPPE_ABSOLUTE,
  STEPPE_SIGN,
  STEPPE_SQUARE,
  STEPPE_SQUARE_ROOT,
  STEPPE_RECIPROCAL,
  STEPPE_EXPONENTIAL,
  STEPPE_LOGARITHM,
  STEPPE_FLOOR,
  STEPPE_CEILING,
  STEPPE_ROUND,  ///< half to even
  STEPPE_SINE,
  STEPPE_COSINE,
} steppe_unary;

typedef enum steppe_activation : int32_t {
  STEPPE_IDENTITY,
  STEPPE_RELU,
  STEPPE_LEAKY_RELU,  ///< `parameter` is the slope below 0
  STEPPE_SIGMOID,
  STEPPE_TANH,
  STEPPE_GELU,       ///< x·Φ(x), exact
  STEPPE_GELU_TANH,  ///< the tanh approximation
  STEPPE_SILU,
} steppe_activation;

typedef enum steppe_reduction : int32_t {
  STEPPE_SUM,
  STEPPE_SUM_OF_SQUARES,
  STEPPE_SUM_OF_ABSOLUTES,
  STEPPE_REDUCE_MINIMUM,  ///< NaN where any is NaN
  STEPPE_REDUCE_MAXIMUM,  ///< NaN where any is NaN
  STEPPE_PRODUCT,
} steppe_reduction;

/// What one step of an optimizer does to `count` parameters; unused fields are 0.
typedef struct steppe_optimizer_step {
  double learning_rate;
  double weight_decay;    ///< added to the gradient as `weight_decay · parameter`, or decoupled (see `decoupled`)
  double gradient_scale;  ///< multiplies every gradient first (clipping, averaging)
  double momentum;        ///< SGD, RMSProp
  double dampening;       ///< SGD
  double beta1, beta2;    ///< Adam; `beta2` is also RMSProp's α
  double epsilon;
  double bias_correction1;  ///< Adam: 1 − β₁ᵗ
  double bias_correction2;  ///< Adam: 1 − β₂ᵗ
  bool nesterov;
  bool decoupled;       ///< AdamW
  bool first;           ///< SGD: the momentum buffer holds nothing yet
  bool clear_gradient;  ///< write 0 to the gradient in the same pass
} steppe_optimizer_step;

/// What becomes of a product's sums: C ← f(α·sums + β·C + bias), with a value of the bias for each column.
typedef struct steppe_product_finish {
  double alpha, beta;
  const void *_Nullable bias;
  steppe_activation kind;
  double parameter;
  bool bias_by_rows;  ///< the bias has a value for each row instead: in `multiply` alone
} steppe_product_finish;

/// What a channel is divided by in the deviation's place.
typedef enum steppe_norm : int32_t {
  STEPPE_NORM_ABSOLUTE,  ///< ℓ₁: the mean of |x − μ|
  STEPPE_NORM_GREATEST,  ///< ℓ∞: the greatest |x − μ|
} steppe_norm;

/// The statistics of `count` channels, each with `fold` columns of `values` values in all.
typedef struct steppe_channels {
  size_t count, fold;
  double values, epsilon;
  /// `remainder` is the mean less its rounding to the scalar type, to more digits than `mean` has room for.
  double *mean, *remainder, *variance;
} steppe_channels;

/// A run of places that lie side by side in a plane: `length` of them from `from` on, for the columns from `to` on.
typedef struct steppe_patch_run {
  ptrdiff_t from;
  size_t to, length;
} steppe_patch_run;

/// What a group kernel does: all, the sums over the rows alone, or the map that takes those from its caller. Between the two the sums of
/// the parts of a row can be added up.
typedef enum steppe_group_pass { STEPPE_GROUP_ALL, STEPPE_GROUP_SUMS, STEPPE_GROUP_MAP } steppe_group_pass;

/// `rows` stretches of channels · positions contiguous values, each normalized by itself. γ and β have a value for each channel of
/// `period` rows, and row r begins with channel ((first + r) mod period) · channels.
typedef struct steppe_groups {
  size_t rows, first, period, channels, positions;
  /// The values of a whole group, of which a row may be a part.
  size_t values;
  double epsilon;
  /// Whether the mean is taken out; without, the variance is the mean square.
  bool centered;
  /// Whether results bypass the cache.
  bool stream;
} steppe_groups;

/// How the windows of a pooling lie over images: an image is [height, width] positions of `channels` values, `ld` apart (a plane of
/// channels-first data has one channel), and one image follows another. The output [out_height, out_width] takes one position for each
/// window, as far apart. Output o's window holds the positions o·stride − pad + place·dilation of each axis.
typedef struct steppe_windows {
  size_t height, width, channels, ld, out_height, out_width;
  size_t kernel_height, kernel_width, stride_height, stride_width, dilation_height, dilation_width;
  size_t pad_height, pad_width;
  bool counts_padding;  ///< whether a mean divides by the places in the padding too; a mean's dilation is 1
} steppe_windows;

/// One instruction set's kernels for one scalar type.
typedef struct steppe_kernel_table {
  const char *instruction_set;  ///< "baseline", "avx2", "avx512", "neon"
  int32_t scalar_bytes;         ///< 4 or 8
  int32_t vector_bytes;         ///< 16, 32 or 64

  // ── matrix products: C ← f(α·A·B + β·C + bias), C [rows, columns], A [rows, depth], B [depth, columns], all row-major ─────────
  int32_t tile_rows;     ///< rows of C whose sums the registers hold at a time
  int32_t tile_columns;  ///< columns likewise; a strip of packed B has as many, the last one as many vectors as it needs
  /// Packs B, or where `transposed` the matrix [columns, depth]: depth · columns scalars, the columns rounded up to whole vectors.
  void (*pack_columns)(const void *b, ptrdiff_t ldb, bool transposed, size_t depth, size_t columns, void *packed);
  /// Packs A from its transpose [depth, rows]: rows · depth scalars.
  void (*pack_rows)(const void *a, ptrdiff_t lda, size_t rows, size_t depth, void *packed);
  /// The product of A, packed (`lda` 0) or as it stands, with packed B. Where β is 0, C is not read.
  void (*multiply)(const void *a, ptrdiff_t lda, const void *b, size_t rows, size_t columns, size_t depth,
                   const steppe_product_finish *finish, void *c, ptrdiff_t ldc);
  /// The product of a few rows with B as it stands, or where `transposed` with that of [columns, depth].
  void (*multiply_few)(const void *a, ptrdiff_t lda, const void *b, ptrdiff_t ldb, bool transposed, size_t rows, size_t columns,
                       size_t depth, const steppe_product_finish *finish, void *c, ptrdiff_t ldc);

  // ── convolution: what it moves; the products are those above ────────────────────────────────────────────────────────────────────
  /// y[p · y_plane + r · y_row + i · y_step] = x[p · x_plane + r · x_row + i · x_step]; the two must not overlap
  void (*copy_planes)(const void *x, ptrdiff_t x_plane, ptrdiff_t x_row, ptrdiff_t x_step, void *y, ptrdiff_t y_plane, ptrdiff_t y_row,
                      ptrdiff_t y_step, size_t planes, size_t rows, size_t columns);
  /// lines[k · width + c] = planes[offsets[k] + place of column c], the columns given by `count` runs in order without gaps, 0 for
  /// columns behind them. Reads up to a vector beyond each run, and writes up to a vector beyond the last line.
  void (*pack_patches)(const void *planes, const ptrdiff_t *offsets, size_t depth, const steppe_patch_run *runs, size_t count, void *lines,
                       size_t width);
  /// y[r · ldy + c] = f(Σ_k a[r · lda + k] · planes[offsets[k] + place of column c] + bias[r]) for up to 4 rows: patches as they stand,
  /// which packing would cost more than the few products. α is 1 and β is 0. Reads up to a vector beyond each run.
  void (*multiply_patches)(const void *a, ptrdiff_t lda, const void *planes, const ptrdiff_t *offsets, size_t rows, size_t depth,
                           const steppe_patch_run *runs, size_t count, const steppe_product_finish *finish, void *y, ptrdiff_t ldy);
  /// sums[k] += Σ_c planes[offsets[k] + place of column c] · y[c]. Reads up to a vector of the planes beyond each run.
  void (*patch_dots)(const void *planes, const ptrdiff_t *offsets, size_t depth, const steppe_patch_run *runs, size_t count,
                     const void *y, void *sums);
  // Winograd's minimal filtering F(2×2, 3×3): a square of two by two outputs takes one product for each of 16 places in a channel, where
  // the definition takes 36. A square sees 4×4 values d of the image; place p of its transform BᵀdB is multiplied by place p of the
  // weights' transform GgGᵀ. All three go through 16 matrices, place p's at p · plane.
  /// u[p · plane + i] is place p of the transform of the kernel whose taps are w[t · tap + i], or where `turned` w[(8 − t) · tap + i].
  void (*winograd_weights)(const void *w, ptrdiff_t tap, size_t count, bool turned, void *u, ptrdiff_t plane);
  /// lines[p · plane + k · width + c] is place p of the transform of channel k's values at planes[k · channel + offsets[0 … 15] + place of
  /// column c], the columns given by runs; 0 for columns behind them. Reads and writes up to a vector beyond each run.
  void (*winograd_input)(const void *planes, ptrdiff_t channel, const ptrdiff_t *offsets, size_t depth, const steppe_patch_run *runs,
                         size_t count, void *lines, ptrdiff_t plane, size_t width);
  /// y[r · y_channel + a · y_row + b] = f(AᵀMA + bias[r]) for a row of squares, one to a column of M, whose place p of row r is at
  /// m[p · plane + r · ldm + column]: `height` (1 or 2) rows of `width` values, the last square's second column left out where that is odd.
  /// α is 1 and β is 0, the bias by rows. Reads up to a vector beyond each row. Whether all
  /// outputs are finite before the activation.
  bool (*winograd_output)(const void *m, ptrdiff_t plane, ptrdiff_t ldm, size_t rows, size_t height, size_t width,
                          const steppe_product_finish *finish, void *y, ptrdiff_t y_channel, ptrdiff_t y_row);

  // ── elementwise ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
  /// z[i] = x[i · x_step] op y[i · y_step]; a step is 1, or 0 to repeat one value.
  void (*binary)(steppe_binary op, const void *x, ptrdiff_t x_step, const void *y, ptrdiff_t y_step, void *z, size_t count);
  void (*unary)(steppe_unary op, const void *x, void *y, size_t count);
  void (*fill)(double value, void *y, size_t count);
  /// y[i] = scale · x[i] + offset
  void (*affine)(const void *x, double scale, double offset, void *y, size_t count);
  /// y[i] += scale · x[i]
  void (*add_scaled)(const void *x, double scale, void *y, size_t count);
  /// z[i] = mask[i] ≠ 0 ? x[i · x_step] : y[i · y_step]
  void (*select)(const void *mask, const void *x, ptrdiff_t x_step, const void *y, ptrdiff_t y_step, void *z, size_t count);
  /// y[i] = min(max(x[i], low), high); NaN stays NaN
  void (*clamp)(const void *x, double low, double high, void *y, size_t count);
  /// y[i · y_step] = x[i · x_step], any steps
  void (*copy_strided)(const void *x, ptrdiff_t x_step, void *y, ptrdiff_t y_step, size_t count);
  /// y[c, r] = x[r, c]; the two must not overlap
  void (*transpose)(const void *x, ptrdiff_t ldx, void *y, ptrdiff_t ldy, size_t rows, size_t columns);
  /// y[i] = scale · x[i] + offset, from bytes
  void (*convert_bytes)(const uint8_t *x, double scale, double offset, void *y, size_t count);
  bool (*all_finite)(const void *x, size_t count);

  // ── activations ─────────────────────────────────────────────────────────────────────────────────────────────────────────────
  void (*activate)(steppe_activation kind, double parameter, const void *x, void *y, size_t count);
  /// dx[i] = dy[i] · f′(x[i])
  void (*activate_backward)(steppe_activation kind, double parameter, const void *x, const void *dy, void *dx, size_t count);
  /// y[r, c] = f(x[r, c] + bias[c]); `bias` may be NULL. The epilogue of a dense layer.
  void (*bias_activate)(steppe_activation kind, double parameter, const void *x, ptrdiff_t ldx, const void *_Nullable bias, void *y,
                        ptrdiff_t ldy, size_t rows, size_t columns);

  // ── reductions: float accumulates in short blocks whose sums are merged in double ────────────────────────────────────────────
  double (*reduce)(steppe_reduction op, const void *x, size_t count);
  double (*dot)(const void *x, const void *y, size_t count);
  /// out[r] = reduction of x[r, 0 ..< columns]
  void (*reduce_rows)(steppe_reduction op, const void *x, ptrdiff_t ldx, size_t rows, size_t columns, void *out);
  /// out[c] = reduction of x[0 ..< rows, c]
  void (*reduce_columns)(steppe_reduction op, const void *x, ptrdiff_t ldx, size_t rows, size_t columns, void *out);
  /// The first index of the greatest value; a NaN counts as greatest.
  size_t (*index_of_maximum)(const void *x, size_t count);

  // ── softmax and its loss, by rows ───────────────────────────────────────────────────────────────────────────────────────────
  /// y = softmax(x), or its logarithm
  void (*softmax_rows)(bool logarithm, const void *x, ptrdiff_t ldx, void *y, ptrdiff_t ldy, size_t rows, size_t columns);
  /// dx = y·(dy − ⟨dy, y⟩), or for the logarithm dy − exp(y)·Σdy; y is softmax_rows' output
  void (*softmax_rows_backward)(bool logarithm, const void *y, const void *dy, void *dx, size_t rows, size_t columns);
  /// losses[r] = −Σ_c t[r, c]·log softmax(x)[r, c] with t the one-hot label smoothed by `smoothing` (t = (1−s)·onehot + s/columns);
  /// gradient[r, c] = scale·(softmax(x) − t). Rows are contiguous (ld = columns).
  void (*cross_entropy_classes)(const void *x, const int32_t *labels, double smoothing, double scale, double *losses,
                                void *gradient, size_t rows, size_t columns);
  /// The same against distributions t (each row sums to Σt, which need not be 1: gradient = scale·(softmax·Σt − t)).
  void (*cross_entropy_distributions)(const void *x, const void *targets, double smoothing, double scale, double *losses,
                                      void *gradient, size_t rows, size_t columns);

  // ── normalization over columns: the matrix x[rows, columns], a value per column ──────────────────────────────────────────────
  // [N, C] and channels-last data have one column a channel; [N, C, S] is the matrix [N, C·S], whose columns the caller folds S to a
  // channel. A column's statistics are sums of d = x − shift, so that a large mean costs no accuracy.
  /// sums[c] += Σ_r d, squares[c] += Σ_r d²
  void (*column_moments)(const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const void *shift, double *sums,
                         double *squares);
  /// y = f((x − shift[c])·scale[c] + offset[c]). Rows are walked from the last to the first where `backwards` is set, so that what a
  /// statistics pass read last, and the cache still holds, is read first. `stream` asks for stores that bypass the cache.
  void (*column_normalize)(steppe_activation kind, double parameter, const void *x, ptrdiff_t ldx, void *y, ptrdiff_t ldy,
                           size_t rows, size_t columns, const void *shift, const void *scale, const void *offset, bool backwards,
                           bool stream);
  /// y = max((x − shift[c])·scale[c] + offset[c] + residual, 0)
  void (*column_normalize_residual)(const void *x, ptrdiff_t ldx, const void *residual, ptrdiff_t ldr, void *y, ptrdiff_t ldy,
                                    size_t rows, size_t columns, const void *shift, const void *scale, const void *offset,
                                    bool backwards, bool stream);
  /// gradients[c] += Σ_r dy, products[c] += Σ_r dy·d. With a scale and an offset, those of `column_normalize` with STEPPE_RELU, dy
  /// counts only where the ReLU let its input pass: its input is computed once more, bit for bit.
  void (*column_gradient_sums)(const void *x, ptrdiff_t ldx, const void *dy, ptrdiff_t lddy, size_t rows, size_t columns,
                               const void *shift, const void *_Nullable scale, const void *_Nullable offset, double *gradients,
                               double *products);
  /// dx = a[c]·dy + b[c]·(x − shift[c]) + e[c], with a scale and an offset as above. `far` says that x and dy are several times the size
  /// of the last cache.
  void (*column_gradient)(const void *x, ptrdiff_t ldx, const void *dy, ptrdiff_t lddy, void *dx, ptrdiff_t lddx, size_t rows,
                          size_t columns, const void *shift, const void *_Nullable scale, const void *_Nullable offset,
                          const void *a, const void *b, const void *e, bool backwards, bool stream, bool far);

  // Norms other than the deviation, of u = (x − shift[c]) − rest[c].
  /// ℓ₁: first[c] += Σ_r |u|, second[c] += Σ_r sign(u). ℓ∞: the same of those u alone whose size is limit[c], and 1 for their sizes.
  void (*column_norm_sums)(steppe_norm kind, const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const void *shift,
                           const void *rest, const void *limit, double *first, double *second);
  /// greatest[c] takes in every |u|; NaN where any is NaN.
  void (*column_greatest)(const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const void *shift, const void *rest,
                          void *greatest);
  /// dx = a[c]·dy + b[c]·sign(u) + e[c], where for ℓ∞ only a u of size limit[c] has a sign.
  void (*column_norm_gradient)(steppe_norm kind, const void *x, ptrdiff_t ldx, const void *dy, ptrdiff_t lddy, void *dx,
                               ptrdiff_t lddx, size_t rows, size_t columns, const void *shift, const void *rest,
                               const void *limit, const void *a, const void *b, const void *e);

  // ── normalization over runs: `runs` stretches of `length` contiguous values, `stride` apart, that share one channel ──────────
  void (*run_moments)(const void *x, ptrdiff_t stride, size_t runs, size_t length, double shift, double *sum, double *squares);
  void (*run_normalize)(steppe_activation kind, double parameter, const void *x, void *y, ptrdiff_t stride, size_t runs,
                        size_t length, double shift, double scale, double offset, bool backwards, bool stream);
  void (*run_normalize_residual)(const void *x, const void *residual, void *y, ptrdiff_t stride, size_t runs, size_t length,
                                 double shift, double scale, double offset, bool backwards, bool stream);
  /// The runs from number `first` on of a tensor in which run follows run and channel follows channel, each run with its channel's shift,
  /// scale and offset; `residual`, which may be NULL, is added before a ReLU.
  void (*channels_normalize)(steppe_activation kind, double parameter, const void *x, const void *_Nullable residual, void *y, size_t first,
                             size_t runs, size_t length, size_t channels, const void *shift, const void *scale, const void *offset,
                             bool backwards, bool stream);
  void (*run_gradient_sums)(const void *x, const void *dy, ptrdiff_t stride, size_t runs, size_t length, double shift, bool relu,
                            double scale, double offset, double *gradient, double *product);
  void (*run_gradient)(const void *x, const void *dy, void *dx, ptrdiff_t stride, size_t runs, size_t length, double shift,
                       bool relu, double scale, double offset, double a, double b, double e, bool backwards, bool stream);

  // ── normalization's numbers for each channel, between the passes; sums and coefficients stand for each column ────────────────
  /// Makes of sums over `rows` rows, one for each column, the mean of each channel, repeated over its columns, or where that is not
  /// finite the channel's value in the row `first`.
  void (*channel_shifts)(size_t count, size_t fold, size_t rows, const void *first, void *sums);
  /// Mean, remainder and biased variance from Σ(x − shift) and Σ(x − shift)²; false where a shift lay further from the mean than the
  /// deviation, so that the variance has lost digits.
  bool (*channel_moments)(const steppe_channels *channels, const void *shift, const double *sums, const double *squares);
  /// y = (x − shift)·scale + offset, with γ and β for each channel; without γ the shift alone.
  void (*channel_affine)(const steppe_channels *channels, const void *_Nullable gamma, const void *_Nullable beta, void *shift,
                         void *_Nullable scale, void *_Nullable offset);
  /// dβ and dγ, one for each channel, from Σdy and Σdy·(x − shift).
  void (*channel_gradients)(const steppe_channels *channels, const double *sums, const double *products, double *d_gamma,
                            double *d_beta);
  /// dx = a·dy + b·(x − shift) + e
  void (*channel_slopes)(const steppe_channels *channels, const void *gamma, const double *d_gamma, const double *d_beta, void *a,
                         void *b, void *e);
  /// Batch renormalization's r = √(σ² + ε)/deviation in 1/`r_limit` … `r_limit` and d = (μ − mean)/deviation in ±`d_limit`, with the
  /// running `mean` and `deviation` of each channel, and γ·r and β + γ·d, by which x̂ becomes y.
  void (*channel_renormalize)(const steppe_channels *channels, const void *gamma, const void *beta, const void *mean,
                              const void *deviation, double r_limit, double d_limit, double *r, double *d, void *scaled_gamma,
                              void *shifted_beta);
  /// y = factor·x + kept·y, which is not read where `kept` is 0.
  void (*blend_doubles)(const double *x, double factor, double kept, void *y, size_t count);

  // ── normalization of rows, each by its own statistics: layer, RMS, group and instance normalization ─────────────────────────
  /// y = x̂·γ + β, and each row's shift, remainder and variance in `statistics[3·rows]`: x̂ = (x − shift − remainder)/√(variance + ε).
  /// Where the groups are not centered, the first two are 0 and the third is the mean square. The map alone reads `statistics`.
  void (*group_normalize)(steppe_group_pass pass, const steppe_groups *groups, const void *x, void *y, const void *gamma,
                          const void *beta, double *statistics);
  /// dx = rstd·(g − mean(g) − x̂·mean(g·x̂)) with g = γ·dy, without mean(g) where the groups are not centered; d_gamma[c] += Σdy·x̂ and
  /// d_beta[c] += Σdy over all rows that hold channel c, and each row's Σg and Σg·x̂ in `totals[2·rows]`, which the map alone reads. `dx`
  /// may be NULL.
  void (*group_gradient)(steppe_group_pass pass, const steppe_groups *groups, const void *x, const void *dy, void *_Nullable dx,
                         const void *gamma, const double *statistics, double *totals, double *d_gamma, double *d_beta);

  // ── pooling ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────
  /// y = each window's greatest value, NaN where any is NaN, −∞ where it holds no position. `places` takes the first greatest's place
  /// (of several NaN the last's), counted by the kernel's rows, as a scalar: kernels of at most 2²⁴ places.
  void (*max_pool)(const steppe_windows *windows, const void *x, void *y, void *_Nullable places, size_t images);
  /// dx = for each position the sum of dy over the windows whose greatest value it is
  void (*max_pool_backward)(const steppe_windows *windows, const void *places, const void *dy, void *dx, size_t images);
  /// y = each window's mean
  void (*average_pool)(const steppe_windows *windows, const void *x, void *y, size_t images);
  void (*average_pool_backward)(const steppe_windows *windows, const void *dy, void *dx, size_t images);
  /// y[r, k, c] = scale · x[r, c] for the `repeats` k; `width` is c's range
  void (*repeat_scaled)(const void *x, double scale, void *y, size_t rows, size_t repeats, size_t width);

  // ── optimizers: parameters p and gradients g with their state, one pass ─────────────────────────────────────────────────────
  /// g′ = s·g + λp; v = μv + (1 − dampening)g′ (v = g′ at the first); p −= η·v, or η·(g′ + μv) for Nesterov. `velocity` is NULL
  /// where momentum is 0.
  void (*sgd)(const steppe_optimizer_step *step, void *p, void *g, void *_Nullable velocity, size_t count);
  /// G += g′²; p −= η·g′/(√G + ε)
  void (*adagrad)(const steppe_optimizer_step *step, void *p, void *g, void *accumulator, size_t count);
  /// G = αG + (1 − α)g′²; u = g′/(√G + ε); with momentum b = μb + u, p −= η·b (`buffer` is NULL where momentum is 0)
  void (*rmsprop)(const steppe_optimizer_step *step, void *p, void *g, void *squares, void *_Nullable buffer, size_t count);
  /// m = β₁m + (1 − β₁)g′; v = β₂v + (1 − β₂)g′²; p −= η·(m/c₁)/(√(v/c₂) + ε); decoupled: p −= ηλp first, and g′ = s·g
  void (*adam)(const steppe_optimizer_step *step, void *p, void *g, void *first_moment, void *second_moment, size_t count);

  // ── features of a data set: the matrix x[rows, columns], d = x − shift[c] in double ──────────────────────────────────────────
  /// sums[c] += Σ_r d, squares[c] += Σ_r d²; least[c] and greatest[c], of the scalar type, take in every x. NaN goes into the sums alone.
  void (*feature_moments)(const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const double *shift, double *sums,
                          double *squares, void *least, void *greatest);
  /// y[r, c] = d, without gaps between the rows
  void (*feature_center)(const void *x, ptrdiff_t ldx, size_t rows, size_t columns, const double *shift, double *y);

  // ── weights by rows, each the weights of one output ─────────────────────────────────────────────────────────────────────────
  /// out[r] = ⟨x[r], y[r]⟩
  void (*dot_rows)(const void *x, ptrdiff_t ldx, const void *y, ptrdiff_t ldy, size_t rows, size_t columns, double *out);
  /// z[r] = a[r]·x[r] + b[r]·y[r], or where `adding` that added to z[r]; without y a[r]·x[r] alone. `ldy` is 0 for one y to all rows.
  void (*combine_rows)(const void *x, ptrdiff_t ldx, const double *a, const void *_Nullable y, ptrdiff_t ldy,
                       const double *_Nullable b, void *z, ptrdiff_t ldz, size_t rows, size_t columns, bool adding);

  // ── comma-separated values, whatever the scalar type ────────────────────────────────────────────────────────────────────────
  /// The places of all separators and line feeds in `length` ≤ 65535 bytes, and how many. 32 entries behind the last are written to.
  size_t (*find_marks)(const uint8_t *text, size_t length, uint8_t separator, uint16_t *places);
  /// The numbers of `count` fields, each from behind the end before, and the first from behind ends[−1] (modulo 2¹⁶), to its own: correctly
  /// rounded, or NaN where a field is not plain: digits, with a point or without, perhaps behind a minus, 16 bytes at the most. The 16 bytes
  /// before each end must be there to be read, and 32 entries of `ends` behind the last; 31 values behind the last are written to.
  void (*parse_decimals)(const uint8_t *text, const uint16_t *ends, size_t count, double *values);
} steppe_kernel_table;

/// The instruction sets that this build holds and this machine can run, best last. Writes at most `capacity` names, returns the number.
size_t steppe_available_instruction_sets(const char *_Nullable *_Nonnull names, size_t capacity);
/// The tables in use. The first call chooses the best that the machine offers, or the one that the environment variable
/// `STEPPE_INSTRUCTION_SET` names (an unknown or unavailable name is ignored).
const steppe_kernel_table *steppe_kernels_float(void);
const steppe_kernel_table *steppe_kernels_double(void);
/// Puts another instruction set in use for the whole process, `NULL` the best; false where the machine lacks it.
bool steppe_select_instruction_set(const char *_Nullable name);
/// The tables of one instruction set, or NULL where this machine lacks it.
const steppe_kernel_table *_Nullable steppe_kernels_named(const char *name, int32_t scalar_bytes);

/// Tells the processor that the caller spins.
static inline void steppe_spin_hint(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("isb" ::: "memory");
#endif
}

// ── text ────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/// What becomes of a column of a table of comma-separated values.
typedef enum steppe_csv_column : uint8_t {
  STEPPE_CSV_SKIP,
  STEPPE_CSV_NUMBER,
  STEPPE_CSV_TEXT,
} steppe_csv_column;

/// What is done about a number that is missing: an empty field, or one of NA, N/A, NaN and null in any case.
typedef enum steppe_csv_missing : uint8_t {
  STEPPE_CSV_REFUSE_MISSING,
  STEPPE_CSV_KEEP_MISSING,  ///< as NaN
  STEPPE_CSV_DROP_MISSING,  ///< with its row
} steppe_csv_missing;

/// What is wrong with a table.
typedef enum steppe_csv_problem : int32_t {
  STEPPE_CSV_NONE,
  STEPPE_CSV_FEW_FIELDS,
  STEPPE_CSV_MANY_FIELDS,
  STEPPE_CSV_NOT_A_NUMBER,     ///< text where a number should be
  STEPPE_CSV_NOT_FINITE,       ///< infinity, or more than double holds
  STEPPE_CSV_MISSING_NUMBER,   ///< where missing numbers are refused
  STEPPE_CSV_WRONG_QUOTE,      ///< a quoted field that does not end, or goes on after its quote
  STEPPE_CSV_LONG_ROW,         ///< it does not end where the text does that is there
} steppe_csv_problem;

typedef struct steppe_csv_format {
  uint8_t separator;
  steppe_csv_missing missing;
  size_t columns;
  const steppe_csv_column *kinds;  ///< one for each column
} steppe_csv_format;

typedef struct steppe_csv_result {
  size_t rows;              ///< rows that were kept
  size_t dropped;           ///< rows that were not, for want of a number
  size_t missing;           ///< numbers that were missing
  const uint8_t *next;      ///< where the first row begins that was not read
  steppe_csv_problem problem;
  size_t column;            ///< where it is, or the number of fields found
  const uint8_t *_Nullable at;  ///< the field that it is in, or the row
} steppe_csv_result;

/// The end of the field that begins at `p`: its separator, the end of its line, or `end`.
const uint8_t *steppe_csv_field_end(const uint8_t *p, const uint8_t *end, uint8_t separator);
/// Reads the rows that begin in `begin` ..< `limit`, up to the first problem: the numbers of each row one after another, and for each text
/// column its field's offset from `begin` and its length. Empty lines are no rows. The last row may go on up to `end`; it ends there
/// where the text is whole. There are never more numbers than bytes from `begin` to `limit` and columns, nor more texts.
void steppe_csv_parse(const steppe_csv_format *format, const uint8_t *begin, const uint8_t *limit, const uint8_t *end,
                      bool is_whole, double *numbers, uint64_t *_Nullable texts, steppe_csv_result *result);
/// Reads one number of decimal digits at `p`, correctly rounded, and returns where it ends: `p` where there is none.
const uint8_t *steppe_parse_number(const uint8_t *p, const uint8_t *end, double *value);

#pragma clang assume_nonnull end

#ifdef __cplusplus
}
#endif
#endif
