"""RoI Align along time as detectors of actions call it: proposals of a few videos, C fastest or T fastest."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch

from structops import ops
from structops.reference.roi_align_1d import roi_align_1d as definition
from structops.testing.workloads import Cost, Trial, Workload, check_close, generator, torchvision_ops

# torchvision's fp32 coordinates cost it up to 3e-5 of the scale of a sequence of 1000 steps.
PEER_TOLERANCE, DEFINITION_TOLERANCE, CHECKED = 1e-4, 1e-5, 8


@dataclass(frozen=True)
class Shape:
    """One call; segments are ``smallest`` to ``largest`` frames long, log-uniform, inside the video."""

    segments: int = 1000
    channels: int = 512
    bins: int = 16
    steps: int = 256
    stride: int = 8
    smallest: float = 16
    largest: float = 512
    videos: int = 2
    sampling_ratio: int = 2

    def draw(self, generator: torch.Generator) -> torch.Tensor:
        low, high = torch.tensor([self.smallest, self.largest]).log().tolist()
        length = torch.empty(self.segments).uniform_(low, high, generator=generator).exp()
        start = torch.rand(self.segments, generator=generator) * (self.steps * self.stride - length)
        return torch.stack([torch.arange(self.segments) % self.videos, start, start + length], 1)


PROPOSALS = Shape()


def cost(shape: Shape, itemsize: int) -> Cost:
    """Each output once and each step of the sequences once; a multiply-add for each of two taps a sample."""
    outputs = shape.segments * shape.channels * shape.bins
    moved = (outputs + shape.videos * shape.channels * shape.steps) * itemsize + shape.segments * 12
    return Cost(moved, 2 * outputs * 2 * shape.sampling_ratio)


def make(shape: Shape, channels_fastest: bool, backward: bool, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    x = torch.randn(shape.videos, shape.channels, shape.steps, generator=draw).to(device)
    segments = shape.draw(draw).to(device)
    peer_x = x.unsqueeze(2)
    if channels_fastest:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    scale, ratio = 1 / shape.stride, shape.sampling_ratio
    index, start, end = segments.unbind(1)
    boxes = torch.stack([index, start, torch.zeros_like(index), end, torch.full_like(index, shape.stride)], 1)
    library = torchvision_ops()
    run = functools.partial(ops.roi_align_1d, x, segments, shape.bins, scale, ratio)
    peer = functools.partial(library.roi_align, peer_x, boxes, (1, shape.bins), scale, ratio) if library else None

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        some = torch.linspace(0, shape.segments - 1, CHECKED, device=device).long()
        with torch.no_grad():
            wanted = definition(x.double(), segments[some], shape.bins, scale, ratio)
            check_close("the definition", run()[some].double(), wanted, DEFINITION_TOLERANCE)
        if peer_result is not None:
            peer_result = peer_result.squeeze(2) if result.dim() < 4 else peer_result
            check_close("torchvision", result, peer_result, PEER_TOLERANCE)

    if backward:
        x.requires_grad_()
        out = run()
        grad = torch.randn(shape.segments, shape.channels, shape.bins, generator=draw).to(device)
        peer_grad = grad.unsqueeze(2)
        grad = torch.empty_like(out).copy_(grad)
        run_backward = lambda: torch.autograd.grad(out, x, grad, retain_graph=True)[0]  # noqa: E731
        peer_backward = None
        if peer is not None:
            peer_x.requires_grad_()
            peer_out = peer()
            peer_backward = lambda: torch.autograd.grad(peer_out, peer_x, peer_grad, retain_graph=True)[0]  # noqa: E731
        return Trial(run_backward, peer_backward, "torchvision", check, lambda _: cost(shape, 4))
    return Trial(run, peer, "torchvision", check, lambda _: cost(shape, 4))


def _workload(channels_fastest: bool, kind: str = "forward") -> Workload:
    layout = "C fastest" if channels_fastest else "T fastest"
    name = "-".join(["proposals", *(["backward"] if kind == "backward" else []), layout.replace(" ", "-").lower()])
    draw = functools.partial(make, PROPOSALS, channels_fastest, kind == "backward", name)
    title = f"proposals{' backward' if kind == 'backward' else ''}, fp32, {layout}"
    return Workload("roi_align_1d", name, title, kind, torch.float32, draw, quick=True)


WORKLOADS = tuple(_workload(fastest, kind) for kind in ("forward", "backward") for fastest in (True, False))
