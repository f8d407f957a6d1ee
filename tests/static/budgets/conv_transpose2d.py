from budgets import Budget

# Blocks of 128 threads, two of them on a multiprocessor at 255 registers: 64 sums a thread, and the pixels of four
# positions. Halves on tensor cores; pixels and weights by 16-byte copies to shared memory where channels are side by
# side (weights always). Sums in float and double by multiply-adds, which say so.
BUDGETS = {
    **{f"conv_gather_kernel<{t}, true>": Budget(240, has="HMMA") for t in ("__half", "__nv_bfloat16")},
    **{f"conv_gather_kernel<{t}, false>": Budget(184, has="HMMA") for t in ("__half", "__nv_bfloat16")},
    "conv_gather_kernel<float, true>": Budget(255, wide_loads=1, has="FFMA"),
    "conv_gather_kernel<float, false>": Budget(255, has="FFMA"),
    "conv_gather_kernel<double, true>": Budget(200, wide_loads=1, has="DFMA"),
    "conv_gather_kernel<double, false>": Budget(200, has="DFMA"),
    **{f"conv_grad_weight_kernel<{t}>": Budget(184, has="HMMA") for t in ("__half", "__nv_bfloat16")},
    "conv_grad_weight_kernel<float>": Budget(255, has="FFMA"),
    "conv_grad_weight_kernel<double>": Budget(200, has="DFMA"),
    **{f"conv_pack_kernel<{t}>": Budget(40) for t in ("__half", "__nv_bfloat16", "float", "double")},
    **{f"conv_depthwise_kernel<{t}, float>": Budget(96) for t in ("__half", "__nv_bfloat16", "float")},
    "conv_depthwise_kernel<double, double>": Budget(128),
    **{f"conv_grad_weight_total_kernel<{t}, float>": Budget(40) for t in ("__half", "__nv_bfloat16", "float")},
    "conv_grad_weight_total_kernel<double, double>": Budget(40),
}
