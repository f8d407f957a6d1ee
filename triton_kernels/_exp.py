"""An exponential that every backend rounds alike; see ``csrc/common/exp.h``. Launch with ``enable_fp_fusion=False``."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _exp_of_negative(x):
    """``e^x`` for ``x <= 0``, float32 or float64, within 1.5 units in the last place; 0 below the normal numbers."""
    wide: tl.constexpr = x.dtype == tl.float64
    lowest = tl.full(x.shape, -708.0 if wide else -87.0, x.dtype)
    log2_e = tl.full(x.shape, 1.44269504088896340736, x.dtype)
    ln2_high = tl.full(x.shape, 6.93145751953125e-1 if wide else 0.693359375, x.dtype)
    ln2_low = tl.full(x.shape, 1.42860682030941723212e-6 if wide else -2.12194440e-4, x.dtype)
    shifter = tl.full(x.shape, 6755399441055744.0 if wide else 12582912.0, x.dtype)
    clamped = tl.where(x < lowest, lowest, x)
    shifted = clamped * log2_e + shifter
    n = shifted - shifter
    r = (clamped - n * ln2_high) - n * ln2_low
    if wide:
        p = tl.full(x.shape, 1.0 / 6227020800, x.dtype)
        p = p * r + tl.full(x.shape, 1.0 / 479001600, x.dtype)
        p = p * r + tl.full(x.shape, 1.0 / 39916800, x.dtype)
        p = p * r + tl.full(x.shape, 1.0 / 3628800, x.dtype)
        p = p * r + tl.full(x.shape, 1.0 / 362880, x.dtype)
        p = p * r + tl.full(x.shape, 1.0 / 40320, x.dtype)
        p = p * r + tl.full(x.shape, 1.0 / 5040, x.dtype)
        power = ((shifted.to(tl.int64, bitcast=True) << 52) + (1023 << 52)).to(tl.float64, bitcast=True)
    else:
        p = tl.full(x.shape, 1.0 / 5040, x.dtype)
        power = ((shifted.to(tl.int32, bitcast=True) << 23) + (127 << 23)).to(tl.float32, bitcast=True)
    p = p * r + tl.full(x.shape, 1.0 / 720, x.dtype)
    p = p * r + tl.full(x.shape, 1.0 / 120, x.dtype)
    p = p * r + tl.full(x.shape, 1.0 / 24, x.dtype)
    p = p * r + tl.full(x.shape, 1.0 / 6, x.dtype)
    p = p * r + tl.full(x.shape, 0.5, x.dtype)
    p = p * r + tl.full(x.shape, 1.0, x.dtype)
    p = p * r + tl.full(x.shape, 1.0, x.dtype)
    return tl.where(x < lowest, tl.full(x.shape, 0.0, x.dtype), p * power)
