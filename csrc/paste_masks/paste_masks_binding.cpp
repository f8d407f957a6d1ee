// paste_masks for torch: schema and the CPU binding (checks, allocation, then the kernel).
#include "common/cpu/memory.h"
#include "paste_masks/paste_masks.h"
#include "paste_masks/paste_masks_checks.h"

namespace structops {
namespace {

Tensor paste_masks(const Tensor& masks, const Tensor& boxes, int64_t height, int64_t width,
                   std::optional<double> threshold, bool packed, int64_t padding) {
  const PasteParams p = check_paste_masks(masks, boxes, height, width, threshold, packed, padding);
  Tensor output = empty_pasted(p, masks);
  if (output.numel() == 0) return output;
  cpu::advise_huge_pages(output.mutable_data_ptr(), output.numel() * output.element_size());
  const ScalarType type = wide_type(masks);
  const Tensor m = dense(masks, type), b = dense(boxes, wide_type(boxes));
  if (type == ScalarType::Double)
    cpu::paste_masks(p, data<double>(m), b.const_data_ptr(), output.mutable_data_ptr(), parallel_for);
  else
    cpu::paste_masks(p, data<float>(m), b.const_data_ptr(), output.mutable_data_ptr(), parallel_for);
  return output;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "paste_masks(Tensor masks, Tensor boxes, SymInt height, SymInt width, float? threshold, bool packed, "
      "int padding) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("paste_masks", TORCH_BOX(&paste_masks)); }

}  // namespace structops
