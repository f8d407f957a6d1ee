// box_iou for torch on CUDA: checks, allocation, launch on the current stream. Nothing here waits for the GPU.
#include <tuple>

#include "box_iou/box_iou_checks.h"
#include "box_iou/box_iou_cuda.h"
#include "common/cuda/binding.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

template <class T>
auto ratios(const Tensor& like) {
  return [stream = cuda::current_stream(like)](const T* boxes, int64_t n, T* to) {
    STD_CUDA_CHECK(cuda::box_ratios(boxes, n, to, stream));
  };
}

Tensor box_iou(const Tensor& boxes1, const Tensor& boxes2, int64_t kind, int64_t fmt, bool elementwise, double eps) {
  const BoxIouParams p = check_box_iou("box_iou", boxes1, boxes2, kind, fmt, elementwise, eps);
  const DeviceGuard guard(boxes1.get_device_index());
  const ScalarType type = wide_type(boxes1, boxes2);
  Tensor output = empty_iou(p, boxes1, type, elementwise);
  if (output.numel() == 0) return output;
  const auto run = [&]<class T>(T) {
    const BoxTensors<T> sets(p, boxes1, boxes2, type, ratios<T>(boxes1));
    STD_CUDA_CHECK((elementwise ? cuda::box_iou_rows<T> : cuda::box_iou<T>)(p, sets.pointers(), mutable_data<T>(output),
                                                                            cuda::current_stream(boxes1)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return output;
}

std::tuple<Tensor, Tensor> box_iou_backward(const Tensor& grad, const Tensor& boxes1, const Tensor& boxes2,
                                            int64_t kind, int64_t fmt, bool elementwise, double eps) {
  const BoxIouParams p = check_box_iou("box_iou_backward", boxes1, boxes2, kind, fmt, elementwise, eps);
  const DeviceGuard guard(boxes1.get_device_index());
  const ScalarType type = wide_type(boxes1, boxes2);
  check_box_iou_grad("box_iou_backward", grad, boxes1, p, type, elementwise);
  const Tensor incoming = dense(grad, type);
  const auto run = [&]<class T>(T) -> std::tuple<Tensor, Tensor> {
    const cudaStream_t stream = cuda::current_stream(boxes1);
    const BoxTensors<T> sets(p, boxes1, boxes2, type, ratios<T>(boxes1));
    Tensor grad1 = torch::stable::empty_like(sets.boxes1), grad2 = torch::stable::empty_like(sets.boxes2);
    if (elementwise) {
      STD_CUDA_CHECK(cuda::box_iou_rows_backward(p, data<T>(incoming), sets.pointers(), mutable_data<T>(grad1),
                                                 mutable_data<T>(grad2), stream));
    } else {
      Tensor workspace =
          empty({static_cast<int64_t>(cuda::box_iou_backward_workspace<T>(p))}, ScalarType::Byte, boxes1);
      STD_CUDA_CHECK(cuda::box_iou_backward(p, data<T>(incoming), sets.pointers(), mutable_data<T>(grad1),
                                            mutable_data<T>(grad2), workspace.mutable_data_ptr(), stream));
    }
    STD_CUDA_KERNEL_LAUNCH_CHECK();
    return {dense(grad1, boxes1.scalar_type()), dense(grad2, boxes2.scalar_type())};
  };
  return type == ScalarType::Double ? run(double()) : run(float());
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("box_iou", TORCH_BOX(&box_iou));
  m.impl("box_iou_backward", TORCH_BOX(&box_iou_backward));
}

}  // namespace structops
