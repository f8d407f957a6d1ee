"""What a call asks of a GPU, counted while it runs on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class _Calls(TorchDispatchMode):
    """Counts the calls that put work on a GPU, and those that wait for it."""

    QUIET = frozenset({"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh"})
    # torchvision's own ops are one call here and fill what they return on the GPU first (its sources).
    FILLS: ClassVar = {
        "roi_align": 1,
        "roi_pool": 2,
        "ps_roi_align": 2,
        "ps_roi_pool": 2,
        "_roi_align_backward": 1,
        "_roi_pool_backward": 1,
        "_ps_roi_align_backward": 1,
        "_ps_roi_pool_backward": 1,
    }
    # What ends in a number or a size that the host must know.
    WAITING = frozenset({"_local_scalar_dense", "nonzero", "_unique2", "is_nonzero", "equal", "masked_select"})

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.syncs = 0

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        name = function.overloadpacket.__name__
        returns = function._schema.returns
        view = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        self.launches += (not view and name not in self.QUIET) + self.FILLS.get(name, 0)
        masked = name == "index" and any(i is not None and i.dtype == torch.bool for i in arguments[1])
        self.syncs += name in self.WAITING or masked
        return function(*arguments, **(keywords or {}))


def calls_of(run: Callable[[], object]) -> tuple[int, int]:
    """aten calls of ``run`` that are neither views nor allocations, and those that wait for the GPU."""
    with _Calls() as calls:
        run()
    return calls.launches, calls.syncs
