"""The last stage of torchvision's detectors in their default settings, on heads that speak as trained ones do: most of
what they see is nothing, and each object is seen by several of its boxes."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch

from structops import ops
from structops.testing.workloads import Cost, Trial, Workload, generator, torchvision_ops
from structops.testing.workloads.nms import spread_boxes

CLASSES = 91
HEIGHT, WIDTH = 800, 1333
# P3 to P7 of an image of 800 x 1333.
GRIDS = ((100, 167), (50, 84), (25, 42), (13, 21), (7, 11))
IOU_FLOPS = 12

ONE_STAGE: dict[str, Any] = {"activation": "sigmoid", "background": None, "topk_candidates": 1000, "min_size": None}
#: the arguments that make :func:`structops.ops.select_detections` torchvision's detector of that name
SETTINGS: dict[str, dict[str, Any]] = {
    "faster_rcnn": {},
    "retinanet": {**ONE_STAGE, "weights": (1.0, 1.0, 1.0, 1.0), "detections_per_img": 300},
    "fcos": {**ONE_STAGE, "coding": "distances", "score_thresh": 0.2, "nms_thresh": 0.6},
    "ssd": {
        "per_class_topk": 400,
        "score_thresh": 0.01,
        "nms_thresh": 0.45,
        "min_size": None,
        "detections_per_img": 200,
    },
}


@dataclass(frozen=True)
class Head:
    """What a head says of images: logits ``[B, R, C]``, deltas, boxes that they start from, sizes of the images."""

    kind: str
    logits: torch.Tensor
    deltas: torch.Tensor
    priors: torch.Tensor
    sizes: list[tuple[int, int]]
    centerness: torch.Tensor | None = None
    levels: tuple[int, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Those of the public function, sizes where the logits are."""
        found: dict[str, Any] = {"class_scores": self.logits, "box_deltas": self.deltas, "proposals": self.priors}
        found |= {"image_sizes": torch.tensor(self.sizes, device=self.logits.device)}
        found |= {"centerness": self.centerness, "levels": self.levels or None}
        return {**found, **SETTINGS[self.kind], **self.options}


def torchvision_detections(head: Head) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Boxes, scores and labels of each image by torchvision's own ``postprocess_detections``, in default settings."""
    detection = importlib.import_module("torchvision.models.detection")
    utils = importlib.import_module("torchvision.models.detection._utils")
    options = {
        "score_thresh": 0.05,
        "nms_thresh": 0.5,
        "detections_per_img": 100,
        **SETTINGS[head.kind],
        **head.options,
    }
    settings = SimpleNamespace(
        score_thresh=options["score_thresh"],
        nms_thresh=options["nms_thresh"],
        detections_per_img=options["detections_per_img"],
        topk_candidates=options.get("topk_candidates") or options.get("per_class_topk"),
        box_coder=utils.BoxCoder(options.get("weights", (10.0, 10.0, 5.0, 5.0))),
    )
    images = len(head.sizes)
    if head.kind == "faster_rcnn":
        method = detection.roi_heads.RoIHeads.postprocess_detections
        found = method(settings, head.logits.flatten(0, 1), head.deltas.flatten(0, 1), list(head.priors), head.sizes)
        return list(zip(*found, strict=True))
    outputs: dict[str, Any] = {"cls_logits": head.logits, "bbox_regression": head.deltas}
    anchors: list[Any] = [head.priors] * images
    if head.kind == "ssd":
        method = detection.ssd.SSD.postprocess_detections
    else:
        if head.centerness is not None:
            outputs["bbox_ctrness"] = head.centerness[..., None]
            settings.box_coder = utils.BoxLinearCoder(normalize_by_size=True)
        outputs = {name: list(tensor.split(head.levels, 1)) for name, tensor in outputs.items()}
        model = detection.retinanet.RetinaNet if head.kind == "retinanet" else detection.fcos.FCOS
        method, anchors = model.postprocess_detections, [list(head.priors.split(head.levels))] * images
    return [(d["boxes"], d["scores"], d["labels"]) for d in method(settings, outputs, anchors, head.sizes)]


def _objects(logits: torch.Tensor, draw: torch.Generator, share: float, low: float, high: float) -> None:
    """Adds some 30 rows to each of a few objects, in place: of one class a logit from low to high."""
    images, rows, classes = logits.shape
    count = max(int(rows * share), 1)
    for image in range(images):
        at = torch.randperm(rows, generator=draw)[:count]
        label = 1 + torch.arange(count) // 30 % (classes - 1)
        logits[image, at, label] = torch.empty(count).uniform_(low, high, generator=draw)


