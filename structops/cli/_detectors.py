"""torchvision's detectors on one photograph, as they are and patched: do they agree, and what took how long?"""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

import structops

MODELS = {"Faster R-CNN": "fasterrcnn_resnet50_fpn", "Mask R-CNN": "maskrcnn_resnet50_fpn"}
#: what is timed: the module (and class) that the detectors look a function up in, and its name
FUNCTIONS = {
    "RPN head": ("torchvision.models.detection.rpn:RPNHead", "forward"),
    "proposals": ("torchvision.models.detection.rpn:RegionProposalNetwork", "forward"),
    "pooling": ("torchvision.ops.poolers", "_multiscale_roi_align"),
    "detections": ("torchvision.models.detection.roi_heads:RoIHeads", "postprocess_detections"),
}
PARTS = ("proposals", "pooling", "detections")  # the RPN's head, a network, is taken off the proposals
ROUNDS = 3  # in turns; the fastest counts: other processes only ever add time

Detections = dict[str, Tensor]  # boxes [N, 4], labels [N], scores [N], and masks [N, 1, H, W] of a Mask R-CNN


@dataclass
class Agreement:
    """How far two lists of detections are the same; differences are the largest over the pairs."""

    total: int
    paired: int  # same label, boxes within a hundredth of a pixel
    differences: dict[str, float] = field(default_factory=dict)  # boxes in pixels, scores, masks

    #: fp32 noise through a hundred layers stays a factor of 20 and more below these
    LIMITS = {"boxes": 0.01, "scores": 1e-4, "masks": 1e-2}  # noqa: RUF012

    @property
    def ok(self) -> bool:
        within = all(difference <= self.LIMITS[name] for name, difference in self.differences.items())
        return self.paired == self.total and within


@dataclass
class Comparison:
    model: str
    agreement: Agreement
    seconds: dict[str, dict[str, float]]  # "torchvision" or "structops" -> part, or "whole" -> seconds


def build(name: str, device: str) -> nn.Module:
    """A detector with random weights from a fixed seed."""
    import torchvision

    torch.manual_seed(0)
    make = getattr(torchvision.models.detection, MODELS[name])
    return make(weights=None, weights_backbone=None).eval().to(device)


def agreement(before: Detections, after: Detections) -> Agreement:
    """Pair the detections, best first, and measure the pairs.

    Neighbours in the list may trade places when their scores are equal but for rounding; that is not a difference.
    """
    total = max(len(before["boxes"]), len(after["boxes"]))
    if 0 in (len(before["boxes"]), len(after["boxes"])):
        return Agreement(total, 0)
    distance = (before["boxes"][:, None] - after["boxes"]).abs().amax(2)  # [N, M] pixels
    distance = distance.masked_fill(before["labels"][:, None] != after["labels"], torch.inf)
    pairs = []
    for i in range(len(distance)):
        j = int(distance[i].argmin())
        if distance[i, j] <= Agreement.LIMITS["boxes"]:
            pairs.append((i, j))
            distance[:, j] = torch.inf
    result = Agreement(total, len(pairs))
    if pairs:
        left, right = torch.tensor(pairs, device=distance.device).T
        for name in result.LIMITS.keys() & before.keys():
            result.differences[name] = (before[name][left] - after[name][right]).abs().max().item()
    return result


@contextlib.contextmanager
def stopwatch(device: str) -> Iterator[dict[str, float]]:
    """Adds up the seconds spent in each of ``FUNCTIONS``, whoever implements it at the moment; gives ``PARTS``."""
    seconds = dict.fromkeys(FUNCTIONS, 0.0)

    def timed(part: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        @functools.wraps(function)
        def run(*args, **kwargs):
            start = now(device)
            result = function(*args, **kwargs)
            seconds[part] += now(device) - start
            return result

        return run

    with contextlib.ExitStack() as stack:
        for part, (place, name) in FUNCTIONS.items():
            module, _, owner = place.partition(":")
            holder = getattr(sys.modules[module], owner) if owner else sys.modules[module]
            function = getattr(holder, name)
            stack.callback(setattr, holder, name, function)
            setattr(holder, name, timed(part, function))
        yield seconds
    seconds["proposals"] -= seconds.pop("RPN head")


def now(device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def _run(model: nn.Module, picture: Tensor, device: str) -> tuple[Detections, dict[str, float]]:
    with torch.inference_mode(), stopwatch(device) as seconds:
        start = now(device)
        detections = model([picture])[0]
        whole = now(device) - start
    return detections, {**seconds, "whole": whole}


def compare(name: str, model: nn.Module, picture: Tensor, device: str, step: Callable[[str], None]) -> Comparison:
    """Run a detector on a picture ``[3, H, W]`` (0 to 1), stock and patched by turns; ``step`` hears of each run."""
    seconds: dict[str, dict[str, float]] = {}
    detections: dict[str, Detections] = {}
    for round_number in range(ROUNDS):
        for who in ("torchvision", "structops"):
            step(f"{name} on {who}, run {round_number + 1} of {ROUNDS}")
            with structops.patch("torchvision") if who == "structops" else contextlib.nullcontext():
                detections[who], taken = _run(model, picture, device)
            best = seconds.setdefault(who, taken)
            seconds[who] = {part: min(best[part], taken[part]) for part in taken}
    return Comparison(name, agreement(detections["torchvision"], detections["structops"]), seconds)
