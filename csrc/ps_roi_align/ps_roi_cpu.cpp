// Position-sensitive RoI pooling on the CPU: the kernel of every instruction set, and the choice between them.
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
#include "ps_roi_align/ps_roi.h"
#include "ps_roi_align/ps_roi_cpu_tables.h"

#define STRUCTOPS_ISA_FILE "ps_roi_align/ps_roi_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
void ps_roi_forward(const PsRoiParams& p, const T* input, const int64_t strides[4], const double* rois, T* output,
                    bool output_channels_last, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(ps_roi_forward<T>(p, input, strides, rois, output, output_channels_last, parallel_for));
}

template <class T>
void ps_roi_backward(const PsRoiParams& p, const T* grad, const int64_t strides[4], const double* rois, T* grad_input,
                     bool grad_input_channels_last, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(
      ps_roi_backward<T>(p, grad, strides, rois, grad_input, grad_input_channels_last, parallel_for));
}

#define INSTANTIATE(T)                                                                                                 \
  template void ps_roi_forward<T>(const PsRoiParams&, const T*, const int64_t*, const double*, T*, bool, ParallelFor); \
  template void ps_roi_backward<T>(const PsRoiParams&, const T*, const int64_t*, const double*, T*, bool, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
#undef INSTANTIATE

}  // namespace structops::cpu
