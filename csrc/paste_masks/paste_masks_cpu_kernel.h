// Pasting masks on one instruction set: included inside its namespace by common/cpu/foreach_isa.h.
//
// A mask of 28 x 28 becomes a box of some hundred pixels, of an image of a million. Most of the work is writing what
// lies outside, so bands of rows are filled in one piece; within a box every row of the mask is stretched to the box's
// width once, and a pixel is one multiplication and one fused multiply-add of two such rows.
#include "common/cpu/vec.h"

// Pixels of a row that are decided together: a word of bits. Columns are laid out from a multiple of it.
constexpr int64_t kPastedTogether = 64;

// a * b + c, rounded once on every instruction set: it decides what is above a threshold.
template <class T>
inline Vec<T> fused(Vec<T> a, Vec<T> b, Vec<T> c) {
#if STRUCTOPS_ISA_AVX512 || (STRUCTOPS_ISA_AVX2 && STRUCTOPS_VECTOR_BYTES == 32)
  return multiply_add(a, b, c);
#else
  for (int64_t i = 0; i < kLanes<T>; ++i)
    c[i] = sizeof(T) == 4 ? __builtin_fmaf(a[i], b[i], c[i]) : __builtin_fma(a[i], b[i], c[i]);
  return c;
#endif
}

// The visible columns of one detection's box: which numbers of a row of the mask they lie between, and rows of the mask
// as those columns see them.
template <class T>
class PastedColumns {
 public:
  void prepare(const PasteParams& params, const T* detection, const PasteBox& pasted) {
    p_ = &params, mask_ = detection, box_ = pasted;
    origin = box_.x.begin / kPastedTogether * kPastedTogether;
    padded_ = (box_.x.end - origin + kPastedTogether - 1) / kPastedTogether * kPastedTogether;
    by_rows_ = box_.by_rows();
    // Weights to the left and to the right; of two rows, what belongs to either; a spare. A vector may end beyond the
    // last. Columns outside the box stay zero.
    const int64_t numbers = 7 * padded_ + kLanes<T>;
    numbers_ = numbers_memory_.at_least(numbers);
    std::fill_n(numbers_, numbers, T(0));
    places_ = places_memory_.at_least(2 * padded_);
    line_ = line_memory_.at_least(p_->mask_width + 2 * p_->padding);
    for (int64_t x = box_.x.begin; x < box_.x.end; ++x) {
      const PasteTap<T> tap = paste_tap<T>(x - box_.x.first, p_->mask_width + 2 * p_->padding, box_.x.length);
      const int64_t c = x - origin;
      places_[c] = tap.low, places_[padded_ + c] = tap.high;
      numbers_[c] = tap.low_weight, numbers_[padded_ + c] = tap.high_weight;
    }
    held_[0] = held_[1] = -1;
  }

  // Makes y the row that at() looks at.
  void go_to(int64_t y) {
    const PasteTap<T> tap = paste_tap<T>(y - box_.y.first, p_->mask_height + 2 * p_->padding, box_.y.length);
    low_ = stretched(tap.low), high_ = stretched(tap.high);
    low_weight_ = broadcast(tap.low_weight), high_weight_ = broadcast(tap.high_weight);
  }

  // The pixels from column origin + c on.
  Vec<T> at(int64_t c) const {
    const Vec<T> a = load(low_ + c), b = load(high_ + c);
    if (by_rows_) return fused<T>(a, low_weight_, b * high_weight_);
    const Vec<T> left = load(numbers_ + c), right = load(numbers_ + padded_ + c);
    Vec<T> sum = fused<T>(low_weight_ * left, a, (low_weight_ * right) * load(low_ + padded_ + c));
    sum = fused<T>(high_weight_ * left, b, sum);
    return fused<T>(high_weight_ * right, load(high_ + padded_ + c), sum);
  }

  int64_t origin = 0;  // a multiple of kPastedTogether

 private:
  // Row r of the padded mask: by_rows, its values at the columns; else its numbers to the left, then those to the
  // right. The last two rows are kept, at r's parity: that is what the next row of the image looks at, mostly.
  const T* stretched(int64_t r) {
    T* row = numbers_ + (2 + 2 * (r & 1)) * padded_;
    if (std::exchange(held_[r & 1], r) == r) return row;
    const int64_t inside = r - p_->padding, width = p_->mask_width;
    std::fill_n(line_, width + 2 * p_->padding, T(0));
    if (inside >= 0 && inside < p_->mask_height) std::copy_n(mask_ + inside * width, width, line_ + p_->padding);
    const int32_t *low = places_, *high = places_ + padded_;
    const int64_t begin = box_.x.begin - origin, end = box_.x.end - origin;
    T* right = by_rows_ ? numbers_ + 6 * padded_ : row + padded_;
    for (int64_t c = begin; c < end; ++c) row[c] = line_[low[c]], right[c] = line_[high[c]];
    if (by_rows_)
      for (int64_t c = 0; c < padded_; c += kLanes<T>)
        store(row + c, fused<T>(load(row + c), load(numbers_ + c), load(right + c) * load(numbers_ + padded_ + c)));
    return row;
  }

