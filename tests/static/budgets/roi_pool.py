from budgets import Budget, per_type

PACKED = {"__half": 8, "__nv_bfloat16": 8, "float": 4, "double": 2}

BUDGETS = {
    # Blocks of 128: 8 on a multiprocessor. The packed kernels keep four 16-byte loads in flight.
    **{
        f"roi_pool_nhwc_kernel<{t}, {v}, {argmax}>": Budget(64, wide_loads=4)
        for t, v in PACKED.items()
        for argmax in ("true", "false")
    },
    **per_type("roi_pool_nhwc_kernel<{T}, 1, true>", Budget(48)),
    **per_type("roi_pool_nhwc_kernel<{T}, 1, false>", Budget(48)),
    **per_type("roi_pool_nchw_kernel<{T}, true>", Budget(64)),
    **per_type("roi_pool_nchw_kernel<{T}, false>", Budget(64)),
    **per_type("roi_pool_untabled_kernel<{T}>", Budget(48)),  # rare, see the kernel
    "roi_pool_bins_kernel": Budget(40, has="DADD"),
    # Blocks of 128 with 64 KB of shared memory: 3 on a multiprocessor, whose registers would do for 168 a thread.
    **{
        f"roi_pool_backward_kernel<{t}, {v}>": Budget(
            128 if v == 4 else 112, wide_loads=2 if v == 8 else 4, wide_stores=1
        )
        for t, v in PACKED.items()
    },
    **per_type("roi_pool_backward_kernel<{T}, 1>", Budget(88)),
}
