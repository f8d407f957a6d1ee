from budgets import Budget, per_type

HALVES = ("__half", "__nv_bfloat16")

BUDGETS = {
    # Blocks of 128, two on a multiprocessor (255 registers) or three (168): the sums alone are 128, 64, 64 and 16
    # floats or doubles. 16-byte copies of both factors: where the loop begins, and in it.
    **{f"conv_gather_kernel<{T}, 128>": Budget(255, wide_loads=16, wide_stores=1, has="HMMA") for T in HALVES},
    **{f"conv_gather_kernel<{T}, 64>": Budget(168, wide_loads=12, wide_stores=1, has="HMMA") for T in HALVES},
    "conv_gather_kernel<float, 64>": Budget(255, wide_loads=12, wide_stores=1, has="FFMA"),
    "conv_gather_kernel<double, 32>": Budget(128, wide_loads=6, wide_stores=1, has="DFMA"),
    **{f"conv_grad_weight_kernel<{T}>": Budget(255, wide_loads=12, has="HMMA") for T in HALVES},
    "conv_grad_weight_kernel<float>": Budget(204, wide_loads=12, has="FFMA"),
    "conv_grad_weight_kernel<double>": Budget(160, wide_loads=6, has="DFMA"),
    # Blocks of 256. Weights and pixels of 16 bytes of channels; or so many outputs of a row, and where each reads.
    **{f"conv_depthwise_kernel<{T}, 8, false>": Budget(64, wide_loads=2, wide_stores=1) for T in HALVES},
    "conv_depthwise_kernel<float, 4, false>": Budget(56, wide_loads=2, wide_stores=1),
    "conv_depthwise_kernel<double, 2, false>": Budget(56, wide_loads=2, wide_stores=1),
    **per_type("conv_depthwise_kernel<{T}, 1, false>", Budget(48)),
    **{f"conv_depthwise_kernel<{T}, 8, true>": Budget(96, wide_stores=1) for T in HALVES},
    "conv_depthwise_kernel<float, 4, true>": Budget(72, wide_stores=1),
    "conv_depthwise_kernel<double, 2, true>": Budget(64, wide_stores=1),
    **per_type("conv_depthwise_grad_kernel<{T}, false>", Budget(48)),
    **per_type("conv_depthwise_grad_kernel<{T}, true>", Budget(48)),
    **per_type("conv_pack_kernel<{T}>", Budget(32)),
    **{f"conv_grad_weight_total_kernel<{T}, float>": Budget(32) for T in (*HALVES, "float")},
    "conv_grad_weight_total_kernel<double, double>": Budget(32),
}
