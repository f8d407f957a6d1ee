// Vectors of STRUCTOPS_VECTOR_BYTES, and loads and stores that convert storage to arithmetic types.
//
// Included once per instruction set inside its namespace (common/cpu/foreach_isa.h), so it has no
// include guard and includes nothing: <cstdint>, <cstring>, <type_traits>, <utility>, <immintrin.h> (x86) and
// common/tensor.h come first. Arithmetic is written with the compiler's own operators on vectors.

// What a storage type is computed in.
template <class T>
using acc_t = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class A>
struct VecOf {
  typedef A type __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));
};
template <class A>
using Vec = typename VecOf<A>::type;
template <class A>
inline constexpr int64_t kLanes = STRUCTOPS_VECTOR_BYTES / sizeof(A);

// Bits of bfloat16, and of float, lane by lane.
typedef uint16_t BitsBFloat16 __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES / 2)));
typedef uint32_t BitsFloat __attribute__((vector_size(STRUCTOPS_VECTOR_BYTES)));

template <class A>
inline Vec<A> broadcast(A value) {
  return value - Vec<A>{};  // and not +, which a negative zero would survive: the compiler would have to add
}

// a * b + c, rounded once where the instruction set can (the build forbids the compiler to contract).
inline Vec<float> multiply_add(Vec<float> a, Vec<float> b, Vec<float> c) {
#if STRUCTOPS_ISA_AVX512
  return (Vec<float>)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif STRUCTOPS_ISA_AVX2 && STRUCTOPS_VECTOR_BYTES == 32
  return (Vec<float>)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}
