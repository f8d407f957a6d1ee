// Intersection over union of boxes, and its generalized, distance and complete forms: parameters and launchers, free of
// torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

enum class BoxIouKind : int64_t { plain = 0, generalized = 1, distance = 2, complete = 3 };
enum class BoxFormat : int64_t { xyxy = 0, xywh = 1, cxcywh = 2 };

// Of the complete form: what makes a quarter turn squared 1.
constexpr double kAspectScale = 4 / (3.141592653589793 * 3.141592653589793);

// Every box of the first set with every box of the second.
struct BoxIouParams {
  int64_t batch, rows, columns;  // B, N, M
  BoxIouKind kind;
  BoxFormat format;  // of the boxes
  double eps;        // of the distance and complete forms
};

// Calls use.operator()<kind>() with the kind as a constant.
template <class Use>
auto with_kind(BoxIouKind kind, const Use& use) {
  switch (kind) {
    case BoxIouKind::generalized:
      return use.template operator()<BoxIouKind::generalized>();
    case BoxIouKind::distance:
      return use.template operator()<BoxIouKind::distance>();
    case BoxIouKind::complete:
      return use.template operator()<BoxIouKind::complete>();
    default:
      return use.template operator()<BoxIouKind::plain>();
  }
}

// T is float or double. boxes1 [B, N, 4] and boxes2 [B, M, 4], dense; angles1 [B, N] and angles2 [B, M], the arc
// tangents of their box_ratios (null unless the kind is complete).
template <class T>
struct BoxSets {
  const T *boxes1, *boxes2, *angles1, *angles2;
};

namespace cpu {

// ratios [n]: width / height of boxes [n, 4] (x1, y1, x2, y2).
template <class T>
void box_ratios(const T* boxes, int64_t n, T* ratios);

// output [B, N, M], dense.
template <class T>
void box_iou(const BoxIouParams& p, const BoxSets<T>& sets, T* output, ParallelFor parallel_for);

// grad [B, N, M]; grad1 [B, N, 4] and grad2 [B, M, 4], every element written.
template <class T>
void box_iou_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                      ParallelFor parallel_for);

// Box i of one set with box i of the other: p.rows pairs, the other sizes 1; output and grad [N].
template <class T>
void box_iou_rows(const BoxIouParams& p, const BoxSets<T>& sets, T* output, ParallelFor parallel_for);
template <class T>
void box_iou_rows_backward(const BoxIouParams& p, const T* grad, const BoxSets<T>& sets, T* grad1, T* grad2,
                           ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
