// One pass over an image's matches; what may still be sampled is kept in a buffer of twice the sample.
#include <algorithm>
#include <limits>
#include <vector>

#include "match_boxes/match_boxes.h"
#include "sample_matches/sample_matches.h"

namespace structops::cpu {
namespace {

// The k smallest of the ranks offered, which are distinct. After k * ln(n / k) of n have passed, few are kept.
class Smallest {
 public:
  explicit Smallest(int64_t k) : k_(k), limit_(k > 0 ? std::numeric_limits<uint64_t>::max() : 0) {
    kept_.reserve(2 * k);
  }
  void offer(uint64_t rank) {
    if (rank >= limit_) return;
    kept_.push_back(rank);
    if (static_cast<int64_t>(kept_.size()) < 2 * k_) return;
    std::nth_element(kept_.begin(), kept_.begin() + k_ - 1, kept_.end());
    kept_.resize(k_);
    limit_ = kept_.back();
  }
  // At most k (and at most that many as it was made for), rising.
  const std::vector<uint64_t>& sorted(int64_t k) {
    const auto end = kept_.begin() + std::min<int64_t>(k, kept_.size());
    std::partial_sort(kept_.begin(), end, kept_.end());
    kept_.erase(end, kept_.end());
    return kept_;
  }

 private:
  int64_t k_;
  uint64_t limit_;
  std::vector<uint64_t> kept_;
};

// The indices of ranks, then -1. Returns how many they are.
int64_t write(const std::vector<uint64_t>& ranks, int64_t* indices, int64_t size) {
  const int64_t count = ranks.size();
  for (int64_t i = 0; i < size; ++i) indices[i] = i < count ? static_cast<int64_t>(ranks[i] & 0xffffffffu) : -1;
  return count;
}

}  // namespace

void sample_matches(const SampleParams& p, const int64_t* matches, int64_t seed, int64_t* positives, int64_t* negatives,
                    int64_t* counts, ParallelFor parallel_for) {
  const int64_t workers = workers_for(static_cast<double>(p.images) * p.anchors / 4);
  share(parallel_for, std::min(workers, p.images), p.images, 1, [&](ItemQueue& queue) {
    for (int64_t image, end; queue.take(image, end);) {
      const RandomNumbers random = random_numbers(seed, image);
      const int64_t* match = matches + image * p.anchors;
      Smallest positive(p.positives), negative(p.samples);
      for (int64_t i = 0; i < p.anchors; ++i) {
        if (match[i] < kBelowLowThreshold) continue;
        const uint64_t rank = static_cast<uint64_t>(~priority_of(random, i)) << 32 | static_cast<uint64_t>(i);
        (match[i] >= 0 ? positive : negative).offer(rank);
      }
      int64_t* count = counts + 2 * image;
      count[0] = write(positive.sorted(p.positives), positives + image * p.positives, p.positives);
      count[1] = write(negative.sorted(p.samples - count[0]), negatives + image * p.samples, p.samples);
    }
  });
}

}  // namespace structops::cpu