inline Vec<double> multiply_add(Vec<double> a, Vec<double> b, Vec<double> c) {
#if STRUCTOPS_ISA_AVX512
  return (Vec<double>)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif STRUCTOPS_ISA_AVX2 && STRUCTOPS_VECTOR_BYTES == 32
  return (Vec<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// Lane by lane; where one is NaN, b.
template <class V>
inline V min(V a, V b) {
  return a < b ? a : b;
}
template <class V>
inline V max(V a, V b) {
  return a > b ? a : b;
}

// The lanes where a <= b, to be joined by & and read by bits(): bit l for lane l.
#if STRUCTOPS_ISA_AVX512
inline uint32_t less_equal(Vec<float> a, Vec<float> b) { return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ); }
inline uint32_t less_equal(Vec<double> a, Vec<double> b) { return _mm512_cmp_pd_mask(a, b, _CMP_LE_OQ); }
inline uint32_t bits(uint32_t mask) { return mask; }
#else
template <class V>
inline auto less_equal(V a, V b) {
  return a <= b;
}
template <class M>
inline uint32_t bits(M mask) {
  using Lane = std::decay_t<decltype(mask[0])>;
#if STRUCTOPS_ISA_AVX2
  using Part = __m256;
  const auto part_bits = [](Part p) -> uint32_t {
    return sizeof(Lane) == 4 ? _mm256_movemask_ps(p) : _mm256_movemask_pd((__m256d)p);
  };
#elif defined(__x86_64__)
  using Part = __m128;
  const auto part_bits = [](Part p) -> uint32_t {
    return sizeof(Lane) == 4 ? _mm_movemask_ps(p) : _mm_movemask_pd((__m128d)p);
  };
#else
  using Part = Lane;
  const auto part_bits = [](Part p) -> uint32_t { return p != 0; };
#endif
  Part parts[sizeof(M) / sizeof(Part)];
  std::memcpy(parts, &mask, sizeof(M));
  uint32_t out = 0;
  for (size_t i = 0; i < sizeof(M) / sizeof(Part); ++i)
    out |= part_bits(parts[i]) << (i * (sizeof(Part) / sizeof(Lane)));
  return out;
}
#endif

// Loads and stores take any alignment.
inline Vec<float> load(const float* p) {
  Vec<float> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec<double> load(const double* p) {
  Vec<double> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline void store(float* p, Vec<float> v) { std::memcpy(p, &v, sizeof v); }
inline void store(double* p, Vec<double> v) { std::memcpy(p, &v, sizeof v); }

inline Vec<float> load(const Half* p) {
#if STRUCTOPS_ISA_AVX512
  // The masked forms: GCC 12 warns of the "undefined" register inside the others.
  return (Vec<float>)_mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif STRUCTOPS_ISA_AVX2 && STRUCTOPS_VECTOR_BYTES == 32
  return (Vec<float>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
  Vec<float> v;
  for (int64_t i = 0; i < kLanes<float>; ++i) v[i] = static_cast<float>(p[i]);
  return v;
#endif
}
inline void store(Half* p, Vec<float> v) {
#if STRUCTOPS_ISA_AVX512
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_maskz_cvtps_ph(0xffff, (__m512)v, _MM_FROUND_TO_NEAREST_INT));
#elif STRUCTOPS_ISA_AVX2 && STRUCTOPS_VECTOR_BYTES == 32
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int64_t i = 0; i < kLanes<float>; ++i) p[i] = static_cast<Half>(v[i]);
#endif
}

inline Vec<float> load(const BFloat16* p) {
  BitsBFloat16 half;
  std::memcpy(&half, p, sizeof half);
  return (Vec<float>)(__builtin_convertvector(half, BitsFloat) << 16);
}
inline void store(BFloat16* p, Vec<float> v) {
  const BitsFloat bits = (BitsFloat)v;
  const BitsFloat nearest_even = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const BitsFloat is_nan = (BitsFloat)(v != v);  // rounding could carry a NaN over into infinity or zero
  const BitsBFloat16 half = __builtin_convertvector((is_nan & 0x7fc0u) | (~is_nan & nearest_even), BitsBFloat16);
  std::memcpy(p, &half, sizeof half);
}

// The first n lanes (n < kLanes), touching no more memory than theirs; the others are zero.
#if STRUCTOPS_ISA_AVX512
inline Vec<float> load_part(const float* p, int64_t n) {
  return (Vec<float>)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
}
inline Vec<double> load_part(const double* p, int64_t n) {
  return (Vec<double>)_mm512_maskz_loadu_pd(static_cast<__mmask8>((1u << n) - 1), p);
}
inline void store_part(float* p, Vec<float> v, int64_t n) {
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), (__m512)v);
}
inline void store_part(double* p, Vec<double> v, int64_t n) {
  _mm512_mask_storeu_pd(p, static_cast<__mmask8>((1u << n) - 1), (__m512d)v);
}
// Halves: 16 of them by a mask, then as any.
template <class S>
inline Vec<float> load_part(const S* p, int64_t n) {
  alignas(32) S part[kLanes<float>];
  _mm256_store_si256(reinterpret_cast<__m256i*>(part),
                     _mm256_maskz_loadu_epi16(static_cast<__mmask16>((1u << n) - 1), p));
  return load(part);
}
template <class D>
inline void store_part(D* p, Vec<float> v, int64_t n) {
  alignas(32) D part[kLanes<float>];
  store(part, v);
  _mm256_mask_storeu_epi16(p, static_cast<__mmask16>((1u << n) - 1),
                           _mm256_load_si256(reinterpret_cast<const __m256i*>(part)));
}
#else
template <class S>
inline Vec<acc_t<S> > load_part(const S* p, int64_t n) {
  alignas(64) S part[kLanes<acc_t<S> >];
  std::memset(static_cast<void*>(part), 0, sizeof part);
  for (int64_t i = 0; i < n; ++i) part[i] = p[i];
  return load(part);
}
template <class D>
inline void store_part(D* p, Vec<acc_t<D> > v, int64_t n) {
  alignas(64) D part[kLanes<acc_t<D> >];
  store(part, v);
  for (int64_t i = 0; i < n; ++i) p[i] = part[i];
}
#endif
