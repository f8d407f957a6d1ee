from budgets import Budget

BUDGETS = {
    "nms_rotated_place_kernel<float>": Budget(40, has="DADD"),
    "nms_rotated_place_kernel<double>": Budget(40, has="DADD"),
    "nms_rotated_mask_kernel<float>": Budget(96, has="DADD", wide_loads=1),
    "nms_rotated_mask_kernel<double>": Budget(96, has="DADD", wide_loads=1),
    # One block of 1024 threads: more than 64 would not launch.
    "nms_rotated_resolve_kernel": Budget(64),
    "nms_rotated_suppress_kernel<float>": Budget(96, has="DADD", wide_loads=1),
    "nms_rotated_suppress_kernel<double>": Budget(96, has="DADD", wide_loads=1),
}
