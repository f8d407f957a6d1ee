// nvcuda::wmma on the CPU. Which lane holds which element is deliberately unlike any GPU: the API
// leaves it unspecified, so code that depends on it fails here.
#pragma once
#include "cuda_on_cpu.h"

namespace nvcuda::wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

namespace detail {
template <class Use, int m, int n, int k>
struct Shape;
template <int m, int n, int k>
struct Shape<matrix_a, m, n, k> {
  static constexpr int rows = m, columns = k;
};
template <int m, int n, int k>
struct Shape<matrix_b, m, n, k> {
  static constexpr int rows = k, columns = n;
};
template <int m, int n, int k>
struct Shape<accumulator, m, n, k> {
  static constexpr int rows = m, columns = n;
};
}  // namespace detail

template <class Use, int m, int n, int k, class T, class Layout = void>
struct fragment {
  using Shape = detail::Shape<Use, m, n, k>;
  static constexpr int num_elements = Shape::rows * Shape::columns / 32;
  T x[num_elements];

  static int row(int lane, int i) { return (lane + 32 * i) / Shape::columns; }
  static int column(int lane, int i) { return (lane + 32 * i) % Shape::columns; }
  static int offset(int lane, int i, unsigned stride, bool by_rows) {
    return by_rows ? row(lane, i) * static_cast<int>(stride) + column(lane, i)
                   : column(lane, i) * static_cast<int>(stride) + row(lane, i);
  }
  template <class Visit>  // visit(row, column, element)
  void for_each(int lane, Visit visit) {
    for (int i = 0; i < num_elements; ++i) visit(row(lane, i), column(lane, i), x[i]);
  }
};

namespace detail {
inline void whole_warp(cuda_on_cpu::Site site) {
  cuda_on_cpu::warp_collective(0xffffffffu, cuda_on_cpu::WarpOp::matrix, 0, nullptr, nullptr, site);
}
template <class Fragment, class T>
void load(Fragment& f, const T* p, unsigned stride, bool by_rows) {
  const int lane = static_cast<int>(cuda_on_cpu::current.lane);
  for (int i = 0; i < Fragment::num_elements; ++i) f.x[i] = p[Fragment::offset(lane, i, stride, by_rows)];
}
}  // namespace detail

template <class Fragment, class T>
void fill_fragment(Fragment& f, T value) {
  for (auto& element : f.x) element = value;
}

template <class Use, int m, int n, int k, class T, class Layout, class P>
void load_matrix_sync(fragment<Use, m, n, k, T, Layout>& f, const P* p, unsigned stride,
                      cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  detail::whole_warp(site);
  detail::load(f, p, stride, std::is_same_v<Layout, row_major>);
}
template <int m, int n, int k, class T, class P>
void load_matrix_sync(fragment<accumulator, m, n, k, T>& f, const P* p, unsigned stride, layout_t layout,
                      cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  detail::whole_warp(site);
  detail::load(f, p, stride, layout == mem_row_major);
}
template <class P, int m, int n, int k, class T>
void store_matrix_sync(P* p, const fragment<accumulator, m, n, k, T>& f, unsigned stride, layout_t layout,
                       cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  detail::whole_warp(site);
  const int lane = static_cast<int>(cuda_on_cpu::current.lane);
  for (int i = 0; i < f.num_elements; ++i) p[f.offset(lane, i, stride, layout == mem_row_major)] = f.x[i];
}

// d = a b + c, in float whatever the types.
template <int m, int n, int k, class D, class A, class LayoutA, class B, class LayoutB, class C>
void mma_sync(fragment<accumulator, m, n, k, D>& d, const fragment<matrix_a, m, n, k, A, LayoutA>& a,
              const fragment<matrix_b, m, n, k, B, LayoutB>& b, const fragment<accumulator, m, n, k, C>& c,
              cuda_on_cpu::Site site = cuda_on_cpu::Site::here()) {
  struct Payload {
    fragment<accumulator, m, n, k, D>* d;
    fragment<matrix_a, m, n, k, A, LayoutA> a;
    fragment<matrix_b, m, n, k, B, LayoutB> b;
    fragment<accumulator, m, n, k, C> c;
  } payload{&d, a, b, c};
  const cuda_on_cpu::Combine combine = [](void** payloads, std::uint32_t present, int) {
    if (present != 0xffffffffu) cuda_on_cpu::kernel_error("mma_sync by an incomplete warp", cuda_on_cpu::Site::here());
    float left[m][k], right[k][n], sum[m][n];
    for (int lane = 0; lane < 32; ++lane) {
      auto* p = static_cast<Payload*>(payloads[lane]);
      p->a.for_each(lane, [&](int i, int j, A v) { left[i][j] = static_cast<float>(v); });
      p->b.for_each(lane, [&](int i, int j, B v) { right[i][j] = static_cast<float>(v); });
      p->c.for_each(lane, [&](int i, int j, C v) { sum[i][j] = static_cast<float>(v); });
    }
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j)
        for (int l = 0; l < k; ++l) sum[i][j] += left[i][l] * right[l][j];
    for (int lane = 0; lane < 32; ++lane)
      static_cast<Payload*>(payloads[lane])->d->for_each(lane, [&](int i, int j, D& v) {
        v = static_cast<D>(sum[i][j]);
      });
  };
  cuda_on_cpu::warp_collective(0xffffffffu, cuda_on_cpu::WarpOp::matrix, 1, &payload, combine, site);
}

}  // namespace nvcuda::wmma
