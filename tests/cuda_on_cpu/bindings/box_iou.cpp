#include "box_iou/box_iou_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

#define EMULATE_BOTH(name)             \
  EMULATE(name##_float32, name<float>) \
  EMULATE(name##_float64, name<double>)
EMULATE_BOTH(box_ratios)
EMULATE_BOTH(box_iou)
EMULATE_BOTH(box_iou_backward_workspace)
EMULATE_BOTH(box_iou_backward)
EMULATE_BOTH(box_iou_rows)
EMULATE_BOTH(box_iou_rows_backward)
