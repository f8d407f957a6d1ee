"""torchvision's generators of anchors and default boxes, whose results they keep to the bit.

Their methods are replaced on the class. Each replacement wraps the original, so that TorchScript, which compiles the
source behind a method, gets torchvision's: hence the names below that only that source uses.
"""

from __future__ import annotations

import functools
import math  # noqa: F401
from typing import Any

import torch
from torch import Tensor  # noqa: F401
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList  # noqa: F401

from structops import ops
from structops._checks import FLOATING
from structops.integrations._torchvision_devices import patched
from structops.integrations._torchvision_methods import Method
from structops.ops.anchors import MAX_LEVELS, MAX_SIDE, MAX_STRIDE

# Captured when this module is first imported, which is before the first patch.
_anchors_forward = AnchorGenerator.forward
_grid_anchors = AnchorGenerator.grid_anchors
_set_cell_anchors = AnchorGenerator.set_cell_anchors
_boxes_forward = DefaultBoxGenerator.forward
_grid_default_boxes = DefaultBoxGenerator._grid_default_boxes


def _sizes(tensors) -> list[tuple[int, int]]:
    return [tuple(t.shape[-2:]) for t in tensors]


def _grids_taken(grid_sizes) -> bool:
    return 0 < len(grid_sizes) <= MAX_LEVELS and all(0 < side < MAX_SIDE for size in grid_sizes for side in size)


def _cells_taken(cells, levels: int, columns: int, dtypes=FLOATING) -> bool:
    return (
        isinstance(cells, list)
        and len(cells) == levels
        and all(c.dim() == 2 and c.shape[1] == columns and c.dtype in dtypes for c in cells)
        and len({(c.dtype, c.device) for c in cells}) == 1
        and not any(c.requires_grad for c in cells)
    )


def _strides(strides: Any) -> list[tuple[int, int]] | None:
    """As ints, where that asks no device and does not break a graph."""
    found = []
    for pair in strides:
        of_level = []
        for stride in pair:
            if isinstance(stride, torch.Tensor):
                if stride.device.type != "cpu" or stride.is_floating_point() or torch.compiler.is_compiling():
                    return None
                stride = int(stride)
            if type(stride) is not int or not 0 <= stride < MAX_STRIDE:
                return None
            of_level.append(stride)
        found.append((of_level[0], of_level[1]))
    return found


@functools.wraps(_grid_anchors)
def grid_anchors(self, grid_sizes, strides):
    cells = self.cell_anchors
    if (
        torch.jit.is_tracing()
        or not _grids_taken(grid_sizes)
        or len(strides) != len(grid_sizes)
        or not _cells_taken(cells, len(grid_sizes), 4)
        or not patched(cells[0].device)
        or (ints := _strides(strides)) is None
    ):
        return _grid_anchors(self, grid_sizes, strides)
    sizes = [tuple(size) for size in grid_sizes]
    counts = [h * w * len(c) for (h, w), c in zip(sizes, cells, strict=True)]
    return list(ops.generate_anchors(cells, sizes, ints).split(counts))


@functools.wraps(_anchors_forward)
def _anchors(self, image_list, feature_maps):
    sizes = _sizes(feature_maps)
    if (
        torch.jit.is_tracing()
        # What a subclass does in its own way stays its own.
        or type(self).grid_anchors is not grid_anchors
        or type(self).set_cell_anchors is not _set_cell_anchors
        or not _grids_taken(sizes)
        or not patched(feature_maps[0].device)
        or feature_maps[0].dtype not in FLOATING
        or not _cells_taken(self.cell_anchors, len(sizes), 4)
    ):
        return _anchors_forward(self, image_list, feature_maps)
    height, width = image_list.tensors.shape[-2:]
    self.set_cell_anchors(feature_maps[0].dtype, feature_maps[0].device)
    strides = [(height // h, width // w) for h, w in sizes]
    return [ops.generate_anchors(self.cell_anchors, sizes, strides) for _ in image_list.image_sizes]


@functools.wraps(_boxes_forward)
def _default_boxes(self, image_list, feature_maps):
    sizes = _sizes(feature_maps)
    steps = self.steps
    if (
        torch.jit.is_tracing()
        or type(self)._grid_default_boxes is not _grid_default_boxes
        or not _grids_taken(sizes)
        or not patched(feature_maps[0].device)
        # torchvision rounds centres of halves to the half, and mixes them with sizes in float32.
        or feature_maps[0].dtype not in (torch.float32, torch.float64)
        or torch.get_default_dtype() != torch.float32  # in which it makes the centres
        or not _cells_taken(self._wh_pairs, len(sizes), 2, (torch.float32,))
        or (steps is not None and not (len(steps) == len(sizes) and all(step > 0 for step in steps)))
    ):
        return _boxes_forward(self, image_list, feature_maps)
    # In one copy to the device.
    counts = [len(pairs) for pairs in self._wh_pairs]
    pairs = torch.cat(self._wh_pairs).to(feature_maps[0].device, feature_maps[0].dtype).split(counts)
    image_size = tuple(image_list.tensors.shape[-2:])
    return [ops.default_boxes(pairs, sizes, image_size, steps=steps, clip=self.clip) for _ in image_list.image_sizes]


METHODS: tuple[Method, ...] = (
    (AnchorGenerator, _grid_anchors, grid_anchors),
    (AnchorGenerator, _anchors_forward, _anchors),
    (DefaultBoxGenerator, _boxes_forward, _default_boxes),
)
