"""RoI Align as detectors call it: box head, C4 head, mask head, training, and a sweep over the number of RoIs."""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass, replace

import torch

from structops import ops
from structops.reference import roi_align as definition
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

# The whole output is compared with the peer, whose fp32 coordinates cost it up to 3e-5 of the map's scale; a few RoIs
# are compared with the float64 definition, tightly.
PEER_TOLERANCE = 1e-4
DEFINITION_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
CHECKED_ROIS = 16


@dataclass(frozen=True)
class Shape:
    """One call. Boxes are ``smallest`` to ``largest`` pixels a side (log-uniform), inside the image."""

    title: str
    rois: int
    channels: int
    pooled: int
    height: int
    width: int
    stride: int
    smallest: float = 16
    largest: float = 112
    images: int = 1
    sampling_ratio: int = 2

    def rois_tensor(self, generator: torch.Generator) -> torch.Tensor:
        """``[K, 5]`` (batch index, x1, y1, x2, y2), image pixels."""
        low, high = torch.tensor([self.smallest, self.largest]).log().tolist()
        size = torch.empty(self.rois, 2).uniform_(low, high, generator=generator).exp()
        room = torch.tensor([self.width, self.height]) * self.stride - size
        corner = torch.rand(self.rois, 2, generator=generator) * room
        index = (torch.arange(self.rois) % self.images)[:, None].float()
        return torch.cat([index, corner, corner + size], 1)

    def options(self) -> tuple[float, int, int, int, bool]:
        return 1.0 / self.stride, self.pooled, self.pooled, self.sampling_ratio, False


# 800 x 1333 images padded to 800 x 1344, as torchvision's detectors make them.
BOX_HEAD = Shape("box head", 1000, 256, 7, 200, 336, 4)
MASK_HEAD = Shape("mask head", 100, 256, 14, 200, 336, 4)
C4_HEAD = Shape("C4 head", 300, 1024, 14, 50, 84, 16, smallest=32, largest=512)
TRAINING = Shape("training, 2 images", 1024, 256, 7, 200, 336, 4, images=2)


def taps(low: torch.Tensor, high: torch.Tensor, extent: int, shape: Shape) -> torch.Tensor:
    """Which pixels of an axis have a weight in which bin, for boxes from ``low [K]`` to ``high [K]``.

    Returns bool ``[K, pooled, extent]``. The definition's ``axis_weights`` for all boxes at once, weights left out.
    """
    low, length = low / shape.stride, ((high - low) / shape.stride).clamp(min=1)
    bin_size = length / shape.pooled
    ratio = shape.sampling_ratio
    samples = torch.full_like(bin_size, ratio) if ratio > 0 else bin_size.ceil()
    bins = torch.arange(shape.pooled).view(1, -1, 1)
    sample = torch.arange(int(samples.max()) if len(samples) else 0).view(1, 1, -1)  # a pyramid level can be without
    bin_size, samples, low = (v.view(-1, 1, 1) for v in (bin_size, samples, low))
    at = low + bins * bin_size + (sample + 0.5) * bin_size / samples  # [K, pooled, samples]
    inside = (sample < samples) & (at >= -1) & (at <= extent)
    at = at.clamp(min=0)
    left = at.long().clamp(max=extent - 1)
    taps = torch.zeros(len(at), shape.pooled, extent + 1, dtype=torch.bool)  # the last column takes what has no weight
    taps.scatter_(2, torch.where(inside, left, extent), True)
    taps.scatter_(2, torch.where(inside & (at > left) & (left < extent - 1), left + 1, extent), True)
    return taps[:, :, :extent]


def cost(shape: Shape, rois: torch.Tensor, itemsize: int, backward: bool) -> Cost:
    """Traffic and operations of ``rois [K, 5]``.

    Forward: every output is written once, every input pixel that some RoI touches is read once, however many RoIs
    share it. Backward: every output gradient is read once and every pixel of the input's gradient, zeros too, written
    once. Both read the boxes.

    Operations: averaged bilinear sampling is ``Wy . F . Wx^T`` per RoI; one multiply-add for each non-zero weight, in
    the cheaper of the two orders. The backward is its transpose and costs the same.
    """
    boxes = rois.double()
    rows, columns = (
        taps(boxes[:, 2], boxes[:, 4], shape.height, shape),
        taps(boxes[:, 1], boxes[:, 3], shape.width, shape),
    )
    used_rows, used_columns = rows.any(1).float(), columns.any(1).float()  # [K, H], [K, W]
    touched = 0
    for image in range(shape.images):
        mine = rois[:, 0] == image
        touched += int((used_rows[mine].T @ used_columns[mine] > 0).sum())
    outputs = shape.rois * shape.pooled**2
    pixels = shape.images * shape.height * shape.width if backward else touched
    row_taps, column_taps = rows.sum((1, 2)), columns.sum((1, 2))
    rows_first = row_taps * used_columns.sum(1) + shape.pooled * column_taps
    columns_first = column_taps * used_rows.sum(1) + shape.pooled * row_taps
    operations = 2 * shape.channels * int(torch.minimum(rows_first, columns_first).sum())
    return Cost((outputs + pixels) * shape.channels * itemsize + rois.numel() * rois.element_size(), operations)


