// The mask head on the CPU: the kernel of every instruction set, and the choice between them.
#include "conv_transpose2d/conv_engine_cpu.h"
#include "mask_head_predict/mask_head_predict.h"

#define STRUCTOPS_ISA_FILE "mask_head_predict/mask_head_predict_cpu_kernel.h"
#include "common/cpu/foreach_isa.h"

namespace structops::cpu {

template <class S, class A>
void mask_head_predict(const MaskHeadParams& p, const S* features, bool planar, const S* weight,
                       const WeightStrides& strides, const A* bias, const A* logits_weight, const A* logits_bias,
                       const int64_t* labels, S* out, ParallelFor parallel_for) {
  STRUCTOPS_CONVOLVE(
      S, p.channels, mask_head_predict,
      (p, features, planar, weight, strides, bias, logits_weight, logits_bias, labels, out, parallel_for));
}

#define INSTANTIATE(S, A)                                                                                      \
  template void mask_head_predict<S, A>(const MaskHeadParams&, const S*, bool, const S*, const WeightStrides&, \
                                        const A*, const A*, const A*, const int64_t*, S*, ParallelFor);
INSTANTIATE(float, float)
INSTANTIATE(double, double)
INSTANTIATE(Half, float)
INSTANTIATE(BFloat16, float)
#undef INSTANTIATE

}  // namespace structops::cpu
