// RoI Pool on one instruction set: included inside its namespace by common/cpu/foreach_isa.h.
#include "common/cpu/vec.h"

// Indices lane by lane beside values of type A: lanes of the same width, as selection by a mask needs them.
template <class A>
struct IndicesOf {
  using lane = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
  typedef lane type __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
};
template <class A>
using Indices = typename IndicesOf<A>::type;
typedef int32_t HalfIndices __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES / 2)));

template <class A>
inline Indices<A> broadcast_index(int64_t value) {
  return Indices<A>{} + static_cast<typename IndicesOf<A>::lane>(value);
}
template <class A>
inline Indices<A> load_indices(const int32_t* p) {
  if constexpr (sizeof(A) == 4) {
    Indices<A> v;
    std::memcpy(&v, p, sizeof v);
    return v;
  } else {
    HalfIndices v;
    std::memcpy(&v, p, sizeof v);
    return __builtin_convertvector(v, Indices<A>);
  }
}
inline void store_indices(int32_t* p, Indices<float> v) { std::memcpy(p, &v, sizeof v); }
inline void store_indices(int32_t* p, Indices<double> v) {
  const HalfIndices half = __builtin_convertvector(v, HalfIndices);
  std::memcpy(p, &half, sizeof half);
}

// The lanes where v is larger than best, or is the first NaN; and a where the mask is set, else b.
#if STRUCTOPS_ISA_AVX512
inline __mmask16 beats(Vec<float> v, Vec<float> best) {
  return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(v, best, _CMP_NLE_UQ), best, best, _CMP_ORD_Q);
}
inline __mmask8 beats(Vec<double> v, Vec<double> best) {
  return _mm512_mask_cmp_pd_mask(_mm512_cmp_pd_mask(v, best, _CMP_NLE_UQ), best, best, _CMP_ORD_Q);
}
// The same, or v equals best (or both are NaN) at a lower index. Written so that masks stay in mask registers.
inline __mmask16 beats(Vec<float> v, Indices<float> here, Vec<float> best, Indices<float> at) {
  const __mmask16 earlier = _mm512_cmplt_epi32_mask((__m512i)here, (__m512i)at);
  const __mmask16 equal = _mm512_mask_cmp_ps_mask(earlier, v, best, _CMP_EQ_OQ);
  const __mmask16 nan =
      _mm512_mask_cmp_ps_mask(_mm512_mask_cmp_ps_mask(earlier, v, v, _CMP_UNORD_Q), best, best, _CMP_UNORD_Q);
  return _kor_mask16(beats(v, best), _kor_mask16(equal, nan));
}
inline __mmask8 beats(Vec<double> v, Indices<double> here, Vec<double> best, Indices<double> at) {
  const __mmask8 earlier = _mm512_cmplt_epi64_mask((__m512i)here, (__m512i)at);
  const __mmask8 equal = _mm512_mask_cmp_pd_mask(earlier, v, best, _CMP_EQ_OQ);
  const __mmask8 nan =
      _mm512_mask_cmp_pd_mask(_mm512_mask_cmp_pd_mask(earlier, v, v, _CMP_UNORD_Q), best, best, _CMP_UNORD_Q);
  return _kor_mask8(beats(v, best), _kor_mask8(equal, nan));
}
inline Vec<float> select(__mmask16 mask, Vec<float> a, Vec<float> b) {
  return (Vec<float>)_mm512_mask_blend_ps(mask, b, a);
}
inline Vec<double> select(__mmask8 mask, Vec<double> a, Vec<double> b) {
  return (Vec<double>)_mm512_mask_blend_pd(mask, b, a);
}
inline Indices<float> select(__mmask16 mask, Indices<float> a, Indices<float> b) {
  return (Indices<float>)_mm512_mask_blend_epi32(mask, (__m512i)b, (__m512i)a);
}
inline Indices<double> select(__mmask8 mask, Indices<double> a, Indices<double> b) {
  return (Indices<double>)_mm512_mask_blend_epi64(mask, (__m512i)b, (__m512i)a);
}
#else
template <class V>
inline auto beats(V v, V best) {
  return ~(v <= best) & (best == best);
}
template <class M, class V>
inline V select(M mask, V a, V b) {
  return mask ? a : b;
}
template <class V, class I>
inline auto beats(V v, I here, V best, I at) {
  return beats(v, best) | (((v == best) | ((v != v) & (best != best))) & (here < at));
}
#endif

template <class A>
inline bool beats_one(A v, A best) {
  return !(v <= best) && best == best;
}

#include "roi_pool/roi_pool_cpu_backward.h"
#include "roi_pool/roi_pool_cpu_channels.h"
#include "roi_pool/roi_pool_cpu_planes.h"

template <class T>
void roi_pool_forward(const RoiPoolParams& p, const T* input, const int64_t s[4], const double* rois, T* output,
                      int32_t* argmax, bool channels_last, ParallelFor parallel_for) {
  const BinTable table(p, rois, parallel_for);
  const std::vector<int64_t> order = order_by_place(p, rois, table);
  double reads = 0;
  for (int64_t k = 0; k < p.rois; ++k) reads += table.reads(k);
  const double steps = (2 * reads + static_cast<double>(p.rois * p.pooled_height * p.pooled_width)) *
                       static_cast<double>(p.channels) / 8;
  const auto run = [&](auto with_argmax) {
    constexpr bool kArgmax = decltype(with_argmax)::value;
    if (channels_last)
      pool_channels<kArgmax>(p, input, s, rois, table, order, output, argmax, workers_for(steps), parallel_for);
    else
      pool_planes<kArgmax>(p, input, s, rois, table, order, output, argmax, workers_for(steps), parallel_for);
  };
  argmax != nullptr ? run(std::true_type()) : run(std::false_type());
}
