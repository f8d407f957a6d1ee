#include "box_iou_rotated/box_iou_rotated_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

EMULATE(rotated_boxes_float32, rotated_boxes<float>)
EMULATE(rotated_boxes_float64, rotated_boxes<double>)
EMULATE(box_iou_rotated_float32, box_iou_rotated<float>)
EMULATE(box_iou_rotated_float64, box_iou_rotated<double>)
EMULATE(box_iou_rotated_elementwise_float32, box_iou_rotated_elementwise<float>)
EMULATE(box_iou_rotated_elementwise_float64, box_iou_rotated_elementwise<double>)
