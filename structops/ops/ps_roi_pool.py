"""Position-sensitive RoI Pool: public function, fake kernel, checks and autograd formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops._backend import Op
from structops.ops._boxes import Boxes, as_rois, output_pair
from structops.ops._ps_roi import check_ps_grad, check_ps_rois, empty_output
from structops.ops._rois import empty_grad_input, save_rois, save_shape_and_rois, without_ignored


def ps_roi_pool(
    input: torch.Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> torch.Tensor:
    """Position-sensitive RoI Pool (R-FCN, Dai et al., 2016): the mean of every bin on the channel trained for it.

    The map has one channel for each class and bin; class c and bin (ph, pw) read channel ``(c * height + ph) * width
    + pw``. As in torchvision, whose numbers these are: box corners are rounded to whole feature pixels, halves away
    from zero, and the far corner lies outside; a box is at least a pixel long; a bin covers the pixels that it
    touches; what reaches beyond the map is cut off, and with it the map's last row and column, which are never read.

    Args:
        input: features ``[N, C * height * width, H, W]``; float16, bfloat16, float32 or float64; contiguous or
            channels_last.
        boxes: ``[K, 5]`` (batch index, x1, y1, x2, y2) or a list of N tensors ``[L, 4]`` (x1, y1, x2, y2), in pixels
            of the image that the boxes were made for; any floating type.
        output_size: ``(height, width)`` in bins, or one number for both.
        spatial_scale: feature pixels per image pixel, such as ``1 / 16``.

    Returns:
        ``[K, C, height, width]``, of the input's dtype and memory format; zero where nothing of a bin is on the map.
        A box with a NaN or infinite coordinate gives NaN, and no gradient to the features. Sums are at least float32
        inside. The gradient is that of the values; torchvision's differs for boxes that reach the last row or column,
        to which its backward gives a share that its forward never read.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, for channels that are not a multiple of ``height *
            width``, and on CPU for a batch index out of range (on a GPU, where looking would cost a host sync, such a
            box gives NaN).
    """
    height, width = output_pair("ps_roi_pool", output_size)
    rois = as_rois("ps_roi_pool", boxes)
    return _ps_roi_pool(input, rois, spatial_scale, height, width)


def _check(input, rois, spatial_scale, pooled_height, pooled_width) -> None:
    check_ps_rois("ps_roi_pool", input, rois, spatial_scale, pooled_height, pooled_width)


def _fake(input, rois, spatial_scale, pooled_height, pooled_width):
    return empty_output(input, rois, pooled_height, pooled_width)


def _backward(ops, ctx, grad):
    (rois,) = ctx.saved_tensors
    return ops.ps_roi_pool_backward(grad, rois, *ctx.options, *ctx.input_shape), *[None] * 4


def _check_backward(
    grad, rois, spatial_scale, pooled_height, pooled_width, batch_size, channels, height, width
) -> None:
    input_size = (batch_size, channels, height, width)
    check_ps_grad("ps_roi_pool_backward", grad, rois, spatial_scale, (pooled_height, pooled_width), input_size)


def _fake_backward(grad, rois, spatial_scale, pooled_height, pooled_width, batch_size, channels, height, width):
    return empty_grad_input(grad, (batch_size, channels, height, width))


def _double_backward(ops, ctx, grad_grad_input):
    # The backward is linear in grad and the transpose of the forward, so its own backward is the forward.
    (rois,) = ctx.saved_tensors
    scale, pooled_height, pooled_width, batch, *_ = ctx.options
    grad_grad = ops.ps_roi_pool(grad_grad_input, rois, scale, pooled_height, pooled_width)
    return without_ignored(grad_grad, rois, scale, batch), *[None] * 8


_ps_roi_pool = Op(
    "ps_roi_pool",
    module="ps_roi_pool",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=save_shape_and_rois,
)
_ps_roi_pool_backward = Op(
    "ps_roi_pool_backward",
    module="ps_roi_pool",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=save_rois,
)
