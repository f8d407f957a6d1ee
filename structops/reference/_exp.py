"""An exponential that every backend rounds alike; see ``csrc/common/exp.h``."""

from __future__ import annotations

import math

import torch


def exp_of_negative(x: torch.Tensor) -> torch.Tensor:
    """``e^x`` for ``x <= 0``, float32 or float64, within 1.5 units in the last place; 0 below the normal numbers."""
    wide = x.dtype == torch.float64
    lowest, terms = (-708.0, 13) if wide else (-87.0, 7)
    ln2_high, ln2_low = (6.93145751953125e-1, 1.42860682030941723212e-6) if wide else (0.693359375, -2.12194440e-4)

    def rounded(value: float) -> torch.Tensor:  # to x's type, as a scalar operand would not be everywhere
        return torch.tensor(value, dtype=x.dtype, device=x.device)

    clamped = torch.where(x < lowest, rounded(lowest), x)
    n = torch.round(clamped * rounded(math.log2(math.e)))
    r = (clamped - n * rounded(ln2_high)) - n * rounded(ln2_low)
    p = torch.full_like(x, 1 / math.factorial(terms))
    for k in reversed(range(terms)):
        p = p * r + rounded(1 / math.factorial(k))
    power = ((n.long() + 1023) << 52).view(torch.float64) if wide else ((n.int() + 127) << 23).view(torch.float32)
    return torch.where(x < lowest, rounded(0.0), p * power)
