"""Builds and starts the emulated libraries once per session; skips, with the reason, where that cannot be."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import toolchain
from .emulator import Emulator


def _emulators(library: str) -> Iterator[dict[str, Emulator]]:
    problem = toolchain.unavailable()
    if problem is not None:
        pytest.skip(f"the CUDA emulator cannot be built: {problem}")
    paths = toolchain.build(library)
    emulators = {flavour: Emulator(path, flavour) for flavour, path in paths.items()}
    yield emulators
    for emulator in emulators.values():
        emulator.close()


@pytest.fixture(scope="session")
def harness() -> Iterator[dict[str, Emulator]]:
    """The harness's own test kernels by flavour."""
    yield from _emulators("harness")


@pytest.fixture(scope="session")
def product() -> Iterator[dict[str, Emulator]]:
    """The product's kernels by flavour."""
    yield from _emulators("product")
