from budgets import Budget, per_type

BUDGETS = {
    "rotated_rois_kernel": Budget(48, has="DADD"),
    # Blocks of 128: 6 on a multiprocessor, 5 where eight channels or single loads take the registers.
    "rotated_forward_kernel<__half, 8, true>": Budget(96, wide_loads=4),
    "rotated_forward_kernel<__nv_bfloat16, 8, true>": Budget(96, wide_loads=4),
    "rotated_forward_kernel<float, 4, true>": Budget(80, wide_loads=4, has="DADD"),
    "rotated_forward_kernel<double, 2, true>": Budget(80, wide_loads=4),
    **per_type("rotated_forward_kernel<{T}, 1, true>", Budget(96)),
    "rotated_forward_kernel<__half, 4, false>": Budget(80),
    "rotated_forward_kernel<__nv_bfloat16, 4, false>": Budget(80),
    "rotated_forward_kernel<float, 4, false>": Budget(80),
    "rotated_forward_kernel<double, 2, false>": Budget(80),
    # Blocks of 256: 2 on a multiprocessor.
    "rotated_backward_kernel<__half, 4, 8, true>": Budget(128, wide_loads=1, wide_stores=4),
    "rotated_backward_kernel<__nv_bfloat16, 4, 8, true>": Budget(128, wide_loads=1, wide_stores=4),
    "rotated_backward_kernel<float, 4, 4, true>": Budget(112, wide_loads=1, wide_stores=4),
    "rotated_backward_kernel<double, 4, 2, true>": Budget(112, wide_loads=1, wide_stores=4),
    **per_type("rotated_backward_kernel<{T}, 4, 1, true>", Budget(108)),
    "rotated_backward_kernel<__half, 1, 16, false>": Budget(128),
    "rotated_backward_kernel<__nv_bfloat16, 1, 16, false>": Budget(128),
    "rotated_backward_kernel<float, 1, 16, false>": Budget(128),
    "rotated_backward_kernel<double, 1, 8, false>": Budget(128),
}
