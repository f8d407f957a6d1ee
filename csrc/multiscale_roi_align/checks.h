// What both bindings of multiscale_roi_align check. The same in Python is in structops/ops/multiscale_roi_align.py.
#pragma once
#include <vector>

#include "common/rois.h"
#include "multiscale_roi_align/levels.h"

namespace structops {

// levels [K], valid [B], integers; scales, one a map.
inline void check_pyramid(const char* op, const Tensor& rois, const std::vector<double>& scales, double canonical_scale,
                          const OptionalTensor& levels, const OptionalTensor& valid) {
  for (size_t i = 0; i < scales.size(); ++i)
    STRUCTOPS_CHECK(scales[i] > 0 && scales[i] - scales[i] == 0, op, ": scales[", i,
                    "] must be positive and finite, got ", scales[i]);
  STRUCTOPS_CHECK(canonical_scale > 0 && canonical_scale - canonical_scale == 0, op,
                  ": canonical_scale must be positive and finite, got ", canonical_scale);
  STRUCTOPS_CHECK(levels || scales.front() >= scales.back(), op,
                  ": scales must go from the finest map to the coarsest (or levels be given), got ", scales.front(),
                  " to ", scales.back());
  const auto check_integer = [&](const char* name, const Tensor& tensor) {
    STRUCTOPS_CHECK(is_integer(tensor.scalar_type()), op, ": ", name, " must be an integer tensor, got ",
                    torch::headeronly::toString(tensor.scalar_type()));
    STRUCTOPS_CHECK(tensor.device() == rois.device(), op, ": ", name, " must be on the same device as boxes");
  };
  if (levels) {
    STRUCTOPS_CHECK(levels->dim() == 1 && levels->size(0) == rois.size(0), op,
                    ": levels must be [K] for boxes [K, 5], got ", levels->dim(), " dimensions, ", levels->numel(),
                    " elements for ", rois.size(0), " boxes");
    check_integer("levels", *levels);
  }
  if (valid) {
    STRUCTOPS_CHECK(valid->dim() == 1, op, ": valid must be [B], got ", valid->dim(), " dimensions");
    check_integer("valid", *valid);
    const int64_t images = valid->size(0), rows = rois.size(0);
    STRUCTOPS_CHECK(images ? rows % images == 0 : rows == 0, op,
                    ": valid must hold one count for each image of boxes [B, R, 4], got ", images, " for ", rows,
                    " rows");
  }
}

inline void check_features(const char* op, const std::vector<Tensor>& features, const Tensor& rois,
                           const std::vector<double>& scales) {
  STRUCTOPS_CHECK(!features.empty() && features.size() <= kMaxLevels, op, ": features must be 1 to ", kMaxLevels,
                  " maps, got ", features.size());
  const Tensor& first = features[0];
  check_rois(op, first, "features[0]", rois);
  for (size_t i = 1; i < features.size(); ++i) {
    const Tensor& f = features[i];
    STRUCTOPS_CHECK(f.dim() == 4 && f.size(0) == first.size(0) && f.size(1) == first.size(1), op, ": features[", i,
                    "] must be [N, C, H, W] with the N and C of features[0]");
    STRUCTOPS_CHECK(f.scalar_type() == first.scalar_type() && f.device() == first.device(), op, ": features[", i,
                    "] must have the dtype and device of features[0]");
  }
  STRUCTOPS_CHECK(scales.size() == features.size(), op, ": scales must be one number for each map, got ", scales.size(),
                  " for ", features.size());
}

// sizes: height and width of each map.
inline void check_sizes(const char* op, const std::vector<double>& scales, const std::vector<int64_t>& sizes) {
  STRUCTOPS_CHECK(!scales.empty() && scales.size() <= kMaxLevels && sizes.size() == 2 * scales.size(), op,
                  ": sizes must be a height and a width for each of 1 to ", kMaxLevels, " scales, got ", sizes.size());
}

}  // namespace structops
