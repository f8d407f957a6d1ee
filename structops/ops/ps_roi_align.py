"""Position-sensitive RoI Align: public function, fake kernel, checks and autograd formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops._backend import Op
from structops.ops._boxes import Boxes, as_rois, check_sampling, output_pair
from structops.ops._ps_roi import check_ps_grad, check_ps_rois, empty_output
from structops.ops._rois import empty_grad_input, save_rois, save_shape_and_rois, without_ignored


def ps_roi_align(
    input: torch.Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> torch.Tensor:
    """Position-sensitive RoI Align: score every bin of a box on the channel that was trained for it.

    The map has one channel for each class and bin (R-FCN, Dai et al., 2016); class c and bin (ph, pw) read channel
    ``(c * height + ph) * width + pw``. Sampling is that of Light-Head R-CNN (Li et al., 2017): half a pixel is
    subtracted from the corners, boxes may be smaller than a pixel, and a bin is the mean of ``sampling_ratio x
    sampling_ratio`` bilinear samples, as :func:`roi_align` with ``aligned=True``.

    Args:
        input: features ``[N, C * height * width, H, W]``; float16, bfloat16, float32 or float64; contiguous or
            channels_last.
        boxes: ``[K, 5]`` (batch index, x1, y1, x2, y2) or a list of N tensors ``[L, 4]`` (x1, y1, x2, y2), in pixels
            of the image that the boxes were made for; any floating type.
        output_size: ``(height, width)`` in bins, or one number for both.
        spatial_scale: feature pixels per image pixel, such as ``1 / 16``.
        sampling_ratio: samples along each axis of a bin, at most 65536; zero or less: as many as the bin is long,
            rounded up, and none for a box without area, whose bins are then zero (torchvision gives NaN).

    Returns:
        ``[K, C, height, width]``, of the input's dtype and memory format. A box with a NaN or infinite coordinate
        gives NaN, and no gradient to the features. Coordinates and sums are at least float32 inside.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, for channels that are not a multiple of ``height *
            width``, and on CPU for a batch index out of range (on a GPU, where looking would cost a host sync, such a
            box gives NaN).
    """
    height, width = output_pair("ps_roi_align", output_size)
    rois = as_rois("ps_roi_align", boxes)
    return _ps_roi_align(input, rois, spatial_scale, height, width, sampling_ratio)


def _check(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio) -> None:
    check_ps_rois("ps_roi_align", input, rois, spatial_scale, pooled_height, pooled_width)
    check_sampling("ps_roi_align", sampling_ratio)


def _fake(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio):
    return empty_output(input, rois, pooled_height, pooled_width)


def _backward(ops, ctx, grad):
    (rois,) = ctx.saved_tensors
    scale, height, width, sampling_ratio = ctx.options
    grad_input = ops.ps_roi_align_backward(grad, rois, scale, height, width, *ctx.input_shape, sampling_ratio)
    return grad_input, *[None] * 5


def _check_backward(
    grad, rois, spatial_scale, pooled_height, pooled_width, batch_size, channels, height, width, sampling_ratio
) -> None:
    input_size = (batch_size, channels, height, width)
    check_ps_grad("ps_roi_align_backward", grad, rois, spatial_scale, (pooled_height, pooled_width), input_size)
    check_sampling("ps_roi_align_backward", sampling_ratio)


def _fake_backward(
    grad, rois, spatial_scale, pooled_height, pooled_width, batch_size, channels, height, width, sampling_ratio
):
    return empty_grad_input(grad, (batch_size, channels, height, width))


def _double_backward(ops, ctx, grad_grad_input):
    # The backward is linear in grad and the transpose of the forward, so its own backward is the forward.
    (rois,) = ctx.saved_tensors
    scale, pooled_height, pooled_width, batch, _, _, _, sampling_ratio = ctx.options
    grad_grad = ops.ps_roi_align(grad_grad_input, rois, scale, pooled_height, pooled_width, sampling_ratio)
    return without_ignored(grad_grad, rois, scale, batch), *[None] * 9


_ps_roi_align = Op(
    "ps_roi_align",
    module="ps_roi_align",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=save_shape_and_rois,
)
_ps_roi_align_backward = Op(
    "ps_roi_align_backward",
    module="ps_roi_align",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=save_rois,
)
