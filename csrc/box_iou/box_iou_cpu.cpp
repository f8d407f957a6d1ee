// IoU of boxes on the CPU: the kernels of every instruction set, and the choice between them.
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "box_iou/box_iou.h"
#include "common/box_coding.h"
#include "common/cpu/memory.h"
#include "common/cpu/parallel.h"
#include "common/tensor.h"

#define STRUCTOPS_ISA_FILE "box_iou/box_iou_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class T>
void box_ratios(const T* boxes, int64_t n, T* ratios) {
  for (int64_t i = 0; i < n; ++i, boxes += 4) ratios[i] = (boxes[2] - boxes[0]) / (boxes[3] - boxes[1]);
}

template <class T>
void box_iou(const BoxIouParams& p, const BoxSets<T>& sets, T* output, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(box_iou<T>(p, sets, output, parallel_for));
}

template <class T>
void box_iou_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                      ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(box_iou_backward<T>(p, grad, sets, grad1, grad2, parallel_for));
}

template <class T>
void box_iou_rows(const BoxIouParams& p, const BoxSets<T>& sets, T* output, ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(box_iou_rows<T>(p, sets, output, parallel_for));
}

template <class T>
void box_iou_rows_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                           ParallelFor parallel_for) {
  STRUCTOPS_ISA_DISPATCH(box_iou_rows_backward<T>(p, grad, sets, grad1, grad2, parallel_for));
}

#define INSTANTIATE(T)                                                                                      \
  template void box_ratios<T>(const T*, int64_t, T*);                                                       \
  template void box_iou<T>(const BoxIouParams&, const BoxSets<T>&, T*, ParallelFor);                        \
  template void box_iou_backward<T>(const BoxIouParams&, const T*, const BoxSets<T>&, T*, T*, ParallelFor); \
  template void box_iou_rows<T>(const BoxIouParams&, const BoxSets<T>&, T*, ParallelFor);                   \
  template void box_iou_rows_backward<T>(const BoxIouParams&, const T*, const BoxSets<T>&, T*, T*, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cpu
