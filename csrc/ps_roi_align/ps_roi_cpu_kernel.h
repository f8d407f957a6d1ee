// Position-sensitive RoI pooling on one instruction set: included inside its namespace by common/cpu/foreach_isa.h.
//
// Every channel serves one class and one bin, so the kernels go plane by plane: a plane (10 KB of a 38 x 63 map) stays
// in the L1 cache while all RoIs read their bin of it, and the map is read from memory once, not once a RoI. Going RoI
// by RoI, as the other RoI ops do, would read 3 lines of each of 1029 planes for every RoI: 60 MB of lines for 300
// RoIs, where the map is 10 MB.
//
// A bin of a plane is two to four rows of two to four columns. A row is one load of four columns from the bin's first,
// whatever its columns; weights of columns that are not the bin's are zero, and their products dropped, not added
// (they may be NaN).
// clang-format off: the second is written with the first
#include "common/cpu/vec.h"
#include "common/cpu/transpose.h"
// clang-format on

template <class A>
struct QuadOf {
  typedef A type __attribute__((vector_size(4 * sizeof(A))));
};
template <class A>
using Quad = typename QuadOf<A>::type;

inline Quad<float> load_quad(const float* p) {
  Quad<float> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Quad<double> load_quad(const double* p) {
  Quad<double> v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Quad<float> load_quad(const Half* p) {
#if STRUCTOPS_ISA_AVX2
  return (Quad<float>)_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
#else
  return Quad<float>{static_cast<float>(p[0]), static_cast<float>(p[1]), static_cast<float>(p[2]),
                     static_cast<float>(p[3])};
#endif
}
inline Quad<float> load_quad(const BFloat16* p) {
  typedef uint16_t Halves __attribute__((vector_size(8)));
  typedef uint32_t Words __attribute__((vector_size(16)));
  Halves half;
  std::memcpy(&half, p, sizeof half);
  return (Quad<float>)(__builtin_convertvector(half, Words) << 16);
}

inline Quad<float> quad_multiply_add(Quad<float> a, Quad<float> b, Quad<float> c) {
#if STRUCTOPS_ISA_AVX2
  return (Quad<float>)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c);
#else
  return a * b + c;
#endif
}
inline Quad<double> quad_multiply_add(Quad<double> a, Quad<double> b, Quad<double> c) {
#if STRUCTOPS_ISA_AVX2
  return (Quad<double>)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}
template <class A>
inline Quad<A> quad_of(A value) {
  return Quad<A>{value, value, value, value};
}
// Lane l is the sum of the lanes of the l-th.
template <class V>
inline V sums(V a, V b, V c, V d) {
  const V ab = __builtin_shufflevector(a, b, 0, 4, 1, 5) + __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const V cd = __builtin_shufflevector(c, d, 0, 4, 1, 5) + __builtin_shufflevector(c, d, 2, 6, 3, 7);
  return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

// One row and one column of bins, of one group: what a plane needs to know.
template <class A>
struct PlaneTaps {
  const RowTable<A>& rows;
  const ColumnTable<A>& columns;
  const int64_t* rois;  // numbers of the members
};

// The four partial sums of one bin: down its rows first, R of them (0: as many as there are).
template <int R, class S, class A>
inline Quad<A> partial_sums(const S* plane, const PlaneTaps<A>& t, const typename RowTable<A>::Entry& entry) {
  const int64_t* offset = t.rows.offset.data() + entry.first;
  const A* weight = t.rows.weight.data() + entry.first;
  const int64_t taps = R ? R : entry.taps;
  Quad<A> sum{};
  for (int32_t i = t.columns.first[entry.member]; i < t.columns.first[entry.member + 1]; ++i) {
    const auto& window = t.columns.windows[i];
    const S* at = plane + window.column;
    Quad<A> line = quad_of(weight[0]) * load_quad(at + offset[0]);
    for (int64_t r = 1; r < taps; ++r) line = quad_multiply_add(quad_of(weight[r]), load_quad(at + offset[r]), line);
    const Quad<A> w = load_quad(window.weight);
    sum += w != 0 ? w * line : Quad<A>{};
  }
  return sum;
}

// out[k] = the plane's bin of RoI k, for entries [begin, end) of R rows.
template <int R, class S, class A>
inline void pool_entries(const S* plane, const PlaneTaps<A>& t, int64_t begin, int64_t end, A* out) {
  const auto* entries = t.rows.entries.data();
  int64_t i = begin;
  for (; i + 4 <= end; i += 4) {
    const Quad<A> sum = sums(partial_sums<R>(plane, t, entries[i]), partial_sums<R>(plane, t, entries[i + 1]),
                             partial_sums<R>(plane, t, entries[i + 2]), partial_sums<R>(plane, t, entries[i + 3]));
    for (int l = 0; l < 4; ++l) out[t.rois[entries[i + l].member]] = sum[l];
  }
  for (; i < end; ++i)
    out[t.rois[entries[i].member]] = sums(partial_sums<R>(plane, t, entries[i]), Quad<A>{}, Quad<A>{}, Quad<A>{})[0];
}

// plane += grad[k] on the bin's pixels, for entries [begin, end) of R rows.
template <int R, class A>
inline void spread_entries(A* plane, const PlaneTaps<A>& t, int64_t begin, int64_t end, const A* grad) {
  for (int64_t e = begin; e < end; ++e) {
    const auto& entry = t.rows.entries[e];
    const Quad<A> g = quad_of(grad[t.rois[entry.member]]);
    const int64_t* offset = t.rows.offset.data() + entry.first;
    const A* weight = t.rows.weight.data() + entry.first;
    for (int32_t i = t.columns.first[entry.member]; i < t.columns.first[entry.member + 1]; ++i) {
      const auto& window = t.columns.windows[i];
      const Quad<A> w = load_quad(window.weight);
      const Quad<A> line = w != 0 ? w * g : Quad<A>{};
      for (int64_t r = 0; r < (R ? R : entry.taps); ++r) {
        A* at = plane + window.column + offset[r];
        const Quad<A> sum = quad_multiply_add(quad_of(weight[r]), line, load_quad(at));
        std::memcpy(at, &sum, sizeof sum);
      }
    }
  }
}

// Calls visit.template operator()<R>(begin, end) for the entries of R rows, R = 0 for those of more than four.
template <class A, class Visit>
inline void by_rows(const RowTable<A>& rows, Visit visit) {
  const int64_t n = static_cast<int64_t>(rows.entries.size());
  int64_t at = 0;
  const auto run = [&](int32_t most) {
    const int64_t begin = at;
    while (at < n && rows.entries[at].taps <= most) ++at;
    return begin;
  };
  int64_t begin = run(0);
  visit.nothing(begin, at);
  begin = run(1), visit.template some<1>(begin, at);
  begin = run(2), visit.template some<2>(begin, at);
  begin = run(3), visit.template some<3>(begin, at);
  begin = run(4), visit.template some<4>(begin, at);
  visit.template some<0>(at, n);
}

template <class S, class A>
struct PoolPlane {
  const S* plane;
  const PlaneTaps<A>& taps;
  A* out;
  void nothing(int64_t begin, int64_t end) const {
    for (; begin < end; ++begin) out[taps.rois[taps.rows.entries[begin].member]] = A(0);
  }
  template <int R>
  void some(int64_t begin, int64_t end) const {
    pool_entries<R>(plane, taps, begin, end, out);
  }
};

template <class A>
struct SpreadPlane {
  A* plane;
  const PlaneTaps<A>& taps;
  const A* grad;
  void nothing(int64_t, int64_t) const {}
  template <int R>
  void some(int64_t begin, int64_t end) const {
    spread_entries<R>(plane, taps, begin, end, grad);
  }
};

// How a [K, C, PH, PW] tensor counts a RoI's elements in memory, and where among them a channel's is.
struct Order {
  int64_t classes, bins;
  bool channels_last;
  int64_t position(int64_t channel) const {
    return channels_last ? channel % bins * classes + channel / bins : channel;
  }
};

// Planes apart, as copies: [channels][rows][columns] with room for a window in each row. Their distance is no multiple
// of 4 KB, at which 16 rows of a transposed square would fall into one cache set.
struct PlaneCopy {
  int64_t columns, elements;
  PlaneCopy(int64_t height, int64_t width) : columns(std::max<int64_t>(width, 4)), elements(height * columns) {
    elements = (elements + 15) / 16 * 16;
    if (elements % 512 == 0) elements += 16;
  }
};

// Channels copied at a time: their planes then stay in half of a 512 KB L2 cache, beside the lines they came from.
inline int64_t channels_at_a_time(int64_t channels, int64_t plane_bytes) {
  const int64_t fit = (int64_t{256} << 10) / plane_bytes / 16 * 16;
  return std::clamp<int64_t>(fit, 1, channels);
}

template <class S>
inline void prefetch_plane(const S* plane, int64_t height, int64_t width, int64_t row_stride) {
  if (row_stride == width) width *= height, height = 1;
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < width; x += 64 / int64_t(sizeof(S))) __builtin_prefetch(plane + y * row_stride + x, 0, 2);
}

template <class S, class D>
inline void convert_row(const S* from, D* to, int64_t n) {
  int64_t i = 0;
  for (; i + kLanes<S> <= n; i += kLanes<S>) store(to + i, load(from + i));
  for (; i < n; ++i) to[i] = static_cast<D>(from[i]);
}

template <class T>
void ps_roi_forward(const PsRoiParams& p, const T* input, const int64_t s[4], const double* rois, T* output,
                    bool channels_last, ParallelFor parallel_for) {
  using A = acc_t<T>;
  const int64_t bins = p.pooled_height * p.pooled_width, channels = p.classes * bins;
  const Order order{p.classes, bins, channels_last};
  // Where a window of a row is one load, planes are read where they are.
  const bool direct = s[3] == 1 && p.width >= 4;
  const PlaneCopy copy(p.height, p.width);
  const int64_t chunk = direct ? 16 : channels_at_a_time(channels, copy.elements * int64_t(sizeof(A)));
  const int64_t chunks = (channels + chunk - 1) / chunk;
  // The results of some RoIs, [channels, RoIs]: a plane writes one row, and the output is its transpose.
  constexpr int64_t kBlock = 512;
  Scratch<A> scratch;
  A* results = scratch.at_least(channels * std::min(p.rois, kBlock));
  for (int64_t begin = 0; begin < p.rois; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, p.rois), n = end - begin;
    const std::vector<PsRoiGroup> groups = group_by_image(p, rois, begin, end);
    const std::vector<GroupTables<A>> tables =
        build_tables<A>(p, groups, rois, direct ? s[2] : copy.columns, direct ? p.width : copy.columns, parallel_for);
    const double steps = static_cast<double>(n * channels) * 4 +
                         (direct ? 0.0
                                 : static_cast<double>(groups.size()) * static_cast<double>(p.height * p.width) *
                                       static_cast<double>(channels) / 4);
    share(parallel_for, workers_for(steps), static_cast<int64_t>(groups.size()) * chunks, 1, [&](ItemQueue& queue) {
      Scratch<A> planes;
      for (int64_t i, last; queue.take(i, last);)
        for (; i < last; ++i) {
          const GroupTables<A>& t = tables[i / chunks];
          const int64_t c0 = i % chunks * chunk, c1 = std::min(c0 + chunk, channels);
          const T* image = input + t.group->image * s[0];
          // Bins jump about their plane, which no hardware prefetcher follows; worth it where they touch most of its
          // lines, some four each. 300 RoIs on 38 x 63: 1.9 ms instead of 2.5.
          const bool ahead = direct && 4 * 64 * static_cast<int64_t>(t.group->rois.size()) >
                                           p.height * p.width * static_cast<int64_t>(sizeof(T));
          A* copied = direct ? nullptr : planes.at_least(chunk * copy.elements);
          if (!direct)
            for (int64_t y = 0; y < p.height; ++y)
              transpose_any(image + c0 * s[1] + y * s[2], s[3], s[1], p.width, c1 - c0, copied + y * copy.columns,
                            copy.elements);
          for (int64_t c = c0; c < c1; ++c) {
            const int64_t bin = c % bins;
            const PlaneTaps<A> taps{t.rows[bin / p.pooled_width], t.columns[bin % p.pooled_width],
                                    t.group->rois.data()};
            A* out = results + order.position(c) * n - begin;
            if (ahead && c + 1 < c1) prefetch_plane(image + (c + 1) * s[1], p.height, p.width, s[2]);
            if (direct)
              by_rows(taps.rows, PoolPlane<T, A>{image + c * s[1], taps, out});
            else
              by_rows(taps.rows, PoolPlane<A, A>{copied + (c - c0) * copy.elements, taps, out});
          }
        }
    });
    share(parallel_for, workers_for(static_cast<double>(n * channels) / 4), (n + 15) / 16, 1, [&](ItemQueue& queue) {
      for (int64_t i, last; queue.take(i, last);)
        for (; i < last; ++i) {
          const int64_t k0 = i * 16, k1 = std::min(k0 + 16, n);
          transpose(static_cast<const A*>(results) + k0, n, channels, k1 - k0, output + (begin + k0) * channels,
                    channels);
        }
    });
    std::vector<bool> known(static_cast<size_t>(n), false);
    for (const PsRoiGroup& group : groups)
      for (const int64_t k : group.rois) known[k - begin] = true;
    for (int64_t k = begin; k < end; ++k)
      if (!known[k - begin])
        std::fill_n(output + k * channels, channels, static_cast<T>(std::numeric_limits<A>::quiet_NaN()));
  }
}

