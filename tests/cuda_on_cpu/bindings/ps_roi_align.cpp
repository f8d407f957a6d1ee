#include "launchers.h"
#include "ps_roi_align/ps_roi_cuda.h"

using namespace structops::cuda;

EMULATE_FLOATING(ps_roi_forward, ps_roi_forward<scalar_t>)
EMULATE_FLOATING(ps_roi_backward, ps_roi_backward<scalar_t>)
EMULATE(ps_roi_workspace, ps_roi_workspace)
