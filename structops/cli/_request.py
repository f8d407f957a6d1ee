"""What the subcommands share: checking a request before anything runs, and refusing it in one sentence."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

import torch
import typer
from rich.console import Console

from structops._backend import BACKENDS


class Request:
    """The checks of one subcommand; each ends the process with exit status 2 and a sentence on stderr."""

    def __init__(self, command: str) -> None:
        self.command = command

    def fail(self, sentence: str, status: int = 2) -> NoReturn:
        text = f"structops {self.command}: {sentence}"
        Console(stderr=True).print(text, style="red", highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(status)

    def packages(self, needed: dict[str, str], extra: str) -> None:
        """``needed``: module -> the package that has it; ``extra``: what to install for all of them."""
        missing = [package for module, package in needed.items() if find_spec(module) is None]
        if missing:
            self.fail(f"needs {' and '.join(missing)}: pip install 'structops[{extra}]'.")

    def one_of(self, what: str, value: str | None, known: Iterable[str]) -> None:
        known = list(known)
        if value is not None and value not in known:
            self.fail(f"{what} must be one of {', '.join(known)}, got {value!r}.")

    def device(self, device: str | None) -> list[str]:
        """The device types asked for; without one, all that are there."""
        self.one_of("--device", device, ("cpu", "cuda"))
        if device == "cuda" and not torch.cuda.is_available():
            self.fail("--device cuda was asked for, and torch finds no GPU.")
        return [device] if device else ["cpu"] + ["cuda"] * torch.cuda.is_available()

    def backend(self, backend: str | None) -> None:
        self.one_of("--backend", backend, BACKENDS)

    def ops(self, ops: Iterable[str], known: Iterable[str]) -> None:
        known = list(known)
        for op in ops:
            if op not in known:
                self.fail(f"there is no op {op!r}; there are {', '.join(known)}.")

    def folder(self, folder: Path) -> None:
        """A folder that can be written to; made if missing."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            self.fail(f"cannot write into {folder}: {error.strerror or error}.")

    def file(self, file: Path | None, option: str) -> None:
        """A file that can be written in a folder that exists."""
        if file is None:
            return
        if file.is_dir():
            self.fail(f"{option} needs a file, and {file} is a folder.")
        if not file.parent.is_dir():
            self.fail(f"{option}: there is no folder {file.parent}.")
        if not os.access(file if file.exists() else file.parent, os.W_OK):
            self.fail(f"{option}: cannot write {file}.")
