"""The counted costs as tables, for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from structops.bench.gpu_cost import sass
from structops.bench.gpu_cost.estimates import Estimate, count
from structops.bench.gpu_cost.gpu import H200, Gpu
from structops.bench.gpu_cost.scenes import Family, ops

Counted = list[tuple[Family, list[Estimate]]]
TEXT_COLUMNS = ("op", "workload")

EXPLANATION = """\
An estimate, made without a GPU, from the machine code for sm_90 in the libraries, and the turns that the boxes and
shapes of a workload make warps take: what the kernels can hardly be faster than, and may well be slower. Stalls,
latencies and the launches themselves are not counted. Where a cell has two figures, the first is structops', the second
torchvision's (which is given float32, contiguous); cuDNN's machine code is not at hand.

- **launches** of structops are the kernels on its path, of torchvision its aten calls and the fills inside its own; "+
  n syncs": times that the host waits for the GPU.
- **instr./output**: instructions of a thread for each output element (of a gradient: for each of its elements). RoI
  operations: those in a loop and in no loop further in, times its turns, all branches of a loop taken to run, the slow
  path of a division not. Transposed convolutions and masks: the shortest way through a turn that does its work (copies,
  multiplies, writes), so a lower bound; activations and the code of blocks without work are left out.
- **fewest MB** is what any implementation has to read and write; **L2 MB** is what the kernels ask of the L2 cache
  beyond their outputs: each 32-byte sector once for as long as a block's share of the L1 cache can be expected to hold
  it; the tiles of a convolution are copied past the L1 cache, so every block's copies count.
