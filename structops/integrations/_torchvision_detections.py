"""The last stage of torchvision's detectors: scores, boxes and NMS of all images in a few kernels.

Methods of RoIHeads, RetinaNet, FCOS and SSD, with torchvision's results, unpadded: how many there are of each image is
the one thing that is waited for. Whatever they do not take is left to torchvision's own, and with it every scripted,
traced and compiled model, gradients, and half precision, in which torchvision rounds every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection._utils import BoxCoder, BoxLinearCoder
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.ssd import SSD

from structops import ops
from structops.integrations._torchvision_devices import patched
from structops.integrations._torchvision_methods import Method, Own
from structops.ops.select_detections import MAX_LEVELS, MAX_TOPK

Detection = dict[str, Tensor]

_DELTAS, _DISTANCES = Own(BoxCoder, "decode", "decode_single"), Own(BoxLinearCoder, "decode")


def _takes(model: Any, coder: Own, tensors: Sequence[Any], image_shapes: Sequence[Any]) -> bool:
    """Whether structops gives what torchvision would."""
    first = tensors[0]
    return (
        not torch.jit.is_tracing()
        and not torch.compiler.is_compiling()
        and all(isinstance(t, Tensor) for t in tensors)
        and patched(first.device)
        and first.dtype in (torch.float32, torch.float64)
        and all(t.dtype == first.dtype and t.device == first.device for t in tensors)
        and not (torch.is_grad_enabled() and any(t.requires_grad for t in tensors))
        and coder(model.box_coder)
        and (coder is not _DELTAS or (len(model.box_coder.weights) == 4 and all(model.box_coder.weights)))
        and (coder is not _DISTANCES or model.box_coder.normalize_by_size)
        and model.score_thresh == model.score_thresh
        and model.nms_thresh >= 0
        and model.detections_per_img >= 0
        and all(len(shape) == 2 for shape in image_shapes)
    )


def _selected(model: Any, *tensors: Any, **options: Any) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Boxes, scores and labels of each image, by the model's settings."""
    if isinstance(model.box_coder, BoxCoder):
        options |= {"weights": model.box_coder.weights, "bbox_xform_clip": model.box_coder.bbox_xform_clip}
    *padded, counts = ops.select_detections(
        *tensors,
        score_thresh=model.score_thresh,
        nms_thresh=model.nms_thresh,
        detections_per_img=model.detections_per_img,
        **options,
    )
    return [tuple(t[image, :n] for t in padded) for image, n in enumerate(counts.tolist())]  # type: ignore[misc]


def _as_dicts(found: Sequence[tuple[Tensor, Tensor, Tensor]]) -> list[Detection]:
    return [{"boxes": boxes, "scores": scores, "labels": labels} for boxes, scores, labels in found]


def _joined(parts: Sequence[Tensor], dim: int) -> Tensor:
    """``torch.cat``; of what ``split`` made of one tensor, that tensor: 73 MB for RetinaNet's logits."""
    first, length = parts[0], 0
    for part in parts:
        here = first.storage_offset() + length * first.stride(dim)
        if (
            part.untyped_storage().data_ptr() != first.untyped_storage().data_ptr()
            or part.stride() != first.stride()
            or part.storage_offset() != here
        ):
            return torch.cat(list(parts), dim)
        length += part.shape[dim]
    size = list(first.shape)
    size[dim] = length
    return first.as_strided(size, first.stride(), first.storage_offset())


def _priors(anchors: Sequence[Tensor]) -> Tensor:
    """``[B, R, 4]`` from those of each image ``[R, 4]``; ``[R, 4]`` where there is one."""
    return anchors[0] if len(anchors) == 1 else torch.stack(list(anchors))


