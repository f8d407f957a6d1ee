"""The kernels that take the place of torchvision's own in the dispatcher while it is patched.

Each is made from the kernel that it replaces, and hands over to it whatever structops does not take: torchvision then
refuses it in its own words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from structops._backend import OPS
from structops._checks import FLOATING
from structops.ops._boxes import MAX_POOLED

Kernel = Callable[..., Any]  # gets the dispatch keys first
MAKERS: dict[str, Callable[[Any], Kernel]] = {}  # torchvision op -> makes its kernel from the original


def _replaces(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function of an op's arguments, which returns ``None`` for those that it does not take."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        def make(original: Any) -> Kernel:
            def kernel(keys: Any, *arguments: Any) -> Any:
                result = function(*arguments)
                return original.call_boxed(keys, *arguments) if result is None else result

            return kernel

        MAKERS[name] = make
        return function

    return register


def poolable(features, rois, spatial_scale, pooled_height, pooled_width) -> bool:
    return (
        features.dim() == 4
        and rois.dim() == 2
        and rois.shape[1] == 5
        and features.dtype == rois.dtype
        and features.dtype in FLOATING
        and features.device == rois.device
        and 0 < pooled_height <= MAX_POOLED
        and 0 < pooled_width <= MAX_POOLED
        and 0 < spatial_scale < float("inf")
    )


def suppressible(boxes, scores, iou_threshold) -> bool:
    return (
        boxes.dim() == 2
        and boxes.shape[1] == 4
        and scores.dim() == 1
        and scores.shape[0] == boxes.shape[0]
        and boxes.dtype in FLOATING
        and scores.dtype in FLOATING
        and boxes.device == scores.device
        and iou_threshold >= 0  # torchvision takes a negative one and keeps a single box
    )


@_replaces("nms")
def _nms(dets, scores, iou_threshold):
    # dets [N, 4], scores [N]
    if not suppressible(dets, scores, iou_threshold) or dets.dtype != scores.dtype:
        return None
    return OPS["nms"](dets, scores, iou_threshold)


@_replaces("box_iou_rotated")
def _box_iou_rotated(boxes1, boxes2):
    # [N, 5] and [M, 5] (centre x, centre y, width, height, degrees); float32 whatever the boxes are
    if not (boxes1.dim() == boxes2.dim() == 2 and boxes1.shape[1] == boxes2.shape[1] == 5):
        return None
    if boxes1.dtype != boxes2.dtype or boxes1.dtype not in FLOATING or boxes1.device != boxes2.device:
        return None
    return OPS["box_iou_rotated"](boxes1, boxes2, False).float()


# Outputs are contiguous whatever the input: torchvision's fake kernels promise so to compiled code. Below, features are
# [N, C, H, W], rois [K, 5] and grad [K, C, PH, PW].


@_replaces("roi_align")
def _roi_align(input, rois, *options):
    if not poolable(input, rois, *options[:3]):
        return None
    return OPS["roi_align"](input, rois, *options).contiguous()


@_replaces("_roi_align_backward")
def _roi_align_backward(grad, rois, *options):
    if not poolable(grad, rois, *options[:3]):
        return None
    return OPS["roi_align_backward"](grad, rois, *options).contiguous()


@_replaces("roi_pool")
def _roi_pool(input, rois, *options):
    if not poolable(input, rois, *options) or input.shape[2] * input.shape[3] >= 2**31:
        return None
    output, argmax = OPS["roi_pool"](input, rois, *options, True)
    return output.contiguous(), argmax.contiguous()


@_replaces("_roi_pool_backward")
def _roi_pool_backward(grad, rois, argmax, *options):
    if not poolable(grad, rois, *options[:3]) or argmax.shape != grad.shape:
        return None
    return OPS["roi_pool_backward"](grad, rois, argmax, *options).contiguous()


def _channel_mapping(output: torch.Tensor) -> torch.Tensor:
    """``[K, C, PH, PW]`` int32: the channel that each bin was read from, as torchvision returns it."""
    of_one = torch.arange(output.shape[1:].numel(), dtype=torch.int32, device=output.device)
    return of_one.view(output.shape[1:]).expand(output.shape).contiguous()


def _divisible(channels, pooled_height, pooled_width) -> bool:
    return channels % (pooled_height * pooled_width) == 0


@_replaces("ps_roi_align")
def _ps_roi_align(input, rois, *options):
    if not poolable(input, rois, *options[:3]) or not _divisible(input.shape[1], *options[1:3]):
        return None
    output = OPS["ps_roi_align"](input, rois, *options).contiguous()
    return output, _channel_mapping(output)


@_replaces("_ps_roi_align_backward")
def _ps_roi_align_backward(grad, rois, channel_mapping, scale, height, width, sampling_ratio, *size):
    if not poolable(grad, rois, scale, height, width):
        return None
    return OPS["ps_roi_align_backward"](grad, rois, scale, height, width, *size, sampling_ratio).contiguous()


@_replaces("ps_roi_pool")
def _ps_roi_pool(input, rois, *options):
    if not poolable(input, rois, *options) or not _divisible(input.shape[1], *options[1:]):
        return None
    output = OPS["ps_roi_pool"](input, rois, *options).contiguous()
    return output, _channel_mapping(output)


@_replaces("_ps_roi_pool_backward")
def _ps_roi_pool_backward(grad, rois, channel_mapping, *options):
    if not poolable(grad, rois, *options[:3]):
        return None
    return OPS["ps_roi_pool_backward"](grad, rois, *options).contiguous()
