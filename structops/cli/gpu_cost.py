"""``structops gpu-cost``: what the CUDA kernels cost, counted on a machine without a GPU."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from structops.cli._request import Request

REQUEST = Request("gpu-cost")
console = Console(width=None if sys.stdout.isatty() else 180)


def command(
    ops: Annotated[list[str] | None, typer.Argument(help="Ops to count; all that can be when none is named.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write a picture and a page into this folder.")] = None,
) -> None:
    """Count instructions, bytes and launches of the CUDA kernels beside what an H200 allows, and torchvision's.

    From the machine code in the built libraries and what the workloads make it do; it needs no GPU, and says which
    limit binds, not how long a kernel will take.
    """
    REQUEST.packages({"matplotlib": "matplotlib"} if report else {}, "bench")
    from structops.bench.gpu_cost import report as reports
    from structops.bench.gpu_cost.scenes import ops as with_scenes

    REQUEST.ops(ops or [], with_scenes())
    if report is not None:
        REQUEST.folder(report)
    found, problem = reports.estimates_for(ops or [])
    if problem:
        REQUEST.fail(f"{problem}.")
    for family, estimates in found:
        headings, *lines = reports.table(estimates)
        table = Table(box=None, header_style="bold", pad_edge=False, title=family.title, title_justify="left")
        for heading in headings:
            table.add_column(heading, justify="left" if heading in reports.TEXT_COLUMNS else "right")
        for cells in lines:
            table.add_row(*cells)
        console.print(table)
        console.print()
    console.print(reports.limits(), highlight=False)
    if report is not None:
        page = report / "index.md"
        page.write_text("\n".join(["# Cost on a GPU, counted", "", *reports.section(found, report, "##")]))
        console.print(f"report: {page}", soft_wrap=True)
