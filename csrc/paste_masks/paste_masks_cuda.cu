// Pasting masks on the GPU.
//
// 100 detections of 800 x 1333 are 107 MB of flags, nearly all of them outside the boxes: what counts is that they are
// written 16 bytes at a time. So a thread has 16 bytes of the result, wherever rows and images begin, and looks first
// whether any of them is inside.
#include <type_traits>

#include "common/cuda/device.cuh"
#include "paste_masks/paste_axis.h"
#include "paste_masks/paste_masks_cuda.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;

// Pixels of a thread: 16 bytes, or the 8 of one byte, of which rows have a whole number.
template <class T, PasteKind kKind>
constexpr int kPixels = kKind == PasteKind::values  ? 16 / int(sizeof(T))
                        : kKind == PasteKind::flags ? 16
                                                    : 8;

// The pixels of the result one after another, row by row and image by image.
template <class T>
class PixelWalk {
 public:
  __device__ PixelWalk(const PasteParams& p, const T* masks, const void* boxes, int64_t row_pixels, int64_t first)
      : p_(p), masks_(masks), boxes_(boxes), row_pixels_(row_pixels) {
    x_ = first % row_pixels;
    y_ = first / row_pixels % p.height;
    k_ = first / row_pixels / p.height;
    enter_image();
  }

  // Whether the next n pixels are of one row and outside its box.
  __device__ bool outside(int n) const {
    return x_ + n <= row_pixels_ && (!in_row_ || x_ + n <= box_.x.begin || x_ >= box_.x.end);
  }

  __device__ T next() {
    const T value = in_row_ && x_ >= box_.x.begin && x_ < box_.x.end ? inside() : T(0);
    if (++x_ == row_pixels_) {
      x_ = 0;
      if (++y_ == p_.height) {
        y_ = 0;
        if (++k_ < p_.count) enter_image();
      } else {
        enter_row();
      }
    }
    return value;
  }
  __device__ int64_t x() const { return x_; }

 private:
  __device__ void enter_image() {
    box_ = paste_box(p_, boxes_, k_);
    by_rows_ = box_.by_rows();
    enter_row();
  }
  __device__ void enter_row() {
    in_row_ = !box_.empty() && y_ >= box_.y.begin && y_ < box_.y.end;
    if (in_row_) rows_ = paste_tap<T>(y_ - box_.y.first, p_.mask_height + 2 * p_.padding, box_.y.length);
  }
  __device__ T number(int padded_row, int padded_column) const {
    const int64_t row = padded_row - p_.padding, column = padded_column - p_.padding;
    const bool within = row >= 0 && row < p_.mask_height && column >= 0 && column < p_.mask_width;
    return within ? __ldg(masks_ + (k_ * p_.mask_height + row) * p_.mask_width + column) : T(0);
  }
  __device__ T inside() const {
    const PasteTap<T> tap = paste_tap<T>(x_ - box_.x.first, p_.mask_width + 2 * p_.padding, box_.x.length);
    const T a = number(rows_.low, tap.low), b = number(rows_.low, tap.high);
    const T c = number(rows_.high, tap.low), d = number(rows_.high, tap.high);
    if (by_rows_) {
      const T low = fused(a, tap.low_weight, mul_rn(b, tap.high_weight));
      const T high = fused(c, tap.low_weight, mul_rn(d, tap.high_weight));
      return fused(low, rows_.low_weight, mul_rn(high, rows_.high_weight));
    }
    T sum = fused(mul_rn(rows_.low_weight, tap.low_weight), a, mul_rn(mul_rn(rows_.low_weight, tap.high_weight), b));
    sum = fused(mul_rn(rows_.high_weight, tap.low_weight), c, sum);
    return fused(mul_rn(rows_.high_weight, tap.high_weight), d, sum);
  }

  const PasteParams& p_;
  const T* masks_;
  const void* boxes_;
  int64_t row_pixels_, x_, y_, k_;
  PasteBox box_;
  bool by_rows_, in_row_;
  PasteTap<T> rows_;
};

