from budgets import Budget

BUDGETS = {
    "nms_keys_kernel<float>": Budget(24),
    "nms_keys_kernel<double>": Budget(24),
    "nms_gather_classes_kernel": Budget(16),
    "nms_place_kernel<float>": Budget(32, lacks="FFMA"),
    "nms_place_kernel<double>": Budget(32),
    # 32 blocks of 64 threads at 32 registers.
    "nms_mask_kernel<float>": Budget(32, wide_loads=1),
    "nms_mask_kernel<double>": Budget(48, wide_loads=1),
    # One block of 1024 threads: more than 64 would not launch.
    "nms_resolve_kernel<float>": Budget(64, wide_loads=1),
    "nms_resolve_kernel<double>": Budget(64, wide_loads=1),
    "nms_suppress_kernel<float>": Budget(32, wide_loads=1),
    "nms_suppress_kernel<double>": Budget(48, wide_loads=1),
    "nms_compact_kernel": Budget(32),
}
