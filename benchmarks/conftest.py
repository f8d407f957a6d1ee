"""Turns workloads into tests: ``pytest benchmarks`` measures everything that can run here and prints a table."""

from __future__ import annotations

import pytest
import torch

from structops.bench import machine, results
from structops.bench.measure import FULL, QUICK, measure, settings
from structops.testing.workloads import Workload, workloads

LIMITS = pytest.StashKey[dict]()


def pytest_addoption(parser) -> None:
    group = parser.getgroup("structops benchmarks")
    group.addoption("--bench-quick", action="store_true", help="the short set, about a minute")
    group.addoption("--bench-op", action="append", default=[], metavar="OP", help="only this op; can be repeated")
    group.addoption("--bench-device", choices=("cpu", "cuda"), help="only this device; otherwise all that are there")
    group.addoption("--bench-backend", choices=("native", "triton", "reference"), help="only this backend")


def pytest_configure(config) -> None:
    config.addinivalue_line("python_files", "bench_*.py")
    config.addinivalue_line("markers", "workloads(op, kind): the workloads that a benchmark measures")
    config.stash[LIMITS] = {}


def _devices(config) -> list[str]:
    chosen = config.getoption("--bench-device")
    return [chosen] if chosen else ["cpu"] + ["cuda"] * torch.cuda.is_available()


def pytest_generate_tests(metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("workloads")
    if marker is None:
        return
    op, kind = marker.args
    config = metafunc.config
    wanted = config.getoption("--bench-op")
    found = [w for w in workloads()[op] if w.kind == kind and (not wanted or op in wanted)]
    if config.getoption("--bench-quick"):
        found = [w for w in found if w.quick]
    cases = []
    for device in _devices(config):
        marks = pytest.mark.benchmark(group=f"{op} {kind}, {device}", timer=machine.CLOCKS[device], disable_gc=True)
        for setting in settings(device, config.getoption("--bench-backend")):
            cases += [
                pytest.param(w, setting, id=f"{w.name}-{setting}", marks=marks) for w in found if device in w.devices
            ]
    metafunc.parametrize(("workload", "setting"), cases)


def pytest_collection_modifyitems(items) -> None:
    # A benchmark with nothing to measure (another op was asked for) is left as a test without a workload.
    items[:] = [item for item in items if isinstance(item.callspec.params["workload"], Workload)]


@pytest.fixture
def run(request, benchmark):
    """Checks and times a workload in a setting."""
    config = request.config
    budget = QUICK if config.getoption("--bench-quick") else FULL

    def run(workload, setting) -> None:
        known = config.stash[LIMITS]
        if setting.device not in known:
            known[setting.device] = machine.limits(torch.device(setting.device))
        measure(benchmark, workload, setting, budget, known[setting.device])

    return run


def pytest_benchmark_update_machine_info(config, machine_info) -> None:
    del machine_info["node"]  # the host's name is nobody's business
    machine_info["structops"] = {"machine": machine.describe(), "limits": config.stash[LIMITS]}


@pytest.hookimpl(trylast=True)  # below pytest-benchmark's own tables
def pytest_terminal_summary(terminalreporter, config) -> None:
    benchmarks = [b for b in config._benchmarksession.benchmarks if b.extra_info and not b.has_error]
    if not benchmarks:
        return
    terminalreporter.section("structops benchmarks")
    info = {"machine_info": {"structops": {"machine": machine.describe(), "limits": config.stash[LIMITS]}}}
    entries = [b.as_dict(include_data=False, flat=False, stats=True) for b in benchmarks]
    rows = results.from_json(info | {"benchmarks": entries}).rows
    terminalreporter.write_line(results.text_table(rows))
    for device, limits in config.stash[LIMITS].items():
        terminalreporter.write_line(results.limits_line(device, limits))
