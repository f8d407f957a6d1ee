// Box coding on the CPU: rows of boxes with one anchor each, shared between threads. No instruction sets: the work is a
// few operations on bytes that come from memory once, and the exponentials are torch's.
#include <algorithm>

#include "box_coding/box_coding.h"
#include "box_coding/box_coding_maths.h"

namespace structops::cpu {
namespace {

// Calls use(anchor, first) for the row of every (image, anchor): codes first to first + p.classes.
template <class Use>
void for_rows(const CodingParams& p, ParallelFor parallel_for, const Use& use) {
  const int64_t rows = p.batch * p.anchors, some = std::max<int64_t>(1, 1024 / std::max<int64_t>(1, p.classes));
  const double steps = 4.0 * static_cast<double>(rows) * static_cast<double>(p.classes);
  share(parallel_for, workers_for(steps), (rows + some - 1) / some, 1, [&](ItemQueue& queue) {
    for (int64_t begin, end; queue.take(begin, end);)
      for (int64_t row = begin * some; row < std::min((begin + 1) * some, rows); ++row)
        use(row % p.anchors, row * p.classes);
  });
}

// Calls use.operator()<decode>() with the direction as a constant.
template <class Use>
void with_direction(bool decode, const Use& use) {
  decode ? use.template operator()<true>() : use.template operator()<false>();
}

}  // namespace

template <class T>
void coding_arguments(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& to,
                      ParallelFor parallel_for) {
  with_direction(decode, [&]<bool kDecode>() {
    for_rows(p, parallel_for, [&](int64_t a, int64_t first) {
      const CentreSize<T> anchor = anchor_of(p.coding, box_at(anchors, a));
      for (int64_t i = first; i < first + p.classes; ++i) put_arguments<kDecode>(p, in, anchor, i, to);
    });
  });
}

template <class T>
void code_boxes(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& values, T* out,
                ParallelFor parallel_for) {
  with_direction(decode, [&]<bool kDecode>() {
    for_rows(p, parallel_for, [&](int64_t a, int64_t first) {
      const CentreSize<T> anchor = anchor_of(p.coding, box_at(anchors, a));
      for (int64_t i = first; i < first + p.classes; ++i) put_coded<kDecode>(p, in, anchor, values, i, out);
    });
  });
}

template <class T>
void code_boxes_backward(const CodingParams& p, bool decode, const T* grad, const T* in, const T* anchors,
                         const Curves<T>& values, T* grad_in, T* grad_anchors, ParallelFor parallel_for) {
  // An anchor's gradient is a sum over images and classes: one thread makes all of it, in order.
  CodingParams per_anchor = p;
  per_anchor.batch = 1;
  with_direction(decode, [&]<bool kDecode>() {
    for_rows(per_anchor, parallel_for, [&](int64_t a, int64_t first) {
      const CentreSize<T> anchor = anchor_of(p.coding, box_at(anchors, a));
      CentreSize<T> to_anchor{};
      for (int64_t image = 0; image < p.batch; ++image, first += p.anchors * p.classes)
        for (int64_t i = first; i < first + p.classes; ++i)
          put_gradient<kDecode>(p, grad, in, anchor, values, i, grad_in, to_anchor);
      put_box(grad_anchors, a, anchor_gradient(to_anchor));
    });
  });
}

#define INSTANTIATE(T)                                                                                                \
  template void coding_arguments<T>(const CodingParams&, bool, const T*, const T*, const Curves<T>&, ParallelFor);    \
  template void code_boxes<T>(const CodingParams&, bool, const T*, const T*, const Curves<T>&, T*, ParallelFor);      \
  template void code_boxes_backward<T>(const CodingParams&, bool, const T*, const T*, const T*, const Curves<T>&, T*, \
                                       T*, ParallelFor);
INSTANTIATE(float)
INSTANTIATE(double)
#undef INSTANTIATE

}  // namespace structops::cpu
