from budgets import Budget

BUDGETS = {
    "matrix_nms_place_kernel<float>": Budget(24),
    "matrix_nms_place_kernel<double>": Budget(32),
    # Blocks of 128: 12 on a multiprocessor at 40 registers, 8 at 64. Second flag: overlaps from a matrix.
    "matrix_nms_kernel<float, false, false>": Budget(40, wide_loads=1),
    "matrix_nms_kernel<float, true, false>": Budget(40, wide_loads=1),
    "matrix_nms_kernel<float, false, true>": Budget(40),
    "matrix_nms_kernel<float, true, true>": Budget(40),
    "matrix_nms_kernel<double, false, false>": Budget(56, wide_loads=1),
    "matrix_nms_kernel<double, true, false>": Budget(56, wide_loads=1),
    "matrix_nms_kernel<double, false, true>": Budget(40),
    "matrix_nms_kernel<double, true, true>": Budget(48),
}
