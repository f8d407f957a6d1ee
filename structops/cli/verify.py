"""``structops verify``: every case of every op against its float64 definition, whoever implements it."""

from __future__ import annotations

import difflib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from structops._backend import unusable
from structops.cli._request import Request
from structops.testing import Error, Job, OpSpec, Result, interpreted, junit, plan, specs, usable_backends
from structops.testing.candidate import Candidate

REQUEST = Request("verify")
console = Console(width=None if sys.stdout.isatty() else 160, highlight=False)  # a log has no width of its own
SHOWN = 20  # failures printed in full


def command(
    ops: Annotated[list[str] | None, typer.Argument(help="Ops to verify; all when none is named.")] = None,
    backend: Annotated[str | None, typer.Option(help="native, triton or reference; otherwise all usable.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda; otherwise both where there is a GPU.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float16, bfloat16, float32 or float64; otherwise all.")] = None,
    case: Annotated[str | None, typer.Option(help="Only this case.")] = None,
    junit_file: Annotated[Path | None, typer.Option("--junit", help="Write every result here as JUnit XML.")] = None,
    candidate: Annotated[
        str | None, typer.Option(help="Judge this function instead, as module:function; it runs in its own process.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Error allowed relative to the largest input, in place of each type's own (float32: 2e-6 for "
            "structops, 1e-5 for a candidate)."
        ),
    ] = None,
) -> None:
    """Check ops against their definition: every case, type and layout, and every other promise.

    The table has the worst absolute error, the worst relative to the largest input, and the worst in units in the
    last place (beyond what the type's arithmetic can resolve where terms cancel). With --candidate any function with
    an op's signature is judged by the same cases; it may crash or hang. Exits with 1 when a check fails.
    """
    chosen = _chosen(ops or [], candidate)
    types = _types(dtype)
    cases = {c.name for spec in chosen for c in spec.cases} | {c.name for spec in chosen for c in spec.errors}
    if case is not None and case not in cases:
        close = difflib.get_close_matches(case, cases)
        REQUEST.fail(f"--case: there is no case {case!r}{'; did you mean ' + ' or '.join(close) if close else ''}.")
    if tolerance is not None and not 0 <= tolerance < float("inf"):
        REQUEST.fail(f"--tolerance must be 0 or more, got {tolerance}.")
    REQUEST.file(junit_file, "--junit")
    judge: Callable[[Job], Result] = Job.run
    process = None
    if candidate is not None:
        process = _start(candidate)
        judge = process.run
    try:
        jobs = _jobs(chosen, backend, device, types, candidate, tolerance)
        jobs = [job for job in jobs if case in (None, job.case.name)]
        if not jobs:
            REQUEST.fail("there is nothing to check: the case is not run for that type, backend or device.")
        start = time.perf_counter()
        results = _run(jobs, judge)
        seconds = time.perf_counter() - start
    finally:
        if process is not None:
            process.close()
    if junit_file is not None:
        try:
            junit.write(junit_file, results)
        except OSError as error:
            REQUEST.fail(f"cannot write {junit_file}: {error.strerror}.")
    console.print(_table(results))
    _report(results, seconds)
    if any(not result.passed for result in results):
        raise typer.Exit(1)


def _chosen(ops: list[str], candidate: str | None) -> list[OpSpec]:
    known = specs()
    if candidate is not None and not ops:
        name = candidate.rpartition(":")[2].rpartition(".")[2]
        if name not in known:
            REQUEST.fail(f"name the op whose signature {candidate} has: one of {', '.join(known)}.")
        ops = [name]
    if candidate is not None and len(ops) > 1:
        REQUEST.fail("a candidate has the signature of one op; name one.")
    REQUEST.ops(ops, known)
    return [known[op] for op in ops or known]


def _types(dtype: str | None) -> list[torch.dtype] | None:
    known = {str(t).removeprefix("torch."): t for spec in specs().values() for t in spec.dtypes}
    REQUEST.one_of("--dtype", dtype, known)
    return None if dtype is None else [known[dtype]]


def _start(candidate: str) -> Candidate:
    try:
        return Candidate(candidate)
    except ValueError as error:
        REQUEST.fail(f"{error}.")


