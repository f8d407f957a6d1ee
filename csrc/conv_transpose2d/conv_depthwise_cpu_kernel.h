// Depthwise transposed convolution of NHWC maps: each output is a handful of multiply-adds, so memory sets the pace.
// The vector axis is what lies side by side: channels. Included once per instruction set.

// The phase that an output coordinate belongs to, and its q.
struct OutputTaps {
  const PhaseGroup* group = nullptr;
  size_t phase = 0;
  int64_t q = 0;
};
inline std::vector<OutputTaps> output_taps(const std::vector<PhaseGroup>& groups, const Axis& axis) {
  std::vector<OutputTaps> found(static_cast<size_t>(axis.out));
  for (const PhaseGroup& group : groups)
    for (size_t i = 0; i < group.phases.size(); ++i)
      for (int64_t q = group.first; q < group.first + group.count; ++q) {
        const int64_t o = q * axis.stride + group.phases[i] - axis.padding;
        if (o >= 0 && o < axis.out) found[static_cast<size_t>(o)] = {&group, i, q};
      }
  return found;
}

template <class S>
void depthwise(const ConvTransposeParams& p, const S* input, const S* weight, const WeightStrides& strides,
               const Epilogue<S, acc_t<S>>& e, S* out, ParallelFor parallel_for) {
  using A = acc_t<S>;
  constexpr int64_t n = kLanes<A>;
  const int64_t channels = p.in_channels, padded = (channels + n - 1) / n * n;
  std::vector<A> taps(static_cast<size_t>(p.kernel_height * p.kernel_width * padded));  // [tap][channel]
  for (int64_t y = 0; y < p.kernel_height; ++y)
    for (int64_t x = 0; x < p.kernel_width; ++x)
      for (int64_t c = 0; c < channels; ++c)
        taps[(y * p.kernel_width + x) * padded + c] =
            static_cast<A>(weight[c * strides.in + y * strides.y + x * strides.x]);
  std::vector<A> scale(static_cast<size_t>(padded), A(1)), offset(static_cast<size_t>(padded));
  if (e.scale) std::copy_n(e.scale, channels, scale.data());
  if (e.offset) std::copy_n(e.offset, channels, offset.data());
  const auto ys = phase_groups(vertical(p), false);
  const auto xs = phase_groups(horizontal(p), false);
  const auto rows = output_taps(ys, vertical(p)), columns = output_taps(xs, horizontal(p));
  const double steps = static_cast<double>(p.batch * p.out_height * p.out_width) * static_cast<double>(padded / n) * 8;
  share(parallel_for, workers_for(steps), p.batch * p.out_height, 1, [&](ItemQueue& queue) {
    std::vector<A> sums(static_cast<size_t>(padded));
    std::vector<std::pair<const S*, const A*>> reached;  // pixels and their taps
    for (int64_t item, end; queue.take(item, end);) {
      const int64_t image = item / p.out_height, oy = item % p.out_height;
      const OutputTaps& y = rows[static_cast<size_t>(oy)];
      for (int64_t ox = 0; ox < p.out_width; ++ox) {
        const OutputTaps& x = columns[static_cast<size_t>(ox)];
        reached.clear();
        for (size_t ty = 0; ty < y.group->offsets.size(); ++ty) {
          const int64_t iy = y.q - y.group->offsets[ty];
          if (iy < 0 || iy >= p.height) continue;
          for (size_t tx = 0; tx < x.group->offsets.size(); ++tx) {
            const int64_t ix = x.q - x.group->offsets[tx];
            if (ix < 0 || ix >= p.width) continue;
            const int64_t tap = y.group->taps[y.phase][ty] * p.kernel_width + x.group->taps[x.phase][tx];
            reached.push_back(
                {input + ((image * p.height + iy) * p.width + ix) * channels, taps.data() + tap * padded});
          }
        }
        for (int64_t c = 0; c < channels; c += n) {
          Vec<A> sum{};
          const int64_t rest = channels - c;
          for (const auto& [pixel, tap] : reached)
            sum = multiply_add(rest >= n ? load(pixel + c) : load_part(pixel + c, rest), load(tap + c), sum);
          store(sums.data() + c, sum);
        }
        const int64_t o = (item * p.out_width + ox) * channels;
        with_activation(e.activation, [&](auto kind) {
          finish_channels<kind()>(e, sums.data(), scale.data(), offset.data(), channels,
                                  e.residual ? e.residual + o : nullptr, out + o);
        });
      }
    }
  });
}
