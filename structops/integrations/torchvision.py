"""torchvision: its ops, and what its detectors do around their networks.

Contract: what torchvision accepts gives torchvision's types, dtypes and strides; what it refuses, it still refuses
itself, in its own words. Two things only are added: bfloat16 (and half precision NMS and rotated IoU), which
torchvision lacks, and an error instead of a stray read for a batch index out of range.

Some results are knowingly not torchvision's:

- RoI Pool's and position-sensitive RoI Pool's bins are exact: torchvision computes ``7 * (length / 7)`` in floating
  point, which for some lengths (57 pixels in float32, 29 in float64) is more than the length, and takes a pixel from
  outside the box.
- Position-sensitive RoI Pool passes no gradient to the map's last row and column, which neither library's forward
  reads.
- A box of area zero gives 0 and not NaN in adaptive position-sensitive RoI Align.
- IoUs of rotated boxes are exact: torchvision's are off by up to 0.4 for nearly parallel boxes, and 1 for a box a
  thousand pixels away that is small enough.
- An IoU that is no number (a ground truth with a NaN coordinate) matches nothing.
- A mask whose box lies wholly left of its image or above is nowhere in it, where torchvision fails; one whose box is
  thousands of images large takes no more memory than any other. On GPUs a pasted mask is what it is on the CPU, to the
  bit; torchvision's differs between the two in its last.
- A RoI that is not finite has keypoints that are NaN; torchvision fails.
- Of equal logits the best are those with the lower index, where torchvision takes any; a logit that is NaN, which
  torchvision takes first and then drops, is the last of its level.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any

import torch
import torchvision
import torchvision.ops
from torchvision.extension import _has_ops
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork

from structops import integrations
from structops.integrations import _torchvision_methods
from structops.integrations._torchvision_devices import patched, problem, set_patched, usable
from structops.integrations._torchvision_kernels import MAKERS

#: what keeps a function of torchvision's as an attribute
_HOLDERS = (RegionProposalNetwork, RoIHeads)

_roi_align_module: ModuleType = sys.modules["torchvision.ops.roi_align"]  # the attribute is the function of that name


@functools.cache
def _replacements(kind: str) -> tuple[Any, ...]:
    """The entries of every file ``_torchvision_*.py`` beside this one that has a tuple of that name."""
    names = [m.name for m in pkgutil.iter_modules(integrations.__path__) if m.name.startswith("_torchvision_")]
    modules = [importlib.import_module(f"{integrations.__name__}.{name}") for name in names]
    return sum((getattr(module, kind, ()) for module in modules), ())


def functions() -> tuple[tuple[Callable[..., Any], Callable[..., Any]], ...]:
    """``FUNCTIONS`` of all files: (torchvision's function, ours of the same name)."""
    return _replacements("FUNCTIONS")


def methods() -> tuple[_torchvision_methods.Method, ...]:
    """``METHODS`` of all files: (class, torchvision's method, ours of the same name)."""
    return _replacements("METHODS")


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


def _pickled_as_found(pairs: Iterable[tuple[Any, Any]]) -> Callable[[], None]:
    """Let functions say where they are to be found now, which is what pickle goes by. Returns what undoes it.

    Models hold functions (``RegionProposalNetwork.box_similarity`` is ``box_iou``) and are pickled whole, by
    ``torch.save`` and on their way to another process.
    """

    def move(function: Any, module: str, name: str) -> Callable[[], None]:
        before = function.__module__, function.__qualname__
        function.__module__, function.__qualname__ = module, name

        def back() -> None:
            function.__module__, function.__qualname__ = before

        return back

    undo = []
    for original, mine in pairs:
        place = original.__module__, original.__qualname__
        undo.append(move(original, mine.__module__, f"_torchvision_{original.__name__.lstrip('_')}"))
        undo.append(move(mine, *place))

    def undo_all() -> None:
        for back in undo:
            back()

    return undo_all


def _state(self: torch.nn.Module) -> dict[str, Any]:
    """A model's state to pickle: a file written under the patch is read without structops too."""
    mine_of = {original: mine for original, mine in functions()}
    return {k: mine_of.get(v, v) if isinstance(v, FunctionType) else v for k, v in vars(self).items()}


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
    as_before = _pickled_as_found(functions() if devices else ())
    if devices:
        _rebind(functions())
        _torchvision_methods.replace(methods())
        for holder in _HOLDERS:
            holder.__getstate__ = _state  # type: ignore[attr-defined]

    def restore() -> None:
        for holder in _HOLDERS:
            if vars(holder).get("__getstate__") is _state:
                del holder.__getstate__  # type: ignore[attr-defined]
        as_before()
        _torchvision_methods.restore(methods())
        _rebind((mine, original) for original, mine in functions())
        _roi_align_module._roi_align = deterministic  # type: ignore[attr-defined]
        library._destroy()
        set_patched(frozenset())

    return restore
