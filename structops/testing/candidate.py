"""Somebody else's function, judged in a process of its own: a crash or a hang is the failure of one case."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from structops.testing.plan import CHECKS, Job
from structops.testing.run import Result
from structops.testing.spec import specs


def load(path: str) -> Callable[..., Any]:
    """The function that ``module:function`` names; the module may be in the current directory.

    Raises:
        ValueError: with one sentence that says what is wrong.
    """
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(f"a candidate is named as module:function, got {path!r}")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ValueError(f"importing {module_name} failed: {error}") from error
        raise ValueError(f"there is no module {error.name!r} in {here} or among the installed packages") from error
    except Exception as error:
        raise ValueError(f"importing {module_name} failed: {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"module {module_name!r} has no {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise ValueError(f"{path} is a {type(found).__name__}, not a function")
    return found


class Candidate:
    """Runs jobs with the function that a path names, in a child process that is replaced when it dies.

    Arguments that ended it once are not tried again by other checks, which fail at once.

    Args:
        path: ``module:function``.
        limit: seconds that one check may take before it counts as hung.
        patience: how many dead children are too many; after that every job fails at once.
    """

    def __init__(self, path: str, limit: float = 60, patience: int = 50) -> None:
        self.path, self.limit, self.patience = path, limit, patience
        self._fatal: dict[tuple[str, str, torch.dtype], str] = {}  # case and type -> how a check of it ended
        self._child: subprocess.Popen | None = None
        self._pipe: Connection | None = None
        self._start()

    def run(self, job: Job) -> Result:
        """The job's result; ``job.target.function`` is not used, the child loads its own."""
        target = replace(job.target, function=None)
        result = Result(job.check, job.spec.name, job.case.name, target)
        arguments = (job.spec.name, job.case.name, target.dtype)
        if arguments in self._fatal:
            return replace(result, message=f"not run: {self._fatal[arguments]}")
        if self.patience <= 0:
            return replace(result, message="not run: the candidate has crashed or hung too often")
        if self._child is None:
            self._start()
        assert self._pipe is not None
        try:
            self._pipe.send((job.check, job.spec.name, job.case.name, target))
            if self._pipe.poll(self.limit):
                return self._pipe.recv()
            message = f"did not finish within {self.limit:g} s"
        except (EOFError, ConnectionError):
            message = ""
        self.patience -= 1
        code = self.close()
        message = message or f"the process died of {_reason(code)}"
        self._fatal[arguments] = f"in check {job.check} of this case and type {message}"
        return replace(result, message=message)

    def _start(self) -> None:
        self._pipe, theirs = Pipe()
        command = [sys.executable, "-m", __name__, self.path, str(theirs.fileno())]
        self._child = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdout=subprocess.DEVNULL)
        theirs.close()
        try:
            problem = self._pipe.recv()
        except EOFError:
            problem = f"importing it ended the process: {_reason(self._child.wait())}"
        if problem:
            self.close()
            raise ValueError(problem)

    def close(self) -> int:
        """Ends the child; its exit status (negative: the signal that it died of)."""
        if self._child is None or self._pipe is None:
            return 0
        self._pipe.close()
        try:
            code = self._child.wait(1)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        self._child = None
        return code


def _reason(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def _serve(path: str, pipe: Connection) -> None:
    try:
        function = load(path)
    except ValueError as error:
        pipe.send(str(error))
        return
    pipe.send(None)
    known = specs()
    while True:
        try:
            check, op, case, target = pipe.recv()
        except EOFError:
            return
        result = CHECKS[check](known[op], known[op].case(case), replace(target, function=function))
        pipe.send(replace(result, target=target))


if __name__ == "__main__":
    _serve(sys.argv[1], Connection(int(sys.argv[2])))
