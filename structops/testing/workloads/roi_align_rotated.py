"""RoI Align of rotated boxes as detectors of oriented objects and of text call it.

No library that is commonly installed has the op, so the peer is what takes its place in plain torch: one
``grid_sample`` over the sampling points of all boxes of an image, and an average pool. One more compares upright boxes
with :func:`structops.ops.roi_align`, which can factor its weights.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import torch

from structops import ops
from structops.reference import roi_align_rotated as definition
from structops.testing.workloads import LAYOUTS, SHORT, Cost, Trial, Workload, check_close, check_transpose, generator

# The peer computes sampling points in float32, in units of half the map.
PEER_TOLERANCE = 2e-4
DEFINITION_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
CHECKED_ROIS = 16


@dataclass(frozen=True)
class Shape:
    """One call on one image. Heights are ``smallest`` to ``largest`` pixels (log-uniform), widths ``aspect`` times
    another such number; any angle; wholly inside the image."""

    title: str
    rois: int
    channels: int
    pooled: tuple[int, int]
    height: int
    width: int
    stride: int
    smallest: float = 16
    largest: float = 112
    aspect: float = 1
    sampling_ratio: int = 2
    upright: bool = False

    def rois_tensor(self, generator: torch.Generator) -> torch.Tensor:
        """``[K, 6]`` (batch index, centre x, centre y, width, height, degrees), image pixels."""
        low, high = torch.tensor([self.smallest, self.largest]).log().tolist()
        size = torch.empty(self.rois, 2).uniform_(low, high, generator=generator).exp() * torch.tensor([self.aspect, 1])
        # A pixel of the map more: samples between the border and the outermost pixel centres are not grid_sample's.
        margin = size.norm(dim=1, keepdim=True) / 2 + self.stride
        image = torch.tensor([self.width, self.height]) * self.stride
        centre = margin + torch.rand(self.rois, 2, generator=generator) * (image - 2 * margin)
        angle = torch.rand(self.rois, 1, generator=generator) * (0 if self.upright else 360)
        return torch.cat([torch.zeros(self.rois, 1), centre, size, angle], 1)

    def options(self) -> tuple[float, int, int, int, bool, bool]:
        return 1.0 / self.stride, *self.pooled, self.sampling_ratio, True, False


# 800 x 1333 images padded to 800 x 1344.
BOX_HEAD = Shape("box head", 1000, 256, (7, 7), 200, 336, 4)
TEXT_LINES = Shape("text lines", 200, 256, (8, 32), 200, 336, 4, smallest=16, largest=48, aspect=6)
C4_HEAD = Shape("C4 head", 300, 1024, (14, 14), 50, 84, 16, smallest=32, largest=448)


def cost(shape: Shape, rois: torch.Tensor, itemsize: int, backward: bool) -> Cost:
    """Traffic: outputs once, and the pixels that some RoI touches once (backward: every pixel of the gradient).

    Operations: a multiply-add for each pixel of each bin, samples that share one merged. Rotation leaves no cheaper
    order.
    """
    entries, touched = 0, torch.zeros(shape.height * shape.width, dtype=torch.bool)
    scale, height, width, ratio, aligned, clockwise = shape.options()
    map_shape = (1, shape.channels, shape.height, shape.width)
    for roi in rois.double().tolist():
        found = definition.roi_weights(roi, scale, (height, width), ratio, aligned, clockwise, map_shape)
        assert found is not None
        bins, pixels = found[1][:, found[2] != 0]
        entries += len((bins * len(touched) + pixels).unique())
        touched[pixels] = True
    pixels = len(touched) if backward else int(touched.sum())
    outputs = shape.rois * height * width
    moved = (outputs + pixels) * shape.channels * itemsize + rois.numel() * rois.element_size()
    return Cost(moved, 2 * shape.channels * entries)


def grid_sample(shape: Shape, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    """The same in plain torch, for boxes inside the map: all samples of all boxes as one tall grid over the image."""
    k, (ph, pw), n = len(rois), shape.pooled, shape.sampling_ratio
    map_height, map_width = x.shape[2:]
    _, cx, cy, width, height, degrees = (rois / rois.new_tensor([1, *[shape.stride] * 4, 1])).unbind(1)
    cos, sin = degrees.deg2rad().cos(), degrees.deg2rad().sin()
    rows = [
        [width * cos / map_width, height * sin / map_width, 2 * cx / map_width - 1],
        [-width * sin / map_height, height * cos / map_height, 2 * cy / map_height - 1],
    ]
    theta = torch.stack([torch.stack(row, 1) for row in rows], 1)
    grid = torch.nn.functional.affine_grid(theta, [k, 1, ph * n, pw * n], align_corners=False)
    samples = torch.nn.functional.grid_sample(x, grid.reshape(1, k * ph * n, pw * n, 2).to(x), align_corners=False)
    crops = torch.nn.functional.avg_pool2d(samples, n)
    return crops.reshape(x.shape[1], k, ph, pw).transpose(0, 1)


def upright(shape: Shape, x: torch.Tensor, rois: torch.Tensor) -> torch.Tensor:
    index, cx, cy, width, height, _ = rois.unbind(1)
    boxes = torch.stack([index, cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], 1)
    return ops.roi_align(x, boxes, shape.pooled, 1 / shape.stride, shape.sampling_ratio, True)


def make(shape: Shape, dtype: torch.dtype, layout: str, backward: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    x = torch.randn(1, shape.channels, shape.height, shape.width, generator=draw)
    rois = shape.rois_tensor(draw)
    costs = functools.partial(cost, shape, rois, dtype.itemsize, backward)
    x, rois = x.to(device, dtype, memory_format=LAYOUTS[layout]), rois.to(device)
    scale, *pooled, ratio, aligned, clockwise = shape.options()
    run = functools.partial(ops.roi_align_rotated, x, rois, pooled, scale, ratio, aligned, clockwise)
    peer_name = "roi_align, upright" if shape.upright else "torch grid_sample"
    peer_dtype = dtype if shape.upright else torch.float32
    peer_name += "" if peer_dtype == dtype else f", {SHORT[peer_dtype]}"
    # grid_sample has one layout, contiguous.
    peer_x = x if shape.upright else x.to(peer_dtype, memory_format=torch.contiguous_format).detach()
    peer = functools.partial(upright if shape.upright else grid_sample, shape, peer_x, rois)
    some = torch.linspace(0, shape.rois - 1, min(CHECKED_ROIS, shape.rois)).long().to(device)

    def check_forward(result: torch.Tensor) -> None:
        wanted = definition.roi_align_rotated(x.detach().double(), rois[some], *shape.options())
        check_close("the definition", result[some], wanted, DEFINITION_TOLERANCE[dtype])

    tolerance = max(PEER_TOLERANCE, DEFINITION_TOLERANCE[dtype])
    if not backward:

        def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
            check_forward(result)
            if peer_result is not None:
                check_close(peer_name, result, peer_result, tolerance)

        return Trial(run, peer, peer_name, check, lambda _: costs())

    grad = torch.randn(shape.rois, shape.channels, *shape.pooled, generator=draw)
    grad = grad.to(device, dtype, memory_format=LAYOUTS[layout])
    x.requires_grad_()
    output = run()
    peer_x.requires_grad_()
    peer_output, peer_grad = peer(), grad.to(peer_dtype, memory_format=torch.contiguous_format)

    def check_backward(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        check_forward(output.detach())
        check_transpose(x.detach(), result, output.detach(), grad, DEFINITION_TOLERANCE[dtype])
        if peer_result is not None:
            check_close(f"{peer_name}'s backward", result, peer_result, tolerance)

    return Trial(
        lambda: torch.autograd.grad(output, x, grad, retain_graph=True)[0],
        lambda: torch.autograd.grad(peer_output, peer_x, peer_grad, retain_graph=True)[0],
        peer_name,
        check_backward,
        lambda _: costs(),
    )


def _workload(shape: Shape, layout: str, dtype: torch.dtype = torch.float32, kind: str = "forward", **rest) -> Workload:
    words = [shape.title, "backward" if kind == "backward" else "", SHORT[dtype], layout]
    name = "-".join(word for word in words if word).replace(", ", "-").replace(" ", "-").lower()
    title = f"{' '.join(word for word in words[:2] if word)}, {SHORT[dtype]} {layout.upper()}"
    draw = functools.partial(make, shape, dtype, layout, kind == "backward", name)
    return Workload("roi_align_rotated", name, title, kind, dtype, draw, **rest)


def _all() -> tuple[Workload, ...]:
    flat = replace(BOX_HEAD, title="upright box head", upright=True)
    found = []
    for layout in LAYOUTS:
        nhwc = layout == "nhwc"
        found += [
            _workload(BOX_HEAD, layout, quick=True),
            _workload(TEXT_LINES, layout, quick=nhwc),
            _workload(C4_HEAD, layout, quick=nhwc),
            _workload(flat, layout, quick=nhwc),
            _workload(BOX_HEAD, layout, torch.bfloat16),
            _workload(BOX_HEAD, layout, kind="backward", quick=nhwc),
        ]
    return tuple(found)


WORKLOADS = _all()
