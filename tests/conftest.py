"""Shared by every test: Triton's interpreter where there is no GPU, and the devices and backends to test."""

import os

import torch

# Triton reads this when it is imported, and decorates its kernels for good.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

import structops
from structops import testing

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def pytest_configure(config):
    # NumPy, inside the interpreter, warns of the NaN and infinities that hostile cases are made of.
    config.addinivalue_line("filterwarnings", "ignore::RuntimeWarning:triton.runtime.interpreter")


def pytest_collection_modifyitems(config, items):
    # Run in parallel, what compiles for minutes is compiled by one process: a group stays together.
    if config.pluginmanager.hasplugin("xdist"):
        for item in items:
            if item.path.parent.name in ("cuda_on_cpu", "static"):
                item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{item.path.stem}"))


def places() -> list[tuple[str, str]]:
    """(device, backend), each that can run here."""
    return [(device, backend) for device in DEVICES for backend in testing.usable_backends(device)]


@pytest.fixture(params=places(), ids="-".join)
def place(request):
    """A device, with structops on one of its backends."""
    device, backend = request.param
    with structops.backend(backend):
        yield device


@pytest.fixture
def g():
    return torch.Generator().manual_seed(0)
