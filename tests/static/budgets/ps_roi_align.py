from budgets import Budget, per_type

# Both position-sensitive ops. No wide loads: every bin has a channel of its own, see the kernels.
BUDGETS = {
    "ps_roi_tables_kernel<float>": Budget(64, has="DADD"),
    "ps_roi_tables_kernel<double>": Budget(64, has="DADD"),
    # Blocks of 128: 8 on a multiprocessor.
    **per_type("ps_roi_forward_kernel<{T}>", Budget(64)),
    # Blocks of 128: 5 on a multiprocessor, by shared memory.
    "ps_roi_backward_kernel<__half>": Budget(64),
    "ps_roi_backward_kernel<__nv_bfloat16>": Budget(64),
    "ps_roi_backward_kernel<float>": Budget(80),
    "ps_roi_backward_kernel<double>": Budget(80),
}
