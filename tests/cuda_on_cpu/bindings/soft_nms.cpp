#include "launchers.h"
#include "soft_nms/soft_nms_cuda.h"

using namespace structops::cuda;

EMULATE(soft_nms_workspace_float32, soft_nms_workspace<float>)
EMULATE(soft_nms_workspace_float64, soft_nms_workspace<double>)
EMULATE(soft_nms_decay_float32, soft_nms_decay<float>)
EMULATE(soft_nms_decay_float64, soft_nms_decay<double>)
EMULATE(soft_nms_finish_float32, soft_nms_finish<float>)
EMULATE(soft_nms_finish_float64, soft_nms_finish<double>)
