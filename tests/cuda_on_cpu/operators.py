"""The product's dispatcher ops, run by emulated CUDA kernels.

A binding is a pair of files: ``bindings/<op>.cpp`` lists the launchers, ``bindings/<op>.py`` has one function per
dispatcher op, with the op's name and its arguments after an :class:`Emulator`, and may have ``EXTRA`` cases.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from types import ModuleType

import torch

from structops.testing import Case

from . import bindings
from .emulator import Emulator


def _bindings() -> list[ModuleType]:
    names = [file.name for file in pkgutil.iter_modules(bindings.__path__) if not file.name.startswith("_")]
    return [importlib.import_module(f"{bindings.__name__}.{name}") for name in names]


def operators() -> dict[str, Callable[..., torch.Tensor]]:
    """Dispatcher op -> function that takes an emulator and the op's arguments."""
    found = {}
    for module in _bindings():
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                found[name] = function
    return found


def extra_cases() -> dict[str, tuple[Case, ...]]:
    """Public op -> cases beyond the database's, from the bindings' ``EXTRA``: paths that only larger sizes reach."""
    return {name: cases for module in _bindings() for name, cases in getattr(module, "EXTRA", {}).items()}


@contextlib.contextmanager
def emulated(emulator: Emulator) -> Iterator[None]:
    """In here the native kernels of CPU tensors are the CUDA kernels, run by ``emulator``.

    They take the place of the CPU kernels in the dispatcher, so that public functions, autograd formulas and the
    checks of :mod:`structops.testing` run on them unchanged.
    """
    library = torch.library.Library("structops", "IMPL")
    try:
        for name, function in operators().items():
            library.impl(name, _bound(function, emulator), "CPU", allow_override=True)
        yield
    finally:
        library._destroy()


def _bound(function: Callable[..., torch.Tensor], emulator: Emulator) -> Callable[..., torch.Tensor]:
    def kernel(*arguments):
        return function(emulator, *arguments)

    return kernel
