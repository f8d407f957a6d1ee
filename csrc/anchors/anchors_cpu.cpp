// Anchors, default boxes and grid points on the CPU. Writing the rows is what takes the time, so there is one loop for
// every instruction set.
#include <type_traits>

#include "anchors/anchors.h"
#include "common/tensor.h"

namespace structops::cpu {
namespace {

constexpr int64_t kRows = 4096;  // that a thread takes at a time

template <class T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class R>
struct Round {
  using T = acc_t<R>;
  static T up(R v) { return static_cast<T>(v); }
  static T to_stored(T v) { return static_cast<T>(static_cast<R>(v)); }
};

template <class Row>
void fill(const GridLevels& all, const Row& row, typename Row::Stored* out, int64_t begin, int64_t end) {
  using R = typename Row::Stored;
  int64_t l = 0;
  for (int64_t i = begin; i < end;) {
    while (l + 1 < all.levels && all.level[l + 1].first <= i) ++l;
    const GridLevel& level = all.level[l];
    const int64_t stop = l + 1 < all.levels ? std::min(end, all.level[l + 1].first) : end;
    AnchorPlace<int64_t> at = anchor_place(i - level.first, level.width, level.cells);
    for (; i < stop; ++i) {
      const auto box = row(level, at.y, at.x, at.cell);
      R* to = out + i * Row::kColumns;
      to[0] = static_cast<R>(box.x1);
      to[1] = static_cast<R>(box.y1);
      if constexpr (Row::kColumns == 4) {
        to[2] = static_cast<R>(box.x2);
        to[3] = static_cast<R>(box.y2);
      }
      if (++at.cell == level.cells) {
        at.cell = 0;
        if (++at.x == level.width) at.x = 0, ++at.y;
      }
    }
  }
}

template <class Row>
void run(const GridLevels& all, const Row& row, typename Row::Stored* out, ParallelFor parallel_for) {
  // The 268,569 rows of an RPN take 0.2 ms, which a second thread halves at best and on a busy machine multiplies.
  share(parallel_for, workers_for(static_cast<double>(all.rows) / 4), all.rows, kRows, [&](ItemQueue& queue) {
    for (int64_t begin, end; queue.take(begin, end);) fill(all, row, out, begin, end);
  });
}

}  // namespace

template <class T>
void generate_anchors(const GridLevels& levels, T* out, ParallelFor parallel_for) {
  run(levels, AnchorRow<acc_t<T>, T, Round<T>>{}, out, parallel_for);
}

template <class T>
void default_boxes(const GridLevels& levels, int64_t image_height, int64_t image_width, bool clip, T* out,
                   ParallelFor parallel_for) {
  const DefaultBoxRow<T> row{static_cast<T>(image_height), static_cast<T>(image_width), clip};
  run(levels, row, out, parallel_for);
}

template <class T>
void yolo_grid(const GridLevels& levels, double offset, bool with_stride, T* out, ParallelFor parallel_for) {
  using A = acc_t<T>;
  if (with_stride)
    run(levels, PointRow<A, T, 4>{static_cast<A>(offset)}, out, parallel_for);
  else
    run(levels, PointRow<A, T, 2>{static_cast<A>(offset)}, out, parallel_for);
}

#define INSTANTIATE(T)                                                   \
  template void generate_anchors<T>(const GridLevels&, T*, ParallelFor); \
  template void yolo_grid<T>(const GridLevels&, double, bool, T*, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
INSTANTIATE(Half)
INSTANTIATE(BFloat16)
#undef INSTANTIATE
template void default_boxes<float>(const GridLevels&, int64_t, int64_t, bool, float*, ParallelFor);
template void default_boxes<double>(const GridLevels&, int64_t, int64_t, bool, double*, ParallelFor);

}  // namespace structops::cpu
