// generate_anchors, default_boxes and yolo_grid for torch: schemas and the CPU binding (checks, allocation, kernel).
#include "anchors/anchors.h"
#include "anchors/anchors_checks.h"
#include "common/cpu/memory.h"

namespace structops {
namespace {

GridLevels levels_of(const Grids& grids) {
  const void* data[kMaxGridLevels];
  for (int64_t l = 0; l < grids.size(); ++l) data[l] = grids.data(l);
  return grid_levels(grids.geometry.data(), grids.divisors_or_null(), data, grids.size());
}

Tensor rows_on_cpu(int64_t rows, int64_t columns, ScalarType type, const Tensor& like) {
  Tensor out = empty({rows, columns}, type, like);
  cpu::advise_huge_pages(out.mutable_data_ptr(), out.numel() * out.element_size());
  return out;
}

Tensor generate_anchors(const std::vector<Tensor>& cell_anchors, const std::vector<int64_t>& grid_sizes,
                        const std::vector<int64_t>& strides) {
  constexpr const char* op = "generate_anchors";
  check_grids(op, cell_anchors.size(), grid_sizes);
  check_strides(op, cell_anchors.size(), strides);
  check_cells(op, "cell_anchors", cell_anchors, 4);
  const Tensor& first = cell_anchors[0];
  const Grids grids(cell_anchors, first.scalar_type(), grid_sizes, strides);
  Tensor out = rows_on_cpu(grids.rows(), 4, first.scalar_type(), first);
  STRUCTOPS_DISPATCH_FLOATING(first.scalar_type(), op, [&] {
    cpu::generate_anchors(levels_of(grids), mutable_data<scalar_t>(out), parallel_for);
  });
  return out;
}

Tensor default_boxes(const std::vector<Tensor>& wh_pairs, const std::vector<int64_t>& grid_sizes,
                     const std::vector<int64_t>& image_size, const std::vector<double>& steps, bool clip) {
  check_default_boxes(wh_pairs, grid_sizes, image_size, steps);
  const ScalarType type = wide_type(wh_pairs[0]);  // half a pixel is lost at 1000 pixels in a half
  Grids grids(wh_pairs, type, grid_sizes, {});
  grids.set_divisors(image_size, steps);
  Tensor out = rows_on_cpu(grids.rows(), 4, type, wh_pairs[0]);
  const auto run = [&]<class T>(T) {
    cpu::default_boxes(levels_of(grids), image_size[0], image_size[1], clip, mutable_data<T>(out), parallel_for);
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
  const Grids grids({}, like.scalar_type(), grid_sizes, strides);
  Tensor out = rows_on_cpu(grids.rows(), with_stride ? 4 : 2, like.scalar_type(), like);
  STRUCTOPS_DISPATCH_FLOATING(like.scalar_type(), op, [&] {
    cpu::yolo_grid(levels_of(grids), offset, with_stride, mutable_data<scalar_t>(out), parallel_for);
  });
  return out;
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(structops, m) {
  m.def("generate_anchors(Tensor[] cell_anchors, SymInt[] grid_sizes, SymInt[] strides) -> Tensor");
  m.def(
      "default_boxes(Tensor[] wh_pairs, SymInt[] grid_sizes, SymInt[] image_size, float[] steps, bool clip) -> Tensor");
  m.def("yolo_grid(Tensor like, SymInt[] grid_sizes, SymInt[] strides, float offset, bool with_stride) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(structops, CPU, m) {
  m.impl("generate_anchors", TORCH_BOX(&generate_anchors));
  m.impl("default_boxes", TORCH_BOX(&default_boxes));
  m.impl("yolo_grid", TORCH_BOX(&yolo_grid));
}

}  // namespace structops
