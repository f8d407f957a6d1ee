// What the product reads: pixels with their channels side by side in the type of arithmetic, and weights in panels.
// Included once per instruction set, after common/cpu/transpose.h.

// dst [image][pixel][channel] = src, NCHW or NHWC, dense.
template <class S, class R>
void gather_rows(const S* src, bool planar, int64_t images, int64_t channels, int64_t pixels, R* dst,
                 ParallelFor parallel_for) {
  constexpr int64_t block = 256;
  const int64_t blocks = (pixels + block - 1) / block;
  const double steps = static_cast<double>(images) * static_cast<double>(channels) * static_cast<double>(pixels) / 4;
  share(parallel_for, workers_for(steps), images * blocks, 1, [&](ItemQueue& queue) {
    for (int64_t item, end; queue.take(item, end);) {
      const int64_t image = item / blocks, first = item % blocks * block, count = std::min(block, pixels - first);
      R* to = dst + (image * pixels + first) * channels;
      if (planar) {
        transpose(src + image * channels * pixels + first, pixels, channels, count, to, channels);
      } else {
        const S* from = src + (image * pixels + first) * channels;
        for (int64_t i = 0; i < count * channels; ++i) to[i] = static_cast<R>(static_cast<acc_t<S>>(from[i]));
      }
    }
  });
}

// panels[tile][tap][channel][lane] (channels in pairs, [channel / 2][lane][2], where A is wider than R), zero past the
// last lane. Returns whether every weight is finite.
template <class W, class R, class A>
bool pack_panels(const Product& p, const W* weight, R* panels, ParallelFor parallel_for) {
  constexpr int64_t pair = sizeof(R) < sizeof(A) ? 2 : 1;
  const int64_t width = tile_width(p, kTileLanes<A>), tiles = (p.lanes + width - 1) / width;
  const int64_t taps = static_cast<int64_t>(p.taps.size()), tile_size = taps * p.depth * kTileLanes<A>;
  std::atomic<bool> finite{true};
  share(parallel_for, workers_for(static_cast<double>(tiles * tile_size)), tiles, 1, [&](ItemQueue& queue) {
    bool all = true;
    for (int64_t tile, end; queue.take(tile, end);) {
      const int64_t first = tile * width, count = std::min(width, p.lanes - first);
      const int64_t lanes = (count + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
      R* to = panels + tile * tile_size;
      for (int64_t t = 0; t < taps; ++t) {
        const int64_t* source = p.source.data() + t * p.lanes + first;
        for (int64_t k = 0; k < p.depth; k += pair)
          for (int64_t l = 0; l < lanes; ++l)
            for (int64_t j = 0; j < pair; ++j, ++to) {
              const bool exists = l < count && source[l] >= 0;
              const A value = exists ? static_cast<A>(weight[source[l] + (k + j) * p.source_stride]) : A(0);
              all &= value - value == 0;
              *to = static_cast<R>(value);
            }
      }
    }
    if (!all) finite.store(false, std::memory_order_relaxed);
  });
  return finite.load();
}

// The fingerprint of `bytes` bytes: for every block, words mixed into 64 states in turn, each step of which can be
// undone, so that no change of one word is lost.
inline Fingerprint fingerprint(const void* data, int64_t bytes, ParallelFor parallel_for) {
  constexpr int64_t states = 64, block = 512 * states;  // bytes: 64 steps of every state
  const int64_t blocks = (bytes + block - 1) / block;
  Fingerprint found(static_cast<size_t>(blocks * states));
  share(parallel_for, workers_for(static_cast<double>(bytes) / 64), blocks, 8, [&](ItemQueue& queue) {
    for (int64_t begin, end; queue.take(begin, end);)
      for (int64_t i = begin; i < end; ++i) {
        uint64_t state[states] = {}, words[states] = {};
        const char *from = static_cast<const char*>(data) + i * block,
                   *last = from + std::min(block, bytes - i * block);
        for (; from < last; from += sizeof words) {
          if (last - from < static_cast<int64_t>(sizeof words)) std::memset(words, 0, sizeof words);
          std::memcpy(words, from, std::min<size_t>(sizeof words, static_cast<size_t>(last - from)));
          for (int64_t w = 0; w < states; ++w) {
            const uint64_t mixed = (state[w] ^ words[w]) * 0x9E3779B97F4A7C15u;
            state[w] = mixed << 23 | mixed >> 41;
          }
        }
        std::copy_n(state, states, found.data() + i * states);
      }
  });
  return found;
}
