"""RoI Align along time: public function and checks, over the dispatcher op of :mod:`structops.ops.roi_align`."""

from __future__ import annotations

import torch

from structops import _checks
from structops._checks import require
from structops.ops._boxes import MAX_POOLED, Boxes, as_rois, check_indices, check_sampling
from structops.ops.roi_align import roi_align

NAME = "roi_align_1d"


def roi_align_1d(
    input: torch.Tensor,
    segments: Boxes,
    output_size: int,
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> torch.Tensor:
    """Crop and resample a fixed number of steps for every segment of a sequence: RoI Align with one axis.

    For proposals in video, as in Chao et al., "Rethinking the Faster R-CNN Architecture for Temporal Action
    Localization", 2018, and Xu et al., "G-TAD", 2020. Each bin is the mean of ``sampling_ratio`` linearly
    interpolated samples; samples further than one step outside the sequence count as zero.

    Args:
        input: features ``[N, C, T]``; float16, bfloat16, float32 or float64. Dense with either T or C fastest
            (``x.transpose(1, 2)`` of a ``[N, T, C]``) it is read where it lies.
        segments: ``[K, 3]`` (batch index, start, end) or a list of N tensors ``[L, 2]`` (start, end), in the unit
            that ``spatial_scale`` turns into steps of the sequence (frames, seconds); any floating type.
        output_size: bins of the crop.
        spatial_scale: steps of the sequence per unit of the segments, such as ``1 / 8`` for a stride of 8 frames.
        sampling_ratio: samples of a bin, at most 65536; zero or less: as many as the bin is long, rounded up.
        aligned: shift by half a step, so that the ends of a segment and the centres of steps line up, and let
            segments be shorter than a step. ``False``: no shift, with a minimum length of one step.

    Returns:
        ``[K, C, output_size]``, of the input's dtype, C fastest where it is in the input. A segment with a NaN or
        infinite end gives NaN, and no gradient to the features. Coordinates are double and sums at least float32.

    Raises:
        RuntimeError: for a wrong rank, dtype, device or size, and on CPU for a batch index out of range (on a GPU,
            where looking would cost a host sync, such a segment gives NaN).
    """
    rois = as_rois(NAME, segments, width=3, name="segments")
    _check(input, rois, output_size, spatial_scale, sampling_ratio)
    # A map of one row, of which every segment takes the whole: with the scale applied here (in double, as the kernels
    # do), the row from 0 to 1 is one step high for every scale, and all its samples are on it.
    ends = rois[:, 1:].double() * spatial_scale
    row = torch.zeros_like(ends)
    row[:, 1] = 1
    boxes = torch.stack([rois[:, 0].double(), ends[:, 0], row[:, 0], ends[:, 1], row[:, 1]], 1)
    return roi_align(input.unsqueeze(2), boxes, (1, output_size), 1.0, sampling_ratio, aligned).squeeze(2)


def _check(input, rois, output_size, spatial_scale, sampling_ratio) -> None:
    require(input.dim() == 3, lambda: f"{NAME}: input must be [N, C, T] (3 dimensions), got {input.dim()} dimensions")
    _checks.floating(NAME, "input", input)
    require(
        rois.dim() == 2 and rois.shape[1] == 3,
        lambda: f"{NAME}: segments must be [K, 3] (batch index, start, end), got {list(rois.shape)}",
    )
    _checks.floating(NAME, "segments", rois)
    _checks.same_device(NAME, "segments", rois, "input", input)
    check_indices(NAME, rois, input.shape[0], name="segments")
    require(
        isinstance(output_size, int | torch.SymInt),
        lambda: f"{NAME}: output_size must be an int, got {output_size!r}",
    )
    require(output_size > 0, lambda: f"{NAME}: output_size must be positive, got {output_size}")
    require(
        output_size <= MAX_POOLED,
        lambda: f"{NAME}: output_size must be at most {MAX_POOLED}, got {output_size}",
    )
    require(
        0 < spatial_scale < float("inf"),
        lambda: f"{NAME}: spatial_scale must be positive and finite, got {spatial_scale}",
    )
    check_sampling(NAME, sampling_ratio)
