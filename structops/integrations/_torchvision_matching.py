"""Training of torchvision's detectors: ground truths are matched without the matrix of IoUs.

Methods of RPN, box head and RetinaNet take the place of torchvision's while it is patched, with results of the same
values and types. Whatever they do not take, they hand over to torchvision's own. SSD matches by a rule of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.models.detection import RetinaNet
from torchvision.models.detection._utils import Matcher
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork
from torchvision.ops import boxes as box_ops

from structops import ops
from structops.integrations._torchvision_devices import patched
from structops.integrations._torchvision_methods import Method

_torchvision_box_iou = box_ops.box_iou  # captured before the first patch


def _matchable(matcher: Any, gt: Sequence[Tensor], anchors: Sequence[Tensor]) -> bool:
    """Whether structops gives what torchvision would: the rest, errors included, is left to torchvision."""
    return (
        type(matcher) is Matcher
        and matcher.low_threshold <= matcher.high_threshold
        and not torch.jit.is_tracing()
        and all(
            patched(boxes.device)
            and boxes.device == truths.device
            and boxes.dtype == truths.dtype
            and boxes.dtype in (torch.float32, torch.float64)  # halves it would subtract as halves
            and boxes.dim() == truths.dim() == 2
            and boxes.shape[1] == truths.shape[1] == 4
            and boxes.shape[0] > 0
            for truths, boxes in zip(gt, anchors, strict=False)
        )
    )


def _match(matcher: Matcher, gt: Tensor, anchors: Tensor) -> Tensor:
    """``[N]``: for anchors ``[N, 4]`` what the matcher makes of their IoU with ``gt [M, 4]``; -1 where M is 0."""
    rule = (matcher.high_threshold, matcher.low_threshold, matcher.allow_low_quality_matches)
    return ops.match_boxes(gt, anchors, *rule)[0]


def assign_targets_to_anchors(
    self, anchors: list[Tensor], targets: list[dict[str, Tensor]]
) -> tuple[list[Tensor], list[Tensor]]:
    """Labels ``[N]`` (1, 0, and -1 to be left out) and matched ground truths ``[N, 4]`` of each image's anchors."""
    if torch.jit.is_scripting():
        return self._torchvision_assign_targets_to_anchors(anchors, targets)
    else:
        gt = [target["boxes"] for target in targets]
        standard = self.box_similarity in (_torchvision_box_iou, box_ops.box_iou)
        if not standard or not _matchable(self.proposal_matcher, gt, anchors):
            return self._torchvision_assign_targets_to_anchors(anchors, targets)
        labels, matched = [], []
        for boxes, truths in zip(anchors, gt, strict=False):
            matches = _match(self.proposal_matcher, truths, boxes)
            labels.append(torch.where(matches == Matcher.BETWEEN_THRESHOLDS, -1.0, (matches >= 0).float()))
            matched.append(truths[matches.clamp(min=0)] if len(truths) else torch.zeros_like(boxes).float())
        return labels, matched


def assign_targets_to_proposals(
    self, proposals: list[Tensor], gt_boxes: list[Tensor], gt_labels: list[Tensor]
) -> tuple[list[Tensor], list[Tensor]]:
    """Index of the ground truth (0 without) and class (0 for background, -1 to be left out) of each proposal, ``[N]``
    for each image."""
    if torch.jit.is_scripting():
        return self._torchvision_assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
    else:
        if not _matchable(self.proposal_matcher, gt_boxes, proposals):
            return self._torchvision_assign_targets_to_proposals(proposals, gt_boxes, gt_labels)
        indices, labels = [], []
        for boxes, truths, classes in zip(proposals, gt_boxes, gt_labels, strict=False):
            matches = _match(self.proposal_matcher, truths, boxes)
            index = matches.clamp(min=0)
            unmatched = matches.clamp(max=-1) + 1  # -1, background, is class 0; -2, to be left out, is -1
            indices.append(index)
            labels.append(torch.where(matches >= 0, classes[index].long(), unmatched) if len(truths) else unmatched)
        return indices, labels


def compute_loss(
    self, targets: list[dict[str, Tensor]], head_outputs: dict[str, Tensor], anchors: list[Tensor]
) -> dict[str, Tensor]:
    """RetinaNet's losses, given its anchors ``[N, 4]`` for each image."""
    if torch.jit.is_scripting():
        return self._torchvision_compute_loss(targets, head_outputs, anchors)
    else:
        gt = [target["boxes"] for target in targets]
        if not _matchable(self.proposal_matcher, gt, anchors):
            return self._torchvision_compute_loss(targets, head_outputs, anchors)
        matches = [_match(self.proposal_matcher, t, boxes) for boxes, t in zip(anchors, gt, strict=False)]
        return self.head.compute_loss(targets, head_outputs, anchors, matches)


METHODS: tuple[Method, ...] = (
    (RegionProposalNetwork, RegionProposalNetwork.assign_targets_to_anchors, assign_targets_to_anchors),
    (RoIHeads, RoIHeads.assign_targets_to_proposals, assign_targets_to_proposals),
    (RetinaNet, RetinaNet.compute_loss, compute_loss),
)
