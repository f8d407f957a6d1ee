#include "launchers.h"
#include "roi_align_rotated/roi_align_rotated_cuda.h"

using namespace structops::cuda;

EMULATE_FLOATING(roi_align_rotated_forward, roi_align_rotated_forward<scalar_t>)
EMULATE_FLOATING(roi_align_rotated_backward, roi_align_rotated_backward<scalar_t>)
EMULATE(roi_align_rotated_workspace, roi_align_rotated_workspace)
