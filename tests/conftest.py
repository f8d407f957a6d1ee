"""Shared by every test: Triton's interpreter where there is no GPU, and the devices and backends to test."""

import os

import torch

# Workers share the cores: two threads in each of two workers on two cores wait for each other at every barrier, which
# made the values of one op take 78 s instead of 14. Threads are the business of the check of determinism.
if "PYTEST_XDIST_WORKER" in os.environ:
    threads = max((os.cpu_count() or 1) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]), 1)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # of processes that tests start
    torch.set_num_threads(threads)

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
    # Groups of tests in their order (see below), not by the number of tests in them.
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


#: What takes longest goes first, so that no worker ends alone with it; the first word of a path, or a name in an id.
LONGEST = ("static/test_triton_compile", "test_instruction_sets", "cuda_on_cpu/", "-triton")


def _group(item: pytest.Item) -> str | None:
    """Tests that one worker runs: what compiles for minutes is compiled once, what the definition says of a case is
    worked out once."""
    place = f"{item.path.parent.name}/{item.path.stem}"
    if item.path.parent.name in ("cuda_on_cpu", "static"):
        return place
    if item.path.stem == "test_instruction_sets":
        return item.path.stem
    key = getattr(item, "callspec", None) and item.callspec.params.get("key")
    if item.path.stem == "test_ops" and key and key[3] != "triton":
        return f"{key[0]}-{key[2]}"
    return None


def pytest_collection_modifyitems(config, items):
    if not config.pluginmanager.hasplugin("xdist"):
        return
    for item in items:
        group = _group(item)
        if group is not None:
            item.add_marker(pytest.mark.xdist_group(group))
    names = [f"{item.path.parent.name}/{item.path.name}::{item.name}" for item in items]
    turn = {name: next((i for i, part in enumerate(LONGEST) if part in name), len(LONGEST)) for name in names}
    items[:] = [item for _, item in sorted(zip(names, items, strict=True), key=lambda pair: turn[pair[0]])]


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
