// multiscale_roi_align for torch on CUDA: checks, allocation, launch on the current stream. Nothing here waits for the
// GPU, so both ops can be captured in a CUDA graph.
#include "common/cuda/binding.h"
#include "multiscale_roi_align/checks.h"
#include "multiscale_roi_align/multiscale_roi_align_cuda.h"
#include "roi_align/roi_align_cuda.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

// The kernels' view of the choice; `given` and `counts` keep its memory.
struct Choice {
  OptionalTensor given, counts;
  cuda::LevelChoice kernel;

  Choice(const std::vector<double>& scales, double canonical_scale, int64_t canonical_level,
         const OptionalTensor& levels, const OptionalTensor& valid, int64_t rois)
      : given(dense(levels, ScalarType::Long)), counts(dense(valid, ScalarType::Long)) {
    const int64_t maps = static_cast<int64_t>(scales.size());
    kernel = {level_rule(scales.data(), maps, canonical_scale, canonical_level), maps, data<int64_t>(given),
              data<int64_t>(counts), counts && rois ? rois / counts->size(0) : 1};
  }
};

// Dense where the channels_last kernels need it: all maps with one distance between pixels.
Tensor as_pooled(const Tensor& map, MemoryFormat format) {
  const bool readable = format != MemoryFormat::ChannelsLast || (map.stride(1) == 1 && map.stride(3) == map.size(1));
  return readable ? map : torch::stable::contiguous(map, MemoryFormat::ChannelsLast);
}

Tensor multiscale_roi_align(const std::vector<Tensor>& features, const Tensor& rois, const std::vector<double>& scales,
                            int64_t pooled_height, int64_t pooled_width, int64_t sampling_ratio, bool aligned,
                            double canonical_scale, int64_t canonical_level, const OptionalTensor& levels,
                            const OptionalTensor& valid) {
  constexpr const char* op = "multiscale_roi_align";
  check_features(op, features, rois, scales);
  check_pooling(op, 1.0, pooled_height, pooled_width);
  check_sampling(op, sampling_ratio);
  check_pyramid(op, rois, scales, canonical_scale, levels, valid);
  const Tensor& first = features[0];
  const DeviceGuard guard(first.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const RoiAlignParams p{boxes.size(0), first.size(0), first.size(1),  0,      0, pooled_height,
                         pooled_width,  0.0,           sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(first);
  Tensor output = empty_with_format(first, {p.rois, p.channels, pooled_height, pooled_width}, format);
  if (output.numel() == 0) return output;
  const Choice choice(scales, canonical_scale, canonical_level, levels, valid, p.rois);
  std::vector<Tensor> maps;  // keeps copies until the launch
  std::vector<int64_t> geometry;
  const void* data[kMaxLevels] = {};
  for (size_t i = 0; i < features.size(); ++i) {
    const Tensor& f = maps.emplace_back(as_pooled(features[i], format));
    for (const int64_t n : {f.size(2), f.size(3), f.stride(0), f.stride(1), f.stride(2), f.stride(3)})
      geometry.push_back(n);
    data[i] = f.numel() ? f.const_data_ptr() : nullptr;
  }
  const cuda::LevelData pointers{data[0], data[1], data[2], data[3], data[4], data[5], data[6], data[7]};
  STRUCTOPS_DISPATCH_FLOATING(first.scalar_type(), "multiscale_roi_align", [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::multiscale_roi_align_forward(p, choice.kernel, pointers, geometry.data(), scales.data(),
                                                      boxes.const_data_ptr(), boxes.scalar_type() == ScalarType::Double,
                                                      mutable_data<T>(output), format == MemoryFormat::ChannelsLast,
                                                      cuda::current_stream(first)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return output;
}

std::vector<Tensor> multiscale_roi_align_backward(const Tensor& grad, const Tensor& rois,
                                                  const std::vector<double>& scales, int64_t pooled_height,
                                                  int64_t pooled_width, int64_t batch_size, int64_t channels,
                                                  const std::vector<int64_t>& sizes, int64_t sampling_ratio,
                                                  bool aligned, double canonical_scale, int64_t canonical_level,
                                                  const OptionalTensor& levels, const OptionalTensor& valid) {
  constexpr const char* op = "multiscale_roi_align_backward";
  check_rois(op, grad, "grad", rois);
  check_sizes(op, scales, sizes);
  check_pooling(op, 1.0, pooled_height, pooled_width);
  check_sampling(op, sampling_ratio);
  for (size_t i = 0; i < scales.size(); ++i)
    check_grad(op, grad, rois, channels, pooled_height, pooled_width, batch_size, channels, sizes[2 * i],
               sizes[2 * i + 1]);
  check_pyramid(op, rois, scales, canonical_scale, levels, valid);
  const DeviceGuard guard(grad.get_device_index());
  const Tensor boxes = rois_as_float(rois);
  const bool boxes_are_double = boxes.scalar_type() == ScalarType::Double;
  RoiAlignParams p{boxes.size(0), batch_size, channels,       0,      0, pooled_height,
                   pooled_width,  0.0,        sampling_ratio, aligned};
  const MemoryFormat format = memory_format_of(grad);
  std::vector<Tensor> grads;
  for (size_t i = 0; i < scales.size(); ++i)
    grads.push_back(empty_with_format(grad, {batch_size, channels, sizes[2 * i], sizes[2 * i + 1]}, format));
  if (grad.numel() == 0) {
    for (Tensor& g : grads) torch::stable::zero_(g);
    return grads;
  }
  const Choice choice(scales, canonical_scale, canonical_level, levels, valid, p.rois);
  const Tensor workspace = torch::stable::empty({static_cast<int64_t>(cuda::roi_align_backward_workspace(p))},
                                                ScalarType::Byte, std::nullopt, grad.device());
  const cudaStream_t stream = cuda::current_stream(grad);
  STD_CUDA_CHECK(cuda::multiscale_roi_align_bounds(p, choice.kernel, sizes.data(), scales.data(),
                                                   boxes.const_data_ptr(), boxes_are_double,
                                                   workspace.mutable_data_ptr(), stream));
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  for (size_t i = 0; i < scales.size(); ++i) {
    if (grads[i].numel() == 0) continue;
    p.height = sizes[2 * i];
    p.width = sizes[2 * i + 1];
    p.spatial_scale = scales[i];
    STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "multiscale_roi_align_backward", [&] {
      using T = cuda::DeviceType<scalar_t>;
      STD_CUDA_CHECK(cuda::roi_align_gather(p, data<T>(grad), strides, boxes.const_data_ptr(), boxes_are_double,
                                            mutable_data<T>(grads[i]), format == MemoryFormat::ChannelsLast,
                                            workspace.const_data_ptr(), static_cast<int64_t>(i) * batch_size, stream));
      STD_CUDA_KERNEL_LAUNCH_CHECK();
    });
  }
  return grads;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("multiscale_roi_align", TORCH_BOX(&multiscale_roi_align));
  m.impl("multiscale_roi_align_backward", TORCH_BOX(&multiscale_roi_align_backward));
}

}  // namespace structops
