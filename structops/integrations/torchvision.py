"""torchvision: RoI pooling, NMS, IoU of boxes, matching of ground truths, and what detectors make of their heads.

Contract: what torchvision accepts gives torchvision's types, dtypes and strides; what it refuses, it still refuses
itself, in its own words. Two things only are added: bfloat16 (and half precision NMS and rotated IoU), which
torchvision lacks, and an error instead of a stray read for a batch index out of range.

Some results are knowingly not torchvision's. RoI Pool's and position-sensitive RoI Pool's bins are exact: torchvision
computes ``7 * (length / 7)`` in floating point, which for some lengths (57 pixels in float32, 29 in float64) is more
than the length, and takes a pixel from outside the box. Position-sensitive RoI Pool passes no gradient to the map's
last row and column, which neither library's forward reads. A box of area zero gives 0 and not NaN in adaptive
position-sensitive RoI Align. IoUs of rotated boxes are exact: torchvision's are off by up to 0.4 for nearly parallel
boxes, and 1 for a box a thousand pixels away that is small enough. An IoU that is no
number (a ground truth with a NaN coordinate) matches nothing.
"""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import torch
import torchvision
import torchvision.ops
from torchvision.extension import _has_ops
from torchvision.ops import poolers

from structops import ops
from structops._backend import OPS
from structops._checks import FLOATING
from structops.integrations import (
    _torchvision_boxes,
    _torchvision_detections,
    _torchvision_matching,
    _torchvision_methods,
)
from structops.integrations._torchvision_devices import patched, problem, set_patched, usable
from structops.integrations._torchvision_kernels import MAKERS, suppressible
from structops.ops._boxes import MAX_POOLED

# Captured when this module is first imported, which is before the first patch.
_torchvision_batched_nms = torchvision.ops.boxes.batched_nms
_torchvision_multiscale_roi_align = poolers._multiscale_roi_align
_roi_align_module: ModuleType = sys.modules["torchvision.ops.roi_align"]  # the attribute is the function of that name


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
        patched(boxes.device)
        and suppressible(boxes, scores, iou_threshold)
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


def _multiscale_roi_align(
    x_filtered: list[torch.Tensor],
    boxes: list[torch.Tensor],
    output_size: list[int],
    sampling_ratio: int,
    scales: list[float] | None,
    mapper: poolers.LevelMapper | None,
) -> torch.Tensor:
    """What :class:`torchvision.ops.MultiScaleRoIAlign` calls, in one launch for all levels and images.

    Args:
        x_filtered: one map ``[N, C, Hl, Wl]`` per level.
        boxes: one tensor ``[L, 4]`` (x1, y1, x2, y2) per image.
        output_size: of the crop.
        sampling_ratio: samples along each axis of a bin.
        scales: feature pixels per image pixel of each map.
        mapper: torchvision's rule for a box's level.

    Returns:
        ``[K, C, height, width]``.
    """
    if torch.jit.is_scripting():
        return _torchvision_multiscale_roi_align(x_filtered, boxes, output_size, sampling_ratio, scales, mapper)
    else:
        if (
            torch.jit.is_tracing()
            or scales is None
            or mapper is None
            or not _poolable_by_level(x_filtered, boxes, output_size, scales, mapper)
        ):
            return _torchvision_multiscale_roi_align(x_filtered, boxes, output_size, sampling_ratio, scales, mapper)
        options = (sampling_ratio, False, mapper.s0, mapper.lvl0)
        return ops.multiscale_roi_align(x_filtered, boxes, output_size, scales, *options).contiguous()


