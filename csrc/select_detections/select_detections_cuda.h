// The last stage of a detector on the GPU: launchers, free of torch, which takes softmax, sigmoids, exponentials and
// sorts in between. T is float or double.
//
// An image has a fixed number of slots, each for one candidate, a (row, class) pair. Which of them stay empty is known
// to the GPU alone, and nothing waits for it.
#pragma once
#include <cuda_runtime_api.h>

#include "nms/nms_cuda.h"
#include "select_detections/select_detections.h"

namespace structops::cuda {

// Where each level begins among the rows; by name: the emulator of the tests passes structs field by field.
struct LevelBegins {
  int64_t l0, l1, l2, l3, l4, l5, l6, l7;
};

// Slots, in the order that decides between equal scores.
struct DetectionSlots {
  int64_t count;          // S
  const int32_t* chosen;  // [B, groups, limit], -1: empty; or null: a slot for each row and class
  int64_t limit;
  bool by_class;  // groups are classes, and chosen are rows; else levels, and row * C + class from its begin on
  LevelBegins begins;
};

// What a head says, dense: scores [B, R, C], deltas [B, R, C or 1, 4], proposals [B, R, 4] or [R, 4] (x1, y1, x2, y2),
// image_sizes [B, 2] (height, width), valid [B] or null.
template <class T>
struct DetectionHead {
  const T *scores, *deltas, *proposals, *image_sizes;
  const int64_t* valid;
};

// Makes the scores [B, R, C] of the background, and of rows beyond valid [B] (or null), NaN: before the best are
// chosen.
template <class T>
cudaError_t detection_mask(const DetectionParams& p, const int64_t* valid, T* scores, cudaStream_t stream);

// Logarithms of sizes, codes [B, S, 2] (width, height), that boxes are decoded from; 0 for empty slots.
template <class T>
cudaError_t detection_sizes(const DetectionParams& p, const DetectionSlots& slots, const DetectionHead<T>& head,
                            T* codes, cudaStream_t stream);

// boxes [B, S, 4], and keys [B, S] whose rising order is that of falling scores, kNoBox where a slot is empty or its
// box too small. exponentials [B, S, 2]: of the codes; null with distances.
template <class T>
cudaError_t detection_boxes(const DetectionParams& p, const DetectionSlots& slots, const DetectionHead<T>& head,
                            const T* exponentials, T* boxes, NmsKey<T>* keys, cudaStream_t stream);

// Keys [B, S] and the slots [B, S] that they belong to, rising.
template <class T>
struct DetectionOrder {
  const NmsKey<T>* keys;
  const int64_t* slots;
};

template <class T>
struct DetectionOutput {
  T *boxes, *scores;         // [B, D, 4], [B, D]
  int64_t *labels, *counts;  // [B, D], [B]
};

template <class T>
cudaError_t detection_nms(const DetectionParams& p, const DetectionSlots& slots, const DetectionHead<T>& head,
                          const T* boxes, const DetectionOrder<T>& order, const DetectionOutput<T>& out,
                          cudaStream_t stream);

}  // namespace structops::cuda
