// The product of conv_gemm.h: tiles of positions x lanes in registers. Included once per instruction set.
//
// Lanes are the vector axis: a tile is kTileVectors vectors wide, and each position's channel is broadcast against
// them. Six positions x four vectors are 24 accumulators of the 32 registers, and 10 loads for 24 multiply-adds, so the
// two multipliers of a core stay busy: 470 GFLOP/s of two cores' 520 (pose network, float). A chunk of positions goes
// through one panel after the other; meanwhile its sums (24 KB) and a panel's block (32 KB) share the nearest two
// caches. Chunks of 30 to 96 positions and blocks of 64 to 256 channels are within 5% of each other; long chunks make
// long rows in NCHW.

#if STRUCTOPS_ISA_AVX512
constexpr int kTileVectors = 4;  // 32 registers
#else
constexpr int kTileVectors = 2;  // 16 registers
#endif
constexpr int kTilePositions = 6;
constexpr int64_t kChunk = 96;        // positions that share a panel's way through the caches
constexpr int64_t kDepthBlock = 128;  // channels (pairs of them, of bfloat16)

template <class A>
constexpr int64_t kTileLanes = kTileVectors * kLanes<A>;

// sums[M][kTileLanes] = a[m][k] * b[k][lanes], over V vectors of lanes; or += where they are not kFresh. The panel is V
// vectors wide, the sums are always kTileLanes apart.
template <int M, int V, bool kFresh, class A>
inline void multiply(const A* const* a, const A* b, int64_t depth, A* sums) {
  constexpr int64_t n = kLanes<A>;
  Vec<A> acc[M][V];
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) acc[m][v] =
      kFresh ? Vec<A>{} : load(sums + m * kTileLanes<A> + v * n);
  const A* rows[M];
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) rows[m] = a[m];
  for (int64_t k = 0; k < depth; ++k, b += V * n) {
    Vec<A> lanes[V];
    STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) lanes[v] = load(b + v * n);
    STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) {
      const Vec<A> value = broadcast(rows[m][k]);
      STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) acc[m][v] = multiply_add(value, lanes[v], acc[m][v]);
    }
  }
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) STRUCTOPS_UNROLL for (int v = 0; v < V; ++v)
      store(sums + m * kTileLanes<A> + v * n, acc[m][v]);
}

#if STRUCTOPS_ISA_AVX512
#pragma GCC push_options
#pragma GCC target("avx512bf16")
// The same of bfloat16: two channels a step, multiplied exactly (numbers below 1e-38 count as zero) and added up in
// float.
template <int M, int V, bool kFresh, class A>
inline void multiply(const BFloat16* const* a, const BFloat16* b, int64_t depth, A* sums) {
  constexpr int64_t n = kLanes<float>;
  __m512 acc[M][V];
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) acc[m][v] =
      kFresh ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + m * kTileLanes<float> + v * n);
  const BFloat16* rows[M];
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) rows[m] = a[m];
  for (int64_t k = 0; k < depth; k += 2, b += 2 * V * n) {
    __m512bh lanes[V];
    STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) lanes[v] = (__m512bh)_mm512_loadu_si512(b + 2 * v * n);
    STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) {
      int32_t pair;
      std::memcpy(&pair, rows[m] + k, sizeof pair);
      const __m512bh value = (__m512bh)_mm512_set1_epi32(pair);
      STRUCTOPS_UNROLL for (int v = 0; v < V; ++v) acc[m][v] = _mm512_dpbf16_ps(acc[m][v], value, lanes[v]);
    }
  }
  STRUCTOPS_UNROLL for (int m = 0; m < M; ++m) STRUCTOPS_UNROLL for (int v = 0; v < V; ++v)
      _mm512_storeu_ps(sums + m * kTileLanes<float> + v * n, acc[m][v]);
}
#pragma GCC pop_options
#endif

template <int V, bool kFresh, class R, class A>
inline void multiply_rows(int64_t count, const R* const* a, const R* b, int64_t depth, A* sums) {
  switch (count) {
    case 1:
      return multiply<1, V, kFresh>(a, b, depth, sums);
    case 2:
      return multiply<2, V, kFresh>(a, b, depth, sums);
    case 3:
      return multiply<3, V, kFresh>(a, b, depth, sums);
    case 4:
      return multiply<4, V, kFresh>(a, b, depth, sums);
    case 5:
      return multiply<5, V, kFresh>(a, b, depth, sums);
    default:
      return multiply<6, V, kFresh>(a, b, depth, sums);
  }
}
template <bool kFresh, class R, class A>
inline void multiply_tile(int64_t vectors, int64_t count, const R* const* a, const R* b, int64_t depth, A* sums) {
  switch (vectors) {
    case 1:
      return multiply_rows<1, kFresh>(count, a, b, depth, sums);
#if STRUCTOPS_ISA_AVX512
    case 2:
      return multiply_rows<2, kFresh>(count, a, b, depth, sums);
    case 3:
      return multiply_rows<3, kFresh>(count, a, b, depth, sums);
#endif
    default:
      return multiply_rows<kTileVectors, kFresh>(count, a, b, depth, sums);
  }
}
