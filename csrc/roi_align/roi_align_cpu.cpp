#include <limits>
#include <type_traits>
#include <vector>

#include "common/roi_axis.h"
#include "common/tensor.h"
#include "roi_align/roi_align.h"

namespace structops::cpu {
namespace {
struct Tap { int64_t at; double w; };
std::vector<std::vector<Tap>> taps(const RoiAxis& axis, int64_t pooled) {
  std::vector<std::vector<Tap>> out(pooled);
  for (int64_t p = 0; p < pooled; ++p) {
    int64_t first, last;
    axis.inside_range(p, first, last);
    for (int64_t i = first; i < last; ++i) {
      const RoiSample s = axis.sample(p, i);
      if (!s.inside) continue;
      out[p].push_back({s.low, (1 - s.fraction) / axis.samples});
      if (s.fraction > 0) out[p].push_back({s.low + 1, s.fraction / axis.samples});
    }
  }
  return out;
}
template <class T> using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;
}  // namespace

template <class T>
void roi_align_forward(const RoiAlignParams& p, const T* input, const int64_t s[4], const double* rois, T* output, bool cl, ParallelFor) {
  const int64_t bins = p.pooled_height * p.pooled_width;
  for (int64_t k = 0; k < p.rois; ++k) {
    const double* r = rois + k * 5;
    RoiAxis y(r[2], r[4], p.spatial_scale, p.pooled_height, p.sampling_ratio, p.aligned, p.height);
    RoiAxis x(r[1], r[3], p.spatial_scale, p.pooled_width, p.sampling_ratio, p.aligned, p.width);
    auto ty = taps(y, p.pooled_height), tx = taps(x, p.pooled_width);
    for (int64_t c = 0; c < p.channels; ++c) {
      const T* plane = input + int64_t(r[0]) * s[0] + c * s[1];
      for (int64_t b = 0; b < bins; ++b) {
        acc_t<T> sum = 0;
        for (auto& i : ty[b / p.pooled_width]) for (auto& j : tx[b % p.pooled_width])
          sum += acc_t<T>(i.w * j.w) * acc_t<T>(plane[i.at * s[2] + j.at * s[3]]);
        if (!y.finite || !x.finite) sum = std::numeric_limits<acc_t<T>>::quiet_NaN();
        output[k * p.channels * bins + (cl ? b * p.channels + c : c * bins + b)] = T(sum);
      }
    }
  }
}

template <class T>
void roi_align_backward(const RoiAlignParams& p, const T* grad, const int64_t s[4], const double* rois, T* grad_input, bool cl, ParallelFor) {
  const int64_t bins = p.pooled_height * p.pooled_width, plane = p.height * p.width;
  std::vector<acc_t<T>> acc(p.batch * p.channels * plane, 0);
  for (int64_t k = 0; k < p.rois; ++k) {
    const double* r = rois + k * 5;
    RoiAxis y(r[2], r[4], p.spatial_scale, p.pooled_height, p.sampling_ratio, p.aligned, p.height);
    RoiAxis x(r[1], r[3], p.spatial_scale, p.pooled_width, p.sampling_ratio, p.aligned, p.width);
    if (!y.finite || !x.finite) continue;
    auto ty = taps(y, p.pooled_height), tx = taps(x, p.pooled_width);
    for (int64_t c = 0; c < p.channels; ++c) {
      for (int64_t b = 0; b < bins; ++b) {
        const int64_t ph = b / p.pooled_width, pw = b % p.pooled_width;
        const auto g = acc_t<T>(grad[k * s[0] + c * s[1] + ph * s[2] + pw * s[3]]);
        for (auto& i : ty[ph]) for (auto& j : tx[pw]) {
          const int64_t at = i.at * p.width + j.at, n = int64_t(r[0]);
          acc[cl ? (n * plane + at) * p.channels + c : (n * p.channels + c) * plane + at] += acc_t<T>(i.w * j.w) * g;
        }
      }
    }
  }
  for (size_t i = 0; i < acc.size(); ++i) grad_input[i] = T(acc[i]);
}

#define INSTANTIATE(T)                                                                                                        \
  template void roi_align_forward<T>(const RoiAlignParams&, const T*, const int64_t*, const double*, T*, bool, ParallelFor); \
  template void roi_align_backward<T>(const RoiAlignParams&, const T*, const int64_t*, const double*, T*, bool, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
#undef INSTANTIATE

}  // namespace structops::cpu
