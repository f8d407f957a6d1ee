#include "launchers.h"
#include "roi_pool/roi_pool_cuda.h"

using namespace structops::cuda;

EMULATE_FLOATING(roi_pool_forward, roi_pool_forward<scalar_t>)
EMULATE_FLOATING(roi_pool_backward, roi_pool_backward<scalar_t>)
EMULATE(roi_pool_backward_workspace, roi_pool_backward_workspace)
