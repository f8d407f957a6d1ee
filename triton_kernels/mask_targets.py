"""Targets of a mask head: RoI Align's kernel, which reads bitmaps as they are stored."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from structops.triton_kernels._launch import Launch, run
from structops.triton_kernels._roi_axes import roi_axes
from structops.triton_kernels.roi_align import forward_launch, roi_align_forward_kernel


def _launches(
    gt_masks: torch.Tensor, boxes: torch.Tensor, matched: torch.Tensor, size: tuple[int, int]
) -> tuple[torch.Tensor, list[Launch]]:
    wide = torch.float64 in (gt_masks.dtype, boxes.dtype)
    compute = torch.float64 if wide else torch.float32
    out = torch.empty((boxes.shape[0], 1, *size), dtype=compute, device=boxes.device)
    if out.numel() == 0:
        return out[:, 0], []
    masks = (gt_masks.view(torch.uint8) if gt_masks.dtype == torch.bool else gt_masks)[:, None].contiguous()
    rois = torch.cat([matched[:, None].double(), boxes.double()], 1)  # a float would not hold every index
    map_shape = (masks.shape[0], masks.shape[2], masks.shape[3])
    axes = roi_axes(rois, 1.0, size, 0, False, map_shape, compute)
    source = {"features": masks, **{f"stride_{d}": n for d, n in zip("nchw", masks.stride(), strict=True)}}
    return out[:, 0], [axes.launch, forward_launch(roi_align_forward_kernel, source, masks, axes, out)]


def mask_targets(
    gt_masks: torch.Tensor, boxes: torch.Tensor, matched: torch.Tensor, rows: int, columns: int
) -> torch.Tensor:
    """Targets ``[K, rows, columns]`` of ``gt_masks [G, H, W]``, those ``matched [K]`` inside of ``boxes [K, 4]``."""
    out, launches = _launches(gt_masks, boxes, matched, (rows, columns))
    run(boxes.device, launches)
    return out


def ahead_of_time() -> Iterator[tuple[str, Launch]]:
    """The launches of typical calls, named: what has to compile for every target without a GPU at hand."""
    matched = torch.empty(128, dtype=torch.int64, device="meta")
    for dtype in (torch.uint8, torch.bfloat16, torch.float32, torch.float64):
        masks = torch.empty((20, 800, 1333), dtype=dtype, device="meta")
        boxes = torch.empty((128, 4), dtype=torch.float64 if dtype == torch.float64 else torch.float32, device="meta")
        for launch in _launches(masks, boxes, matched, (28, 28))[1]:
            yield f"{str(dtype)[6:]}", launch
