// Sigmoid focal loss on the CPU: the kernel of every instruction set, and the choice between them.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/roi_axis.h"
#include "common/tensor.h"
#include "sigmoid_focal_loss/sigmoid_focal_loss.h"

#define STRUCTOPS_ISA_FILE "sigmoid_focal_loss/sigmoid_focal_loss_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
void sigmoid_focal_loss(const FocalLaw& law, const FocalInput<T>& in, T* loss, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(sigmoid_focal_loss<T>(law, in, loss, parallel_for));
}

template <class T>
double sigmoid_focal_loss_sum(const FocalLaw& law, const FocalInput<T>& in, ParallelFor parallel_for) {
  double sum;
  STRUCTOPS_ISA_DISPATCH(sigmoid_focal_loss_sum<T>(law, in, &sum, parallel_for));
  return sum;
}

template <class T>
void sigmoid_focal_loss_backward(const FocalLaw& law, const FocalInput<T>& in, const T* grad, double factor,
                                 T* grad_inputs, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(sigmoid_focal_loss_backward<T>(law, in, grad, factor, grad_inputs, parallel_for));
}

#define INSTANTIATE(T)                                                                                      \
  template void sigmoid_focal_loss<T>(const FocalLaw&, const FocalInput<T>&, T*, ParallelFor);              \
  template double sigmoid_focal_loss_sum<T>(const FocalLaw&, const FocalInput<T>&, ParallelFor);            \
  template void sigmoid_focal_loss_backward<T>(const FocalLaw&, const FocalInput<T>&, const T*, double, T*, \
                                               ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
#undef INSTANTIATE

}  // namespace structops::cpu
