#include "launchers.h"
#include "roi_align/roi_align_cuda.h"

using namespace structops::cuda;

EMULATE_FLOATING(roi_align_forward, roi_align_forward<scalar_t>)
EMULATE_FLOATING(roi_align_backward, roi_align_backward<scalar_t>)
EMULATE(roi_align_backward_workspace, roi_align_backward_workspace)
