// Sigmoid focal loss on the CPU, compiled once per instruction set (foreach_isa.h).
//
// One pass over memory in each direction: the backward computes from the inputs again, since a gradient made in the
// forward would be written, read and scaled, the same bytes as inputs and targets read once more, and would have to be
// kept until then.

#include "common/cpu/vec.h"
#include "common/cpu/vector_math.h"
#include "sigmoid_focal_loss/focal_math.h"

// Classes are written out as targets for this many elements at a time, which stay in the first-level cache.
constexpr int64_t kFocalBlock = 512;
// What one thread takes at a time and sums by itself: fixed, so that a sum does not depend on the number of threads.
constexpr int64_t kFocalChunk = 16384;
constexpr int kFocalSums = 4;

// Targets of elements [begin, end): 1 where the row's class is, else 0, and kIgnoredClass in ignored rows.
template <class A>
inline void write_out_classes(const int64_t* classes, int64_t columns, int64_t begin, int64_t end, A* targets) {
  std::fill(targets, targets + (end - begin), A(0));
  for (int64_t row = begin / columns, start = row * columns; start < end; ++row, start += columns) {
    const int64_t c = classes[row];
    if (c == kIgnoredClass)
      std::fill(targets + std::max(start - begin, int64_t(0)), targets + (std::min(start + columns, end) - begin),
                A(c));
    else if (c >= 0 && c < columns && start + c >= begin && start + c < end)
      targets[start + c - begin] = A(1);
  }
}

// Calls each(inputs, targets, place, lanes) for the vectors of elements [begin, end).
template <class T, class S, class Each>
inline void each_vector(const T* inputs, const S* targets, int64_t begin, int64_t end, const Each& each) {
  constexpr int64_t lanes = kLanes<acc_t<T>>;
  int64_t i = begin;
  for (; i + lanes <= end; i += lanes) each(load(inputs + i), load(targets + (i - begin)), i, lanes);
  if (i < end) each(load_part(inputs + i, end - i), load_part(targets + (i - begin), end - i), i, end - i);
}

// The same for a whole chunk, from targets or from classes. masked(value, targets) leaves out ignored elements.
template <class T, class Each>
inline void each_of_chunk(const FocalInput<T>& in, int64_t begin, int64_t end, const Each& each) {
  using A = acc_t<T>;
  if (in.classes == nullptr) {
    const auto plain = [](Vec<A> value, Vec<A>) { return value; };
    each_vector(in.inputs, in.targets + begin, begin, end,
                [&](Vec<A> x, Vec<A> t, int64_t i, int64_t n) { each(x, t, i, n, plain); });
    return;
  }
  const auto masked = [](Vec<A> value, Vec<A> t) { return t < Vec<A>{} ? Vec<A>{} : value; };
  alignas(64) A targets[kFocalBlock];
  for (int64_t from = begin; from < end; from += kFocalBlock) {
    const int64_t to = std::min(from + kFocalBlock, end);
    write_out_classes(in.classes, in.columns, from, to, targets);
    each_vector(in.inputs, targets, from, to,
                [&](Vec<A> x, Vec<A> t, int64_t i, int64_t n) { each(x, t, i, n, masked); });
  }
}

// Calls work(focal, chunk, begin, end) for every chunk, on several threads.
template <class T, class Work>
inline void each_chunk(const FocalLaw& law, int64_t count, ParallelFor parallel_for, const Work& work) {
  using A = acc_t<T>;
  const int64_t chunks = (count + kFocalChunk - 1) / kFocalChunk;
  const auto run = [&]<class M>(M maths) {
    const Focal<Vec<A>, M> focal{broadcast(A(1)), broadcast(A(law.positive)), broadcast(A(law.negative)),
                                 broadcast(A(law.gamma)), maths};
    share(parallel_for, std::min(chunks, workers_for(static_cast<double>(count))), chunks, 1, [&](ItemQueue& queue) {
      for (int64_t chunk, last; queue.take(chunk, last);)
        work(focal, chunk, chunk * kFocalChunk, std::min((chunk + 1) * kFocalChunk, count));
    });
  };
  if (law.gamma == 2)
    run(SquareMath<A>(law.gamma));
  else
    run(PowerMath<A>(law.gamma));
}

template <class D>
inline void store_lanes(D* to, Vec<acc_t<D>> value, int64_t n) {
  if (n == kLanes<acc_t<D>>)
    store(to, value);
  else
    store_part(to, value, n);
}

template <class T>
void sigmoid_focal_loss(const FocalLaw& law, const FocalInput<T>& in, T* loss, ParallelFor parallel_for) {
  using V = Vec<acc_t<T>>;
  each_chunk<T>(law, in.count, parallel_for, [&](const auto& focal, int64_t, int64_t begin, int64_t end) {
    each_of_chunk(in, begin, end, [&](V x, V t, int64_t i, int64_t n, const auto& counted) {
      store_lanes(loss + i, counted(focal.loss(x, t), t), n);
    });
  });
}

template <class T>
void sigmoid_focal_loss_sum(const FocalLaw& law, const FocalInput<T>& in, double* sum, ParallelFor parallel_for) {
  using A = acc_t<T>;
  using V = Vec<A>;
  std::vector<double> sums((in.count + kFocalChunk - 1) / kFocalChunk);
  each_chunk<T>(law, in.count, parallel_for, [&](const auto& focal, int64_t chunk, int64_t begin, int64_t end) {
    // Some vectors are added in the type of the maths, their lanes then in double: that costs next to nothing, and a
    // float sum never has more than a few dozen terms.
    V partial[kFocalSums] = {};
    double total = 0;
    constexpr int64_t most = kLanes<A> * kFocalSums * 8;
    const auto settle = [&] {
      for (V& p : partial) {
        for (int64_t l = 0; l < kLanes<A>; ++l) total += p[l];
        p = V{};
      }
    };
    each_of_chunk(in, begin, end, [&](V x, V t, int64_t i, int64_t n, const auto& counted) {
      V value = counted(focal.loss(x, t), t);
      for (int64_t l = n; l < kLanes<A>; ++l) value[l] = 0;
      partial[i / kLanes<A> % kFocalSums] += value;
      if ((i + kLanes<A> - begin) % most == 0) settle();
    });
    settle();
    sums[chunk] = total;
  });
  *sum = 0;
  for (const double s : sums) *sum += s;
}

template <class T>
void sigmoid_focal_loss_backward(const FocalLaw& law, const FocalInput<T>& in, const T* grad, double factor,
                                 T* grad_inputs, ParallelFor parallel_for) {
  using A = acc_t<T>;
  using V = Vec<A>;
  each_chunk<T>(law, in.count, parallel_for, [&](const auto& focal, int64_t, int64_t begin, int64_t end) {
    const V same = broadcast(static_cast<A>(factor));
    each_of_chunk(in, begin, end, [&](V x, V t, int64_t i, int64_t n, const auto& counted) {
      const V incoming = grad == nullptr ? same : n == kLanes<A> ? load(grad + i) : load_part(grad + i, n);
      store_lanes(grad_inputs + i, counted(incoming * focal.slope(x, t), t), n);
    });
  });
}
