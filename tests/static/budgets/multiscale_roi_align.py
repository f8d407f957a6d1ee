from budgets import Budget, per_type

BUDGETS = {
    # As roi_align's, whose kernels they are; blocks of 128: 8 on a multiprocessor, 7 at 72 registers.
    "roi_align_nhwc_kernel<__half, 8, Pyramid>": Budget(72, wide_loads=4),
    "roi_align_nhwc_kernel<__nv_bfloat16, 8, Pyramid>": Budget(72, wide_loads=4),
    "roi_align_nhwc_kernel<float, 4, Pyramid>": Budget(64, wide_loads=4),
    "roi_align_nhwc_kernel<double, 2, Pyramid>": Budget(64, wide_loads=4),
    **per_type("roi_align_nhwc_kernel<{T}, 1, Pyramid>", Budget(64)),
    **per_type("roi_align_nchw_kernel<{T}, Pyramid>", Budget(64)),
    **per_type("roi_align_untabled_kernel<{T}, Pyramid>", Budget(96)),
    "multiscale_roi_bounds_kernel": Budget(48, has="DADD"),
}
