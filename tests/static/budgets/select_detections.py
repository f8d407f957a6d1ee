from budgets import Budget

BUDGETS = {
    "detection_mask_kernel<float>": Budget(20),
    "detection_mask_kernel<double>": Budget(20),
    # A thread for each slot: 2048 on a multiprocessor at 32 registers.
    "detection_sizes_kernel<float>": Budget(32),
    "detection_sizes_kernel<double>": Budget(32),
    "detection_boxes_kernel<float>": Budget(32),
    "detection_boxes_kernel<double>": Budget(48),
    # One block of 256 threads for each image: what counts is that nothing spills.
    "detection_nms_kernel<float>": Budget(64, wide_loads=1),
    "detection_nms_kernel<double>": Budget(64, wide_loads=1),
}
