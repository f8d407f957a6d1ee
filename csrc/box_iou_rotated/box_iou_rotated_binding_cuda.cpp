// box_iou_rotated for torch on CUDA: checks and allocation, then the kernels.
#include "box_iou_rotated/box_iou_rotated_checks.h"
#include "box_iou_rotated/box_iou_rotated_cuda.h"
#include "common/cuda/binding.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

template <class T>
void fill(const Tensor& boxes1, const Tensor& boxes2, bool elementwise, Tensor& out) {
  const cudaStream_t stream = cuda::current_stream(boxes1);
  const int64_t n = boxes1.size(0), m = boxes2.size(0);
  const T *a = data<T>(boxes1), *b = data<T>(boxes2);
  T* result = mutable_data<T>(out);
  if (elementwise) {
    STD_CUDA_CHECK(cuda::box_iou_rotated_elementwise(a, b, n, result, stream));
    return;
  }
  const auto workspace = [&](int64_t boxes) {
    return empty({boxes * cuda::RotatedBoxes::kBytes}, ScalarType::Byte, out);
  };
  const Tensor first = workspace(n), second = workspace(m);
  STD_CUDA_CHECK(cuda::rotated_boxes(a, n, first.mutable_data_ptr(), stream));
  STD_CUDA_CHECK(cuda::rotated_boxes(b, m, second.mutable_data_ptr(), stream));
  STD_CUDA_CHECK(cuda::box_iou_rotated(first.mutable_data_ptr(), n, second.mutable_data_ptr(), m, result, stream));
}

Tensor box_iou_rotated(const Tensor& boxes1, const Tensor& boxes2, bool elementwise) {
  check_box_iou_rotated(boxes1, boxes2, elementwise);
  const DeviceGuard guard(boxes1.get_device_index());
  Tensor out = empty_iou(boxes1, boxes2, elementwise);
  if (out.numel() == 0) return out;
  const ScalarType type = out.scalar_type();
  const Tensor a = dense(boxes1, type), b = dense(boxes2, type);
  if (type == ScalarType::Double)
    fill<double>(a, b, elementwise, out);
  else
    fill<float>(a, b, elementwise, out);
  STD_CUDA_KERNEL_LAUNCH_CHECK();
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) { m.impl("box_iou_rotated", TORCH_BOX(&box_iou_rotated)); }

}  // namespace structops