def _poolable_by_level(features, boxes, output_size, scales, mapper) -> bool:
    """Whether structops gives what torchvision would: the rest, errors included, is left to torchvision."""
    if type(mapper) is not poolers.LevelMapper or not 1 < len(features) <= 8:
        return False
    first = features[0]
    # torchvision's own levels, that is, of scales that are powers of two, one after the other
    levels = [round(-math.log2(scale)) if scale > 0 else None for scale in scales]
    return (
        patched(first.device)
        and first.dtype in FLOATING
        and len(scales) == len(features)
        and [2.0**-k for k in levels if k is not None] == list(scales)
        and levels == list(range(mapper.k_min, mapper.k_max + 1))
        and mapper.eps == 1e-6
        and mapper.s0 > 0
        and all(0 < n <= MAX_POOLED for n in output_size)
        and all(f.dim() == 4 and f.dtype == first.dtype and f.device == first.device for f in features)
        and len({f.shape[:2] for f in features}) == 1
        and len(boxes) > 0
        and all(
            b.dim() == 2
            and b.shape[1] == 4
            and b.device == first.device
            # Autocast makes both float32 before torchvision compares their types.
            and (b.dtype == first.dtype or (b.dtype in FLOATING and torch.is_autocast_enabled(first.device.type)))
            for b in boxes
        )
    )


FUNCTIONS = (
    (_torchvision_batched_nms, batched_nms),
    (_torchvision_multiscale_roi_align, _multiscale_roi_align),
)

#: More files of replacements, each with a tuple ``FUNCTIONS`` of pairs (torchvision's function, ours of the same name).
_MODULES: tuple[ModuleType, ...] = (_torchvision_boxes,)

#: Files of replaced methods, each with a tuple ``METHODS`` as ``_torchvision_methods.py`` has it.
_METHOD_MODULES: tuple[ModuleType, ...] = (_torchvision_detections, _torchvision_matching)


def methods() -> tuple[_torchvision_methods.Method, ...]:
    """Those of all files."""
    return sum((module.METHODS for module in _METHOD_MODULES), ())


def functions() -> tuple[tuple[Callable[..., Any], Callable[..., Any]], ...]:
    """(torchvision's function, the one that takes its place) of this file and of all others."""
    return sum((module.FUNCTIONS for module in _MODULES), FUNCTIONS)


def _deterministic_roi_align(original: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Stands in for the compiled Python version that torchvision takes on GPUs under the deterministic flag.

    structops' kernels are deterministic as they are.
    """

    def _roi_align(input, rois, *options):
        if not patched(input.device):
            return original(input, rois, *options)
        return torch.ops.torchvision.roi_align(input, rois, *options)

    return _roi_align


def _rebind(pairs: Iterable[tuple[Any, Any]]) -> None:
    """Point module-level names from each pair's first to its second: any in torchvision, its own name elsewhere."""
    by_id = {id(old): (old.__name__, new) for old, new in pairs}
    for module_name, module in list(sys.modules.items()):
        bound = getattr(module, "__dict__", None)
        if not isinstance(bound, dict) or module_name.startswith("structops.integrations"):
            continue
        if module_name == "torchvision" or module_name.startswith("torchvision."):
            for key, value in list(bound.items()):
                if id(value) in by_id:
                    bound[key] = by_id[id(value)][1]
        else:
            for old, (name, new) in by_id.items():
                if id(bound.get(name)) == old:
                    bound[name] = new


def install() -> Callable[[], None]:
    if not _has_ops():
        raise ImportError(
            "structops.patch: torchvision's compiled ops are not loaded; "
            f"torchvision {torchvision.__version__} probably does not match torch {torch.__version__}"
        )
    devices = usable()
    if not devices:
        warnings.warn(
            f"structops.patch: torchvision stays as it is, structops has no fast kernels here: {problem()}",
            RuntimeWarning,
            stacklevel=5,
        )
    library = torch.library.Library("torchvision", "IMPL")
    for device in sorted(devices):
        for op, make in MAKERS.items():
            if not hasattr(torch.ops.torchvision, op):  # older than the op
                continue
            original = torch.library.get_kernel(f"torchvision::{op}", device.upper())
            library.impl(op, make(original), device.upper(), with_keyset=True, allow_override=True)
    set_patched(devices)
    deterministic = _roi_align_module._roi_align
    replacement = _deterministic_roi_align(deterministic)
    _roi_align_module._roi_align = replacement  # type: ignore[attr-defined]
    if devices:
        _rebind(functions())
        _torchvision_methods.replace(methods())

    def restore() -> None:
        _torchvision_methods.restore(methods())
        _rebind((mine, original) for original, mine in functions())
        _roi_align_module._roi_align = deterministic  # type: ignore[attr-defined]
        library._destroy()
        set_patched(frozenset())

    return restore
