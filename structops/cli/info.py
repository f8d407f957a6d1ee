"""``structops info``: what is installed, what can run where, and why not."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import structops
from structops import _libraries
from structops._backend import BACKENDS, current_backend, unusable
from structops.bench.machine import processor


def command() -> None:
    """Show versions, devices, usable backends (and why the others are not), build flags and the SIMD level."""
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False, soft_wrap=True)
    for title, rows in (
        ("versions", _versions()),
        ("devices", _devices()),
        ("libraries", _library_states()),
        ("build", _build()),
        ("backends", _backends()),
    ):
        table = Table(title=title, title_justify="left", show_header=False, box=None, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        for key, value in rows:
            table.add_row(f"  {key}", value)
        console.print(table)


def _versions() -> list[tuple[str, str]]:
    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    return [
        ("structops", f"{structops.__version__} ({Path(structops.__file__).parent})"),
        ("python", f"{platform.python_version()} ({platform.system()} {platform.machine()})"),
        ("torch", torch.__version__),
        ("CUDA of torch", torch.version.cuda or "none"),
        ("ROCm of torch", torch.version.hip or "none"),
        ("triton", installed("triton")),
        ("torchvision", installed("torchvision")),
    ]


def _devices() -> list[tuple[str, str]]:
    rows = [("cpu", f"{processor()}, {torch.get_num_threads()} threads")]
    for i in range(torch.cuda.device_count()):
        p = torch.cuda.get_device_properties(i)
        rows.append(
            (f"cuda:{i}", f"{p.name}, compute capability {p.major}.{p.minor}, {p.total_memory / 2**30:.0f} GiB")
        )
    if len(rows) == 1:
        rows.append(("cuda", "torch finds no GPU"))
    return rows


def _library_states() -> list[tuple[str, str]]:
    return [
        (name, "[green]loaded[/green]" if problem is None else f"[yellow]not loaded[/yellow]: {escape(problem)}")
        for name, problem in _libraries.problems.items()
        if name.startswith("_C")
    ]


def _build() -> list[tuple[str, str]]:
    if not _libraries.loaded("_C"):
        return [("_C", "not built")]
    try:
        info = _libraries.build_info()
    except RuntimeError as error:  # STRUCTOPS_SIMD names no instruction set
        return [("simd", f"[red]{escape(str(error).splitlines()[0])}[/red]")]
    asked = os.environ.get("STRUCTOPS_SIMD")
    info["simd"] = f"{info['simd']} ({f'STRUCTOPS_SIMD={asked}' if asked else 'the best this machine has'})"
    return list(info.items())


def _backends() -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for device in ("cpu", "cuda"):
        if device == "cuda" and not torch.cuda.is_available():
            rows.append((device, "[yellow]no device[/yellow]"))
            continue
        for name in BACKENDS:
            problem = unusable(name, device)
            state = "[green]usable[/green]" if problem is None else f"[yellow]not usable[/yellow]: {escape(problem)}"
            rows.append((f"{device} {name}", state))
    rows.append(("asked for", f"{current_backend()} (STRUCTOPS_BACKEND, or structops.backend(...))"))
    return rows
