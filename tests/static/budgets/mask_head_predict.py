from budgets import Budget

# As conv_gather_kernel: two blocks of 128 threads on a multiprocessor, halves on tensor cores.
BUDGETS = {
    **{f"mask_head_predict_kernel<{t}, true>": Budget(255, has="HMMA") for t in ("__half", "__nv_bfloat16")},
    **{f"mask_head_predict_kernel<{t}, false>": Budget(200, has="HMMA") for t in ("__half", "__nv_bfloat16")},
    **{f"mask_head_predict_kernel<float, {wide}>": Budget(255, has="FFMA") for wide in ("true", "false")},
    **{f"mask_head_predict_kernel<double, {wide}>": Budget(200, has="DFMA") for wide in ("true", "false")},
}
