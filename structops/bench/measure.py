"""One workload, measured against its peer inside a pytest-benchmark test."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import dataclass

import torch

import structops
from structops.bench import machine
from structops.testing.workloads import Workload


@dataclass(frozen=True)
class Budget:
    """How long a workload is measured, in seconds of its own and its peer's calls together."""

    seconds: float
    rounds: int  # at least
    most: int = 200

    def count(self, once: float) -> int:
        return min(max(int(self.seconds / max(once, 1e-9)), self.rounds), self.most)


QUICK, FULL = Budget(0.6, 3), Budget(4.0, 6)

#: Calls of one side before it is the other's turn. A loop calls an op again and again; after a pause of a second the
#: first call meets caches, and on some virtual machines memory, that were taken away meanwhile.
TURN = 3


@dataclass(frozen=True)
class Setting:
    """Where and how a workload runs. ``cache``: ``"cold"`` or ``"hot"`` on a GPU, where a network may leave either
    behind; empty on a CPU, whose caches the peer's turn in between washes out."""

    device: str
    backend: str
    cache: str = ""

    def __str__(self) -> str:
        return "-".join(word for word in (self.device, self.backend, self.cache) if word)


def settings(device_type: str, backend: str | None = None) -> list[Setting]:
    """Every setting of a device that can run here; the reference is nobody's choice for speed and is left out."""
    backends = [backend] if backend else ["native", "triton"]
    usable = [b for b in backends if structops._backend.unusable(b, device_type) is None]
    if device_type == "cpu":
        # Triton on a CPU is an interpreter: timing it says nothing.
        return [Setting("cpu", b) for b in usable if b != "triton"]
    return [Setting(device_type, b, cache) for b, cache in itertools.product(usable, ("cold", "hot"))]


def measure(benchmark, workload: Workload, setting: Setting, budget: Budget, limits: dict[str, float]) -> None:
    """Check a workload's result, then time it in turns of ``TURN`` calls with its peer.

    Neighbouring turns share whatever else the machine is doing, so the median of their ratios is steadier than the
    ratio of medians. A peer too slow for the budget is timed once, in the call that the result is checked against.

    Args:
        benchmark: pytest-benchmark's fixture; its clock must be that of the device.
        limits: what :func:`structops.bench.machine.limits` gave.
    """
    device = torch.device(setting.device)
    with structops.backend(setting.backend):
        trial = workload.make(device)
        caches = machine.Caches(device, setting.cache)
        result, _ = machine.seconds(trial.run, device.type)
        peer_result, peer_once = machine.seconds(trial.peer, device.type) if trial.peer else (None, 0.0)
        trial.check(result, peer_result)
        cost = trial.cost(result)
        del result, peer_result
        _, once = machine.seconds(trial.run, device.type)

        peer_times: list[float] = []
        in_turns = trial.peer is not None and peer_once * budget.rounds <= 6 * budget.seconds
        calls = itertools.count()

        def before() -> None:
            if in_turns and trial.peer is not None and next(calls) % TURN == 0:
                for _ in range(min(TURN, rounds - len(peer_times))):
                    caches.prepare()
                    peer_times.append(machine.seconds(trial.peer, device.type)[1])
            caches.prepare()

        rounds = budget.count(once + peer_once if in_turns else once)
        benchmark.pedantic(trial.run, setup=before, rounds=rounds, iterations=1)
    if benchmark.disabled:
        return
    times = list(benchmark.stats.stats.data)
    floor, bound = machine.floor(cost, workload.dtype, limits)
    info: dict[str, object] = {
        "op": workload.op,
        "name": workload.name,
        "title": workload.title,
        "kind": workload.kind,
        "series": workload.series,
        "size": workload.size,
        "device": setting.device,
        "backend": setting.backend,
        "cache": setting.cache,
        "bytes": cost.bytes,
        "flops": cost.flops,
        "floor": floor,
        "bound": bound,
    }
    if trial.peer is not None:
        pairs = list(zip(peer_times, times, strict=True)) if in_turns else [(peer_once, statistics.median(times))]
        peer_times = peer_times or [peer_once]
        info["peer"] = {
            "name": trial.peer_name,
            "median": statistics.median(peer_times),
            "minimum": min(peer_times),
            "rounds": len(peer_times),
            "ratio": statistics.median(theirs / ours for theirs, ours in pairs),
        }
    benchmark.extra_info.update(info)
