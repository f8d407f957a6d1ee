"""What turns the features of a mask head into masks of an image."""

from __future__ import annotations

import torch

from structops.bench.gpu_cost import conv, paste
from structops.bench.gpu_cost.conv_geometry import INPUT, Layer
from structops.bench.gpu_cost.scenes import FULL, HALF, Draw, Scene
from structops.testing.workloads import generator, paste_masks
from structops.testing.workloads.mask_head_predict import CHANNELS, SHORT, SIZE, cost

TITLE = "Masks"
ROIS = 100


def _predict(dtype: torch.dtype, channels_last: bool) -> Scene:
    layer = Layer(ROIS, 1, CHANNELS, CHANNELS, SIZE, SIZE, 2, 2, 0, dtype, channels_last)
    return Scene(
        "mask_head_predict",
        f"{ROIS} RoIs, {SHORT[dtype]} {'NHWC' if channels_last else 'NCHW'}",
        ROIS * 4 * SIZE**2,
        lambda: cost(ROIS, dtype.itemsize),
        lambda: conv.mask_head(layer),
        extra=conv.packed_bytes(layer, INPUT),
    )


def _predictions() -> list[Scene]:
    return [_predict(HALF, True), _predict(HALF, False), _predict(FULL, True), _predict(FULL, False)]


def _paste(count: int, kind: str) -> Scene:
    masks, boxes = paste_masks.detections(count, generator(f"paste_masks-{count}-{kind}"))
    height, width = paste_masks.SIZE
    result = torch.empty(
        count,
        height,
        -(-width // 8) if kind == "packed" else width,
        dtype=torch.float32 if kind == "values" else torch.uint8,
        device="meta",
    )
    return Scene(
        "paste_masks",
        f"{count} detections, {height} x {width}, {kind}",
        count * height * width,
        lambda: paste_masks.cost(masks, boxes, result),
        lambda: [paste.paste(boxes, paste_masks.SIDE, paste_masks.SIZE, kind)],
    )


def _pastes() -> list[Scene]:
    return [_paste(100, kind) for kind in paste_masks.KINDS]


SCENES: dict[str, Draw] = {"mask_head_predict": _predictions, "paste_masks": _pastes}
