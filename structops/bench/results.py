"""What was measured: read from pytest-benchmark's JSON, compared with an earlier run, printed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REGRESSION = 1.3  # slower by more than this counts; shared machines vary by 10-20 % from run to run


@dataclass(frozen=True)
class Peer:
    """The same workload by another library. ``ratio``: how many times as fast structops is; ``rounds``: 1 where one
    call took too long to repeat."""

    name: str
    median: float
    minimum: float
    rounds: int
    ratio: float

    @property
    def note(self) -> str:
        """Who it is, where not torchvision, and how it is not the same, in brackets."""
        library, _, difference = self.name.partition(", ")
        said = difference if library == "torchvision" else self.name
        return f" ({said})" if said else ""


@dataclass(frozen=True)
class Row:
    """One workload in one setting. Times in seconds."""

    op: str
    name: str
    title: str
    kind: str
    device: str
    backend: str
    cache: str
    median: float
    minimum: float
    rounds: int
    bytes: int
    flops: int
    floor: float
    bound: str
    series: str = ""
    size: int = 0
    peer: Peer | None = None

    @property
    def key(self) -> tuple[str, ...]:
        return self.op, self.name, self.device, self.backend, self.cache

    @property
    def setting(self) -> str:
        return " ".join(word for word in (self.device, self.backend, self.cache) if word)

    @property
    def share(self) -> float:
        """Of the floor: 1.0 would be as fast as the machine can copy or multiply."""
        return self.floor / self.median


@dataclass(frozen=True)
class Run:
    """``machine``: as :func:`structops.bench.machine.describe` gives it; ``limits``: by device."""

    machine: dict[str, Any]
    limits: dict[str, dict[str, float]]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Change:
    """Now over then, above 1 is slower: of the shortest times (``None`` between different machines) and of the ratio to
    the peer (``None`` where there was none)."""

    time: float | None
    against_peer: float | None

    def beyond(self, factor: float) -> bool:
        """Slower by more than ``factor`` in every way there is to tell: where the peer slowed down as well, it was the
        machine."""
        known = [change for change in (self.time, self.against_peer) if change is not None]
        return bool(known) and min(known) > factor


def from_json(document: dict[str, Any]) -> Run:
    about = document["machine_info"]["structops"]
    rows = []
    for entry in document["benchmarks"]:
        stats = entry["stats"]
        times = {"median": stats["median"], "minimum": stats["min"], "rounds": stats["rounds"]}
        info = dict(entry["extra_info"])
        peer = info.pop("peer", None)
        rows.append(Row(**info, **times, peer=Peer(**peer) if peer else None))
    return Run(about["machine"], about["limits"], tuple(rows))


def load(path: Path) -> Run:
    """Read a file written by ``structops bench --json`` (or ``pytest benchmarks --benchmark-json``).

    Raises:
        ValueError: with a sentence, when it cannot be read or is something else.
    """
    try:
        return from_json(json.loads(path.read_text()))
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path} is not a file written by structops bench --json") from None


def compare(now: Run, then: Run) -> dict[tuple[str, ...], Change]:
    """The change of every row that both runs have."""
    same_machine = all(now.machine.get(k) == then.machine.get(k) for k in ("processor", "cores", "threads", "gpu"))
    earlier = {row.key: row for row in then.rows}
    changes = {}
    for row in now.rows:
        old = earlier.get(row.key)
        if old is not None:
            before, after = old.peer, row.peer
            against_peer = None
            if before and after and before.name == after.name:
                against_peer = before.ratio / after.ratio
            changes[row.key] = Change(row.minimum / old.minimum if same_machine else None, against_peer)
    return changes


def duration(seconds: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            value = seconds / size
            break
    digits = max(2 - math.floor(math.log10(value)), 0) if value > 0 else 0
    return f"{value:.{min(digits, 2)}f} {unit}"


def times(ratio: float) -> str:
    return f"{ratio:.1f}x" if ratio >= 1 else f"{ratio:.2f}x"


def percent(share: float) -> str:
    return f"{share:.0%}" if share >= 0.1 else f"{share:.1%}" if share >= 0.001 else "<0.1%"


def cells(row: Row) -> list[str]:
    """A row of the table, as text."""
    peer = row.peer
    once = " (once)" if peer and peer.rounds == 1 else ""
    return [
        row.op,
        row.title,
        row.setting,
        f"{duration(row.median)} / {duration(row.minimum)}",
        f"{duration(peer.median)}{peer.note}{once}" if peer else "-",
        times(peer.ratio) if peer else "-",
        percent(row.share),
    ]


PEER = "torchvision"  # or whom the cell names
HEADINGS = ["op", "workload", "on", "median / min", PEER, "ratio", "of floor"]
TEXT_COLUMNS = ("op", "workload", "on")  # the others are figures


def ordered(rows: Sequence[Row]) -> list[Row]:
    """Sweeps last, otherwise as measured."""
    return sorted(rows, key=lambda row: (row.device, row.backend, row.cache, row.kind == "sweep"))


def table(rows: Sequence[Row], changes: Mapping[tuple[str, ...], str] | None = None) -> list[list[str]]:
    """Headings, then a line for each row; with ``changes``, a last column of them. Left out: where things ran, when all
    ran on the same device and backend, and the peer, when there is none."""
    rows = ordered(rows)
    lines = [list(HEADINGS), *map(cells, rows)]
    if changes is not None:
        for line, last in zip(lines, ["change", *(changes[row.key] for row in rows)], strict=True):
            line.append(last)
    dropped = {"on"} if len({row.setting for row in rows}) == 1 else set()
    if not any(row.peer for row in rows):
        dropped |= {PEER, "ratio"}
    kept = [i for i, heading in enumerate(lines[0]) if heading not in dropped]
    return [[line[i] for i in kept] for line in lines]


def text_table(rows: Sequence[Row]) -> str:
    """The table in plain text."""
    lines = table(rows)
    columns = []
    for heading, *column in zip(*lines, strict=True):
        width = max(map(len, (heading, *column)))
        align = str.ljust if heading in TEXT_COLUMNS else str.rjust
        columns.append([align(cell, width) for cell in (heading, *column)])
    return "\n".join("  ".join(line).rstrip() for line in zip(*columns, strict=True))


def markdown_table(rows: Sequence[Row]) -> str:
    """The table for a page."""
    headings, *lines = table(rows)
    rule = ["---" if heading in TEXT_COLUMNS else "---:" for heading in headings]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *lines))


def gigabytes(rate: float) -> str:
    return f"{rate / 1e9:,.{0 if rate >= 1e11 else 1}f} GB/s"


def flops(rate: float) -> str:
    return f"{rate / 1e12:,.0f} Tflop/s" if rate >= 1e13 else f"{rate / 1e9:,.0f} Gflop/s"


def limits_line(device: str, limits: dict[str, float]) -> str:
    rates = ", ".join(f"{name} {flops(rate)}" for name, rate in limits.items() if name != "bytes")
    return f"{device}: copy {gigabytes(limits['bytes'])}, matrix product {rates}"


def notes(run: Run) -> list[str]:
    """What the figures were measured on, a line each."""
    about = run.machine
    versions = ", ".join(f"{name} {about[name]}" for name in ("structops", "torch", "torchvision") if about.get(name))
    machine = f"{about['processor']}, {about['cores']} cores, {about['instruction set']}, {about['threads']} threads"
    gpu = f"; {about['gpu']}, CUDA {about['cuda']}" if about.get("gpu") else ""
    settings = ", ".join(sorted({row.setting for row in run.rows}))
    limits = [limits_line(device, found) for device, found in run.limits.items()]
    return [f"{machine}{gpu}; {versions}; measured on: {settings}", *limits]
