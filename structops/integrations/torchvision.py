"""torchvision: its RoI Align, NMS and batched NMS.

Contract: what torchvision accepts gives torchvision's types, dtypes and strides; what it refuses, it still refuses
itself, in its own words. Two things only are added: bfloat16 (and half precision NMS on CPU), which torchvision
lacks, and an error instead of a stray read for a batch index out of range.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torchvision
import torchvision.ops
from torchvision.extension import _has_ops

from structops._backend import OPS, current_backend, unusable
from structops._checks import FLOATING
from structops._libraries import loaded

# Captured when this module is first imported, which is before the first patch.
_torchvision_batched_nms = torchvision.ops.boxes.batched_nms
_roi_align_module: ModuleType = sys.modules["torchvision.ops.roi_align"]  # the attribute is the function of that name

_devices: frozenset[str] = frozenset()  # the patched ones


def _usable_devices() -> frozenset[str]:
    """Where structops has fast kernels, or was told which backend to use."""

    def worthwhile(device: str) -> bool:
        if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", device.upper()):
            return False  # a torchvision that was not built for this device goes on refusing it
        if current_backend() == "reference":
            return True
        return loaded("_C") and (unusable("native", device) is None or unusable("triton", device) is None)

    return frozenset(device for device in ("cpu", "cuda") if worthwhile(device))


def _roi_align(original: Any) -> Callable[..., torch.Tensor]:
    def roi_align(keys, input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned):
        # input [N, C, H, W], rois [K, 5]
        arguments = (input, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned)
        if not _poolable(*arguments[:5]):
            return original.call_boxed(keys, *arguments)
        # torchvision's output is contiguous whatever the input, and its fake kernel promises so to compiled code.
        return OPS["roi_align"](*arguments).contiguous()

    return roi_align


def _roi_align_backward(original: Any) -> Callable[..., torch.Tensor]:
    def roi_align_backward(keys, grad, rois, spatial_scale, pooled_height, pooled_width, *rest):
        # grad [K, C, PH, PW], rois [K, 5]; rest: input sizes, sampling_ratio, aligned
        arguments = (grad, rois, spatial_scale, pooled_height, pooled_width, *rest)
        if not _poolable(*arguments[:5]):
            return original.call_boxed(keys, *arguments)
        return OPS["roi_align_backward"](*arguments).contiguous()

    return roi_align_backward


def _poolable(features, rois, spatial_scale, pooled_height, pooled_width) -> bool:
    return (
        features.dim() == 4
        and rois.dim() == 2
        and rois.shape[1] == 5
        and features.dtype == rois.dtype
        and features.dtype in FLOATING
        and features.device == rois.device
        and pooled_height > 0
        and pooled_width > 0
        and 0 < spatial_scale < float("inf")
    )


def _nms(original: Any) -> Callable[..., torch.Tensor]:
    def nms(keys, dets, scores, iou_threshold):
        # dets [N, 4], scores [N]
        if not _suppressible(dets, scores, iou_threshold) or dets.dtype != scores.dtype:
            return original.call_boxed(keys, dets, scores, iou_threshold)
        return OPS["nms"](dets, scores, iou_threshold)

    return nms


def _suppressible(boxes, scores, iou_threshold) -> bool:
    return (
        boxes.dim() == 2
        and boxes.shape[1] == 4
        and scores.dim() == 1
        and scores.shape[0] == boxes.shape[0]
        and boxes.dtype in FLOATING
        and scores.dtype in FLOATING
        and boxes.device == scores.device
        and iou_threshold >= 0  # torchvision takes a negative one and keeps a single box
    )


def batched_nms(
    boxes: torch.Tensor,
    scores: torch.Tensor,
    idxs: torch.Tensor,
    iou_threshold: float,
) -> torch.Tensor:
    """``torchvision.ops.batched_nms``, exact: classes never interact, whatever the coordinates' size and sign.

    Args:
        boxes: ``[N, 4]`` (x1, y1, x2, y2).
        scores: ``[N]``.
        idxs: ``[N]`` class of each box, any dtype.
        iou_threshold: boxes that overlap a better one of their class by more are dropped.

    Returns:
        int64 indices of the kept boxes by falling score, ties by the lower index.
    """
    # Scripted and traced models are often saved: they get torchvision's own code, and the patched nms under it.
    if torch.jit.is_scripting():
        return _torchvision_batched_nms(boxes, scores, idxs, iou_threshold)
    else:
        if torch.jit.is_tracing() or not _suppressible_by_class(boxes, scores, idxs, iou_threshold):
            return _torchvision_batched_nms(boxes, scores, idxs, iou_threshold)
        return OPS["batched_nms"](boxes, scores, _integer_classes(idxs.to(boxes.device)), iou_threshold)


def _suppressible_by_class(boxes, scores, idxs, iou_threshold) -> bool:
    return (
        boxes.device.type in _devices
        and _suppressible(boxes, scores, iou_threshold)
        # Autocast makes both float32 before torchvision compares their types.
        and (boxes.dtype == scores.dtype or torch.is_autocast_enabled(boxes.device.type))
        and idxs.dim() == 1
        and idxs.shape[0] == boxes.shape[0]
        and not idxs.is_complex()
    )


def _integer_classes(idxs: torch.Tensor) -> torch.Tensor:
    """``[N]`` integers, equal where the classes are equal."""
    if idxs.is_floating_point():
        # Every float16, bfloat16 and float32 is a double, and equal doubles have equal bits but for the two zeros.
        idxs = idxs.double()
        return torch.where(idxs == 0, 0.0, idxs).view(torch.int64)
    return idxs.to(torch.int64)


def _deterministic_roi_align(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Stands in for the compiled Python version that torchvision takes on GPUs under the deterministic flag.

    structops' kernels are deterministic as they are.
    """

    def _roi_align(input, rois, *options):
        if input.device.type not in _devices:
            return original(input, rois, *options)
        return torch.ops.torchvision.roi_align(input, rois, *options)

    return _roi_align


