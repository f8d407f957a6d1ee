// Matrix NMS: launchers, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"
#include "matrix_nms/matrix_nms_rule.h"

namespace structops::cpu {

template <class T>
struct MatrixNmsInput {
  int64_t n;            // less than 2^32
  const T* scores;      // [N]
  const T* boxes;       // [N, 4] (x1, y1, x2, y2), or null
  const T* ious;        // [N, N], row: the box that is lowered; null with boxes
  const int64_t* idxs;  // [N] class of each box, or null
};

// lowered [N]: each score times its weight.
template <class T>
void matrix_nms(const MatrixNmsInput<T>& in, const MatrixNmsRule<T>& rule, T* lowered, ParallelFor parallel_for);

}  // namespace structops::cpu
