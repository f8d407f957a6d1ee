// multiscale_roi_align for torch: schemas and the CPU binding. The kernels are roi_align's.
#include <limits>

#include "common/cpu/memory.h"
#include "multiscale_roi_align/checks.h"

namespace structops {
namespace {

// The level of each of rois [K, 5] (doubles).
std::vector<int8_t> assign_levels(const char* op, const double* rois, int64_t count, const std::vector<double>& scales,
                                  double canonical_scale, int64_t canonical_level, const OptionalTensor& levels,
                                  const OptionalTensor& valid) {
  const int64_t maps = static_cast<int64_t>(scales.size());
  const LevelRule rule = level_rule(scales.data(), maps, canonical_scale, canonical_level);
  const OptionalTensor given = dense(levels, ScalarType::Long), counts = dense(valid, ScalarType::Long);
  const auto* chosen = data<int64_t>(given);
  const auto* boxes = data<int64_t>(counts);
  const int64_t images = boxes ? counts->size(0) : 0, rows = images ? count / images : 1;
  for (int64_t i = 0; i < images; ++i)
    STRUCTOPS_CHECK(boxes[i] >= 0 && boxes[i] <= rows, op, ": valid[", i, "] is ", boxes[i], ", but must be in [0, ",
                    rows, "]");
  std::vector<int8_t> found(static_cast<size_t>(count));
  for (int64_t k = 0; k < count; ++k) {
    const double* roi = rois + k * 5;
    if (chosen)
      STRUCTOPS_CHECK(chosen[k] >= 0 && chosen[k] < maps, op, ": levels[", k, "] is ", chosen[k],
                      ", but must be in [0, ", maps, ")");
    const int level = chosen ? static_cast<int>(chosen[k]) : level_of(rule, maps, roi[1], roi[2], roi[3], roi[4]);
    found[k] = static_cast<int8_t>(boxes && k % rows >= boxes[k / rows] ? kNoLevel : level);
  }
  return found;
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
  const Tensor boxes = rois_as_double(rois);
  const Tensor& first = features[0];
  const int64_t count = boxes.size(0), batch = first.size(0), channels = first.size(1);
  check_batch_indices(op, boxes, batch);
  const auto* box = data<double>(boxes);
  std::vector<int8_t> level = assign_levels(op, box, count, scales, canonical_scale, canonical_level, levels, valid);
  const MemoryFormat format = memory_format_of(first);
  Tensor output = empty_with_format(first, {count, channels, pooled_height, pooled_width}, format);
  if (output.numel() == 0) return output;
  cpu::advise_huge_pages(output.mutable_data_ptr(), output.numel() * output.element_size());
  cpu::RoiAlignMap maps[kMaxLevels];
  for (size_t i = 0; i < features.size(); ++i) {
    const Tensor& f = features[i];
    maps[i] = {
        {count, batch, channels, f.size(2), f.size(3), pooled_height, pooled_width, scales[i], sampling_ratio, aligned},
        f.const_data_ptr(),
        {f.stride(0), f.stride(1), f.stride(2), f.stride(3)}};
    if (f.numel() > 0) continue;
    for (int8_t& l : level)  // nothing to pool: zeros, as roi_align gives
      if (l == static_cast<int8_t>(i)) l = kNoLevel;
  }
  STRUCTOPS_DISPATCH_FLOATING(first.scalar_type(), "multiscale_roi_align", [&] {
    cpu::roi_align_forward(maps, box, level.data(), mutable_data<scalar_t>(output),
                           format == MemoryFormat::ChannelsLast, parallel_for);
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
  const Tensor boxes = rois_as_double(rois);
  check_batch_indices(op, boxes, batch_size);
  const auto* box = data<double>(boxes);
  const int64_t count = boxes.size(0);
  const std::vector<int8_t> level =
      assign_levels(op, box, count, scales, canonical_scale, canonical_level, levels, valid);
  const MemoryFormat format = memory_format_of(grad);
  const int64_t strides[4] = {grad.stride(0), grad.stride(1), grad.stride(2), grad.stride(3)};
  std::vector<double> here(static_cast<size_t>(count) * 5);
  std::vector<Tensor> grads;
  for (size_t i = 0; i < scales.size(); ++i) {
    grads.push_back(empty_with_format(grad, {batch_size, channels, sizes[2 * i], sizes[2 * i + 1]}, format));
    Tensor& grad_input = grads.back();
    if (grad_input.numel() == 0) continue;
    if (grad.numel() == 0) {
      torch::stable::zero_(grad_input);
      continue;
    }
    cpu::advise_huge_pages(grad_input.mutable_data_ptr(), grad_input.numel() * grad_input.element_size());
    // A box of another level is one that is not finite: the kernel looks no further at it.
    for (int64_t k = 0; k < count; ++k)
      for (int64_t j = 0; j < 5; ++j)
        here[k * 5 + j] =
            j > 0 && level[k] != static_cast<int8_t>(i) ? std::numeric_limits<double>::quiet_NaN() : box[k * 5 + j];
    const RoiAlignParams p{count,         batch_size,   channels,  sizes[2 * i],   sizes[2 * i + 1],
                           pooled_height, pooled_width, scales[i], sampling_ratio, aligned};
    STRUCTOPS_DISPATCH_FLOATING(grad.scalar_type(), "multiscale_roi_align_backward", [&] {
      cpu::roi_align_backward(p, data<scalar_t>(grad), strides, here.data(), mutable_data<scalar_t>(grad_input),
                              format == MemoryFormat::ChannelsLast, parallel_for);
    });
  }
  return grads;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def(
      "multiscale_roi_align(Tensor[] features, Tensor rois, float[] scales, SymInt pooled_height, "
      "SymInt pooled_width, int sampling_ratio, bool aligned, float canonical_scale, int canonical_level, "
      "Tensor? levels, Tensor? valid) -> Tensor");
  m.def(
      "multiscale_roi_align_backward(Tensor grad, Tensor rois, float[] scales, SymInt pooled_height, "
      "SymInt pooled_width, SymInt batch_size, SymInt channels, SymInt[] sizes, int sampling_ratio, bool aligned, "
      "float canonical_scale, int canonical_level, Tensor? levels, Tensor? valid) -> Tensor[]");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("multiscale_roi_align", TORCH_BOX(&multiscale_roi_align));
  m.impl("multiscale_roi_align_backward", TORCH_BOX(&multiscale_roi_align_backward));
}

}  // namespace structops
