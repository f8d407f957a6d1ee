"""Mask R-CNN's mask head, from its last features to probabilities: public function, fake kernel, checks."""

from __future__ import annotations

import torch

from structops import _checks
from structops._backend import Op
from structops._checks import require
from structops.ops.conv_transpose2d import lowered

OP = "mask_head_predict"


def mask_head_predict(
    features: torch.Tensor,
    deconv_weight: torch.Tensor,
    deconv_bias: torch.Tensor | None,
    logits_weight: torch.Tensor,
    logits_bias: torch.Tensor | None,
    labels: torch.Tensor,
) -> torch.Tensor:
    """Mask probabilities of each RoI for its own class (He et al., "Mask R-CNN", 2017): transposed convolution of
    kernel and stride 2, ReLU, 1x1 convolution, sigmoid.

    The map between the two layers is never written, and of the classes only the RoI's own is computed: with 91 classes
    that is 1% of the second layer's work. The same as ``sigmoid(mask_predictor(features))[range(K), labels]``.

    Args:
        features: ``[K, Cin, H, W]``, what the head's convolutions give for each RoI; float16, bfloat16, float32 or
            float64; contiguous or channels_last.
        deconv_weight: ``[Cin, D, 2, 2]``, and deconv_bias: ``[D]`` or ``None``: torchvision's
            ``mask_predictor.conv5_mask``.
        logits_weight: ``[classes, D, 1, 1]`` or ``[classes, D]``, and logits_bias: ``[classes]`` or ``None``:
            torchvision's ``mask_predictor.mask_fcn_logits``.
        labels: ``[K]``, integer, in [0, classes).

    Returns:
        ``[K, 1, 2 H, 2 W]`` probabilities of the type of ``features``. Everything up to the one rounding at the end is
        at least float32. Not differentiable. Under autocast, features, weights and biases are cast to the lower type,
        as torch does.

    Raises:
        RuntimeError: for a wrong rank, size, dtype or device, and on CPU for a label out of range (on a GPU, where
            looking would cost a host sync, that RoI is NaN).
    """
    for name, tensor in (("features", features), ("deconv_weight", deconv_weight), ("logits_weight", logits_weight)):
        require(
            isinstance(tensor, torch.Tensor),
            lambda name=name, tensor=tensor: f"{OP}: {name} must be a tensor, got {type(tensor).__name__}",  # type: ignore[misc]
        )
    require(isinstance(labels, torch.Tensor), lambda: f"{OP}: labels must be a tensor, got {type(labels).__name__}")
    if logits_weight.dim() == 4:
        message = f"{OP}: logits_weight must be [classes, D, 1, 1] or [classes, D], got {list(logits_weight.shape)}"
        for size in logits_weight.shape[2:]:
            require(size == 1, lambda: message)
        logits_weight = logits_weight[:, :, 0, 0]
    kind = features.device.type
    tensors = (features, deconv_weight, deconv_bias, logits_weight, logits_bias)
    cast = [t.to(lowered(kind, t.dtype)) if isinstance(t, torch.Tensor) else t for t in tensors]
    return _mask_head_predict(*cast, labels)[:, None]


# csrc/mask_head_predict/mask_head_checks.h has the same.
def _check(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels) -> None:
    _checks.floating(OP, "features", features)
    require(features.dim() == 4, lambda: f"{OP}: features must be [K, C, H, W], got {features.dim()} dimensions")
    tensors = {"deconv_weight": deconv_weight, "deconv_bias": deconv_bias}
    tensors |= {"logits_weight": logits_weight, "logits_bias": logits_bias}
    for name, tensor in tensors.items():
        if tensor is not None:
            message = f"{OP}: {name} must have the type of features"
            require(tensor.dtype == features.dtype, lambda message=message: message)  # type: ignore[misc]
            _checks.same_device(OP, name, tensor, "features", features)
    rois, channels = features.shape[:2]
    shape = list(deconv_weight.shape)
    _require_shape("deconv_weight", deconv_weight, (channels, *shape[1:2], 2, 2), f"[{channels}, D, 2, 2]")
    hidden = shape[1]
    classes = logits_weight.shape[0] if logits_weight.dim() else 0
    _require_shape(
        "logits_weight", logits_weight, (classes, hidden), f"[classes, {hidden}, 1, 1] or [classes, {hidden}]"
    )
    for name, vector, size in (("deconv_bias", deconv_bias, hidden), ("logits_bias", logits_bias, classes)):
        if vector is not None:
            _require_shape(name, vector, (size,), f"[{size}]")
    _checks.integer(OP, "labels", labels)
    _checks.same_device(OP, "labels", labels, "features", features)
    _require_shape("labels", labels, (rois,), f"[{rois}], one for each RoI")
    if labels.device.type == "cpu" and not torch.compiler.is_compiling() and type(labels) is torch.Tensor:
        bad = ~((labels >= 0) & (labels < classes))
        require(
            not bool(bad.any()),
            lambda: f"{OP}: labels[{int(bad.nonzero()[0])}] is {int(labels[bad][0])}, but must be in [0, {classes})",
        )


def _require_shape(name: str, tensor, shape, words: str) -> None:
    message = f"{OP}: {name} must be {words}, got {list(tensor.shape)}"
    require(tensor.dim() == len(shape), lambda: message)
    for size, wanted in zip(tensor.shape, shape, strict=True):
        require(size == wanted, lambda: message)


def _fake(features, deconv_weight, deconv_bias, logits_weight, logits_bias, labels):
    rois, _, height, width = features.shape
    return features.new_empty((rois, 2 * height, 2 * width))


_mask_head_predict = Op(OP, module=OP, check=_check, fake=_fake)
