"""Intersection over union of rotated boxes: public function, fake kernel and checks. Not differentiable."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require


def box_iou_rotated(boxes1: torch.Tensor, boxes2: torch.Tensor, *, elementwise: bool = False) -> torch.Tensor:
    """Intersection over union of rotated boxes, each with each.

    A positive angle turns a box counter-clockwise as seen on the screen (x to the right, y down): detectron2's boxes,
    torchvision's format ``"cxcywhr"`` and those of :func:`roi_align_rotated`. Computed in float64 relative to one of
    the two boxes, whatever the storage, by integrals along the outline (Green's theorem) instead of sorted corners:
    boxes that are tiny, needle-like, nested, nearly parallel or far from the origin keep their digits. The result is
    the same to the last bit on every backend.

    Args:
        boxes1: ``[N, 5]`` (centre x, centre y, width, height, angle), any unit, and degrees; float16, bfloat16, float32
            or float64. Any angle; the sine of quarter turns is exact.
        boxes2: ``[M, 5]``, likewise.
        elementwise: of each pair of rows instead; then M must be N.

    Returns:
        ``[N, M]``, or ``[N]`` elementwise, float32 (float64 where the boxes are). A box with a side of zero or less has
        no area, and an IoU of 0. A box with a NaN or infinite number (or one beyond 2^200) gives NaN. Boxes that touch
        along sides whose ends are exact have an IoU of exactly 0, equal boxes of exactly 1. No gradient flows.

    Raises:
        RuntimeError: for a wrong rank, dtype or device, or elementwise a different number of boxes.
    """
    return _box_iou_rotated(boxes1, boxes2, elementwise)


def check_boxes(op: str, name: str, boxes: torch.Tensor) -> None:
    require(
        boxes.dim() == 2 and boxes.shape[1] == 5,
        lambda: f"{op}: {name} must be [N, 5] (centre x, centre y, width, height, angle), got {list(boxes.shape)}",
    )
    _checks.floating(op, name, boxes)


def _check(boxes1, boxes2, elementwise) -> None:
    check_boxes("box_iou_rotated", "boxes1", boxes1)
    check_boxes("box_iou_rotated", "boxes2", boxes2)
    _checks.same_device("box_iou_rotated", "boxes2", boxes2, "boxes1", boxes1)
    if elementwise:
        require(
            boxes1.shape[0] == boxes2.shape[0],
            lambda: (
                f"box_iou_rotated: elementwise, boxes2 must have as many boxes as boxes1, "
                f"got {boxes2.shape[0]} for {boxes1.shape[0]}"
            ),
        )


def _fake(boxes1, boxes2, elementwise):
    size = (boxes1.shape[0],) if elementwise else (boxes1.shape[0], boxes2.shape[0])
    result = torch.promote_types(torch.promote_types(boxes1.dtype, boxes2.dtype), torch.float32)
    return boxes1.new_empty(size, dtype=result)


_box_iou_rotated = Op("box_iou_rotated", module="box_iou_rotated", check=_check, fake=_fake)