def _of_heads(
    self,
    class_logits: Tensor,
    box_regression: Tensor,
    proposals: list[Tensor],
    image_shapes: list[tuple[int, int]],
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Boxes, scores and labels of each image from logits ``[sum R, C]`` and deltas ``[sum R, 4 * C]``."""
    if torch.jit.is_scripting():
        return self._torchvision_postprocess_detections(class_logits, box_regression, proposals, image_shapes)
    else:
        tensors = (class_logits, box_regression, *proposals)
        if not (
            _takes(self, _DELTAS, tensors, image_shapes)
            and len(proposals) == len(image_shapes) > 0
            and class_logits.dim() == 2
            and class_logits.shape[1] > 1
            and box_regression.shape == (class_logits.shape[0], 4 * class_logits.shape[1])
            and all(p.dim() == 2 and p.shape[1] == 4 for p in proposals)
            and sum(len(p) for p in proposals) == len(class_logits)
        ):
            return self._torchvision_postprocess_detections(class_logits, box_regression, proposals, image_shapes)
        found = _selected(self, class_logits, box_regression, proposals, image_shapes)
        boxes, scores, labels = zip(*found, strict=True)
        return list(boxes), list(scores), list(labels)


def _by_level(self, head_outputs: Any, anchors: Any, image_shapes: Any, coder: Own, **options: Any) -> Any:
    """What RetinaNet and FCOS share: one class or one centre a location, levels in lists; ``None``: not taken."""
    names = ["cls_logits", "bbox_regression", *(["bbox_ctrness"] if coder is _DISTANCES else [])]
    outputs = [head_outputs[name] for name in names]
    logits, deltas = outputs[:2]
    images, levels = len(image_shapes), [x.shape[1] if x.dim() == 3 else -1 for x in logits]
    every = [t for output in outputs for t in output] + [t for of_image in anchors for t in of_image]
    widths = (None, 4, 1)  # of the last dimension
    if not (
        0 < len(levels) <= MAX_LEVELS
        and images == len(anchors) > 0
        and _takes(self, coder, every, image_shapes)
        and 0 < self.topk_candidates <= MAX_TOPK
        and all(
            len(output) == len(levels)
            and all(
                t.dim() == 3 and t.shape[:2] == (images, rows) and t.shape[2] == (width or logits[0].shape[2])
                for t, rows in zip(output, levels, strict=True)
            )
            for output, width in zip(outputs, widths, strict=False)
        )
        and all([tuple(a.shape) for a in of_image] == [(rows, 4) for rows in levels] for of_image in anchors)
    ):
        return None
    priors = _priors([_joined(of_image, 0) for of_image in anchors])
    if coder is _DISTANCES:
        options |= {"coding": "distances", "centerness": _joined(outputs[2], 1)}
    given = (_joined(logits, 1), _joined(deltas, 1), priors, image_shapes)
    limits = {"topk_candidates": self.topk_candidates, "levels": levels}
    return _as_dicts(_selected(self, *given, activation="sigmoid", background=None, min_size=None, **limits, **options))


def _of_retinanet(
    self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Detections of each image from logits and deltas ``[B, R, ...]`` of each level, and each image's anchors."""
    if torch.jit.is_scripting():
        return self._torchvision_postprocess_detections(head_outputs, anchors, image_shapes)
    else:
        found = _by_level(self, head_outputs, anchors, image_shapes, _DELTAS)
        if found is None:
            return self._torchvision_postprocess_detections(head_outputs, anchors, image_shapes)
        return found


def _of_fcos(
    self, head_outputs: dict[str, list[Tensor]], anchors: list[list[Tensor]], image_shapes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """The same, with distances and centerness."""
    if torch.jit.is_scripting():
        return self._torchvision_postprocess_detections(head_outputs, anchors, image_shapes)
    else:
        found = _by_level(self, head_outputs, anchors, image_shapes, _DISTANCES)
        if found is None:
            return self._torchvision_postprocess_detections(head_outputs, anchors, image_shapes)
        return found


def _of_ssd(
    self, head_outputs: dict[str, Tensor], image_anchors: list[Tensor], image_shapes: list[tuple[int, int]]
) -> list[dict[str, Tensor]]:
    """Detections of each image from logits ``[B, R, C]``, deltas ``[B, R, 4]`` and each image's anchors ``[R, 4]``."""
    if torch.jit.is_scripting():
        return self._torchvision_postprocess_detections(head_outputs, image_anchors, image_shapes)
    else:
        logits, deltas = head_outputs["cls_logits"], head_outputs["bbox_regression"]
        images, rows = len(image_shapes), logits.shape[1] if logits.dim() == 3 else -1
        if not (
            _takes(self, _DELTAS, (logits, deltas, *image_anchors), image_shapes)
            and images == len(image_anchors) == len(logits) > 0
            and logits.shape[-1] > 1
            and deltas.shape == (images, rows, 4)
            and all(a.shape == (rows, 4) for a in image_anchors)
            and 0 < self.topk_candidates <= MAX_TOPK
        ):
            return self._torchvision_postprocess_detections(head_outputs, image_anchors, image_shapes)
        given = (logits, deltas, _priors(image_anchors), image_shapes)
        return _as_dicts(_selected(self, *given, per_class_topk=self.topk_candidates, min_size=None))


def _named(function: Any) -> Any:
    function.__name__ = "postprocess_detections"
    return function


METHODS: tuple[Method, ...] = tuple(
    (owner, owner.postprocess_detections, _named(ours))
    for owner, ours in ((RoIHeads, _of_heads), (RetinaNet, _of_retinanet), (FCOS, _of_fcos), (SSD, _of_ssd))
)
