// Run-length encoding of masks on the GPU: a thread a column (neighbours read neighbouring bytes of a row), twice, then
// a thread a run, twice.
#include "common/cuda/device.cuh"
#include "encode_masks/encode_masks_cuda.h"
#include "encode_masks/run_code.h"

namespace structops::cuda {
namespace {

constexpr int kThreads = 128;

// A column of a mask from its first pixel to its last.
class Column {
 public:
  __device__ Column(const EncodeParams& p, const uint8_t* masks, int64_t mask, int64_t column)
      : p_(p), bytes_(masks + mask * p.height * p.row_bytes), column_(column) {}

  // Calls visit(row) for every pixel that differs from the one before it.
  template <class Visit>
  __device__ void for_each_change(const Visit& visit) const {
    if (p_.width == 0) return;
    bool before = column_ > 0 && p_.height > 0 && pixel(p_.height - 1, column_ - 1);
    for (int64_t row = 0; row < p_.height; ++row) {
      const bool here = pixel(row, column_);
      if (here != before) visit(row);
      before = here;
    }
  }

 private:
  __device__ bool pixel(int64_t row, int64_t column) const {
    const uint8_t* at = bytes_ + row * p_.row_bytes;
    return p_.packed ? __ldg(at + column / 8) >> column % 8 & 1 : __ldg(at + column) != 0;
  }

  const EncodeParams& p_;
  const uint8_t* bytes_;
  int64_t column_;
};

__global__ void __launch_bounds__(kThreads) count_changes_kernel(EncodeParams p, const uint8_t* __restrict__ masks,
                                                                 int64_t columns, int32_t* __restrict__ changes) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.count * columns) return;
  int count = 0;
  Column(p, masks, i / columns, i % columns).for_each_change([&](int64_t) { ++count; });
  changes[i] = count;
}

__global__ void __launch_bounds__(kThreads)
    write_ends_kernel(EncodeParams p, const uint8_t* __restrict__ masks, int64_t columns,
                      const int64_t* __restrict__ until, int32_t* __restrict__ ends) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= p.count * columns) return;
  const int64_t mask = i / columns, column = i % columns;
  int32_t* end = ends + (i > 0 ? until[i - 1] : 0) + mask;  // each mask has a run more than changes
  Column(p, masks, mask, column).for_each_change([&](int64_t row) { *end++ = int32_t(column * p.height + row); });
  if (column == columns - 1) *end = int32_t(p.width * p.height);
}

// Which run of which mask.
struct Run {
  int64_t mask, first, last;  // runs of the mask: from the first to the last, the latter included

  __device__ Run(const EncodeParams& p, int64_t columns, const int64_t* until, int64_t run) {
    const auto end_of = [&](int64_t k) { return until[(k + 1) * columns - 1] + k + 1; };
    int64_t low = 0, high = p.count - 1;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (end_of(middle) > run)
        high = middle;
      else
        low = middle + 1;
    }
    mask = low, first = low > 0 ? end_of(low - 1) : 0, last = end_of(low) - 1;
  }
};

// The number that stands for a run.
__device__ int64_t number_of(const Run& of, const int32_t* ends, int64_t run) {
  const auto length = [&](int64_t r) { return int64_t(ends[r]) - (r > of.first ? ends[r - 1] : 0); };
  return length(run) - (run - of.first > 2 ? length(run - 2) : 0);
}

__global__ void __launch_bounds__(kThreads)
    count_characters_kernel(EncodeParams p, int64_t columns, const int64_t* __restrict__ until,
                            const int32_t* __restrict__ ends, int64_t runs, int32_t* __restrict__ characters) {
  const int64_t run = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (run < runs) characters[run] = run_characters(number_of(Run(p, columns, until, run), ends, run));
}

__global__ void __launch_bounds__(kThreads)
    write_text_kernel(EncodeParams p, int64_t columns, const int64_t* __restrict__ until,
                      const int32_t* __restrict__ ends, int64_t runs, const int64_t* __restrict__ text_until,
                      uint8_t* __restrict__ text, int64_t* __restrict__ offsets) {
  const int64_t run = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (run >= runs) return;
  const Run of(p, columns, until, run);
  write_run(number_of(of, ends, run), text + (run > 0 ? text_until[run - 1] : 0));
  if (run == 0) offsets[0] = 0;
  if (run == of.last) offsets[of.mask + 1] = text_until[run];
}

unsigned blocks_for(int64_t threads) { return unsigned(ceil_div<int64_t>(threads, kThreads)); }

}  // namespace

cudaError_t count_changes(const EncodeParams& p, const uint8_t* masks, int32_t* changes, cudaStream_t stream) {
  const int64_t columns = encoded_columns(p);
  return launch(count_changes_kernel, dim3(blocks_for(p.count * columns)), dim3(kThreads), 0, stream, p, masks, columns,
                changes);
}

cudaError_t write_ends(const EncodeParams& p, const uint8_t* masks, const int64_t* until, int32_t* ends,
                       cudaStream_t stream) {
  const int64_t columns = encoded_columns(p);
  return launch(write_ends_kernel, dim3(blocks_for(p.count * columns)), dim3(kThreads), 0, stream, p, masks, columns,
                until, ends);
}

cudaError_t count_characters(const EncodeParams& p, const int64_t* until, const int32_t* ends, int64_t runs,
                             int32_t* characters, cudaStream_t stream) {
  return launch(count_characters_kernel, dim3(blocks_for(runs)), dim3(kThreads), 0, stream, p, encoded_columns(p),
                until, ends, runs, characters);
}

cudaError_t write_text(const EncodeParams& p, const int64_t* until, const int32_t* ends, int64_t runs,
                       const int64_t* text_until, uint8_t* text, int64_t* offsets, cudaStream_t stream) {
  return launch(write_text_kernel, dim3(blocks_for(runs)), dim3(kThreads), 0, stream, p, encoded_columns(p), until,
                ends, runs, text_until, text, offsets);
}

}  // namespace structops::cuda
