// Packed weights, kept from call to call.
//
// A network that sees one picture at a time multiplies few pixels with many weights, and packing these takes as long as
// multiplying them: 0.3 of 1.2 ms for 256 channels, k4 s2, 16 x 12 pixels; 9 of 11 ms for the layer of 2048 channels
// before it. Panels are kept from the second call on that meets the same weights, and found by their address.
//
// A write to a tensor leaves no trace that could be relied on (one through ``.data`` does not even change its version),
// so a call that would use kept panels reads all weights and compares their fingerprint: half of what packing reads and
// writes, but never stale. Weights that change from call to call, as in training, differ in a sample of a few numbers
// and are neither fingerprinted nor kept.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <typeindex>
#include <utility>
#include <vector>

#include "common/cpu/memory.h"
#include "conv_transpose2d/conv_gemm.h"

namespace structops::cpu {

struct Panels {
  Scratch<std::byte> data;
  bool finite = true;  // every weight is

  template <class R>
  R* numbers() const {
    return reinterpret_cast<R*>(data.get());
  }
};

// What panels depend on besides the weights.
struct PanelOrder {
  std::vector<int64_t> source;
  int64_t source_stride, lanes, depth, whole;
  bool squares;                    // of combined taps
  std::type_index stored, packed;  // the types of a weight and of a packed number

  PanelOrder(const Product& p, bool squares, std::type_index stored, std::type_index packed)
      : source(p.source),
        source_stride(p.source_stride),
        lanes(p.lanes),
        depth(p.depth),
        whole(p.whole),
        squares(squares),
        stored(stored),
        packed(packed) {}
  bool operator==(const PanelOrder&) const = default;
};

// A change of one 64-bit word changes it for certain, one of several words but for a chance of 2^-64.
using Fingerprint = std::vector<uint64_t>;

// The panels that one call uses: kept ones where there are, else made, and kept where that pays. Any number of threads
// may have one of the same weights.
class PanelKeeper {
 public:
  // `bytes` from `weight` on are all that is read of it; `pixels` are multiplied with every weight.
  PanelKeeper(const void* weight, int64_t bytes, int64_t pixels);

  // Whether these weights were met before, as far as a sample of them tells. Then identify() must follow.
  bool repeats() const { return repeats_; }
  void identify(Fingerprint fingerprint) { fingerprint_ = std::move(fingerprint); }

  std::shared_ptr<const Panels> find(const PanelOrder& order) const;
  void keep(PanelOrder order, std::shared_ptr<const Panels> panels, int64_t bytes) const;

 private:
  const void* weight_;
  int64_t bytes_;
  bool repeats_ = false;
  Fingerprint fingerprint_;
};

}  // namespace structops::cpu
