"""A page about a run: the machine, the pictures, the table."""

from __future__ import annotations

from pathlib import Path

from structops.bench import pictures
from structops.bench.gpu_cost import report as gpu_cost
from structops.bench.results import Run, markdown_table, notes

EXPLANATION = """\
Through the ordinary API, with a fresh output each call. Every result was checked before it was timed; structops and
torchvision took turns, and the ratio is the median of the pairs ("once": a call too slow to repeat). torchvision was
always given contiguous inputs, the layout in which it is fastest; where it has no kernel for a type the other type is
named. "Of floor" is the time that the fewest bytes and operations would take at this machine's copy bandwidth and
matrix rate, both measured in the same run, over the time taken."""


def write(run: Run, folder: Path) -> Path:
    """Pictures and ``index.md``; returns the path of the latter. With the CUDA library built, the counted cost of its
    kernels too, GPU or not."""
    parts = ["# structops benchmarks", "", *(f"- {line}" for line in notes(run)), "", EXPLANATION, ""]
    for name, caption in pictures.draw(run, folder):
        parts += [f"![{caption}]({name}.png)", "", f"{caption} ([SVG]({name}.svg))", ""]
    parts += [markdown_table(run.rows), ""]
    counted, _ = gpu_cost.estimates_for({row.op for row in run.rows})
    if counted:
        parts += ["## Cost on a GPU, counted", "", *gpu_cost.section(counted, folder, "###")]
    page = folder / "index.md"
    page.write_text("\n".join(parts))
    return page
