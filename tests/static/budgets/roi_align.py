from budgets import Budget, per_type

BUDGETS = {
    # Blocks of 128: 8 on a multiprocessor. The packed kernels keep four 16-byte loads in flight.
    "roi_align_nhwc_kernel<__half, 8, OneMap<__half> >": Budget(64, wide_loads=4),
    "roi_align_nhwc_kernel<__nv_bfloat16, 8, OneMap<__nv_bfloat16> >": Budget(64, wide_loads=4),
    "roi_align_nhwc_kernel<float, 4, OneMap<float> >": Budget(64, wide_loads=4),
    "roi_align_nhwc_kernel<double, 2, OneMap<double> >": Budget(64, wide_loads=4),
    **per_type("roi_align_nhwc_kernel<{T}, 1, OneMap<{T}> >", Budget(64)),
    **per_type("roi_align_nchw_kernel<{T}, OneMap<{T}> >", Budget(64)),
    # Blocks of 128: 5 on a multiprocessor. Rare, see the kernel.
    **per_type("roi_align_untabled_kernel<{T}, OneMap<{T}> >", Budget(96)),
    "roi_bounds_kernel": Budget(40, has="DADD"),
    # Blocks of 256: 2 on a multiprocessor with 32 floats of sums in registers, 3 with 16.
    "roi_align_backward_kernel<__half, 4, 8, true>": Budget(128, wide_loads=1, wide_stores=4),
    "roi_align_backward_kernel<__nv_bfloat16, 4, 8, true>": Budget(128, wide_loads=1, wide_stores=4),
    "roi_align_backward_kernel<float, 4, 4, true>": Budget(80, wide_loads=1),
    "roi_align_backward_kernel<double, 4, 2, true>": Budget(128, wide_loads=1, wide_stores=4),
    "roi_align_backward_kernel<__half, 4, 1, true>": Budget(80),
    "roi_align_backward_kernel<__nv_bfloat16, 4, 1, true>": Budget(80),
    "roi_align_backward_kernel<float, 4, 1, true>": Budget(80),
    "roi_align_backward_kernel<double, 4, 1, true>": Budget(128),
    "roi_align_backward_kernel<__half, 1, 16, false>": Budget(128),
    "roi_align_backward_kernel<__nv_bfloat16, 1, 16, false>": Budget(128),
    "roi_align_backward_kernel<float, 1, 16, false>": Budget(128),
    "roi_align_backward_kernel<double, 1, 8, false>": Budget(128),
}
