"""What a workload's boxes make the kernels of the RoI family do: pixels of bins, tiles met, sectors and lines read."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from structops.reference import multiscale_roi_align as pyramid
from structops.testing.workloads import multiscale_roi_align, ps_roi_align, roi_align, roi_pool

SECTOR, LINE, WARP = 32, 128, 32  # bytes that the L2 cache sends, that a tag of the L1 cache stands for; lanes


@dataclass(frozen=True)
class Map:
    """RoIs on one map of ``[images, channels, height, width]``.

    Attributes:
        image: of each RoI, ``[K]``.
        rows, columns: bool ``[K, pooled, height or width]``: which pixels of an axis have a part in which bin.
        samples: of one bin along each axis, ``[K]`` (0 for pooling without samples).
    """

    images: int
    height: int
    width: int
    image: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    samples: tuple[torch.Tensor, torch.Tensor]

    @property
    def rois(self) -> int:
        return len(self.rows)

    @property
    def pooled(self) -> int:
        return self.rows.shape[1]

    @property
    def row_counts(self) -> torch.Tensor:
        """Rows of each bin ``[K, pooled]``."""
        return self.rows.sum(2)

    @property
    def column_counts(self) -> torch.Tensor:
        return self.columns.sum(2)


def align_map(shape: roi_align.Shape, rois: torch.Tensor) -> Map:
    boxes = rois.double()
    rows = roi_align.taps(boxes[:, 2], boxes[:, 4], shape.height, shape)
    columns = roi_align.taps(boxes[:, 1], boxes[:, 3], shape.width, shape)
    lengths = [((boxes[:, i + 2] - boxes[:, i]) / shape.stride).clamp(min=1) / shape.pooled for i in (2, 1)]
    ratio = shape.sampling_ratio
    samples = [torch.full_like(length, ratio) if ratio > 0 else length.ceil() for length in lengths]
    return Map(shape.images, shape.height, shape.width, rois[:, 0], rows, columns, (samples[0], samples[1]))


def pyramid_maps(shape: multiscale_roi_align.Shape, rois: torch.Tensor) -> list[Map]:
    """A map a level, each with its own RoIs."""
    place = pyramid.assign_levels(rois, multiscale_roi_align.SCALES, 224, 4, None, None)
    maps = []
    for level, stride in enumerate(multiscale_roi_align.STRIDES):
        here, size = rois[place == level], (shape.height // stride, shape.width // stride)
        one = roi_align.Shape("", len(here), shape.channels, shape.pooled, *size, stride, images=shape.images)
        maps.append(align_map(one, here))
    return maps


def pool_map(shape: roi_align.Shape, rois: torch.Tensor) -> Map:
    boxes = rois.double()

    def bins(low: int, extent: int) -> torch.Tensor:
        first, last = roi_pool.bins(boxes[:, low], boxes[:, low + 2], extent, shape)
        at = torch.arange(extent)
        return (at >= first[..., None]) & (at < last[..., None])

    none = torch.zeros(len(rois))
    return Map(
        shape.images, shape.height, shape.width, rois[:, 0], bins(2, shape.height), bins(1, shape.width), (none, none)
    )


def ps_map(pooling: ps_roi_align.Pooling, shape: ps_roi_align.Shape, rois: torch.Tensor) -> Map:
    boxes = rois.double().tolist()
    rows = torch.stack([pooling.axis(box[2], box[4], shape, shape.height) != 0 for box in boxes])
    columns = torch.stack([pooling.axis(box[1], box[3], shape, shape.width) != 0 for box in boxes])
    samples = torch.full((len(rois),), float(pooling.options[0]) if pooling.options else 0.0)
    return Map(1, shape.height, shape.width, rois[:, 0], rows, columns, (samples, samples))


def segments(used: torch.Tensor, size: int) -> torch.Tensor:
    """Bins that meet each run of ``size`` pixels: ``[K, pooled, extent] -> [K, runs]``."""
    missing = -used.shape[2] % size
    padded = torch.nn.functional.pad(used, (0, missing))
    return padded.unflatten(2, (-1, size)).any(3).sum(1)


def most(used: torch.Tensor, size: int) -> torch.Tensor:
    """Most bins that one pixel of each run of ``size`` is in: ``[K, pooled, extent] -> [K, runs]``."""
    bins = torch.nn.functional.pad(used.sum(1), (0, -used.shape[2] % size))
    return bins.unflatten(1, (-1, size)).amax(2)


def spans(used: torch.Tensor, unit: int) -> torch.Tensor:
    """Runs of ``unit`` pixels that hold a used one, each RoI: ``[K]``."""
    return (segments(used, unit) > 0).sum(1)


def pieces_of_planes(m: Map, itemsize: int, unit: int) -> torch.Tensor:
    """Lines or sectors (``unit`` bytes) that one access of a warp meets when its lanes are neighbouring bins of one
    plane, ``[K]``.

    32 bins are so many whole and broken rows of bins; the pixels of one row of bins are spread over the RoI's width.
    """
    rows_of_bins = min((WARP - 1) / m.pooled + 1, m.pooled * 2)
    width = m.columns.any(1).sum(1) * itemsize
    return (rows_of_bins * (1 + (width - itemsize).clamp(min=0) / unit).clamp(max=m.pooled)).clamp(max=WARP)
