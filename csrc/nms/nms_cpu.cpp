#include <algorithm>
#include <cmath>
#include <numeric>

#include "nms/nms.h"

namespace structops::cpu {

template <class T>
std::vector<int64_t> nms(const T* boxes, const T* scores, const int64_t* idxs, int64_t n, double iou_threshold) {
  std::vector<int64_t> order(n), kept;
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) { return scores[a] > scores[b] || (std::isnan(scores[b]) && !std::isnan(scores[a])); });
  for (int64_t i : order) {
    const T* a = boxes + i * 4;
    const T area = (a[2] - a[0]) * (a[3] - a[1]);
    bool keep = true;
    for (int64_t j : kept) {
      if (idxs && idxs[i] != idxs[j]) continue;
      const T* b = boxes + j * 4;
      const T w = std::max(T(0), std::min(a[2], b[2]) - std::max(a[0], b[0])), h = std::max(T(0), std::min(a[3], b[3]) - std::max(a[1], b[1]));
      const T inter = w * h;
      if (inter / ((b[2] - b[0]) * (b[3] - b[1]) + area - inter) > iou_threshold) { keep = false; break; }
    }
    if (keep) kept.push_back(i);
  }
  return kept;
}
template std::vector<int64_t> nms<float>(const float*, const float*, const int64_t*, int64_t, double);
template std::vector<int64_t> nms<double>(const double*, const double*, const int64_t*, int64_t, double);

}  // namespace structops::cpu
