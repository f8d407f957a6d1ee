// mask_head_predict for torch: schema and the CPU binding.
#include "common/tensor.h"

namespace structops {

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "mask_head_predict(Tensor features, Tensor deconv_weight, Tensor? deconv_bias, Tensor logits_weight, "
      "Tensor? logits_bias, Tensor labels) -> Tensor");
}

}  // namespace structops
