"""RoI Align: public function, fake kernel, checks and autograd formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops._backend import Op
from structops.ops._boxes import Boxes, as_rois, check_grad, check_pooling, check_rois, check_sampling, output_pair
from structops.ops._rois import empty_crops, empty_grad_input, save_rois, save_shape_and_rois, without_ignored


def roi_align(
    input: torch.Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> torch.Tensor:
    """Crop and resample a fixed-size feature map for every box (RoI Align, He et al., "Mask R-CNN", 2017).

    Each bin is the mean of ``sampling_ratio x sampling_ratio`` bilinear samples; samples further than one pixel
    outside the map count as zero.

    Args:
        input: features ``[N, C, H, W]``; float16, bfloat16, float32 or float64; contiguous or channels_last.
        boxes: ``[K, 5]`` (batch index, x1, y1, x2, y2) or a list of N tensors ``[L, 4]`` (x1, y1, x2, y2), in pixels
            of the image that the boxes were made for; any floating type.
        output_size: ``(height, width)`` of the crop, or one number for both.
        spatial_scale: feature pixels per image pixel, such as ``1 / 16``.
        sampling_ratio: samples along each axis of a bin, at most 65536; zero or less: as many as the bin is long,
            rounded up.
        aligned: shift by half a pixel, so that box corners and pixel centres line up, and let boxes be smaller than
            a pixel. ``False`` is the original definition, with a minimum size of one feature pixel.

    Returns:
        ``[K, C, height, width]``, of the input's dtype and memory format. A box with a NaN or infinite coordinate
        gives NaN, and no gradient to the features. Coordinates and sums are at least float32 inside.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, and on CPU for a batch index out of range (on a GPU,
            where looking would cost a host sync, such a box gives NaN).
    """
    height, width = output_pair("roi_align", output_size)
    rois = as_rois("roi_align", boxes)
    return _roi_align(input, rois, spatial_scale, height, width, sampling_ratio, aligned)


def _check(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned) -> None:
    check_rois("roi_align", "input", input, rois, input.shape[0] if input.dim() else 0)
    check_pooling("roi_align", spatial_scale, pooled_height, pooled_width)
    check_sampling("roi_align", sampling_ratio)


def _fake(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned):
    return empty_crops(input, rois, input.shape[1], pooled_height, pooled_width)


def _backward(ops, ctx, grad):
    (rois,) = ctx.saved_tensors
    scale, height, width, sampling_ratio, aligned = ctx.options
    grad_input = ops.roi_align_backward(grad, rois, scale, height, width, *ctx.input_shape, sampling_ratio, aligned)
    return grad_input, None, None, None, None, None, None


def _check_backward(
    grad,
    rois,
    spatial_scale,
    pooled_height,
    pooled_width,
    batch_size,
    channels,
    height,
    width,
    sampling_ratio,
    aligned,
) -> None:
    check_rois("roi_align_backward", "grad", grad, rois, batch_size)
    check_pooling("roi_align_backward", spatial_scale, pooled_height, pooled_width)
    check_sampling("roi_align_backward", sampling_ratio)
    expected = (rois.shape[0], channels, pooled_height, pooled_width)
    check_grad("roi_align_backward", grad, expected, (batch_size, channels, height, width))


def _fake_backward(
    grad,
    rois,
    spatial_scale,
    pooled_height,
    pooled_width,
    batch_size,
    channels,
    height,
    width,
    sampling_ratio,
    aligned,
):
    return empty_grad_input(grad, (batch_size, channels, height, width))


def _double_backward(ops, ctx, grad_grad_input):
    # The backward is linear in grad and the transpose of the forward, so its own backward is the forward; but a box
    # that the backward ignores, because the forward made it NaN, gives zero here.
    (rois,) = ctx.saved_tensors
    scale, pooled_height, pooled_width, batch, _, _, _, sampling_ratio, aligned = ctx.options
    grad_grad = ops.roi_align(grad_grad_input, rois, scale, pooled_height, pooled_width, sampling_ratio, aligned)
    return without_ignored(grad_grad, rois, scale, batch), *[None] * 10


_roi_align = Op(
    "roi_align",
    module="roi_align",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=save_shape_and_rois,
)
_roi_align_backward = Op(
    "roi_align_backward",
    module="roi_align",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=save_rois,
)
