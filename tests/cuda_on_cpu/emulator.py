"""Calls emulated launchers with torch tensors in the place of device pointers."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import torch

from . import toolchain

ORDERS = ("forward", "reverse", "random")
TIMEOUT = 120  # seconds for one launcher: a kernel that spins on another thread's write never ends here

Argument = torch.Tensor | int | float | bool | None


class KernelError(RuntimeError):
    """A launch failed, or a sanitizer or the race checker reported something; the message is the report."""


def poisoned(*size: int, like: torch.Tensor, dtype: torch.dtype | None = None, **options: object) -> torch.Tensor:
    """An uninitialised device tensor, every byte 0xff: NaN, or -1."""
    tensor = like.new_empty(size, dtype=dtype or like.dtype)
    if options:
        tensor = torch.empty(size, dtype=dtype or like.dtype, **options)
    _flat(tensor).view(torch.uint8).fill_(0xFF)
    return tensor


def _flat(tensor: torch.Tensor) -> torch.Tensor:
    """The memory from the tensor's first element to its last, whatever its strides."""
    extent = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    return tensor.detach().as_strided((extent,), (1,))


class Emulator:
    """One library in one flavour. ``order`` and ``seed`` say in which order threads and blocks run; ``counts`` what its
    kernels have done: ``launches``; ``products`` and ``fragments`` (mma.sync and ldmatrix, of warps); ``copies``
    (cp.async, of threads) and ``copied``, those of them that read.
    """

    def __init__(self, library: Path, flavour: str) -> None:
        self.library, self.flavour = library, flavour
        self.order, self.seed = "forward", 0
        self.timeout = TIMEOUT
        self.counts: Counter[str] = Counter()
        self._worker: subprocess.Popen | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (closed by close)
        self.names: list[str] = []

    def _start(self) -> subprocess.Popen:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        if self.flavour == "asan":
            environment["LD_PRELOAD"] = toolchain.sanitizer_preload()
            # CPython itself leaks; and no fake stacks: fibers have stacks of their own.
            environment["ASAN_OPTIONS"] = "detect_leaks=0:detect_stack_use_after_return=0"
            environment["UBSAN_OPTIONS"] = "print_stacktrace=0"
        self._stderr.seek(0)
        self._stderr.truncate()
        self._worker = subprocess.Popen(
            [sys.executable, "-S", str(toolchain.HERE / "worker.py"), str(toolchain.MODULE), str(self.library)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=environment,
        )
        self.names = self._receive()
        return self._worker

    def _receive(self) -> object:
        try:
            return pickle.load(self._worker.stdout)
        except (EOFError, pickle.UnpicklingError):
            code = self._worker.wait()
            self._stderr.seek(0)
            text = self._stderr.read().decode(errors="replace")
            self._worker = None
            if code == -signal.SIGALRM:
                raise KernelError(f"the launcher was still running after {self.timeout} s") from None
            raise KernelError(_essence(text) or f"the process ended with {code}") from None

    def close(self) -> None:
        if self._worker is not None:
            self._worker.stdin.close()
            self._worker.wait()
            self._worker = None
        self._stderr.close()

    def launch(self, launcher: str, *arguments: Argument) -> int:
        """Run a launcher; tensors that it takes as pointers to non-const are changed in place.

        Returns:
            what the launcher returns where that is a number, else 0.

        Raises:
            KernelError: the launch failed or broke a rule.
        """
        worker = self._worker or self._start()
        tensors = [_flat(a) for a in arguments if isinstance(a, torch.Tensor)]
        raw = iter(t.view(torch.uint8).numpy().tobytes() for t in tensors)
        plain = [next(raw) if isinstance(a, torch.Tensor) else a for a in arguments]
        pickle.dump((launcher, plain, ORDERS.index(self.order), self.seed, self.timeout), worker.stdin)
        worker.stdin.flush()
        answer = self._receive()
        if isinstance(answer, Exception):
            raise answer
        report, value, contents, done = answer
        self.counts.update(done)
        for tensor, after in zip(tensors, contents, strict=True):
            if after:
                tensor.copy_(torch.frombuffer(bytearray(after), dtype=tensor.dtype))
        if report:
            raise KernelError(_with_source_lines(report))
        return value

    def __enter__(self) -> Emulator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _essence(stderr: str) -> str:
    """The lines of a sanitizer's report that say what and where."""
    wanted = re.compile(r"runtime error:|ERROR: AddressSanitizer|^(READ|WRITE) of size|^\s+#[0-5] |is located|Error: ")
    lines = [line for line in stderr.splitlines() if wanted.search(line)]
    return "\n".join(lines) or stderr[-2000:]


def _with_source_lines(report: str) -> str:
    """Replaces every ``library.so+0xoffset`` of a race report by ``function at file:line``."""

    def resolve(match: re.Match) -> str:
        command = ["addr2line", "-Cfpe", match[1], match[2]]
        try:
            return (
                subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(" (discr")[0].strip()
            )
        except (OSError, subprocess.CalledProcessError):
            return match[0]

    return re.sub(r"(/\S+\.so)\+(0x[0-9a-f]+)", resolve, report)
