// RoI Align on the CPU: the kernel of every instruction set, and the choice between them.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/cpu/memory.h"
#include "common/cpu/parallel.h"
#include "common/tensor.h"
#include "roi_align/roi_align.h"
#include "roi_align/roi_align_plan.h"

#define STRUCTOPS_ISA_FILE "roi_align/roi_align_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

// One channel is the same memory in both layouts; the kernels take it as channels_last, without transposing.
template <class T>
void roi_align_forward(const RoiAlignMap* maps, const double* rois, const int8_t* level, T* output,
                       bool output_channels_last, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(
      roi_align_forward<T>(maps, rois, level, output, output_channels_last || maps[0].p.channels == 1, parallel_for));
}

template <class T>
void roi_align_backward(const RoiAlignParams& p, const T* grad, const int64_t strides[4], const double* rois,
                        T* grad_input, bool grad_input_channels_last, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(roi_align_backward<T>(p, grad, strides, rois, grad_input,
                                               grad_input_channels_last || p.channels == 1, parallel_for));
}

#define INSTANTIATE(T)                                                                                          \
  template void roi_align_forward<T>(const RoiAlignMap*, const double*, const int8_t*, T*, bool, ParallelFor);  \
  template void roi_align_backward<T>(const RoiAlignParams&, const T*, const int64_t*, const double*, T*, bool, \
                                      ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
#undef INSTANTIATE

}  // namespace structops::cpu
