#include "launchers.h"
#include "match_boxes/match_boxes_cuda.h"

using namespace structops::cuda;

EMULATE(match_boxes_block_best, match_boxes_block_best)
EMULATE(match_boxes_float32, match_boxes<float>)
EMULATE(match_boxes_float64, match_boxes<double>)
