// Few outputs a pixel, of one tap each, from NCHW maps: the last layer of a segmentation head (24 channels to one,
// kernel 2, stride 2). Included once per instruction set.
//
// The other way of the engine has outputs in the lanes of vectors, here a quarter of them, and wants channels side by
// side: it would copy the map first. Pixels in the lanes leave nothing empty and read each plane once, as it is.

constexpr int64_t kMostFew = 8;  // outputs of an input pixel: channels times phases

inline bool has_few_outputs(const ConvTransposeParams& p) {
  const int64_t lanes = p.out_channels * p.stride_height * p.stride_width;
  return p.groups == 1 && lanes <= kMostFew && p.dilation_height == 1 && p.dilation_width == 1 &&
         p.kernel_height == p.stride_height && p.kernel_width == p.stride_width &&
         // No output_padding beyond the image.
         p.out_height + p.padding_height <= p.height * p.stride_height &&
         p.out_width + p.padding_width <= p.width * p.stride_width;
}

// sums[output][x] = the sum over channels of row[channel][x] * weights[channel][output], for a row of `width` pixels.
// Channels are `plane` numbers from each other, outputs `apart`; the last of kOutputs may have zero weights and be
// unused.
template <int64_t kOutputs, class S, class A>
inline void few_sums(const S* row, int64_t channels, int64_t plane, int64_t width, const A* weights, int64_t apart,
                     A* sums) {
  constexpr int64_t n = kLanes<A>, kTogether = std::min<int64_t>(16 / kOutputs, 8);  // 16 sums in registers
  const auto vectors = [&]<int64_t kCount>(std::integral_constant<int64_t, kCount>, int64_t x, int64_t rest) {
    Vec<A> acc[kOutputs][kCount] = {};
    for (int64_t c = 0; c < channels; ++c) {
      Vec<A> pixels[kCount];
      STRUCTOPS_UNROLL for (int64_t i = 0; i < kCount; ++i) {
        const S* from = row + c * plane + x + i * n;
        pixels[i] = rest >= n ? load(from) : load_part(from, rest);
      }
      STRUCTOPS_UNROLL for (int64_t l = 0; l < kOutputs; ++l) {
        const Vec<A> weight = broadcast(weights[c * kOutputs + l]);
        STRUCTOPS_UNROLL for (int64_t i = 0; i < kCount; ++i) acc[l][i] = multiply_add(pixels[i], weight, acc[l][i]);
      }
    }
    STRUCTOPS_UNROLL for (int64_t l = 0; l < kOutputs; ++l) STRUCTOPS_UNROLL for (int64_t i = 0; i < kCount; ++i)
        store(sums + l * apart + x + i * n, acc[l][i]);
  };
  int64_t x = 0;
  for (; x + kTogether * n <= width; x += kTogether * n) vectors(std::integral_constant<int64_t, kTogether>{}, x, n);
  for (; x < width; x += n) vectors(std::integral_constant<int64_t, 1>{}, x, width - x);
}

// line[i * phases + j] = sums[j][i].
template <class A>
inline void interleave(const A* sums, int64_t apart, int64_t phases, int64_t count, A* line) {
  constexpr int64_t n = kLanes<A>;
  using Lane = std::conditional_t<sizeof(A) == 8, int64_t, int32_t>;
  typedef Lane Lanes __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
  int64_t i = 0;
  if (phases == 2) {
    Lanes low;
    for (int64_t l = 0; l < n; ++l) low[l] = static_cast<Lane>(l / 2 + l % 2 * n);
    const Lanes high = low + static_cast<Lane>(n / 2);
    for (; i + n <= count; i += n) {
      const Vec<A> a = load(sums + i), b = load(sums + apart + i);
      store(line + 2 * i, __builtin_shuffle(a, b, low));
      store(line + 2 * i + n, __builtin_shuffle(a, b, high));
    }
  }
  for (; i < count; ++i)
    for (int64_t j = 0; j < phases; ++j) line[i * phases + j] = sums[j * apart + i];
}

// With the number of outputs known, or the next power of two.
template <int64_t kOutputs, class S>
void few_outputs(const ConvTransposeParams& p, const S* input, const S* weight, const WeightStrides& strides,
                 const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  using A = acc_t<S>;
  constexpr int64_t n = kLanes<A>;
  std::vector<A> weights(static_cast<size_t>(p.in_channels * kOutputs));  // [channel][output channel, y, x]
  for (int64_t c = 0; c < p.in_channels; ++c)
    for (int64_t o = 0, lane = c * kOutputs; o < p.out_channels; ++o)
      for (int64_t y = 0; y < p.stride_height; ++y)
        for (int64_t x = 0; x < p.stride_width; ++x, ++lane)
          weights[static_cast<size_t>(lane)] =
              static_cast<A>(weight[c * strides.in + o * strides.out + y * strides.y + x * strides.x]);
  const int64_t plane = p.height * p.width, apart = (p.width + n - 1) / n * n;
  const double steps = double(p.batch * plane) / n * double(p.in_channels * kOutputs);
  share(parallel_for, workers_for(steps), p.batch * p.height, 1, [&](ItemQueue& queue) {
    Scratch<A> memory;
    A *sums = memory.at_least(apart * (kOutputs + p.stride_width)), *line = sums + apart * kOutputs;
    for (int64_t item, end; queue.take(item, end);) {
      const int64_t image = item / p.height, iy = item % p.height;
      few_sums<kOutputs>(input + (image * p.in_channels * p.height + iy) * p.width, p.in_channels, plane, p.width,
                         weights.data(), apart, sums);
      for (int64_t o = 0; o < p.out_channels; ++o)
        for (int64_t y = 0; y < p.stride_height; ++y) {
          const int64_t oy = iy * p.stride_height + y - p.padding_height;
          if (oy < 0 || oy >= p.out_height) continue;
          interleave(sums + (o * p.stride_height + y) * p.stride_width * apart, apart, p.stride_width, p.width, line);
          const int64_t to = ((image * p.out_channels + o) * p.out_height + oy) * p.out_width;
          with_activation(e.activation, [&](auto kind) {
            finish_row<kind()>(e, line + p.padding_width, o, p.out_width, e.residual ? e.residual + to : nullptr,
                               out + to);
          });
        }
    }
  });
}

template <class S>
void few_outputs(const ConvTransposeParams& p, const S* input, const S* weight, const WeightStrides& strides,
                 const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  const int64_t lanes = p.out_channels * p.stride_height * p.stride_width;
  const auto run = [&](auto count) {
    few_outputs<decltype(count)::value>(p, input, weight, strides, e, out, parallel_for);
  };
  if (lanes <= 1) return run(std::integral_constant<int64_t, 1>{});
  if (lanes <= 2) return run(std::integral_constant<int64_t, 2>{});
  if (lanes <= 4) return run(std::integral_constant<int64_t, 4>{});
  run(std::integral_constant<int64_t, kMostFew>{});
}
