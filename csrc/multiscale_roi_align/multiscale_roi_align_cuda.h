// RoI Align over a feature pyramid on the GPU: launchers, free of torch. T is __half, __nv_bfloat16, float or double.
#pragma once
#include <cuda_runtime_api.h>

#include <cstddef>

#include "multiscale_roi_align/levels.h"

namespace structops::cuda {

// One pointer a level, the rest null. By name: the emulator of the tests passes structs field by field.
struct LevelData {
  const void *l0, *l1, *l2, *l3, *l4, *l5, *l6, *l7;
};

// Which level a RoI is on.
struct LevelChoice {
  LevelRule rule;
  int64_t levels;
  const int64_t* chosen;  // [K], or null: by the rule; out of range: NaN
  const int64_t* valid;   // [K / rows], or null; a RoI past its image's count gives zeros
  int64_t rows;
};

// p: the call's; height, width and scale are not used. features: [N, C, Hl, Wl]; geometry [levels, 6]: height, width,
// element strides (n, c, h, w), on the host like scales [levels]. rois [K, 5] (batch index, x1, y1, x2, y2), dense,
// float or double; output [K, C, PH, PW], dense, in the layout told. channels_last also asks for stride c of 1.
template <class T>
cudaError_t multiscale_roi_align_forward(const RoiAlignParams& p, const LevelChoice& choice, const LevelData& features,
                                         const int64_t* geometry, const double* scales, const void* rois,
                                         bool rois_are_double, T* output, bool channels_last, cudaStream_t stream);

// What the backwards of the levels share, into a workspace of roi_align_backward_workspace(p) bytes: the pixels that
// each RoI touches on its level, and the number of its image among those of all levels. sizes [levels, 2]: height and
// width, on the host.
cudaError_t multiscale_roi_align_bounds(const RoiAlignParams& p, const LevelChoice& choice, const int64_t* sizes,
                                        const double* scales, const void* rois, bool rois_are_double, void* workspace,
                                        cudaStream_t stream);

}  // namespace structops::cuda
