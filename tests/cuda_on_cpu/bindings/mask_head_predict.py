"""The mask head by the CUDA kernels: what mask_head_predict_binding_cuda.cpp does around the launchers."""

from __future__ import annotations

import torch

from structops.testing import Case
from structops.testing.cases.mask_head_predict import arguments

from ..emulator import Emulator, poisoned
from ._conv import packed_weight, padded_depth, shape_of, suffix, wide_map

# Depths that 16-byte copies take, more than one tile of hidden channels, pixels of several RoIs in a tile.
EXTRA = {"mask_head_predict": (Case("two-tiles", lambda g: arguments(g, 3, 72, 80, 4, (7, 7))),)}


def mask_head_predict(
    emulator: Emulator, features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels
) -> torch.Tensor:
    rois, channels, height, width = features.shape
    out = poisoned(rois, 2 * height, 2 * width, like=features)
    if out.numel() == 0:
        return out
    wide = torch.promote_types(features.dtype, torch.float32)
    bias, weight, class_bias = (
        None if t is None else t.to(wide).contiguous() for t in (deconv_bias, logits_weight, logits_bias)
    )
    two = [2, 2]
    shape = shape_of(rois, 1, channels, deconv_weight.shape[1], two, two, [0, 0], [1, 1], True)
    packed = packed_weight(emulator, deconv_weight, shape, True)
    logits = (bias, weight, class_bias, labels.long().contiguous(), logits_weight.shape[0])
    sizes = (rois, deconv_weight.shape[1], padded_depth(channels, features))
    name = f"mask_head_predict_{suffix(features)}"
    emulator.launch(name, *sizes, *wide_map(emulator, features, 1), packed, *logits, out)
    return out