def _check_definition(shape: Shape, x: torch.Tensor, rois: torch.Tensor, result: torch.Tensor) -> None:
    some = torch.linspace(0, shape.rois - 1, min(CHECKED_ROIS, shape.rois)).long().to(rois.device)
    images, rois = rois[some, 0].long().unique(), rois[some]
    # Only the images that are needed, since the map is copied to float64.
    rois[:, 0] = torch.searchsorted(images, rois[:, 0].long()).to(rois)
    wanted = definition.roi_align(x[images].double(), rois, *shape.options())
    check_close("the definition", result[some], wanted, DEFINITION_TOLERANCE[x.dtype])


def make(shape: Shape, dtype: torch.dtype, layout: str, backward: bool, name: str, device: torch.device) -> Trial:
    """Draws ``shape``; the peer always gets the layout that it is fastest in, which is contiguous."""
    draw = generator(name)
    x = torch.randn(shape.images, shape.channels, shape.height, shape.width, generator=draw)
    rois = shape.rois_tensor(draw)
    costs = functools.partial(cost, shape, rois, dtype.itemsize, backward)
    scale, pooled, _, ratio, aligned = shape.options()
    options = (pooled, scale, ratio, aligned)
    x, rois = x.to(device, dtype, memory_format=LAYOUTS[layout]), rois.to(device)
    # torchvision has no bfloat16 kernel; where it has float16 it computes coordinates in it, so the boxes must be too.
    peer_dtype = torch.float32 if dtype == torch.bfloat16 else dtype
    peer_name = "torchvision" if peer_dtype == dtype else f"torchvision, {SHORT[peer_dtype]}"
    library = torchvision_ops()
    comparable = peer_dtype == torch.float32
    tolerance = max(PEER_TOLERANCE, DEFINITION_TOLERANCE[dtype])
    if library is not None:
        peer_x = x.to(peer_dtype, memory_format=torch.contiguous_format)
        peer_rois = rois.to(peer_dtype)
    if not backward:

        def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
            _check_definition(shape, x, rois, result)
            if peer_result is not None and comparable:
                check_close("torchvision", result, peer_result, tolerance)

        run = lambda: ops.roi_align(x, rois, *options)  # noqa: E731
        peer = (lambda: library.roi_align(peer_x, peer_rois, *options)) if library is not None else None
        return Trial(run, peer, peer_name, check, lambda _: costs())

    grad = torch.randn(shape.rois, shape.channels, shape.pooled, shape.pooled, generator=draw)
    grad = grad.to(device, dtype, memory_format=LAYOUTS[layout])
    x.requires_grad_()
    output = ops.roi_align(x, rois, *options)
    run = lambda: torch.autograd.grad(output, x, grad, retain_graph=True)[0]  # noqa: E731
    peer = None
    if library is not None:
        peer_x.requires_grad_()
        peer_output = library.roi_align(peer_x, peer_rois, *options)
        peer_grad = grad.to(peer_dtype, memory_format=torch.contiguous_format)
        peer = lambda: torch.autograd.grad(peer_output, peer_x, peer_grad, retain_graph=True)[0]  # noqa: E731

    def check_backward(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        _check_definition(shape, x.detach(), rois, output.detach())
        check_transpose(x.detach(), result, output.detach(), grad, DEFINITION_TOLERANCE[dtype])
        if peer_result is not None and comparable:
            check_close("torchvision's backward", result, peer_result, tolerance)

    return Trial(run, peer, peer_name, check_backward, lambda _: costs())


def _workload(shape: Shape, layout: str, dtype: torch.dtype = torch.float32, kind: str = "forward", **rest) -> Workload:
    words = [shape.title, "adaptive" if shape.sampling_ratio <= 0 else "", "backward" if kind == "backward" else ""]
    words += [str(shape.rois) if kind == "sweep" else "", SHORT[dtype], layout]
    name = "-".join(word for word in words if word).replace(", ", "-").replace(" ", "-").lower()
    title = f"{' '.join(word for word in words[:4] if word)}, {SHORT[dtype]} {layout.upper()}"
    draw = functools.partial(make, shape, dtype, layout, kind == "backward", name)
    return Workload("roi_align", name, title, kind, dtype, draw, **rest)


def _all() -> tuple[Workload, ...]:
    half = (torch.float16, torch.bfloat16)
    adaptive = replace(BOX_HEAD, sampling_ratio=-1)
    both = tuple(LAYOUTS)
    found = [
        *(_workload(BOX_HEAD, layout, quick=True) for layout in both),
        *(_workload(adaptive, layout, quick=layout == "nhwc") for layout in both),
        *(_workload(MASK_HEAD, layout, quick=layout == "nhwc") for layout in both),
        *(_workload(C4_HEAD, layout, quick=layout == "nhwc") for layout in both),
        *(_workload(BOX_HEAD, layout, dtype) for dtype, layout in itertools.product(half, both)),
        *(_workload(BOX_HEAD, layout, kind="backward", quick=layout == "nhwc") for layout in both),
    ]
    for dtype, kind in itertools.product((torch.float32, torch.bfloat16), ("forward", "backward")):
        found.append(_workload(TRAINING, "nhwc", dtype, kind, devices=("cuda",), quick=dtype == torch.bfloat16))
    for rois in (10, 30, 100, 300, 1000, 3000, 10_000):
        shape = replace(BOX_HEAD, rois=rois, title="sweep")
        short = rois in (10, 100, 1000)
        found.append(_workload(shape, "nhwc", kind="sweep", quick=short, series="RoIs of 256 x 7 x 7", size=rois))
    return tuple(found)


WORKLOADS = _all()
