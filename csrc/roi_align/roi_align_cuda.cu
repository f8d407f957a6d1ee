// RoI Align forward on the GPU: one map. The kernels are in roi_align_forward.cuh.
#include "roi_align/roi_align_cuda.h"
#include "roi_align/roi_align_forward.cuh"

namespace structops::cuda {

template <class T>
cudaError_t roi_align_forward(const RoiAlignParams& p, const T* input, const int64_t strides[4], const void* rois,
                              bool rois_are_double, T* output, bool channels_last, cudaStream_t stream) {
  const ForwardArgs a{.p = p, .rois = {rois, rois_are_double}, .strides = map_strides<T>(strides)};
  return launch_forward(a, OneMap<T>{input}, p.height, p.width, aligned_to(16, input, a.strides),
                        fits_in_int(a.strides), output, channels_last, stream);
}

#define INSTANTIATE(T)                                                                                              \
  template cudaError_t roi_align_forward<T>(const RoiAlignParams&, const T*, const int64_t*, const void*, bool, T*, \
                                            bool, cudaStream_t);
INSTANTIATE(__half)
INSTANTIATE(__nv_bfloat16)
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cuda
