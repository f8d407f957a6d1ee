// Which boxes of a batch take part in suppression: one rule for CPU and GPU (nvcc runs constexpr functions on both).
#pragma once
#include <cstdint>

namespace structops {

// All of them, where nothing here says otherwise.
struct NmsFilter {
  const int64_t* counts = nullptr;  // [B] the first so many of each image
  const bool* mask = nullptr;       // [B, N]
  bool by_score = false;            // only those that score more; a NaN does not
  double score_threshold = 0;

  // Box i of an image's n.
  template <class T>
  constexpr bool takes(int64_t image, int64_t n, int64_t i, T score) const {
    return (counts == nullptr || i < counts[image]) && (mask == nullptr || mask[image * n + i]) &&
           (!by_score || static_cast<double>(score) > score_threshold);
  }
};

}  // namespace structops
