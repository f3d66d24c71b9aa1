// Normalization, over the columns of a matrix and over runs of contiguous values: the sums that statistics and gradients need,
// and the maps that apply them.
//
// Forward and backward share their loops. With d = x − shift, a sums pass adds u and u·d, where u is d itself (moments) or dy
// (gradients); a map pass writes b·d + e (normalize), to which a gradient adds a·dy. Where a ReLU followed the normalization, its
// gradient is `masked`: dy counts where the forward's d·scale + offset, computed as there, is not below 0 or 0. `relu` is the
// forward's own, of b·d + e, or with a second matrix in dy's place of b·d + e + dy (a residual). `gradient`, `masked`, `relu` and
// `streamed` below are constants at each call, so every combination becomes a loop of its own.
//
// All of this is bound by the caches' and the memory's bandwidth. What is shared stands here, the passes themselves in `columns.h` and
// `runs.h`.

// Columns of a strip: a page of a row. The last strip takes up to LANES − 1 more, so that it is never narrower than a vector.
#define STRIP ((size_t)(4096 / sizeof(scalar)))
// Additions that a float sum takes before it is merged in double. An outlier in a lane costs its later additions their precision, so
// they are few: with one value at 10⁶ deviations the gradient stays within 4e-6.
#define ADDITIONS ((size_t)16)
// The shortest stretch that is streamed: a few whole lines between the ragged ends.
#define STREAMED (16 * LINE)

INLINE size_t K(strips)(size_t columns) { return columns < LANES ? 1 : (columns - LANES) / STRIP + 1; }
#define strips K(strips)

// NaN stays NaN.
INLINE vector K(positive)(vector v) { return choose(v < splat(0), splat(0), v); }
#define positive K(positive)

// dy where a ReLU let z pass; the gradient at NaN is dy.
INLINE vector K(passed)(vector z, vector dy) { return choose(z <= splat(0), splat(0), dy); }
#define passed K(passed)

// Elements from `y` to the next cache line. Only whole lines are streamed: one that streaming and ordinary stores share is slow.
INLINE size_t K(head)(const scalar *y) { return (0 - (uintptr_t)y) / sizeof(scalar) % LINE; }
#define head_of K(head)

INLINE void K(fetch)(const scalar *p) { __builtin_prefetch(p, 0, 3); }
#define fetch K(fetch)

INLINE void K(finish_stream)(void) {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}
#define finish_stream K(finish_stream)
