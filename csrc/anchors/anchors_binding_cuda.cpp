// generate_anchors, default_boxes and yolo_grid for torch on CUDA: checks, allocation, one launch on the current
// stream. Nothing here waits for the GPU, so all can be captured in a CUDA graph.
#include "anchors/anchors_checks.h"
#include "anchors/anchors_cuda.h"
#include "common/cuda/binding.h"

namespace structops {
namespace {

using torch::stable::accelerator::DeviceGuard;

cuda::LevelCells cells_of(const Grids& g) {
  return {g.data(0), g.data(1), g.data(2), g.data(3), g.data(4), g.data(5), g.data(6), g.data(7)};
}

Tensor generate_anchors(const std::vector<Tensor>& cell_anchors, const std::vector<int64_t>& grid_sizes,
                        const std::vector<int64_t>& strides) {
  constexpr const char* op = "generate_anchors";
  check_grids(op, cell_anchors.size(), grid_sizes);
  check_strides(op, cell_anchors.size(), strides);
  check_cells(op, "cell_anchors", cell_anchors, 4);
  const Tensor& first = cell_anchors[0];
  const DeviceGuard guard(first.get_device_index());
  const Grids grids(cell_anchors, first.scalar_type(), grid_sizes, strides);
  Tensor out = empty({grids.rows(), 4}, first.scalar_type(), first);
  STRUCTOPS_DISPATCH_FLOATING(first.scalar_type(), op, [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::generate_anchors(cells_of(grids), grids.geometry.data(), grids.size(), mutable_data<T>(out),
                                          cuda::current_stream(first)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

Tensor default_boxes(const std::vector<Tensor>& wh_pairs, const std::vector<int64_t>& grid_sizes,
                     const std::vector<int64_t>& image_size, const std::vector<double>& steps, bool clip) {
  check_default_boxes(wh_pairs, grid_sizes, image_size, steps);
  const Tensor& first = wh_pairs[0];
  const DeviceGuard guard(first.get_device_index());
  const ScalarType type = wide_type(first);  // half a pixel is lost at 1000 pixels in a half
  Grids grids(wh_pairs, type, grid_sizes, {});
  grids.set_divisors(image_size, steps);
  Tensor out = empty({grids.rows(), 4}, type, first);
  const auto run = [&]<class T>(T) {
    STD_CUDA_CHECK(cuda::default_boxes(cells_of(grids), grids.geometry.data(), grids.divisors_or_null(), grids.size(),
                                       image_size[0], image_size[1], clip, mutable_data<T>(out),
                                       cuda::current_stream(first)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  };
  type == ScalarType::Double ? run(double()) : run(float());
  return out;
}

Tensor yolo_grid(const Tensor& like, const std::vector<int64_t>& grid_sizes, const std::vector<int64_t>& strides,
                 double offset, bool with_stride) {
  constexpr const char* op = "yolo_grid";
  check_like(op, like, offset);
  check_grids(op, grid_sizes.size() / 2, grid_sizes);
  check_strides(op, grid_sizes.size() / 2, strides);
  const DeviceGuard guard(like.get_device_index());
  const Grids grids({}, like.scalar_type(), grid_sizes, strides);
  Tensor out = empty({grids.rows(), with_stride ? 4 : 2}, like.scalar_type(), like);
  STRUCTOPS_DISPATCH_FLOATING(like.scalar_type(), op, [&] {
    using T = cuda::DeviceType<scalar_t>;
    STD_CUDA_CHECK(cuda::yolo_grid(grids.geometry.data(), grids.size(), offset, with_stride, mutable_data<T>(out),
                                   cuda::current_stream(like)));
    STD_CUDA_KERNEL_LAUNCH_CHECK();
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(structops, CUDA, m) {
  m.impl("generate_anchors", TORCH_BOX(&generate_anchors));
  m.impl("default_boxes", TORCH_BOX(&default_boxes));
  m.impl("yolo_grid", TORCH_BOX(&yolo_grid));
}

}  // namespace structops
