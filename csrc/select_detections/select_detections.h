// From a detector head's outputs to detections: parameters, and the arithmetic that CPU and GPU share.
#pragma once
#include <cstdint>

#include "common/box_coding.h"

namespace structops {

// What the choice of the best on a GPU has room for.
constexpr int64_t kMaxDetectionLevels = 8, kMaxDetectionTopK = 2048;
// Classes are compared as floats.
constexpr int64_t kMaxDetectionClasses = int64_t{1} << 24;

// Data are [B, R, ...]: B images of R rows (proposals or anchors), C classes.
struct DetectionParams {
  int64_t images, rows, classes;
  int64_t background;  // class that is no detection; -1: none
  bool class_boxes;    // deltas [B, R, C, 4], else [B, R, 4]
  bool shared;         // proposals [R, 4], else [B, R, 4]
  bool distances;      // deltas are distances from the centre to the sides, in units of the proposal's size
  double weight_x, weight_y, weight_width, weight_height;  // that other deltas are divided by
  bool reciprocals;                                        // weights are multiplied by as such
  double bbox_xform_clip;                                  // of the logarithms of sizes
  double score_thresh, nms_thresh;
  double min_size;             // NaN: none
  int64_t detections_per_img;  // D
};

// The deltas of a row and class among [B * R, C or 1, 4].
STRUCTOPS_HOST_DEVICE int64_t delta_index(const DetectionParams& p, int64_t row, int64_t label) {
  return 4 * (p.class_boxes ? row * p.classes + label : row);
}

template <class T>
STRUCTOPS_HOST_DEVICE T unweighted(const DetectionParams& p, T delta, double weight) {
  return unweighted(delta, weight, p.reciprocals);
}
template <class T>
STRUCTOPS_HOST_DEVICE T size_code(const DetectionParams& p, T delta, double weight) {
  return size_code(delta, weight, p.reciprocals, p.bbox_xform_clip);
}

// The box of four deltas, clipped to its image [2] (height, width). ex, ey: the exponentials of its size codes, not
// used with distances.
template <class T>
STRUCTOPS_HOST_DEVICE BoxOf<T> decode_clipped(const DetectionParams& p, const T* deltas, const BoxOf<T>& prior, T ex,
                                              T ey, const T* image_size) {
  const BoxOf<T> box = p.distances
                           ? decode_distances(middle_size(prior), {deltas[0], deltas[1], deltas[2], deltas[3]}, true)
                           : decode_deltas(centre_size(prior), unweighted(p, deltas[0], p.weight_x),
                                           unweighted(p, deltas[1], p.weight_y), ex, ey);
  return clip(box, image_size[0], image_size[1]);
}

template <class T>
STRUCTOPS_HOST_DEVICE bool large_enough(const DetectionParams& p, const BoxOf<T>& box) {
  const T least = static_cast<T>(p.min_size);
  return p.min_size != p.min_size || (box.x2 - box.x1 >= least && box.y2 - box.y1 >= least);
}

}  // namespace structops