def _jobs(
    chosen: list[OpSpec],
    backend: str | None,
    device: str | None,
    types: list[torch.dtype] | None,
    candidate: str | None,
    tolerance: float | None,
) -> list[Job]:
    REQUEST.backend(backend)
    devices = REQUEST.device(device)
    if candidate is not None and backend is not None:
        REQUEST.fail("--candidate is judged instead of a backend; leave out one of the two.")
    if backend == "triton" and "cuda" not in devices and "triton" not in sys.modules:
        os.environ.setdefault("TRITON_INTERPRET", "1")  # it must be set before triton is imported
    pairs = []
    for at in devices:
        if candidate is not None:
            pairs.append((candidate, at))
            continue
        names = usable_backends(at) if backend is None else [backend] if unusable(backend, at) is None else []
        pairs += [(name, at) for name in names]
    if not pairs:
        REQUEST.fail(f"backend {backend} cannot run on {devices[0]}: {unusable(backend or 'native', devices[0])}.")
    for name, at in pairs:
        if candidate is None and interpreted(name, at):
            console.print(f"{name} on {at} runs under Triton's interpreter: the short set of cases.", style="yellow")
    function = _in_the_child if candidate is not None else None
    return [job for name, at in pairs for spec in chosen for job in plan(spec, name, at, types, function, tolerance)]


def _in_the_child(**arguments: Any) -> torch.Tensor:
    """Stands for a candidate in this process, which never calls it."""
    raise AssertionError("the candidate runs in its own process")


def _run(jobs: list[Job], judge: Callable[[Job], Result]) -> list[Result]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    results = []
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=len(jobs))
        for job in jobs:
            bar.update(task, description=f"{job.spec.name} {job.target.backend} {job.check}")
            results.append(judge(job))
            bar.advance(task)
    return results


def _state(results: list[Result]) -> str:
    """One cell: what became of some checks."""
    failed = sum(not r.passed for r in results)
    if failed:
        return f"[red]{failed} of {len(results)} FAILED[/red]"
    ran = sum(r.skipped is None for r in results)
    if not ran:
        return "[yellow]none[/yellow]" if results else "-"
    return f"[green]{ran} ok[/green]"


def _table(results: list[Result]) -> Table:
    table = Table(title="structops verify", title_justify="left")
    for heading in ("op", "backend", "device", "dtype"):
        table.add_column(heading, overflow="fold")
    for heading in ("cases", "abs", "rel", "ulp", "values", "gradients", "grad rel", "determinism", "other promises"):
        table.add_column(heading, justify="right")
    groups: dict[tuple[str, str, str, torch.dtype], list[Result]] = {}
    for r in results:
        groups.setdefault((r.op, r.target.backend, r.target.device, r.target.dtype), []).append(r)
    known = specs()
    for (op, name, device, dtype), group in groups.items():
        of = {check: [r for r in group if r.check == check] for check in ("values", "gradients", "determinism")}
        other = [r for r in group if r.check not in of]
        exact = known[op].compare == "exact"
        errors = ["exact" if exact and all(r.passed for r in of["values"]) else "-"] * 3
        if not exact:
            errors = [f"{value:.2g}" for value in _worst(of["values"]).values()]
        table.add_row(
            op,
            escape(name),
            device,
            str(dtype).removeprefix("torch."),
            str(len({r.case for r in group if r.check != "error"})),
            *errors,
            _state(of["values"]),
            _state(of["gradients"]) if known[op].differentiable else "-",
            f"{_worst(of['gradients']).relative:.2g}" if known[op].differentiable else "-",
            _state(of["determinism"]),
            _state(other),
        )
    return table


def _worst(results: list[Result]) -> Error:
    worst = Error()
    for result in results:
        worst = worst.worst(result.error)
    return worst


def _report(results: list[Result], seconds: float) -> None:
    failed = [r for r in results if not r.passed]
    skipped = Counter((r.check, r.skipped) for r in results if r.skipped)
    for (check, reason), count in skipped.items():
        console.print(f"[yellow]skipped[/yellow] {count} {check}: {escape(reason)}", soft_wrap=True)
    # One line a case and check: the types and layouts that it fails in mostly share the reason.
    groups: dict[tuple[str, str, str], list[Result]] = {}
    for result in failed:
        groups.setdefault((result.op, result.check, result.case), []).append(result)
    for (op, check, case), group in list(groups.items())[:SHOWN]:
        times = f" ({len(group)} times; the first: {group[0].target})" if len(group) > 1 else f", {group[0].target}"
        where = escape(f"{op} {check}, case {case}{times}")
        message = escape((group[0].message or "").splitlines()[0])
        console.print(f"[red]FAILED[/red] {where}: {message}", soft_wrap=True)
    if len(groups) > SHOWN:
        names = sorted({case for _, _, case in list(groups)[SHOWN:]})
        console.print(f"and {len(groups) - SHOWN} more cases and checks: {escape(', '.join(names))}")
    total = f"{len(results)} checks in {seconds:.0f} s: {len(results) - len(failed)} passed, {len(failed)} failed"
    console.print(f"[{'red' if failed else 'green'}]{total}[/]")
