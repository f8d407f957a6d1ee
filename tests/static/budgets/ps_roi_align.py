from budgets import Budget, per_type

# Both position-sensitive ops. No wide loads: every bin has a channel of its own, see the kernels.
BUDGETS = {
    "ps_roi_tables_kernel<float>": Budget(64, has="DADD"),
    "ps_roi_tables_kernel<double>": Budget(64, has="DADD"),
    # Blocks of 128: 8 on a multiprocessor.
    **per_type("ps_roi_forward_kernel<{T}>", Budget(64)),
    # Blocks of 128: 5 on a multiprocessor, by shared memory.
    **per_type("ps_roi_backward_kernel<{T}>", Budget(80)),
}
