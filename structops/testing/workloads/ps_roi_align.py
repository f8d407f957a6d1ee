"""Position-sensitive RoI pooling as R-FCN calls it: class scores, box regression, Light-Head R-CNN; for both ops."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from structops import ops
from structops.reference import ps_roi_align as definition
from structops.reference.roi_align import axis_weights
from structops.testing.workloads import (
    LAYOUTS,
    SHORT,
    Cost,
    Trial,
    Workload,
    check_close,
    check_transpose,
    generator,
    torchvision_ops,
)

# The whole output is compared with the peer, whose fp32 coordinates cost it some 1e-5 of the map's scale; a few RoIs
# are compared with the float64 definition, tightly.
PEER_TOLERANCE = 1e-4
DEFINITION_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
CHECKED_ROIS = 8


@dataclass(frozen=True)
class Shape:
    """One call on one image. Boxes are ``smallest`` to ``largest`` pixels a side, uniform, inside the image."""

    title: str
    rois: int
    classes: int
    pooled: int
    height: int = 38
    width: int = 63
    stride: int = 16
    smallest: float = 32
    largest: float = 400

    @property
    def channels(self) -> int:
        return self.classes * self.pooled**2

    def rois_tensor(self, generator: torch.Generator) -> torch.Tensor:
        """``[K, 5]`` (batch index, x1, y1, x2, y2), image pixels."""
        size = torch.empty(self.rois, 2).uniform_(self.smallest, self.largest, generator=generator)
        room = torch.tensor([self.width, self.height]) * self.stride - size
        corner = torch.rand(self.rois, 2, generator=generator) * room
        return torch.cat([torch.zeros(self.rois, 1), corner, corner + size], 1)


@dataclass(frozen=True)
class Pooling:
    """What differs between the two ops.

    Attributes:
        options: after the output size and the scale.
        axis: weights ``[pooled, extent]`` of one axis of a box, by the definition.
    """

    name: str
    options: tuple[int, ...]
    definition: Callable[..., torch.Tensor]
    axis: Callable[[float, float, Shape, int], Any]


ALIGN = Pooling(
    "ps_roi_align",
    (2,),
    definition.ps_roi_align,
    lambda low, high, shape, extent: axis_weights(low, high, 1 / shape.stride, shape.pooled, 2, True, extent),
)

# A 600 x 1000 image at stride 16, as the paper has it: 20 classes and the background.
SCORES = Shape("R-FCN", 300, 21, 7)
BOXES = Shape("R-FCN boxes", 300, 8, 7)
LIGHT_HEAD = Shape("Light-Head", 1000, 10, 7, 50, 84)


def cost(pooling: Pooling, shape: Shape, rois: torch.Tensor, itemsize: int, backward: bool) -> Cost:
    """Traffic and operations of ``rois [K, 5]``.

    Forward: every output is written once, every element of the map that some RoI touches is read once. Backward: every
    output gradient is read once and every element of the input's gradient, zeros too, written once. Operations: a
    multiply-add for each row of each bin's columns, and one for each column.
    """
    boxes = rois.double().tolist()
    rows = torch.stack([pooling.axis(y1, y2, shape, shape.height).ne(0) for _, _, y1, _, y2 in boxes])  # [K, pooled, H]
    columns = torch.stack([pooling.axis(x1, x2, shape, shape.width).ne(0) for _, x1, _, x2, _ in boxes])
    taps = int((columns.sum((1, 2)) * (rows.sum((1, 2)) + shape.pooled)).sum())
    touched = torch.einsum("kph,kqw->pqhw", rows.float(), columns.float()) > 0
    elements = shape.height * shape.width * shape.channels if backward else int(touched.sum()) * shape.classes
    outputs = shape.rois * shape.channels
    return Cost((outputs + elements) * itemsize + rois.numel() * rois.element_size(), 2 * shape.classes * taps)


def make(
    pooling: Pooling, shape: Shape, dtype: torch.dtype, layout: str, backward: bool, name: str, device: torch.device
) -> Trial:
    """Draws ``shape``; the peer always gets the layout that it is fastest in, which is contiguous."""
    draw = generator(name)
    x = torch.randn(1, shape.channels, shape.height, shape.width, generator=draw)
    rois = shape.rois_tensor(draw)
    costs = functools.partial(cost, pooling, shape, rois, dtype.itemsize, backward)
    options = (shape.pooled, 1 / shape.stride, *pooling.options)
    function = getattr(ops, pooling.name)
    x, rois = x.to(device, dtype, memory_format=LAYOUTS[layout]), rois.to(device)
    library = torchvision_ops()
    peer_name = "torchvision" if dtype == torch.float32 else "torchvision, fp32"
    peer_x = x.float().contiguous()
    tolerance = max(PEER_TOLERANCE, DEFINITION_TOLERANCE[dtype])

    def check_definition(result: torch.Tensor) -> None:
        some = torch.linspace(0, shape.rois - 1, CHECKED_ROIS).long().to(device)
        pooled = (shape.pooled, shape.pooled)
        wanted = pooling.definition(x.detach().double(), rois[some], 1 / shape.stride, *pooled, *pooling.options)
        check_close("the definition", result[some], wanted, DEFINITION_TOLERANCE[dtype])

    if not backward:

        def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
            check_definition(result)
            if peer_result is not None:
                check_close("torchvision", result, peer_result, tolerance)

        run = lambda: function(x, rois, *options)  # noqa: E731
        peer = (lambda: getattr(library, pooling.name)(peer_x, rois, *options)) if library is not None else None
        return Trial(run, peer, peer_name, check, lambda _: costs())

    grad = torch.randn(shape.rois, shape.classes, shape.pooled, shape.pooled, generator=draw)
    grad = grad.to(device, dtype, memory_format=LAYOUTS[layout])
    x.requires_grad_()
    output = function(x, rois, *options)
    run = lambda: torch.autograd.grad(output, x, grad, retain_graph=True)[0]  # noqa: E731
    peer = None
    if library is not None:
        peer_x.requires_grad_()
        peer_output = getattr(library, pooling.name)(peer_x, rois, *options)
        peer_grad = grad.float().contiguous()
        peer = lambda: torch.autograd.grad(peer_output, peer_x, peer_grad, retain_graph=True)[0]  # noqa: E731

    def check_backward(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        check_definition(output.detach())
        check_transpose(x.detach(), result, output.detach(), grad, DEFINITION_TOLERANCE[dtype])
        # torchvision's backward of ps_roi_pool is not its forward's transpose (see ops.ps_roi_pool).
        if peer_result is not None and pooling.name == "ps_roi_align":
            check_close("torchvision's backward", result, peer_result, tolerance)

    return Trial(run, peer, peer_name, check_backward, lambda _: costs())


def workload(
    pooling: Pooling,
    shape: Shape,
    layout: str,
    dtype: torch.dtype = torch.float32,
    kind: str = "forward",
    **rest: object,
) -> Workload:
    words = [shape.title, "backward" if kind == "backward" else "", str(shape.rois) if kind == "sweep" else ""]
    words += [SHORT[dtype], layout]
    name = "-".join(word for word in words if word).replace(" ", "-").lower()
    title = f"{' '.join(word for word in words[:3] if word)}, {SHORT[dtype]} {layout.upper()}"
    draw = functools.partial(make, pooling, shape, dtype, layout, kind == "backward", name)
    return Workload(pooling.name, name, title, kind, dtype, draw, **rest)  # type: ignore[arg-type]


def all_workloads(pooling: Pooling) -> tuple[Workload, ...]:
    both = ("nchw", "nhwc")
    found = [
        *(workload(pooling, SCORES, layout, quick=True) for layout in both),
        *(workload(pooling, BOXES, layout) for layout in both),
        *(workload(pooling, LIGHT_HEAD, layout) for layout in both),
        *(workload(pooling, SCORES, x, dtype) for dtype, x in itertools.product((torch.float16, torch.bfloat16), both)),
        *(workload(pooling, SCORES, layout, kind="backward", quick=True) for layout in both),
    ]
    for rois in (10, 100, 300, 1000, 3000):
        shape = replace(SCORES, rois=rois, title="sweep")
        series = f"RoIs of {SCORES.classes} x {SCORES.pooled} x {SCORES.pooled}"
        found.append(workload(pooling, shape, "nchw", kind="sweep", series=series, size=rois))
    return tuple(found)


WORKLOADS = all_workloads(ALIGN)