// kKind: a PasteKind, as a plain number to keep the kernel's name readable. row_pixels: those of a row of the result,
// which has whole bytes; pixels: all of them.
template <class T, int kKind>
__global__ void __launch_bounds__(kThreads)
    paste_masks_kernel(PasteParams p, const T* __restrict__ masks, const void* __restrict__ boxes, int64_t row_pixels,
                       int64_t pixels, uint8_t* __restrict__ output) {
  constexpr int kMine = kPixels<T, PasteKind(kKind)>;
  const int64_t unit = int64_t(blockIdx.x) * kThreads + threadIdx.x, first = unit * kMine;
  if (first >= pixels) return;
  PixelWalk<T> walk(p, masks, boxes, row_pixels, first);
  const bool zeros = walk.outside(kMine);
  const T threshold = T(p.threshold);
  if constexpr (kKind == int(PasteKind::packed)) {
    unsigned byte = 0;
    const int64_t left = p.width - walk.x();  // pixels beyond the image are no bits
#pragma unroll 1
    for (int i = 0; i < kMine; ++i) {
      const T value = zeros ? T(0) : walk.next();
      byte |= unsigned(i < left && value > threshold) << i;
    }
    output[unit] = uint8_t(byte);
  } else {
    constexpr int kEach = kKind == int(PasteKind::flags) ? 4 : 1, kNumbers = kMine / kEach;  // pixels of a word, words
    const int mine = pixels - first < kMine ? int(pixels - first) : kMine;
    using Word = std::conditional_t<kKind == int(PasteKind::values), T, unsigned>;
    Pack<Word, kNumbers> pack;
    int taken = 0;
#pragma unroll
    for (int w = 0; w < kNumbers; ++w) {
      Word word = 0;
#pragma unroll 1
      for (int i = 0; i < kEach && taken < mine; ++i, ++taken) {
        const T value = zeros ? T(0) : walk.next();
        if constexpr (kKind == int(PasteKind::values)) {
          word = value;
        } else {
          word |= unsigned(value > threshold) << 8 * i;
        }
      }
      pack.value[w] = word;
    }
    uint8_t* to = output + unit * 16;
    if (mine == kMine) {
      *reinterpret_cast<Pack<Word, kNumbers>*>(to) = pack;
      return;
    }
    // The end of the result. Every index is a constant: the words stay in registers.
#pragma unroll
    for (int i = 0; i < kMine; ++i) {
      if (i >= mine) continue;
      if constexpr (kKind == int(PasteKind::values)) {
        reinterpret_cast<T*>(to)[i] = pack.value[i];
      } else {
        to[i] = uint8_t(pack.value[i / kEach] >> 8 * (i % kEach));
      }
    }
  }
}

}  // namespace

template <class T>
cudaError_t paste_masks(const PasteParams& p, const T* masks, const void* boxes, void* output, cudaStream_t stream) {
  const int64_t row_pixels = p.kind == PasteKind::packed ? 8 * packed_bytes(p.width) : p.width;
  const int64_t pixels = p.count * p.height * row_pixels;
  const auto start = [&]<PasteKind kKind>() {
    const int64_t blocks = ceil_div<int64_t>(pixels, int64_t{kThreads} * kPixels<T, kKind>);
    if (blocks > kMostBlocks) return cudaErrorInvalidValue;
    return launch(paste_masks_kernel<T, int(kKind)>, dim3(unsigned(blocks)), dim3(kThreads), 0, stream, p, masks, boxes,
                  row_pixels, pixels, static_cast<uint8_t*>(output));
  };
  switch (p.kind) {
    case PasteKind::values:
      return start.template operator()<PasteKind::values>();
    case PasteKind::flags:
      return start.template operator()<PasteKind::flags>();
    default:
      return start.template operator()<PasteKind::packed>();
  }
}

template cudaError_t paste_masks<float>(const PasteParams&, const float*, const void*, void*, cudaStream_t);
template cudaError_t paste_masks<double>(const PasteParams&, const double*, const void*, void*, cudaStream_t);

}  // namespace structops::cuda