// grad as [channels, K], in the order in which a RoI's elements lie in memory; in the channels' where they lie in none.
template <class T>
void take_grad(const PsRoiParams& p, const T* grad, const int64_t s[4], const Order& order, bool dense, acc_t<T>* taken,
               ParallelFor parallel_for) {
  const int64_t channels = order.classes * order.bins;
  share(parallel_for, workers_for(static_cast<double>(p.rois * channels) / 4), (channels + 63) / 64, 1,
        [&](ItemQueue& queue) {
          for (int64_t i, last; queue.take(i, last);)
            for (; i < last; ++i) {
              const int64_t c0 = i * 64, c1 = std::min(c0 + 64, channels);
              if (dense) {
                transpose(grad + c0, s[0], p.rois, c1 - c0, taken + c0 * p.rois, p.rois);
                continue;
              }
              for (int64_t c = c0; c < c1; ++c) {
                const int64_t bin = c % order.bins;
                const T* from =
                    grad + c / order.bins * s[1] + bin / p.pooled_width * s[2] + bin % p.pooled_width * s[3];
                for (int64_t k = 0; k < p.rois; ++k) taken[c * p.rois + k] = static_cast<acc_t<T>>(from[k * s[0]]);
              }
            }
        });
}

// By planes: one is summed over its RoIs, always in the same order, in the L1 cache, and written once, zeros included.
// So no atomics, the same sum whoever does it, and half precision needs no float map.
template <class T>
void ps_roi_backward(const PsRoiParams& p, const T* grad, const int64_t s[4], const double* rois, T* grad_input,
                     bool channels_last, ParallelFor parallel_for) {
  using A = acc_t<T>;
  const int64_t bins = p.pooled_height * p.pooled_width, channels = p.classes * bins, pixels = p.height * p.width;
  const bool planar = s[3] == 1 && s[2] == p.pooled_width && s[1] == bins;
  const bool packed = s[1] == 1 && s[3] == p.classes && s[2] == p.classes * p.pooled_width;
  const Order order{p.classes, bins, packed && !planar};
  Scratch<A> scratch;
  A* taken = scratch.at_least(channels * p.rois);
  take_grad(p, grad, s, order, planar || packed, taken, parallel_for);

  const PlaneCopy copy(p.height, p.width);
  const bool direct = !channels_last && std::is_same_v<T, A> && p.width >= 4;
  const int64_t columns = direct ? p.width : copy.columns;
  const std::vector<PsRoiGroup> groups = group_by_image(p, rois, 0, p.rois);
  const std::vector<GroupTables<A>> tables = build_tables<A>(p, groups, rois, columns, columns, parallel_for);
  std::vector<const GroupTables<A>*> of_image(static_cast<size_t>(p.batch), nullptr);
  for (const GroupTables<A>& t : tables) of_image[t.group->image] = &t;

  const int64_t chunk = channels_last ? channels_at_a_time(channels, copy.elements * int64_t(sizeof(A))) : 1;
  const int64_t chunks = (channels + chunk - 1) / chunk;
  const double steps = static_cast<double>(p.rois * channels) * 6 +
                       static_cast<double>(p.batch * channels) * static_cast<double>(pixels) / kLanes<A>;
  share(parallel_for, workers_for(steps), p.batch * chunks, channels_last ? 1 : 4, [&](ItemQueue& queue) {
    Scratch<A> planes;
    for (int64_t i, last; queue.take(i, last);)
      for (; i < last; ++i) {
        const int64_t image = i / chunks, c0 = i % chunks * chunk, c1 = std::min(c0 + chunk, channels);
        T* to = grad_input + image * channels * pixels;
        const GroupTables<A>* t = of_image[image];
        if (t == nullptr) {  // no RoI
          if (!channels_last)
            std::fill_n(to + c0 * pixels, pixels, T(0));
          else
            for (int64_t x = 0; x < pixels; ++x) std::fill_n(to + x * channels + c0, c1 - c0, T(0));
          continue;
        }
        A* sums = nullptr;
        if constexpr (std::is_same_v<T, A>) sums = direct ? to + c0 * pixels : nullptr;
        if (!direct) sums = planes.at_least(chunk * copy.elements);
        std::fill_n(sums, direct ? pixels : (c1 - c0) * copy.elements, A(0));
        for (int64_t c = c0; c < c1; ++c) {
          const int64_t bin = c % bins;
          const PlaneTaps<A> taps{t->rows[bin / p.pooled_width], t->columns[bin % p.pooled_width],
                                  t->group->rois.data()};
          by_rows(taps.rows, SpreadPlane<A>{sums + (c - c0) * copy.elements, taps, taken + order.position(c) * p.rois});
        }
        if (direct) continue;
        for (int64_t y = 0; y < p.height; ++y) {
          const A* row = sums + y * copy.columns;
          if (channels_last)
            transpose(row, copy.elements, c1 - c0, p.width, to + y * p.width * channels + c0, channels);
          else
            convert_row(row, to + c0 * pixels + y * p.width, p.width);
        }
      }
  });
}
