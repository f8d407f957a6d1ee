"""A product and a sum with one rounding, which torch has no function for."""

from __future__ import annotations

import torch


def _two_sum(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a + b, rounded, and what the rounding lost (Knuth)."""
    total = a + b
    of_b = total - a
    return total, (a - (total - of_b)) + (b - of_b)


def _two_product(a: torch.Tensor, b: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """a * b, rounded, and what the rounding lost (Dekker; 2^27 + 1 cuts a float64 in halves)."""

    def halves(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        scaled = 134217729.0 * x
        high = scaled - (scaled - x)
        return high, x - high

    product = a * b
    (a_high, a_low), (b_high, b_low) = halves(a), halves(b)
    lost = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, lost


def _sum_to_odd(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a + b in float64, where inexact with an odd last bit: then a second rounding cannot go astray."""
    total, lost = _two_sum(a, b)
    even = (total.view(torch.int64) & 1) == 0
    away = torch.nextafter(total, torch.copysign(torch.full_like(total, torch.inf), lost))
    return torch.where(even & (lost != 0) & lost.isfinite(), away, total)


def fma(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
    """``a * b + c``, rounded once; all of one type, float32 or float64, broadcast.

    float64 by Boldo and Melquiond ("Emulation of FMA and correctly rounded sums", 2008); numbers whose products come
    near the ends of its range are not rounded once.
    """
    a, b, c = torch.broadcast_tensors(a, b, c)
    if a.dtype == torch.float32:
        return _sum_to_odd(a.double() * b.double(), c.double()).float()
    product, lost = _two_product(a, b)
    small, rest = _two_sum(c, lost)
    large, more = _two_sum(product, small)
    exact = large + _sum_to_odd(rest, more)
    return torch.where(exact.isfinite(), exact, a * b + c)
