// Matching anchors to ground truths on the GPU: launchers, free of torch. T is float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <type_traits>

#include "match_boxes/match_boxes.h"

namespace structops::cuda {

// An IoU's bits: of numbers that are not negative, the larger has the larger bits.
template <class T>
using IouBits = std::conditional_t<sizeof(T) == 4, unsigned, unsigned long long>;

// Elements of block_best below, for match_boxes with low_quality: ceil(N / 256) * M an image.
int64_t match_boxes_block_best(const MatchParams& p);

// truths [images, truths, 4], anchors [images or 1, anchors, 4] (x1, y1, x2, y2), dense; valid [images] or null.
// matches, ious [images, anchors], written. With low_quality: block_best scratch, truth_best [images, truths] zeros,
// written; else both null. Nothing waits for the GPU.
template <class T>
cudaError_t match_boxes(const MatchParams& p, const T* truths, const T* anchors, const int64_t* valid,
                        IouBits<T>* block_best, IouBits<T>* truth_best, int64_t* matches, T* ious, cudaStream_t stream);

}  // namespace structops::cuda
