// Sigmoid focal loss: parameters and CPU launchers, free of torch.
#pragma once
#include <cstdint>

#include "common/cpu/parallel.h"

namespace structops {

// As torch numbers them.
enum class Reduction : int64_t { none = 0, mean = 1, sum = 2 };

// A row with this class has no loss and no gradient. Any other that is not in [0, columns) is all negative.
constexpr int64_t kIgnoredClass = -2;

struct FocalLaw {
  double positive, negative;  // weights of positives and negatives; 1 without weighting
  double gamma;               // 0 or more
};

// alpha < 0: no weighting.
inline FocalLaw focal_law(double alpha, double gamma) {
  return {alpha < 0 ? 1 : alpha, alpha < 0 ? 1 : 1 - alpha, gamma};
}

// inputs [count], dense, with either targets [count], dense, or classes [count / columns], one for each row of columns.
template <class T>
struct FocalInput {
  const T* inputs;
  const T* targets;
  const int64_t* classes;
  int64_t count, columns;
};

namespace cpu {

template <class T>
void sigmoid_focal_loss(const FocalLaw& law, const FocalInput<T>& in, T* loss, ParallelFor parallel_for);

// The sum of all losses, the same to the bit for any number of threads.
template <class T>
double sigmoid_focal_loss_sum(const FocalLaw& law, const FocalInput<T>& in, ParallelFor parallel_for);

// grad_inputs [count] = (grad [count], or the one number `factor` where grad is null) x the loss's derivative.
template <class T>
void sigmoid_focal_loss_backward(const FocalLaw& law, const FocalInput<T>& in, const T* grad, double factor,
                                 T* grad_inputs, ParallelFor parallel_for);

}  // namespace cpu
}  // namespace structops
