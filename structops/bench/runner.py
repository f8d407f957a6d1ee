"""Runs the files of ``benchmarks/`` under pytest, inside this process, and says how far it is."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structops


def folder() -> Path:
    """Where the benchmark files are: installed as ``structops.benchmarks``, beside the package in a checkout.

    Raises:
        FileNotFoundError: when they are in neither place.
    """
    found = importlib.util.find_spec("structops.benchmarks")
    places = list(found.submodule_search_locations or ()) if found else []
    for place in (*map(Path, places), Path(structops.__file__).parents[1] / "benchmarks"):
        if (place / "conftest.py").is_file():
            return place
    raise FileNotFoundError("the benchmarks are not installed beside structops")


@dataclass
class Progress:
    """A pytest plugin that reports to whoever is watching.

    Attributes:
        begin: called with the number of measurements, before the first.
        step: called with the name of the measurement that starts, and how many are done.
        failures: name and reason of each that failed.
    """

    begin: Callable[[int], None]
    step: Callable[[str, int], None]
    failures: list[tuple[str, str]] = field(default_factory=list)
    done: int = 0
    titles: dict[str, str] = field(default_factory=dict)

    def pytest_collection_finish(self, session) -> None:
        for item in session.items:
            workload, setting = item.callspec.params["workload"], item.callspec.params["setting"]
            self.titles[item.nodeid] = f"{workload.op} {workload.title}, {setting}"
        self.begin(len(session.items))

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.step(self.titles[nodeid], self.done)

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.done += 1
        self.step(self.titles[nodeid], self.done)

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = crash.message if crash else str(report.longrepr)
            self.failures.append((self.titles[report.nodeid], reason.strip().splitlines()[0]))


def run(
    progress: Progress,
    json: Path,
    ops: list[str],
    quick: bool,
    device: str | None = None,
    backend: str | None = None,
) -> tuple[int, str]:
    """Measure and write pytest-benchmark's JSON.

    Returns:
        pytest's exit status, and all that it printed.
    """
    import pytest

    place = folder()
    # Nothing of the directory that the user happens to stand in: neither its pytest.ini nor its cache. One process.
    options = ["-c", os.devnull, f"--rootdir={place}", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["--import-mode=importlib", "-q"]
    options += [f"--benchmark-json={json}", *(f"--bench-op={op}" for op in ops)]
    options += ["--bench-quick"] * quick
    options += [f"--bench-device={device}"] if device else []
    options += [f"--bench-backend={backend}"] if backend else []
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = pytest.main([str(place), *options, "--capture=no"], plugins=[progress])
    return int(status), printed.getvalue()
