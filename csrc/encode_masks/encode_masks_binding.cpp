// encode_masks for torch: schema and the CPU binding (checks, the kernel, then a copy into one tensor).
#include <cstring>
#include <tuple>

#include "common/cpu/memory.h"
#include "encode_masks/encode_masks.h"
#include "encode_masks/encode_masks_checks.h"

namespace structops {
namespace {

constexpr int64_t kCopiedByOne = 1 << 20;

std::tuple<Tensor, Tensor> encode_masks(const Tensor& masks, std::optional<int64_t> width) {
  const EncodeParams p = check_encode_masks(masks, width);
  Tensor offsets = empty({p.count + 1}, ScalarType::Long, masks);
  const Tensor m = dense(masks, masks.scalar_type());
  std::vector<std::string> strings(static_cast<size_t>(p.count));
  cpu::encode_masks(p, data<uint8_t>(m), strings, parallel_for);
  int64_t* offset = mutable_data<int64_t>(offsets);
  *offset = 0;
  for (const std::string& s : strings) offset[1] = offset[0] + static_cast<int64_t>(s.size()), ++offset;
  Tensor text = empty({*offset}, ScalarType::Byte, masks);
  cpu::advise_huge_pages(text.mutable_data_ptr(), text.numel());
  struct Copy {
    const std::vector<std::string>& strings;
    const int64_t* offset;
    uint8_t* text;
  } copy{strings, data<int64_t>(offsets), mutable_data<uint8_t>(text)};
  const auto some = [](int64_t begin, int64_t end, void* context) {
    const Copy& c = *static_cast<const Copy*>(context);
    for (int64_t k = begin; k < end; ++k) {
      const std::string& s = c.strings[static_cast<size_t>(k)];
      std::memcpy(c.text + c.offset[k], s.data(), s.size());
    }
  };
  // Of noise there is half a megabyte a mask; most masks have a kilobyte, which one thread copies sooner.
  text.numel() < kCopiedByOne ? some(0, p.count, &copy) : parallel_for(p.count, 1, some, &copy);
  return {text, offsets};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) { m.def("encode_masks(Tensor masks, SymInt? width) -> (Tensor, Tensor)"); }

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) { m.impl("encode_masks", TORCH_BOX(&encode_masks)); }

}  // namespace structops
