#include "launchers.h"
#include "paste_masks/paste_masks_cuda.h"

using namespace structops::cuda;

EMULATE(paste_masks_float32, paste_masks<float>)
EMULATE(paste_masks_float64, paste_masks<double>)
