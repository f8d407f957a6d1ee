#include "launchers.h"
#include "nms/nms_cuda.h"

using namespace structops::cuda;

EMULATE(nms_keys_float32, nms_keys<float>)
EMULATE(nms_keys_float64, nms_keys<double>)
EMULATE(nms_gather_classes, nms_gather_classes)
EMULATE(nms_workspace_float32, nms_workspace<float>)
EMULATE(nms_workspace_float64, nms_workspace<double>)
EMULATE(nms_float32, nms<float>)
EMULATE(nms_float64, nms<double>)
