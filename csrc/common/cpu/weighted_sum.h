// Weighted sums of rows: what gathering kernels do for every bin.
//
// Included once per instruction set inside its namespace, after common/cpu/vec.h.

// dst[i] = sum over t of weight[t] * src[t][i], for lanes i .. i + U * kLanes. N taps, or `taps` when N is 0.
template <int N, int U, class S, class D>
inline void weighted_sum_block(const S* const* src, const acc_t<S>* weight, int64_t taps, D* dst, int64_t i) {
  using A = acc_t<S>;
  Vec<A> sum[U];
  for (int u = 0; u < U; ++u) sum[u] = broadcast(weight[0]) * load(src[0] + i + u * kLanes<A>);
  for (int64_t t = 1; t < (N ? N : taps); ++t)
    for (int u = 0; u < U; ++u) sum[u] = multiply_add(broadcast(weight[t]), load(src[t] + i + u * kLanes<A>), sum[u]);
  for (int u = 0; u < U; ++u) store(dst + i + u * kLanes<A>, sum[u]);
}

template <int N, class S, class D>
inline void weighted_sum_taps(const S* const* sources, const acc_t<S>* weights, int64_t taps, D* dst, int64_t n) {
  using A = acc_t<S>;
  const S* local_src[N ? N : 1];  // copies that no store can alias stay in registers
  A local_weight[N ? N : 1];
  for (int t = 0; t < N; ++t) local_src[t] = sources[t], local_weight[t] = weights[t];
  const S* const* src = N ? local_src : sources;
  const A* weight = N ? local_weight : weights;
  int64_t i = 0;
  for (; i + 4 * kLanes<A> <= n; i += 4 * kLanes<A>) weighted_sum_block<N, 4>(src, weight, taps, dst, i);
  for (; i + kLanes<A> <= n; i += kLanes<A>) weighted_sum_block<N, 1>(src, weight, taps, dst, i);
  if (n - i <= 2) {  // two scalars cost less than a trip through a padded vector; C = 1 is nothing else
    for (; i < n; ++i) {
      A sum = weight[0] * static_cast<A>(src[0][i]);
      for (int64_t t = 1; t < (N ? N : taps); ++t) sum += weight[t] * static_cast<A>(src[t][i]);
      dst[i] = static_cast<D>(sum);
    }
    return;
  }
  Vec<A> sum = broadcast(weight[0]) * load_part(src[0] + i, n - i);
  for (int64_t t = 1; t < (N ? N : taps); ++t)
    sum = multiply_add(broadcast(weight[t]), load_part(src[t] + i, n - i), sum);
  store_part(dst + i, sum, n - i);
}

// Most bins have 2 to 4 taps along an axis: with the number known, weights stay in registers.
template <class S, class D>
inline void weighted_sum(const S* const* src, const acc_t<S>* weight, int64_t taps, D* dst, int64_t n) {
  switch (taps) {
    case 0:
      std::fill(dst, dst + n, D(0));
      break;
    case 1:
      weighted_sum_taps<1>(src, weight, taps, dst, n);
      break;
    case 2:
      weighted_sum_taps<2>(src, weight, taps, dst, n);
      break;
    case 3:
      weighted_sum_taps<3>(src, weight, taps, dst, n);
      break;
    case 4:
      weighted_sum_taps<4>(src, weight, taps, dst, n);
      break;
    default:
      weighted_sum_taps<0>(src, weight, taps, dst, n);
      break;
  }
}
