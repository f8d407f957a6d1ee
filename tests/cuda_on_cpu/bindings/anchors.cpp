#include "anchors/anchors_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

EMULATE_FLOATING(generate_anchors, generate_anchors<scalar_t>)
EMULATE_FLOATING(yolo_grid, yolo_grid<scalar_t>)
EMULATE(default_boxes_float32, default_boxes<float>)
EMULATE(default_boxes_float64, default_boxes<double>)
