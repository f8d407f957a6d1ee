"""Cases of the last stage of detectors: every kind of head, limits, ties, padding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops.ops import select_detections
from structops.testing.cases._draw import INF, NAN, CaseList, boxes
from structops.testing.spec import Arguments, ErrorCase, OpSpec

CASES = CaseList()
WIDTH, HEIGHT = 200, 120

SIGMOID: Arguments = {"activation": "sigmoid", "background": None, "weights": (1, 1, 1, 1), "min_size": None}
RETINANET: Arguments = {**SIGMOID, "topk_candidates": 8, "levels": (24, 12, 4, 0), "score_thresh": 0.3}
FCOS: Arguments = {**RETINANET, "coding": "distances", "nms_thresh": 0.6, "score_thresh": 0.4}
SSD: Arguments = {"per_class_topk": 6, "score_thresh": 0.01, "nms_thresh": 0.45, "min_size": None}


def head(
    g: torch.Generator,
    images: int,
    rows: int,
    classes: int,
    *,
    by_class: bool = True,
    shared: bool = False,
    **rest: Any,
) -> Arguments:
    """A head's outputs: boxes in groups that overlap, logits that leave some scores on either side of 0.05."""
    centres = boxes(g, max(rows // 4, 1), WIDTH, HEIGHT, smallest=10, largest=80)
    size = (rows, 4) if shared else (images, rows, 4)
    group = torch.randint(len(centres), size[:-1], generator=g)
    deltas = torch.randn(images, rows, 4 * classes if by_class else 4, generator=g, dtype=torch.float64)
    sizes = torch.tensor([[HEIGHT, WIDTH], [HEIGHT - 31, WIDTH - 50], [64, 64]])
    return {
        "class_scores": 2 * torch.randn(images, rows, classes, generator=g, dtype=torch.float64),
        "box_deltas": deltas,
        "proposals": centres[group] + torch.randn(size, generator=g, dtype=torch.float64),
        "image_sizes": sizes[torch.arange(images) % 3],
        "detections_per_img": 12,
        **rest,
    }


def dense_head(g: torch.Generator, images: int, rows: int, classes: int, **rest: Any) -> Arguments:
    """One box an anchor, anchors shared by all images; deltas small, as a trained head's."""
    found = head(g, images, rows, classes, by_class=False, shared=True, **rest)
    if rest.get("coding") == "distances":
        found["box_deltas"] = found["box_deltas"].abs()
        found["centerness"] = torch.randn(images, rows, generator=g, dtype=torch.float64)
    else:
        found["box_deltas"] = found["box_deltas"] * 0.3
    return found


# Each kind of head.

CASES.add("two-stage", "quick", lambda g: head(g, 1, 10, 3, detections_per_img=5))
CASES.add("two-stage-padded", "quick", lambda g: head(g, 3, 40, 5, valid=torch.tensor([40, 17, 0])))
CASES.add("retinanet", "quick", lambda g: dense_head(g, 2, 40, 3, **RETINANET))
CASES.add("fcos", "quick", lambda g: dense_head(g, 2, 40, 3, **FCOS))
CASES.add("ssd", "quick", lambda g: dense_head(g, 2, 40, 4, **SSD))
CASES.add("one-box-for-all-classes", "", lambda g: head(g, 2, 30, 4, by_class=False))
CASES.add("many-classes", "", lambda g: head(g, 1, 30, 91))
CASES.add("sigmoid-without-limits", "", lambda g: dense_head(g, 2, 50, 4, **SIGMOID))
CASES.add("sigmoid-box-for-each-class", "", lambda g: head(g, 1, 40, 3, **{**RETINANET, "weights": (10, 10, 5, 5)}))
CASES.add("one-level", "", lambda g: dense_head(g, 1, 40, 3, **{**RETINANET, "levels": None}))
CASES.add("background-last", "", lambda g: head(g, 1, 30, 4, background=3))
CASES.add("no-background", "", lambda g: head(g, 1, 30, 4, background=None, score_thresh=0.2))


@CASES.add("list-of-proposals")
def _(g):
    found = head(g, 1, 42, 4)
    rows = {name: found[name][0] for name in ("class_scores", "box_deltas")}
    proposals = list(found["proposals"][0].split([25, 0, 17]))
    return {**found, **rows, "proposals": proposals, "image_sizes": [(HEIGHT, WIDTH), (50, 60), (77, 99)]}


@CASES.add("valid-out-of-range")
def _(g):
    counts = torch.tensor([-3, 999, 7], dtype=torch.int32)
    return head(g, 3, 24, 3, valid=counts, image_sizes=torch.tensor([[50.5, 99.25]] * 3))


@CASES.add("valid-of-a-type-that-cannot-hold-the-rows")
def _(g):
    return head(g, 2, 130, 2, valid=torch.tensor([127, -128], dtype=torch.int8))


# Limits and thresholds.

CASES.add("threshold=0", "", lambda g: head(g, 1, 20, 3, score_thresh=0.0, detections_per_img=100))
CASES.add("threshold=-1", "", lambda g: dense_head(g, 1, 24, 3, **{**SIGMOID, "score_thresh": -1.0}))
CASES.add("threshold=1", "", lambda g: head(g, 1, 20, 3, score_thresh=1.0))
CASES.add("iou=0", "", lambda g: head(g, 1, 30, 4, nms_thresh=0.0, detections_per_img=100))
CASES.add("iou-beyond-1", "", lambda g: head(g, 1, 30, 4, nms_thresh=1.5, detections_per_img=9))
CASES.add("min_size=20", "", lambda g: head(g, 1, 30, 4, min_size=20.0))

# Ties: the lower box and class, or class and box.


def _equal(found: Arguments, value: float = 0.0) -> Arguments:
    return {**found, "class_scores": torch.full_like(found["class_scores"], value)}


CASES.add("equal-scores", "", lambda g: _equal(head(g, 2, 20, 3)))
CASES.add("equal-scores-by-level", "", lambda g: _equal(dense_head(g, 2, 40, 3, **RETINANET)))
CASES.add("equal-scores-by-class", "", lambda g: _equal(dense_head(g, 2, 40, 4, **SSD)))


@CASES.add("different-logits-of-one-score")  # all 1 in single precision
def _(g):
    found = dense_head(g, 1, 40, 3, **RETINANET)
    return {**found, "class_scores": 30 + torch.rand(1, 40, 3, generator=g, dtype=torch.float64)}


# Empty.

CASES.add("no-images", "empty", lambda g: head(g, 0, 10, 3))
CASES.add("no-rows", "empty quick", lambda g: head(g, 2, 0, 3, by_class=False))
CASES.add("no-classes", "empty", lambda g: head(g, 2, 10, 0, by_class=False, background=None))
CASES.add("no-detections-wanted", "empty", lambda g: head(g, 2, 10, 3, detections_per_img=0))

# Hostile.


def _hostile(found: Arguments, g: torch.Generator, *names: str) -> Arguments:
    values = torch.tensor([NAN, INF, -INF, 1e30, -1e30, 1e-30, 0.0, 300.0], dtype=torch.float64)

    def change(x: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.rand(x.shape, generator=g) < 0.1, values[torch.randint(8, x.shape, generator=g)], x)

    return {**found, **{name: change(found[name]) for name in names}}


CASES.add("hostile-logits", "hostile quick", lambda g: _hostile(head(g, 2, 30, 4), g, "class_scores"))
CASES.add("hostile-boxes", "hostile", lambda g: _hostile(head(g, 2, 30, 4), g, "box_deltas", "proposals"))
CASES.add(
    "hostile-dense",
    "hostile",
    lambda g: _hostile(dense_head(g, 2, 40, 3, **RETINANET), g, "class_scores", "box_deltas", "proposals"),
)
CASES.add(
    "hostile-distances",
    "hostile",
    lambda g: _hostile(dense_head(g, 2, 40, 3, **FCOS), g, "class_scores", "box_deltas", "centerness"),
)

CASES.add("two-stage-300x91", "large", lambda g: head(g, 1, 300, 91, detections_per_img=100))
CASES.add("ssd-1000x9", "large", lambda g: dense_head(g, 1, 1000, 9, **{**SSD, "per_class_topk": 100}))


# Arguments that must be refused.


def _refused(**changes: object) -> Callable[[], Arguments]:
    return lambda: {**head(torch.Generator().manual_seed(0), 2, 5, 3), **changes}


_ERRORS: tuple[tuple[str, dict[str, Any], str], ...] = (
    ("scores-rank", {"class_scores": torch.rand(5, 3)}, r"class_scores must be \[B, R, C\]"),
    ("scores-integer", {"class_scores": torch.ones(2, 5, 3, dtype=torch.int64)}, r"class_scores must be float16"),
    ("classes-too-many", {"class_scores": torch.empty(0, 5, 2**24 + 1)}, r"class_scores must have at most 16777216"),
    ("deltas-shape", {"box_deltas": torch.rand(2, 5, 8)}, r"box_deltas must be \[B, R, 4\] or \[B, R, 4 \* C\]"),
    ("deltas-device", {"box_deltas": torch.rand(2, 5, 4, device="meta")}, r"box_deltas must be on the same device"),
    ("proposals-shape", {"proposals": torch.rand(2, 4, 4)}, r"proposals must be \[B, R, 4\] or \[R, 4\]"),
    ("proposals-integer", {"proposals": torch.ones(5, 4, dtype=torch.int32)}, r"proposals must be float16"),
    ("proposals-list", {"proposals": [torch.rand(5, 5)]}, r"proposals must be tensors \[R, 4\]"),
    ("rows-of-list", {"proposals": [torch.rand(5, 4)], "class_scores": torch.rand(4, 3)}, r"class_scores must be \[5,"),
    ("image_sizes-shape", {"image_sizes": torch.ones(1, 2)}, r"image_sizes must be \[B, 2\]"),
    ("image_sizes-bool", {"image_sizes": torch.ones(2, 2, dtype=torch.bool)}, r"image_sizes must be of an integer or"),
    ("valid-shape", {"valid": torch.ones(3, dtype=torch.int64)}, r"valid must be \[B\]"),
    ("valid-float", {"valid": torch.ones(2)}, r"valid must be an integer tensor"),
    ("centerness-shape", {"centerness": torch.rand(2, 4)}, r"centerness must be \[B, R\]"),
    ("centerness-softmax", {"centerness": torch.rand(2, 5)}, r"centerness goes with sigmoid"),
    ("levels-sum", {"levels": (3, 3)}, r"levels must be sizes that add up to R"),
    ("levels-negative", {"levels": (6, -1)}, r"levels must be sizes that add up to R"),
    ("levels-nine", {"levels": (5, 0, 0, 0, 0, 0, 0, 0, 0)}, r"levels must be at most 8"),
    ("topk-beyond-2048", {"topk_candidates": 2049}, r"topk_candidates must be at most 2048"),
    ("background-high", {"background": 3}, r"background must be one of the 3 classes"),
    ("background-negative", {"background": -1}, r"background must be a class, 0 or more"),
    ("weights-three", {"weights": (1, 1, 1)}, r"weights must be 4 finite numbers"),
    ("weights-zero", {"weights": (1, 1, 0, 1)}, r"weights must be 4 finite numbers other than 0"),
    ("weights-nan", {"weights": (1, 1, NAN, 1)}, r"weights must be 4 finite numbers other than 0"),
    ("clip-nan", {"bbox_xform_clip": NAN}, r"bbox_xform_clip must be a number, got NaN"),
    ("score-threshold-nan", {"score_thresh": NAN}, r"score_thresh must be a number, got NaN"),
    ("min-size-nan", {"min_size": NAN}, r"min_size must be a number, got NaN"),
    ("image_sizes-nan", {"image_sizes": [(5, NAN), (5, 5)]}, r"image_sizes must be numbers of 0 or more, got nan"),
    ("scores-list", {"class_scores": [0.5]}, r"class_scores must be a tensor, got list"),
    ("proposals-none", {"proposals": None}, r"proposals must be a tensor or a list of tensors, got NoneType"),
    ("levels-number", {"levels": 5}, r"levels must be a list of sizes, got 5"),
    ("topk-fraction", {"topk_candidates": 1.5}, r"topk_candidates, where it is given, must be positive, got 1.5"),
    ("detections-absurd", {"detections_per_img": 2**40}, r"detections_per_img must be a whole number from 0 to 2147"),
    ("iou-negative", {"nms_thresh": -0.5}, r"nms_thresh must be 0 or more"),
    ("topk-zero", {"topk_candidates": 0}, r"topk_candidates, where it is given, must be positive"),
    ("both-topk", {"topk_candidates": 4, "per_class_topk": 4}, r"per_class_topk does not go together with"),
    ("detections-negative", {"detections_per_img": -1}, r"detections_per_img must be a whole number from 0"),
)


SPECS = (
    OpSpec(
        name="select_detections",
        function=select_detections,
        dispatcher_ops=("select_detections",),
        cases=tuple(CASES),
        errors=tuple(ErrorCase(name, _refused(**changes), match) for name, changes, match in _ERRORS),
        data=("class_scores", "box_deltas"),
        compare="exact",
        own_device=True,
        widens=True,
    ),
)
