"""How often paste_masks_kernel goes which way: a thread has 16 bytes of the result, or a byte of bits, and most of them
lie outside of their box."""

from __future__ import annotations

import torch

from structops.bench.gpu_cost.geometry import WARP
from structops.bench.gpu_cost.kernels import Launch, ceil_div
from structops.bench.gpu_cost.sass import Kernel
from structops.bench.gpu_cost.walks import Walk, walked

THREADS = 256
KINDS = {"values": (0, 4), "flags": (1, 16), "packed": (2, 8)}  # a kernel's number, and pixels of a thread
TAPS = 4


def _ranges(low: torch.Tensor, high: torch.Tensor, scale: float, image: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pixels of the image in each grown box, from and to: paste_range of paste_axis.h."""
    half, centre = (high - low) * 0.5 * scale, (high + low) * 0.5
    first, last = (centre - half).trunc(), (centre + half).trunc()
    return first.clamp(min=0), (last + 1).clamp(max=image)


def _warps(boxes: torch.Tensor, scale: float, size: tuple[int, int], row: int, mine: int) -> tuple[int, int]:
    """All warps, and those with a pixel in a box."""
    (left, right), (top, bottom) = (_ranges(boxes[:, i], boxes[:, i + 2], scale, size[1 - i]) for i in (0, 1))
    first = torch.arange(ceil_div(len(boxes) * size[0] * row, mine)) * mine
    x, y, k = first % row, first // row % size[0], first // row // size[0]

    def meets(begin: torch.Tensor, end: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        return (begin < right[k]) & (end > left[k]) & (at >= top[k]) & (at < bottom[k])

    # A thread may have the end of a row and the beginning of the next.
    busy = meets(x, (x + mine).clamp(max=row), y) | (meets(torch.zeros_like(x), x + mine - row, y + 1))
    busy = torch.nn.functional.pad(busy, (0, -len(busy) % WARP)).unflatten(0, (-1, WARP))
    return len(busy), int(busy.any(1).sum())


def paste(boxes: torch.Tensor, side: int, size: tuple[int, int], kind: str, padding: int = 1) -> Launch:
    number, mine = KINDS[kind]
    row = ceil_div(size[1], 8) * 8 if kind == "packed" else size[1]
    warps, busy = _warps(boxes, (side + 2 * padding) / side, size, row, mine)

    def walks(code: Kernel) -> list[Walk]:
        end = "STG" if kind == "packed" else "STG.E.128"
        if not code.body.inner:
            return [Walk(code.body.path(end), warps - busy), Walk(code.body.path(end, "LDG"), busy)]
        turns = mine / len(code.body.inner)
        found = [Walk(code.body.path(end), warps)]
        for pixel in code.body.inner:
            found += [Walk(pixel.path(), (warps - busy) * turns), Walk(pixel.path("LDG"), busy * turns)]
        return found

    # Masks are small and stay in the L1 cache; neighbouring lanes read neighbours of one.
    lines = busy * mine * TAPS
    return walked(
        f"paste_masks_kernel<float, {number}>", THREADS, 0, walks, ceil_div(warps * WARP, THREADS), lines=lines
    )
