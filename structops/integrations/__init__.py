"""Runs other libraries' detectors on structops, reversibly.

Each file of this package whose name has no leading underscore is one integration, named like the library that it
patches, with a function ``install()`` that applies the patch and returns the function that takes it back.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import pkgutil
import threading
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

SUPPORTED = tuple(sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_")))
OPT_IN = ("torch",)  # patched only by name


class _Integration:
    """Who wants one library patched; the patch is in place as long as anybody does."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.calls = 0  # plain patch() calls, until unpatch()
        self.scopes = 0  # with blocks and running decorated functions
        self.epoch = 0  # counts unpatch(): what was held before it has nothing left to release
        self.restore: Callable[[], None] | None = None

    def settle(self) -> None:
        wanted = self.calls + self.scopes > 0
        if wanted and self.restore is None:
            self.restore = importlib.import_module(f"{__name__}.{self.name}").install()
        elif not wanted and self.restore is not None:
            restore, self.restore = self.restore, None
            restore()


_integrations = {name: _Integration(name) for name in SUPPORTED}
_lock = threading.RLock()  # the dispatcher and other people's modules belong to the process, so one lock for all


def _validated(names: tuple[Any, ...], function: str) -> tuple[str, ...]:
    for name in names:
        if not isinstance(name, str) or name not in _integrations:
            hint = f"; as a decorator: @structops.{function}()" if callable(name) else ""
            raise ValueError(f"structops.{function}: {name!r} is not supported; {' and '.join(SUPPORTED)} are{hint}")
    return tuple(dict.fromkeys(names))


class Patch:
    """What :func:`patch` returns: leave it alone, enter it with ``with``, or decorate a function with it."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names
        self._call: dict[str, int] = {}  # integration -> epoch: the hold of the patch() call itself
        self._entered: list[dict[str, int]] = []
        with _lock:
            self._call = self._acquire("calls")

    def _acquire(self, kind: str) -> dict[str, int]:
        held: dict[str, int] = {}
        try:
            for name in self.names:
                integration = _integrations[name]
                setattr(integration, kind, getattr(integration, kind) + 1)
                held[name] = integration.epoch
                integration.settle()
        except BaseException:
            self._release(kind, held)
            raise
        return held

    def _release(self, kind: str, held: dict[str, int]) -> None:
        for name, epoch in held.items():
            integration = _integrations[name]
            if integration.epoch == epoch:
                setattr(integration, kind, getattr(integration, kind) - 1)
                integration.settle()
        held.clear()

    def __enter__(self) -> Patch:
        with _lock:
            self._entered.append(self._acquire("scopes"))
            self._release("calls", self._call)  # the block, not the call, now says how long
        return self

    def __exit__(self, *exception: object) -> None:
        with _lock:
            self._release("scopes", self._entered.pop())

    def __call__(self, function: Function) -> Function:
        if not callable(function):
            raise TypeError(f"structops.patch(...) decorates functions, got {type(function).__name__}")
        with _lock:
            self._release("calls", self._call)
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def patched(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return await function(*args, **kwargs)

        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def patched(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return (yield from function(*args, **kwargs))

        else:

            @functools.wraps(function)
            def patched(*args: Any, **kwargs: Any) -> Any:
                with self:
                    return function(*args, **kwargs)

        return patched  # type: ignore[return-value]

    def __repr__(self) -> str:
        return f"structops.patch({', '.join(map(repr, self.names))})"


def patch(*names: str) -> Patch:
    """Run other libraries' detectors on structops, with no change to their code.

    >>> structops.patch("torchvision")  # from here on, until structops.unpatch()
    >>> with structops.patch("torchvision"):  # inside the block
    ...     boxes = model(images)
    >>> @structops.patch("torchvision")  # while the function runs
    ... def detect(images): ...

    Args:
        names: libraries to patch; none: every supported one that is installed, except ``"torch"``.
            ``"torchvision"``: ``roi_align`` with its gradient and ``nms``, replaced in PyTorch's dispatcher so that
            scripted and compiled models run on structops too; ``batched_nms``, ``sigmoid_focal_loss`` and the four IoUs
            of boxes; and what Faster, Mask and Keypoint R-CNN, RetinaNet, FCOS and SSD do around their networks:
            anchors, matching, proposals, detections.
            ``"torch"``: ``torch.nn.functional.conv_transpose2d``, and so ``torch.nn.ConvTranspose2d``, in inference and
            for the types and sizes for which structops' kernel is the faster one; the results are torch's but for
            rounding.

    Calling again changes nothing; blocks nest, in any thread. The patch is **process-wide**: it holds in every thread
    while any ``with`` block or decorated call is running anywhere, or since a plain call, and goes when the last one
    leaves. Results keep torchvision's types, dtypes and strides. What structops does not take (integer boxes, a
    negative threshold, a device for which it has no fast kernels) still goes to the library's own code.

    PyTorch does not lock its dispatcher against calls under way. Blocks in several threads are safe with each other,
    but do not let the first one open or the last one close while another thread, outside any, runs a patched op.

    Raises:
        ValueError: for a library that is not supported.
        ImportError: for one that is not installed.
    """
    chosen = _validated(names, "patch")
    unasked = tuple(name for name in SUPPORTED if name not in OPT_IN)
    missing = [name for name in chosen or unasked if find_spec(name) is None]
    if chosen and missing:
        raise ImportError(f"structops.patch: {missing[0]} is not installed (pip install {missing[0]})", name=missing[0])
    chosen = chosen or tuple(name for name in unasked if name not in missing)
    if not chosen:
        raise ImportError(f"structops.patch: nothing to patch: of {', '.join(unasked)}, none is installed")
    for name in chosen:
        importlib.import_module(name)  # outside the lock: an import may run anybody's code
    return Patch(chosen)


def unpatch(*names: str) -> None:
    """Take every patch back at once, whoever applied it; ``with`` blocks still open lose theirs.

    Args:
        names: libraries; none: all. One that is not patched is left as it is.

    Raises:
        ValueError: for a library that is not supported.
    """
    with _lock:
        for name in _validated(names, "unpatch") or SUPPORTED:
            integration = _integrations[name]
            integration.calls = integration.scopes = 0
            integration.epoch += 1
            integration.settle()
