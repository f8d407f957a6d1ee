#include "launchers.h"
#include "multiscale_roi_align/multiscale_roi_align_cuda.h"
#include "roi_align/roi_align_cuda.h"

using namespace structops::cuda;

EMULATE_FLOATING(multiscale_roi_align_forward, multiscale_roi_align_forward<scalar_t>)
EMULATE(multiscale_roi_align_bounds, multiscale_roi_align_bounds)
EMULATE_FLOATING(roi_align_gather, roi_align_gather<scalar_t>)
