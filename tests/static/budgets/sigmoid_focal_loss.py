from budgets import Budget

# Blocks of 256 threads: 8 on a multiprocessor at 32 registers, 5 at 48. Logits and targets, and the incoming gradient,
# are read 16 bytes at a time.
BUDGETS = {
    "sigmoid_focal_loss_kernel<float>": Budget(32, wide_loads=2),
    "sigmoid_focal_loss_kernel<__half>": Budget(40, wide_loads=2),
    "sigmoid_focal_loss_kernel<__nv_bfloat16>": Budget(40, wide_loads=2),
    "sigmoid_focal_loss_kernel<double>": Budget(48, wide_loads=2),
    "sigmoid_focal_loss_sum_kernel<float>": Budget(48, wide_loads=2),
    "sigmoid_focal_loss_sum_kernel<__half>": Budget(48, wide_loads=2),
    "sigmoid_focal_loss_sum_kernel<__nv_bfloat16>": Budget(48, wide_loads=2),
    "sigmoid_focal_loss_sum_kernel<double>": Budget(64, wide_loads=2),
    "sigmoid_focal_loss_backward_kernel<float>": Budget(32, wide_loads=3),
    "sigmoid_focal_loss_backward_kernel<__half>": Budget(48, wide_loads=3),
    "sigmoid_focal_loss_backward_kernel<__nv_bfloat16>": Budget(40, wide_loads=3),
    "sigmoid_focal_loss_backward_kernel<double>": Budget(48, wide_loads=3),
    **{f"sigmoid_focal_loss_total_kernel<{t}>": Budget(32) for t in ("__half", "__nv_bfloat16", "float", "double")},
}
