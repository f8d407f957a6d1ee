"""The mask head of 100 detections, from the features of its convolutions to probabilities."""

from __future__ import annotations

import functools

import torch

from structops import ops
from structops.reference import mask_head_predict as definition
from structops.testing.cases.mask_head_predict import torch_composed
from structops.testing.workloads import SHORT, Cost, Trial, Workload, full_float32, generator

# Of a probability: logits of the definition, in float32 and in another order; one rounding of a half.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-8}
CHANNELS, CLASSES, SIZE = 256, 91, 14
CHECKED_ROIS = 4


def cost(rois: int, itemsize: int) -> Cost:
    """Features and weights read once, probabilities written once; of the second layer one class."""
    features, weight, out = rois * CHANNELS * SIZE**2, CHANNELS * CHANNELS * 4, rois * 4 * SIZE**2
    flops = 2 * features * CHANNELS * 4 + 2 * out * CHANNELS
    return Cost((features + weight + out) * itemsize, flops)


def make(rois: int, dtype: torch.dtype, layout: str, name: str, device: torch.device) -> Trial:
    draw = generator(name)
    form = torch.channels_last if layout == "channels_last" else torch.contiguous_format

    def tensor(*size: int, scale: float = 1.0) -> torch.Tensor:
        x = (scale * torch.randn(*size, generator=draw)).to(device, dtype)
        return x.contiguous(memory_format=form) if x.dim() == 4 else x

    arguments = (
        tensor(rois, CHANNELS, SIZE, SIZE),
        tensor(CHANNELS, CHANNELS, 2, 2, scale=CHANNELS**-0.5),
        tensor(CHANNELS),
        tensor(CLASSES, CHANNELS, 1, 1, scale=CHANNELS**-0.5),
        tensor(CLASSES),
        torch.randint(CLASSES, (rois,), generator=draw).to(device),
    )

    def run(function) -> torch.Tensor:
        with torch.no_grad(), full_float32():
            return function(*arguments)

    def check(result: torch.Tensor, peer_result: torch.Tensor | None) -> None:
        some = slice(0, CHECKED_ROIS)
        features, deconv, deconv_bias, logits, logits_bias, labels = arguments
        layers = (deconv.double(), deconv_bias.double(), logits[:, :, 0, 0].double(), logits_bias.double())
        wanted = definition.mask_head_predict(features[some].double(), *layers, labels[some])
        error = (result[some, 0].double() - wanted).abs().max().item()
        assert error <= TOLERANCE[dtype], f"mask_head_predict differs from the definition by {error:.2e}"
        if peer_result is not None:
            # torch rounds the map between the layers to the type of the features.
            error = (result.double() - peer_result.double()).abs().max().item()
            assert error <= 4 * TOLERANCE[dtype], f"mask_head_predict differs from torch's by {error:.2e}"

    costs = cost(rois, dtype.itemsize)
    ours, theirs = (functools.partial(run, f) for f in (ops.mask_head_predict, torch_composed))
    return Trial(ours, theirs, "torch, all classes", check, lambda _: costs)


def _workload(rois: int, dtype: torch.dtype, layout: str, **rest) -> Workload:
    short = {"contiguous": "NCHW", "channels_last": "NHWC"}[layout]
    name = f"{rois}-rois-{short}-{SHORT[dtype]}".lower()
    draw = functools.partial(make, rois, dtype, layout, f"mask_head_predict-{name}")
    return Workload("mask_head_predict", name, f"{rois} RoIs {short}, {SHORT[dtype]}", "forward", dtype, draw, **rest)


WORKLOADS = tuple(
    _workload(rois, dtype, layout, quick=rois == 100 and dtype == torch.float32)
    for rois in (100, 10)
    for layout in ("contiguous", "channels_last")
    for dtype in (torch.float32, torch.bfloat16)
)
