// Boxes from a detector head's regression outputs: the arithmetic that decoding shares, on CPU and GPU alike.
//
// T is float or double. Every operation rounds once, in the order of torchvision's Python (which runs it as one torch
// op each), so that results agree with it to the bit. That is why exponentials are not taken here: they come from
// torch's own exp, whose last bit differs between machines and devices, and no other would agree with it.
#pragma once

#if defined(__CUDACC__) || defined(STRUCTOPS_CUDA_ON_CPU)
#define STRUCTOPS_BOX_FUNCTION __host__ __device__ __forceinline__
#else
#define STRUCTOPS_BOX_FUNCTION inline
#endif

namespace structops {

template <class T>
struct BoxOf {
  T x1, y1, x2, y2;
};

// The centre and the size of an anchor or proposal.
template <class T>
struct CentreSize {
  T x, y, width, height;
};

// No contraction: the build forbids it to host compilers (-ffp-contract=off) and to nvcc (-fmad=false).
template <class T>
STRUCTOPS_BOX_FUNCTION CentreSize<T> centre_size(const BoxOf<T>& b) {
  const T width = b.x2 - b.x1, height = b.y2 - b.y1;
  return {b.x1 + T(0.5) * width, b.y1 + T(0.5) * height, width, height};
}

// R-CNN's deltas: dx, dy in units of the anchor's size; ex, ey the exponentials of the (clamped) log sizes.
template <class T>
STRUCTOPS_BOX_FUNCTION BoxOf<T> decode_deltas(const CentreSize<T>& anchor, T dx, T dy, T ex, T ey) {
  const T x = dx * anchor.width + anchor.x, y = dy * anchor.height + anchor.y;
  const T half_width = T(0.5) * (ex * anchor.width), half_height = T(0.5) * (ey * anchor.height);
  return {x - half_width, y - half_height, x + half_width, y + half_height};
}

// As torch.clamp: NaN stays.
template <class T>
STRUCTOPS_BOX_FUNCTION T clamp_keeping_nan(T v, T low, T high) {
  const T raised = v < low ? low : v;
  return raised > high ? high : raised;
}

// Into the image [0, width] x [0, height].
template <class T>
STRUCTOPS_BOX_FUNCTION BoxOf<T> clip(const BoxOf<T>& b, T height, T width) {
  return {clamp_keeping_nan(b.x1, T(0), width), clamp_keeping_nan(b.y1, T(0), height),
          clamp_keeping_nan(b.x2, T(0), width), clamp_keeping_nan(b.y2, T(0), height)};
}

}  // namespace structops
