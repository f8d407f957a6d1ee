// The CUDA launcher of the mask head.
#pragma once
#include "conv_transpose2d/conv_transpose2d_cuda.h"

namespace structops::cuda {

// The layers after the features: biases may be null.
template <class A>
struct MaskLogits {
  const A* bias;          // [hidden]
  const A* weight;        // [classes, hidden]
  const A* class_bias;    // [classes]
  const int64_t* labels;  // [rois]; out of range: NaN
  int64_t classes;
};

struct MaskHeadShape {
  int64_t rois, hidden, depth;  // depth: of pixels and weights, padded to whole 16 bytes
};

// features and packed [2][2][hidden][depth] as conv_pack makes them; out [rois, 2 height, 2 width].
template <class T, class A>
cudaError_t mask_head_predict(const MaskHeadShape& shape, const ConvMap& from, const T* features, const T* packed,
                              const MaskLogits<A>& logits, T* out, cudaStream_t stream);

}  // namespace structops::cuda
