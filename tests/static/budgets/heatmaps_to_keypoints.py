from budgets import Budget

BUDGETS = {
    # Blocks of 128: 12 on a multiprocessor at 40 registers, 8 at 64, 5 at 96.
    "heatmaps_to_keypoints_kernel<__half, float>": Budget(64),
    "heatmaps_to_keypoints_kernel<__nv_bfloat16, float>": Budget(64),
    "heatmaps_to_keypoints_kernel<float, float>": Budget(64),
    "heatmaps_to_keypoints_kernel<double, double>": Budget(96),
}
