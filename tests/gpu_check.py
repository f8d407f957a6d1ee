"""`make gpu-check`: build, test, sanitize and benchmark on a machine with a GPU, with one short table at the end.

Needs no network and no virtual environment: the python3 that runs it must have torch, torchvision, triton, pytest,
pytest-benchmark, pybind11, setuptools, wheel and ninja, and nvcc must be found. Where there is no GPU every step
that can run without one does, and the others say that they were skipped and why. Standard library only.

    python3 tests/gpu_check.py [--out FOLDER] [--wheel FILE] [--budget SECONDS] [--only STEP ...]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


class Skipped(Exception):
    """Raised by a step that cannot run here, with the reason."""


@dataclass
class Result:
    step: str
    status: str  # passed, FAILED, skipped
    seconds: float
    note: str


class Check:
    def __init__(self, out: Path, wheel: Path | None, budget: float) -> None:
        self.out, self.wheel = out, wheel
        self.deadline = time.monotonic() + budget
        self.site = out / "site"
        self.gpu = self.probe("import torch; print(torch.cuda.is_available())") == "True"

    # --- running things

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(self.site), "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}

    def probe(self, code: str) -> str:
        run = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=self.out, env=self.environment
        )
        return run.stdout.strip() if run.returncode == 0 else f"(failed: {run.stderr.strip().splitlines()[-1:]})"

    def run(self, log: str, command: list[str], limit: float, **environment: str) -> str:
        """Run a command from the output folder (never from the root, whose structops/ would hide the installed one).

        Its output goes to ``log``; the last line that is not empty is returned. Raises on failure.
        """
        seconds = min(limit, self.deadline - time.monotonic())
        if seconds <= 5:
            raise Skipped("no time left of --budget")
        path = self.out / log
        with path.open("w") as sink:
            try:
                done = subprocess.run(
                    command, stdout=sink, stderr=subprocess.STDOUT, timeout=seconds, cwd=self.out,
                    env={**self.environment, **environment},
                )  # fmt: skip
            except subprocess.TimeoutExpired:
                raise RuntimeError(f"stopped after {seconds:.0f} s, see {log}") from None
        lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1].strip("= ") if lines else ""
        if done.returncode != 0:
            raise RuntimeError(f"exit code {done.returncode}, see {log}: {last}")
        return last

    def need_gpu(self) -> None:
        if not self.gpu:
            raise Skipped("no CUDA device")

    def pytest(self, log: str, *arguments: str, limit: float) -> str:
        parallel = ["-n", "8"] if self.probe("import xdist; print(1)") == "1" else []
        base = [sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT)]
        base += ["-p", "no:cacheprovider", f"--junitxml={self.out / log}.xml", *parallel]
        return self.run(log, [*base, *arguments], limit)

    # --- the steps, in order

    def machine(self) -> str:
        code = (
            "import torch, platform; g = torch.cuda.is_available();"
            "print(torch.__version__, '| python', platform.python_version(), '|', "
            "torch.cuda.get_device_name() if g else 'no CUDA device')"
        )
        if shutil.which("nvidia-smi"):
            self.run("nvidia-smi.log", ["nvidia-smi"], 30)
        return "torch " + self.probe(code)

    def build(self) -> str:
        shutil.rmtree(self.site, ignore_errors=True)
        what = str(self.wheel) if self.wheel else str(ROOT)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        started = time.monotonic()
        nvcc = shutil.which("nvcc") or Path("/usr/local/cuda/bin/nvcc").is_file()
        if self.wheel is None and not nvcc and self.gpu:
            raise RuntimeError("nvcc was not found: the CUDA library cannot be built")
        self.run("build.log", [*command, "--target", str(self.site), what], 400)
        seconds = time.monotonic() - started
        loaded = self.probe("from structops import _libraries as l; print(l.problems)")
        if "'_C': None" not in loaded or (self.gpu and "'_C_cuda': None" not in loaded):
            raise RuntimeError(f"libraries did not load: {loaded}")
        return f"{'wheel' if self.wheel else 'source'} installed in {seconds:.0f} s; {loaded}"

    def info(self) -> str:
        return self.run("info.log", [sys.executable, "-m", "structops", "info"], 60)

    def tests(self) -> str:
        """The ordinary tests, which take the GPU when there is one; `make test` is for machines without."""
        tests = ROOT / "tests"
        if not self.gpu:
            return "no CUDA device, so the short set: " + self.pytest(
                "tests.log", str(tests / "test_registry.py"), str(tests / "test_backend.py"), limit=200
            )
        others = [f"--ignore={tests / name}" for name in ("cuda_on_cpu", "static")]
        return self.pytest("tests.log", str(tests), *others, limit=200)

    def verify(self) -> str:
        self.need_gpu()
        command = [
            sys.executable,
            "-m",
            "structops",
            "verify",
            "--device",
            "cuda",
            "--junit",
            str(self.out / "verify.xml"),
        ]
        return self.run("verify.log", command, 150)

    def sanitize(self) -> str:
        self.need_gpu()
        tool = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
        if not Path(tool).is_file():
            raise Skipped("compute-sanitizer was not found")
        for name in ("memcheck", "racecheck", "initcheck", "synccheck"):
            command = [tool, "--tool", name, "--error-exitcode", "9", "--target-processes", "all"]
            self.run(f"sanitize-{name}.log", [*command, sys.executable, str(ROOT / "tests" / "gpu_sanitize.py")], 40,
                     PYTORCH_NO_CUDA_MEMORY_CACHING="1")  # fmt: skip
        return "memcheck, racecheck, initcheck, synccheck: no error"

    def bench(self) -> str:
        command = [sys.executable, "-m", "structops", "bench", "--quick"]
        command += ["--json", str(self.out / "bench.json"), "--report", str(self.out / "report")]
        self.run("bench.log", command, 160)
        return "see bench.log and report/"

    STEPS: tuple[Callable[[Check], str], ...] = (machine, build, info, tests, bench, sanitize, verify)

    def perform(self, only: list[str]) -> list[Result]:
        results = []
        for step in self.STEPS:
            name = step.__name__
            if only and name not in only:
                continue
            print(f"{name} ...", flush=True)
            started = time.monotonic()
            try:
                status, note = "passed", step(self)
            except Skipped as reason:
                status, note = "skipped", str(reason)
            except RuntimeError as error:
                status, note = "FAILED", str(error)
            results.append(Result(name, status, time.monotonic() - started, note))
            if name == "build" and status == "FAILED":
                break
        return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "out" / "gpu-check", help="folder for logs and results")
    parser.add_argument("--wheel", type=Path, help="install this wheel instead of building from source")
    parser.add_argument("--budget", type=float, default=570, help="seconds for all steps together")
    parser.add_argument("--only", nargs="*", default=[], help="names of the steps to run")
    options = parser.parse_args()
    known = [step.__name__ for step in Check.STEPS]
    if unknown := sorted(set(options.only) - set(known)):
        parser.error(f"--only: no step {', '.join(unknown)}; there are {', '.join(known)}")
    if options.wheel and not options.wheel.is_file():
        parser.error(f"--wheel: {options.wheel} is not a file")
    options.out.mkdir(parents=True, exist_ok=True)
    check = Check(options.out.resolve(), options.wheel and options.wheel.resolve(), options.budget)
    results = check.perform(options.only)
    (check.out / "gpu-check.json").write_text(json.dumps([vars(r) for r in results], indent=2) + "\n")
    bench = check.out / "bench.log"
    if bench.is_file():
        print(bench.read_text(errors="replace")[-6000:])
    print(f"\n{'step':10} {'status':8} {'seconds':>7}  note")
    for r in results:
        print(f"{r.step:10} {r.status:8} {r.seconds:7.1f}  {r.note[:160]}")
    print(f"\nlogs and results: {check.out}")
    return 1 if any(r.status == "FAILED" for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
