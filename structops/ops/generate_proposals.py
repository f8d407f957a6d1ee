"""The region proposal stage, from a head's maps to proposals: public function, fake kernel and checks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require

NAME = "generate_proposals"
MAX_STRIDE = 2**31
MAX_LEVELS = 8  # kMaxProposalLevels in csrc/generate_proposals/generate_proposals.h


def generate_proposals(
    objectness: Sequence[torch.Tensor],
    deltas: Sequence[torch.Tensor],
    image_sizes: torch.Tensor | Sequence[Sequence[int]],
    anchors: Sequence[torch.Tensor] | None,
    *,
    strides: Sequence[int | Sequence[int]] | None = None,
    pre_nms_top_n: int = 1000,
    post_nms_top_n: int = 1000,
    nms_thresh: float = 0.7,
    min_size: float = 1e-3,
    score_thresh: float = 0.0,
    weights: Sequence[float] = (1.0, 1.0, 1.0, 1.0),
    bbox_xform_clip: float = math.log(1000 / 16),
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Region proposals from an RPN head's maps, with results of a fixed shape (Ren et al., "Faster R-CNN", 2015).

    Of each level and image the best ``pre_nms_top_n`` scores, decoded, clipped to the image, without those that are
    small or score low; non-maximum suppression within each level; the best ``post_nms_top_n`` of all levels. This is
    torchvision's ``RegionProposalNetwork`` after its head, to the bit on a CPU, except that NMS compares levels as
    integers where torchvision, below 1000 boxes, adds offsets to their coordinates. Only the boxes of the best scores
    are decoded, and with ``strides`` no anchors are made: 4,819 of 268,569 for an image of 800 x 1333.

    Nothing waits for the device, and sizes do not depend on the data: it can be captured in a CUDA graph, and the
    result goes into :func:`multiscale_roi_align` as it is, with ``valid=counts``. Not differentiable: no gradient
    flows through proposals.

    Args:
        objectness: 1 to 8 maps of logits ``[B, A, Hl, Wl]``; float16, bfloat16, float32 or float64; contiguous,
            channels_last or of any strides.
        deltas: for each a map ``[B, 4A, Hl, Wl]`` of the same type: (dx, dy, dw, dh) of each anchor, side by side.
        image_sizes: (height, width) of each image in pixels, ``[B, 2]`` of any integer or floating type, or pairs.
        anchors: for each level ``[Hl * Wl * A, 4]`` (x1, y1, x2, y2) in pixels of the image, in the order
            (y, x, anchor), any floating type; with ``strides`` those of the cell (0, 0), ``[A, 4]``. ``None``: the
            deltas are not deltas but boxes.
        strides: distance of a level's cells, in whole pixels of the image: a number, or (y, x).
        pre_nms_top_n: how many of each level and image go into NMS; 0 or more. A GPU takes more than 2048 with a sort
            of the whole level.
        post_nms_top_n: how many of each image are returned; 0 or more.
        nms_thresh: a box is dropped when its intersection over union with a better one of its level is greater.
        min_size: least width and height, in pixels, after clipping.
        score_thresh: least score, which is the sigmoid of the logit.
        weights: that deltas are divided by.
        bbox_xform_clip: most that dw and dh may be, after that.

    Returns:
        ``(proposals, scores, counts)``: ``[B, post_nms_top_n, 4]`` boxes (x1, y1, x2, y2) by falling score (ties: the
        finer level, then the higher logit, then the lower index ``(y * Wl + x) * A + a``) and ``[B, post_nms_top_n]``
        scores, zero after the first ``counts [B]`` (int64). float64 for float64 maps, else float32: proposals of an
        image of 1333 pixels need more digits than a half has, and everything is computed in float32.

        A NaN logit is the last of its level (torch.topk has it first); a box that is NaN is dropped.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, a negative number of proposals or threshold.
    """
    for name, maps in (("objectness", objectness), ("deltas", deltas), ("anchors", anchors)):
        require(
            (maps is None and name == "anchors")
            or (isinstance(maps, list | tuple) and all(isinstance(m, torch.Tensor) for m in maps)),
            lambda name=name: f"{NAME}: {name} must be a list of tensors, one per level",  # type: ignore[misc]
        )
    require(len(objectness) > 0, lambda: f"{NAME}: objectness must be 1 to {MAX_LEVELS} maps, got 0")
    steps = _steps(strides)
    _checks.count_of_results(NAME, "post_nms_top_n", post_nms_top_n)
    thresholds = [
        _checks.number(NAME, name, value)
        for name, value in (("nms_thresh", nms_thresh), ("min_size", min_size), ("score_thresh", score_thresh))
    ]
    image_sizes = _checks.image_sizes(NAME, "image_sizes", image_sizes, objectness[0].device)
    with torch.no_grad():
        return _generate_proposals(
            list(objectness),
            list(deltas),
            image_sizes,
            [] if anchors is None else list(anchors),
            steps,
            pre_nms_top_n,
            post_nms_top_n,
            *thresholds,
            _checks.divisors(NAME, "weights", weights),
            _checks.number(NAME, "bbox_xform_clip", bbox_xform_clip),
        )


