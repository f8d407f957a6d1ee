// RoI Pool on the CPU: the kernel of every instruction set, and the choice between them.
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
#include "roi_pool/roi_pool.h"
#include "roi_pool/roi_pool_plan.h"

#define STRUCTOPS_ISA_FILE "roi_pool/roi_pool_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
void roi_pool_forward(const RoiPoolParams& p, const T* input, const int64_t strides[4], const double* rois, T* output,
                      int32_t* argmax, bool channels_last, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(roi_pool_forward<T>(p, input, strides, rois, output, argmax, channels_last, parallel_for));
}

template <class T>
void roi_pool_backward(const RoiPoolParams& p, const T* grad, const int64_t grad_strides[4], const double* rois,
                       const int32_t* argmax, const int64_t argmax_strides[4], T* grad_input, bool channels_last,
                       ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(roi_pool_backward<T>(p, grad, grad_strides, rois, argmax, argmax_strides, grad_input,
                                              channels_last, parallel_for));
}

#define INSTANTIATE(T)                                                                                                 \
  template void roi_pool_forward<T>(const RoiPoolParams&, const T*, const int64_t*, const double*, T*, int32_t*, bool, \
                                    ParallelFor);                                                                      \
  template void roi_pool_backward<T>(const RoiPoolParams&, const T*, const int64_t*, const double*, const int32_t*,    \
                                     const int64_t*, T*, bool, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
#undef INSTANTIATE

}  // namespace structops::cpu
