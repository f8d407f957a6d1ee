from budgets import Budget

BUDGETS = {
    "soft_nms_place_kernel<float>": Budget(24),
    "soft_nms_place_kernel<double>": Budget(32),
    # Blocks of 256, as many as there are classes: 4 on a multiprocessor are more than are needed.
    "soft_nms_decay_kernel<float>": Budget(48, wide_loads=1),
    "soft_nms_decay_kernel<double>": Budget(64, wide_loads=1),
    "soft_nms_finish_kernel<float>": Budget(24),
    "soft_nms_finish_kernel<double>": Budget(24),
}
