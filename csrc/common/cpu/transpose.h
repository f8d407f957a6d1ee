// Matrix transposition that converts on the way: NCHW <-> NHWC, for a whole map or for one RoI.
//
// Included once per instruction set inside its namespace, after common/cpu/vec.h.

// One butterfly step: afterwards lane j of a is the old b[j - D] where j has bit D, and lane j of b
// the old a[j + D] where it has not. Steps 1, 2, 4, ... transpose a square of vectors.
template <int64_t D, class A, size_t... J>
inline void exchange(Vec<A>& a, Vec<A>& b, std::index_sequence<J...>) {
  constexpr int64_t n = kLanes<A>;
  const Vec<A> first = __builtin_shufflevector(a, b, (int64_t(J) & D ? n + int64_t(J) - D : int64_t(J))...);
  b = __builtin_shufflevector(a, b, (int64_t(J) & D ? n + int64_t(J) : int64_t(J) + D)...);
  a = first;
}

template <class A, int64_t D = 1>
inline void transpose_square(Vec<A>* rows) {
  if constexpr (D < kLanes<A>) {
    for (int64_t i = 0; i < kLanes<A>; ++i)
      if (!(i & D)) exchange<D, A>(rows[i], rows[i + D], std::make_index_sequence<kLanes<A>>());
    transpose_square<A, 2 * D>(rows);
  }
}

// dst[c * dst_stride + r] = src[r * src_stride + c] for rows x columns elements; strides in elements.
//
// Columns go in blocks of 64: a cache line of each source row is then used up at once, which matters
// when src_stride is a power of two and all rows fall into one cache set.
template <class S, class D>
inline void transpose(const S* src, int64_t src_stride, int64_t rows, int64_t columns, D* dst, int64_t dst_stride) {
  using A = acc_t<S>;
  constexpr int64_t n = kLanes<A>, block = 64;
  Vec<A> square[n];
  for (int64_t c0 = 0; c0 < columns; c0 += block) {
    const int64_t c1 = c0 + block < columns ? c0 + block : columns;
    for (int64_t r = 0; r < rows; r += n) {
      const int64_t height = rows - r < n ? rows - r : n;
      for (int64_t c = c0; c < c1; c += n) {
        const int64_t width = c1 - c < n ? c1 - c : n;
        const S* from = src + r * src_stride + c;
        D* to = dst + c * dst_stride + r;
        if (height == n && width == n) {
          for (int64_t i = 0; i < n; ++i) square[i] = load(from + i * src_stride);
          transpose_square<A>(square);
          for (int64_t i = 0; i < n; ++i) store(to + i * dst_stride, square[i]);
        } else {
          for (int64_t i = 0; i < n; ++i) square[i] = i < height ? load_part(from + i * src_stride, width) : Vec<A>{};
          transpose_square<A>(square);
          for (int64_t i = 0; i < width; ++i) store_part(to + i * dst_stride, square[i], height);
        }
      }
    }
  }
}

// The same from any layout: src[r * src_row + c * src_column].
template <class S, class D>
inline void transpose_any(const S* src, int64_t src_row, int64_t src_column, int64_t rows, int64_t columns, D* dst,
                          int64_t dst_stride) {
  if (src_column == 1) return transpose(src, src_row, rows, columns, dst, dst_stride);
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r)
      dst[c * dst_stride + r] = static_cast<D>(static_cast<acc_t<S>>(src[r * src_row + c * src_column]));
}
