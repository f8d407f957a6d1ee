"""RoI Align over a feature pyramid as Faster and Mask R-CNN call it: box head, mask head, a training step."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import torch

from structops import ops
from structops.reference import multiscale_roi_align as definition
from structops.testing.workloads import LAYOUTS, SHORT, Cost, Trial, Workload, check_close, generator, torchvision_ops
from structops.testing.workloads.roi_align import DEFINITION_TOLERANCE, PEER_TOLERANCE
from structops.testing.workloads.roi_align import Shape as OneMap
from structops.testing.workloads.roi_align import cost as one_map_cost

STRIDES = (4, 8, 16, 32)
CHECKED_ROIS = 16


@dataclass(frozen=True)
class Shape:
    """One call over P2 to P5 of 800 x 1333 images (padded to 800 x 1344). Boxes are 16 to 544 pixels a side
    (log-uniform), which puts 60, 26, 13 and 1 percent of them on the four levels."""

    title: str
    rois: int
    pooled: int
    channels: int = 256
    images: int = 1
    height: int = 800
    width: int = 1344
    smallest: float = 16
    largest: float = 544

    def boxes(self, generator: torch.Generator) -> list[torch.Tensor]:
        """``[L, 4]`` (x1, y1, x2, y2) for each image, in its pixels."""
        low, high = torch.tensor([self.smallest, self.largest]).log().tolist()
        found = []
        for _ in range(self.images):
            size = torch.empty(self.rois // self.images, 2).uniform_(low, high, generator=generator).exp()
            corner = torch.rand(len(size), 2, generator=generator) * (torch.tensor([self.width, self.height]) - size)
            found.append(torch.cat([corner, corner + size], 1))
        return found

    def maps(self, generator: torch.Generator) -> list[torch.Tensor]:
        sizes = [(self.images, self.channels, self.height // s, self.width // s) for s in STRIDES]
        return [torch.randn(size, generator=generator) for size in sizes]


BOX_HEAD = Shape("box head", 1000, 7)
MASK_HEAD = Shape("mask head", 100, 14)
TRAINING = Shape("training step, 2 images", 1024, 7, images=2)
SCALES = [1 / s for s in STRIDES]


def cost(shape: Shape, rois: torch.Tensor, itemsize: int, step: bool) -> Cost:
    """The sum over the levels of what roi_align has to do for the RoIs there; of a step, also its backward."""
    place = definition.assign_levels(rois, SCALES, 224, 4, None, None)
    parts = []
    for level, stride in enumerate(STRIDES):
        here = rois[place == level]
        size = (shape.height // stride, shape.width // stride)
        one = OneMap("", len(here), shape.channels, shape.pooled, *size, stride, images=shape.images)
        parts += [one_map_cost(one, here, itemsize, backward) for backward in ((False, True) if step else (False,))]
    return Cost(sum(p.bytes for p in parts), sum(p.flops for p in parts))


def make(shape: Shape, dtype: torch.dtype, layout: str, step: bool, name: str, device: torch.device) -> Trial:
    """Draws ``shape``; the peer always gets the layout that it is fastest in, which is contiguous."""
    draw = generator(name)
    boxes, maps = shape.boxes(draw), shape.maps(draw)
    index = torch.arange(shape.images).repeat_interleave(shape.rois // shape.images)
    rois = torch.cat([index[:, None].float(), torch.cat(boxes)], 1)
    costs = functools.partial(cost, shape, rois, dtype.itemsize, step)
    x = [m.to(device, dtype, memory_format=LAYOUTS[layout]).requires_grad_(step) for m in maps]
    rois = rois.to(device)
    # torchvision has no bfloat16 kernel; where it has float16 it computes coordinates in it, so the boxes must be too.
    peer_dtype = torch.float32 if dtype == torch.bfloat16 else dtype
    peer_name = "torchvision" if peer_dtype == dtype else f"torchvision, {SHORT[peer_dtype]}"
    grad = torch.randn(shape.rois, shape.channels, shape.pooled, shape.pooled, generator=draw) if step else None

    def work(function, features, grad):
        """The crops; of a training step, the gradient of each level."""
        output = function()
        return [output] if grad is None else list(torch.autograd.grad(output, features, grad))

    def own() -> torch.Tensor:
        return ops.multiscale_roi_align(x, rois, shape.pooled, SCALES)

    own_grad = None if grad is None else grad.to(device, dtype, memory_format=LAYOUTS[layout])
    peer, library = None, torchvision_ops()
    if library is not None:
        peer_x = [m.to(device, peer_dtype).requires_grad_(step) for m in maps]
        peer_boxes = [b.to(device, peer_dtype) for b in boxes]
        peer_grad = None if grad is None else grad.to(device, peer_dtype)
        pooler = library.MultiScaleRoIAlign([str(s) for s in STRIDES], shape.pooled, 2)
        named = dict(zip(pooler.featmap_names, peer_x, strict=True))
        shapes = [(shape.height, shape.width)] * shape.images
        peer = lambda: work(lambda: pooler(named, peer_boxes, shapes), peer_x, peer_grad)  # noqa: E731

    def check(result: list[torch.Tensor], peer_result: list[torch.Tensor] | None) -> None:
        some = torch.linspace(0, shape.rois - 1, min(CHECKED_ROIS, shape.rois)).long().to(device)
        arguments = (rois[some], SCALES, shape.pooled, shape.pooled, 2, False, 224.0, 4, None, None)
        wanted = definition.multiscale_roi_align([m.detach().double() for m in x], *arguments)
        check_close("the definition", own().detach()[some], wanted, DEFINITION_TOLERANCE[dtype])
        if peer_result is not None and peer_dtype == torch.float32:
            tolerance = max(PEER_TOLERANCE, DEFINITION_TOLERANCE[dtype])
            for level, (ours, theirs) in enumerate(zip(result, peer_result, strict=True)):
                check_close(f"torchvision{f' on level {level}' if step else ''}", ours, theirs, tolerance)

    return Trial(lambda: work(own, x, own_grad), peer, peer_name, check, lambda _: costs())


def _workload(shape: Shape, layout: str, dtype: torch.dtype = torch.float32, step: bool = False, **rest) -> Workload:
    name = "-".join([shape.title.replace(", ", "-").replace(" ", "-").lower(), SHORT[dtype], layout])
    title = f"{shape.title}, {SHORT[dtype]} {layout.upper()}"
    draw = functools.partial(make, shape, dtype, layout, step, name)
    return Workload("multiscale_roi_align", name, title, "backward" if step else "forward", dtype, draw, **rest)


def _all() -> tuple[Workload, ...]:
    both = tuple(LAYOUTS)
    return (
        *(_workload(BOX_HEAD, layout, quick=True) for layout in both),
        *(_workload(MASK_HEAD, layout, quick=layout == "nhwc") for layout in both),
        *(_workload(BOX_HEAD, layout, t) for t, layout in itertools.product((torch.float16, torch.bfloat16), both)),
        *(_workload(TRAINING, layout, step=True, quick=layout == "nhwc") for layout in both),
        _workload(TRAINING, "nhwc", torch.bfloat16, step=True, devices=("cuda",), quick=True),
    )


WORKLOADS = _all()
