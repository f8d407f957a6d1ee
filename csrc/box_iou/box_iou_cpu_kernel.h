// IoU of boxes on one instruction set: included inside its namespace by common/cpu/foreach_isa.h.
#include "box_iou/box_iou_pair.h"
#include "common/cpu/vec.h"

// 512 boxes field by field are 12 KB of floats: they stay in the first cache while 64 rows pass over them, which makes
// laying them out cost little.
constexpr int64_t kTileRows = 64, kTileColumns = 512;

template <class A>
inline Side<Vec<A>> in_all_lanes(const Side<A>& s) {
  return {broadcast(s.x1), broadcast(s.y1), broadcast(s.x2), broadcast(s.y2), broadcast(s.area), broadcast(s.angle)};
}

// At most kTileColumns values of each field of a Side or a SideGradient; vectors read and write them.
template <class A, template <class> class Of>
struct Table {
  alignas(64) A field[6][kTileColumns];

  template <class V>
  Of<V> at(int64_t j) const {
    if constexpr (std::is_same_v<V, A>) {
      return {field[0][j], field[1][j], field[2][j], field[3][j], field[4][j], field[5][j]};
    } else {
      return {load(field[0] + j), load(field[1] + j), load(field[2] + j),
              load(field[3] + j), load(field[4] + j), load(field[5] + j)};
    }
  }
  template <class V>
  void put(int64_t j, const Of<V>& value) {
    std::memcpy(field[0] + j, &value.x1, sizeof(V));
    std::memcpy(field[1] + j, &value.y1, sizeof(V));
    std::memcpy(field[2] + j, &value.x2, sizeof(V));
    std::memcpy(field[3] + j, &value.y2, sizeof(V));
    std::memcpy(field[4] + j, &value.area, sizeof(V));
    std::memcpy(field[5] + j, &value.angle, sizeof(V));
  }
};
template <class A>
using Sides = Table<A, Side>;
template <class A>
using Gradients = Table<A, SideGradient>;

template <class A>
inline Side<A> side_at(BoxFormat format, const A* boxes, const A* angles, int64_t i) {
  return side_of(format, boxes + 4 * i, angles != nullptr ? angles[i] : A(0));
}

// Boxes [first, first + n), and zeros up to a whole vector.
template <class A>
inline void fill(Sides<A>& table, BoxFormat format, const A* boxes, const A* angles, int64_t first, int64_t n) {
  for (int64_t j = 0; j < n; ++j) table.put(j, side_at(format, boxes, angles, first + j));
  for (int64_t j = n; j % kLanes<A> != 0; ++j) table.put(j, Side<A>{});
}

template <class A>
inline A sum_of_lanes(Vec<A> v) {
  A sum = v[0];
  for (int64_t l = 1; l < kLanes<A>; ++l) sum += v[l];
  return sum;
}
template <class A>
inline SideGradient<A> sum_of_lanes(const SideGradient<Vec<A>>& g) {
  return {sum_of_lanes<A>(g.x1), sum_of_lanes<A>(g.y1),   sum_of_lanes<A>(g.x2),
          sum_of_lanes<A>(g.y2), sum_of_lanes<A>(g.area), sum_of_lanes<A>(g.angle)};
}
template <class A>
inline void add(SideGradient<A>& sum, const SideGradient<A>& more) {
  sum.x1 += more.x1, sum.y1 += more.y1, sum.x2 += more.x2, sum.y2 += more.y2;
  sum.area += more.area, sum.angle += more.angle;
}

// The pairs of a batch in tiles: rows [row, row_end) with columns [column, column_end).
struct Tile {
  int64_t batch, row, row_end, column, column_end, row_tile, column_tile;
};
struct Tiling {
  int64_t rows, columns, row_tiles, column_tiles, count;
  explicit Tiling(const BoxIouParams& p)
      : rows(p.rows),
        columns(p.columns),
        row_tiles((p.rows + kTileRows - 1) / kTileRows),
        column_tiles((p.columns + kTileColumns - 1) / kTileColumns),
        count(p.batch * row_tiles * column_tiles) {}
  Tile operator[](int64_t i) const {
    const int64_t column_tile = i % column_tiles, row_tile = i / column_tiles % row_tiles;
    const int64_t row = row_tile * kTileRows, column = column_tile * kTileColumns;
    return {i / column_tiles / row_tiles,
            row,
            std::min(row + kTileRows, rows),
            column,
            std::min(column + kTileColumns, columns),
            row_tile,
            column_tile};
  }
};

