#include "launchers.h"
#include "select_detections/select_detections_cuda.h"

using namespace structops::cuda;

EMULATE(detection_mask_float32, detection_mask<float>)
EMULATE(detection_mask_float64, detection_mask<double>)
EMULATE(detection_sizes_float32, detection_sizes<float>)
EMULATE(detection_sizes_float64, detection_sizes<double>)
EMULATE(detection_boxes_float32, detection_boxes<float>)
EMULATE(detection_boxes_float64, detection_boxes<double>)
EMULATE(detection_nms_float32, detection_nms<float>)
EMULATE(detection_nms_float64, detection_nms<double>)
