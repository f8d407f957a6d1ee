"""The device types on which torchvision is patched at the moment: what every replacement asks before anything else."""

from __future__ import annotations

import torch

from structops._backend import current_backend, unusable
from structops._libraries import loaded

_patched: frozenset[str] = frozenset()


def patched(device: torch.device) -> bool:
    return device.type in _patched


def set_patched(devices: frozenset[str]) -> None:
    global _patched
    _patched = devices


def usable() -> frozenset[str]:
    """Where structops has fast kernels, or was told which backend to use."""

    def worthwhile(device: str) -> bool:
        if not torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", device.upper()):
            return False  # a torchvision that was not built for this device goes on refusing it
        if current_backend() == "reference":
            return True
        return loaded("_C") and (unusable("native", device) is None or unusable("triton", device) is None)

    return frozenset(device for device in ("cpu", "cuda") if worthwhile(device))


def problem() -> str | None:
    """Why none of them is."""
    return unusable("native", "cpu")
