"""The region proposal stage of a Faster R-CNN with a pyramid, after its head, on heads that speak as trained ones do:
most places see nothing, and each object is seen by the anchors of its size around its centre."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import torch

from structops import ops
from structops.testing.cases.generate_proposals import cells
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.nms import IOU_FLOPS, spread_boxes

# P2 to P6 of an image of 800 x 1333, which is padded to 800 x 1344: 268,569 anchors.
HEIGHT, WIDTH = 800, 1333
STRIDES = (4, 8, 16, 32, 64)
GRIDS = tuple((-(-800 // stride), 1344 // stride) for stride in STRIDES)
CELL = 3
OBJECTS = 40
# Decoding a box and clipping it: 4 divisions, 2 exponentials, 18 sums and products, 8 comparisons.
DECODE_FLOPS = 32


def maps(images: int, draw: torch.Generator) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Logits ``[B, 3, H, W]`` and deltas ``[B, 12, H, W]`` of each level."""
    logits = [torch.empty(images, CELL, h, w).normal_(-6, 1, generator=draw) for h, w in GRIDS]
    deltas = [torch.empty(images, 4 * CELL, h, w).normal_(0, 0.25, generator=draw) for h, w in GRIDS]
    for image in range(images):
        for x1, y1, x2, y2 in spread_boxes(OBJECTS, draw).tolist():
            for score, stride, (h, w) in zip(logits, STRIDES, GRIDS, strict=True):
                x, y = (torch.arange(n) * stride for n in (w, h))
                near = ((x - (x1 + x2) / 2) / (x2 - x1)) ** 2 + ((y[:, None] - (y1 + y2) / 2) / (y2 - y1)) ** 2
                fits = abs(torch.tensor(8 * stride / ((x2 - x1) * (y2 - y1)) ** 0.5).log2().item())
                score[image] += 12 * torch.exp(-12 * near) / (1 + fits * fits)
    return [distinct(score) for score in logits], deltas


def distinct(values: torch.Tensor) -> torch.Tensor:
    """The same, raised by a few units in the last place where two are equal: the peer promises no order of ties."""
    order = values.flatten().argsort()
    bits = values.flatten()[order].view(torch.int32).long()
    keys = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)  # integers that rise with floats
    place = torch.arange(len(keys))
    keys = (keys - place).cummax(0).values + place
    raised = torch.where(keys < 0, keys ^ 0x7FFFFFFF, keys).int().view(torch.float32)
    return torch.empty_like(raised).scatter_(0, order, raised).view(values.shape)


def torchvision_rpn(logits: list[torch.Tensor], deltas: list[torch.Tensor], sizes: list[tuple[int, int]]):
    """torchvision's ``RegionProposalNetwork`` from a head's outputs: what its forward does after its head."""
    rpn = importlib.import_module("torchvision.models.detection.rpn")
    lists = importlib.import_module("torchvision.models.detection.image_list")
    images, device = len(sizes), logits[0].device

    class Head(torch.nn.Module):
        def forward(self, features):
            return logits, deltas

    top_n = {"training": 2000, "testing": 1000}
    anchors = rpn.AnchorGenerator(tuple((8 * stride,) for stride in STRIDES), ((0.5, 1.0, 2.0),) * len(STRIDES))
    network = rpn.RegionProposalNetwork(anchors, Head(), 0.7, 0.3, 256, 0.5, top_n, top_n, 0.7).eval()
    # Only the sizes and the type of the images and features are looked at.
    batch = lists.ImageList(torch.empty(images, 3, 800, 1344, device=device), sizes)
    features = {str(i): m[:, :1] for i, m in enumerate(logits)}

    def run() -> list[torch.Tensor]:
        with torch.no_grad():
            return network(batch, features)[0]

    return run


def same_but_for_ties(boxes: torch.Tensor, peer_boxes: torch.Tensor, scores: torch.Tensor) -> bool:
    """Whether two lists of boxes by falling score hold the same, where those of equal ``scores`` have no order: the
    last sort of torchvision is not a stable one. The last of equal scores may be cut off differently."""
    if boxes.shape != peer_boxes.shape:
        return False
    place = torch.cat([scores.new_zeros(1), (scores[1:] != scores[:-1]).to(scores.dtype).cumsum(0)])
    whole = place < place[-1]
    rows = [torch.cat([place[:, None], b], 1)[whole].unique(dim=0) for b in (boxes, peer_boxes)]
    return torch.equal(*rows)


def make(images: int, dtype: torch.dtype, channels_last: bool, name: str, device: torch.device) -> Trial:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    logits, deltas = (
        [m.to(device, dtype).contiguous(memory_format=layout) for m in of_head]
        for of_head in maps(images, generator(name))
    )
    sizes = [(HEIGHT, WIDTH - 20 * image) for image in range(images)]
    shapes = torch.tensor(sizes, device=device)
    anchors = [cells(CELL, 8.0 * stride).float().to(device) for stride in STRIDES]
    # As torchvision has them: the padded image's size over the map's, rounded down.
    strides = [(800 // h, 1344 // w) for h, w in GRIDS]

    def run() -> Any:
        return ops.generate_proposals(logits, deltas, shapes, anchors, strides=strides)

    peer = (
        torchvision_rpn([m.float() for m in logits], [m.float() for m in deltas], sizes) if torchvision_ops() else None
    )

    def check(result: Any, peer_result: Any) -> None:
        boxes, scores, counts = result
        for image in range(images):
            count = int(counts[image])
            assert 0 < count <= 1000, f"{count} proposals"
            falling = scores[image, :count]
            assert bool((falling[1:] <= falling[:-1]).all()), "scores do not fall"
            # Halves have ties, which torchvision leaves open; on a GPU its arithmetic is another, .
            if peer_result is not None and dtype == torch.float32 and device.type == "cpu":
                same = same_but_for_ties(boxes[image, :count], peer_result[image], falling)
                assert same, "the proposals are not torchvision's"

    def cost(result: Any) -> Cost:
        scores = sum(m.numel() for m in logits)
        slots = sum(min(1000, m[0].numel()) for m in logits) * images
        read = scores * dtype.itemsize + 4 * slots * dtype.itemsize
        kept = int(result[2].sum())
        return Cost(read + 20 * 1000 * images, scores + DECODE_FLOPS * slots + IOU_FLOPS * (slots - kept))

    return Trial(run, peer, "torchvision" if dtype == torch.float32 else "torchvision, fp32", check, cost)


def _workload(
    images: int = 1, dtype: torch.dtype = torch.float32, channels_last: bool = False, kind: str = "forward", **rest: Any
) -> Workload:
    half = "" if dtype == torch.float32 else f"-{str(dtype)[6:]}"
    layout = "-channels_last" if channels_last else ""
    name = f"{'sweep-' if kind == 'sweep' else ''}{images}x800x1333{half}{layout}"
    sweep = "sweep, " if kind == "sweep" else ""
    title = f"{sweep}{images} x 800 x 1333{half.replace('-', ' ')}{layout.replace('-', ', ')}"
    draw = functools.partial(make, images, dtype, channels_last, f"generate_proposals-{name}")
    return Workload("generate_proposals", name, title, kind, dtype, draw, **rest)


WORKLOADS = (
    _workload(quick=True),
    _workload(channels_last=True, quick=True),
    _workload(dtype=torch.bfloat16),
    _workload(images=4),
    *(
        _workload(images=images, kind="sweep", quick=images in (1, 4), series="images", size=images)
        for images in (1, 2, 4, 8)
    ),
)
