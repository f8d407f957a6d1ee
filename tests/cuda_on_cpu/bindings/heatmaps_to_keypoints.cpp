#include "heatmaps_to_keypoints/heatmaps_to_keypoints_cuda.h"
#include "launchers.h"

using namespace structops::cuda;

EMULATE(heatmaps_to_keypoints_float16, heatmaps_to_keypoints<__half, float>)
EMULATE(heatmaps_to_keypoints_bfloat16, heatmaps_to_keypoints<__nv_bfloat16, float>)
EMULATE(heatmaps_to_keypoints_float32, heatmaps_to_keypoints<float, float>)
EMULATE(heatmaps_to_keypoints_float64, heatmaps_to_keypoints<double, double>)
