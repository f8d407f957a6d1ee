// The gradient of a transposed convolution's weight: for every tap, input channels x output channels, summed over the
// pixels that meet in it. Included once per instruction set, after conv_product_cpu_kernel.h.

// sums[M][kTileLanes] += over `count` pixels a[pixel][m] * b[pixel][lanes]; pixels are a_step and b_step apart.
template <int M, int V, class A>
inline void outer_products(const A* a, int64_t a_step, const A* b, int64_t b_step, int64_t count, A* sums) {
  constexpr int64_t n = kLanes<A>;
  Vec<A> acc[M][V];
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) acc[m][v] = Vec<A>{};
  for (int64_t i = 0; i < count; ++i, a += a_step, b += b_step) {
    Vec<A> lanes[V];
    STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) lanes[v] = load(b + v * n);
    STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) {
      const Vec<A> value = broadcast(a[m]);
      STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) acc[m][v] = multiply_add(value, lanes[v], acc[m][v]);
    }
  }
  // A row's sum by itself, then added: in float, sums of many images lose less that way.
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) {
    A* to = sums + m * kTileLanes<A> + v * n;
    store(to, load(to) + acc[m][v]);
  }
}

template <int V, class A>
inline void outer_products_of(int64_t m, const A* a, int64_t a_step, const A* b, int64_t b_step, int64_t count,
                              A* sums) {
  switch (m) {
    case 1:
      return outer_products<1, V>(a, a_step, b, b_step, count, sums);
    case 2:
      return outer_products<2, V>(a, a_step, b, b_step, count, sums);
    case 3:
      return outer_products<3, V>(a, a_step, b, b_step, count, sums);
    case 4:
      return outer_products<4, V>(a, a_step, b, b_step, count, sums);
    case 5:
      return outer_products<5, V>(a, a_step, b, b_step, count, sums);
    default:
      return outer_products<6, V>(a, a_step, b, b_step, count, sums);
  }
}

// Both maps are copied with their channels side by side, halves as floats: twice or four times their memory, for sums
// that read them once for every tap.
//
// input [image][pixel][in_channels], grad [image][pixel][padded out_channels] with zeros (or anything) past a group's.
// grad's channels are read in whole vectors: from each pixel, up to a tile past its last.
template <class S>
void conv_transpose2d_grad_weight(const ConvTransposeParams& p, const S* input, const S* grad, bool planar, S* out,
                                  const WeightStrides& strides, ParallelFor parallel_for) {
  using A = acc_t<S>;
  constexpr int64_t n = kLanes<A>, kRows = 4 * kTilePositions;
  const int64_t in = p.in_channels / p.groups, lanes = p.out_channels / p.groups;
  Scratch<A> input_copy, grad_copy;
  const int64_t in_pixels = p.height * p.width, out_pixels = p.out_height * p.out_width;
  A* x = input_copy.at_least(std::max<int64_t>(1, p.batch * p.in_channels * in_pixels));
  A* g = grad_copy.at_least(p.batch * p.out_channels * out_pixels + kTileLanes<A>);
  gather_rows(input, planar, p.batch, p.in_channels, in_pixels, x, parallel_for);
  gather_rows(grad, planar, p.batch, p.out_channels, out_pixels, g, parallel_for);
  std::fill_n(g + p.batch * p.out_channels * out_pixels, kTileLanes<A>, A(0));
  const int64_t taps = p.kernel_height * p.kernel_width;
  const int64_t blocks = (in + kRows - 1) / kRows, tiles = (lanes + kTileLanes<A> - 1) / kTileLanes<A>;
  const double steps = static_cast<double>(p.batch * in_pixels * taps) * static_cast<double>(p.in_channels) *
                       static_cast<double>((lanes + n - 1) / n);
  share(parallel_for, workers_for(steps), p.groups * blocks * tiles * taps, 1, [&](ItemQueue& queue) {
    alignas(64) A sums[kRows * kTileLanes<A>];
    for (int64_t item, end; queue.take(item, end);) {
      const int64_t tap = item % taps, tile = item / taps % tiles, block = item / (taps * tiles) % blocks;
      const int64_t group = item / (taps * tiles * blocks), ky = tap / p.kernel_width, kx = tap % p.kernel_width;
      const int64_t first = block * kRows, rows = std::min(kRows, in - first), lane = tile * kTileLanes<A>;
      const int64_t vectors = (std::min(kTileLanes<A>, lanes - lane) + n - 1) / n;
      std::fill_n(sums, kRows * kTileLanes<A>, A(0));
      // Input columns whose product with this tap is on the output.
      const int64_t at = kx * p.dilation_width - p.padding_width;
      const int64_t begin = std::max<int64_t>(0, -floor_divide(at, p.stride_width));
      const int64_t last = std::min(p.width, floor_divide(p.out_width - 1 - at, p.stride_width) + 1);
      for (int64_t image = 0; image < p.batch; ++image)
        for (int64_t iy = 0; iy < p.height && begin < last; ++iy) {
          const int64_t oy = iy * p.stride_height + ky * p.dilation_height - p.padding_height;
          if (oy < 0 || oy >= p.out_height) continue;
          const A* a = x + ((image * p.height + iy) * p.width + begin) * p.in_channels + group * in + first;
          const A* b = g + ((image * p.out_height + oy) * p.out_width + begin * p.stride_width + at) * p.out_channels +
                       group * lanes + lane;
          for (int64_t m = 0; m < rows; m += kTilePositions) {
            const int64_t count = std::min<int64_t>(kTilePositions, rows - m), b_step = p.stride_width * p.out_channels;
            A* to = sums + m * kTileLanes<A>;
            switch (vectors) {
              case 1:
                outer_products_of<1>(count, a + m, p.in_channels, b, b_step, last - begin, to);
                break;
#if STRUCTOPS_ISA_AVX512
              case 2:
                outer_products_of<2>(count, a + m, p.in_channels, b, b_step, last - begin, to);
                break;
              case 3:
                outer_products_of<3>(count, a + m, p.in_channels, b, b_step, last - begin, to);
                break;
#endif
              default:
                outer_products_of<kTileVectors>(count, a + m, p.in_channels, b, b_step, last - begin, to);
            }
          }
        }
      for (int64_t m = 0; m < rows; ++m)
        for (int64_t l = 0; l < std::min(kTileLanes<A>, lanes - lane); ++l)
          out[(group * in + first + m) * strides.in + (lane + l) * strides.out + ky * strides.y + kx * strides.x] =
              static_cast<S>(sums[m * kTileLanes<A> + l]);
    }
  });
}
