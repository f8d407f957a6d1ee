"""Boxes as the RoI ops take them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch

from structops import _checks
from structops._checks import require

Boxes = torch.Tensor | Sequence[torch.Tensor]


def as_rois(op: str, boxes: Boxes, width: int = 5, name: str = "boxes") -> torch.Tensor:
    """``[K, width]`` with the batch index first, from that or from one ``[L, width - 1]`` tensor per image."""
    if isinstance(boxes, torch.Tensor):
        return boxes
    require(
        isinstance(boxes, list | tuple),
        lambda: f"{op}: {name} must be a tensor or a list of tensors, got {type(boxes).__name__}",
    )
    require(len(boxes) > 0, lambda: f"{op}: {name} must hold one tensor per image, got an empty list")
    for i, b in enumerate(boxes):
        require(
            isinstance(b, torch.Tensor) and b.dim() == 2 and bool(b.shape[1] == width - 1),
            lambda i=i, b=b: (  # type: ignore[misc]
                f"{op}: {name}[{i}] must be [L, {width - 1}], got "
                f"{list(b.shape) if isinstance(b, torch.Tensor) else type(b).__name__}"
            ),
        )
    # Halves hold no image index above 256 (bfloat16) or 2048 (float16) exactly.
    wide = [b.float() if b.dtype in (torch.float16, torch.bfloat16) else b for b in boxes]
    return torch.cat([torch.cat([torch.full_like(b[:, :1], i), b], dim=1) for i, b in enumerate(wide)])


def check_rois(
    op: str,
    name: str,
    features: torch.Tensor,
    rois: torch.Tensor,
    batch: int,
    columns: tuple[str, ...] = ("batch index", "x1", "y1", "x2", "y2"),
) -> None:
    """Raise unless features are ``[N, C, H, W]`` and rois ``[K, columns]`` of floating type on the same device.

    The native bindings check the same in ``csrc/common/rois.h``.
    """
    require(
        features.dim() == 4,
        lambda: f"{op}: {name} must be [N, C, H, W] (4 dimensions), got {features.dim()} dimensions",
    )
    _checks.floating(op, name, features)
    require(
        rois.dim() == 2 and rois.shape[1] == len(columns),
        lambda: f"{op}: boxes must be [K, {len(columns)}] ({', '.join(columns)}), got {list(rois.shape)}",
    )
    _checks.floating(op, "boxes", rois)
    _checks.same_device(op, "boxes", rois, name, features)
    check_indices(op, rois, batch)


def check_indices(op: str, rois: torch.Tensor, batch: int, name: str = "boxes") -> None:
    """Raise unless the first column of rois, on a CPU, is in ``[0, batch)``."""
    # On a GPU this would cost a host sync; there, an index out of range makes that RoI NaN.
    if rois.device.type == "cpu" and not torch.compiler.is_compiling() and type(rois) is torch.Tensor:
        index = rois[:, 0]
        bad = ~((index >= 0) & (index < batch))
        require(
            not bool(bad.any()),
            lambda: (
                f"{op}: {name}[{int(bad.nonzero()[0])}, 0] is batch index {index[bad][0].item():g}, "
                f"but must be in [0, {batch})"
            ),
        )


MAX_POOLED = 32768  # kMaxPooled in csrc/common/rois.h: no product of two overflows


def check_pooling(op: str, spatial_scale: float, pooled_height: int, pooled_width: int) -> None:
    require(
        pooled_height > 0 and pooled_width > 0,
        lambda: f"{op}: output_size must be positive, got ({pooled_height}, {pooled_width})",
    )
    require(
        pooled_height <= MAX_POOLED and pooled_width <= MAX_POOLED,
        lambda: f"{op}: output_size must be at most {MAX_POOLED}, got ({pooled_height}, {pooled_width})",
    )
    require(
        0 < spatial_scale < float("inf"),
        lambda: f"{op}: spatial_scale must be positive and finite, got {spatial_scale}",
    )


MAX_SAMPLING_RATIO = 65536  # kMaxSamplingRatio in csrc/common/rois.h: a RoI's cost grows with it


def check_sampling(op: str, sampling_ratio: int, most: int = MAX_SAMPLING_RATIO) -> None:
    require(
        sampling_ratio <= most,
        lambda: f"{op}: sampling_ratio must be at most {most}, got {sampling_ratio}",
    )


def check_grad(
    op: str,
    grad: torch.Tensor,
    expected: tuple[int, int, int, int],
    input_size: tuple[int, int, int, int],
) -> None:
    """Raise unless ``grad`` has the output's size ``expected`` for an input of ``input_size``."""
    require(
        all(n >= 0 for n in input_size),
        lambda: f"{op}: the input size must not be negative, got {list(input_size)}",
    )
    for size, wanted in zip(grad.shape, expected, strict=True):
        require(size == wanted, lambda: f"{op}: grad must be {list(expected)}, got {list(grad.shape)}")


def output_pair(op: str, output_size: int | Sequence[int], name: str = "output_size") -> tuple[int, int]:
    """``(height, width)`` from an int or a pair."""
    if isinstance(output_size, int | torch.SymInt):
        return output_size, output_size  # type: ignore[return-value]
    single = isinstance(output_size, torch.Tensor) and output_size.dim() == 0  # says that it can be iterated
    pair = tuple(output_size) if isinstance(output_size, Iterable) and not single else ()
    require(
        len(pair) == 2 and all(isinstance(n, int | torch.SymInt) for n in pair),
        lambda: f"{op}: {name} must be an int or a pair of ints (height, width), got {output_size!r}",
    )
    return pair  # type: ignore[return-value]
