#include "launchers.h"
#include "nms_rotated/nms_rotated_cuda.h"

using namespace structops::cuda;

EMULATE(nms_rotated_workspace, nms_rotated_workspace)
EMULATE(nms_rotated_float32, nms_rotated<float>)
EMULATE(nms_rotated_float64, nms_rotated<double>)
