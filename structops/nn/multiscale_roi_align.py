from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from structops.ops.multiscale_roi_align import multiscale_roi_align


class MultiScaleRoIAlign(nn.Module):
    """RoI Align over the levels of a feature pyramid; see :func:`structops.ops.multiscale_roi_align`.

    Arguments, results and the empty state are those of ``torchvision.ops.MultiScaleRoIAlign``. The scales follow from
    the shapes at each call, without looking at data, so the module can be compiled and exported in one graph;
    ``scales`` can be set instead.

    Args:
        featmap_names: the maps to pool from; others in the dictionary are passed over.
        output_size: ``(height, width)`` of the crop, or one number for both.
        sampling_ratio: samples along each axis of a bin; zero or less: as many as the bin is long.
        canonical_scale: side of a square box, in image pixels, that belongs to ``canonical_level``.
        canonical_level: k0 of equation 1 of "Feature Pyramid Networks".
    """

    def __init__(
        self,
        featmap_names: Sequence[str],
        output_size: int | Sequence[int],
        sampling_ratio: int,
        *,
        canonical_scale: int = 224,
        canonical_level: int = 4,
    ) -> None:
        super().__init__()
        self.featmap_names = featmap_names
        self.sampling_ratio = sampling_ratio
        self.output_size = (output_size, output_size) if isinstance(output_size, int) else tuple(output_size)
        self.scales: Sequence[float] | None = None
        self.canonical_scale = canonical_scale
        self.canonical_level = canonical_level

    def forward(
        self, x: dict[str, torch.Tensor], boxes: Sequence[torch.Tensor], image_shapes: Sequence[tuple[int, int]]
    ) -> torch.Tensor:
        """
        Args:
            x: maps ``[N, C, Hl, Wl]`` by name, from fine to coarse.
            boxes: ``[L, 4]`` (x1, y1, x2, y2) for each image, in pixels of the image that the backbone got.
            image_shapes: ``(height, width)`` of each image.

        Returns:
            ``[sum of L, C, height, width]``
        """
        features = [map_ for name, map_ in x.items() if name in self.featmap_names]
        scales = self.scales
        if scales is None:
            if len(image_shapes) == 0:
                raise ValueError("image_shapes must hold the shape of each image, got none")
            height = max([shape[0] for shape in image_shapes])
            scales = [_scale(f.shape[2], height) for f in features]
        return multiscale_roi_align(
            features,
            boxes,
            self.output_size,
            scales,
            self.sampling_ratio,
            canonical_scale=self.canonical_scale,
            canonical_level=self.canonical_level,
        )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(featmap_names={self.featmap_names}, "
            f"output_size={self.output_size}, sampling_ratio={self.sampling_ratio})"
        )


def _scale(size: int, image: int) -> float:
    """The power of two nearest to ``size / image``, by ratio.

    By comparing whole numbers: with sizes that a compiler keeps open, that is a range of sizes which share a graph,
    and a logarithm would be one graph a size.
    """
    power = 0
    while image**2 > 2 * (size * 2**power) ** 2 and power < 30:
        power += 1
    while size**2 > 2 * (image * 2**-power) ** 2 and power > -30:
        power -= 1
    return 2.0**-power
