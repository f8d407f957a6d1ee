"""RoI Align over a feature pyramid: public function, fake kernel, checks and autograd formula."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops._layout import memory_format
from structops.ops._boxes import Boxes, as_rois, check_grad, check_pooling, check_rois, check_sampling, output_pair
from structops.ops._rois import empty_crops, empty_grad_input
from structops.reference.multiscale_roi_align import BAD_LEVEL, assign_levels

MAX_LEVELS = 8  # kMaxLevels in csrc/roi_align/roi_align.h


def multiscale_roi_align(
    features: Sequence[torch.Tensor],
    boxes: Boxes,
    output_size: int | Sequence[int],
    scales: Sequence[float],
    sampling_ratio: int = 2,
    aligned: bool = False,
    canonical_scale: float = 224,
    canonical_level: int = 4,
    levels: torch.Tensor | None = None,
    *,
    valid: torch.Tensor | None = None,
    mode: str = "align",
) -> torch.Tensor:
    """Pool every box from the pyramid level that suits its size (Lin et al., "Feature Pyramid Networks", 2017, eq. 1).

    A box of area A belongs to level ``floor(canonical_level + log2(sqrt(A) / canonical_scale) + 1e-6)``, at least that
    of the first map and at most that of the last, where a map with ``scale = 2 ** -k`` is level k (other scales count
    as the next finer of these). In it the box is pooled by :func:`roi_align`. All levels and images are one launch, and
    nothing waits for the device.

    Args:
        features: 1 to 8 maps ``[N, C, Hl, Wl]``, from fine to coarse; float16, bfloat16, float32 or float64;
            contiguous or channels_last.
        boxes: ``[K, 5]`` (batch index, x1, y1, x2, y2), a list of N tensors ``[L, 4]`` (x1, y1, x2, y2), or padded
            ``[B, R, 4]``, in pixels of the image that the boxes were made for; any floating type.
        output_size: ``(height, width)`` of the crop, or one number for both.
        scales: feature pixels per image pixel of each map, such as ``(1 / 4, 1 / 8, 1 / 16, 1 / 32)``.
        sampling_ratio: samples along each axis of a bin, as in :func:`roi_align`.
        aligned: shift by half a pixel, as in :func:`roi_align`.
        canonical_scale: side, in image pixels, of a square box that belongs to ``canonical_level``.
        canonical_level: k0 of the formula.
        levels: the place in ``features`` of each box instead, any integer type, ``[K]`` (``[B, R]`` for padded boxes).
        valid: how many of an image's R rows are boxes, any integer type, ``[B]``; for padded boxes only. The rows
            after them cost nothing but their output, which is zero, and give no gradient. A count beyond R is taken as
            R, one below 0 as 0: looking would cost a host sync on a GPU.
        mode: ``"align"``, or ``"max"`` for :func:`roi_pool` instead (which has no samples and does not shift, so
            ``sampling_ratio`` and ``aligned`` are not used); that is one launch a level, not one in all.

    Returns:
        ``[K, C, height, width]`` (``K = B * R`` for padded boxes), of the dtype of the features and the memory format
        of the first. A box with a NaN or infinite coordinate gives NaN, and no gradient; a box whose level the maps
        leave out (their scales skip it) gives zeros, as in torchvision.

    Raises:
        ValueError: for a mode that there is not.
        RuntimeError: for a wrong rank, dtype, device or size, and on CPU for a batch index, level or count of valid
            rows out of range (on a GPU, where looking would cost a host sync, such a box gives NaN, and a count below 0
            or above R is 0 or R).
    """
    op = "multiscale_roi_align"
    if mode not in ("align", "max"):
        raise ValueError(f'{op}: mode must be "align" or "max", got {mode!r}')
    require(
        isinstance(features, list | tuple) and all(isinstance(f, torch.Tensor) for f in features),
        lambda: f"{op}: features must be a list of tensors, one per level",
    )
    require(len(features) > 0, lambda: f"{op}: features must be 1 to {MAX_LEVELS} maps, got none")
    height, width = output_pair(op, output_size)
    for name, tensor in (("levels", levels), ("valid", valid)):
        require(
            tensor is None or isinstance(tensor, torch.Tensor),
            lambda name=name, tensor=tensor: f"{op}: {name} must be a tensor, got {type(tensor).__name__}",  # type: ignore[misc]
        )
    padded = isinstance(boxes, torch.Tensor) and boxes.dim() == 3
    require(valid is None or padded, lambda: f"{op}: valid goes with padded boxes [B, R, 4]")
    if levels is not None:
        levels = levels.flatten()
    rois = _padded_rois(boxes) if padded else as_rois(op, boxes)  # type: ignore[arg-type]
    scales = [float(s) for s in scales]
    options = (sampling_ratio, aligned, float(canonical_scale), canonical_level)
    arguments = (list(features), rois, scales, height, width, *options, levels, valid)
    return _multiscale_roi_align(*arguments) if mode == "align" else _multiscale_roi_pool(*arguments)


def _multiscale_roi_pool(features, rois, scales, height, width, sampling_ratio, aligned, *choice) -> torch.Tensor:
    """RoI Pool level by level: on each, the boxes of the others are not finite, which costs no more than their NaN."""
    from structops.ops.roi_pool import roi_pool  # at the top, mypy takes the ops of the package for modules

    _check(features, rois, scales, height, width, sampling_ratio, aligned, *choice)
    place = assign_levels(rois, scales, *choice)
    output = torch.zeros((), dtype=features[0].dtype, device=rois.device)
    for level, (map_, scale) in enumerate(zip(features, scales, strict=True)):
        here = (place == level)[:, None]
        masked = torch.cat([rois[:, :1], rois[:, 1:].where(here, math.nan)], 1)
        output = roi_pool(map_, masked, (height, width), scale).where(here[:, :, None, None], output)
    output = output.masked_fill((place == BAD_LEVEL)[:, None, None, None], math.nan)
    return output.contiguous(memory_format=memory_format(features[0]))


def _padded_rois(boxes: torch.Tensor) -> torch.Tensor:
    """``[B * R, 5]`` from ``[B, R, 4]``."""
    require(
        boxes.shape[2] == 4 and boxes.dtype in _checks.FLOATING,
        lambda: (
            f"multiscale_roi_align: padded boxes must be [B, R, 4] and float, got {list(boxes.shape)} {boxes.dtype}"
        ),
    )
    if boxes.dtype in (torch.float16, torch.bfloat16):
        boxes = boxes.float()  # halves hold few image indices exactly
    images, rows, _ = boxes.shape
    index = torch.arange(images, dtype=boxes.dtype, device=boxes.device)
    return torch.cat([index[:, None, None].expand(images, rows, 1), boxes], 2).flatten(0, 1)


def _check_pyramid(op, rois, scales, canonical_scale, levels, valid) -> None:
    for i, scale in enumerate(scales):
        require(
            0 < scale < float("inf"),
            lambda i=i, scale=scale: (  # type: ignore[misc]
                f"{op}: scales[{i}] must be positive and finite, got {scale}"
            ),
        )
    require(
        0 < canonical_scale < float("inf"),
        lambda: f"{op}: canonical_scale must be positive and finite, got {canonical_scale}",
    )
    require(
        levels is not None or scales[0] >= scales[-1],
        lambda: f"{op}: scales must go from the finest map to the coarsest (or levels be given), got {list(scales)}",
    )
    if levels is not None:
        require(
            levels.dim() == 1 and levels.shape[0] == rois.shape[0],
            lambda: f"{op}: levels must be [K] for boxes [K, 5], got {list(levels.shape)} for {list(rois.shape)}",
        )
        _integer(op, "levels", levels, rois)
    if valid is not None:
        require(valid.dim() == 1, lambda: f"{op}: valid must be [B], got {list(valid.shape)}")
        _integer(op, "valid", valid, rois)
        images, rows = valid.shape[0], rois.shape[0]
        require(
            rows % images == 0 if images else rows == 0,
            lambda: f"{op}: valid must hold one count for each image of boxes [B, R, 4], got {list(valid.shape)}",
        )
    _in_range(op, "levels", levels, len(scales) - 1, f"[0, {len(scales)})")
    if valid is not None and valid.shape[0]:
        most = rois.shape[0] // valid.shape[0]
        _in_range(op, "valid", valid, most, f"[0, {most}]")


def _in_range(op: str, name: str, tensor: torch.Tensor | None, most: int, accepted: str) -> None:
    # As for the batch index: on a GPU looking would cost a host sync.
    if type(tensor) is torch.Tensor and tensor.device.type == "cpu" and not torch.compiler.is_compiling():
        bad = (tensor < 0) | (tensor > most)
        require(
            not bool(bad.any()),
            lambda: f"{op}: {name}[{int(bad.nonzero()[0])}] is {int(tensor[bad][0])}, but must be in {accepted}",
        )


def _integer(op: str, name: str, tensor: torch.Tensor, rois: torch.Tensor) -> None:
    require(tensor.dtype in _checks.INTEGER, lambda: f"{op}: {name} must be an integer tensor, got {tensor.dtype}")
    _checks.same_device(op, name, tensor, "boxes", rois)


def _check(
    features,
    rois,
    scales,
    pooled_height,
    pooled_width,
    sampling_ratio,
    aligned,
    canonical_scale,
    canonical_level,
    levels,
    valid,
) -> None:
    op = "multiscale_roi_align"
    require(
        0 < len(features) <= MAX_LEVELS,
        lambda: f"{op}: features must be 1 to {MAX_LEVELS} maps, got {len(features)}",
    )
    first = features[0]
    check_rois(op, "features[0]", first, rois, first.shape[0] if first.dim() else 0)
    for i, map_ in enumerate(features):
        require(
            map_.dim() == 4 and map_.shape[0] == first.shape[0] and map_.shape[1] == first.shape[1],
            lambda i=i, map_=map_: (  # type: ignore[misc]
                f"{op}: features[{i}] must be [N, C, H, W] with the N and C of features[0], "
                f"got {list(map_.shape)} beside {list(first.shape)}"
            ),
        )
        require(
            map_.dtype == first.dtype and map_.device == first.device,
            lambda i=i, map_=map_: (  # type: ignore[misc]
                f"{op}: features[{i}] must have the dtype and device of features[0], "
                f"got {map_.dtype} on {map_.device} beside {first.dtype} on {first.device}"
            ),
        )
    require(
        len(scales) == len(features),
        lambda: f"{op}: scales must be one number for each map, got {len(scales)} for {len(features)}",
    )
    check_pooling(op, 1.0, pooled_height, pooled_width)
    check_sampling(op, sampling_ratio)
    _check_pyramid(op, rois, scales, canonical_scale, levels, valid)


def _fake(features, rois, scales, pooled_height, pooled_width, *options):
    return empty_crops(features[0], rois, features[0].shape[1], pooled_height, pooled_width)


def _setup_context(ctx, inputs, output) -> None:
    features, rois, *ctx.options, levels, valid = inputs
    ctx.batch, ctx.channels = features[0].shape[:2]
    ctx.sizes = [n for f in features for n in f.shape[2:]]
    ctx.save_for_backward(rois, levels, valid)


def _backward(ops, ctx, grad):
    rois, levels, valid = ctx.saved_tensors
    scales, pooled_height, pooled_width, *options = ctx.options
    shapes = (pooled_height, pooled_width, ctx.batch, ctx.channels, ctx.sizes)
    grads = ops.multiscale_roi_align_backward(grad, rois, scales, *shapes, *options, levels, valid)
    return grads, *[None] * 10


def _check_backward(
    grad,
    rois,
    scales,
    pooled_height,
    pooled_width,
    batch_size,
    channels,
    sizes,
    sampling_ratio,
    aligned,
    canonical_scale,
    canonical_level,
    levels,
    valid,
) -> None:
    op = "multiscale_roi_align_backward"
    check_rois(op, "grad", grad, rois, batch_size)
    require(
        0 < len(scales) <= MAX_LEVELS and len(sizes) == 2 * len(scales),
        lambda: f"{op}: sizes must be a height and a width for each of 1 to {MAX_LEVELS} scales, got {len(sizes)}",
    )
    check_pooling(op, 1.0, pooled_height, pooled_width)
    check_sampling(op, sampling_ratio)
    expected = (rois.shape[0], channels, pooled_height, pooled_width)
    for height, width in zip(sizes[::2], sizes[1::2], strict=True):
        check_grad(op, grad, expected, (batch_size, channels, height, width))
    _check_pyramid(op, rois, scales, canonical_scale, levels, valid)


def _fake_backward(grad, rois, scales, pooled_height, pooled_width, batch_size, channels, sizes, *options):
    shapes = [(batch_size, channels, *size) for size in zip(sizes[::2], sizes[1::2], strict=True)]
    return [empty_grad_input(grad, shape) for shape in shapes]


def _setup_context_backward(ctx, inputs, output) -> None:
    _, rois, *ctx.options, levels, valid = inputs
    ctx.save_for_backward(rois, levels, valid)


def _double_backward(ops, ctx, grad_grads):
    # As in roi_align: the transpose of the transpose, except that boxes which the forward made NaN give zero.
    rois, levels, valid = ctx.saved_tensors
    scales, pooled_height, pooled_width, batch, _, _, *options = ctx.options
    again = ops.multiscale_roi_align(grad_grads, rois, scales, pooled_height, pooled_width, *options, levels, valid)
    index, corners = rois[:, 0], rois[:, 1:].double() * max(scales)
    counts = corners.isfinite().all(1) & (index >= 0) & (index < batch)
    if levels is not None:
        counts = counts & (levels >= 0) & (levels < len(scales))
    return again.masked_fill(~counts[:, None, None, None], 0), *[None] * 13


_multiscale_roi_align = Op(
    "multiscale_roi_align",
    module="multiscale_roi_align",
    check=_check,
    fake=_fake,
    backward=_backward,
    setup_context=_setup_context,
)
_multiscale_roi_align_backward = Op(
    "multiscale_roi_align_backward",
    module="multiscale_roi_align",
    check=_check_backward,
    fake=_fake_backward,
    backward=_double_backward,
    setup_context=_setup_context_backward,
)