def faster_rcnn(images: int, draw: torch.Generator, rows: int = 1000) -> Head:
    """1000 proposals an image, deltas of each class; some 1,500 scores above 0.05."""
    logits = torch.randn(images, rows, CLASSES, generator=draw)
    logits[..., 0] += 3
    _objects(logits, draw, 0.5, 2, 7)
    logits[:, : rows // 4] *= 1.6  # proposals that might be several things
    deltas = torch.randn(images, rows, 4 * CLASSES, generator=draw)
    proposals = torch.stack([spread_boxes(rows, draw) for _ in range(images)])
    return Head("faster_rcnn", logits, deltas, proposals, [(HEIGHT, WIDTH - 100 * i) for i in range(images)])


def _dense(kind: str, images: int, draw: torch.Generator, anchors: int, share: float) -> Head:
    levels = tuple(height * width * anchors for height, width in GRIDS)
    rows = sum(levels)
    logits = torch.empty(images, rows, CLASSES).normal_(-6, 0.7, generator=draw)
    _objects(logits, draw, share, -4, 2)
    deltas = 0.5 * torch.randn(images, rows, 4, generator=draw)
    centerness = None
    if kind == "fcos":
        deltas, centerness = deltas.abs(), torch.randn(images, rows, generator=draw)
    priors = spread_boxes(rows, draw)
    return Head(kind, logits, deltas, priors, [(HEIGHT, WIDTH - 7 * i) for i in range(images)], centerness, levels)


def retinanet(images: int, draw: torch.Generator) -> Head:
    """200,700 anchors, 18 million logits an image, of which some 5,000 are above 0.05."""
    return _dense("retinanet", images, draw, 9, 0.03)


def fcos(images: int, draw: torch.Generator) -> Head:
    """22,300 locations; some 3,000 scores above 0.2."""
    return _dense("fcos", images, draw, 1, 0.2)


def ssd(images: int, draw: torch.Generator, rows: int = 8732) -> Head:
    """SSD300: 8732 anchors, some 8,000 scores above 0.01."""
    logits = torch.randn(images, rows, CLASSES, generator=draw)
    logits[..., 0] += 8
    _objects(logits, draw, 0.2, 4, 10)
    logits[:, : rows // 20, 1:] += 3  # anchors that might be several things
    deltas = torch.randn(images, rows, 4, generator=draw)
    priors = spread_boxes(rows, draw) * (300 / WIDTH)
    return Head("ssd", logits, deltas, priors, [(300, 300)] * images)


def on(head: Head, device: torch.device | str) -> Head:
    moved = {name: t.to(device) for name, t in vars(head).items() if isinstance(t, torch.Tensor)}
    return Head(**{**vars(head), **moved})


def make(draw_head: Callable[[int, torch.Generator], Head], images: int, name: str, device: torch.device) -> Trial:
    head = on(draw_head(images, generator(name)), device)
    arguments = head.arguments()

    def run() -> Any:
        return ops.select_detections(**arguments)

    def check(result: Any, peer_result: Any) -> None:
        boxes, scores, labels, counts = result
        assert int(counts.max()) > 0, "a head without detections shows nothing"
        if peer_result is None or device.type != "cpu":  # on a GPU the last bits of exponentials differ
            return
        for image, (box, score, label) in enumerate(peer_result):
            n = int(counts[image])
            for ours, theirs in ((boxes, box), (scores, score), (labels, label)):
                assert torch.equal(ours[image, :n], theirs), f"image {image} differs from torchvision's"

    def cost(result: Any) -> Cost:
        threshold = arguments.get("score_thresh", 0.05)
        scores = head.logits.softmax(-1) if "activation" not in arguments else head.logits.sigmoid()
        candidates = int((scores > threshold).sum())
        found = images * result[1].shape[1]
        # Logits once; of each candidate deltas, prior and score; results.
        moved = 4 * head.logits.numel() + 36 * candidates + 28 * found
        order = candidates * math.log2(max(candidates, 2))
        return Cost(moved, int(head.logits.numel() + order + (IOU_FLOPS + 30) * candidates))

    def peer() -> Any:
        return torchvision_detections(head)

    return Trial(run, peer if torchvision_ops() else None, "torchvision", check, cost)


def _workload(draw_head, images: int, title: str, kind: str = "forward", **rest: Any) -> Workload:
    name = f"{'sweep-' if kind == 'sweep' else ''}{draw_head.__name__}-{images}"
    draw = functools.partial(make, draw_head, images, f"select_detections-{name}")
    return Workload("select_detections", name, title, kind, torch.float32, draw, **rest)


WORKLOADS = (
    _workload(faster_rcnn, 1, "Faster R-CNN, 1000 proposals x 91", quick=True),
    _workload(faster_rcnn, 4, "Faster R-CNN, 4 images"),
    _workload(retinanet, 1, "RetinaNet, 800 x 1333", quick=True),
    _workload(fcos, 1, "FCOS, 800 x 1333", quick=True),
    _workload(ssd, 1, "SSD300, 8732 x 91", quick=True),
    *(
        _workload(faster_rcnn, n, f"{n} images", "sweep", quick=n in (1, 4), series="Faster R-CNN, images", size=n)
        for n in (1, 2, 4, 8, 16)
    ),
)