- **memory, L2, L1, shared, issue, tensor**: the microseconds that structops' kernels need at least by each of these
  limits: bytes from and to memory (of copies and partial sums what is written, since reading it back finds it in the L2
  cache; torchvision's include clearing what it adds to, and copies), bytes from and to the L2 cache, lines looked up in
  the L1 cache, turns of 128 bytes of the shared memory (with the bank conflicts of the sums of a convolution; other
  accesses are taken to have none, as copies and fragments are laid out to; RoI operations: not counted), instructions,
  and instructions for tensor cores. Where blocks are alike, the last four are those of the multiprocessor that gets
  most blocks: **busiest** is its share over the mean. **least** is the largest of them; launches after each other are
  added up before, so a packing kernel that waits for memory and a product that waits for tensor cores hide each other
  here, as they do not on a GPU.
- **floor**: what any implementation needs: the fewest bytes from memory, or the operations (halves: on tensor cores at
  their best, else as fused multiply-adds), whichever takes longer. **MMA/need**: operations of the tensor-core
  instructions over those that the definition needs: padding of channels, positions and depth to whole tiles.
- float16 costs what bfloat16 does."""


def limits(gpu: Gpu = H200) -> str:
    issue = gpu.multiprocessors * gpu.issued_a_clock * gpu.clock
    tensor = gpu.multiprocessors * gpu.clock * gpu.tensor
    return (
        f"{gpu.name}: memory {gpu.memory / 1e12:g} TB/s (a large copy, measured on one); "
        f"L2 cache {gpu.l2 / 1e12:g} TB/s (assumed: about what others read from an H100's); {gpu.multiprocessors} "
        f"multiprocessors, each {gpu.issued_a_clock} warp instructions, one L1 line and 128 bytes of shared memory a "
        f"clock at {gpu.clock / 1e9:g} GHz: {issue / 1e9:,.0f} G instructions a second; tensor cores "
        f"{tensor / 1e12:.0f} TFLOP/s of halves, of which the kernels' mma.sync reaches {gpu.mma_share:.0%} "
        "(measured on an H100: arXiv:2402.13499)."
    )


def _number(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"


def shown_limits(estimates: Sequence[Estimate]) -> list[str]:
    """Limits that play a part in any of them."""
    sides = [side for e in estimates for side in (e.own, e.peer) if side]
    return [limit for limit in sides[0].times if any(side.times[limit] for side in sides)]


def headings(estimates: Sequence[Estimate]) -> list[str]:
    tensor = ["floor us", "MMA/need", "busiest"] if _has_products(estimates) else []
    return [
        *("op", "workload", "launches", "instr./output", "fewest MB", "L2 MB"),
        *shown_limits(estimates),
        *("least us", *tensor, "registers", "shared", "occupancy"),
    ]


def _has_products(estimates: Sequence[Estimate]) -> bool:
    return any(e.own.tensor_flops for e in estimates)


def cells(estimate: Estimate, family: Sequence[Estimate], strong: str = "") -> list[str]:
    """A row as text, in the columns of its family; ``strong`` is put around the limit that binds."""
    own, peer = estimate.own, estimate.peer

    def both(get, form=_number) -> str:
        return f"{form(get(own))} / {form(get(peer))}" if peer else form(get(own))

    def launches(side) -> str:
        return f"{side.launches} + {side.syncs} syncs" if side.syncs else f"{side.launches}"

    def time(limit: str) -> str:
        text = _number(own.times[limit] * 1e6) if own.times[limit] else "-"
        return f"{strong}{text}{strong}" if limit == own.limit else text

    least = (
        f"{_number(own.least * 1e6)} / {_number(peer.least * 1e6)} ({peer.limit})" if peer else _number(own.least * 1e6)
    )
    products = f"{own.tensor_flops / estimate.cost.flops:.2f}" if own.tensor_flops else "-"
    tensor = [_number(estimate.floor * 1e6), products, f"{own.busiest:.2f}"] if _has_products(family) else []
    return [
        estimate.op,
        estimate.title,
        both(launches, str),
        both(lambda side: side.instructions),
        _number(estimate.cost.bytes / 1e6),
        both(lambda side: side.l2_bytes / 1e6),
        *map(time, shown_limits(family)),
        least,
        *tensor,
        both(lambda side: side.registers, str),
        f"{own.shared / 1024:.1f} K" if own.shared else "-",
        both(lambda side: side.occupancy, lambda share: f"{share:.0%}"),
    ]


def table(estimates: Sequence[Estimate], strong: str = "") -> list[list[str]]:
    return [headings(estimates), *(cells(estimate, estimates, strong) for estimate in estimates)]


def markdown(estimates: Sequence[Estimate]) -> str:
    first, *lines = table(estimates, "**")
    rule = ["---" if heading in TEXT_COLUMNS else "---:" for heading in first]
    return "\n".join(f"| {' | '.join(line)} |" for line in (first, rule, *lines))


def section(counted: Counted, folder: Path, heading: str) -> list[str]:
    """Draws pictures into ``folder``; the lines of a page about them. ``heading``: what a family's begins with."""
    from structops.bench.gpu_cost import picture

    parts = [EXPLANATION, "", limits(), ""]
    caption = "How much of the least time each limit of the GPU takes"
    for family, estimates in counted:
        name = f"gpu-cost-{family.name.replace('_', '-')}"
        picture.save(estimates, shown_limits(estimates), folder / name)
        parts += [f"{heading} {family.title}", "", f"![{caption}: {family.title}]({name}.png)", ""]
        parts += [f"{caption}. ([SVG]({name}.svg))", "", markdown(estimates), ""]
    return parts


def estimates_for(wanted: Iterable[str]) -> tuple[Counted, str | None]:
    """The estimates of those of the ops that have any, all when none is named; or why there are none here."""
    wanted, known = list(wanted), ops()
    chosen = [op for op in wanted if op in known]
    if wanted and not chosen:
        return [], f"counted are {', '.join(known)}"
    missing = sass.missing_tools()
    if missing:
        return [], f"{' and '.join(missing)} not found"
    try:
        return count(ops=chosen), None
    except FileNotFoundError as error:
        return [], str(error)
