// Phases of the outputs of a transposed convolution on the GPU, and where a position of one lies.
//
// Along an axis, output o gets input i through tap k where o + padding = i * stride + k * dilation. With o + padding =
// q * stride + phase, a phase has the taps with k * dilation = phase modulo the stride, and each reads the input at
// q + offset. Without dilation, phase and tap agree modulo the stride, and every phase reads the same pixels, except
// that the last tap is missing for those above kernel % stride: so there are two runs of phases, whose outputs are
// columns of one product ("joined"). A run may have positions without an output, at the edges; phases by themselves
// have none.
#pragma once
#include "common/cuda/device.cuh"
#include "common/integers.h"
#include "conv_transpose2d/conv_transpose2d_cuda.h"

namespace structops::cuda {

// One run of phases (or a phase, or all of the gradient of the input, whose positions are input pixels).
struct ConvRun {
  int64_t phase, phases;  // outputs: q * step + phase + (0 ... phases - 1) - padding
  int64_t step, padding;
  int64_t first, count;                // q that there are
  int64_t tap, tap_step, taps;         // kernel indices for the first phase; the next phase's are one further
  int64_t scale, offset, offset_step;  // tap j reads pixel q * scale + offset + j * offset_step
};

// How many runs an axis has. Phases by themselves: one for each of the first outputs.
__host__ __device__ __forceinline__ int64_t conv_runs(const ConvSteps& s, int64_t outputs, bool forward, bool joined) {
  if (!forward) return 1;
  if (joined) return s.kernel % s.stride > 0 ? 2 : 1;
  return s.stride < outputs ? s.stride : outputs;
}

__host__ __device__ __forceinline__ ConvRun conv_run(const ConvSteps& s, int64_t outputs, bool forward, bool joined,
                                                     int64_t index) {
  if (!forward) return {0, 1, 1, 0, 0, outputs, 0, 1, s.kernel, s.stride, -s.padding, s.dilation};
  ConvRun run{(index + s.padding) % s.stride, 1, s.stride, s.padding, 0, 0, 0, 0, 0, 1, 0, 0};
  if (joined) {
    const int64_t longer = s.kernel % s.stride;
    run.phase = index == 0 && longer > 0 ? 0 : longer;
    run.phases = index == 0 && longer > 0 ? longer : s.stride - longer;
  }
  run.first = -floor_divide(run.phase + run.phases - 1 - s.padding, s.stride);
  run.count = floor_divide(outputs - 1 + s.padding - run.phase, s.stride) + 1 - run.first;
  if (run.count < 0) run.count = 0;
  if (run.phase % s.common != 0) return run;  // no tap reaches these outputs
  run.tap_step = s.stride / s.common;
  run.tap = run.phase / s.common * s.inverse % run.tap_step;
  run.taps = run.tap < s.kernel ? (s.kernel - run.tap + run.tap_step - 1) / run.tap_step : 0;
  run.offset = (run.phase - run.tap * s.dilation) / s.stride;
  run.offset_step = -s.dilation / s.common;
  return run;
}

}  // namespace structops::cuda
