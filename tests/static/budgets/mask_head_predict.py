from budgets import Budget

# As conv_gather_kernel: blocks of 128 threads, halves on tensor cores.
BUDGETS = {
    **{f"mask_head_predict_kernel<{t}>": Budget(168, has="HMMA") for t in ("__half", "__nv_bfloat16")},
    "mask_head_predict_kernel<float>": Budget(176, has="FFMA"),
    "mask_head_predict_kernel<double>": Budget(128, has="DFMA"),
}
