"""The last stage of a detector, from the head's outputs to detections: public function, fake kernel, checks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from structops import _checks
from structops._backend import Op
from structops._checks import require

# kMaxDetectionLevels and so on in csrc/select_detections/select_detections.h
MAX_LEVELS, MAX_TOPK, MAX_CLASSES = 8, 2048, 2**24

Detections = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


def select_detections(
    class_scores: torch.Tensor,
    box_deltas: torch.Tensor,
    proposals: torch.Tensor | Sequence[torch.Tensor],
    image_sizes: torch.Tensor | Sequence[Sequence[int]],
    *,
    valid: torch.Tensor | None = None,
    centerness: torch.Tensor | None = None,
    activation: str = "softmax",
    background: int | None = 0,
    levels: Sequence[int] | None = None,
    topk_candidates: int | None = None,
    per_class_topk: int | None = None,
    coding: str = "deltas",
    weights: Sequence[float] = (10.0, 10.0, 5.0, 5.0),
    bbox_xform_clip: float = math.log(1000 / 16),
    score_thresh: float = 0.05,
    nms_thresh: float = 0.5,
    min_size: float | None = 1e-2,
    detections_per_img: int = 100,
) -> Detections:
    """From what a detector's head says of proposals or anchors to its detections: scores, boxes, NMS, the best.

    For each image: scores from logits; the (box, class) pairs with a score above the threshold, and of these the best
    of each level or class where that is asked for; their boxes decoded and clipped to the image; non-maximum
    suppression within each class; the best that are left. The defaults are those of a two-stage detector. torchvision's
    others are, in its default setting::

        # RetinaNet: logits [B, A, K] of all levels, one after the other, anchors of each level's size
        activation="sigmoid", background=None, levels=sizes, topk_candidates=1000, weights=(1, 1, 1, 1),
        min_size=None, detections_per_img=300
        # FCOS, in addition: centerness [B, A], coding="distances", score_thresh=0.2, nms_thresh=0.6,
        # detections_per_img=100
        # SSD
        background=0, per_class_topk=400, score_thresh=0.01, nms_thresh=0.45, min_size=None, detections_per_img=200

    Nothing waits for the device, and sizes do not depend on the data, so the whole can be captured in a CUDA graph
    (given tensors: numbers of a list are copied to the GPU, which waits). Not differentiable.

    Args:
        class_scores: logits ``[B, R, C]`` of R boxes an image; float16, bfloat16, float32 or float64. Halves are
            computed with in float32.
        box_deltas: ``[B, R, 4]``, or ``[B, R, 4 * C]`` with deltas of each class side by side; any floating type.
        proposals: ``[B, R, 4]`` (x1, y1, x2, y2) in pixels of the image: what the deltas start from; ``[R, 4]`` where
            all images share their anchors. Or a list of tensors ``[R_i, 4]``, one an image, where ``class_scores`` is
            ``[sum R_i, C]`` and ``box_deltas`` goes with it (no other argument has an R then).
        image_sizes: ``[B, 2]`` (height, width) in pixels, of any integer or floating type; or a list of pairs.
        valid: how many of an image's R rows are boxes, any integer type, ``[B]``. A count beyond R is taken as R, one
            below 0 as 0.
        centerness: logits ``[B, R]`` or ``[B, R, 1]`` of a second factor: a score is then the square root of the
            product of both sigmoids.
        activation: ``"softmax"`` over the classes, or ``"sigmoid"`` of each.
        background: the class that is no detection; ``None``: there is none.
        levels: how many of the R boxes belong to each of at most 8 levels, in order; ``None``: one level of all.
        topk_candidates: at most so many candidates of each level go on, up to 2048; ``None``: all.
        per_class_topk: at most so many of each class, up to 2048; not together with ``topk_candidates``.
        coding: ``"deltas"`` (Girshick et al., "Rich feature hierarchies", 2014, appendix C): dx, dy, dw, dh; or
            ``"distances"`` (Tian et al., "FCOS", 2019): of the left, top, right and bottom side from the centre of the
            proposal, in units of its width and height.
        weights: that deltas are divided by. Distances have none.
        bbox_xform_clip: the largest dw and dh (logarithms of a ratio of sizes).
        score_thresh: a candidate's score is greater.
        nms_thresh: a box is dropped when its intersection over union with a better one of its class is greater.
        min_size: the smallest width and height, in pixels, of a clipped box; ``None``: any, inverted and NaN too.
        detections_per_img: D, the most that an image can have.

    Returns:
        Boxes ``[B, D, 4]`` (x1, y1, x2, y2) in pixels, scores ``[B, D]``, labels ``[B, D]`` (int64; a column of
        ``class_scores``) and counts ``[B]`` (int64). Those of an image by falling score; the rest of its D rows is
        0, 0 and -1. Boxes and scores are float32; float64 where an argument is.

        Equal scores, where the best are chosen and in the end, go by the lower box and then class; with
        ``per_class_topk`` by the lower class and then box, as torchvision lists them. A candidate whose score is NaN is
        dropped. On a CPU results are torchvision's to the bit, except that NMS compares classes and adds no offsets
        to coordinates (see :func:`batched_nms`), and that they do not depend on the number of threads: torch's sigmoid
        rounds the last few elements of each thread's share of a level in another way.

    Raises:
        ValueError: for an ``activation`` or ``coding`` that there is not.
        RuntimeError: for a wrong rank, dtype, device or size, or a limit or threshold out of range.
    """
    op = "select_detections"
    if activation not in ("softmax", "sigmoid"):
        raise ValueError(f'{op}: activation must be "softmax" or "sigmoid", got {activation!r}')
    if coding not in ("deltas", "distances"):
        raise ValueError(f'{op}: coding must be "deltas" or "distances", got {coding!r}')
    for name, tensor in (("class_scores", class_scores), ("box_deltas", box_deltas)):
        _checks.tensor(op, name, tensor)
    for name, optional in (("valid", valid), ("centerness", centerness)):
        if optional is not None:
            _checks.tensor(op, name, optional)
    require(
        isinstance(proposals, torch.Tensor | list | tuple),
        lambda: f"{op}: proposals must be a tensor or a list of tensors, got {type(proposals).__name__}",
    )
    require(
        levels is None or isinstance(levels, list | tuple | torch.Size),
        lambda: f"{op}: levels must be a list of sizes, got {levels}",
    )
    _checks.count_of_results(op, "detections_per_img", detections_per_img)
    for name, limit in (("topk_candidates", topk_candidates), ("per_class_topk", per_class_topk)):
        require(
            limit is None or (isinstance(limit, int | torch.SymInt) and bool(limit > 0)),
            lambda name=name, limit=limit: f"{op}: {name}, where it is given, must be positive, got {limit}",  # type: ignore[misc]
        )
    require(
        background is None or (isinstance(background, int | torch.SymInt) and bool(background >= 0)),
        lambda: f"{op}: background must be a class, 0 or more, got {background}",
    )
    if isinstance(proposals, torch.Tensor):
        boxes = proposals
    else:
        require(valid is None, lambda: f"{op}: valid goes with padded proposals, not with a list")
        class_scores, box_deltas, boxes, valid = _padded(class_scores, box_deltas, proposals)
    image_sizes = _checks.image_sizes(op, "image_sizes", image_sizes, class_scores.device)
    if centerness is not None and centerness.dim() == 3:
        centerness = centerness.squeeze(2)
    return _select_detections(
        class_scores,
        box_deltas,
        boxes,
        image_sizes,
        valid,
        centerness,
        [] if levels is None else list(levels),
        activation == "sigmoid",
        -1 if background is None else background,
        coding == "distances",
        _checks.divisors(op, "weights", weights),
        _checks.number(op, "bbox_xform_clip", bbox_xform_clip),
        _checks.number(op, "score_thresh", score_thresh),
        _checks.number(op, "nms_thresh", nms_thresh),
        None if min_size is None else _checks.number(op, "min_size", min_size),
        topk_candidates or 0,
        per_class_topk or 0,
        detections_per_img,
    )


def _padded(
    class_scores: torch.Tensor, box_deltas: torch.Tensor, proposals: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Rows of all images, one after the other, as ``[B, R, ...]``, and how many each has unless all have R."""
    op = "select_detections"
    require(
        all(isinstance(p, torch.Tensor) and p.dim() == 2 and p.shape[1] == 4 for p in proposals),
        lambda: f"{op}: proposals must be tensors [R, 4] (x1, y1, x2, y2), one an image",
    )
    counts = [p.shape[0] for p in proposals]
    images, rows = len(counts), max(counts, default=0)
    for name, tensor in (("class_scores", class_scores), ("box_deltas", box_deltas)):
        require(
            tensor.dim() == 2 and tensor.shape[0] == sum(counts),
            lambda name=name, tensor=tensor: (  # type: ignore[misc]
                f"{op}: {name} must be [{sum(counts)}, ...], a row for each of the proposals in the list, "
                f"got {list(tensor.shape)}"
            ),
        )
    if images and counts == [rows] * images:
        size = (images, rows, -1) if rows else (images, 0, class_scores.shape[1])
        deltas_size = size if rows else (images, 0, box_deltas.shape[1])
        return class_scores.view(size), box_deltas.view(deltas_size), torch.stack(list(proposals)), None
    if not images:
        empty = class_scores.new_zeros
        return empty(0, 0, class_scores.shape[1]), empty(0, 0, box_deltas.shape[1]), empty(0, 0, 4), None
    return (
        pad_sequence(class_scores.split(counts), batch_first=True),
        pad_sequence(box_deltas.split(counts), batch_first=True),
        pad_sequence(list(proposals), batch_first=True),
        torch.tensor(counts, device=class_scores.device),
    )


