"""RoI Pool as detectors call it: box head, C4 head, training, and a sweep over the number of RoIs."""

from __future__ import annotations

import functools
import itertools
from dataclasses import replace

import torch

from structops import ops
from structops.reference import roi_pool as definition
from structops.testing.workloads import LAYOUTS, SHORT, Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.roi_align import BOX_HEAD, C4_HEAD, TRAINING, Shape

TWO_IMAGES = replace(TRAINING, title="2 images")
# A maximum is one of the features, so the result is compared bit for bit. A gradient is a sum, whose order is free.
GRADIENT_TOLERANCE = {torch.float32: 1e-5, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}
CHECKED_ROIS = 16


def bins(low: torch.Tensor, high: torch.Tensor, extent: int, shape: Shape) -> tuple[torch.Tensor, torch.Tensor]:
    """First pixel and end of each bin ``[K, pooled]``: the definition's ``axis_bins`` for all boxes at once."""
    start, end = ((v / shape.stride).add(0.5).floor().long() for v in (low, high))  # no box here is negative
    length = (end - start + 1).clamp(min=1)[:, None]
    p = torch.arange(shape.pooled)
    first = start[:, None] + p * length // shape.pooled
    last = start[:, None] - (-(p + 1) * length).div(shape.pooled, rounding_mode="floor")
    return first.clamp(0, extent), last.clamp(0, extent)


def cost(shape: Shape, rois: torch.Tensor, itemsize: int, kind: str) -> Cost:
    """Traffic and operations of ``rois [K, 5]``.

    Forward: every output is written once, every input pixel that some RoI touches is read once. Training forward: and
    every index is written. Backward: every output gradient and index is read once and every pixel of the input's
    gradient, zeros too, written once. All read the boxes.

    Operations: a comparison for every pixel of every bin, or an addition for every bin.
    """
    boxes = rois.double()
    top, bottom = bins(boxes[:, 2], boxes[:, 4], shape.height, shape)
    left, right = bins(boxes[:, 1], boxes[:, 3], shape.width, shape)
    touched = torch.zeros(shape.images, shape.height, shape.width, dtype=torch.bool)
    for k, image in enumerate(rois[:, 0].long().tolist()):
        touched[image, top[k, 0] : bottom[k, -1], left[k, 0] : right[k, -1]] = True
    outputs = shape.rois * shape.pooled**2
    pixels = shape.images * shape.height * shape.width if kind == "backward" else int(touched.sum())
    reads = int(((bottom - top).sum(1) * (right - left).sum(1)).sum())
    indices = 0 if kind == "forward" else 4 * outputs
    moved = ((outputs + pixels) * itemsize + indices) * shape.channels + rois.numel() * rois.element_size()
    return Cost(moved, (outputs if kind == "backward" else reads) * shape.channels)


def _check_definition(shape: Shape, x: torch.Tensor, rois: torch.Tensor, result: torch.Tensor) -> None:
    some = torch.linspace(0, shape.rois - 1, min(CHECKED_ROIS, shape.rois)).long().to(rois.device)
    wanted, _ = definition.roi_pool(x, rois[some], 1.0 / shape.stride, shape.pooled, shape.pooled, False)
    assert torch.equal(result[some], wanted), "roi_pool differs from the definition"


