"""Backward of RoI Align over a pyramid: one launch sorts the RoIs by level, then roi_align's own run for each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from structops.triton_kernels._launch import Launch
from structops.triton_kernels._multiscale_levels import CHOICE, _choose_level, choice_arguments
from structops.triton_kernels._roi_align_backward import backward as backward_of_level


@triton.jit(do_not_specialize=[*CHOICE, "count"])
def multiscale_split_kernel(
    rois,  # [K, 5]
    split,  # [levels, K, 5], written: the RoIs of a level, NaN in the place of the others
    chosen,
    valid,
    roi_stride,
    coordinate_stride,
    chosen_stride,
    valid_stride,
    levels,
    rows,
    threshold0,
    threshold1,
    threshold2,
    threshold3,
    threshold4,
    threshold5,
    threshold6,
    threshold7,
    count,
    BLOCK: tl.constexpr,
):
    k = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = k < count
    k = tl.minimum(k, count - 1)
    level = _choose_level(
        k,
        rois,
        roi_stride,
        coordinate_stride,
        chosen,
        valid,
        chosen_stride,
        valid_stride,
        levels,
        rows,
        threshold0,
        threshold1,
        threshold2,
        threshold3,
        threshold4,
        threshold5,
        threshold6,
        threshold7,
    )
    for j in tl.static_range(5):
        value = tl.load(rois + k * roi_stride + j * coordinate_stride)
        for l in range(0, levels):
            here = tl.where(level == l, value, float("nan"))
            tl.store(split + (l * count + k) * 5 + j, here.to(split.dtype.element_ty), mask=mask)


def _split(rois: torch.Tensor, scales: Sequence[float], *choice: Any) -> tuple[torch.Tensor, list[Launch]]:
    """``[levels, K, 5]``: on each level its RoIs, and NaN in the place of the others."""
    k = rois.shape[0]
    split = torch.empty((len(scales), k, 5), dtype=rois.dtype, device=rois.device)
    arguments = {"rois": rois, "split": split, **choice_arguments(rois, scales, *choice), "count": k, "BLOCK": 128}
    options = {"num_warps": 4, "enable_fp_fusion": False}
    return split, [Launch(multiscale_split_kernel, (triton.cdiv(k, 128),), arguments, options)]


def backward(
    grad: torch.Tensor,
    rois: torch.Tensor,
    scales: Sequence[float],
    shapes: Sequence[tuple[int, int, int, int]],
    sampling_ratio: int,
    aligned: bool,
    *choice: Any,
) -> tuple[list[torch.Tensor], list[Launch]]:
    """The gradient of each map, of the given shapes, and the launches that write them."""
    if rois.shape[0] == 0:
        split, launches = rois.expand(len(scales), 0, 5), []
    else:
        split, launches = _split(rois, scales, *choice)
    grads = []
    for here, scale, shape in zip(split, scales, shapes, strict=True):
        grad_input, more = backward_of_level(grad, here, scale, shape, sampling_ratio, aligned)
        grads.append(grad_input)
        launches += more
    return grads, launches


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand. Those of the
    levels are roi_align's."""
    scales = (1 / 4, 1 / 8, 1 / 16, 1 / 32)
    for dtype in (torch.bfloat16, torch.float64):
        boxes = torch.float64 if dtype == torch.float64 else torch.float32
        rois = torch.empty((1000, 5), dtype=boxes, device="meta")
        for name, levels in (("", None), ("-levels", torch.empty(1000, dtype=torch.int64, device="meta"))):
            _, launches = _split(rois, scales, 224.0, 4, levels, None)
            yield from ((f"split-{str(dtype)[6:]}{name}", launch) for launch in launches)
