// encode_masks for torch on CUDA: checks, allocation, launches, and the two waits that results of unknown length force.
#include <tuple>

#include "common/aten.h"
#include "common/cuda/binding.h"
#include "encode_masks/encode_masks_checks.h"
#include "encode_masks/encode_masks_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

// Sums of the counts up to each, with it, and on the host the last of them.
std::pair<Tensor, int64_t> added_up(const Tensor& counts) {
  const Tensor until = call_aten("aten::cumsum", "", counts, int64_t{0}, std::optional<ScalarType>(ScalarType::Long));
  const cudaStream_t stream = cuda::current_stream(counts);
  int64_t total = 0;
  STD_CUDA_CHECK(
      cudaMemcpyAsync(&total, data<int64_t>(until) + until.numel() - 1, sizeof(total), cudaMemcpyDeviceToHost, stream));
  STD_CUDA_CHECK(cudaStreamSynchronize(stream));
  return {until, total};
}

std::tuple<Tensor, Tensor> encode_masks(const Tensor& masks, std::optional<int64_t> width) {
  const EncodeParams p = check_encode_masks(masks, width);
  const DeviceGuard guard(masks.get_device_index());
  Tensor offsets = empty({p.count + 1}, ScalarType::Long, masks);
  if (p.count == 0) return {empty({0}, ScalarType::Byte, masks), torch::stable::zero_(offsets)};
  const cudaStream_t stream = cuda::current_stream(masks);
  const Tensor m = dense(masks, masks.scalar_type());
  const auto* bytes = data<uint8_t>(m);
  Tensor changes = empty({p.count * cuda::encoded_columns(p)}, ScalarType::Int, masks);
  STD_CUDA_CHECK(cuda::count_changes(p, bytes, mutable_data<int32_t>(changes), stream));
  const auto [until, total] = added_up(changes);
  const int64_t runs = total + p.count;
  Tensor ends = empty({runs}, ScalarType::Int, masks), characters = empty({runs}, ScalarType::Int, masks);
  STD_CUDA_CHECK(cuda::write_ends(p, bytes, data<int64_t>(until), mutable_data<int32_t>(ends), stream));
  STD_CUDA_CHECK(cuda::count_characters(p, data<int64_t>(until), data<int32_t>(ends), runs,
                                        mutable_data<int32_t>(characters), stream));
  const auto [text_until, length] = added_up(characters);
  Tensor text = empty({length}, ScalarType::Byte, masks);
  STD_CUDA_CHECK(cuda::write_text(p, data<int64_t>(until), data<int32_t>(ends), runs, data<int64_t>(text_until),
                                  mutable_data<uint8_t>(text), mutable_data<int64_t>(offsets), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return {text, offsets};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("encode_masks", TORCH_BOX(&encode_masks)); }

}  // namespace structops
