"""What every CUDA kernel may use on sm_90: the one table to change when a kernel changes.

A key is the kernel's name as the compiler prints it, without namespaces and parameters. Registers decide occupancy:
a multiprocessor has 65536, and holds 2048 threads at 32 registers, 1024 at 64, 768 at 80, 512 at 128.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Budget:
    """Limits of one kernel.

    Attributes:
        registers: per thread, at most.
        wide_loads: 16-byte loads from global memory, at least; 0 where the kernel has no vector path.
    """

    registers: int
    wide_loads: int = 0


_TYPES = ("__half", "__nv_bfloat16", "float", "double")


def _per_type(pattern: str, budget: Budget) -> dict[str, Budget]:
    return {pattern.format(T=t): budget for t in _TYPES}


BUDGETS: dict[str, Budget] = {
    # Blocks of 128: 8 on a multiprocessor. The packed kernels keep four 16-byte loads in flight.
    "roi_align_nhwc_kernel<__half, 8>": Budget(64, wide_loads=4),
    "roi_align_nhwc_kernel<__nv_bfloat16, 8>": Budget(64, wide_loads=4),
    "roi_align_nhwc_kernel<float, 4>": Budget(64, wide_loads=4),
    "roi_align_nhwc_kernel<double, 2>": Budget(64, wide_loads=4),
    **_per_type("roi_align_nhwc_kernel<{T}, 1>", Budget(64)),
    **_per_type("roi_align_nchw_kernel<{T}>", Budget(64)),
    # Blocks of 128: 5 on a multiprocessor. Rare, see the kernel.
    **_per_type("roi_align_untabled_kernel<{T}>", Budget(96)),
    "roi_bounds_kernel": Budget(40),
    # Blocks of 256: 2 on a multiprocessor with 32 floats of sums in registers, 3 with 16.
    "roi_align_backward_kernel<__half, 4, 8, true>": Budget(128, wide_loads=1),
    "roi_align_backward_kernel<__nv_bfloat16, 4, 8, true>": Budget(128, wide_loads=1),
    "roi_align_backward_kernel<float, 4, 4, true>": Budget(80, wide_loads=1),
    "roi_align_backward_kernel<double, 4, 2, true>": Budget(128, wide_loads=1),
    "roi_align_backward_kernel<__half, 4, 1, true>": Budget(80),
    "roi_align_backward_kernel<__nv_bfloat16, 4, 1, true>": Budget(80),
    "roi_align_backward_kernel<float, 4, 1, true>": Budget(80),
    "roi_align_backward_kernel<double, 4, 1, true>": Budget(128),
    "roi_align_backward_kernel<__half, 1, 16, false>": Budget(128),
    "roi_align_backward_kernel<__nv_bfloat16, 1, 16, false>": Budget(128),
    "roi_align_backward_kernel<float, 1, 16, false>": Budget(128),
    "roi_align_backward_kernel<double, 1, 8, false>": Budget(128),
    "nms_keys_kernel<float, int>": Budget(16),
    "nms_keys_kernel<double, long>": Budget(16),
    "nms_gather_classes_kernel": Budget(16),
    "nms_place_kernel<float>": Budget(24),
    "nms_place_kernel<double>": Budget(24),
    # 32 blocks of 64 threads at 32 registers.
    "nms_mask_kernel<float>": Budget(32, wide_loads=1),
    "nms_mask_kernel<double>": Budget(48, wide_loads=1),
    # One block of 1024 threads: more than 64 would not launch.
    "nms_resolve_kernel<float>": Budget(64, wide_loads=1),
    "nms_resolve_kernel<double>": Budget(64, wide_loads=1),
    "nms_suppress_kernel<float>": Budget(32, wide_loads=1),
    "nms_suppress_kernel<double>": Budget(48, wide_loads=1),
    "nms_compact_kernel": Budget(32),
}
