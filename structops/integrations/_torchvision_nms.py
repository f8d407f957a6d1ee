"""torchvision's batched NMS: Python code above its NMS, which adds an offset to the coordinates of each class."""

from __future__ import annotations

import torch
from torchvision.ops import boxes as torchvision_boxes

from structops._backend import OPS
from structops.integrations._torchvision_devices import patched
from structops.integrations._torchvision_kernels import suppressible

_torchvision_batched_nms = torchvision_boxes.batched_nms  # captured before the first patch


def batched_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor,
    iou_threshold: float,
) -> torch.Tensor:
    """``torchvision.ops.batched_nms``, exact: classes never interact, whatever the coordinates' size and sign.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2).
        scores: ``[N]``.
        idxs: ``[N]`` class of each box, any dtype.
        iou_threshold: boxes that overlap a better one of their class by more are dropped.

    Returns:
        int64 indices of the kept boxes by falling score, ties by the lower index.
    """
    # Scripted and traced models are often saved: they get torchvision's own code, and the patched nms under it.
    if torch.jit.is_scripting():
        return _torchvision_batched_nms(boxes, scores, idxs, iou_threshold)
    else:
        if torch.jit.is_tracing() or not _suppressible_by_class(boxes, scores, idxs, iou_threshold):
            return _torchvision_batched_nms(boxes, scores, idxs, iou_threshold)
        return OPS["batched_nms"](boxes, scores, _integer_classes(idxs.to(boxes.device)), iou_threshold)


def _suppressible_by_class(boxes, scores, idxs, iou_threshold) -> bool:
    return (
        patched(boxes.device)
        and suppressible(boxes, scores, iou_threshold)
        # Autocast makes both float32 before torchvision compares their types.
        and (boxes.dtype == scores.dtype or torch.is_autocast_enabled(boxes.device.type))
        and idxs.dim() == 1
        and idxs.shape[0] == boxes.shape[0]
        and not idxs.is_complex()
    )


def _integer_classes(idxs: torch.Tensor) -> torch.Tensor:
    """``[N]`` integers, equal where the classes are equal."""
    if idxs.is_floating_point():
        # Every float16, bfloat16 and float32 is a double, and equal doubles have equal bits but for the two zeros.
        idxs = idxs.double()
        return torch.where(idxs == 0, 0.0, idxs).view(torch.int64)
    return idxs.to(torch.int64)


FUNCTIONS = ((_torchvision_batched_nms, batched_nms),)
