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

// dst[c * dst_stride + r] = src[r * src_row + c * src_column] for rows x columns elements, one by one.
template <class S, class D>
inline void transpose_elements(const S* src, int64_t src_row, int64_t src_column, int64_t rows, int64_t columns, D* dst,
                               int64_t dst_stride) {
  for (int64_t c = 0; c < columns; ++c)
    for (int64_t r = 0; r < rows; ++r)
      dst[c * dst_stride + r] = static_cast<D>(static_cast<acc_t<S>>(src[r * src_row + c * src_column]));
}

// dst[c * dst_stride + r] = src[r * src_stride + c] for rows x columns elements; strides in elements.
//
// Columns go in blocks of 64: a cache line of each source row is then used up at once, which matters
// when src_stride is a power of two and all rows fall into one cache set. The last square of a row or
// column of squares moves back over its neighbour instead of being cut: the 17 columns that a RoI
// touches are three whole loads, and a cut one costs as much as five.
template <class S, class D>
inline void transpose(const S* src, int64_t src_stride, int64_t rows, int64_t columns, D* dst, int64_t dst_stride) {
  using A = acc_t<S>;
  if (std::min(rows, columns) < 4) return transpose_elements(src, src_stride, 1, rows, columns, dst, dst_stride);
  constexpr int64_t n = kLanes<A>, block = 64;
  const int64_t height = std::min(rows, n), width = std::min(columns, n);
  Vec<A> square[n];
  for (int64_t c0 = 0; c0 < columns; c0 += block) {
    const int64_t c1 = std::min(c0 + block, columns);
    for (int64_t row = 0; row < rows; row += n) {
      const int64_t r = std::min(row, rows - height);
      for (int64_t column = c0; column < c1; column += n) {
        const int64_t c = std::min(column, columns - width);
        const S* from = src + r * src_stride + c;
        D* to = dst + c * dst_stride + r;
        if (height == n && width == n) {
          for (int64_t i = 0; i < n; ++i) square[i] = load(from + i * src_stride);
          transpose_square<A>(square);
          for (int64_t i = 0; i < n; ++i) store(to + i * dst_stride, square[i]);
        } else {
          for (int64_t i = 0; i < n; ++i)
            square[i] = i >= height  ? Vec<A>{}
                        : width == n ? load(from + i * src_stride)
                                     : load_part(from + i * src_stride, width);
          transpose_square<A>(square);
          for (int64_t i = 0; i < width; ++i) {
            if (height == n)
              store(to + i * dst_stride, square[i]);
            else
              store_part(to + i * dst_stride, square[i], height);
          }
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
  transpose_elements(src, src_row, src_column, rows, columns, dst, dst_stride);
}