// Some eight steps a vector of pairs, most of them the division.
template <class A>
inline int64_t workers_for_pairs(const BoxIouParams& p, int64_t pairs) {
  const double steps = p.kind == BoxIouKind::plain ? 8 : 16;
  return workers_for(static_cast<double>(pairs) * steps / static_cast<double>(kLanes<A>));
}

template <class A>
void box_iou(const BoxIouParams& p, const BoxSets<A>& sets, A* output, ParallelFor parallel_for) {
  with_kind(p.kind, [&]<BoxIouKind kKind>() {
    const Tiling tiles(p);
    const A eps = static_cast<A>(p.eps);
    share(parallel_for, workers_for_pairs<A>(p, p.batch * p.rows * p.columns), tiles.count, 1, [&](ItemQueue& queue) {
      Sides<A> columns;
      for (int64_t begin, end; queue.take(begin, end);) {
        const Tile t = tiles[begin];
        const int64_t n = t.column_end - t.column;
        fill(columns, p.format, sets.boxes2, sets.angles2, t.batch * p.columns + t.column, n);
        for (int64_t row = t.batch * p.rows + t.row; row < t.batch * p.rows + t.row_end; ++row) {
          const Side<Vec<A>> mine = in_all_lanes(side_at(p.format, sets.boxes1, sets.angles1, row));
          A* out = output + row * p.columns + t.column;
          int64_t j = 0;
          for (; j + kLanes<A> <= n; j += kLanes<A>)
            store(out + j, pair_value<kKind, A, Vec<A>>(mine, columns.template at<Vec<A>>(j), eps));
          if (j < n)
            store_part(out + j, pair_value<kKind, A, Vec<A>>(mine, columns.template at<Vec<A>>(j), eps), n - j);
        }
      }
    });
  });
}

// One tile's sums: of each row over the tile's columns, and of each column over the tile's rows. A last, incomplete
// vector goes lane by lane: its empty lanes would bring NaN into the sums of the rows.
template <BoxIouKind kKind, class A>
inline void tile_gradients(const BoxIouParams& p, const Tile& t, const A* grad, const BoxSets<A>& sets,
                           const Sides<A>& columns, SideGradient<A>* of_rows, Gradients<A>& of_columns) {
  using V = Vec<A>;
  const A eps = static_cast<A>(p.eps);
  const int64_t n = t.column_end - t.column;
  std::memset(of_columns.field, 0, sizeof of_columns.field);
  for (int64_t row = t.row; row < t.row_end; ++row) {
    const int64_t i = t.batch * p.rows + row;
    const Side<A> mine = side_at(p.format, sets.boxes1, sets.angles1, i);
    const Side<V> mine_in_all = in_all_lanes(mine);
    const A* g = grad + i * p.columns + t.column;
    SideGradient<V> sums{};
    int64_t j = 0;
    for (; j + kLanes<A> <= n; j += kLanes<A>) {
      SideGradient<V> theirs = of_columns.template at<V>(j);
      pair_gradient<kKind, A, V>(mine_in_all, columns.template at<V>(j), load(g + j), eps, sums, theirs);
      of_columns.put(j, theirs);
    }
    SideGradient<A> sum = sum_of_lanes<A>(sums);
    for (; j < n; ++j) {
      SideGradient<A> theirs = of_columns.template at<A>(j);
      pair_gradient<kKind, A, A>(mine, columns.template at<A>(j), g[j], eps, sum, theirs);
      of_columns.put(j, theirs);
    }
    of_rows[row - t.row] = sum;
  }
}

// partial [tiles, B * boxes] of the sums of each box, added in the order of the tiles whoever made them.
template <class A>
inline void finish_gradients(const BoxIouParams& p, const A* boxes, int64_t count, const SideGradient<A>* partial,
                             int64_t tiles, A* grad, ParallelFor parallel_for) {
  constexpr int64_t some = 256;
  share(parallel_for, workers_for(static_cast<double>(count * (tiles + 4))), (count + some - 1) / some, 1,
        [&](ItemQueue& queue) {
          for (int64_t begin, end; queue.take(begin, end);) {
            for (int64_t i = begin * some; i < std::min((begin + 1) * some, count); ++i) {
              SideGradient<A> sum{};
              for (int64_t tile = 0; tile < tiles; ++tile) add(sum, partial[tile * count + i]);
              gradient_of_box(p.kind, p.format, boxes + 4 * i, sum, grad + 4 * i);
            }
          }
        });
}