def make(shape: Shape, dtype: torch.dtype, layout: str, kind: str, name: str, device: torch.device) -> Trial:
    """Draws ``shape``; the peer always gets the layout that it is fastest in, which is contiguous.

    Args:
        kind: ``"forward"`` (inference), ``"training"`` (the forward that also notes where each maximum was) or
            ``"backward"``.
    """
    draw = generator(name)
    x = torch.randn(shape.images, shape.channels, shape.height, shape.width, generator=draw)
    rois = shape.rois_tensor(draw)
    costs = functools.partial(cost, shape, rois, dtype.itemsize, kind)
    options = (shape.pooled, 1.0 / shape.stride)
    x, rois = x.to(device, dtype, memory_format=LAYOUTS[layout]), rois.to(device)
    # torchvision takes no bfloat16; where it takes float16 it rounds boxes to it, so only float32 is compared.
    peer_dtype = torch.float32 if dtype == torch.bfloat16 else dtype
    peer_name = "torchvision" if peer_dtype == dtype else f"torchvision, {SHORT[peer_dtype]}"
    if device.type == "cpu" and dtype == torch.float16:
        peer_dtype, peer_name = torch.float32, "torchvision, fp32"
    library = torchvision_ops()
    comparable = peer_dtype == torch.float32
    if library is not None:
        peer_x = x.to(peer_dtype, memory_format=torch.contiguous_format)
        peer_rois = rois.to(peer_dtype)
    x.requires_grad_(kind != "forward")
    if kind != "backward":

        def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
            _check_definition(shape, x.detach(), rois, result.detach())
            if peer_result is not None and comparable:
                assert torch.equal(result.detach(), peer_result.to(dtype)), "roi_pool differs from torchvision"

        run = lambda: ops.roi_pool(x, rois, *options)  # noqa: E731
        peer = (lambda: library.roi_pool(peer_x, peer_rois, *options)) if library is not None else None
        return Trial(run, peer, peer_name, check, lambda _: costs())

    grad = torch.randn(shape.rois, shape.channels, shape.pooled, shape.pooled, generator=draw)
    grad = grad.to(device, dtype, memory_format=LAYOUTS[layout])
    output = ops.roi_pool(x, rois, *options)
    run = lambda: torch.autograd.grad(output, x, grad, retain_graph=True)[0]  # noqa: E731
    peer = None
    if library is not None:
        peer_x.requires_grad_()
        peer_output = library.roi_pool(peer_x, peer_rois, *options)
        peer_grad = grad.to(peer_dtype, memory_format=torch.contiguous_format)
        peer = lambda: torch.autograd.grad(peer_output, peer_x, peer_grad, retain_graph=True)[0]  # noqa: E731

    def check_backward(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        _check_definition(shape, x.detach(), rois, output.detach())
        # Every bin here has a pixel: what goes in comes out.
        total, wanted = result.double().sum().item(), grad.double().sum().item()
        bound = GRADIENT_TOLERANCE[dtype] * grad.double().norm().item()
        assert abs(total - wanted) <= bound, f"roi_pool's backward adds up to {total}, the gradient to {wanted}"
        if peer_result is not None and comparable and dtype == torch.float32:
            error = (result - peer_result).abs().max().item()
            allowed = GRADIENT_TOLERANCE[dtype] * peer_result.abs().max().item()
            assert error <= allowed, f"roi_pool's backward differs from torchvision's by {error:.2e}"

    return Trial(run, peer, peer_name, check_backward, lambda _: costs())


def _workload(shape: Shape, layout: str, dtype: torch.dtype = torch.float32, kind: str = "forward", **rest) -> Workload:
    sweep = bool(rest.get("series"))
    words = [shape.title, "" if kind == "forward" else kind, str(shape.rois) if sweep else ""]
    name = (
        "-".join(word for word in (*words, SHORT[dtype], layout) if word).replace(", ", "-").replace(" ", "-").lower()
    )
    title = f"{' '.join(word for word in words if word)}, {SHORT[dtype]} {layout.upper()}"
    draw = functools.partial(make, shape, dtype, layout, kind, f"roi_pool-{name}")
    group = "sweep" if sweep else "forward" if kind == "training" else kind
    return Workload("roi_pool", name, title, group, dtype, draw, **rest)


def _all() -> tuple[Workload, ...]:
    half = (torch.float16, torch.bfloat16)
    both = tuple(LAYOUTS)
    found = [
        *(_workload(BOX_HEAD, layout, quick=True) for layout in both),
        *(_workload(BOX_HEAD, layout, kind="training", quick=layout == "nhwc") for layout in both),
        *(_workload(replace(C4_HEAD, largest=430), layout, quick=layout == "nhwc") for layout in both),
        *(_workload(BOX_HEAD, layout, dtype) for dtype, layout in itertools.product(half, both)),
        *(_workload(BOX_HEAD, layout, kind="backward", quick=layout == "nhwc") for layout in both),
    ]
    for dtype, kind in itertools.product((torch.float32, torch.bfloat16), ("training", "backward")):
        found.append(_workload(TWO_IMAGES, "nhwc", dtype, kind, devices=("cuda",), quick=dtype == torch.bfloat16))
    for rois in (10, 30, 100, 300, 1000, 3000, 10_000):
        shape = replace(BOX_HEAD, rois=rois, title="sweep")
        short = rois in (10, 100, 1000)
        found.append(_workload(shape, "nhwc", quick=short, series="RoIs of 256 x 7 x 7", size=rois))
    return tuple(found)


WORKLOADS = _all()
