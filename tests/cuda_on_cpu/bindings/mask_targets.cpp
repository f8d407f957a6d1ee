#include "launchers.h"
#include "mask_targets/mask_targets_cuda.h"

using namespace structops::cuda;

EMULATE(mask_targets_uint8_float32, mask_targets<uint8_t, float>)
EMULATE(mask_targets_uint8_float64, mask_targets<uint8_t, double>)
EMULATE(mask_targets_float32_float32, mask_targets<float, float>)
EMULATE(mask_targets_float64_float64, mask_targets<double, double>)
EMULATE(polygon_mask_targets_float32, polygon_mask_targets<float>)
EMULATE(polygon_mask_targets_float64, polygon_mask_targets<double>)
