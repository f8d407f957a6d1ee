"""RoI Align of rotated boxes: public function, fake kernel, checks and autograd formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops._backend import Op
from structops.ops._boxes import Boxes, as_rois, check_grad, check_pooling, check_rois, check_sampling, output_pair
from structops.ops._rois import empty_crops, empty_grad_input, save_rois, save_shape_and_rois

COLUMNS = ("batch index", "centre x", "centre y", "width", "height", "angle")
MAX_SAMPLING_RATIO = 256  # kMaxRotatedSamplingRatio in csrc/roi_align_rotated: a bin costs its square


def roi_align_rotated(
    input: torch.Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = True,
    clockwise: bool = False,
) -> torch.Tensor:
    """Crop and resample a fixed-size feature map for every rotated box, turned upright.

    RoI Align on boxes of Ma et al., "Arbitrary-Oriented Scene Text Detection via Rotation Proposals", 2018. Each bin
    is the mean of ``sampling_ratio x sampling_ratio`` bilinear samples on a grid that turns with the box; samples
    further than one pixel outside the map count as zero.

    A point ``(u, v)`` of the box, from its centre along its width and height, is the map's point
    ``x = cx + u cos(a) + v sin(a)``, ``y = cy - u sin(a) + v cos(a)`` with y down, so a positive angle turns the box
    counter-clockwise as seen on the screen. The defaults are detectron2's ``ROIAlignRotated`` (which is always
    aligned); ``clockwise`` and ``aligned`` are those of mmcv's ``roi_align_rotated``, whose angles are in radians.
    Cosine and sine of quarter turns are exact, whatever the angle's size: 0 degrees is :func:`roi_align`.

    Args:
        input: features ``[N, C, H, W]``; float16, bfloat16, float32 or float64; contiguous or channels_last.
        boxes: ``[K, 6]`` (batch index, centre x, centre y, width, height, angle) or a list of N tensors ``[L, 5]``
            (centre x, centre y, width, height, angle), in pixels of the image that the boxes were made for, and
            degrees; any floating type.
        output_size: ``(height, width)`` of the crop, or one number for both.
        spatial_scale: feature pixels per image pixel, such as ``1 / 16``.
        sampling_ratio: samples along each axis of a bin, at most 256; zero or less: as many as the bin is long,
            rounded up.
        aligned: shift the centre by half a pixel, so that coordinates and pixel centres line up, and let boxes be
            smaller than a pixel. ``False``: no shift, with a minimum size of one feature pixel.
        clockwise: positive angles turn clockwise on the screen.

    Returns:
        ``[K, C, height, width]``, of the input's dtype and memory format. A box with a NaN or infinite number gives
        NaN, and no gradient to the features. Centre and size are limited to 2^30 feature pixels. Coordinates are
        double and sums at least float32 inside.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, and on CPU for a batch index out of range (on a GPU,
            where looking would cost a host sync, such a box gives NaN).
    """
    height, width = output_pair("roi_align_rotated", output_size)
    rois = as_rois("roi_align_rotated", boxes, len(COLUMNS))
    return _roi_align_rotated(input, rois, spatial_scale, height, width, sampling_ratio, aligned, clockwise)


def _check(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned, clockwise) -> None:
    check_rois("roi_align_rotated", "input", input, rois, input.shape[0] if input.dim() else 0, COLUMNS)
    check_pooling("roi_align_rotated", spatial_scale, pooled_height, pooled_width)
    check_sampling("roi_align_rotated", sampling_ratio, MAX_SAMPLING_RATIO)


def _fake(input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned, clockwise):
    return empty_crops(input, rois, input.shape[1], pooled_height, pooled_width)


def _backward(ops, ctx, grad):
    (rois,) = ctx.saved_tensors
    scale, height, width, *rest = ctx.options
    grad_input = ops.roi_align_rotated_backward(grad, rois, scale, height, width, *ctx.input_shape, *rest)
    return grad_input, *[None] * 7


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
    clockwise,
) -> None:
    check_rois("roi_align_rotated_backward", "grad", grad, rois, batch_size, COLUMNS)
    check_pooling("roi_align_rotated_backward", spatial_scale, pooled_height, pooled_width)
    check_sampling("roi_align_rotated_backward", sampling_ratio, MAX_SAMPLING_RATIO)
    expected = (rois.shape[0], channels, pooled_height, pooled_width)
    check_grad("roi_align_rotated_backward", grad, expected, (batch_size, channels, height, width))


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
    clockwise,
):
    return empty_grad_input(grad, (batch_size, channels, height, width))


def _double_backward(ops, ctx, grad_grad_input):
    # The backward is linear in grad and the transpose of the forward, so its own backward is the forward; but a box
    # that the backward ignores, because the forward made it NaN, gives zero here.
    (rois,) = ctx.saved_tensors
    scale, pooled_height, pooled_width, batch, _, _, _, *rest = ctx.options
    grad_grad = ops.roi_align_rotated(grad_grad_input, rois, scale, pooled_height, pooled_width, *rest)
    index, sides, angle = rois[:, 0], rois[:, 1:5].double() * scale, rois[:, 5]
    ignored = ~(sides.isfinite().all(1) & angle.isfinite() & (index >= 0) & (index < batch))
    return grad_grad.masked_fill(ignored[:, None, None, None], 0), *[None] * 11


_roi_align_rotated = Op(
    "roi_align_rotated",
    module="roi_align_rotated",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=save_shape_and_rois,
)
_roi_align_rotated_backward = Op(
    "roi_align_rotated_backward",
    module="roi_align_rotated",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=save_rois,
)
