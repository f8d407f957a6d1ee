// Boxes to and from a detector head's regression outputs: parameters and launchers, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

enum class Coding : int64_t { deltas = 0, distances = 1, pixel_distances = 2, cells = 3 };

// Codes and boxes are [B * A, C, 4]: C boxes for each of A anchors, B times over.
struct CodingParams {
  int64_t batch, anchors, classes;
  Coding coding;
  double weights[4];  // of the deltas
  double clip;        // largest logarithm of a size
  double stride;      // side of a cell
};

// Which codings need exponentials of the sizes, and of the offsets of centres (logarithms, the other way round).
constexpr bool has_sizes(Coding c) { return c == Coding::deltas || c == Coding::cells; }
constexpr bool has_offsets(Coding c) { return c == Coding::cells; }

// Arguments of those functions, then their values: [B * A, C, 2] each, or null where a coding has none.
template <class T>
struct Curves {
  T *offsets, *sizes;
};

namespace cpu {

// T is float or double; everything dense. `in` is what is decoded or encoded, `out` the result. anchors [A, 4].
template <class T>
void coding_arguments(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& to,
                      ParallelFor parallel_for);
template <class T>
void code_boxes(const CodingParams& p, bool decode, const T* in, const T* anchors, const Curves<T>& values, T* out,
                ParallelFor parallel_for);
// grad as out; grad_in as in, grad_anchors as anchors, every element written.
template <class T>
void code_boxes_backward(const CodingParams& p, bool decode, const T* grad, const T* in, const T* anchors,
                         const Curves<T>& values, T* grad_in, T* grad_anchors, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
