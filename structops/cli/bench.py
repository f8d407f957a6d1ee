"""``structops bench``: every op against its peer and against what the machine allows."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

import structops
from structops.bench import results, runner
from structops.bench.measure import settings
from structops.cli._request import Request
from structops.testing.workloads import torchvision_ops, workloads

REQUEST = Request("bench")
console = Console(width=None if sys.stdout.isatty() else 120)  # a log has no width of its own


def command(
    ops: Annotated[list[str] | None, typer.Argument(help="Ops to measure; all when none is named.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="The short set: about a minute on two cores.")] = False,
    json: Annotated[Path | None, typer.Option(help="Write every figure here (pytest-benchmark's format).")] = None,
    compare: Annotated[Path | None, typer.Option(help="Show the change since an earlier --json file.")] = None,
    factor: Annotated[
        float, typer.Option(help="With --compare: slower than before by more than this fails.")
    ] = results.REGRESSION,
    report: Annotated[Path | None, typer.Option(help="Write pictures and a page about them into this folder.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; otherwise both where there is a GPU.")] = None,
    backend: Annotated[str | None, typer.Option(help="native, triton or reference.")] = None,
) -> None:
    """Measure ops against torchvision and against this machine's own limit.

    Every result is checked before it is timed; structops and torchvision then take turns. "Of floor" is the time
    that the least possible memory traffic and arithmetic would take at the speed of a large copy and a large matrix
    product, measured in the same run, over the time taken.
    """
    _check(ops or [], device, backend, factor)
    then = None
    if compare is not None:
        try:
            then = results.load(compare)
        except ValueError as error:
            REQUEST.fail(f"{error}.")
    if report is not None:
        REQUEST.folder(report)
    REQUEST.file(json, "--json")
    if torchvision_ops() is None:
        console.print("torchvision is not installed: there will be no comparison.", style="yellow")

    with tempfile.TemporaryDirectory() as scratch:
        path = json or Path(scratch) / "results.json"
        status, failures, printed = _measure(path, ops or [], quick, device, backend)
        if status == 2:  # pytest: interrupted
            REQUEST.fail("interrupted.", status=130)
        if not failures and status not in (0, 1):
            REQUEST.fail(f"pytest could not run the benchmarks:\n{printed}", status=1)
        run = results.load(path) if path.is_file() else None
    for name, reason in failures:
        console.print(f"failed: {name}: {reason}", style="red", soft_wrap=True, highlight=False, markup=False)
    if run is None:
        raise typer.Exit(1)

    changes = results.compare(run, then) if then else None
    _print(run, changes, factor)
    if report is not None:
        from structops.bench.report import write

        console.print(f"report: {write(run, report)}", soft_wrap=True)
    regressed = changes is not None and any(change.beyond(factor) for change in changes.values())
    if failures or regressed:
        raise typer.Exit(1)


def _check(ops: list[str], device: str | None, backend: str | None, factor: float) -> None:
    REQUEST.packages({"pytest": "pytest", "pytest_benchmark": "pytest-benchmark"}, "bench")
    REQUEST.ops(ops, workloads())
    devices = REQUEST.device(device)
    REQUEST.backend(backend)
    if factor < 1:
        REQUEST.fail(f"--factor must be at least 1, got {factor}.")
    if not any(settings(d, backend) for d in devices):
        where = " or ".join(devices)
        reason = structops._backend.unusable(backend or "native", devices[0]) or "its times there mean nothing"
        REQUEST.fail(f"backend {backend or 'native'} cannot be measured on {where}: {reason}.")


def _measure(
    path: Path, ops: list[str], quick: bool, device: str | None, backend: str | None
) -> tuple[int, list[tuple[str, str]], str]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task("collecting", total=None)
        watch = runner.Progress(
            begin=lambda total: bar.update(task, total=total),
            step=lambda name, done: bar.update(task, description=name, completed=done),
        )
        status, printed = runner.run(watch, path, ops, quick, device, backend)
    return status, watch.failures, printed


def _print(run: results.Run, changes: dict[tuple[str, ...], results.Change] | None, factor: float) -> None:
    texts = None if changes is None else {row.key: _change(changes.get(row.key), factor) for row in run.rows}
    headings, *lines = results.table(run.rows, texts)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for heading in headings:
        text = heading in results.TEXT_COLUMNS
        table.add_column(heading, justify="left" if text else "right", no_wrap=heading != "workload")
    for cells in lines:
        table.add_row(*cells)
    console.print(table)
    console.print()
    for line in results.notes(run):
        console.print(line, highlight=False, soft_wrap=True)
    if changes is None:
        return
    slower = sum(change.beyond(factor) for change in changes.values())
    console.print(
        f"change: shortest time now over then, or on another machine the same for the ratio to the peer; "
        f"{slower} of {len(changes)} rows slower by more than {factor:g}x"
        " (where there is a peer, against the peer too).",
        style="red" if slower else "green",
        highlight=False,
        soft_wrap=True,
    )


def _change(change: results.Change | None, factor: float) -> str:
    if change is None:
        return "new"
    value = change.time if change.time is not None else change.against_peer
    if value is None:
        return "-"
    text = f"{value:.2f}x"
    return f"[red]{text}[/red]" if change.beyond(factor) else text
