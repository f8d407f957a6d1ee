// The mask head on the CPU, compiled once per instruction set: the product of a transposed convolution whose sums are
// used up where they are made. Of the 80 MB between the layers of 100 RoIs nothing is written.
#include "conv_transpose2d/conv_task_cpu_kernel.h"

// The sum over `count` channels of ReLU(sum + bias) * weight.
template <class A>
inline A weighted_relu(const A* sums, const A* bias, const A* weight, int64_t count) {
  Vec<A> total{};
  for (int64_t i = 0; i < count; i += kLanes<A>) {
    const int64_t rest = count - i;
    const auto get = [rest](const A* p) { return rest >= kLanes<A> ? load(p) : load_part(p, rest); };
    const Vec<A> x = get(sums + i) + (bias ? get(bias + i) : Vec<A>{});
    total = multiply_add(activate<Activation::relu>(x, A(0)), get(weight + i), total);
  }
  A sum = 0;
  for (int64_t i = 0; i < kLanes<A>; ++i) sum += total[i];
  return sum;
}

template <class S, class R>
void mask_head_predict(const MaskHeadParams& p, const S* features, bool planar, const S* weight,
                       const WeightStrides& strides, const acc_t<S>* bias, const acc_t<S>* logits_weight,
                       const acc_t<S>* logits_bias, const int64_t* labels, S* out, ParallelFor parallel_for) {
  using A = acc_t<S>;
  const ConvTransposeParams layer{p.rois, p.channels, p.hidden, 1, p.height, p.width, 2 * p.height, 2 * p.width, 2, 2,
                                  2,      2,          0,        0, 1,        1};
  Scratch<R> copy;
  const auto rows = rows_of<S, R>(features, planar, p.rois, p.channels, 1, p.height * p.width, copy, parallel_for);
  const PhaseGroup y = phase_groups(vertical(layer), false)[0], x = phase_groups(horizontal(layer), false)[0];
  const PanelKeeper keeper = keeper_of(weight, extent(layer, strides), p.rois * p.height * p.width, parallel_for);
  const Task<R, A> task =
      prepare(forward_product(layer, y, x, strides, 0, false), rows, 0, weight, keeper, parallel_for);
  const std::vector<R> zeros(static_cast<size_t>(std::max<int64_t>(1, p.channels)));
  const int64_t positions = task.positions(), chunks = (positions + kChunk - 1) / kChunk;
  const double steps = static_cast<double>(positions) * static_cast<double>(task.tiles.size()) * kTileVectors *
                       (4 + static_cast<double>(p.channels) / 2);
  share(parallel_for, workers_for(steps), chunks, 1, [&](ItemQueue& queue) {
    alignas(64) A sums[kChunk * kTileLanes<A>];
    A logits[kChunk][4];
    for (int64_t item, end; queue.take(item, end);) {
      Chunk<R> chunk(task.product, task.rows, zeros.data());
      chunk.at(positions * item / chunks, positions * (item + 1) / chunks);
      for (int64_t i = 0; i < chunk.count(); ++i)
        std::fill_n(logits[i], 4, logits_bias ? logits_bias[labels[chunk[i].image]] : A(0));
      for (size_t t = 0; t < task.tiles.size(); ++t) {
        const Tile<A>& tile = task.tiles[t];
        const auto use = [&](int64_t begin, int64_t until) {
          for (int64_t i = begin; i < until; ++i) {
            const A* of_class = logits_weight + labels[chunk[i].image] * p.hidden;
            for (const Run& run : tile.runs)
              logits[i][2 * run.phase_y + run.phase_x] +=
                  weighted_relu(sums + i * kTileLanes<A> + run.lane - tile.first_lane,
                                bias ? bias + run.channel : nullptr, of_class + run.channel, run.count);
          }
        };
        sum_tile(task.product, chunk, task.panels() + static_cast<int64_t>(t) * task.tile_size(), tile.vectors,
                 task.finite(), sums, kTilePositions, use);
      }
      for (int64_t i = 0; i < chunk.count(); ++i)
        for (int64_t phase = 0; phase < 4; ++phase) {
          const Position& at = chunk[i];
          const int64_t row = at.image * 2 * p.height + 2 * at.y + phase / 2;
          out[row * 2 * p.width + 2 * at.x + phase % 2] = static_cast<S>(sigmoid<A>(broadcast(logits[i][phase]))[0]);
        }
    }
  });
}
