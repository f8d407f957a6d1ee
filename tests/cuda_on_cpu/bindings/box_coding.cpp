#include "box_coding/box_coding_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

EMULATE(coding_arguments_float32, coding_arguments<float>)
EMULATE(coding_arguments_float64, coding_arguments<double>)
EMULATE(code_boxes_float32, code_boxes<float>)
EMULATE(code_boxes_float64, code_boxes<double>)
EMULATE(code_boxes_backward_float32, code_boxes_backward<float>)
EMULATE(code_boxes_backward_float64, code_boxes_backward<double>)
