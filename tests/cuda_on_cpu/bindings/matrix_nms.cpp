#include "launchers.h"
#include "matrix_nms/matrix_nms_cuda.h"

using namespace structops::cuda;

EMULATE(matrix_nms_workspace_float32, matrix_nms_workspace<float>)
EMULATE(matrix_nms_workspace_float64, matrix_nms_workspace<double>)
EMULATE(matrix_nms_float32, matrix_nms<float>)
EMULATE(matrix_nms_float64, matrix_nms<double>)
