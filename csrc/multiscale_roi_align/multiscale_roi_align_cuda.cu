// RoI Align over a feature pyramid on the GPU: one launch of roi_align's kernels, in which a block looks up the level
// of its RoI first. That is a handful of operations on the five numbers that it reads anyway.
#include "multiscale_roi_align/multiscale_roi_align_cuda.h"
#include "roi_align/roi_align_bounds.cuh"
#include "roi_align/roi_align_forward.cuh"

namespace structops::cuda {
namespace {

__device__ __forceinline__ int choose_level(const LevelChoice& c, const Rois& rois, int k) {
  if (c.valid != nullptr) {
    const int rows = static_cast<int>(c.rows);
    if (k % rows >= c.valid[k / rows]) return kNoLevel;
  }
  if (c.chosen != nullptr) {
    const int64_t level = c.chosen[k];
    return level >= 0 && level < c.levels ? static_cast<int>(level) : kBadLevel;
  }
  return level_of(c.rule, c.levels, rois.at(k, 1), rois.at(k, 2), rois.at(k, 3), rois.at(k, 4));
}

struct Level {
  MapStrides strides;
  const void* data;
  int height, width;
  double scale;
};

// The maps of a pyramid, as OneMap is one (roi_align_forward.cuh).
struct Pyramid {
  static constexpr bool kNeverZero = false;
  LevelChoice choice;
  Level level[kMaxLevels];

  __device__ __forceinline__ int find(const ForwardArgs& a, int k) const {
    const int l = choose_level(choice, a.rois, k);
    if (l == kNoLevel || (l >= 0 && level[l].data == nullptr)) return kAllZero;  // an empty map gives zeros
    return l < 0 ? kAllNan : l;
  }
  __device__ __forceinline__ const char* data(int l) const {
    return static_cast<const char*>(level[l < 0 ? 0 : l].data);
  }
  __device__ __forceinline__ const MapStrides& strides(const ForwardArgs&, int l) const {
    return level[l < 0 ? 0 : l].strides;
  }
  __device__ __forceinline__ RoiAlignParams parameters(const ForwardArgs& a, int l) const {
    return of_level(a.p, level[l < 0 ? 0 : l].height, level[l < 0 ? 0 : l].width, level[l < 0 ? 0 : l].scale);
  }
  __device__ __forceinline__ static RoiAlignParams of_level(RoiAlignParams p, int height, int width, double scale) {
    p.height = height;
    p.width = width;
    p.spatial_scale = scale;
    return p;
  }
};

__global__ void __launch_bounds__(kBoundsThreads)
    multiscale_roi_bounds_kernel(const RoiAlignParams p, const Rois rois, const Pyramid pyramid,
                                 int4* __restrict__ bounds, int* __restrict__ image) {
  const int64_t k = int64_t(blockIdx.x) * kBoundsThreads + threadIdx.x;
  if (k >= p.rois) return;
  const int l = choose_level(pyramid.choice, rois, static_cast<int>(k));
  int4 b{0, -1, 0, -1};
  int n = -1;
  if (l >= 0) {
    n = roi_bounds(Pyramid::of_level(p, pyramid.level[l].height, pyramid.level[l].width, pyramid.level[l].scale), rois,
                   static_cast<int>(k), b);
    if (n >= 0) n += l * static_cast<int>(p.batch);
  }
  bounds[k] = b;
  image[k] = n;
}

}  // namespace

template <class T>
cudaError_t multiscale_roi_align_forward(const RoiAlignParams& p, const LevelChoice& choice, const LevelData& features,
                                         const int64_t* geometry, const double* scales, const void* rois,
                                         bool rois_are_double, T* output, bool channels_last, cudaStream_t stream) {
  const void* const data[] = {features.l0, features.l1, features.l2, features.l3,
                              features.l4, features.l5, features.l6, features.l7};
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  Pyramid pyramid{.choice = choice};
  int64_t height = 0, width = 0;
  bool packable = true, narrow = true;
  for (int64_t l = 0; l < choice.levels; ++l) {
    const int64_t* g = geometry + l * 6;
    if (g[0] > kInt / 4 || g[1] > kInt / 4) return cudaErrorInvalidValue;
    Level& level = pyramid.level[l];
    level = {map_strides<T>(g + 2), data[l], int(g[0]), int(g[1]), scales[l]};
    height = g[0] > height ? g[0] : height;
    width = g[1] > width ? g[1] : width;
    packable &= aligned_to(16, level.data, level.strides);
    narrow &= fits_in_int(level.strides) && level.strides.pixel_bytes == pyramid.level[0].strides.pixel_bytes;
  }
  const ForwardArgs a{.p = p, .rois = {rois, rois_are_double}, .strides = pyramid.level[0].strides};
  return launch_forward(a, pyramid, height, width, packable, narrow, output, channels_last, stream);
}

cudaError_t multiscale_roi_align_bounds(const RoiAlignParams& p, const LevelChoice& choice, const int64_t* sizes,
                                        const double* scales, const void* rois, bool rois_are_double, void* workspace,
                                        cudaStream_t stream) {
  constexpr int64_t kInt = std::numeric_limits<int>::max();
  if (p.rois > kInt || p.batch > kInt / kMaxLevels) return cudaErrorInvalidValue;
  Pyramid pyramid{.choice = choice};
  for (int64_t l = 0; l < choice.levels; ++l) {
    if (sizes[2 * l] > kInt / 4 || sizes[2 * l + 1] > kInt / 4) return cudaErrorInvalidValue;
    pyramid.level[l].height = int(sizes[2 * l]);
    pyramid.level[l].width = int(sizes[2 * l + 1]);
    pyramid.level[l].scale = scales[l];
  }
  const RoiBounds w(workspace, p.rois);
  return launch(multiscale_roi_bounds_kernel, dim3(unsigned(ceil_div<int64_t>(p.rois, kBoundsThreads))),
                dim3(kBoundsThreads), 0, stream, p, Rois{rois, rois_are_double}, pyramid, w.pixels, w.image);
}

#define INSTANTIATE(T)                                                                                              \
  template cudaError_t multiscale_roi_align_forward<T>(const RoiAlignParams&, const LevelChoice&, const LevelData&, \
                                                       const int64_t*, const double*, const void*, bool, T*, bool,  \
                                                       cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