  const PasteParams* p_ = nullptr;
  const T* mask_ = nullptr;
  PasteBox box_{};
  bool by_rows_ = false;
  int64_t padded_ = 0, held_[2] = {-1, -1};
  Scratch<T> numbers_memory_, line_memory_;
  Scratch<int32_t> places_memory_;
  T *numbers_ = nullptr, *line_ = nullptr;
  int32_t* places_ = nullptr;
  const T *low_ = nullptr, *high_ = nullptr;
  Vec<T> low_weight_{}, high_weight_{};
};

// Bit l: whether pixel c + l is at or above the bar.
template <class T>
inline uint64_t bits_at_or_above(const PastedColumns<T>& columns, int64_t c, Vec<T> bar) {
  uint64_t word = 0;
  for (int64_t l = 0; l < kPastedTogether; l += kLanes<T>)
    word |= static_cast<uint64_t>(bits(less_equal(bar, columns.at(c + l)))) << l;
  return word;
}

// Bits as bytes of 0 and 1.
inline void store_as_bytes(uint64_t word, uint8_t* to) {
#if STRUCTOPS_ISA_AVX512
  _mm512_storeu_si512(to, _mm512_maskz_set1_epi8(word, 1));
#else
  for (int64_t i = 0; i < 8; ++i) {
    constexpr uint64_t kEach = 0x0101010101010101, kOwn = 0x8040201008040201;  // a bit of its own for each byte
    const uint64_t own = (word >> (8 * i) & 0xff) * kEach & kOwn;
    const uint64_t bytes = (own + 0x7f7f7f7f7f7f7f7f) >> 7 & kEach;
    std::memcpy(to + 8 * i, &bytes, 8);
  }
#endif
}

// One kind of result: how many bytes a row has, what a pixel outside of every box is, and a row within one.
template <class T>
struct PastedValues {
  explicit PastedValues(const PasteParams& p) : width(p.width), row_bytes(p.width * int64_t(sizeof(T))) {}
  const int64_t width, row_bytes;

  void outside(uint8_t* rows, int64_t count) const { std::memset(rows, 0, static_cast<size_t>(count * row_bytes)); }
  void within(const PastedColumns<T>& columns, const PasteRange& x, uint8_t* bytes) const {
    T* row = reinterpret_cast<T*>(bytes);
    std::fill(row, row + x.begin, T(0));
    int64_t i = x.begin;
    for (; i + kLanes<T> <= x.end; i += kLanes<T>) store(row + i, columns.at(i - columns.origin));
    if (i < x.end) store_part(row + i, columns.at(i - columns.origin), x.end - i);
    std::fill(row + x.end, row + width, T(0));
  }
};

template <class T>
struct PastedBits {
  PastedBits(const PasteParams& p, bool as_bytes)
      : width(p.width),
        row_bytes(as_bytes ? p.width : packed_bytes(p.width)),
        packed(!as_bytes),
        bar(broadcast(bar_of(static_cast<T>(p.threshold)))),
        zero_is_above(T(0) > static_cast<T>(p.threshold)) {}
  const int64_t width, row_bytes;
  const bool packed;
  const Vec<T> bar;
  const bool zero_is_above;

  // The least number above the threshold; NaN, which nothing reaches, where there is none.
  static T bar_of(T threshold) {
    constexpr T kInf = std::numeric_limits<T>::infinity();
    return threshold < kInf ? std::nextafter(threshold, kInf) : std::numeric_limits<T>::quiet_NaN();
  }

