"""How far a result may be from the definition, per dtype, and how the distance is measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tolerance:
    """``|actual - expected| <= relative * scale + ulps * ulp(expected)``, element by element.

    Attributes:
        relative: of the scale: the largest magnitude among the op's inputs (for a gradient: that of the incoming
            gradient, or of the expected one where contributions pile up).
        ulps: units in the last place of the expected value, which is first rounded to the dtype.
        floor: the part of ``relative`` that the arithmetic cannot resolve; errors in ulps are counted beyond it.
            Where large terms cancel, the ulp of the result is far below the rounding of the terms.
    """

    relative: float
    ulps: float
    floor: float


#: Halves: one ulp, plus what float32 sums of terms of the scale can lose (2^-21: eight roundings of half an ulp).
#: Float32: coordinates are double on every backend, so only weights and sums round; 2e-6 is some 16 such ulps.
TOLERANCES: dict[torch.dtype, Tolerance] = {
    torch.float16: Tolerance(relative=2.0**-21, ulps=1, floor=2.0**-21),
    torch.bfloat16: Tolerance(relative=2.0**-21, ulps=1, floor=2.0**-21),
    torch.float32: Tolerance(relative=2e-6, ulps=0, floor=2.0**-21),
    torch.float64: Tolerance(relative=1e-12, ulps=0, floor=2.0**-50),
}

#: Between this library in float32 and another: theirs may compute coordinates in float32, which costs 1e-5 of the
#: scale on a map of 64 px and more on a larger one.
PEER_RELATIVE = 1e-5
PEER_LARGEST_MAP = 64


@dataclass(frozen=True)
class Error:
    """The worst distance from the definition: absolute, relative to the scale, and in ulps beyond the floor."""

    absolute: float = 0.0
    relative: float = 0.0
    ulp: float = 0.0

    def worst(self, other: Error) -> Error:
        return Error(*(max(a, b) for a, b in zip(self.values(), other.values(), strict=True)))

    def values(self) -> tuple[float, float, float]:
        return self.absolute, self.relative, self.ulp


def ulp(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """The spacing of ``dtype`` at each value of ``x`` (float64)."""
    info = torch.finfo(dtype)
    exponent = torch.frexp(x.abs().clamp(min=info.smallest_normal)).exponent.double() - 1
    return info.eps * torch.exp2(exponent)


def scale_of(*tensors: torch.Tensor) -> float:
    """The largest finite magnitude; 0 when there is none."""
    largest = 0.0
    for t in tensors:
        finite = t.detach().double()[t.isfinite()]
        largest = max(largest, finite.abs().max().item() if finite.numel() else 0.0)
    return largest


def distance(
    actual: torch.Tensor,
    expected: torch.Tensor,
    scale: float,
    dtype: torch.dtype,
    tolerance: Tolerance | None = None,
) -> tuple[Error, str | None]:
    """How far ``actual`` is from ``expected`` (float64, same shape), and a sentence where that is too far.

    NaN must meet NaN. In half types infinity counts as the number after the largest, so that rounding at the end of
    the range is one ulp like any other.
    """
    tolerance = tolerance or TOLERANCES[dtype]
    a, e = actual.detach().double().cpu(), expected.detach().double().cpu()
    if a.numel() == 0:
        return Error(), None
    if tolerance.ulps:
        e = e.to(dtype).double()
        beyond = torch.finfo(dtype).max * (1 + torch.finfo(dtype).eps / 2)
        a, e = (torch.where(v.isinf(), v.sign() * beyond, v) for v in (a, e))
    same = (a == e) | (a.isnan() & e.isnan())
    error = torch.where(same, 0.0, (a - e).abs()).nan_to_num(nan=math.inf, posinf=math.inf)
    step = ulp(e.nan_to_num(posinf=0, neginf=0), dtype)
    allowed = tolerance.relative * scale + tolerance.ulps * step
    worst = Error(
        error.max().item(),
        (error.max() / scale).item() if scale else 0.0,
        ((error - tolerance.floor * scale).clamp(min=0) / step).max().item(),
    )
    wrong = error > allowed
    if not wrong.any():
        return worst, None
    at = int((error - allowed).nan_to_num(posinf=math.inf).argmax())
    index = [int(i) for i in torch.unravel_index(torch.tensor(at), a.shape)]
    return worst, (
        f"{int(wrong.sum())} of {a.numel()} elements differ; the worst, at {index}: got {a.flatten()[at].item():.9g}, "
        f"expected {e.flatten()[at].item():.9g} within {allowed.flatten()[at].item():.3g}"
    )