def _check(
    class_scores,
    box_deltas,
    proposals,
    image_sizes,
    valid,
    centerness,
    levels,
    sigmoid,
    background,
    distances,
    weights,
    bbox_xform_clip,
    score_thresh,
    nms_thresh,
    min_size,
    topk_candidates,
    per_class_topk,
    detections_per_img,
) -> None:
    op = "select_detections"
    require(
        class_scores.dim() == 3,
        lambda: f"{op}: class_scores must be [B, R, C] (3 dimensions), got {class_scores.dim()} dimensions",
    )
    images, rows, classes = class_scores.shape
    require(
        classes <= MAX_CLASSES, lambda: f"{op}: class_scores must have at most {MAX_CLASSES} classes, got {classes}"
    )
    shapes = {
        "box_deltas": (box_deltas, ((images, rows, 4), (images, rows, 4 * classes)), "[B, R, 4] or [B, R, 4 * C]"),
        "proposals": (proposals, ((images, rows, 4), (rows, 4)), "[B, R, 4] or [R, 4]"),
        "image_sizes": (image_sizes, ((images, 2),), "[B, 2]"),
        "valid": (valid, ((images,),), "[B]"),
        "centerness": (centerness, ((images, rows),), "[B, R]"),
    }
    for name, (tensor, accepted, text) in shapes.items():
        if tensor is None:
            continue
        require(
            _has_one_of(tensor.shape, accepted),
            lambda name=name, tensor=tensor, text=text: (  # type: ignore[misc]
                f"{op}: {name} must be {text} for class_scores [B, R, C], "
                f"got {list(tensor.shape)} for {list(class_scores.shape)}"
            ),
        )
        _checks.same_device(op, name, tensor, "class_scores", class_scores)
    for name, tensor in (("class_scores", class_scores), ("box_deltas", box_deltas), ("proposals", proposals)):
        _checks.floating(op, name, tensor)
    require(
        image_sizes.dtype in (*_checks.FLOATING, *_checks.INTEGER),
        lambda: f"{op}: image_sizes must be of an integer or floating type, got {image_sizes.dtype}",
    )
    if valid is not None:
        require(valid.dtype in _checks.INTEGER, lambda: f"{op}: valid must be an integer tensor, got {valid.dtype}")
    if centerness is not None:
        _checks.floating(op, "centerness", centerness)
        require(sigmoid, lambda: f"{op}: centerness goes with sigmoid scores")
    if levels:
        require(len(levels) <= MAX_LEVELS, lambda: f"{op}: levels must be at most {MAX_LEVELS}, got {len(levels)}")
        require(
            min(levels) >= 0 and sum(levels) == rows,
            lambda: f"{op}: levels must be sizes that add up to R = {rows}, got {list(levels)}",
        )
    require(
        -1 <= background < max(classes, 1),
        lambda: f"{op}: background must be one of the {classes} classes, got {background}",
    )
    require(
        len(weights) == 4 and all(w != 0 for w in weights),
        lambda: f"{op}: weights must be 4 numbers other than 0, got {list(weights)}",
    )
    for name, number in (("bbox_xform_clip", bbox_xform_clip), ("score_thresh", score_thresh), ("min_size", min_size)):
        require(number is None or number == number, lambda name=name: f"{op}: {name} must not be NaN")  # type: ignore[misc]
    require(nms_thresh >= 0, lambda: f"{op}: nms_thresh must be 0 or more, got {nms_thresh}")
    for name, limit in (
        ("topk_candidates", topk_candidates),
        ("per_class_topk", per_class_topk),
        ("detections_per_img", detections_per_img),
    ):
        require(limit >= 0, lambda name=name, limit=limit: f"{op}: {name} must not be negative, got {limit}")  # type: ignore[misc]
        require(
            limit <= MAX_TOPK or name == "detections_per_img",
            lambda name=name, limit=limit: f"{op}: {name} must be at most {MAX_TOPK}, got {limit}",  # type: ignore[misc]
        )
    require(
        not (topk_candidates and per_class_topk),
        lambda: f"{op}: per_class_topk does not go together with topk_candidates",
    )


def _has_one_of(shape: torch.Size, accepted: tuple[tuple[int, ...], ...]) -> bool:
    """Sizes may be symbolic: each comparison becomes an assertion where the other shape has another rank."""
    ranked = [size for size in accepted if len(size) == len(shape)]
    return any(all(a == b for a, b in zip(shape, size, strict=True)) for size in ranked)


def _fake(class_scores, box_deltas, proposals, image_sizes, valid, centerness, *options):
    images, detections = class_scores.shape[0], options[-1]
    wide = any(t is not None and t.dtype == torch.float64 for t in (class_scores, box_deltas, proposals, centerness))
    compute = torch.float64 if wide else torch.float32
    return (
        class_scores.new_empty((images, detections, 4), dtype=compute),
        class_scores.new_empty((images, detections), dtype=compute),
        class_scores.new_empty((images, detections), dtype=torch.int64),
        class_scores.new_empty((images,), dtype=torch.int64),
    )


_select_detections = Op("select_detections", module="select_detections", check=_check, fake=_fake)
