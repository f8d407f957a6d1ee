"""Cosine and sine by the operations of ``csrc/common/rotation.h``, in the same order: the same to the last bit."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rotation(turn):
    """Cosine and sine of float64 degrees, whole turns taken off (exactly, by ``torch.fmod``) before."""
    quarters = tl.floor(turn / 90.0 + 0.5)
    x = (turn - quarters * 90.0) * 0.017453292519943295
    x2 = x * x
    s = x2 * (1.0 / 355687428096000.0) - 1.0 / 1307674368000.0
    s = s * x2 + 1.0 / 6227020800.0
    s = s * x2 - 1.0 / 39916800.0
    s = s * x2 + 1.0 / 362880.0
    s = s * x2 - 1.0 / 5040.0
    s = s * x2 + 1.0 / 120.0
    s = s * x2 - 1.0 / 6.0
    s = x + x * (s * x2)
    c = x2 * (1.0 / 20922789888000.0) - 1.0 / 87178291200.0
    c = c * x2 + 1.0 / 479001600.0
    c = c * x2 - 1.0 / 3628800.0
    c = c * x2 + 1.0 / 40320.0
    c = c * x2 - 1.0 / 720.0
    c = c * x2 + 1.0 / 24.0
    c = c * x2 - 0.5
    c = c * x2 + 1.0
    quarter = quarters.to(tl.int32) & 3
    cos = tl.where(quarter == 0, c, tl.where(quarter == 1, -s, tl.where(quarter == 2, -c, s)))
    sin = tl.where(quarter == 0, s, tl.where(quarter == 1, c, tl.where(quarter == 2, -s, -c)))
    return cos, sin
