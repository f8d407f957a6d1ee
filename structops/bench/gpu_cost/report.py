"""The counted costs as tables, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from structops.bench.gpu_cost import sass
from structops.bench.gpu_cost.estimates import Estimate, count
from structops.bench.gpu_cost.gpu import H200, Gpu
from structops.bench.gpu_cost.scenes import OPS

HEADINGS = [
    "op",
    "workload",
    "launches",
    "instr./output",
    "fewest MB",
    "L2 MB",
    "memory",
    "L2",
    "L1",
    "issue",
    "least us",
    "registers",
    "shared",
    "occupancy",
]
TEXT_COLUMNS = ("op", "workload")

EXPLANATION = """\
An estimate, made without a GPU. Where a cell has two figures, the first is structops', the second torchvision's (which
is given float32, contiguous). **Instructions** are counted in the machine code for sm_90 that is in the two
libraries: those in a loop and in no loop further in, times the turns that the boxes of the workload make a warp take,
and the rest once; for each output element (of a backward: of the features' gradient). Branches inside a loop are all
taken to run, the slow path of a division not; stalls are not counted. **Fewest MB** is what any implementation has to
read and write; **L2 MB** is what the kernels ask of the L2 cache beyond their outputs, each 32-byte sector once for as
long as a block's share of the L1 cache can be expected to hold it. **memory, L2, L1, issue**: the microseconds that
structops' kernels need at least by each of these limits (torchvision's bytes include clearing what it adds to, and
copies); **least** is the largest of them: what these kernels can hardly be faster than, and may well be slower.
**Launches** of structops
are the kernels on its path, of torchvision its aten calls and the fills inside its own; "+ n syncs": times that the
host waits for the GPU."""


def limits(gpu: Gpu = H200) -> str:
    issue = gpu.multiprocessors * gpu.issued_a_clock * gpu.clock
    return (
        f"{gpu.name}: memory {gpu.memory / 1e12:g} TB/s (a large copy, measured on one); "
        f"L2 cache {gpu.l2 / 1e12:g} TB/s (assumed: about what others read from an H100's); {gpu.multiprocessors} "
        f"multiprocessors, each {gpu.issued_a_clock} warp instructions and one L1 line a clock at "
        f"{gpu.clock / 1e9:g} GHz: {issue / 1e9:,.0f} G instructions a second."
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def cells(estimate: Estimate, strong: str = "") -> list[str]:
    """A row as text; ``strong`` is put around the limit that binds."""
    own, peer = estimate.own, estimate.peer

    def both(get, form=_number) -> str:
        return f"{form(get(own))} / {form(get(peer))}" if peer else form(get(own))

    def launches(side) -> str:
        return f"{side.launches} + {side.syncs} syncs" if side.syncs else f"{side.launches}"

    times = [
        f"{strong}{_number(time * 1e6)}{strong}" if limit == own.limit else _number(time * 1e6)
        for limit, time in own.times.items()
    ]
    least = (
        f"{_number(own.least * 1e6)} / {_number(peer.least * 1e6)} ({peer.limit})" if peer else _number(own.least * 1e6)
    )
    return [
        estimate.op,
        estimate.title,
        both(launches, str),
        both(lambda side: side.instructions),
        _number(estimate.cost.bytes / 1e6),
        both(lambda side: side.l2_bytes / 1e6),
        *times,
        least,
        both(lambda side: side.registers, str),
        f"{own.shared / 1024:.1f} K" if own.shared else "-",
        both(lambda side: side.occupancy, lambda share: f"{share:.0%}"),
    ]


def table(estimates: Sequence[Estimate], strong: str = "") -> list[list[str]]:
    return [HEADINGS, *(cells(estimate, strong) for estimate in estimates)]


def markdown(estimates: Sequence[Estimate]) -> str:
    headings, *lines = table(estimates, "**")
    rule = ["---" if heading in TEXT_COLUMNS else "---:" for heading in headings]
    return "\n".join(f"| {' | '.join(line)} |" for line in (headings, rule, *lines))


def section(estimates: Sequence[Estimate], folder: Path) -> list[str]:
    """Draws the picture into ``folder``; the lines of a page about it, under a heading of the caller's."""
    from structops.bench.gpu_cost import picture

    name = "gpu-cost"
    picture.save(estimates, folder / name)
    caption = "How much of the least time each limit of the GPU takes, counted from the machine code and the boxes."
    parts = [EXPLANATION, "", limits(), ""]
    return [*parts, f"![{caption}]({name}.png)", "", f"{caption} ([SVG]({name}.svg))", "", markdown(estimates), ""]


def estimates_for(ops: Iterable[str]) -> tuple[list[Estimate], str | None]:
    """The estimates of those of the ops that have any, all when none is named; or why there are none here."""
    ops = list(ops)
    counted = [op for op in ops if op in OPS]
    if ops and not counted:
        return [], f"counted are {', '.join(OPS)}"
    missing = sass.missing_tools()
    if missing:
        return [], f"{' and '.join(missing)} not found"
    try:
        return count(ops=counted), None
    except FileNotFoundError as error:
        return [], str(error)
