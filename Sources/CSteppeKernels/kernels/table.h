// One instruction set's table for one scalar type: every body, then the table itself. See `vector.h` for what the includer sets.
#include "vector.h"

#include "elementwise.h"
#include "activation.h"
#include "reduction.h"
#include "product.h"
#include "apart.h"
#include "convolution.h"
#include "winograd.h"
#include "softmax.h"
#include "normalization.h"
#include "columns.h"
#include "runs.h"
#include "norms.h"
#include "channels.h"
#include "groups.h"
#include "optimizer.h"
#include "features.h"
#include "pooling.h"
#include "weights.h"
#include "text.h"

#define STEPPE_STRING(x) #x
#define STEPPE_STRING_(x) STEPPE_STRING(x)

const steppe_kernel_table K(steppe_table) = {
    .instruction_set = STEPPE_STRING_(STEPPE_SET),
    .scalar_bytes = sizeof(scalar),
    .vector_bytes = STEPPE_VECTOR_BYTES,
    .tile_rows = K(tile_rows),
    .tile_columns = K(tile_columns),
    .pack_columns = K(pack_columns),
    .pack_rows = K(pack_rows),
    .multiply = K(multiply),
    .multiply_few = K(multiply_few),
    .copy_planes = K(copy_planes),
    .pack_patches = K(pack_patches),
    .multiply_patches = K(multiply_patches),
    .patch_dots = K(patch_dots),
    .winograd_weights = K(winograd_weights),
    .winograd_input = K(winograd_input),
    .winograd_output = K(winograd_output),
    .binary = K(binary),
    .unary = K(unary),
    .fill = K(fill),
    .affine = K(affine),
    .add_scaled = K(add_scaled),
    .select = K(select),
    .clamp = K(clamp),
    .copy_strided = K(copy_strided),
    .transpose = K(transpose),
    .convert_bytes = K(convert_bytes),
    .all_finite = K(all_finite),
    .activate = K(activate),
    .activate_backward = K(activate_backward),
    .bias_activate = K(bias_activate),
    .reduce = K(reduce),
    .dot = K(dot),
    .reduce_rows = K(reduce_rows),
    .reduce_columns = K(reduce_columns),
    .index_of_maximum = K(index_of_maximum),
    .softmax_rows = K(softmax_rows),
    .softmax_rows_backward = K(softmax_rows_backward),
    .cross_entropy_classes = K(cross_entropy_classes),
    .cross_entropy_distributions = K(cross_entropy_distributions),
    .column_moments = K(column_moments),
    .column_normalize = K(column_normalize),
    .column_normalize_residual = K(column_normalize_residual),
    .column_gradient_sums = K(column_gradient_sums),
    .column_gradient = K(column_gradient),
    .column_norm_sums = K(column_norm_sums),
    .column_greatest = K(column_greatest),
    .column_norm_gradient = K(column_norm_gradient),
    .run_moments = K(run_moments),
    .run_normalize = K(run_normalize),
    .run_normalize_residual = K(run_normalize_residual),
    .channels_normalize = K(channels_normalize),
    .run_gradient_sums = K(run_gradient_sums),
    .run_gradient = K(run_gradient),
    .channel_shifts = K(channel_shifts),
    .channel_moments = K(channel_moments),
    .channel_affine = K(channel_affine),
    .channel_gradients = K(channel_gradients),
    .channel_slopes = K(channel_slopes),
    .channel_renormalize = K(channel_renormalize),
    .blend_doubles = K(blend_doubles),
    .group_normalize = K(group_normalize),
    .group_gradient = K(group_gradient),
    .max_pool = K(max_pool),
    .max_pool_backward = K(max_pool_backward),
    .average_pool = K(average_pool),
    .average_pool_backward = K(average_pool_backward),
    .repeat_scaled = K(repeat_scaled),
    .sgd = K(sgd),
    .adagrad = K(adagrad),
    .rmsprop = K(rmsprop),
    .adam = K(adam),
    .feature_moments = K(feature_moments),
    .feature_center = K(feature_center),
    .dot_rows = K(dot_rows),
    .combine_rows = K(combine_rows),
    .find_marks = K(find_marks),
    .parse_decimals = K(parse_decimals),
};

#undef STEPPE_STRING
#undef STEPPE_STRING_
#undef STEPPE_JOIN3
#undef STEPPE_JOIN3_
#undef K
#undef scalar
#undef integer
#undef vector
#undef ivector
#undef LANES
#undef INLINE
#undef load
#undef store
#undef splat
#undef choose
#undef load_first
#undef store_first
#undef wide
#undef add_to
#undef stream_store
#undef SLICE_LANES
#undef slice
#undef doubles
#undef AS_DOUBLES
#undef AS_SLICE
#undef LOAD_SLICE
#undef STORE_SLICE
#undef LINE
#undef UNROLL
#undef STRIP
#undef ADDITIONS
#undef STREAMED
#undef strips
#undef positive
#undef passed
#undef head_of
#undef fetch
#undef finish_stream