def _rebind(name: str, old: Any, new: Any) -> None:
    """Point every module-level name that is ``old`` to ``new``: any in torchvision, only ``name`` elsewhere."""
    for module_name, module in list(sys.modules.items()):
        names = getattr(module, "__dict__", None)
        if not isinstance(names, dict):
            continue
        if module_name == "torchvision" or module_name.startswith("torchvision."):
            for key in [key for key, value in list(names.items()) if value is old]:
                names[key] = new
        elif module_name != __name__ and names.get(name) is old:
            names[name] = new


def install() -> Callable[[], None]:
    global _devices
    if not _has_ops():
        raise ImportError(
            "structops.patch: torchvision's compiled ops are not loaded; "
            f"torchvision {torchvision.__version__} probably does not match torch {torch.__version__}"
        )
    devices = _usable_devices()
    if not devices:
        warnings.warn(
            f"structops.patch: torchvision stays as it is, structops has no fast kernels here: "
            f"{unusable('native', 'cpu')}",
            RuntimeWarning,
            stacklevel=5,
        )
    library = torch.library.Library("torchvision", "IMPL")
    kernels = {"roi_align": _roi_align, "_roi_align_backward": _roi_align_backward, "nms": _nms}
    for device in sorted(devices):
        for op, make in kernels.items():
            original = torch.library.get_kernel(f"torchvision::{op}", device.upper())
            library.impl(op, make(original), device.upper(), with_keyset=True, allow_override=True)
    _devices = devices
    deterministic = _roi_align_module._roi_align
    replacement = _deterministic_roi_align(deterministic)
    _roi_align_module._roi_align = replacement  # type: ignore[attr-defined]
    if devices:
        _rebind("batched_nms", _torchvision_batched_nms, batched_nms)

    def restore() -> None:
        global _devices
        _rebind("batched_nms", batched_nms, _torchvision_batched_nms)
        _roi_align_module._roi_align = deterministic  # type: ignore[attr-defined]
        library._destroy()
        _devices = frozenset()

    return restore