// Sums by tile first, of both sets at once, then of the tiles: no order depends on the threads, no pair is computed
// twice, and a few rows with very many columns (or the reverse) keep all threads busy.
template <class A>
void box_iou_backward(const BoxIouParams& p, const A* grad, const BoxSets<A>& sets, A* grad1, A* grad2,
                      ParallelFor parallel_for) {
  const Tiling tiles(p);
  const int64_t count1 = p.batch * p.rows, count2 = p.batch * p.columns;
  Scratch<SideGradient<A>> of_rows, of_columns;
  SideGradient<A>* partial1 = of_rows.at_least(tiles.column_tiles * count1);
  SideGradient<A>* partial2 = of_columns.at_least(tiles.row_tiles * count2);
  with_kind(p.kind, [&]<BoxIouKind kKind>() {
    share(parallel_for, 4 * workers_for_pairs<A>(p, count1 * p.columns), tiles.count, 1, [&](ItemQueue& queue) {
      Sides<A> columns;
      Gradients<A> column_sums;
      for (int64_t begin, end; queue.take(begin, end);) {
        const Tile t = tiles[begin];
        const int64_t first = t.batch * p.columns + t.column, n = t.column_end - t.column;
        fill(columns, p.format, sets.boxes2, sets.angles2, first, n);
        SideGradient<A>* row_sums = partial1 + t.column_tile * count1 + t.batch * p.rows + t.row;
        tile_gradients<kKind>(p, t, grad, sets, columns, row_sums, column_sums);
        SideGradient<A>* to = partial2 + t.row_tile * count2 + first;
        for (int64_t j = 0; j < n; ++j) to[j] = column_sums.template at<A>(j);
      }
    });
  });
  finish_gradients(p, sets.boxes1, count1, partial1, tiles.column_tiles, grad1, parallel_for);
  finish_gradients(p, sets.boxes2, count2, partial2, tiles.row_tiles, grad2, parallel_for);
}

// Calls use(first, n) for stretches of at most kTileColumns pairs.
template <class A, class Use>
inline void for_stretches(const BoxIouParams& p, ParallelFor parallel_for, const Use& use) {
  const int64_t stretches = (p.rows + kTileColumns - 1) / kTileColumns;
  share(parallel_for, 2 * workers_for_pairs<A>(p, p.rows), stretches, 1, [&](ItemQueue& queue) {
    for (int64_t begin, end; queue.take(begin, end);)
      use(begin * kTileColumns, std::min(kTileColumns, p.rows - begin * kTileColumns));
  });
}

template <class A>
void box_iou_rows(const BoxIouParams& p, const BoxSets<A>& sets, A* output, ParallelFor parallel_for) {
  with_kind(p.kind, [&]<BoxIouKind kKind>() {
    const A eps = static_cast<A>(p.eps);
    for_stretches<A>(p, parallel_for, [&](int64_t first, int64_t n) {
      Sides<A> sides1, sides2;
      fill(sides1, p.format, sets.boxes1, sets.angles1, first, n);
      fill(sides2, p.format, sets.boxes2, sets.angles2, first, n);
      for (int64_t j = 0; j < n; j += kLanes<A>) {
        const Vec<A> value =
            pair_value<kKind, A, Vec<A>>(sides1.template at<Vec<A>>(j), sides2.template at<Vec<A>>(j), eps);
        if (n - j >= kLanes<A>)
          store(output + first + j, value);
        else
          store_part(output + first + j, value, n - j);
      }
    });
  });
}

template <class A>
void box_iou_rows_backward(const BoxIouParams& p, const A* grad, const BoxSets<A>& sets, A* grad1, A* grad2,
                           ParallelFor parallel_for) {
  with_kind(p.kind, [&]<BoxIouKind kKind>() {
    const A eps = static_cast<A>(p.eps);
    for_stretches<A>(p, parallel_for, [&](int64_t first, int64_t n) {
      Sides<A> sides1, sides2;
      fill(sides1, p.format, sets.boxes1, sets.angles1, first, n);
      fill(sides2, p.format, sets.boxes2, sets.angles2, first, n);
      Gradients<A> sums1, sums2;
      for (int64_t j = 0; j < n; j += kLanes<A>) {
        SideGradient<Vec<A>> to1{}, to2{};
        const int64_t left = n - j;
        const Vec<A> g = left < kLanes<A> ? load_part(grad + first + j, left) : load(grad + first + j);
        pair_gradient<kKind, A, Vec<A>>(sides1.template at<Vec<A>>(j), sides2.template at<Vec<A>>(j), g, eps, to1, to2);
        sums1.put(j, to1);
        sums2.put(j, to2);
      }
      for (int64_t j = 0; j < n; ++j) {
        const int64_t at = 4 * (first + j);
        gradient_of_box(p.kind, p.format, sets.boxes1 + at, sums1.template at<A>(j), grad1 + at);
        gradient_of_box(p.kind, p.format, sets.boxes2 + at, sums2.template at<A>(j), grad2 + at);
      }
    });
  });
}
