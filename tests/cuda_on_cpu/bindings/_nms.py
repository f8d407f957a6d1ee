"""What csrc/nms/nms_binding_cuda.h does around the launchers, torch's sorts included: suppression, image by image."""

from __future__ import annotations

from collections.abc import Callable

import torch

from structops.testing import Case
from structops.testing.cases.nms import scores as drawn_scores

from ..emulator import Emulator, poisoned

Filter = tuple[torch.Tensor | None, torch.Tensor | None, bool, float]  # structops::NmsFilter
NO_FILTER: Filter = None, None, False, 0.0


def two_chunks(
    op: str, draw: Callable[[torch.Generator, int], torch.Tensor], boxes: int, iou_threshold: float
) -> dict[str, tuple[Case, ...]]:
    """More boxes than the kernels take at once, for an op and its form with classes."""

    def case(classes: int) -> tuple[Case, ...]:
        def make(g):
            found = {"boxes": draw(g, boxes), "scores": drawn_scores(g, boxes, 512), "iou_threshold": iou_threshold}
            return {**found, "idxs": torch.randint(classes, (boxes,), generator=g)} if classes else found

        return (Case("two-chunks", make),)

    return {op: case(0), f"batched_{op}": case(2)}


def sort_by_class(
    emulator: Emulator, scores: torch.Tensor, idxs: torch.Tensor | None, which: Filter
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """Keys, by_score, by_class and classes of ``scores [B, N]``, as the kernels take them."""
    images, n = scores.shape
    suffix = str(scores.dtype).removeprefix("torch.")
    key_dtype = torch.int64 if scores.dtype == torch.float64 else torch.int32
    keys = poisoned(images, n, like=scores, dtype=key_dtype)
    emulator.launch(f"nms_keys_{suffix}", scores, images, n, *which, keys)
    keys, by_score = keys.sort(stable=True)
    classes = by_class = None
    if idxs is not None:
        in_order = poisoned(images, n, like=scores, dtype=torch.int64)
        emulator.launch("nms_gather_classes", idxs.long().contiguous(), by_score, images, n, in_order)
        classes, by_class = in_order.sort(stable=True)
    return keys, by_score, by_class, classes


def suppress_rows(
    emulator: Emulator,
    boxes: torch.Tensor,  # [B, N, 4]
    scores: torch.Tensor,  # [B, N]
    idxs: torch.Tensor | None,  # [B, N]
    which: Filter,
    iou_threshold: float,
    max_output: int,
    padded: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices ``[B, max_output]`` and counts ``[B]``."""
    images, n = scores.shape
    dtype = torch.float64 if torch.float64 in (boxes.dtype, scores.dtype) else torch.float32
    suffix = str(dtype).removeprefix("torch.")
    boxes, scores = boxes.to(dtype).contiguous(), scores.to(dtype).contiguous()
    keys, by_score, by_class, classes = sort_by_class(emulator, scores, idxs, which)
    workspace = poisoned(emulator.launch(f"nms_workspace_{suffix}", images, n), like=boxes, dtype=torch.uint8)
    indices = poisoned(images, max_output, like=boxes, dtype=torch.int64)
    counts = poisoned(images, like=boxes, dtype=torch.int64)
    source = images, n, by_score, by_class, classes, keys, iou_threshold
    emulator.launch(f"nms_{suffix}", *source, boxes, workspace, max_output, padded, indices, counts)
    return indices, counts