  void outside(uint8_t* rows, int64_t count) const {
    const uint8_t byte = zero_is_above ? packed ? 0xff : 1 : 0;
    std::memset(rows, byte, static_cast<size_t>(count * row_bytes));
    if (packed && zero_is_above && width % 8)  // no bits beyond the image
      for (int64_t r = 1; r <= count; ++r) rows[r * row_bytes - 1] = static_cast<uint8_t>((1 << width % 8) - 1);
  }
  void within(const PastedColumns<T>& columns, const PasteRange& x, uint8_t* row) const {
    const int64_t unit = packed ? 8 : 1;  // pixels of a byte
    if (columns.origin > 0) std::memset(row, zero_is_above ? packed ? 0xff : 1 : 0, size_t(columns.origin / unit));
    int64_t at = columns.origin;
    for (; at < x.end; at += kPastedTogether) {
      uint64_t word = bits_at_or_above(columns, at - columns.origin, bar);
      const int64_t pixels = std::min(kPastedTogether, width - at);
      if (pixels < kPastedTogether) word &= (uint64_t{1} << pixels) - 1;
      if (packed) {
        std::memcpy(row + at / 8, &word, size_t(packed_bytes(pixels)));
      } else if (pixels == kPastedTogether) {
        store_as_bytes(word, row + at);
      } else {
        alignas(64) uint8_t bytes[kPastedTogether];
        store_as_bytes(word, bytes);
        std::memcpy(row + at, bytes, size_t(pixels));
      }
    }
    if (at < width) {
      const int64_t done = at / unit;
      std::memset(row + done, zero_is_above ? packed ? 0xff : 1 : 0, size_t(row_bytes - done));
      if (packed && zero_is_above && width % 8) row[row_bytes - 1] = static_cast<uint8_t>((1 << width % 8) - 1);
    }
  }
};

// Rows [first, last) of detection k's image.
template <class T, class Kind>
void paste_rows_of(const PasteParams& p, const Kind& kind, const T* masks, const void* boxes, int64_t k, int64_t first,
                   int64_t last, PastedColumns<T>& columns, uint8_t* rows) {
  const PasteBox box = paste_box(p, boxes, k);
  const int64_t begin = box.empty() ? last : std::clamp(box.y.begin, first, last);
  const int64_t stop = box.empty() ? last : std::clamp(box.y.end, begin, last);
  kind.outside(rows, begin - first);
  if (begin < stop) columns.prepare(p, masks + k * p.mask_height * p.mask_width, box);
  for (int64_t y = begin; y < stop; ++y) {
    columns.go_to(y);
    kind.within(columns, box.x, rows + (y - first) * kind.row_bytes);
  }
  kind.outside(rows + (stop - first) * kind.row_bytes, last - stop);
}

template <class T, class Kind>
void paste_rows(const PasteParams& p, const Kind& kind, const T* masks, const void* boxes, uint8_t* output,
                ParallelFor parallel_for) {
  // Rows are handed out by quarters of a megabyte: a few for each detection, so that one detection keeps all threads
  // busy too. Of a large result, which malloc takes fresh from the system, by its huge pages: where two threads reach
  // one at once, both clear 2 MB and one of them in vain (on two cores 7.8 ms of their time for 107 MB, against 5.8).
  const int64_t bytes = p.count * p.height * kind.row_bytes;
  const int64_t slice = static_cast<int64_t>(kHugePage) / (bytes >= int64_t(16 * kHugePage) ? 1 : 8);
  const int64_t before = static_cast<int64_t>(reinterpret_cast<uintptr_t>(output) % static_cast<uintptr_t>(slice));
  const auto row_at = [&](int64_t place) {  // the first that begins there or later, counted through all detections
    return (std::clamp<int64_t>(place - before, 0, bytes) + kind.row_bytes - 1) / kind.row_bytes;
  };
  const int64_t items = (before + bytes + slice - 1) / slice;
  share(parallel_for, workers_for(double(bytes) / 64), items, 1, [&](ItemQueue& queue) {
    PastedColumns<T> columns;
    for (int64_t item, end; queue.take(item, end);) {
      const int64_t stop = row_at((item + 1) * slice);
      for (int64_t row = row_at(item * slice), next; row < stop; row = next) {
        const int64_t k = row / p.height;
        next = std::min(stop, (k + 1) * p.height);
        paste_rows_of(p, kind, masks, boxes, k, row - k * p.height, next - k * p.height, columns,
                      output + row * kind.row_bytes);
      }
    }
  });
}

template <class T>
void paste_masks(const PasteParams& p, const T* masks, const void* boxes, void* output, ParallelFor parallel_for) {
  uint8_t* bytes = static_cast<uint8_t*>(output);
  if (p.kind == PasteKind::values) return paste_rows(p, PastedValues<T>(p), masks, boxes, bytes, parallel_for);
  paste_rows(p, PastedBits<T>(p, p.kind == PasteKind::flags), masks, boxes, bytes, parallel_for);
}
