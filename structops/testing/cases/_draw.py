"""Random boxes and features that the case files share. All float64, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch

from structops.testing.spec import Arguments, Case

INF, NAN = math.inf, math.nan


def features(g: torch.Generator, n: int, c: int, h: int, w: int) -> torch.Tensor:
    """``[n, c, h, w]``, unit variance."""
    return torch.randn(n, c, h, w, generator=g, dtype=torch.float64)


def uniform(g: torch.Generator, low: float, high: float, *size: int) -> torch.Tensor:
    return low + (high - low) * torch.rand(*size, generator=g, dtype=torch.float64)


def boxes(
    g: torch.Generator, n: int, width: float, height: float, smallest: float = 1.0, largest: float | None = None
) -> torch.Tensor:
    """``[n, 4]`` (x1, y1, x2, y2): centres in the image, sides from ``smallest`` to ``largest`` (half the image)."""
    largest = largest or 0.5 * max(width, height)
    centre = torch.stack([uniform(g, 0, width, n), uniform(g, 0, height, n)], 1)
    half = uniform(g, smallest, largest, n, 2) / 2
    return torch.cat([centre - half, centre + half], 1)


def rois(g: torch.Generator, n: int, images: int, width: float, height: float, **sizes: float) -> torch.Tensor:
    """``[n, 5]``: :func:`boxes` with an image index in front."""
    index = torch.randint(images, (n, 1), generator=g).double()
    return torch.cat([index, boxes(g, n, width, height, **sizes)], 1)


def tensor(*rows: object) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


class CaseList(list[Case]):
    """Collects cases: ``add(name, tags, make)``, or as a decorator over ``make``."""

    def add(self, name: str, tags: str = "", make: Callable[[torch.Generator], Arguments] | None = None):
        if make is None:
            return lambda function: self.add(name, tags, function)
        self.append(Case(name, make, frozenset(tags.split())))
        return make
