from budgets import Budget

BUDGETS = {
    # Blocks of 128: 7 on a multiprocessor at 72 registers, 5 at 96.
    "heatmaps_to_keypoints_kernel<__half, float>": Budget(72),
    "heatmaps_to_keypoints_kernel<__nv_bfloat16, float>": Budget(72),
    "heatmaps_to_keypoints_kernel<float, float>": Budget(72),
    "heatmaps_to_keypoints_kernel<double, double>": Budget(96),
}
