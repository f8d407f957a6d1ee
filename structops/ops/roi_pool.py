"""RoI Pool: public function, fake kernel, checks and autograd formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from structops._backend import Op
from structops._checks import require, same_device
from structops._layout import memory_format
from structops.ops._boxes import Boxes, as_rois, check_grad, check_pooling, check_rois, output_pair
from structops.ops._rois import empty_grad_input


def roi_pool(
    input: torch.Tensor,
    boxes: Boxes,
    output_size: int | Sequence[int],
    spatial_scale: float = 1.0,
) -> torch.Tensor:
    """The largest feature in every bin of every box (RoI Pool, Girshick, "Fast R-CNN", 2015).

    Box corners are rounded to the nearest feature pixel, halves away from zero, and both ends belong to the box, which
    is at least one pixel long along each axis. It is cut into bins of equal length; a bin takes every pixel of the map
    that it meets, and its value is the largest.

    Args:
        input: features ``[N, C, H, W]``; float16, bfloat16, float32 or float64; contiguous or channels_last. A map has
            fewer than 2^31 pixels.
        boxes: ``[K, 5]`` (batch index, x1, y1, x2, y2) or a list of N tensors ``[L, 4]`` (x1, y1, x2, y2), in pixels
            of the image that the boxes were made for; any floating type.
        output_size: ``(height, width)`` of the crop, or one number for both.
        spatial_scale: feature pixels per image pixel, such as ``1 / 16``.

    Returns:
        ``[K, C, height, width]``, of the input's dtype and memory format. A bin outside the map is 0. A NaN is larger
        than any number, as in torch's max pooling. A box with a NaN or infinite coordinate gives NaN, and no gradient
        to the features. The gradient of a bin goes to its largest pixel; of equal ones, and of several NaN, to the
        first in row order.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, and on CPU for a batch index out of range (on a GPU,
            where looking would cost a host sync, such a box gives NaN).

    Note:
        Corners are scaled and rounded in double, and the bins' edges are exact. torchvision computes both in the
        input's type, so two things may differ: a corner within rounding of half a pixel can go the other way where
        ``spatial_scale`` is no power of two, and a bin of certain lengths takes a pixel more or less (the last of 7
        bins over 57 pixels in float32, over 29 in float64). torchvision also skips NaN features.
    """
    height, width = output_pair("roi_pool", output_size)
    rois = as_rois("roi_pool", boxes)
    # Without a gradient to come nobody asks where the largest feature was, and half of the bytes need no writing.
    with_argmax = torch.is_grad_enabled() and isinstance(input, torch.Tensor) and input.requires_grad
    return _roi_pool(input, rois, spatial_scale, height, width, with_argmax)[0]


def _check_plane(op: str, height: int, width: int) -> None:
    require(
        height * width < 2**31,
        lambda: f"{op}: input must have fewer than 2^31 pixels a map (argmax is int32), got {height} x {width}",
    )


def _check(input, rois, spatial_scale, pooled_height, pooled_width, with_argmax) -> None:
    check_rois("roi_pool", "input", input, rois, input.shape[0] if input.dim() else 0)
    check_pooling("roi_pool", spatial_scale, pooled_height, pooled_width)
    _check_plane("roi_pool", input.shape[2], input.shape[3])


def _fake(input, rois, spatial_scale, pooled_height, pooled_width, with_argmax):
    size = (rois.shape[0], input.shape[1], pooled_height, pooled_width)
    output = torch.empty(size, dtype=input.dtype, device=input.device, memory_format=memory_format(input))
    if not with_argmax:
        return output, torch.empty(0, dtype=torch.int32, device=input.device)
    return output, torch.empty(size, dtype=torch.int32, device=input.device, memory_format=memory_format(input))


def _setup_context(ctx, inputs, output) -> None:
    input, rois, *ctx.options, ctx.with_argmax = inputs
    ctx.input_shape = input.shape
    ctx.save_for_backward(rois, output[1])
    ctx.set_materialize_grads(False)  # it would fill a gradient for argmax with zeros


def _backward(ops, ctx, grad, _):
    if grad is None:
        return None, None, None, None, None, None
    require(ctx.with_argmax, lambda: "roi_pool: has no backward when it was called with with_argmax = False")
    rois, argmax = ctx.saved_tensors
    grad_input = ops.roi_pool_backward(grad, rois, argmax, *ctx.options, *ctx.input_shape)
    return grad_input, None, None, None, None, None


def _check_backward(
    grad,
    rois,
    argmax,
    spatial_scale,
    pooled_height,
    pooled_width,
    batch_size,
    channels,
    height,
    width,
) -> None:
    op = "roi_pool_backward"
    check_rois(op, "grad", grad, rois, batch_size)
    check_pooling(op, spatial_scale, pooled_height, pooled_width)
    expected = (rois.shape[0], channels, pooled_height, pooled_width)
    check_grad(op, grad, expected, (batch_size, channels, height, width))
    require(argmax.dtype == torch.int32, lambda: f"{op}: argmax must be int32, got {argmax.dtype}")
    require(argmax.dim() == 4, lambda: f"{op}: argmax must be {list(expected)}, got {list(argmax.shape)}")
    for size, wanted in zip(argmax.shape, expected, strict=True):
        require(size == wanted, lambda: f"{op}: argmax must be {list(expected)}, got {list(argmax.shape)}")
    same_device(op, "argmax", argmax, "grad", grad)
    _check_plane(op, height, width)


def _fake_backward(
    grad,
    rois,
    argmax,
    spatial_scale,
    pooled_height,
    pooled_width,
    batch_size,
    channels,
    height,
    width,
):
    return empty_grad_input(grad, (batch_size, channels, height, width))


def _setup_context_backward(ctx, inputs, output) -> None:
    _, rois, argmax, *ctx.options = inputs
    ctx.save_for_backward(rois, argmax)


def _double_backward(ops, ctx, grad_grad_input):
    # The backward adds grad to the pixels that argmax names, so its own backward reads those pixels. In torch's own
    # ops: it is rare, and they have derivatives of every order.
    rois, argmax = ctx.saved_tensors
    scale, _, _, batch, channels, height, width = ctx.options
    index, corners = rois[:, 0], rois[:, 1:].double() * scale
    valid = corners.isfinite().all(1) & (index >= 0) & (index < batch)
    used = (argmax >= 0) & (argmax < height * width) & valid[:, None, None, None]
    if grad_grad_input.numel() == 0:
        return torch.zeros_like(argmax, dtype=grad_grad_input.dtype), *[None] * 9
    image = torch.where(valid, index, 0).long()[:, None, None, None]
    channel = torch.arange(channels, device=rois.device)[None, :, None, None]
    pixel = torch.where(used, argmax, 0).long()
    grad_grad = grad_grad_input[image, channel, pixel // width, pixel % width]
    return grad_grad.masked_fill(~used, 0), *[None] * 9


_roi_pool = Op(
    "roi_pool",
    module="roi_pool",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_roi_pool_backward = Op(
    "roi_pool_backward",
    module="roi_pool",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=_setup_context_backward,
)
