"""The last layers of Mask R-CNN's mask head by their definition, for each RoI's own class."""

from __future__ import annotations

import torch

from structops.reference.conv_transpose2d import ACTIVATIONS, conv_transpose2d

RELU = ACTIVATIONS.index("relu")


def mask_head_predict(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels):
    """``[K, Cin, H, W]`` to probabilities ``[K, 2 H, 2 W]``; see :func:`structops.ops.mask_head_predict`."""
    wide = torch.promote_types(features.dtype, torch.float32)
    layer = ([2, 2], [0, 0], [0, 0], 1, [1, 1], RELU, 0.0, False)
    bias = None if deconv_bias is None else deconv_bias.to(wide)
    hidden = conv_transpose2d(features.to(wide), deconv_weight.to(wide), bias, None, None, None, *layer)
    classes = logits_weight.shape[0]
    known = (labels >= 0) & (labels < classes)
    own = labels.clamp(0, max(classes - 1, 0))
    logits = torch.einsum("kdhw,kd->khw", hidden, logits_weight.to(wide)[own])
    if logits_bias is not None:
        logits = logits + logits_bias.to(wide)[own][:, None, None]
    return torch.where(known[:, None, None], torch.sigmoid(logits), torch.nan).to(features.dtype)