def _steps(strides: Sequence[int | Sequence[int]] | None) -> list[int]:
    """(y, x) of each level, one after the other."""
    if strides is None:
        return []

    def message() -> str:
        return f"{NAME}: strides must be a number below 2^31 or a pair (y, x) for each level, got {strides}"

    require(isinstance(strides, list | tuple), message)
    whole = (int, torch.SymInt)
    pairs: list[Any] = [(pair, pair) if isinstance(pair, whole) else pair for pair in strides]
    require(all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs), message)
    steps = [n for pair in pairs for n in pair]
    require(all(isinstance(n, whole) for n in steps), message)
    for n in steps:
        require(n >= 0, message)
        require(n < MAX_STRIDE, message)
    return steps


def _check_level(i, score, delta, prior, first, grid) -> None:
    require(
        score.dim() == 4 and score.shape[0] == first.shape[0],
        lambda: (
            f"{NAME}: objectness[{i}] must be [B, A, H, W] with the B of objectness[0], "
            f"got {list(score.shape)} beside {list(first.shape)}"
        ),
    )
    images, cell, height, width = score.shape
    require(
        delta.dim() == 4 and all(a == b for a, b in zip(delta.shape, (images, 4 * cell, height, width), strict=True)),
        lambda: (
            f"{NAME}: deltas[{i}] must be [B, 4A, H, W] for objectness[{i}] [B, A, H, W], "
            f"got {list(delta.shape)} for {list(score.shape)}"
        ),
    )
    for name, tensor in (("objectness", score), ("deltas", delta)):
        require(
            tensor.dtype == first.dtype and tensor.device == first.device,
            lambda name=name, tensor=tensor: (  # type: ignore[misc]
                f"{NAME}: {name}[{i}] must have the dtype and device of objectness[0], "
                f"got {tensor.dtype} on {tensor.device} beside {first.dtype} on {first.device}"
            ),
        )
    require(
        cell * height * width < 2**30,
        lambda: f"{NAME}: objectness[{i}] must have fewer than 2^30 scores an image, got {cell * height * width}",
    )
    if prior is None:
        return
    rows = cell if grid else height * width * cell
    require(
        prior.dim() == 2 and prior.shape[0] == rows and prior.shape[1] == 4,
        lambda: (
            f"{NAME}: anchors[{i}] must be [{'A' if grid else 'H * W * A'}, 4] = [{rows}, 4] (x1, y1, x2, y2), "
            f"got {list(prior.shape)}"
        ),
    )
    _checks.floating(NAME, f"anchors[{i}]", prior)
    _checks.same_device(NAME, f"anchors[{i}]", prior, "objectness", first)


def _check(
    objectness,
    deltas,
    image_sizes,
    anchors,
    strides,
    pre_nms_top_n,
    post_nms_top_n,
    nms_thresh,
    min_size,
    score_thresh,
    weights,
    bbox_xform_clip,
) -> None:
    levels = len(objectness)
    require(0 < levels <= MAX_LEVELS, lambda: f"{NAME}: objectness must be 1 to {MAX_LEVELS} maps, got {levels}")
    require(
        len(deltas) == levels,
        lambda: f"{NAME}: deltas must be one map for each of objectness, got {len(deltas)} for {levels}",
    )
    require(
        len(anchors) in (0, levels),
        lambda: f"{NAME}: anchors must be one tensor for each level, got {len(anchors)} for {levels}",
    )
    require(
        not strides or (len(strides) == 2 * levels and len(anchors) > 0),
        lambda: (
            f"{NAME}: strides must be a pair (y, x) for each level of anchors, "
            f"got {len(strides)} numbers for {levels} levels"
        ),
    )
    first = objectness[0]
    _checks.floating(NAME, "objectness", first)
    for i, (score, delta) in enumerate(zip(objectness, deltas, strict=True)):
        _check_level(i, score, delta, anchors[i] if anchors else None, first, bool(strides))
    require(
        image_sizes.dim() == 2 and image_sizes.shape[0] == first.shape[0] and image_sizes.shape[1] == 2,
        lambda: (
            f"{NAME}: image_sizes must be [B, 2] (height, width), a row for each of {first.shape[0]} images, "
            f"got {list(image_sizes.shape)}"
        ),
    )
    require(
        image_sizes.dtype in (*_checks.FLOATING, *_checks.INTEGER),
        lambda: f"{NAME}: image_sizes must be of an integer or floating type, got {image_sizes.dtype}",
    )
    _checks.same_device(NAME, "image_sizes", image_sizes, "objectness", first)
    require(pre_nms_top_n >= 0, lambda: f"{NAME}: pre_nms_top_n must not be negative, got {pre_nms_top_n}")
    require(post_nms_top_n >= 0, lambda: f"{NAME}: post_nms_top_n must not be negative, got {post_nms_top_n}")
    require(nms_thresh >= 0, lambda: f"{NAME}: nms_thresh must be 0 or more, got {nms_thresh}")
    require(
        len(weights) == 4 and all(w != 0 and math.isfinite(w) for w in weights),
        lambda: f"{NAME}: weights must be 4 finite numbers other than 0, got {list(weights)}",
    )


def _fake(objectness, deltas, image_sizes, anchors, strides, pre_nms_top_n, post_nms_top_n, *options):
    first = objectness[0]
    images, compute = first.shape[0], torch.promote_types(first.dtype, torch.float32)
    return (
        first.new_empty((images, post_nms_top_n, 4), dtype=compute),
        first.new_empty((images, post_nms_top_n), dtype=compute),
        first.new_empty((images,), dtype=torch.int64),
    )


_generate_proposals = Op("generate_proposals", module="generate_proposals", check=_check, fake=_fake)
