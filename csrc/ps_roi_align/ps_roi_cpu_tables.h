// The taps of many RoIs, arranged for a kernel that stays on one plane of the map and goes through the RoIs.
//
// Such a kernel needs one bin of each RoI at a time, so a table holds one row or column of bins: 300 RoIs are some 8 KB
// of each, and lie in the L1 cache beside their plane.
#pragma once
#include <algorithm>
#include <cstdint>
#include <vector>

#include "ps_roi_align/ps_roi_axis.h"

namespace structops::cpu {

// RoIs of one image, by their number in the call.
struct PsRoiGroup {
  int64_t image;
  std::vector<int64_t> rois;
};

// Row ph of the bins of every RoI.
template <class A>
struct RowTable {
  struct Entry {
    int32_t member;  // of the group
    int32_t taps;
    int64_t first;  // into offset and weight
  };
  std::vector<Entry> entries;   // by number of taps: a loop over a known number needs no branch per RoI
  std::vector<int64_t> offset;  // of the tap's map row, in elements
  std::vector<A> weight;

  void build(const PsRoiParams& p, const PsRoiGroup& group, const double* rois, int64_t ph, int64_t row_stride) {
    entries.clear(), offset.clear(), weight.clear();
    for (size_t i = 0; i < group.rois.size(); ++i) {
      const double* roi = rois + group.rois[i] * 5;
      const int64_t first = static_cast<int64_t>(offset.size());
      for_each_ps_tap(p, roi[2], roi[4], true, ph, [&](int pixel, double w) {
        // A weight that vanishes in A must not turn an infinite pixel into NaN.
        if (static_cast<A>(w) == A(0)) return;
        offset.push_back(pixel * row_stride);
        weight.push_back(static_cast<A>(w));
      });
      const int64_t taps = static_cast<int64_t>(offset.size()) - first;
      entries.push_back({static_cast<int32_t>(i), static_cast<int32_t>(taps), first});
    }
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.taps < b.taps; });
  }
};

// Column pw of the bins of every RoI, as windows of four adjacent columns, one load each. A weight is zero where a
// column of the window is none of the bin's.
template <class A>
struct ColumnTable {
  struct Window {
    int64_t column;
    A weight[4];
  };
  std::vector<int32_t> first;  // [members + 1] into windows
  std::vector<Window> windows;

  // width: columns that a window may lie in, at least 4.
  void build(const PsRoiParams& p, const PsRoiGroup& group, const double* rois, int64_t pw, int64_t width) {
    first.clear(), windows.clear();
    for (const int64_t k : group.rois) {
      const double* roi = rois + k * 5;
      first.push_back(static_cast<int32_t>(windows.size()));
      int64_t end = -1;  // of the current window
      for_each_ps_tap(p, roi[1], roi[3], false, pw, [&](int pixel, double w) {
        if (static_cast<A>(w) == A(0)) return;
        if (pixel >= end) {
          windows.push_back({std::min<int64_t>(pixel, width - 4), {}});
          end = windows.back().column + 4;
        }
        windows.back().weight[pixel - windows.back().column] = static_cast<A>(w);
      });
    }
    first.push_back(static_cast<int32_t>(windows.size()));
  }
};

// All tables of a group.
template <class A>
struct GroupTables {
  const PsRoiGroup* group = nullptr;
  std::vector<RowTable<A>> rows;        // [PH]
  std::vector<ColumnTable<A>> columns;  // [PW]
};

// The RoIs [begin, end) by image, in order; those that are not finite are in no group.
inline std::vector<PsRoiGroup> group_by_image(const PsRoiParams& p, const double* rois, int64_t begin, int64_t end) {
  std::vector<int64_t> place(static_cast<size_t>(p.batch), -1);
  std::vector<PsRoiGroup> groups;
  for (int64_t k = begin; k < end; ++k) {
    const double* roi = rois + k * 5;
    bool finite = true;
    for (int i = 1; i < 5; ++i) finite &= RoiAxis::isfinite_(roi[i] * p.spatial_scale);
    if (!finite) continue;
    int64_t& at = place[static_cast<size_t>(roi[0])];
    if (at < 0) {
      at = static_cast<int64_t>(groups.size());
      groups.push_back({static_cast<int64_t>(roi[0]), {}});
    }
    groups[static_cast<size_t>(at)].rois.push_back(k);
  }
  return groups;
}

// Tables of every group, bin by bin on torch's threads.
template <class A>
std::vector<GroupTables<A>> build_tables(const PsRoiParams& p, const std::vector<PsRoiGroup>& groups,
                                         const double* rois, int64_t row_stride, int64_t width,
                                         ParallelFor parallel_for) {
  std::vector<GroupTables<A>> tables(groups.size());
  int64_t members = 0;
  for (size_t g = 0; g < groups.size(); ++g) {
    tables[g].group = &groups[g];
    tables[g].rows.resize(static_cast<size_t>(p.pooled_height));
    tables[g].columns.resize(static_cast<size_t>(p.pooled_width));
    members += static_cast<int64_t>(groups[g].rois.size());
  }
  const int64_t bins = p.pooled_height + p.pooled_width;
  share(parallel_for, workers_for(static_cast<double>(members * bins) * 40), static_cast<int64_t>(groups.size()) * bins,
        1, [&](ItemQueue& queue) {
          for (int64_t i, end; queue.take(i, end);)
            for (; i < end; ++i) {
              GroupTables<A>& t = tables[static_cast<size_t>(i / bins)];
              const int64_t b = i % bins;
              if (b < p.pooled_height)
                t.rows[static_cast<size_t>(b)].build(p, *t.group, rois, b, row_stride);
              else
                t.columns[static_cast<size_t>(b - p.pooled_height)].build(p, *t.group, rois, b - p.pooled_height,
                                                                          width);
            }
        });
  return tables;
}

}  // namespace structops::cpu
