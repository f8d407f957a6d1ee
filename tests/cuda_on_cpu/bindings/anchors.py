"""Anchors, default boxes and grid points by the CUDA kernels: what csrc/anchors/anchors_binding_cuda.cpp does."""

from __future__ import annotations

import torch

from structops.ops.anchors import MAX_LEVELS

from ..emulator import Emulator, poisoned


def _geometry(grid_sizes: list[int], strides: list[int], cells: list[torch.Tensor]) -> torch.Tensor:
    """``[levels, 5]``: height, width, cells, stride y, stride x."""
    grids, steps = torch.tensor(grid_sizes).view(-1, 2), torch.tensor(strides).view(-1, 2)
    counts = torch.tensor([len(c) for c in cells] or [1] * len(grids)).view(-1, 1)
    return torch.cat([grids, counts, steps], 1).contiguous()


def _rows(geometry: torch.Tensor) -> int:
    return int(geometry[:, :3].prod(1).sum())


def _padded(cells: list[torch.Tensor]) -> list[torch.Tensor | None]:
    return [*(c.contiguous() for c in cells), *[None] * (MAX_LEVELS - len(cells))]


def _suffix(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def generate_anchors(
    emulator: Emulator, cell_anchors: list[torch.Tensor], grid_sizes: list[int], strides: list[int]
) -> torch.Tensor:
    geometry = _geometry(grid_sizes, strides, cell_anchors)
    out = poisoned(_rows(geometry), 4, like=cell_anchors[0])
    name = f"generate_anchors_{_suffix(out.dtype)}"
    emulator.launch(name, *_padded(cell_anchors), geometry, len(geometry), out)
    return out


def default_boxes(
    emulator: Emulator,
    wh_pairs: list[torch.Tensor],
    grid_sizes: list[int],
    image_size: list[int],
    steps: list[float],
    clip: bool,
) -> torch.Tensor:
    dtype = torch.promote_types(wh_pairs[0].dtype, torch.float32)
    pairs = [p.to(dtype) for p in wh_pairs]
    geometry = _geometry(grid_sizes, [1] * len(grid_sizes), pairs)
    divisors = geometry[:, :2].double()
    if steps:
        divisors = torch.tensor(image_size).double() / torch.tensor(steps, dtype=torch.float64)[:, None]
    out = poisoned(_rows(geometry), 4, like=pairs[0])
    parameters = geometry, divisors.contiguous(), len(geometry), *image_size, clip
    emulator.launch(f"default_boxes_{_suffix(dtype)}", *_padded(pairs), *parameters, out)
    return out


def yolo_grid(
    emulator: Emulator,
    like: torch.Tensor,
    grid_sizes: list[int],
    strides: list[int],
    offset: float,
    with_stride: bool,
) -> torch.Tensor:
    geometry = _geometry(grid_sizes, strides, [])
    out = poisoned(_rows(geometry), 4 if with_stride else 2, like=like)
    emulator.launch(f"yolo_grid_{_suffix(like.dtype)}", geometry, len(geometry), offset, with_stride, out)
    return out
